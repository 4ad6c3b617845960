"""The graph of similar faces: who reaches a similarity with whom, exactly, in bounded memory.

Every row is compared with every other in blocks of matrix products, and only the pairs that
reach the threshold are kept: memory grows with the edges, never with the square of the faces.
Where a face has very many neighbours (a person with thousands of photos), it keeps the most
similar ones; an edge stays when either end keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError, SettingsError
from facenet.types import FloatArray, IntArray

MOST = 128
"""Neighbours that a row keeps at least, where it has more: at most 2 * MOST edges per row."""
CELLS = 1 << 24
"""Similarities held at a time, 4 bytes each."""
ROOM = 1 << 20
"""Edges that are held before rows are cut to what they may keep; twice what was kept, later."""
NORM_SLACK = 1e-3
"""How far the length of a vector may be from one."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """A symmetric graph in compressed rows, without loops.

    starts: int64 (n + 1,). columns: int64 (m,), rising inside a row. similarity: float32 (m,),
    the cosine of the pair. capped: rows that had more neighbours than they were allowed to keep.
    """

    starts: IntArray
    columns: IntArray
    similarity: FloatArray
    capped: int = 0

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def rows(self) -> IntArray:
        """The row of each edge: int64 (m,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.starts))

    def above(self, threshold: float) -> Neighbours:
        """The graph of the edges that reach a higher threshold."""
        kept = self.similarity >= np.float32(threshold)
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        return Neighbours(starts, self.columns[kept], self.similarity[kept], self.capped)

    def sentence(self) -> str:
        """What a reader should know of a capped graph; empty when it holds every pair."""
        if not self.capped:
            return ""
        return (
            f"{self.capped:,} of {len(self):,} faces have more similar faces than are kept; each "
            "keeps its most similar ones, which seldom changes a cluster."
        )


def checked_unit(vectors: NDArray[np.floating]) -> FloatArray:
    """Vectors fit for clustering: float32 (n, d), finite and of length one.

    Raises InputError that names the first row that is not.
    """
    rows = np.ascontiguousarray(vectors, np.float32)
    if rows.ndim != 2:
        raise InputError(
            f"Vectors to cluster should have the shape (n, d); got {rows.shape}. Stack one unit "
            "vector per face."
        )
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= NORM_SLACK))
    if len(bad):
        raise InputError(
            f"Vectors to cluster should be finite and of length one; row {bad[0]} is not, and "
            f"{len(bad)} of {len(rows)} in all. Leave out faces without a vector, and scale the "
            "others with `vectors.unit`."
        )
    return rows


def require_threshold(threshold: float) -> None:
    """Raises SettingsError unless the threshold is a cosine, above -1 and up to 1."""
    if not -1 < threshold <= 1:
        raise SettingsError(
            f"threshold should be a cosine above -1 and up to 1; got {threshold:g}. Faces of one "
            "person are mostly above 0.5."
        )


def neighbour_graph(
    vectors: NDArray[np.floating], threshold: float, *, most: int = MOST, since: int = 0
) -> Neighbours:
    """All pairs of rows whose similarity is at least a threshold, over n faces.

    vectors: (n, d), unit length. most: neighbours that a row keeps, the most similar ones; a pair
    stays when either of its rows keeps it. since: only pairs of which one row is this one or a
    later one (what is new). Raises InputError for vectors that are not unit vectors,
    SettingsError for other numbers.
    """
    rows = checked_unit(vectors)
    require_threshold(threshold)
    if most < 1 or not 0 <= since <= len(rows):
        raise SettingsError(
            f"most should be 1 or more and since from 0 to {len(rows)}; got {most} and {since}."
        )
    count = len(rows)
    none = np.zeros(0, np.int32)
    edges, limit = _Edges(none, none, np.zeros(0, np.float32)), ROOM
    cut = np.zeros(count, np.bool_)
    for near, row, column in _products(rows, since):
        edges = edges.more(near, np.float32(threshold), row, column)
        if len(edges.first) > limit:
            edges = edges.cut(count, most, cut)
            limit = max(ROOM, 2 * len(edges.first))
    return edges.cut(count, most, cut).graph(count, int(cut.sum()))


def _products(rows: FloatArray, since: int) -> Iterator[tuple[FloatArray, int, int]]:
    """Similarities (b, m) of every pair that is asked for, once, with the first row and column;
    -2 where a pair comes at another place."""
    step = max(1, CELLS // max(1, len(rows)))
    for start in range(since, len(rows), step):
        block = rows[start : start + step]
        if since:
            yield block @ rows[:since].T, start, 0
        near = block @ rows[start:].T
        near[:, : len(block)][np.tri(len(block), dtype=np.bool_)] = -2
        yield near, start, start


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Pairs of rows, each once: int32 (m,), int32 (m,), and their similarity, float32 (m,)."""

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    value: FloatArray

    def more(self, near: FloatArray, threshold: np.float32, row: int, column: int) -> _Edges:
        """These and the pairs of a block (b, m) that reach a threshold."""
        flat = np.flatnonzero(near >= threshold)
        i, j = np.divmod(flat, near.shape[1])
        return _Edges(
            np.concatenate([self.first, (i + row).astype(np.int32)]),
            np.concatenate([self.second, (j + column).astype(np.int32)]),
            np.concatenate([self.value, near.ravel()[flat]]),
        )

    def cut(self, count: int, most: int, marks: NDArray[np.bool_]) -> _Edges:
        """Those that are among the `most` best of either end; rows that lost one are marked (n,).

        What is not among the best of some pairs is not among those of more, so cutting on the way
        ends in the same edges as cutting once.
        """
        degree = np.bincount(self.first, minlength=count) + np.bincount(
            self.second, minlength=count
        )
        full = degree > most
        if not full.any():
            return self
        marks |= full
        ends = [(side, np.flatnonzero(full[side])) for side in (self.first, self.second)]
        row = np.concatenate([side[edge] for side, edge in ends])
        edge = np.concatenate([edge for _, edge in ends]).astype(np.int32)
        order = np.lexsort((edge, -self.value[edge], row))
        row, edge = row[order], edge[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        kept = ~(full[self.first] & full[self.second])
        kept[edge[rank < most]] = True
        return _Edges(self.first[kept], self.second[kept], self.value[kept])

    def graph(self, count: int, capped: int) -> Neighbours:
        """The same as compressed rows, each pair from both sides."""
        row = np.concatenate([self.first, self.second])
        order = np.lexsort((np.concatenate([self.second, self.first]), row))
        starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=count))])
        columns = np.concatenate([self.second, self.first])[order].astype(np.int64)
        similarity = np.concatenate([self.value, self.value])[order]
        return Neighbours(
            starts.astype(np.int64), columns, np.minimum(similarity, np.float32(1)), capped
        )
