"""`facenet bench startup | pipeline | search`: speed, printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.flags import Output, Places, Recognition, command, flag
from facenet.apps.cli.outlet import bar, note, print_json, print_rows

app = typer.Typer(
    help="Measure speed on this machine.",
    no_args_is_help=True,
)


@dataclass(frozen=True, slots=True)
class Searching:
    """What a search is measured with; see `SearchBench`."""

    rows: int = flag(1_000_000, "Faces of the generated gallery; 2.6 KB of disk each.")
    dimension: int = flag(512, "Values of a vector.")
    queries: int = flag(64, "Queries of a batch.")
    rounds: int = flag(9, "Runs of a batch; the median counts.")
    check: int = flag(10_000, "Queries whose answers are compared with every vector in fp32.")
    against: str = flag("faiss", "Peer to measure in the same run: faiss, or none.")
    seed: int = flag(0, "Of everything that is drawn.")
    approximate: bool = flag(False, "Measure approximate search too, against the exact one.")
    force: bool = flag(False, "Measure it for fewer than two million faces too.")


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


@app.command()
@command
def search(output: Output, measured: Searching) -> int:
    """Milliseconds, memory and recall of a gallery's search.

    A gallery of generated people is written to a temporary file, and removed at the end.
    """
    from facenet.apps.jobs.searchbench import SearchBench, measure_search

    settings = SearchBench(**asdict(measured))
    with bar("writing faces") as progress:
        found = measure_search(settings, progress)
    for text in found["notes"]:
        note(text)
    columns = ["name", "unit", "median", "p95", "runs", "peer", "peer_median", "ratio"]
    print_json(found) if output.json else print_rows(found["results"], columns)
    return 0
