"""The similarity a search answers with, and the answer out of the rows that a scan leaves."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from facenet.errors import SettingsError
from facenet.gallery.codes import groups
from facenet.gallery.records import MAX_FACE
from facenet.gallery.scan import Possible, settle
from facenet.types import FloatArray, IntArray

FETCHED_AT_ONCE = 2048
"""Rows that are fetched, and pairs that are computed, at a time: 8 MB as fp64 at d = 512."""

Fetch = Callable[[IntArray], tuple[list[str], FloatArray]]
"""Keys (n,), ascending, to the ids of their people and their rows, float32 (n, d)."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A person found. person: id. face: id of its best face, 0 for its template. similarity:
    cosine."""

    person: str
    face: int
    similarity: float


def require_count(k: SupportsIndex) -> int:
    """k as a number of people, at most as many as there can be. Raises SettingsError."""
    try:
        count = operator.index(k)
    except TypeError:
        count = 0
    if count < 1:
        raise SettingsError(f"k should be 1 or more people, a whole number; got {k!r:.40}.")
    return min(count, MAX_FACE)


def exact_similarity(queries: FloatArray, rows: FloatArray) -> FloatArray:
    """Similarity row by row, (n, d) and (n, d) float32 -> float32 (n,).

    The products are exact in fp64; NumPy adds the d of each pair in the same order whatever n is,
    and the sum is rounded once. So a pair has one similarity, whatever is computed beside it.
    """
    products = queries.astype(np.float64) * rows.astype(np.float64)
    sums = np.sum(np.ascontiguousarray(products), axis=-1)
    return np.asarray(sums, np.float32)


def rescore(
    possible: Possible, queries: FloatArray, k: int, fetch: Fetch, *, template: bool = False
) -> list[list[Hit]]:
    """The k best people of each query (m, d), by the rows themselves.

    Higher similarity first, then the lower id of the person, then that of the face. The likely
    rows are fetched first; what they reach spares most of the others.
    """
    work = _Work(possible, queries, fetch)
    middle = possible.low + possible.high
    order = np.lexsort((-middle, possible.query))
    starts = groups(possible.query) if len(possible) else np.zeros(1, np.int64)
    rank = np.empty(len(possible), np.int64)
    rank[order] = np.arange(len(possible)) - np.repeat(starts[:-1], np.diff(starts))
    work.fetch(np.flatnonzero(rank < k))
    work.fetch(np.setdiff1d(work.keep(k), np.flatnonzero(rank < k)))
    chosen = work.keep(k)
    hits: list[list[Hit]] = [[] for _ in queries]
    for index in chosen[~np.isnan(work.exact[chosen])]:
        face = 0 if template else int(possible.key[index])
        hit = Hit(work.people[index], face, float(work.exact[index]))
        hits[possible.query[index]].append(hit)
    return [_best(found, k) for found in hits]


class _Work:
    """Bounds that become values as rows are fetched."""

    def __init__(self, possible: Possible, queries: FloatArray, fetch: Fetch) -> None:
        self.possible, self._queries, self._fetch = possible, queries, fetch
        self.low, self.high = possible.low.copy(), possible.high.copy()
        self.exact: NDArray[np.float32] = np.full(len(possible), np.nan, np.float32)
        self.people: list[str] = [""] * len(possible)

    def keep(self, k: int) -> IntArray:
        """What may be in the answer by what is known now."""
        best = np.full(len(self._queries), -np.inf)
        query, owner = self.possible.query, self.possible.owner
        return settle(query, owner, self.low, self.high, k=k, best=best)[0]

    def fetch(self, which: IntArray) -> None:
        """Compute the pairs at some indices (n,)."""
        keys, back = np.unique(self.possible.key[which], return_inverse=True)
        order = np.argsort(back, kind="stable")
        which, back = which[order], back[order]
        for start in range(0, len(keys), FETCHED_AT_ONCE):
            people, rows = self._fetch(keys[start : start + FETCHED_AT_ONCE])
            first, last = np.searchsorted(back, (start, start + FETCHED_AT_ONCE))
            for pair in range(first, last, FETCHED_AT_ONCE):
                part = slice(pair, min(pair + FETCHED_AT_ONCE, last))
                self._compute(which[part], back[part] - start, people, rows)

    def _compute(
        self, which: IntArray, back: IntArray, people: list[str], rows: FloatArray
    ) -> None:
        values = exact_similarity(self._queries[self.possible.query[which]], rows[back])
        self.exact[which] = self.low[which] = self.high[which] = values
        for index, place in zip(which.tolist(), back.tolist(), strict=True):
            self.people[index] = people[place]


def _best(hits: list[Hit], k: int) -> list[Hit]:
    """The first k people in the order of the answer, with their best faces."""
    seen: dict[str, Hit] = {}
    for hit in sorted(hits, key=lambda hit: (-hit.similarity, hit.person, hit.face)):
        seen.setdefault(hit.person, hit)
    return list(seen.values())[:k]
