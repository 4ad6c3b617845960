"""`facenet bench startup | pipeline`: speed, printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.flags import Output, Places, Recognition, command
from facenet.apps.cli.outlet import print_json, print_rows

app = typer.Typer(
    help="Measure speed on this machine.",
    no_args_is_help=True,
)

Rounds = Annotated[int, typer.Option(help="Runs; the median counts.", min=1)]


@app.command()
@command
def startup(
    a: Annotated[Path, typer.Argument(help="A photo with one face.")],
    b: Annotated[Path, typer.Argument(help="Another photo with one face.")],
    output: Output,
    rounds: Rounds = 5,
) -> int:
    """Seconds from a cold start: import, help, verify.

    Medians over new processes; compare them only inside one run.
    """
    from facenet.apps.jobs.stopwatch import measure_startup

    rows = measure_startup(a, b, rounds=rounds)
    print_json(rows) if output.json else print_rows(rows, ["what", "seconds"])
    return 0


@app.command()
@command
def pipeline(photos: Places, output: Output, recognition: Recognition, rounds: Rounds = 5) -> int:
    """Milliseconds to read, detect and embed.

    Medians; compare them only inside one run.
    """
    from facenet.apps.jobs.stopwatch import measure_pipeline

    rows = measure_pipeline(photos, recognition.recognizer(), rounds=rounds)
    print_json(rows) if output.json else print_rows(rows, ["what", "milliseconds", "per_second"])
    return 0
