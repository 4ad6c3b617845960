"""`facenet evaluate lfw | fmr`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.flags import (
    Detection,
    Embedding,
    Output,
    Running,
    command,
    open_recognizer,
)
from facenet.apps.cli.outlet import bar, note, print_json

app = typer.Typer(help="Evaluation: accuracy and false-match rates, with their protocol.")

SELECT = "With several faces in a picture: the rule that chooses."
Select = Annotated[str, typer.Option(help=SELECT)]


@app.command()
@command
def lfw(
    images: Annotated[Path, typer.Option(help="Folder Name/Name_0001.jpg.")],
    pairs: Annotated[Path, typer.Option(help="The pairs file, pairs.txt.")],
    detection: Detection,
    running: Running,
    embedding: Embedding,
    output: Output,
    select: Select = "center_weighted_size",
) -> int:
    """Accuracy on Labeled Faces in the Wild: 10 folds, facenet's protocol.

    A pair of which a picture is missing or has no face counts as "different".
    """
    from facenet.apps.jobs.lfw import evaluate_lfw

    recognizer = open_recognizer(detection, running, embedding)
    with bar("pictures") as done:
        report = evaluate_lfw(images, pairs, recognizer, select=select, done=done)
    for problem in report.problems:
        note(problem)
    print_json(report.to_dict()) if output.json else print(report.sentence())
    return 0


@app.command()
@command
def fmr(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    detection: Detection,
    running: Running,
    embedding: Embedding,
    output: Output,
    select: Select = "center_weighted_size",
    dataset: Annotated[str | None, typer.Option(help="Its name in the table [default: folder]")] = None,
    card: Annotated[Path | None, typer.Option(help="Card (JSON) to write the table into.")] = None,
) -> int:
    """Count false matches: every picture against every picture of another person."""
    from facenet.apps.jobs.falsematch import measure_table, table_text, write_table

    recognizer = open_recognizer(detection, running, embedding)
    with bar("pictures") as done:
        table, problems = measure_table(
            images, recognizer, dataset=dataset or images.name, select=select, done=done
        )
    for problem in problems:
        note(problem)
    if card:
        write_table(card, table)
    print_json(table_text(table)) if output.json else print(table_text(table)["text"])
    return 0
