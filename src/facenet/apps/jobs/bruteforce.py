"""The plain search that the index is compared with: every query with every vector, in fp32.

It shares nothing with the index but the definition of a similarity, which it writes out again.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from facenet.errors import InputError
from facenet.gallery.records import VectorBlock
from facenet.types import FloatArray, IntArray

KEPT = 64
"""Best rows of a query that are kept on the way."""
QUERIES_AT_ONCE = 1000
NEAR = 1e-3
"""How far an fp32 matrix product of unit vectors may be off, amply: d * 2**-24 at d = 16,384."""


def search(
    blocks: Iterable[VectorBlock], queries: FloatArray, k: int
) -> list[list[tuple[str, int, float]]]:
    """The k best people (person, face, similarity) of queries float32 (m, d).

    fp32 products choose 64 rows for each query, fp64 ones order them. Raises InputError where 64
    rows may not be enough, since more of them are nearly equal.
    """
    bests = [
        _Best(queries[i : i + QUERIES_AT_ONCE]) for i in range(0, len(queries), QUERIES_AT_ONCE)
    ]
    for block in blocks:
        for best in bests:
            best.add(block)
    return [answer for best in bests for answer in best.answers(k)]


class _Best:
    """The best rows of a few queries so far: scores (m, KEPT), lowest first, and what they are."""

    def __init__(self, queries: FloatArray) -> None:
        self._queries = queries
        self._scores = np.full((len(queries), KEPT), -np.inf, np.float32)
        self._exact = np.full((len(queries), KEPT), -np.inf)
        self._faces = np.zeros((len(queries), KEPT), np.int64)
        self._people: dict[int, str] = {}

    def add(self, block: VectorBlock) -> None:
        scores = self._queries @ block.rows.T
        floor = self._scores[:, 0]
        for query in np.flatnonzero(scores.max(axis=1) > floor):
            self._merge(int(query), scores[query], block)

    def _merge(self, query: int, scores: FloatArray, block: VectorBlock) -> None:
        better: IntArray = np.flatnonzero(scores > self._scores[query, 0])
        if len(better) > KEPT:
            better = better[np.argpartition(scores[better], -KEPT)[-KEPT:]]
        exact = np.sum(
            self._queries[query].astype(np.float64) * block.rows[better].astype(np.float64), axis=-1
        )
        scores = np.concatenate([self._scores[query], scores[better]])
        order = np.argsort(scores, kind="stable")[-KEPT:]
        faces = np.concatenate([self._faces[query], block.ids[better]])
        self._scores[query], self._faces[query] = scores[order], faces[order]
        self._exact[query] = np.concatenate([self._exact[query], exact])[order]
        self._people |= {int(block.ids[place]): block.people[place] for place in better}

    def answers(self, k: int) -> list[list[tuple[str, int, float]]]:
        return [self._answer(query, k) for query in range(len(self._queries))]

    def _answer(self, query: int, k: int) -> list[tuple[str, int, float]]:
        rows = [
            (-float(np.float32(value)), self._people[int(face)], int(face))
            for value, face in zip(self._exact[query], self._faces[query], strict=True)
            if face
        ]
        people: dict[str, tuple[str, int, float]] = {}
        for similarity, person, face in sorted(rows):
            people.setdefault(person, (person, face, -similarity))
        found = list(people.values())[:k]
        lowest = float(self._scores[query, 0])
        if len(rows) == KEPT and (len(found) < k or found[-1][2] < lowest + 2 * NEAR):
            raise InputError(
                f"A query of the check should have {k} people well above its {KEPT} best rows; "
                "one has too many that are nearly equal. Measure with more values per vector."
            )
        return found
