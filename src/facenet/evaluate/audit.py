"""What is wrong with a data set itself: wrong labels, pictures twice, people who are in both sets.

Wrong labels show as pictures that are closer to another person than to the rest of their own
(InsightFace's cleaning looks at the own centre alone; it misses a swap of two look-alikes and
removes odd but right pictures). Overlap is judged by the best pair of pictures of two people, so
that the false-match rate of the threshold speaks of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facenet import vectors
from facenet.errors import DataError, InputError
from facenet.types import FloatArray, IntArray

BLOCK = 1024
"""Rows compared at a time: bounded memory for any number of pictures."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A picture that may bear the wrong name. own: similarity to the template of the other
    pictures of its person; other: to that of the nearest other person, `looks_like`; like: the
    picture of that person which is most like it, similarity to it."""

    picture: str
    person: str
    looks_like: str
    own: float
    other: float
    like: str
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PairFound:
    """Two pictures, whom they are said to show, and their similarity."""

    a: str
    b: str
    person_a: str
    person_b: str
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class NamedVectors:
    """Embedded pictures with their names and people: embedding float32 (n, d), unit length.

    Raises InputError when the columns differ in length, DataError when there is no picture.
    """

    embedding: FloatArray
    picture: Sequence[str]
    person: Sequence[str]

    def __post_init__(self) -> None:
        counts = (len(self.embedding), len(self.picture), len(self.person))
        if len(set(counts)) != 1:
            raise InputError(
                f"An audit needs one name and one person per vector; got {counts[0]} vectors, "
                f"{counts[1]} names and {counts[2]} people."
            )
        if counts[0] == 0:
            raise DataError("An audit needs pictures with a face; there are none.")
        object.__setattr__(self, "embedding", vectors.unit(self.embedding))

    def people(self) -> tuple[list[str], IntArray]:
        """The people in order, and the number of each picture's: list, int64 (n,)."""
        names, numbers = np.unique(np.asarray(self.person, np.str_), return_inverse=True)
        return names.tolist(), numbers.astype(np.int64)


def label_suspects(pictures: NamedVectors) -> list[Suspect]:
    """Pictures closer to another person than to the rest of their own, the clearest first.

    A picture that is alone of its person cannot be judged. A person's template is the unit vector
    of the sum of its pictures; a picture is left out of its own person's.
    """
    names, person = pictures.people()
    rows = pictures.embedding
    sums = np.zeros((len(names), rows.shape[1]), np.float64)
    np.add.at(sums, person, rows.astype(np.float64))
    templates = vectors.unit(sums)
    alone = np.bincount(person) == 1
    found = []
    for block in _blocks(len(rows)):
        near = rows[block] @ templates.T
        inside = np.arange(len(near)), person[block]
        near[inside] = -np.inf
        rest = vectors.unit(sums[person[block]] - rows[block])
        own = np.sum(rows[block] * rest, axis=1)
        best = np.argmax(near, axis=1)
        other = near[np.arange(len(near)), best]
        for i in np.flatnonzero((other > own) & ~alone[person[block]]):
            row = block.start + int(i)
            theirs = np.flatnonzero(person == best[i])
            scores = rows[theirs] @ rows[row]
            like = theirs[int(np.argmax(scores))]
            found.append(
                Suspect(
                    str(pictures.picture[row]),
                    names[person[row]],
                    names[best[i]],
                    float(own[i]),
                    float(other[i]),
                    str(pictures.picture[like]),
                    float(np.clip(scores.max(), -1, 1)),
                )
            )
    return sorted(found, key=lambda s: (s.own - s.other, s.picture))


def similar_pairs(
    pictures: NamedVectors, *, threshold: float, same: bool, most: int = 1000
) -> list[PairFound]:
    """Pairs of pictures at or above a similarity, the most similar first, at most `most`.

    same: of one person (near-duplicates), else of two (wrong labels, or one picture twice).
    """
    person = pictures.people()[1]
    kept: list[tuple[float, int, int]] = []
    for block in _blocks(len(person)):
        scores = pictures.embedding[block] @ pictures.embedding[block.start :].T
        wanted = (person[block, None] == person[None, block.start :]) == same
        wanted &= np.triu(np.ones_like(wanted), 1) & (scores >= threshold)
        i, j = np.nonzero(wanted)
        values = scores[i, j]
        kept += _triples(-values, i + block.start, j + block.start)
        kept = sorted(kept)[:most]
    return [_pair(pictures, pictures, i, j, -value) for value, i, j in kept]


def lowest_mated(pictures: NamedVectors, *, most: int = 100) -> list[PairFound]:
    """The least similar pairs of pictures of one person, the least similar first."""
    person = pictures.people()[1]
    order = np.argsort(person, kind="stable")
    kept: list[tuple[float, int, int]] = []
    for rows in np.split(order, np.flatnonzero(np.diff(person[order])) + 1):
        scores = pictures.embedding[rows] @ pictures.embedding[rows].T
        i, j = np.triu_indices(len(rows), 1)
        lowest = np.argsort(scores[i, j], kind="stable")[:most]
        kept += _triples(scores[i, j][lowest], rows[i[lowest]], rows[j[lowest]])
        kept = sorted(kept)[:most]
    return [_pair(pictures, pictures, i, j, value) for value, i, j in kept]


def identity_overlap(
    first: NamedVectors, second: NamedVectors, *, threshold: float
) -> list[PairFound]:
    """People who seem to be in both sets: for each two, their most similar pictures.

    Pairs of people whose best pictures reach the threshold, the most similar first.
    """
    one, two = first.people()[1], second.people()[1]
    columns = np.argsort(two, kind="stable")
    starts = np.append(0, np.flatnonzero(np.diff(two[columns])) + 1)
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for block in _blocks(len(one)):
        scores = first.embedding[block] @ second.embedding[columns].T
        highest = np.maximum.reduceat(scores, starts, axis=1)
        for i, number in zip(*np.nonzero(highest >= threshold), strict=True):
            row = block.start + int(i)
            key, value = (int(one[row]), int(number)), float(highest[i, number])
            if value > best.get(key, (-2.0,))[0]:
                stop = starts[number + 1] if number + 1 < len(starts) else len(columns)
                inside = starts[number] + int(np.argmax(scores[i, starts[number] : stop]))
                best[key] = (value, row, int(columns[inside]))
    ordered = sorted(best.values(), key=lambda found: (-found[0], found[1], found[2]))
    return [_pair(first, second, i, j, value) for value, i, j in ordered]


def _pair(
    first: NamedVectors, second: NamedVectors, i: int, j: int, similarity: float
) -> PairFound:
    return PairFound(
        str(first.picture[i]),
        str(second.picture[j]),
        str(first.person[i]),
        str(second.person[j]),
        float(min(1.0, max(-1.0, similarity))),
    )


def _triples(values: FloatArray, i: IntArray, j: IntArray) -> list[tuple[float, int, int]]:
    return list(zip(values.tolist(), i.tolist(), j.tolist(), strict=True))


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))
