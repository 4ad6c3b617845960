"""Thresholds and their false-match rates, read from the table of a model's card.

FMR(t) = share of non-mated pairs with similarity >= t (ISO/IEC 19795-1). The table holds counts;
between its rows the count is interpolated on a logarithmic scale, before the first row up to all
pairs at a similarity of -1. Where the table saw nothing, the rule of three gives an upper bound:
3 / pairs. A search among N people makes N comparisons, so its false-positive rate is higher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ContractError, SettingsError
from facenet.models.calibration import Calibration
from facenet.models.card import FmrTable, ModelCard

DEFAULT_FMR = 1e-4
"""False-match rate of the default threshold: one wrong match in ten thousand comparisons."""
SLACK = 1e-12
"""Taken off the logarithm of a wanted count, so that rounding never gives a rate above it."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Similarity from which two faces match, and the FMR that goes with it (None: not known).

    source: what the FMR rests on, such as "87,294,040 pairs of lfw"; None when it is not known.
    """

    similarity: float
    fmr: float | None
    source: str | None = None


def false_match_rate(table: FmrTable, similarity: float) -> float:
    """Estimated share of non-mated pairs at or above a similarity; never below 3 / pairs.

    Above the last row of the table it is the rate of that row.
    """
    count = 10 ** float(np.interp(similarity, *_curve(table)))
    return min(1.0, max(count, 3.0) / table.pairs)


def lowest_fmr(table: FmrTable) -> float:
    """The lowest rate a table can speak of: 3 / pairs, or the rate of its last row."""
    return max(3, table.false_matches[-1]) / table.pairs


def similarity_at(table: FmrTable, fmr: float) -> float:
    """The lowest similarity whose false-match rate is at most `fmr`.

    Raises SettingsError for a rate below `lowest_fmr`.
    """
    lowest = lowest_fmr(table)
    if not lowest <= fmr < 1:
        raise SettingsError(
            f"fmr should be from {lowest:.2g} to below 1; got {fmr:g}. The table rests on "
            f"{table.pairs:,} pairs of {table.dataset}, which say nothing about rarer matches."
        )
    similarities, logs = _curve(table)
    wanted = np.log10(fmr * table.pairs) - SLACK
    return float(np.interp(-wanted, -logs, similarities))


def decide_threshold(
    card: ModelCard,
    *,
    fmr: float | None = None,
    threshold: float | None = None,
    calibration: Calibration | None = None,
    contract: str | None = None,
) -> Threshold:
    """The threshold to use: asked for by rate, by similarity, or the default rate.

    calibration: its table is used in place of the card's. contract: of the vectors that will be
    compared, where it is not the card's own (as with flip).
    Raises SettingsError when both are given, or a rate is needed and there is no table, and
    ContractError for a calibration of another model or of other options.
    """
    if fmr is not None and threshold is not None:
        raise SettingsError("Give either fmr or threshold, not both.")
    table = card.fmr
    if calibration is not None:
        _require_calibrated(contract or card.contract, calibration)
        table = calibration.fmr
    source = f"{table.pairs:,} pairs of {table.dataset}" if table else None
    if threshold is not None:
        if not -1 <= threshold <= 1:
            raise SettingsError(f"threshold should be a cosine from -1 to 1; got {threshold:g}.")
        known = false_match_rate(table, threshold) if table else None
        return Threshold(float(threshold), known, source)
    if table is None:
        raise SettingsError(
            f"{card.name} has no table of false-match rates, so its threshold is not known. "
            "Give threshold, or measure the table with `facenet evaluate all-pairs`."
        )
    rate = DEFAULT_FMR if fmr is None else fmr
    if calibration is not None and rate < lowest_fmr(table):
        raise SettingsError(
            f"fmr should be {lowest_fmr(table):.2g} or more with the calibration on "
            f"{calibration.dataset:.100}, which has {table.pairs:,} pairs of different people; got "
            f"{rate:g}. Calibrate on more people, ask for a higher rate, or decide by the rates "
            'that came with the model: calibration "card".'
        )
    return Threshold(similarity_at(table, rate), rate, source)


def probability(
    similarity: float | NDArray[np.floating], calibration: Calibration, prior: float | None = None
) -> NDArray[np.float64]:
    """Probability that two faces show one person, as a calibration knows it.

    similarity: () or (n,), of vectors of the calibration's contract. prior: share of pairs of one
    person among those that will be compared (of 1000 people who try a door, how many are the one
    they claim to be); by default that of the calibration. Returns float64 of the same shape.
    Raises SettingsError unless prior is between 0 and 1.
    """
    return calibration.logistic.probability(similarity, prior)


def identification_rate(fmr: float, comparisons: int) -> float:
    """FPIR, the chance that one or more of N comparisons is a false match: 1 - (1 - fmr)^N.

    comparisons: vectors that a search is compared with. It takes the comparisons of a search to
    be independent, as ISO/IEC 19795-1 does; they share a face, so the true rate is rather lower.
    Raises SettingsError for a rate outside 0 to 1 or fewer than one comparison.
    """
    _require_rate("fmr", fmr, comparisons)
    return 1.0 if fmr == 1 else -math.expm1(comparisons * math.log1p(-fmr))


def fmr_for_identification(fpir: float, comparisons: int) -> float:
    """The FMR per comparison at which N of them make a wanted FPIR: 1 - (1 - fpir)^(1/N).

    The inverse of `identification_rate`, with its arguments and errors.
    """
    _require_rate("fpir", fpir, comparisons)
    return 1.0 if fpir == 1 else -math.expm1(math.log1p(-fpir) / comparisons)


def _require_calibrated(contract: str, calibration: Calibration) -> None:
    if calibration.contract != contract:
        raise ContractError(
            f"A calibration should be of the model in use, {contract}; this one, made of "
            f"{calibration.dataset:.100}, is of {calibration.contract:.200}. Calibrate again with "
            "this model and these options."
        )


def _require_rate(name: str, rate: float, comparisons: int) -> None:
    if not (0 <= rate <= 1 and comparisons >= 1):
        raise SettingsError(
            f"{name} should be from 0 to 1, and comparisons 1 or more; got {rate:g} and "
            f"{comparisons:g}."
        )


def _curve(table: FmrTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Similarities from -1 on, and log10 of the counts, strictly falling.

    Rows without a match fall below one match; equal counts fall by a hair, so that the lowest
    of their similarities answers for the count.
    """
    similarity = np.array(table.similarity, np.float64)
    counts = np.array(table.false_matches, np.float64)
    if similarity[0] > -1:
        similarity = np.concatenate([[-1.0], similarity])
        counts = np.concatenate([[table.pairs], counts])
    logs = np.log10(np.maximum(counts, 0.5)) - np.cumsum(counts == 0)
    return similarity, logs - 1e-9 * np.arange(len(logs))
