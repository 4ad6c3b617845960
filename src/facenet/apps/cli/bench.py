"""`facenet bench`: speed, printed. Without the name of a benchmark it is all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from facenet.apps.cli.flags import INSTRUCTIONS, Output, command, flag
from facenet.apps.cli.outlet import bar, note, print_json, print_rows

if TYPE_CHECKING:
    from facenet.apps.jobs.benching.settings import BenchSettings


class _AllByDefault(TyperGroup):
    """Without the name of a command, options are those of `all`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["all", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_AllByDefault,
    help="Measure speed on this machine: all of it, or what is named.",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """How much is measured, and beside whom; see `BenchSettings`."""

    quick: bool = flag(False, "Five runs on few inputs: about a minute.")
    against: str | None = flag(
        None, "Peers to measure in the same run: facenet-pytorch, insightface, opencv, faiss."
    )
    peer_python: str | None = flag(
        None, "The Python that peers are installed in; or one for each, with commas."
    )
    chart: Path | None = flag(None, "Draw the rows into this file too, .svg or .png.")


@dataclass(frozen=True, slots=True)
class Looking:
    """What is looked at; see `BenchSettings`."""

    video: Path | None = flag(None, "A video: its frames are the pictures.  [default: examples]")
    images: Path | None = flag(None, "A folder of photos.  [default: examples]")


@dataclass(frozen=True, slots=True)
class Seeing(Looking):
    """What is looked at, and what runs the networks."""

    engine: str = flag("auto", "Runtime: auto, onnxruntime or openvino.")
    instructions: str = flag("auto", INSTRUCTIONS)


@dataclass(frozen=True, slots=True)
class Searching:
    """What a search is measured with; see `SearchBench`."""

    rows: int = flag(1_000_000, "Faces of the generated gallery; 2.6 KB of disk each.")
    dimension: int = flag(512, "Values of a vector.")
    queries: int = flag(64, "Queries of a batch.")
    rounds: int = flag(9, "Runs of a batch; the median counts.")
    check: int = flag(10_000, "Queries whose answers are compared with every vector in fp32.")
    seed: int = flag(0, "Of everything that is drawn.")
    approximate: bool = flag(False, "Measure approximate search too, against the exact one.")
    force: bool = flag(False, "Measure it for fewer than two million faces too.")


Rounds = Annotated[int, typer.Option(help="Runs; the median counts.", min=1)]
Frames = Annotated[
    int | None,
    typer.Option(
        help="Of the long video in which memory is watched; 0: none.  [default: 20000, quick 2000]"
    ),
]
Photos = Annotated[
    int | None,
    typer.Option(
        help="Of the long run in which memory is watched; 0: none.  [default: 20000, quick 0]"
    ),
]


@app.command("all")
@command
def everything(output: Output, measured: Measured, seeing: Seeing) -> int:
    """All of these but startup, cluster, train and video.

    The same as `facenet bench` without a name; the search is in a small gallery.
    """
    return _measure(("detect", "embed", "pipeline", "latency", "search"), output, measured, seeing)


@app.command()
@command
def detect(output: Output, measured: Measured, seeing: Seeing) -> int:
    """Frames per second of each detector at three sizes.

    One at a time and together, with MTCNN's distance to its arithmetic floor.
    """
    return _measure(("detect",), output, measured, seeing)


@app.command()
@command
def embed(output: Output, measured: Measured, seeing: Seeing) -> int:
    """Faces per second of each network, arithmetic and batch."""
    return _measure(("embed",), output, measured, seeing)


@app.command()
@command
def pipeline(output: Output, measured: Measured, seeing: Seeing, photos: Photos = None) -> int:
    """Photos per second from files to vectors, its stages, and memory over a long run."""
    return _measure(("pipeline",), output, measured, seeing, photos=photos)


@app.command()
@command
def train(output: Output, measured: Measured) -> int:
    """Pictures per second of training, in bfloat16.

    Beside the same layers in a plain fp32 loop, and facenet-pytorch's network.
    """
    return _measure(("train",), output, measured)


@app.command()
@command
def video(output: Output, measured: Measured, seeing: Seeing, frames: Frames = None) -> int:
    """Frames per second of a video job, from file to file, at three sizes.

    Decoding, detection, tracks, names, drawing and encoding; beside facenet-pytorch's loop, which
    follows and names nobody; each stage; and memory over a long video.
    """
    return _measure(("video",), output, measured, seeing, frames=frames)


@app.command()
@command
def latency(output: Output, measured: Measured, seeing: Seeing) -> int:
    """Milliseconds of one photo, from its bytes to names.

    With 1, 5 and 20 faces, on one thread and on two.
    """
    return _measure(("latency",), output, measured, seeing)


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
def search(output: Output, measured: Measured, looking: Looking, searching: Searching) -> int:
    """Milliseconds, memory and recall of a gallery's search.

    A gallery of generated people is written to a temporary file, and removed at the end; pictures
    and a peer's Python are not needed, and not looked at where they are given.
    """
    from facenet.apps.jobs.benching.whole import measure_search_alone

    with bar("writing faces") as progress:
        found = measure_search_alone(
            _settings(measured, **asdict(looking)), asdict(searching), progress
        )
    return _show(found, output, measured.chart)


def _settings(measured: Measured, **more: Any) -> BenchSettings:
    """The settings that flags stand for; names are separated by commas. more: other fields."""
    from facenet.apps.jobs.benching.settings import BenchSettings

    if measured.chart is not None:
        from facenet.evaluate.speedchart import require_chart

        require_chart(measured.chart)
    return BenchSettings(
        quick=measured.quick,
        against=_names(measured.against),
        peer_python=_names(measured.peer_python),
        **more,
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def _measure(
    stages: Sequence[str],
    output: Output,
    measured: Measured,
    seeing: Seeing | None = None,
    **more: int | None,
) -> int:
    from facenet.apps.jobs.benching.whole import measure

    seen = asdict(seeing) if seeing else {}
    settings = _settings(measured, **seen, **more)
    with _watched() as progress:
        found = measure(stages, settings, progress=progress)
    return _show(found, output, measured.chart)


@contextmanager
def _watched() -> Iterator[Callable[[str], None]]:
    """The name of what was measured last, on stderr where a person watches."""
    if not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console

    with Console(stderr=True).status("measuring") as status:
        yield lambda name: status.update(f"measured {name}")


def _show(found: dict[str, Any], output: Output, chart: Path | None) -> int:
    """Print rows, tell notes, and draw."""
    from facenet.apps.jobs.benching.rows import table

    print_json(found) if output.json else print(table(found["results"]))
    for text in found["notes"]:
        note(text)
    if chart is not None:
        from facenet.evaluate.speedchart import save_chart

        save_chart(found["results"], chart)
    return 0
