"""`facenet train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.flags import STOPPED, Output, command
from facenet.apps.cli.outlet import note, print_json, training_bar


@command
def train(
    output: Output,
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe: YAML file, or the name of a shipped one.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, such as loop.batch=32.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new run.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
) -> int:
    """Train an embedder from pictures of people; stop and go on.

    Ctrl-C ends it after the step under way, with a checkpoint to go on from.

    Prints how it ended, with the best validation accuracy. RUN holds checkpoints (last, best),
    metrics.jsonl and report.html; `facenet export RUN --name NAME` makes a model of it. Exit code
    130 when it was stopped.
    """
    from facenet.apps.jobs.training import train as run

    with training_bar("training") as done:
        summary, folder = run(recipe, changes or [], out, resume, note=note, done=done)
    answer = {"run": str(folder), **asdict(summary)}
    print_json(answer) if output.json else print(summary_text(answer))
    return 0 if summary.finished else STOPPED


def summary_text(answer: dict[str, object]) -> str:
    """How a run ended, for a person."""
    ended = "finished" if answer["finished"] else "stopped (facenet train --resume goes on)"
    lines = [f"{answer['run']}: {ended} after {answer['steps']} steps"]
    if answer["accuracy"] is not None:
        lines.append(
            f"best accuracy {answer['accuracy']:.4f} on {answer['judged_by']}, "
            f"step {answer['best_step']}"
        )
    lines.append(
        f"{answer['images_per_s']:.1f} pictures/s; steps waited for pictures "
        f"{answer['waiting']:.1%} of the time"
    )
    return "\n".join(lines)
