"""Search by cells: for galleries so large that most of an answer is enough.

An inverted file (Sivic and Zisserman 2003; the IVF of FAISS). Rows are divided among centres found
by spherical k-means on a sample of their codes, and lie cell by cell in the table. A query looks
at the cells with the nearest centres, and at all rows that came since; within these the scan is
the exact one. How many cells that takes is measured against the exact search, when the cells are
made. Rows and centres are compared as integers, so the same rows give the same cells on any
machine. Cells are never kept in a file; beside the table they are only their centres.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import SettingsError
from facenet.gallery import scan
from facenet.gallery.codes import ZERO, Bytes, Table, encode
from facenet.products import Products, best_products
from facenet.types import FloatArray, IntArray
from facenet.vectors import unit

LEAST = 2_000_000
"""Faces from which on it is offered."""
WORN = 0.1
"""Share of the rows that may come, or go, before cells are made anew."""
TOP = 5
"""People of the second recall."""
ROUNDS = 10
"""Of k-means."""
LEARNED = 64
"""Rows per cell that k-means looks at."""
LIMIT = 64
"""Largest component of a centre: what every way of multiplying takes, see `facenet.products`."""
AT_ONCE = 2048
"""Rows that are compared with all centres at a time."""

Ask = Callable[[FloatArray], IntArray]
"""Queries (m, d) to the faces of the exact answer, (m, TOP), 0 where there are fewer people."""
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Approximation:
    """How far an answer may be off. least: faces below which it is refused. recall: share of the
    first answers that must be found. cells: None for the square root of the rows. asked: queries
    that the recall is measured with. seed: of all that is drawn."""

    least: int = LEAST
    recall: float = 0.999
    cells: int | None = None
    asked: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise SettingsError(f"recall should be above 0 and at most 1; got {self.recall}.")
        for name in ("asked", "cells"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} should be 1 or more; got {value}.")

    def require_enough(self, faces: int) -> None:
        """Raise SettingsError below `least` faces."""
        if faces < max(self.least, 1):
            raise SettingsError(
                f"Approximate search should have {self.least} faces or more; there are {faces}. "
                "Search without it: exact search is as fast there."
            )


@dataclass(frozen=True, slots=True)
class Recall:
    """What approximate search finds of the exact answer, over `queries` changed faces.

    at_1: share of the most similar people, at_5: of the five most similar, with the same face.
    probed: cells that a query looks at, of `cells`; all of them is exact.
    """

    at_1: float
    at_5: float
    probed: int
    cells: int
    queries: int


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Rows of a table by cell. codes: int8 (d, c), of the centres. lengths: float32 (c,), theirs.
    starts: int64 (c + 1,), the first slot of each cell, and the end. recall: what was measured."""

    codes: NDArray[np.int8]
    lengths: FloatArray
    starts: IntArray
    recall: Recall | None = None

    @property
    def bytes_held(self) -> int:
        """Bytes of its arrays."""
        return self.codes.nbytes + self.lengths.nbytes + self.starts.nbytes

    def worn(self, table: Table) -> bool:
        """Whether a tenth of the rows came or went since. A changed row did both, and is one."""
        end = int(self.starts[-1])
        gone = int(np.count_nonzero(table.keys[:end] == 0))
        return max(gone, len(table.keys) - end) > WORN * end

    def ranked(self, rows: Bytes, products: Products) -> IntArray:
        """Cells by falling similarity to coded rows (n, d): (n, c)."""
        return np.argsort(-_scores(rows, self.codes, self.lengths, products), kind="stable")


def divide(
    table: Table, ask: Ask, how: Approximation, *, products: Products | None, threads: int
) -> Cells:
    """Divide the rows of a table, which must have some: they are put in the order of their cells.

    It depends on keys, rows and `how` alone. ask: the exact search of this table.
    """
    products = products or best_products()
    slots = np.flatnonzero(table.keys)
    slots = slots[np.argsort(table.keys[slots])]
    count = min(how.cells or math.isqrt(len(slots)), len(slots))
    rng = np.random.default_rng(how.seed)
    some = rng.choice(len(slots), min(LEARNED * count, len(slots)), replace=False)
    codes, lengths = _learn(table.codes(slots[some]), count, products, threads)

    def judge(start: int) -> IntArray:
        return _nearest(table.codes(slots[start : start + AT_ONCE]), codes, lengths, products)

    cell = _all(judge, len(slots), threads)
    table.arrange(slots[np.argsort(cell, kind="stable")])
    starts = np.r_[0, np.cumsum(np.bincount(cell, minlength=count))]
    cells = Cells(codes, lengths, starts)
    some = rng.choice(len(slots), min(how.asked, len(slots)), replace=False)
    queries = _changed(table, np.sort(table.keys)[some], rng)
    needed = _needed(cells, table, queries, ask(queries), products)
    probed = int(np.sort(needed[:, 0])[math.ceil(how.recall * len(needed)) - 1])
    found = needed <= probed
    five = float(found[needed > 0].mean())
    recall = Recall(float(found[:, 0].mean()), five, probed, count, len(queries))
    return Cells(codes, lengths, starts, recall)


def search(
    cells: Cells,
    table: Table,
    queries: FloatArray,
    k: int,
    *,
    products: Products | None = None,
    threads: int = 1,
) -> scan.Possible:
    """Rows that can be the answer in the cells nearest to each query (m, d); see `scan.search`.

    A query whose cells have fewer than k people looks at all rows, so none is left unanswered.
    Queries whose cells add up to all of them share one reading of all rows: it takes less time.
    """
    if cells.recall is None or len(queries) * cells.recall.probed >= cells.recall.cells:
        return scan.search(table, queries, k, products=products, threads=threads)
    near = _probed(cells, table, queries, cells.recall.probed, products or best_products())
    parts = []
    for number, spans in enumerate(near):
        part = scan.search(
            table, queries[number : number + 1], k, products=products, threads=threads,
            spans=spans if _enough(table, spans, k) else None,
        )  # fmt: skip
        part.query[:] += number
        parts.append(part)
    return scan.joined(parts)


def _probed(
    cells: Cells, table: Table, queries: FloatArray, probed: int, products: Products
) -> Iterator[list[Span]]:
    """Slots that each query looks at: those of the nearest cells, then what came since."""
    for start in range(0, len(queries), AT_ONCE):
        rows = encode(queries[start : start + AT_ONCE], table.scale)[0]
        for order in cells.ranked(rows, products):
            near = order[:probed]
            spans = list(
                zip(cells.starts[near].tolist(), cells.starts[near + 1].tolist(), strict=True)
            )
            spans.append((int(cells.starts[-1]), len(table.keys)))
            yield [(first, end) for first, end in spans if first < end]


def _enough(table: Table, spans: list[Span], k: int) -> bool:
    """Whether k people have a row among some slots."""
    people: set[int] = set()
    for first, end in spans:
        people.update(np.unique(table.owners[first:end]).tolist())
        people.discard(-1)
        if len(people) >= k:
            return True
    return False


def _learn(
    rows: Bytes, count: int, products: Products, threads: int
) -> tuple[NDArray[np.int8], FloatArray]:
    """Centres of coded rows (n, d): codes (d, count) and their lengths. An empty cell keeps its
    centre."""
    sums = rows[:count].astype(np.int64) - ZERO
    for _ in range(ROUNDS):
        codes, lengths = _centres(sums)

        def judge(
            start: int, codes: NDArray[np.int8] = codes, lengths: FloatArray = lengths
        ) -> IntArray:
            return _nearest(rows[start : start + AT_ONCE], codes, lengths, products)

        cell = _all(judge, len(rows), threads)
        order = np.argsort(cell, kind="stable")
        starts = np.searchsorted(cell[order], np.arange(count + 1))
        for number in np.flatnonzero(np.diff(starts)):
            mine = rows[order[starts[number] : starts[number + 1]]]
            sums[number] = mine.sum(axis=0, dtype=np.int64) - ZERO * len(mine)
    return _centres(sums)


def _centres(sums: IntArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Directions (c, d) as codes (d, c), and the lengths of these."""
    peak = np.maximum(np.abs(sums).max(axis=1, keepdims=True), 1)
    codes = np.rint(sums * (LIMIT / peak)).astype(np.int8)
    squares = (codes.astype(np.int64) ** 2).sum(axis=1)
    return np.ascontiguousarray(codes.T), np.sqrt(np.maximum(squares, 1)).astype(np.float32)


def _scores(
    rows: Bytes, codes: NDArray[np.int8], lengths: FloatArray, products: Products
) -> FloatArray:
    """Similarities of coded rows (n, d) to centres, float32 (n, c), each row in a unit of its
    own."""
    sums = np.empty((len(rows), codes.shape[1]), np.int32)
    products.multiply(rows, codes, sums)
    sums -= ZERO * codes.sum(axis=0, dtype=np.int32)
    return np.asarray(sums / lengths, np.float32)


def _nearest(
    rows: Bytes, codes: NDArray[np.int8], lengths: FloatArray, products: Products
) -> IntArray:
    return np.asarray(np.argmax(_scores(rows, codes, lengths, products), axis=1), np.int64)


def _all(judge: Callable[[int], IntArray], count: int, threads: int) -> IntArray:
    """What `judge` says of `count` rows, asked with the first of each block."""
    with ThreadPoolExecutor(threads) as pool:
        found: IntArray = np.concatenate(list(pool.map(judge, range(0, count, AT_ONCE))))
    return found


def _changed(table: Table, keys: IntArray, rng: np.random.Generator) -> FloatArray:
    """Unit queries float32 (m, d), each 0.7 similar to a row: as other photos of its person."""
    rows = (table.codes(table.find(keys)).astype(np.float32) - ZERO) / np.float32(table.scale)
    return unit(unit(rows) + unit(rng.standard_normal(rows.shape)))


def _needed(
    cells: Cells, table: Table, queries: FloatArray, faces: IntArray, products: Products
) -> IntArray:
    """Cells that a query must look at to find each face (m, TOP) of its exact answer: (m, TOP),
    0 where there is none."""
    slots = table.find(faces.reshape(-1)).reshape(faces.shape)
    home = np.searchsorted(cells.starts, slots, side="right") - 1
    needed = np.zeros(faces.shape, np.int64)
    for start in range(0, len(queries), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        order = cells.ranked(encode(queries[part], table.scale)[0], products)
        needed[part] = np.take_along_axis(np.argsort(order), np.maximum(home[part], 0), axis=1) + 1
    return np.where(faces > 0, needed, 0)
