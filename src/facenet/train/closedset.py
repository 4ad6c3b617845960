"""People who were learned: are new pictures of them recognised better than before?

Four questions, all on pictures that were held back: which of these people is it, when all learned
pictures are known; the same when one picture of each is known; are two new pictures of one person
told from two of different people, at a false-match rate; is a new picture found in a gallery of
them, at a rate of strangers who are found too. Naming people among a few hundred is easy for a good
model; the last two are what a threshold does, and show a difference long after the first stopped.

Rates and shares are those of ISO/IEC 19795-1; every interval is over the same draws of people for
both models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facenet import vectors
from facenet.evaluate.curves import pairs_needed, rate_name, tar_at_far
from facenet.evaluate.folds import Bools, Floats
from facenet.evaluate.intervals import (
    REPLICATES,
    Interval,
    percentiles,
    share_interval,
    subject_weights,
    wilson,
)
from facenet.train.gate import ALLOWED_LOSS, GateRow, passes
from facenet.types import FloatArray, IntArray

LEARNED_PEOPLE = "learned people"
RATES = (1e-2, 1e-3, 1e-4)
"""Rates of false matches, as far as there are pairs or strangers enough: 3 / rate."""
MOST = 1000
"""Pictures that are compared with each other, at most: half a million pairs."""
SOME = 32
"""The nearest of so many non-mated trials are looked at first, and so many at least."""
CELLS = 4_000_000
"""Similarities held at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownVectors:
    """What one model makes of the pictures: unit vectors float32 (n, d), (m, d) and (k, d)."""

    learned: FloatArray
    back: FloatArray
    strangers: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Pictures of people who were learned, as two models see them.

    learned, back, strangers: who is on the pictures that were learned (n,), that were held back
    (m,), and of people who were not learned (k,); int64, 0 and up, strangers counted by themselves.
    """

    learned: IntArray
    back: IntArray
    strangers: IntArray
    old: KnownVectors
    new: KnownVectors


@dataclass(frozen=True, slots=True)
class Judging:
    """How figures are judged: see `gate.gate`."""

    allowed_loss: float
    replicates: int
    seed: int


def known_rows(
    known: Known, *, allowed_loss: float = ALLOWED_LOSS, replicates: int = REPLICATES, seed: int = 0
) -> list[GateRow]:
    """Rows of the gate for the people who were learned; none when nothing was held back.

    "accuracy" and "one-shot"; "tar@1e-2" to "tar@1e-4" of pairs of held-back pictures and
    "tpir@1e-2" to "tpir@1e-4" of searches among strangers, where there are enough.
    """
    if not len(known.back):
        return []
    how = Judging(allowed_loss, replicates, seed)
    both = (known.old, known.new)
    named = [nearest_centre(v.learned, known.learned, v.back, known.back) for v in both]
    single = [one_shot(v.learned, known.learned, v.back, known.back) for v in both]
    rows = [
        _named_row("accuracy", known.back, (named[0], named[1]), how),
        _named_row("one-shot", known.back, (single[0], single[1]), how),
    ]
    pairs = [pair_trials(v.back, known.back, seed) for v in both]
    rows += _rate_rows("tar", pairs[0], pairs[1], how)
    if len(known.strangers):
        searches = [search_trials(known, v) for v in both]
        rows += _rate_rows("tpir", searches[0], searches[1], how)
    return rows


# ---- names


def nearest_centre(
    learned: FloatArray, labels: IntArray, probes: FloatArray, probe_labels: IntArray
) -> Bools:
    """Whether the nearest class centre is the right one: bool (m,).

    learned, probes: vectors (n, d) and (m, d). labels, probe_labels: int64 (n,) and (m,), 0 and up.
    A centre is the mean of a person's unit vectors; nearest by cosine similarity.
    """
    known, centre = centres(learned, labels)
    best = np.argmax(vectors.similarity_matrix(probes, centre), axis=1)
    return np.asarray(known[best] == probe_labels)


def centres(learned: FloatArray, labels: IntArray) -> tuple[IntArray, Floats]:
    """Who there is, (p,), and the sums of their unit vectors: (n, d), (n,) -> float64 (p, d)."""
    known, rows = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(known), learned.shape[1]), np.float64)
    np.add.at(sums, rows, vectors.unit(learned).astype(np.float64))
    return known, sums


def one_shot(
    learned: FloatArray,
    labels: IntArray,
    probes: FloatArray,
    probe_labels: IntArray,
    *,
    cells: int = CELLS,
) -> Floats:
    """How likely each probe is named right when one picture of each person is known: (m,).

    The known pictures are drawn evenly from each person's; the mean over all draws is exact: given
    that of the probe's own person, the others are independent. A tie is a wrong name. Arguments as
    for `nearest_centre`; cells: similarities held at a time.
    """
    order = np.argsort(labels, kind="stable")
    known, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    gallery = learned[order]
    shares = np.zeros(len(probes), np.float64)
    step = max(1, cells // len(gallery))
    for begin in range(0, len(probes), step):
        table = vectors.similarity_matrix(probes[begin : begin + step], gallery)
        for row, similarity in enumerate(table, begin):
            own = int(np.searchsorted(known, probe_labels[row]))
            shares[row] = _won(similarity, starts, counts, own, cells)
    return shares


def _won(similarity: FloatArray, starts: IntArray, counts: IntArray, own: int, cells: int) -> float:
    """The share of draws that the person `own` wins: similarity (n,) with all known pictures."""
    mine = similarity[starts[own] : starts[own] + counts[own]]
    step = max(1, cells // len(similarity))
    won = 0.0
    for begin in range(0, len(mine), step):
        below = similarity[None, :] < mine[begin : begin + step, None]
        less = np.add.reduceat(below, starts, axis=1, dtype=np.int64) / counts
        less[:, own] = 1.0
        won += float(less.prod(axis=1).sum())
    return won / len(mine)


def _named_row(
    figure: str, label: IntArray, shares: tuple[Bools | Floats, Bools | Floats], how: Judging
) -> GateRow:
    """Shares named right, before and after; the difference by draws of people."""
    people, person = np.unique(label, return_inverse=True)
    weights = subject_weights(len(people), how.replicates, how.seed)
    old, new = (share.astype(np.float64) for share in shares)
    whole = weights @ np.bincount(person)
    drawn = [weights @ np.bincount(person, share) / whole for share in (old, new)]
    total = len(label)
    words = f"{total} pictures of {len(people)} people, "
    if shares[0].dtype == np.bool_:
        intervals: list[Interval | None] = [
            wilson(float(share.sum()), total) for share in (old, new)
        ]
        words += f"{np.sum(new > old)} right only now, {np.sum(old > new)} only before"
    else:
        intervals = [
            share_interval(values, float(share.mean()), len(people))
            for values, share in zip(drawn, (old, new), strict=True)
        ]
        words += f"{np.sum(new > old)} easier now, {np.sum(old > new)} harder"
    difference = float(new.mean() - old.mean())
    interval = percentiles(drawn[1] - drawn[0])
    return GateRow(
        LEARNED_PEOPLE,
        figure,
        float(old.mean()),
        float(new.mean()),
        intervals[0],
        intervals[1],
        difference,
        interval,
        judged=True,
        passed=passes(difference, interval, how.allowed_loss),
        of=words,
    )


# ---- at a rate of false matches


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """Comparisons or searches of one model.

    mated: float64 (m,), similarity with the right one, minus infinity where another was nearer.
    person: int64 (m,), whose. other: float64 (k,), similarity where there is no right one. first,
    second: int64 (k,), the people of it; of a search there is no second. people: how many there
    are. of: what they are, in words.
    """

    mated: Floats
    person: IntArray
    other: Floats
    first: IntArray
    second: IntArray | None
    people: int
    of: str


def pair_trials(rows: FloatArray, label: IntArray, seed: int) -> Trials:
    """Every pair of some pictures: unit vectors (m, d), people (m,). Of more than 1000 pictures,
    so many are drawn."""
    if len(rows) > MOST:
        kept = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST])
        rows, label = rows[kept], label[kept]
    names, person = np.unique(label, return_inverse=True)
    a, b = np.triu_indices(len(rows), 1)
    values = vectors.similarity_matrix(rows, rows)[a, b].astype(np.float64)
    same = person[a] == person[b]
    return Trials(
        values[same],
        person[a[same]],
        values[~same],
        person[a[~same]],
        person[b[~same]],
        len(names),
        f"{np.sum(same)} mated and {np.sum(~same)} non-mated pairs of {len(rows)} pictures held "
        f"back, {len(names)} people",
    )


def search_trials(known: Known, seen: KnownVectors) -> Trials:
    """Searches of held-back pictures and of strangers among the centres of the people learned."""
    names, centre = centres(seen.learned, known.learned)
    table = vectors.similarity_matrix(seen.back, centre).astype(np.float64)
    right = names[np.argmax(table, axis=1)] == known.back
    mates, person = np.unique(known.back, return_inverse=True)
    others, stranger = np.unique(known.strangers, return_inverse=True)
    return Trials(
        np.where(right, table.max(axis=1), -np.inf),
        person,
        vectors.similarity_matrix(seen.strangers, centre).max(axis=1).astype(np.float64),
        stranger + len(mates),
        None,
        len(mates) + len(others),
        f"{len(person)} pictures held back, searched among {len(names)} people, and "
        f"{len(stranger)} of {len(others)} strangers",
    )


def _rate_rows(figure: str, old: Trials, new: Trials, how: Judging) -> list[GateRow]:
    """True matches at each rate that the trials can speak of."""
    rates = [rate for rate in RATES if pairs_needed(rate) <= len(old.other)]
    if not rates or not len(old.mated):
        return []
    weights = subject_weights(old.people, how.replicates, how.seed).astype(np.float64)
    drawn = [accepted(one, weights, rates) for one in (old, new)]
    rows = []
    for column, rate in enumerate(rates):
        shares = [tar_at_far(one.mated, one.other, rate).tar for one in (old, new)]
        values = [table[:, column] for table in drawn]
        people = len(np.unique(old.person))
        intervals = [
            share_interval(each, share, people) for each, share in zip(values, shares, strict=True)
        ]
        difference, interval = shares[1] - shares[0], percentiles(values[1] - values[0])
        rows.append(
            GateRow(
                LEARNED_PEOPLE,
                f"{figure}@{rate_name(rate)}",
                shares[0],
                shares[1],
                intervals[0],
                intervals[1],
                difference,
                interval,
                judged=True,
                passed=passes(difference, interval, how.allowed_loss),
                of=old.of,
            )
        )
    return rows


def accepted(trials: Trials, weights: Floats, rates: list[float]) -> Floats:
    """True matches at rates in draws of people, each with its own threshold: (draws, rates).

    weights: float64 (draws, people), how often each was drawn. A pair of two people weighs as often
    as both were. NaN for draws without any mated or any non-mated trial.
    """
    order, mates = np.argsort(-trials.other), np.argsort(-trials.mated)
    refused = np.append(trials.other[order], -np.inf)
    within = len(mates) - np.searchsorted(trials.mated[mates][::-1], refused, side="right")
    person, whole = trials.person[mates], _weighed(trials, weights)
    values = np.full((len(weights), len(rates)), np.nan)
    for row, weight in enumerate(weights):
        found = np.concatenate([[0.0], np.cumsum(weight[person])])
        if whole[row] > 0 and found[-1] > 0:
            limits = (np.array(rates) + 1e-12) * whole[row]
            alarms = _alarms(trials, order, weight, limits.max())
            last = np.searchsorted(alarms, limits, side="right")
            values[row] = found[within[last]] / found[-1]
    return values


def _weighed(trials: Trials, weights: Floats) -> Floats:
    """The weight of all non-mated trials in each draw: (draws,)."""
    if trials.second is None:
        return np.asarray(weights @ np.bincount(trials.first, minlength=trials.people))
    counts = np.zeros((trials.people, trials.people))
    np.add.at(counts, (trials.first, trials.second), 1)
    return np.asarray(np.sum((weights @ counts) * weights, axis=1))


def _alarms(trials: Trials, order: IntArray, weight: Floats, limit: float) -> Floats:
    """Sums of the weights of non-mated trials, the nearest first, until they pass the limit."""
    length = max(SOME, len(order) // SOME)
    while True:
        nearest = order[:length]
        weighed = weight[trials.first[nearest]]
        if trials.second is not None:
            weighed = weighed * weight[trials.second[nearest]]
        alarms = np.cumsum(weighed)
        if len(nearest) == len(order) or alarms[-1] > limit:
            return alarms
        length *= 4
