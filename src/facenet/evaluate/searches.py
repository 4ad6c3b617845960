"""Searches of one probe among many people: closed set and open set, as NIST's FRVT 1:N counts.

A gallery enrols N people, each with one picture or several. A mated search is of a person who is
enrolled, a non-mated search of one who is not.

- CMC(k): share of the mated searches whose mate is within rank k; no threshold.
- FPIR(T): share of the non-mated searches in which any candidate reaches T.
- FNIR(R, T): share of the mated searches whose mate is not within rank R, or not at T or above.

Ties are decided against the system: all others at the similarity of the mate rank before it, and
a similarity equal to T reaches it. A probe without a face is a miss when it is mated and has no
candidate when it is not; a person without any face in the enrolled pictures stays enrolled and is
never found. The list of candidates is long enough for every rank that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import InputError, SettingsError
from facenet.evaluate.curves import Operating, tar_at_far
from facenet.evaluate.sweep import Bools, Floats, Labelled
from facenet.evaluate.tally import HALF, Counter, Done, Tally
from facenet.types import FloatArray, IntArray

ENROLMENTS = ("max", "mean")
SMALLEST = 10
"""People in the smallest of the galleries that are compared."""
CELLS = 2**24
"""Similarities held at a time: 64 MB."""
ROWS, COLUMNS = 2048, 4096


@dataclass(frozen=True, slots=True, eq=False)
class Searches:
    """What came of searching a gallery of `gallery` people; one entry per probe, (p,).

    person: int64, who the probe shows. mated: bool. rank: int64, of the mate, 1 for the best
    candidate, 0 where it is not found or not enrolled. mate: float64, similarity of the mate,
    minus infinity where rank is 0. other: float64, the best similarity of anybody else.
    """

    gallery: int
    person: IntArray
    mated: Bools
    rank: IntArray
    mate: Floats
    other: Floats

    def within(self, rank: int) -> Floats:
        """Similarities of the mates of the mated searches, (m,); minus infinity behind `rank`."""
        good = (self.rank > 0) & (self.rank <= rank)
        return np.where(good, self.mate, -np.inf)[self.mated]

    def hit_rate(self, rank: int) -> float:
        """CMC: share of the mated searches with the mate within a rank."""
        return float(np.mean(np.isfinite(self.within(rank))))

    def fnir(self, threshold: float, *, rank: int = 1) -> float:
        """Share of the mated searches without their mate within `rank` at `threshold` or above."""
        mate = self.within(rank)
        return float(np.mean(~(np.isfinite(mate) & (mate >= threshold))))

    def fpir(self, threshold: float) -> float:
        """Share of the non-mated searches with a candidate at `threshold` or above."""
        return float(np.mean(self.other[~self.mated] >= threshold))

    def at_fpir(self, fpir: float, *, rank: int = 1) -> Operating:
        """The lowest threshold with at most this FPIR; tar is 1 - FNIR, far the FPIR it gives.

        Raises DataError without mated, or without non-mated searches.
        """
        return tar_at_far(self.within(rank), self.other[~self.mated], fpir)


@dataclass(frozen=True, slots=True, eq=False)
class Identified:
    """searches: one for each size of the gallery, the smallest first, the last of the whole.
    tally: similarities of the probes of the non-mated searches with everybody enrolled; those
    without a face are in the lowest bin."""

    searches: tuple[Searches, ...]
    tally: Tally


def judge(
    similarity: NDArray[np.floating], gallery_person: IntArray, probe_person: IntArray
) -> Searches:
    """Searches whose similarities are known.

    similarity: (p, n), probes by people; minus infinity where there is no face. gallery_person:
    (n,), each person once. probe_person: (p,). Raises InputError for NaN, other shapes, or a
    person that comes twice.
    """
    people, columns = np.unique(gallery_person, return_index=True)
    shape = (len(probe_person), len(gallery_person))
    if np.shape(similarity) != shape or len(people) != shape[1] or 0 in shape:
        raise InputError(
            f"Similarities should have a row per probe and a column per person, {shape} with "
            f"{len(people)} different people; got {np.shape(similarity)}."
        )
    if np.isnan(similarity).any():
        raise InputError("Similarities should be numbers; got NaN. Check the vectors they are of.")
    place = _places(people, probe_person)
    place[place >= 0] = columns[place[place >= 0]]
    step = max(1, CELLS // shape[1])
    parts = [
        _judged(similarity[row : row + step], place[row : row + step], (shape[1],))[0]
        for row in range(0, len(place), step)
    ]
    return _joined(parts, shape[1], probe_person, place)


def identify(
    gallery: Labelled,
    probes: Labelled,
    *,
    enrolment: str = "max",
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    done: Done | None = None,
) -> Identified:
    """Search every probe among the people of a gallery, and in smaller galleries drawn from it.

    enrolment: with several pictures of a person, "max": the best similarity of them; "mean": that
    with the mean of their vectors. sizes: people in the galleries, rising, the last all of them;
    None: halved again and again. A gallery of n people is the first n of an order drawn with
    `seed`; for a probe whose mate is not among them the mate takes the place of the last, so that
    every gallery is searched with the same probes. done: told the probes done, and all.
    Raises SettingsError for an unknown enrolment or sizes, InputError for vectors of two lengths.
    """
    if enrolment not in ENROLMENTS:
        raise SettingsError(f"enrolment should be max or mean; got {enrolment!r}.")
    if gallery.rows.shape[1:] != probes.rows.shape[1:] or not len(gallery) or not len(probes):
        raise InputError(
            "Gallery and probes should be vectors of one model, one or more of each; got the "
            f"shapes {gallery.rows.shape} and {probes.rows.shape}."
        )
    enrolled = _enrol(gallery, enrolment, seed)
    number = len(enrolled.starts)
    wanted = gallery_sizes(number) if sizes is None else tuple(sizes)
    if not wanted or wanted[-1] != number or wanted[0] < 1 or np.any(np.diff(wanted) <= 0):
        raise SettingsError(
            f"sizes should rise from 1 or more to the {number} people enrolled; got {wanted}."
        )
    place = _places(enrolled.people, probes.person)
    place[place >= 0] = enrolled.column[place[place >= 0]]
    counter, parts = Counter(), []
    for part, scores in _score_blocks(enrolled, probes):
        parts.append(_judged(scores, place[part], wanted))
        counter.add((scores[place[part] < 0] * np.float32(HALF)).ravel())
        if done is not None:
            done(min(part.stop, len(probes)), len(probes))
    searches = [
        _joined([part[row] for part in parts], size, probes.person, place)
        for row, size in enumerate(wanted)
    ]
    return Identified(tuple(searches), counter.tally())


def gallery_sizes(people: int) -> tuple[int, ...]:
    """All of them, half, a quarter and so on, not below `SMALLEST`; rising."""
    sizes = [people]
    while math.ceil(sizes[-1] / 2) >= SMALLEST:
        sizes.append(math.ceil(sizes[-1] / 2))
    return tuple(sizes[::-1])


@dataclass(frozen=True, slots=True, eq=False)
class _Enrolled:
    """rows: float32 (g, d), those of a person side by side; starts: first row of each column.
    found: bool (g,). people: int64 (n,), sorted; column: int64 (n,), of each of them."""

    rows: FloatArray
    found: Bools
    starts: IntArray
    people: IntArray
    column: IntArray


def _enrol(gallery: Labelled, enrolment: str, seed: int) -> _Enrolled:
    """The people of a gallery in an order drawn with a seed."""
    people, number = np.unique(gallery.person, return_inverse=True)
    column = np.random.default_rng(seed).permutation(len(people))
    order = np.argsort(column[number], kind="stable")
    starts = np.searchsorted(column[number][order], np.arange(len(people)))
    rows, found = gallery.rows[order], gallery.found[order]
    if enrolment == "mean":
        rows = vectors.unit(np.add.reduceat(rows.astype(np.float64), starts, axis=0))
        found = np.logical_or.reduceat(found, starts)
        starts = np.arange(len(people))
    return _Enrolled(rows, found, starts, people, column)


def _places(people: IntArray, probe_person: IntArray) -> IntArray:
    """Row of each probe's person among sorted people, -1 for those who are not there: (p,)."""
    row = np.minimum(np.searchsorted(people, probe_person), len(people) - 1)
    return np.where(people[row] == probe_person, row, -1)


def _score_blocks(enrolled: _Enrolled, probes: Labelled) -> Iterator[tuple[slice, FloatArray]]:
    """Similarities of some probes with everybody enrolled, float32 (k, n).

    Summed in float64 and rounded once, so that equal pictures tie wherever they are.
    """
    step = max(1, min(ROWS, CELLS // len(enrolled.rows)))
    for top in range(0, len(probes), step):
        part = slice(top, top + step)
        some = probes.rows[part].astype(np.float64)
        scores = np.empty((len(some), len(enrolled.rows)), np.float32)
        for left in range(0, len(enrolled.rows), COLUMNS):
            columns = slice(left, left + COLUMNS)
            scores[:, columns] = some @ enrolled.rows[columns].astype(np.float64).T
        np.clip(scores, -1, 1, out=scores)
        scores[:, ~enrolled.found] = -np.inf
        scores[~probes.found[part]] = -np.inf
        if len(enrolled.starts) < len(enrolled.rows):
            scores = np.maximum.reduceat(scores, enrolled.starts, axis=1)
        yield part, scores


_Part = tuple[IntArray, Floats, Floats]


def _judged(scores: NDArray[np.floating], place: IntArray, sizes: Sequence[int]) -> list[_Part]:
    """Rank, similarity of the mate and of the best other, for galleries of the first columns.

    scores: (k, n). place: column of the mate (k,), or -1.
    """
    mated, rows = place >= 0, np.arange(len(scores))
    mate = np.where(mated, scores[rows, place], -np.inf)
    others = np.array(scores)
    others[rows[mated], place[mated]] = -np.inf
    found = []
    for size in sizes:
        head = others[:, : size - 1]
        last = np.where(place >= size, -np.inf, others[:, size - 1])  # the mate takes its place
        ahead = (head >= mate[:, None]).sum(axis=1) + (last >= mate)
        best = np.maximum(head.max(axis=1, initial=-np.inf), last)
        rank = np.where(np.isfinite(mate), ahead + 1, 0)
        found.append((rank, mate.astype(np.float64), best.astype(np.float64)))
    return found


def _joined(parts: Sequence[_Part], gallery: int, person: IntArray, place: IntArray) -> Searches:
    rank, mate, other = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Searches(gallery, np.asarray(person), place >= 0, rank, mate, other)
