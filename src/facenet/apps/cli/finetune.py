"""`facenet finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenet.apps.cli.flags import STOPPED, Output, command, flag
from facenet.apps.cli.outlet import note, print_json, training_bar
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.apps.jobs.finetuning import Finetuned
    from facenet.train.gate import Gate, GateRow

FAILED = 1
"""Exit code when the gate was not passed."""


@dataclass(frozen=True, slots=True)
class Finetuning:
    """What a run begins with."""

    base: str | None = flag(None, "Model to begin from: a name, a run's folder, or weights.")
    aligned: bool = flag(False, "The pictures are crops as the base takes them already.")
    recipe: str | None = flag(None, "YAML file whose sections are laid over the usual ones.")
    hold_out: float = flag(0.2, "Share of the people who are not learned, and judge.")
    hold_back: float = flag(0.2, "Share of the pictures of each learned person not learned.")
    no_gate: bool = flag(False, "Learn from everything and judge by nothing.")
    reference: list[str] | None = flag(
        None, "Set to judge by too: FILE.bin, or FOLDER:PAIRS as LFW's. May come several times."
    )
    allowed_loss: float = flag(0.002, "Share that a figure of the gate may lose.")
    train_batch_norm: bool = flag(False, "Let the normalisations learn; they are frozen otherwise.")
    workers: int = flag(0, "Processes that align; 0 = all cores granted.")
    seed: int = flag(666, "Of who judges, and of all random numbers of the training.")


@dataclass(frozen=True, slots=True)
class Publication:
    """What becomes of the model."""

    name: str | None = flag(None, "Make a model of this name when the gate is passed.")
    overwrite: bool = flag(False, "Replace the model of that name.")
    publish_anyway: bool = flag(False, "Make the model even when the gate is not passed.")


@command
def finetune(
    output: Output,
    asked: Finetuning,
    publication: Publication,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Pictures, a sub-folder per person.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Argument(help="Changes, such as loop.batch=32.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new run.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
) -> int:
    """Make a model better at the people of a folder, with proof.

    Aligns the pictures, trains in stages, and compares old and new model on people and pictures
    that were held out. Prints that table. Exit code 1 when the new model lost too much: it is then
    not published. Ctrl-C stops it so that it can go on (exit code 130).
    """
    from facenet.apps.jobs.training import training_room

    training_room("runs")
    with training_bar("fine-tuning") as done:
        answer = _run((folder, changes or [], out, resume), asked, publication, done)
    return _printed(answer, output)


def _run(
    places: tuple[Path | None, list[str], Path | None, Path | None],
    asked: Finetuning,
    publication: Publication,
    done: Any,
) -> Finetuned:
    """Begin, or go on. Raises SettingsError for arguments that do not go together."""
    from facenet.apps.jobs import finetuning

    folder, changes, out, resume = places
    publishing = finetuning.Publishing(
        publication.name, publication.overwrite, publication.publish_anyway
    )
    if resume is not None:
        if folder is not None or changes or out is not None or asked != Finetuning():
            raise SettingsError(
                "--resume goes on with a run as it was begun; leave out the folder, its changes "
                "and all options but those of the model that is made."
            )
        return finetuning.resume_finetuning(resume, publishing, note=note, done=done)
    if folder is None or asked.base is None or out is None:
        raise SettingsError(
            "facenet finetune needs DIR, --base NAME and --out RUN, or --resume RUN. See "
            "docs/finetuning.md."
        )
    settings = finetuning.FinetuneSettings(
        folder=str(folder),
        base=asked.base,
        aligned=asked.aligned,
        hold_out=asked.hold_out,
        hold_back=asked.hold_back,
        gate=not asked.no_gate,
        references=tuple(asked.reference or ()),
        allowed_loss=asked.allowed_loss,
        train_batch_norm=asked.train_batch_norm,
        recipe=asked.recipe,
        changes=tuple(changes),
        workers=asked.workers,
        seed=asked.seed,
    )
    return finetuning.finetune(settings, out, publishing, note=note, done=done)


def _printed(answer: Finetuned, output: Output) -> int:
    """Print how it ended; gives the exit code."""
    if output.json:
        print_json(answer.to_dict())
    else:
        print(summary_text(answer))
    if not answer.finished:
        return STOPPED
    if answer.refused is None or answer.published:
        return 0
    note(answer.refused)
    return FAILED


def summary_text(answer: Finetuned) -> str:
    """How a fine-tuning ended, for a person."""
    if not answer.finished:
        return (
            f"{answer.run}: stopped after {answer.steps} steps "
            f"(facenet finetune --resume {answer.run} goes on)"
        )
    lines = [f"{answer.run}: finished after {answer.steps} steps from {answer.base}"]
    if answer.gate is None:
        lines.append("nothing was held out, and nothing judged (--no-gate)")
    else:
        lines += gate_lines(answer.gate)
    if answer.published:
        lines.append(f"published as {answer.published}")
    return "\n".join(lines)


def gate_lines(gate: Gate) -> list[str]:
    """The table of the gate with its verdict and notes."""
    table = [("set", "figure", "before", "now", "difference", "", "of"), *map(_cells, gate.rows)]
    widths = [max(len(row[column]) for row in table) for column in range(6)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[6]])
        for row in table
    ]
    verdict = "passed" if gate.passed else "NOT passed"
    lines.append(f"gate {verdict}: a figure may lose {gate.allowed_loss:g}, more only by chance")
    return [*lines, *(f"note: {text}" for text in gate.notes)]


def _cells(row: GateRow) -> tuple[str, ...]:
    verdict = ("ok" if row.passed else "LOST") if row.judged else "-"
    return (
        row.set,
        row.figure,
        _value(row.old, row.old_interval),
        _value(row.new, row.new_interval),
        _value(row.difference, row.difference_interval, "+.4f"),
        verdict,
        row.of,
    )


def _value(value: float | None, interval: tuple[float, float] | None, form: str = ".4f") -> str:
    if value is None:
        return ""
    if interval is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"
