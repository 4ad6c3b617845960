"""Identification as a record: CMC, FNIR at FPIR and the size of the gallery, with 95 % intervals.

The terms are those of NIST's FRVT 1:N and of `searches`. Intervals draw people with all their
searches, not searches; for FNIR at a FPIR each draw chooses its own threshold. The gallery is
held. Shares of people who are each searched once have Wilson's interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from facenet.errors import DataError, SettingsError
from facenet.evaluate.curves import pairs_needed, rate_name
from facenet.evaluate.intervals import (
    REPLICATES,
    Interval,
    percentiles,
    share_interval,
    subject_weights,
    wilson,
)
from facenet.evaluate.searches import Identified, Searches, identify
from facenet.evaluate.sweep import Bools, Floats, Labelled
from facenet.evaluate.tally import Done
from facenet.types import IntArray

FPIR_RATES = (0.1, 0.01, 0.003, 1e-3)
SCALING_RATES = (0.01, 0.1)
"""FPIR at which galleries of several sizes are compared: the first that is supported."""
RANKS = (1, 5, 10, 20)
CMC_RANKS = 100
POINTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of the pictures that are enrolled, and of those that are searched: int64, rising."""

    gallery: IntArray
    probes: IntArray


def split_gallery(person: IntArray, *, enrol: int = 1, seed: int = 0) -> Split:
    """Part a labelled set for searches.

    person: int64 (n,). Of every person with more than `enrol` pictures that many are drawn and
    enrolled; the others are mated probes, and the pictures of all other people non-mated ones.
    Raises SettingsError for `enrol` below 1, DataError when nobody has pictures enough.
    """
    if enrol < 1:
        raise SettingsError(f"enrol should be 1 picture per person or more; got {enrol}.")
    shuffled = np.random.default_rng(seed).permutation(len(person))
    order = shuffled[np.argsort(person[shuffled], kind="stable")]
    ranked = person[order]
    first = np.searchsorted(ranked, ranked, side="left")
    count = np.searchsorted(ranked, ranked, side="right") - first
    chosen = (count > enrol) & (np.arange(len(order)) - first < enrol)
    if not chosen.any():
        raise DataError(
            f"Searches need a person with {enrol + 1} pictures or more, {enrol} of them to enrol; "
            "there is none. Add pictures, or enrol fewer."
        )
    return Split(np.sort(order[chosen]), np.sort(order[~chosen]))


def identification_report(
    gallery: Labelled,
    probes: Labelled,
    *,
    enrolment: str = "max",
    rank: int = 1,
    replicates: int = REPLICATES,
    seed: int = 0,
    done: Done | None = None,
) -> dict[str, Any]:
    """Search every probe in a gallery, and say how far each number can be trusted.

    gallery, probes: vectors (n, d), (p, d) with their people; see `searches.identify` for
    `enrolment` and `done`. rank: within which the mate counts as found in FNIR. replicates, seed:
    of the bootstrap over people; the seed also draws the smaller galleries. Raises DataError when
    no probe shows a person who is enrolled, and as `searches.identify`.
    """
    found = identify(gallery, probes, enrolment=enrolment, seed=seed, done=done)
    whole = found.searches[-1]
    mated = int(whole.mated.sum())
    if mated == 0:
        raise DataError(
            f"Identification needs probes of people who are enrolled; none of {len(probes)} is. "
            "Add pictures of them, or check that the names agree."
        )
    others = len(probes) - mated
    rates = tuple(rate for rate in FPIR_RATES if pairs_needed(rate) <= others)
    draws = _Draws(whole, replicates, seed)
    return {
        "gallery": whole.gallery,
        "gallery_pictures": len(gallery),
        "enrolment": enrolment,
        "searches_mated": mated,
        "searches_non_mated": others,
        "failures": {
            "gallery": int(np.sum(~gallery.found)),
            "probes": int(np.sum(~probes.found)),
        },
        "rank": rank,
        "cmc": {str(k): _hits(whole, draws, k) for k in RANKS},
        "cmc_curve": [whole.hit_rate(k) for k in range(1, min(CMC_RANKS, whole.gallery) + 1)],
        "fnir_at_fpir": _points(whole, draws, rates, rank),
        "refused": {rate_name(f): _refusal(f, others) for f in FPIR_RATES if f not in rates},
        "fnir_curve": _fnir_curve(whole, rank),
        "scaling": gallery_scaling(found, rank=rank, replicates=replicates, seed=seed),
        "bootstrap": {"replicates": replicates, "seed": seed, "people": draws.people},
    }


def gallery_scaling(
    found: Identified, *, rank: int = 1, replicates: int = REPLICATES, seed: int = 0
) -> list[dict[str, Any]]:
    """What the size of the gallery does: one record per size, the smallest first.

    hit_rate: at rank 1, with its interval. Where the non-mated searches support it: fnir, with its
    interval, at the threshold that gives the FPIR `wanted` in this very gallery; fpir_held, that
    at the threshold of the whole gallery; fpir_predicted = 1 - (1 - FMR)**n there, as if
    comparisons were independent, from the share of all comparisons of the non-mated searches that
    reach it.
    """
    whole = found.searches[-1]
    others = int(np.sum(~whole.mated))
    wanted = next((rate for rate in SCALING_RATES if pairs_needed(rate) <= others), None)
    if wanted is None:
        return [_size(s, _Draws(s, replicates, seed)) for s in found.searches]
    held = whole.at_fpir(wanted, rank=rank).threshold
    fmr = found.tally.reaching(held) / found.tally.pairs
    records = []
    for searches in found.searches:
        draws = _Draws(searches, replicates, seed)
        values = _points(searches, draws, (wanted,), rank)[rate_name(wanted)]
        records.append(
            {
                **_size(searches, draws),
                "wanted": wanted,
                "fnir": values["fnir"],
                "fnir_ci": values["ci"],
                "fpir": values["fpir"],
                "threshold": values["threshold"],
                "threshold_held": held,
                "fpir_held": searches.fpir(held),
                "fpir_predicted": 1 - (1 - fmr) ** searches.gallery,
            }
        )
    return records


def _size(searches: Searches, draws: _Draws) -> dict[str, Any]:
    """The size of a gallery and its rank 1."""
    hits = _hits(searches, draws, 1)
    return {"gallery": searches.gallery, "hit_rate": hits["share"], "hit_rate_ci": hits["ci"]}


class _Draws:
    """Draws of people with their searches."""

    def __init__(self, searches: Searches, replicates: int, seed: int) -> None:
        self.number = np.unique(searches.person, return_inverse=True)[1]
        self.people = int(self.number.max()) + 1
        self.weights = subject_weights(self.people, replicates, seed).astype(np.float64)

    def share(self, good: Bools, among: Bools) -> Interval | None:
        """Interval of the share of good ones (p,) among some searches (p,)."""
        number, count = self.number[among], int(good[among].sum())
        people = len(np.unique(number))
        if people == len(number):
            return wilson(count, people)
        trials = np.bincount(number, minlength=self.people)
        hits = np.bincount(number, good[among], minlength=self.people)
        whole = self.weights @ trials
        values = (self.weights @ hits) / np.where(whole > 0, whole, np.nan)
        return share_interval(values, count / len(number), people)

    def fnir(self, searches: Searches, rates: tuple[float, ...], rank: int) -> Floats:
        """FNIR at rates, each draw with its own threshold: (replicates, rates)."""
        other, mate = searches.other[~searches.mated], searches.within(rank)
        by_other, by_mate = np.argsort(-other), np.argsort(-mate)
        first, second = self.number[~searches.mated][by_other], self.number[searches.mated][by_mate]
        refused = np.append(other[by_other], -np.inf)
        accepted = len(mate) - np.searchsorted(mate[by_mate][::-1], refused, side="right")
        values = np.full((len(self.weights), len(rates)), np.nan)
        for row, weight in enumerate(self.weights):
            alarms = np.cumsum(weight[first])
            found = np.concatenate([[0.0], np.cumsum(weight[second])])
            if alarms[-1] > 0 and found[-1] > 0:
                limits = (np.array(rates) + 1e-12) * alarms[-1]
                last = np.searchsorted(alarms, limits, side="right")
                values[row] = 1 - found[accepted[last]] / found[-1]
        return values


def _hits(searches: Searches, draws: _Draws, rank: int) -> dict[str, Any]:
    good = (searches.rank > 0) & (searches.rank <= rank)
    return {"share": searches.hit_rate(rank), "ci": _listed(draws.share(good, searches.mated))}


def _points(
    searches: Searches, draws: _Draws, rates: tuple[float, ...], rank: int
) -> dict[str, dict[str, Any]]:
    """FNIR at rates that are supported, with what it rests on."""
    points: dict[str, dict[str, Any]] = {}
    if not rates:
        return points
    drawn = draws.fnir(searches, rates, rank)
    people = len(np.unique(draws.number[searches.mated]))
    for column, rate in enumerate(rates):
        point = searches.at_fpir(rate, rank=rank)
        values, fnir = drawn[:, column], searches.fnir(point.threshold, rank=rank)
        good = percentiles(values) is not None
        alarms = searches.other >= point.threshold
        points[rate_name(rate)] = {
            "fnir": fnir,
            "ci": _listed(share_interval(values, fnir, people) if good else None),
            "fpir": point.far,
            "fpir_ci": _listed(draws.share(alarms, ~searches.mated)),
            "threshold": point.threshold,
            "false_positives": point.false_matches,
        }
    return points


def _refusal(rate: float, searches: int) -> str:
    return (
        f"FPIR {rate_name(rate)} needs {pairs_needed(rate):,} non-mated searches (3 / rate); "
        f"there are {searches:,}."
    )


def _fnir_curve(searches: Searches, rank: int) -> dict[str, list[float]]:
    """FNIR over FPIR at counts spread evenly on a logarithmic scale, rising in FPIR."""
    others = int(np.sum(~searches.mated))
    if others == 0:
        return {"threshold": [], "fpir": [], "fnir": []}
    counts = np.unique(np.geomspace(1, others, POINTS).round().astype(np.int64))
    points = {}
    for count in counts.tolist():
        point = searches.at_fpir(count / others, rank=rank)
        points[point.threshold] = point
    return {
        "threshold": list(points),
        "fpir": [point.far for point in points.values()],
        "fnir": [1 - point.tar for point in points.values()],
    }


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
