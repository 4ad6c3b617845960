"""Thresholds and their false-match rates, read from the table of a model's card.

FMR(t) = share of non-mated pairs with similarity >= t (ISO/IEC 19795-1). The table holds counts;
between its rows the count is interpolated on a logarithmic scale. Where the table saw nothing,
the rule of three gives an upper bound: 3 / pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facenet.errors import SettingsError
from facenet.models.card import FmrTable, ModelCard

DEFAULT_FMR = 1e-4
"""False-match rate of the default threshold: one wrong match in ten thousand comparisons."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Similarity from which two faces match, and the FMR that goes with it (None: not known)."""

    similarity: float
    fmr: float | None


def false_match_rate(table: FmrTable, similarity: float) -> float:
    """Estimated share of non-mated pairs at or above a similarity; never below 3 / pairs."""
    count = 10 ** float(np.interp(similarity, table.similarity, _log_counts(table)))
    return min(1.0, max(count, 3.0) / table.pairs)


def similarity_at(table: FmrTable, fmr: float) -> float:
    """The lowest similarity whose false-match rate is at most `fmr`.

    Raises SettingsError for a rate below what the pairs of the table can support.
    """
    lowest = 3 / table.pairs
    if not lowest <= fmr < 1:
        raise SettingsError(
            f"fmr should be from {lowest:.1g} to below 1; got {fmr:g}. The table rests on "
            f"{table.pairs:,} pairs of {table.dataset}, which say nothing about rarer matches."
        )
    logs = _log_counts(table)
    wanted = np.log10(fmr * table.pairs)
    if wanted >= logs[0]:
        return table.similarity[0]
    return float(np.interp(-wanted, -logs, table.similarity))


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
    similarity = similarity_at(card.fmr, DEFAULT_FMR if fmr is None else fmr)
    return Threshold(similarity, false_match_rate(card.fmr, similarity))


def _log_counts(table: FmrTable) -> np.ndarray:
    """log10 of the counts, strictly falling: rows without a match fall below one match."""
    counts = np.array(table.false_matches, np.float64)
    empty = np.cumsum(counts == 0)
    logs = np.log10(np.maximum(counts, 0.5)) - empty
    return np.asarray(logs - 1e-9 * np.arange(len(logs)))
