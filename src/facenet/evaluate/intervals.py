"""How far a number can be trusted: 95 % intervals.

Pairs share people, so the bootstrap draws people, not pairs: a mated pair weighs as often as its
person was drawn, a non-mated one as often as both were (the vertex bootstrap; pairs of a person
drawn twice with itself are left out, a known small bias). Counts of independent trials, and
shares that no draw can move (no error was seen), get Wilson's interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError
from facenet.evaluate.curves import crossing, rate_name
from facenet.types import IntArray

SUMMARY = ("auc", "eer", "d_prime")
"""What is said of all similarities at once."""
Z = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""
REPLICATES = 1000
NO_SPREAD = 1e-14
"""Variances up to this are rounding: similarities are rounded to 6e-8."""
CELLS = 8_000_000
"""Weights held at a time, so that a million pairs need no more memory than six thousand."""

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Moments = tuple[Floats, Floats, Floats]
"""Sums over the pairs of each draw, (k,) each: of weights, weighted values, weighted squares."""
Share = tuple[Floats, Floats]
"""A share of pairs: how much each adds to the part and to the whole, (n,) each."""


@dataclass(frozen=True, slots=True, eq=False)
class PairScores:
    """Scored pairs: similarity float64 (n,), minus infinity where a face was not found; same
    bool (n,); subject_a, subject_b int64 (n,): numbers of the people, from 0 up.

    Raises DataError for NaN, or columns of different lengths.
    """

    similarity: Floats
    same: NDArray[np.bool_]
    subject_a: IntArray
    subject_b: IntArray

    def __post_init__(self) -> None:
        columns = (self.similarity, self.same, self.subject_a, self.subject_b)
        if len({np.shape(column) for column in columns}) != 1:
            raise DataError("Scored pairs should have columns of one length; these have not.")
        bad = int(np.isnan(self.similarity).sum())
        if bad:
            raise DataError(
                f"Similarities should be numbers; {bad} of {len(self.similarity)} are NaN. Check "
                "the vectors they come from; a pair without a face is minus infinity."
            )

    @property
    def mated(self) -> Floats:
        """Similarities of pairs of one person: float64 (n,)."""
        return self.similarity[self.same]

    @property
    def non_mated(self) -> Floats:
        """Similarities of pairs of two people: float64 (m,)."""
        return self.similarity[~self.same]

    @property
    def subjects(self) -> int:
        """How many people there are."""
        return int(max(self.subject_a.max(), self.subject_b.max())) + 1


def wilson(count: float, total: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share of independent trials (Wilson, 1927).

    Raises DataError unless 0 <= count <= total and total > 0.
    """
    if not (total > 0 and 0 <= count <= total):
        raise DataError(f"A share should be of one trial or more; got {count:g} of {total:g}.")
    z = Z if confidence == 0.95 else _quantile(0.5 + confidence / 2)
    share, square = count / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / total + square / total / 4)
    return (
        0.0 if count == 0 else max(0.0, middle - half),
        1.0 if count == total else min(1.0, middle + half),
    )


def _quantile(share: float) -> float:
    """The standard normal quantile, by the standard library."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(share)


def subject_weights(subjects: int, replicates: int, seed: int) -> IntArray:
    """How often each person is drawn in each replicate: int64 (replicates, subjects)."""
    return _draw(np.random.default_rng(seed), subjects, replicates)


def _draw(generator: np.random.Generator, subjects: int, replicates: int) -> IntArray:
    """The next draws of a generator; few and few they are the same as all at once."""
    return generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=replicates)


def percentiles(values: Floats) -> Interval | None:
    """The middle 95 % of replicates: (n,) -> (low, high).

    Replicates that have no value are left out; None when that is more than one in twenty.
    """
    good = values[np.isfinite(values)]
    if len(good) == 0 or len(good) < 0.95 * len(values):
        return None
    low, high = np.percentile(good, [2.5, 97.5])
    return float(low), float(high)


def share_interval(values: Floats, estimate: float, trials: int) -> Interval | None:
    """Interval of a share: percentiles of its replicates (n,), widened to hold the estimate.

    Where no draw moves it, because all trials or none succeeded, Wilson's interval of `trials`
    independent ones: the number of people, not of pairs.
    """
    spread = percentiles(values)
    if spread is None or spread[0] == spread[1]:
        return wilson(estimate * trials, trials) if trials else None
    return min(spread[0], estimate), max(spread[1], estimate)


def value_interval(values: Floats, estimate: float) -> Interval | None:
    """Interval of a number that is no share: percentiles of its replicates (n,), widened to hold
    the estimate. None where no draw moves it: the draws say nothing then."""
    spread = percentiles(values)
    if spread is None or spread[0] == spread[1]:
        return None
    return min(spread[0], estimate), max(spread[1], estimate)


def summary_intervals(
    drawn: Mapping[str, Floats], values: Mapping[str, float | None], trials: int
) -> dict[str, Interval | None]:
    """Intervals of "auc", "eer" and "d_prime" from their replicates (n,), those of `values`.

    trials: of Wilson's interval, see `share_interval`. None where there is no value.
    """
    found: dict[str, Interval | None] = {}
    for name, value in values.items():
        if value is None:
            found[name] = None
        elif name == "d_prime":
            found[name] = value_interval(drawn[name], value)
        else:
            found[name] = share_interval(drawn[name], value, trials)
    return found


def separation(mated: Moments, non_mated: Moments) -> Floats:
    """d' in each draw, as `curves.d_prime` has it: (k,); NaN where it has no sense."""
    (one, first), (two, second) = _mean_variance(mated), _mean_variance(non_mated)
    pooled = (first + second) / 2
    return np.abs(one - two) / np.sqrt(np.where(pooled > NO_SPREAD, pooled, np.nan))


def _mean_variance(moments: Moments) -> tuple[Floats, Floats]:
    weight, values, squares = moments
    mean = _ratio(values, weight)
    return mean, _ratio(squares, weight) - mean**2


def replicate(
    scores: PairScores,
    *,
    rates: tuple[float, ...] = (),
    shares: Mapping[str, Share] = MappingProxyType({}),
    replicates: int = REPLICATES,
    seed: int = 0,
    cells: int = CELLS,
) -> dict[str, Floats]:
    """Every number of a verification, once per draw of people: name -> float64 (replicates,).

    "auc", "eer", "d_prime", "tar@1e-3" and "far@1e-3" for each of `rates` (the threshold is chosen
    anew in each draw, FAR never above the rate), and the shares of pairs that `shares` names, such
    as those that a protocol decides right at its own thresholds. The draws depend on seed and
    people alone, so that two models on the same pairs can be compared draw by draw. cells: weights
    held at a time.
    """
    order = np.argsort(-scores.similarity, kind="stable")
    ranked = scores.similarity[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    found: dict[str, list[Floats]] = {}
    for weight in _pair_weights(scores, replicates, seed, cells):
        values = _curve_values(weight[:, order], scores.same[order], ends, rates)
        values["d_prime"] = separation(
            _moments(scores, weight, scores.same), _moments(scores, weight, ~scores.same)
        )
        for name, (part, whole) in shares.items():
            values[name] = _ratio(_dot(weight, part), _dot(weight, whole))
        for name, column in values.items():
            found.setdefault(name, []).append(column)
    return {name: np.concatenate(columns) for name, columns in found.items()}


def _pair_weights(scores: PairScores, replicates: int, seed: int, cells: int) -> Iterator[Floats]:
    """Weights of all pairs, some replicates at a time: float64 (k, n)."""
    generator = np.random.default_rng(seed)
    step = max(1, cells // max(len(scores.similarity), scores.subjects))
    one = scores.subject_a == scores.subject_b
    for start in range(0, replicates, step):
        drawn = _draw(generator, scores.subjects, min(step, replicates - start))
        rows = drawn.astype(np.float64)
        weight = rows[:, scores.subject_a]
        weight[:, ~one] *= rows[:, scores.subject_b[~one]]
        yield weight


def _moments(scores: PairScores, weight: Floats, kind: NDArray[np.bool_]) -> Moments:
    """Of the pairs of a kind (n,) that have a similarity, weighted: (k, n) -> (k,) each."""
    there = (kind & np.isfinite(scores.similarity)).astype(np.float64)
    values = np.where(there > 0, scores.similarity, 0)
    return _dot(weight, there), _dot(weight, values), _dot(weight, values * values)


def _dot(weight: Floats, values: Floats) -> Floats:
    """Weighted sums: (k, n), (n,) -> (k,). Unlike BLAS the same whatever k is."""
    return np.asarray(np.einsum("kn,n->k", weight, values))


def _curve_values(
    weight: Floats, same: NDArray[np.bool_], ends: IntArray, rates: tuple[float, ...]
) -> dict[str, Floats]:
    """AUC, EER and TAR at rates of weighted pairs, the most similar first: each (k,)."""
    tmr = _shares(weight * same, ends)
    fmr = _shares(weight * ~same, ends)
    tmr, fmr = (np.pad(rows, ((0, 0), (1, 0))) for rows in (tmr, fmr))
    area = np.sum(np.diff(fmr, axis=1) * (tmr[:, 1:] + tmr[:, :-1]) / 2, axis=1)
    values = {"auc": area, "eer": crossing(fmr[:, ::-1], 1 - tmr[:, ::-1])}
    for rate in rates:
        last = np.sum(fmr <= rate + 1e-12, axis=1) - 1
        rows = np.arange(len(last))
        values[f"tar@{rate_name(rate)}"] = tmr[rows, last]
        values[f"far@{rate_name(rate)}"] = fmr[rows, last]
    drawn = np.isfinite(area)  # else a draw without any mated or any non-mated pair
    return {name: np.where(drawn, column, np.nan) for name, column in values.items()}


def _shares(weight: Floats, ends: IntArray) -> Floats:
    """Share of the weight that is accepted down to each end of a run of ties: (k, n) -> (k, m)."""
    total = np.cumsum(weight, axis=1)
    return _ratio(total[:, ends], total[:, -1:])


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole; NaN where nothing was drawn."""
    return np.asarray(part / np.where(whole > 0, whole, np.nan))


def difference_intervals(
    first: Mapping[str, Floats], second: Mapping[str, Floats]
) -> dict[str, Interval | None]:
    """Intervals of first minus second for what both have, draw by draw: name -> (low, high)."""
    return {
        name: percentiles(first[name] - second[name]) for name in sorted(first) if name in second
    }
