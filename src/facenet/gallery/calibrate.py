"""Thresholds and their false-match rates, read from the table of a model's card.

FMR(t) = share of non-mated pairs with similarity >= t (ISO/IEC 19795-1). The table holds counts;
between its rows the count is interpolated on a logarithmic scale, before the first row up to all
pairs at a similarity of -1. Where the table saw nothing, the rule of three gives an upper bound:
3 / pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import SettingsError
from facenet.models.card import FmrTable, ModelCard

DEFAULT_FMR = 1e-4
"""False-match rate of the default threshold: one wrong match in ten thousand comparisons."""
SLACK = 1e-12
"""Taken off the logarithm of a wanted count, so that rounding never gives a rate above it."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Similarity from which two faces match, and the FMR that goes with it (None: not known)."""

    similarity: float
    fmr: float | None


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
    card: ModelCard, *, fmr: float | None = None, threshold: float | None = None
) -> Threshold:
    """The threshold to use: asked for by rate, by similarity, or the default rate.

    Raises SettingsError when both are given, or a rate is needed and the card has no table.
    """
    if fmr is not None and threshold is not None:
        raise SettingsError("Give either fmr or threshold, not both.")
    if threshold is not None:
        if not -1 <= threshold <= 1:
            raise SettingsError(f"threshold should be a cosine from -1 to 1; got {threshold:g}.")
        rate = false_match_rate(card.fmr, threshold) if card.fmr else None
        return Threshold(float(threshold), rate)
    if card.fmr is None:
        raise SettingsError(
            f"{card.name} has no table of false-match rates, so its threshold is not known. "
            "Give threshold, or measure the table with `facenet evaluate fmr`."
        )
    rate = DEFAULT_FMR if fmr is None else fmr
    return Threshold(similarity_at(card.fmr, rate), rate)


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
