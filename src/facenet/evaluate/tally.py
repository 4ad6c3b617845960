"""Similarities of all pairs of different people, block by block, and their histogram.

A block is a part of the upper triangle of the similarity matrix. With the rows of a person side by
side the pairs of one person are next to the diagonal, so that few blocks need a mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from facenet.types import FloatArray, IntArray

BINS = 2**20
"""Bins of the histogram from -1 to 1; each is 2e-6 wide and begins at a number of float32."""
STEPS = 100
EDGES = np.arange(-STEPS, STEPS) / STEPS
"""Similarities that are counted exactly, float64 (200,): -1, -0.99, ... 0.99."""
HALF = BINS // 2

_EDGE_BIN = np.floor(EDGES * HALF).astype(np.int64) + HALF
_HOLDS_EDGE = np.isin(np.arange(BINS), _EDGE_BIN)

Done = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Non-mated similarities, counted.

    at_least: int64 (BINS + 1,), pairs at or above the lower edge of each bin, and 0. grid: int64
    (200,), pairs at or above each of `EDGES`, as `float32 >= edge` decides it.
    """

    at_least: IntArray
    grid: IntArray

    @property
    def pairs(self) -> int:
        """Pairs of different people in which both pictures have a face."""
        return int(self.at_least[0])

    def reaching(self, similarity: float) -> int:
        """Pairs at or above a similarity.

        At the values of `EDGES` as `float32 >= edge` decides it; elsewhere the count at the lower
        edge of the bin, so never too low.
        """
        if similarity > 1:
            return 0
        step = round(max(similarity, -1.0) * STEPS) + STEPS
        if step < len(EDGES) and EDGES[step] == similarity:
            return int(self.grid[step])
        row = math.floor(max(similarity, -1.0) * HALF) + HALF
        return int(self.at_least[min(row, BINS - 1)])


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Non-mated pairs of a block: scaled float32 (n,), similarity * BINS / 2; cells: int64 (n,),
    where they are in the block, rising: the end of each row. None for all of it."""

    scaled: FloatArray
    cells: IntArray | None
    corner: tuple[int, int]
    width: int

    def pairs(self, positions: IntArray) -> tuple[IntArray, IntArray]:
        """Rows of the first and of the second picture: positions (n,) -> (n,), (n,)."""
        cells = positions if self.cells is None else self.cells[positions]
        return self.corner[0] + cells // self.width, self.corner[1] + cells % self.width


def blocks(rows: FloatArray, ends: IntArray, block: int, done: Done | None) -> Iterator[Block]:
    """The upper triangle without the pairs of one person, which are left of each row's end.

    rows: unit vectors (n, d), those of a person side by side. ends: int64 (n,), the row after the
    last of the same person. block: rows of a block at most. done: told the pairs that were looked
    at, and how many there are, both with those of one person.
    """
    count, compared = len(rows), 0
    total = count * (count - 1) // 2
    for top in range(0, count, block):
        upper = rows[top : top + block] * np.float32(HALF)  # a power of two: no bit is lost
        end = ends[top : top + block]
        for left in range(top, count, block):
            right = min(left + block, count)
            if right > end[0]:
                flat = np.asarray(upper @ rows[left:right].T, np.float32).ravel()
                cells = None
                if left < end[-1]:
                    cells = np.flatnonzero(np.arange(left, right) >= end[:, None])
                part = flat if cells is None else flat[cells]
                if len(part):
                    yield Block(part, cells, (top, left), right - left)
            height = len(upper)
            compared += height * (height - 1) // 2 if left == top else height * (right - left)
            if done is not None:
                done(compared, total)


class Counter:
    """Counts similarities into bins, and those just below one of `EDGES` in the bin of it."""

    def __init__(self) -> None:
        self.bins = np.zeros(BINS, np.int64)
        self.below = np.zeros(len(EDGES), np.int64)

    def add(self, scaled: FloatArray) -> IntArray:
        """Count float32 (n,); returns the bin of each, int64 (n,)."""
        whole = np.floor(scaled)
        np.clip(whole, -HALF, HALF - 1, out=whole)
        whole += np.float32(HALF)
        found = whole.astype(np.int64)
        self.bins += np.bincount(found, minlength=BINS)
        near = np.flatnonzero(_HOLDS_EDGE[found])
        edge = np.searchsorted(_EDGE_BIN, found[near])
        under = scaled[near] < EDGES[edge] * HALF  # in float64: exact
        self.below += np.bincount(edge[under], minlength=len(EDGES))
        return found

    def tally(self) -> Tally:
        """What was counted so far."""
        at_least = np.append(self.bins[::-1].cumsum()[::-1], 0)
        grid = at_least[_EDGE_BIN] - self.below
        grid[0] = at_least[0]
        return Tally(at_least, grid)
