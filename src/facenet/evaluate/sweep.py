"""Every picture against every other one, in one pass that never holds more than a block.

The blocked upper triangle with a histogram and a bounded pool of the largest non-mated
similarities that face recognition uses for hundreds of millions of pairs (IJB, MFR-ALL). Two
kinds of numbers come out:

- Mated similarities and those of the pool are products in double precision, rounded once to
  float32: the same bits whatever the size of the blocks.
- The histogram counts float32 products of the blocks. A pair whose similarity is within their
  rounding (1e-7, at most d / 2**24) of the edge of a bin may be counted on either side of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import DataError, InputError
from facenet.evaluate.persontally import PersonCounter, PersonTally
from facenet.evaluate.tally import BINS, HALF, Block, Counter, Done, Tally, blocks
from facenet.types import FloatArray, IntArray

BLOCK = 2048
POOL_SHARE = 3.3e-3
"""Share of the pairs in the pool: three times the false matches at a rate of 1e-3, and a tenth."""
POOL_LEAST, POOL_MOST = 200_000, 2_000_000
MATED_MOST = 20_000_000
"""Pairs of one person that are kept, 16 bytes each."""
LONGEST = 1e18
"""Vectors longer than this overflow float32 when they are squared."""

_CHUNK = 4096

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Vectors of pictures with the person each shows; made by `labelled`.

    rows: float32 (n, d), unit length, zero where there is no face. person: int64 (n,), any
    numbers. found: bool (n,).
    """

    rows: FloatArray
    person: IntArray
    found: Bools

    def __len__(self) -> int:
        return len(self.rows)


def labelled(
    embedding: NDArray[np.floating], person: IntArray, found: Bools | None = None
) -> Labelled:
    """Vectors of any length, scaled to one, with their people.

    embedding: (n, d). person: integers (n,). found: bool (n,), False where no face was found:
    such rows are not looked at. Raises InputError for other shapes, and for a row that counts
    and is not finite, zero, or too long for float32; it names the first one.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.array(embedding, np.float32)
    there = np.ones(len(rows), np.bool_) if found is None else np.array(found, np.bool_)
    if rows.ndim != 2 or {np.shape(person), there.shape} != {(len(rows),)}:
        raise InputError(
            "There should be one vector (n, d), one person and one mark of a found face per "
            f"picture; got the shapes {rows.shape}, {np.shape(person)} and {there.shape}."
        )
    rows[~there] = 0
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(there & ~((lengths > vectors.TINY) & (lengths < LONGEST)))
    if len(bad):
        raise InputError(
            f"Vectors to compare should be finite and not zero; row {bad[0]} is not, and "
            f"{len(bad)} of {len(rows)} in all. Embed the pictures again, or mark them as without "
            "a face."
        )
    return Labelled(vectors.unit(rows), np.array(person, np.int64), there)


@dataclass(frozen=True, slots=True)
class Threshold:
    """The lowest similarity whose false-match rate stays within a wanted one.

    exact: taken from the pool, so that no lower similarity will do; else it is the edge of a bin
    of the histogram, at most 2e-6 above the lowest.
    """

    similarity: float
    fmr: float
    false_matches: int
    exact: bool


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """All pairs of a set of pictures.

    subject: int64 (pictures,), people numbered from 0. found: bool (pictures,), False without a
    face; the pairs of such pictures count, with a similarity of minus infinity. pairs: non-mated
    pairs. mated: float64 (m,), falling; mated_subject: int64 (m,). tally: of the non-mated pairs
    that have a similarity. pool: float64 (k,), falling: every non-mated similarity above `floor`,
    and none else; pool_a, pool_b: int64 (k,), rows of the two pictures, a < b. floor: minus
    infinity when the pool holds all.
    """

    subject: IntArray
    found: Bools
    pairs: int
    mated: Floats
    mated_subject: IntArray
    tally: Tally
    pool: Floats
    pool_a: IntArray
    pool_b: IntArray
    floor: float
    by_person: PersonTally | None

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        return len(self.subject)

    @property
    def people(self) -> int:
        """How many people there are."""
        return int(self.subject.max()) + 1

    @property
    def complete(self) -> bool:
        """Whether the pool holds every non-mated pair that has a similarity."""
        return self.floor == -np.inf

    def false_matches(self, similarity: float) -> int:
        """Non-mated pairs at or above a similarity.

        Exact above `floor`; elsewhere as `Tally.reaching` counts them.
        """
        if similarity > self.floor:
            return _reaching(self.pool, similarity)
        return max(self.tally.reaching(similarity), len(self.pool))

    def fmr(self, similarity: float) -> float:
        """Share of the non-mated pairs at or above a similarity; see `false_matches`."""
        return self.false_matches(similarity) / self.pairs

    def tmr(self, similarity: float) -> float:
        """Share of the mated pairs at or above a similarity; NaN without mated pairs."""
        mated = len(self.mated)
        return _reaching(self.mated, similarity) / mated if mated else math.nan

    def threshold_at(self, fmr: float) -> Threshold:
        """The lowest similarity at which `self.fmr` is at most `fmr`; ties are accepted.

        As in `curves.tar_at_far` it is a similarity of the set: the lowest that is above the
        highest one to refuse.
        """
        allowed = math.floor(fmr * self.pairs + 1e-9)
        if allowed < len(self.pool):
            return self._threshold_above(float(self.pool[allowed]))
        if self.complete:
            return self._threshold_above(-np.inf)
        row = BINS + 1 - int(np.searchsorted(self.tally.at_least[::-1], allowed, side="right"))
        similarity = row / HALF - 1 if row < BINS else math.nextafter(1.0, math.inf)
        count = self.false_matches(similarity)
        return Threshold(similarity, count / self.pairs, count, exact=False)

    def _threshold_above(self, refused: float) -> Threshold:
        """The lowest similarity above one in the pool, or above minus infinity."""
        count, mated = _above(self.pool, refused), _above(self.mated, refused)
        lowest = [*self.pool[:count][-1:], *self.mated[:mated][-1:]]
        similarity = float(min(lowest)) if lowest else math.nextafter(refused, math.inf)
        return Threshold(similarity, count / self.pairs, count, exact=True)


def _reaching(falling: Floats, similarity: float) -> int:
    """How many are at or above a similarity."""
    return len(falling) - int(np.searchsorted(falling[::-1], similarity, side="left"))


def _above(falling: Floats, similarity: float) -> int:
    """How many are above a similarity."""
    return len(falling) - int(np.searchsorted(falling[::-1], similarity, side="right"))


def sweep(
    faces: Labelled,
    *,
    pool_size: int | None = None,
    block: int = BLOCK,
    done: Done | None = None,
) -> Sweep:
    """Compare all pairs of pictures.

    pool_size: most non-mated pairs that are kept; None: a share of `POOL_SHARE` of them, within
    200,000 and two million. The pool ends above the first run of equal similarities that does not
    fit. done: told the pairs compared and to compare. Raises DataError without pictures of
    two people, or with more pairs of one person than can be kept.
    """
    subject = np.unique(faces.person, return_inverse=True)[1].astype(np.int64)
    pairs = non_mated_pairs(subject)
    if pairs == 0:
        raise DataError("Comparing all pairs needs pictures of two people or more.")
    if pool_size is None:
        pool_size = min(max(math.ceil(POOL_SHARE * pairs), POOL_LEAST), POOL_MOST)
    mated, mated_subject = _mated(faces, subject)
    rows, order, ends = _by_person(faces)
    counter, pool = Counter(), _Pool(pool_size)
    many = non_mated_pairs(subject[faces.found]) > pool_size
    people = PersonCounter(subject, order) if many else None
    for part in blocks(rows, ends, block, done):
        found = counter.add(part.scaled)
        pool.add(part, found, counter.bins)
        if people is not None:
            people.add(part, found)
    scores, first, second, floor = pool.scored(rows, order)
    return Sweep(
        subject,
        faces.found,
        pairs,
        mated,
        mated_subject,
        counter.tally(),
        scores,
        first,
        second,
        floor,
        None if people is None else people.tally(),
    )


def count_non_mated(faces: Labelled, *, block: int = BLOCK, done: Done | None = None) -> Tally:
    """The histogram of a sweep alone; `done` as there."""
    rows, _, ends = _by_person(faces)
    counter = Counter()
    for part in blocks(rows, ends, block, done):
        counter.add(part.scaled)
    return counter.tally()


def non_mated_pairs(subject: IntArray) -> int:
    """Pairs of pictures of different people; subject: int64 (n,), numbers from 0."""
    counts = np.bincount(subject)
    return int((len(subject) ** 2 - np.sum(counts**2)) // 2)


def _by_person(faces: Labelled) -> tuple[FloatArray, IntArray, IntArray]:
    """Rows with a face, those of a person side by side: (n, d), where they were, (n,), and the
    row after the last of the same person, (n,)."""
    kept = np.flatnonzero(faces.found)
    order = kept[np.argsort(faces.person[kept], kind="stable")]
    person = faces.person[order]
    return faces.rows[order], order, np.searchsorted(person, person, side="right")


class _Pool:
    """The pairs in the highest bins, as many whole bins as fit."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lowest = 0
        self.kept = 0
        self.parts: list[tuple[IntArray, IntArray, IntArray]] = []

    def add(self, part: Block, found: IntArray, bins: IntArray) -> None:
        """Take what may belong to the pool.

        found: int64 (n,), bin of each pair of the block. bins: all that was counted so far.
        """
        fits = np.searchsorted(bins[self.lowest :][::-1].cumsum(), self.size, "right")
        self.lowest = BINS - int(fits)
        positions = np.flatnonzero(found >= self.lowest)
        self.parts.append((found[positions].astype(np.int32), *part.pairs(positions)))
        self.kept += len(positions)
        if self.kept > 2 * self.size:
            self.parts = [self._joined()]
            self.kept = len(self.parts[0][0])

    def _joined(self) -> tuple[IntArray, IntArray, IntArray]:
        """The pairs that still belong to it."""
        if not self.parts:
            return (np.zeros(0, np.int64),) * 3
        found, a, b = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        good = found >= self.lowest
        return found[good], a[good], b[good]

    def scored(self, rows: FloatArray, order: IntArray) -> tuple[Floats, IntArray, IntArray, float]:
        """Similarities, both rows, each (k,), and the floor, above which no pair is missing.

        rows: (n, d), as they were swept. order: int64 (n,), where each of them was.
        """
        _, a, b = self._joined()
        scores = _products(rows, a, b)
        floor = -np.inf
        if self.lowest > 0:  # float32 sums of d products are wrong by at most d / 2**24
            floor = min(1.0, self.lowest / HALF - 1 + (rows.shape[1] + 2) / 2**24)
        good = scores > floor
        scores, a, b = scores[good], order[a[good]], order[b[good]]
        a, b = np.minimum(a, b), np.maximum(a, b)
        ranked = np.lexsort((b, a, -scores))
        return scores[ranked], a[ranked], b[ranked], floor


def _products(rows: FloatArray, a: IntArray, b: IntArray) -> Floats:
    """Similarity of pairs of rows: (n, d), (m,), (m,) -> (m,)."""
    scores = np.empty(len(a))
    for start in range(0, len(a), _CHUNK):
        part = slice(start, start + _CHUNK)
        first, second = rows[a[part]].astype(np.float64), rows[b[part]].astype(np.float64)
        scores[part] = np.einsum("nd,nd->n", first, second)
    return _rounded(scores)


def _rounded(scores: Floats) -> Floats:
    """The nearest float32 within -1 to 1, so that equal pictures tie however they were summed."""
    return np.clip(scores, -1, 1).astype(np.float32).astype(np.float64)


def _mated(faces: Labelled, subject: IntArray) -> tuple[Floats, IntArray]:
    """Similarities of all pairs of one person, falling, and the person of each."""
    counts = np.bincount(subject)
    total = int(np.sum(counts * (counts - 1) // 2))
    if total > MATED_MOST:
        raise DataError(
            f"At most {MATED_MOST:,} pairs of one person can be kept; these pictures make "
            f"{total:,}. Take fewer pictures of each person."
        )
    scores = np.full(total, -np.inf)
    person = np.repeat(np.arange(len(counts)), counts * (counts - 1) // 2)
    rows, order, ends = _by_person(faces)
    starts = np.searchsorted(person, np.arange(len(counts)), side="left")
    first = 0
    while first < len(rows):
        end, start = int(ends[first]), int(starts[subject[order[first]]])
        group = rows[first:end].astype(np.float64)
        for top in range(0, len(group), BLOCK):
            square = group[top : top + BLOCK] @ group[top:].T
            part = square[np.triu_indices(len(square), 1, square.shape[1])]
            scores[start : start + len(part)] = _rounded(part)
            start += len(part)
        first = end
    ranked = np.argsort(-scores, kind="stable")
    return scores[ranked], person[ranked]
