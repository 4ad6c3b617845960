"""The calibration of a model on somebody's own pictures: one frozen record, read from JSON.

`facenet calibrate` measures it, `gallery` decides by it. It carries what a similarity means: how
often people who differ reach it (a table with intervals), how much evidence it is (a logistic
function, as FoCal and BOSARIS of Brümmer fit it), and how the table did on people held out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from facenet.errors import FacenetError, ModelFileError, SettingsError
from facenet.files import written
from facenet.models.card import DIGEST, FmrTable, build_fmr
from facenet.models.catalog import models_folder
from facenet.models.records import build

MAX_BYTES = 4 * 1024 * 1024
"""A record has a few hundred rows; a larger file is something else."""
MAX_TEXT = 1000
MAX_COUNT = 2**53
"""Whole numbers up to this are exact as float64."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Logistic:
    """Similarity as evidence: LLR = slope * similarity + offset, a natural logarithm.

    prior: share of mated pairs that the fit was weighted for. excluded: pairs without a score (a
    face was not found), which were left out of the fit.
    """

    slope: float
    offset: float
    prior: float
    excluded: int = 0

    def __post_init__(self) -> None:
        _require(
            math.isfinite(self.slope) and math.isfinite(self.offset),
            f"The slope and the offset of a calibration should be finite; got {self.slope:g} and "
            f"{self.offset:g}.",
        )
        require_prior(self.prior)

    def llr(self, similarity: float | NDArray[np.floating]) -> Floats:
        """Log-likelihood ratio: mated against non-mated, above 0 for mated.

        similarity: () or (n,). Returns float64 of that shape; minus infinity (no face was found)
        stays minus infinity.
        """
        scores = np.asarray(similarity, np.float64)
        missing = np.isneginf(scores)
        line = self.slope * np.where(missing, 0.0, scores) + self.offset
        return np.asarray(np.where(missing, -np.inf, line))

    def probability(
        self, similarity: float | NDArray[np.floating], prior: float | None = None
    ) -> Floats:
        """Probability that a pair is mated: sigmoid(LLR + logit prior).

        similarity: () or (n,). prior: how common mated pairs are among those that will be compared,
        by default the prior of the fit. Raises SettingsError unless it is between 0 and 1.
        """
        share = self.prior if prior is None else prior
        require_prior(share)
        return sigmoid(self.llr(similarity) + logit(share))


@dataclass(frozen=True, slots=True)
class HeldOutRate:
    """A rate of a table made of some people, observed on others.

    printed: the rate that the table gives. threshold: its similarity. observed: share of the
    held-out non-mated pairs at or above it. ratio: observed / printed. ci: 95 % interval of
    `observed`, low and high. pairs: held-out non-mated pairs. within_factor_two: 1/2 <= ratio <=
    2; None when the data do not allow the claim, and `note` says what it needs. When the table
    cannot speak of the rate at all, threshold, observed and ratio are None and ci is empty.
    """

    printed: float
    threshold: float | None
    observed: float | None
    ratio: float | None
    ci: tuple[float, ...]
    pairs: int
    within_factor_two: bool | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of a model on one set of pictures.

    contract: of the vectors. created: date, ISO 8601. detector: its name. images, people: that
    were compared. fmr: false matches; fmr_low, fmr_high: 95 % interval of the rate of each row.
    held_out: by name of the rate, such as "1e-3". digest: SHA-256 of the inputs.
    Raises ModelFileError for fields that cannot be true.
    """

    contract: str
    model: str
    dataset: str
    created: str
    detector: str
    images: int
    people: int
    fmr: FmrTable
    fmr_low: tuple[float, ...]
    fmr_high: tuple[float, ...]
    logistic: Logistic
    held_out: Mapping[str, HeldOutRate]
    digest: str

    def __post_init__(self) -> None:
        for name in ("contract", "model", "dataset", "created", "detector"):
            text = getattr(self, name)
            wanted = f"Calibration.{name} should be 1 to {MAX_TEXT} characters; got {len(text)}."
            _require(0 < len(text) <= MAX_TEXT, wanted)
        _require(_is_date(self.created), f"created should be a date; got {self.created!r:.60}.")
        _require(
            DIGEST.fullmatch(self.digest) is not None,
            f"digest should be 64 lower-case hex digits; got {self.digest!r:.80}.",
        )
        _require(
            1 < self.people <= self.images < MAX_COUNT,
            "A calibration should be of two people or more, each with a picture; got "
            f"{_shown(self.people)} people and {_shown(self.images)} pictures.",
        )
        _check_table(self.fmr)
        _check_intervals(self.fmr, self.fmr_low, self.fmr_high)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data that `calibration_from_dict` reads back."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


def calibration_path(contract: str, home: Path | None = None) -> Path:
    """Where the calibration of a contract lies by default: in the folder of its model.

    Vectors with the mirror image summed in have one of their own.
    """
    model, _, options = contract.partition(":")
    ending = "+flip" if options.endswith("+flip") else ""
    return models_folder(home) / model / f"calibration{ending}.json"


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a record as JSON, whole or not at all. Raises StorageError."""
    text = json.dumps(calibration.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    with written(path) as file:
        file.write((text + "\n").encode("utf-8"))


def load_calibration(path: Path) -> Calibration:
    """Read a record from a JSON file. Raises ModelFileError when it is none."""
    where = str(path)[:300]
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        _require(len(raw) <= MAX_BYTES, f"it has more than {MAX_BYTES:,} bytes")
        data = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError, ModelFileError) as error:
        raise ModelFileError(
            f"{where} should be a calibration in JSON; {str(error)[:300]}. Make it with "
            "`facenet calibrate`."
        ) from error
    return calibration_from_dict(data, origin=where)


def calibration_from_dict(
    data: Mapping[str, Any], *, origin: str = "the calibration"
) -> Calibration:
    """Build a record; an unknown or missing key is an error that names it."""
    try:
        values = dict(data)
        values["fmr"] = build_fmr(values["fmr"])
        values["logistic"] = build(Logistic, values["logistic"])
        for name in ("fmr_low", "fmr_high"):
            values[name] = _numbers(name, values[name])
        values["held_out"] = {
            str(rate)[:20]: _held_out(entry) for rate, entry in values["held_out"].items()
        }
        return build(Calibration, values)
    except KeyError as error:
        reason = f"{error} is missing"
    except (FacenetError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = str(error)[:400].rstrip(".")
    raise ModelFileError(
        f"{origin} is no calibration: {reason}. Make it again with `facenet calibrate`."
    )


def require_prior(prior: float) -> None:
    """Raises SettingsError unless a prior is between 0 and 1."""
    if not 0 < prior < 1:
        raise SettingsError(
            f"prior should be the share of mated pairs, above 0 and below 1; got {prior:g}."
        )


def logit(share: float) -> float:
    """log(share / (1 - share)), for 0 < share < 1."""
    return math.log(share) - math.log1p(-share)


def sigmoid(logits: NDArray[np.floating]) -> Floats:
    """1 / (1 + exp(-x)) without overflow: () or (n,) -> float64 of the same shape."""
    values = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1 + small))


def _held_out(data: Mapping[str, Any]) -> HeldOutRate:
    ci = _numbers("ci", data["ci"])
    _require(len(ci) in (0, 2), f"ci should be two numbers or none; got {len(ci)}.")
    entry = build(HeldOutRate, {**data, "ci": ci})
    for name in ("printed", "threshold", "observed", "ratio"):
        _numbers(name, [value for value in [getattr(entry, name)] if value is not None])
    return entry


def _numbers(name: str, values: Sequence[Any]) -> tuple[float, ...]:
    """A tuple of finite numbers."""
    row = tuple(values)
    for value in row:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        _require(
            good and abs(value) <= MAX_COUNT,
            f"{name} should be finite numbers; got {_shown(value)}.",
        )
    return row


def _check_table(table: FmrTable) -> None:
    _numbers("fmr.similarity", table.similarity)
    whole = _numbers("fmr.false_matches", (table.pairs, *table.false_matches))
    _require(
        table.pairs > 0 and all(isinstance(count, int) for count in whole),
        "fmr.false_matches should be whole numbers of one pair or more.",
    )


def _check_intervals(table: FmrTable, low: Sequence[float], high: Sequence[float]) -> None:
    rows = len(table.similarity)
    _require(
        len(low) == len(high) == rows,
        f"fmr_low and fmr_high should have a number for each of the {rows} rows of fmr; they have "
        f"{len(low)} and {len(high)}.",
    )
    _require(
        all(0 <= a <= b <= 1 for a, b in zip(low, high, strict=True)),
        "fmr_low and fmr_high should be rates from 0 to 1, the low one first.",
    )


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value for a message: short, and without the cost of a very long number."""
    if isinstance(value, int) and abs(value) > MAX_COUNT:
        return "a number beyond 2**53"
    return f"{value!r:.60}"


def _require(truth: bool, message: str) -> None:
    if not truth:
        raise ModelFileError(message)


def _no_number(text: str) -> NoReturn:
    raise ModelFileError(f"{text} is no number of JSON")
