"""`facenet bench startup | pipeline`: speed, printed."""

from __future__ import annotations

from typing import Annotated

import typer

from facenet.apps.cli.flags import (
    Detection,
    Embedding,
    Output,
    Places,
    Running,
    command,
    open_recognizer,
)
from facenet.apps.cli.outlet import print_json, print_rows

app = typer.Typer(help="Measure speed on this machine; medians, compare only inside one run.")

Rounds = Annotated[int, typer.Option(help="Runs; the median counts.")]


@app.command()
@command
def startup(output: Output, photos: Places, rounds: Rounds = 5) -> int:
    """Seconds of `import facenet`, `facenet --help` and `facenet verify A B`, each from cold."""
    from facenet.apps.jobs.stopwatch import measure_startup

    rows = measure_startup(photos, rounds)
    print_json(rows) if output.json else print_rows(rows, ["what", "seconds"])
    return 0


@app.command()
@command
def pipeline(
    photos: Places,
    detection: Detection,
    running: Running,
    embedding: Embedding,
    output: Output,
    rounds: Rounds = 5,
) -> int:
    """Milliseconds per photo to read, detect and embed, and faces per second."""
    from facenet.apps.jobs.stopwatch import measure_pipeline

    rows = measure_pipeline(photos, open_recognizer(detection, running, embedding), rounds)
    print_json(rows) if output.json else print_rows(rows, ["what", "milliseconds", "per_second"])
    return 0
