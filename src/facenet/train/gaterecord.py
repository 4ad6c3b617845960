"""The outcome of a gate in the folder of a run, and what it forbids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facenet.errors import DataError, TrainingError
from facenet.files import written
from facenet.train.gate import Gate, GateRow

GATE = "gate.json"
"""The outcome, in the folder of a run."""


def write_gate(run: Path, outcome: Gate) -> None:
    """Keep the outcome as gate.json. Raises StorageError when the disk is full."""
    with written(run / GATE) as file:
        file.write(json.dumps(outcome.to_dict(), indent=1).encode())


def read_gate(run: Path) -> Gate | None:
    """The outcome in a run's folder, None where there is none. Raises DataError when damaged."""
    path = run / GATE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        rows = tuple(_row_from(row) for row in values["rows"])
        notes = tuple(map(str, values["notes"]))
        return Gate(bool(values["passed"]), float(values["allowed_loss"]), rows, notes)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} should be the outcome of a gate; it is damaged or of something else. Remove "
            "it and judge again by `facenet finetune --resume`."
        ) from error


def _row_from(row: Mapping[str, Any]) -> GateRow:
    """A row as `GateRow` has it, intervals as tuples."""
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
    }
    return GateRow(**plain)


def refusal(outcome: Gate) -> str | None:
    """Why a model is not published: a sentence with the largest loss; None when it may be."""
    if outcome.passed:
        return None
    worst = min(outcome.failed(), key=lambda row: row.difference or 0.0)
    return (
        f"The model failed the gate and is not published: {worst.sentence()}, where "
        f"{outcome.allowed_loss:g} may be lost. Train more gently (see docs/finetuning.md), or "
        "publish it with --publish-anyway."
    )


def check_gate(run: Path) -> None:
    """Raise TrainingError when the model of a run failed its gate; a run without one may pass."""
    outcome = read_gate(run)
    refused = None if outcome is None else refusal(outcome)
    if refused is not None:
        raise TrainingError(refused)
