"""The 8-bit file of an embedder, and the record of what was measured of it on this machine.

Both lie beside the model in FACENET_HOME, and `facenet models quantize` makes them. A file is used
only when the record says that its vectors and its decisions are those of the model itself; where
it says that they are not, the record is kept and the file is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from facenet.errors import EngineError, FacenetError, ModelFileError
from facenet.models import disk
from facenet.models.card import DIGEST, Golden, ModelCard, build_golden
from facenet.models.catalog import models_folder
from facenet.models.effect import Effect
from facenet.models.records import build
from facenet.models.store import ModelStore

RECORD = "int8.json"
MAX_BYTES = 4 << 20
LEAST_MEDIAN = 0.99
"""Least median cosine of an 8-bit vector and the model's own, over crops held out."""


@dataclass(frozen=True, slots=True)
class Closeness:
    """How close 8-bit vectors are to those of fp32.

    kept: what stays in float, in words. layers: how many layers that are. lowest, median: cosines
    over `crops` faces that took no part in the calibration.
    """

    kept: str
    layers: int
    lowest: float
    median: float
    crops: int


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The pictures that ranges were taken from: how many, the SHA-256 over theirs in their order,
    the seed they were drawn with, and how many of them are among the pairs too."""

    pictures: int
    digest: str
    seed: int
    in_pairs: int


@dataclass(frozen=True, slots=True)
class Quantised:
    """What is known of an 8-bit file.

    offered: whether it may be used. reason: why, or why not, a sentence. sha256, bytes: of the
    file, "" and 0 where none was kept. source: SHA-256 of the model's own files by name. tries:
    what was tried, the last of them counts. effect: None where it did not come to that. tool,
    engine, processor: what made and measured it. created: date, ISO 8601. golden: its own answer
    to the known input, by which it is recognised elsewhere.
    Raises ModelFileError for a digest that is none, or without any try.
    """

    model: str
    offered: bool
    reason: str
    sha256: str
    bytes: int
    source: Mapping[str, str]
    calibration: Calibrated
    tries: tuple[Closeness, ...]
    effect: Effect | None
    tool: str
    engine: str
    processor: str
    created: str
    golden: Golden | None = None

    def __post_init__(self) -> None:
        if self.offered != bool(DIGEST.fullmatch(self.sha256)):
            raise ModelFileError(
                "The record of an 8-bit file should have its SHA-256, 64 lower-case hex digits, "
                f"exactly when the file is offered; got {self.sha256!r:.70}."
            )
        if not self.tries or (self.offered and not (self.golden and self.effect)):
            raise ModelFileError(
                "The record of an 8-bit file should say what was tried and, when it is offered, "
                "what it answers and what it does to decisions; this one does not."
            )

    @property
    def closeness(self) -> Closeness:
        """Of the last try, which counts."""
        return self.tries[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data that `read_record` reads back."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    def summary(self) -> dict[str, Any]:
        """The same without the long answer, and with the change of the accuracy."""
        data = self.to_dict()
        del data["golden"]
        return {**data, "change": self.effect.change if self.effect else None}


def quantised_path(card: ModelCard, home: Path) -> Path:
    """Where the 8-bit file of an embedder lies."""
    return models_folder(home) / card.name / f"{card.name}.int8.onnx"


def read_record(card: ModelCard, home: Path) -> Quantised | None:
    """The record of an embedder's 8-bit file; None where there is none.

    Raises ModelFileError for a damaged one.
    """
    path = quantised_path(card, home).with_name(RECORD)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        return _record(json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, card, repr(error)[:200]) from error
    except FacenetError as error:
        raise _damaged(path, card, str(error)[:200]) from error


def save_quantised(card: ModelCard, record: Quantised, data: bytes, store: ModelStore) -> None:
    """Write an 8-bit file with its record, or the record of a refusal alone (data empty).

    What was there before makes way. The record comes last, so that no file is used without its
    own. Raises StorageError.
    """
    path = quantised_path(card, store.home)
    with store.locked(card.name):
        if data:
            part = path.with_name(f"{path.name}.part")
            disk.write_new(part, data)
            disk.replace(part, path)
        else:
            disk.remove(path)
        disk.make_folder(path.parent)
        disk.write_text(path.with_name(RECORD), json.dumps(record.to_dict(), indent=1))


def require_quantised(card: ModelCard, store: ModelStore) -> Quantised:
    """The record of an 8-bit file that may be used for the model as it is here now.

    Raises EngineError that says why there is none, and the next step.
    """
    make = f"`facenet models quantize {card.name} --images DIR`"
    record = read_record(card, store.home)
    gone = record and record.offered and not quantised_path(card, store.home).is_file()
    if record is None or gone:
        raise EngineError(
            f"int8 was asked for; {card.name} has no 8-bit file on this machine. Make one with "
            f"{make}, or use another precision."
        )
    if dict(record.source) != store.digests(card):
        raise EngineError(
            f"int8 was asked for; the 8-bit file of {card.name} was made of other weights than "
            f"those that are here. Make it anew with {make}, or use another precision."
        )
    if not record.offered:
        raise EngineError(
            f"int8 was asked for; the 8-bit file of {card.name} was refused: {record.reason} Use "
            f"another precision, or try {make} with other pictures."
        )
    return record


def as_quantised(card: ModelCard, store: ModelStore) -> tuple[ModelCard, dict[str, Path]]:
    """An embedder as its 8-bit file: the card with that file's answer, and the checked path.

    Raises EngineError as `require_quantised` does, DigestError when a byte has changed.
    """
    record = require_quantised(card, store)
    path, stem = quantised_path(card, store.home), Path(card.files[0].path).stem
    advice = f"Make it anew with `facenet models quantize {card.name} --images DIR`."
    disk.check_digest(path, record.sha256, advice)
    assert record.golden is not None  # of one that is offered
    return replace(card, golden={stem: record.golden}), {stem: path}


def _record(data: Mapping[str, Any]) -> Quantised:
    effect, golden = data.get("effect"), data.get("golden")
    values = {
        "calibration": build(Calibrated, data["calibration"]),
        "tries": tuple(build(Closeness, each) for each in data["tries"]),
        "effect": None if effect is None else build(Effect, effect),
        "golden": None if golden is None else build_golden(golden),
    }
    return build(Quantised, {**data, **values})


def _damaged(path: Path, card: ModelCard, what: str) -> ModelFileError:
    return ModelFileError(
        f"{path} should be the record of an 8-bit file; {what.rstrip('.')}. Remove it, or make it "
        f"anew with `facenet models quantize {card.name} --images DIR`."
    )
