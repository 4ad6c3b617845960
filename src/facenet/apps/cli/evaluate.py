"""`facenet evaluate lfw | fmr`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.flags import Output, Recognition, command
from facenet.apps.cli.outlet import bar, note, print_json

app = typer.Typer(help="Accuracy and false-match rates on a data set.", no_args_is_help=True)

SELECT = (
    "With several faces in a picture: center_weighted_size, largest, probability or "
    "largest_over_threshold."
)
Select = Annotated[str, typer.Option(help=SELECT)]


@app.command()
@command
def lfw(
    images: Annotated[Path, typer.Option(help="Folder of Name/Name_0001.jpg.")],
    pairs: Annotated[Path, typer.Option(help="The pairs file, pairs.txt.")],
    output: Output,
    recognition: Recognition,
    select: Select = "center_weighted_size",
) -> int:
    """Accuracy on Labeled Faces in the Wild.

    facenet's protocol, 10 folds. A pair of which a picture is missing or has no face counts as
    "different".
    """
    from facenet.apps.jobs.lfw import evaluate_lfw

    with bar("pictures") as done:
        report = evaluate_lfw(images, pairs, recognition.recognizer(), select=select, done=done)
    for problem in report.problems:
        note(problem)
    print_json(report.to_dict()) if output.json else print(report.sentence())
    return 0


@app.command()
@command
def fmr(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    output: Output,
    recognition: Recognition,
    select: Select = "center_weighted_size",
    dataset: Annotated[
        str | None, typer.Option(help="Its name in the table.  [default: the folder's]")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Card (JSON) to write the table into.")] = None,
) -> int:
    """Count the false matches at each similarity.

    Every picture against every picture of another person.
    """
    from facenet.apps.jobs.falsematch import measure_table, require_card, table_text, write_table

    require_card(card)
    recognizer, name = recognition.recognizer(), dataset or images.resolve().name
    with bar("pictures") as done:
        table, problems = measure_table(images, recognizer, dataset=name, select=select, done=done)
    for problem in problems:
        note(problem)
    if card:
        write_table(card, table)
    print_json(table_text(table)) if output.json else print(table_text(table)["text"])
    return 0
