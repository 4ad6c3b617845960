"""Whether bfloat16 leaves an embedder's decisions as they are: on its card, or measured here.

`facenet models quantize --precision bf16` measures it on pictures of the user's own, and the record
lies beside the model in FACENET_HOME. `precision="auto"` takes bfloat16 only where this is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facenet.errors import EngineError, FacenetError, ModelFileError
from facenet.models import disk
from facenet.models.card import ModelCard
from facenet.models.catalog import models_folder
from facenet.models.effect import MOST_CHANGE, Effect
from facenet.models.records import build
from facenet.models.store import ModelStore

BF16 = "bf16"
RECORD = "bf16.json"
MAX_BYTES = 1 << 20
LEAST_MEDIAN = 0.999
"""Least median cosine of a vector in bfloat16 and the one in fp32."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What bfloat16 does to an embedder, measured on this machine.

    source: SHA-256 of the model's files by name. lowest, median: cosines of its vectors to those
    of fp32, over `crops` faces. engine, processor: what measured it. created: date, ISO 8601.
    """

    model: str
    source: Mapping[str, str]
    lowest: float
    median: float
    crops: int
    effect: Effect
    engine: str
    processor: str
    created: str

    @property
    def offered(self) -> bool:
        """Whether `precision="auto"` may take it."""
        return self.median >= LEAST_MEDIAN and self.effect.little

    @property
    def reason(self) -> str:
        """Why it may be taken, or why it may not: a sentence."""
        told = (
            f"Its vectors have a median cosine of {self.median:.6f} to those of fp32 (lowest "
            f"{self.lowest:.6f}, {self.crops} faces), and {self.effect.words()}"
        )
        if self.offered:
            return f"{told}."
        return f"{told}; at least {LEAST_MEDIAN} and at most {MOST_CHANGE} are allowed."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data that `read_measured` reads back."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    def summary(self) -> dict[str, Any]:
        """The same with what follows from it."""
        said = {"offered": self.offered, "reason": self.reason, "change": self.effect.change}
        return {**self.to_dict(), **said}


def measured_path(card: ModelCard, home: Path) -> Path:
    """Where the record of an embedder lies."""
    return models_folder(home) / card.name / RECORD


def read_measured(card: ModelCard, home: Path) -> Measured | None:
    """The record of an embedder; None where there is none. Raises ModelFileError for a damaged
    one."""
    path = measured_path(card, home)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        data = json.loads(path.read_text("utf-8"))
        return build(Measured, {**data, "effect": build(Effect, data["effect"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, FacenetError) as error:
        raise ModelFileError(
            f"{path} should be the record of a measurement in bf16; {str(error)[:200]}. Remove it, "
            f"or make it anew with {_command(card)}."
        ) from error


def save_measured(card: ModelCard, record: Measured, store: ModelStore) -> None:
    """Write a record; what was there before makes way. Raises StorageError."""
    path = measured_path(card, store.home)
    with store.locked(card.name):
        disk.make_folder(path.parent)
        disk.write_text(path, json.dumps(record.to_dict(), indent=1))


def require_measured(card: ModelCard, store: ModelStore) -> None:
    """Raise EngineError unless it is known that bfloat16 hardly changes an embedder's decisions.

    What was measured here, with the weights that are here, counts more than the card.
    """
    record = read_measured(card, store.home)
    if record is not None and dict(record.source) == store.digests(card):
        if not record.offered:
            raise EngineError(f"it was measured here and refused: {record.reason}")
        return
    effect = card.effects.get(BF16)
    if effect is None:
        raise EngineError(
            f"what it does to the decisions of {card.name} was not measured. Measure it with "
            f"{_command(card)}."
        )
    if not effect.little:
        raise EngineError(f"{effect.words()}; at most {MOST_CHANGE} is allowed.")


def _command(card: ModelCard) -> str:
    return f"`facenet models quantize {card.name} --precision {BF16} --images DIR`"
