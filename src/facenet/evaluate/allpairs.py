"""The error rates over every pair of a set of pictures, each with its 95 % interval, as a record.

Intervals are those of the vertex bootstrap over people (see `intervals`), on the pool of a sweep:

- TAR at a rate: the threshold is chosen anew in each draw. That needs a pool with three times the
  false matches of the rate; for higher rates the threshold is held, which makes the interval a
  little too narrow, and the record says so.
- FAR, at the printed threshold, which is held: only where the pool reaches down to it.
- AUC, EER and d': from the pool where it holds every pair. Else the numbers come from the
  histogram, whose bins are 2e-6 wide, and their intervals from coarse histograms of each person's
  pairs (see `persontally`).
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from facenet.errors import DataError
from facenet.evaluate.curves import RATES, crossing, pairs_needed, rate_name, refusal
from facenet.evaluate.falsematch import table_of
from facenet.evaluate.intervals import (
    REPLICATES,
    SUMMARY,
    Interval,
    Moments,
    percentiles,
    separation,
    share_interval,
    subject_weights,
    summary_intervals,
)
from facenet.evaluate.persontally import tally_intervals, tally_pairs
from facenet.evaluate.sweep import Sweep, Threshold
from facenet.evaluate.tally import BINS, EDGES, HALF
from facenet.types import IntArray

REACH = 3
"""Times the false matches of a rate that the pool has to hold for the threshold to be redrawn."""
POINTS = 200

Floats = np.ndarray[Any, np.dtype[np.float64]]


def all_pairs_report(
    sweep: Sweep, *, dataset: str, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Any]:
    """Everything a sweep says, as plain values.

    dataset: its name, for the table. replicates, seed: of the bootstrap over people. Rates go from
    1e-1 down as far as the pairs support them. Raises DataError where no pair of one person, or no
    pair of two, has a similarity.
    """
    scored = int(np.isfinite(sweep.mated).sum())
    if scored == 0 or sweep.tally.pairs == 0:
        raise DataError(
            "Error rates need pairs of one person and pairs of two people, all with a face; got "
            f"{scored} and {sweep.tally.pairs}. Add pictures of the missing kind."
        )
    rates, refused = supported_rates(sweep.pairs)
    points = {rate: sweep.threshold_at(rate) for rate in rates}
    draws = _Draws(sweep, points)
    weights = subject_weights(sweep.people, replicates, seed)
    drawn = draws.all(weights)
    with_face = sweep.subject[sweep.found]
    table = table_of(
        sweep.tally, images=len(with_face), people=len(np.unique(with_face)), dataset=dataset
    )
    return {
        **_counts(sweep, scored),
        "tar_at_far": {
            rate_name(rate): _point(sweep, draws, drawn, rate, point)
            for rate, point in points.items()
        },
        "refused": refused,
        **_summary(sweep, draws, drawn, weights),
        "fmr_table": asdict(table),
        "curves": {"roc": _roc(sweep), "histogram": _histogram(sweep)},
        "bootstrap": {"replicates": replicates, "seed": seed, "people": sweep.people},
    }


def supported_rates(pairs: int) -> tuple[tuple[float, ...], dict[str, str]]:
    """The rates that so many non-mated pairs can speak of, and why not of the others.

    Below those of `curves.RATES` it goes on by tens to the first that is not supported.
    """
    rates: list[float] = []
    refused: dict[str, str] = {}
    for step in range(1, 30):
        rate = float(f"1e-{step}")
        if pairs_needed(rate) <= pairs:
            rates.append(rate)
        elif rate >= RATES[-1] or not refused:
            refused[rate_name(rate)] = refusal(rate, pairs)
    return tuple(rates), refused


def _counts(sweep: Sweep, scored: int) -> dict[str, Any]:
    lost_mated = len(sweep.mated) - scored
    return {
        "pairs": sweep.pairs,
        "non_mated": sweep.pairs,
        "mated": len(sweep.mated),
        "people": sweep.people,
        "pictures": sweep.pictures,
        "failures": int(np.sum(~sweep.found)),
        "not_found": lost_mated + sweep.pairs - sweep.tally.pairs,
        "not_found_mated": lost_mated,
    }


def _point(
    sweep: Sweep, draws: _Draws, drawn: dict[str, Floats], rate: float, point: Threshold
) -> dict[str, Any]:
    """TAR at a rate, with what it rests on."""
    tar, name, far_ci = sweep.tmr(point.similarity), rate_name(rate), None
    if point.exact:
        far_ci = share_interval(drawn[f"far@{name}"], point.fmr, sweep.people)
    redrawn = draws.redraws(rate) and percentiles(drawn[f"tar@{name}"]) is not None
    interval = share_interval(drawn[f"{'tar' if redrawn else 'held'}@{name}"], tar, sweep.people)
    return {
        "tar": tar,
        "ci": _listed(interval),
        "far": point.fmr,
        "far_ci": _listed(far_ci),
        "threshold": point.similarity,
        "threshold_exact": point.exact,
        "threshold_in_draws": "redrawn" if redrawn else "held",
        "false_matches": point.false_matches,
    }


class _Draws:
    """What each draw of people needs of a sweep, looked up once."""

    def __init__(self, sweep: Sweep, points: dict[float, Threshold]) -> None:
        self.sweep = sweep
        self.rates = np.array(list(points))
        self.names = [rate_name(rate) for rate in points]
        self.pictures = np.bincount(sweep.subject).astype(np.float64)
        self.first = sweep.subject[sweep.pool_a]
        self.second = sweep.subject[sweep.pool_b]
        thresholds = np.array([point.similarity for point in points.values()])
        self.held_pool = _reaching(sweep.pool, thresholds)
        self.held_mated = _reaching(sweep.mated, thresholds)
        ends = np.append(sweep.pool, -np.inf)  # behind the last pair all scores are accepted
        self.accepted = len(sweep.mated) - np.searchsorted(sweep.mated[::-1], ends, side="right")
        if sweep.complete:
            levels = np.unique(np.concatenate([sweep.pool, sweep.mated, [-np.inf, np.inf]]))
            self.levels = _reaching(sweep.pool, levels), _reaching(sweep.mated, levels)
            self.levels[0][0] = len(sweep.pool) + 1  # with those that have no similarity
            self.scored = sweep.mated[np.isfinite(sweep.mated)]

    def redraws(self, rate: float) -> bool:
        """Whether the pool reaches far enough down for the threshold of a rate."""
        return self.sweep.complete or len(self.sweep.pool) >= REACH * rate * self.sweep.pairs

    def all(self, weights: IntArray) -> dict[str, Floats]:
        """Every number in every draw, by name: float64 (replicates,); weights: (n, people)."""
        rows = [self.one(weight.astype(np.float64)) for weight in weights]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def one(self, weight: Floats) -> dict[str, float]:
        """A draw: "tar@1e-3" at its own threshold, "held@" and "far@" at the printed one.

        weight: (people,), how often each was drawn. Where the pool is complete "auc", "eer" and
        "d_prime" too.
        """
        shares = weight * self.pictures
        pairs = (shares.sum() ** 2 - (shares * shares).sum()) / 2
        both, own = weight[self.first] * weight[self.second], weight[self.sweep.mated_subject]
        others, mated = _summed(both), _summed(own)
        if pairs <= 0 or mated[-1] <= 0:
            return dict.fromkeys(self._names(), math.nan)
        last = np.searchsorted(others[1:], (self.rates + 1e-12) * pairs, side="right")
        tar = mated[self.accepted[last]] / mated[-1]
        if not self.sweep.complete:
            tar[last == len(self.sweep.pool)] = np.nan  # the threshold is below the pool
        columns = (tar, mated[self.held_mated] / mated[-1], others[self.held_pool] / pairs)
        values = [float(value) for column in columns for value in column]
        if self.sweep.complete:
            fmr = np.append(others, pairs)[self.levels[0]] / pairs
            tmr = mated[self.levels[1]] / mated[-1]
            d_prime = separation(_moments(self.scored, own), _moments(self.sweep.pool, both))
            values += [_area(fmr, tmr), float(crossing(fmr, 1 - tmr)), float(d_prime[0])]
        return dict(zip(self._names(), values, strict=True))

    def _names(self) -> list[str]:
        found = [f"{kind}@{name}" for kind in ("tar", "held", "far") for name in self.names]
        return [*found, *SUMMARY] if self.sweep.complete else found


def _summed(weights: Floats) -> Floats:
    """Running sums that begin with 0: (n,) -> (n + 1,)."""
    return np.concatenate([[0.0], np.cumsum(weights)])


def _reaching(falling: Floats, levels: Floats) -> IntArray:
    """How many of (n,) are at or above each of (m,) levels: (m,)."""
    return len(falling) - np.searchsorted(falling[::-1], levels, side="left")


def _moments(scores: Floats, weight: Floats) -> Moments:
    """Of scores (n,) with the first n weights of (n or more,): (1,) each."""
    rows = weight[None, : len(scores)]
    return rows.sum(axis=1), rows @ scores, rows @ (scores * scores)


def _summary(
    sweep: Sweep, draws: _Draws, drawn: dict[str, Floats], weights: IntArray
) -> dict[str, Any]:
    """AUC, EER and d' with their intervals: of the pool where it holds every pair, else of the
    histogram."""
    values: dict[str, float | None]
    if sweep.by_person is None:
        plain = draws.one(np.ones(sweep.people))
        values = {"auc": plain["auc"], "eer": plain["eer"], "d_prime": _d_prime(sweep)}
        found = summary_intervals(drawn, values, sweep.people)
    else:
        values = _histogram_summary(sweep)
        mated = tally_pairs(
            sweep.mated, sweep.mated_subject, sweep.mated_subject, people=sweep.people
        )
        found = tally_intervals((mated, sweep.by_person), weights, values, trials=sweep.people)
    return {**values, **{f"{name}_ci": _listed(found[name]) for name in SUMMARY}}


def _histogram_summary(sweep: Sweep) -> dict[str, float | None]:
    fmr = np.concatenate([[sweep.pairs], sweep.tally.at_least]) / sweep.pairs
    edges = np.append(np.arange(BINS) / HALF - 1, np.inf)
    tmr = np.append(1.0, _reaching(sweep.mated, edges) / len(sweep.mated))
    eer = float(crossing(fmr, 1 - tmr))
    return {"auc": _area(fmr, tmr), "eer": eer, "d_prime": _d_prime(sweep)}


def _area(fmr: Floats, tmr: Floats) -> float:
    """Area under falling rows of rates, by trapezoids: ties count half."""
    area = float(np.sum(-np.diff(fmr) * (tmr[1:] + tmr[:-1]) / 2))
    return round(area, 12)  # so that the draws of an area of 1 are all alike


def _d_prime(sweep: Sweep) -> float | None:
    """As `curves.d_prime`, the non-mated similarities taken as the middles of their bins."""
    mated, counts = sweep.mated[np.isfinite(sweep.mated)], -np.diff(sweep.tally.at_least)
    if len(mated) < 2 or counts.sum() < 2:
        return None
    middles = (np.arange(BINS) + 0.5) / HALF - 1
    mean = np.average(middles, weights=counts)
    variance = np.average((middles - mean) ** 2, weights=counts)
    spread = math.sqrt((float(mated.var()) + float(variance)) / 2)
    return abs(float(mated.mean() - mean)) / spread if spread > 0 else None


def _roc(sweep: Sweep) -> dict[str, list[float]]:
    """Operating points at counts spread evenly on a logarithmic scale, rising in fmr."""
    counts = np.unique(np.geomspace(1, sweep.pairs, POINTS).round().astype(np.int64))
    points = {}
    for count in counts.tolist():
        point = sweep.threshold_at(count / sweep.pairs)
        points[point.similarity] = point
    return {
        "threshold": list(points),
        "fmr": [point.fmr for point in points.values()],
        "tmr": [sweep.tmr(similarity) for similarity in points],
    }


def _histogram(sweep: Sweep) -> dict[str, list[float]]:
    """Counts of both kinds in bins of 0.02, without the pairs that have no similarity."""
    edges = np.append(EDGES[::2], 1.0)
    others = -np.diff(np.append(sweep.tally.grid[::2], 0))
    mated = np.histogram(sweep.mated[np.isfinite(sweep.mated)], edges)[0]
    return {"edges": edges.tolist(), "mated": mated.tolist(), "non_mated": others.tolist()}


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
