"""The scan: which rows can be among the k best people, found in 8 bits and proven.

Let x be a row, c its code and e its spread, so that |x - c / S| <= e (`facenet.gallery.codes`).
Let q be a query, b its code, s its scale and r >= |q - b / s|. Then

    q.x = (b.c) / (s S)  +  (q - b / s).(c / S)  +  q.(x - c / S)

and by Cauchy and Schwarz the second term is at most r (|x| + e), the third at most |q| e. The
first is an integer, computed exactly (`facenet.products`), times a number. So every similarity
lies between first - w and first + w with w = (|q| + r) e + r L + SLACK, where L is the longest row.
SLACK covers all rounding on the way and in the answer: the fp64 steps are off by less than
65,536 * 2**-52, and the answer is rounded to float32, which is off by 2**-24 and may make a tie of
two numbers that are apart by 2**-23.

Let T be the k-th highest of people's lower bounds, a person's being that of its best row. At least
k people reach T, so a row whose upper bound is below T is not among the answer, nor is one whose
upper bound is below the lower bound of another row of its owner. T of a part of the rows is never
above that of all: rows may be passed over while the scan goes on. What remains is narrowed once
more with the unrounded query (r = 0), in fp64, and is then the caller's to compute from the rows
themselves. Hence the answer is that of computing every row, whatever the rows are; only the number
of rows that remain depends on them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.gallery.codes import ZERO, Table, groups
from facenet.products import NumpyProducts, Products, Sums, best_products
from facenet.types import FloatArray, IntArray

SLACK = 1e-6
QUERIES_AT_ONCE = 64
"""Queries that share one reading of the codes."""
SUMS_AT_ONCE = 1 << 19
"""Products of a block, 2 MB, so that they are judged while they are in the cache."""
LARGEST_BLOCK = 32_768
ALONE = 8192
"""Slots that one thread looks at before the others join, so that they start with a good T."""
FIRST_SUMS = 4096
"""Products of the first block, for a first T at little cost; each block is twice the last."""
FEW = 1 << 22
"""Multiplications below which ONNX Runtime is not started."""
FLOOD = 1 << 21
"""Rows, over all queries, that are held as possible; beyond it fewer queries are asked at once."""
REFINED_AT_ONCE = 4096

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Possible:
    """Rows that may be in the answer, sorted by query: (n,) each.

    query: its number. key, owner: of the row. low, high: between which its similarity lies.
    """

    query: IntArray
    key: IntArray
    owner: IntArray
    low: Doubles
    high: Doubles

    def __len__(self) -> int:
        return len(self.query)


def search(
    table: Table,
    queries: FloatArray,
    k: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    products: Products | None = None,
    threads: int = 1,
    spans: Sequence[tuple[int, int]] | None = None,
) -> Possible:
    """Every row that can be the best of one of the k best owners of a query.

    queries: float32 (m, d), finite. k: 1 or more. allowed: (number of owners,), which of them are
    searched; None for all. products, threads: how; the answer does not depend on them. spans: the
    only slots that are looked at, first and end, without `allowed`; k owners must have a row there.
    """
    rows = None if allowed is None else np.flatnonzero(np.append(allowed, False)[table.owners])
    owners = table.distinct if rows is None else len(np.unique(table.owners[rows]))
    whole = [(0, len(table.keys) if rows is None else len(rows))]
    if len(table.keys) * table.dimension * min(len(queries), QUERIES_AT_ONCE) < FEW:
        products, threads = products or NumpyProducts(), 1
    products = products or best_products()
    parts, first, size = [], 0, QUERIES_AT_ONCE
    while first < len(queries) and owners:
        part = queries[first : first + size]
        scan = _Scan(table, part, min(k, owners), products, rows)
        scan.run(whole if spans is None else spans, threads)
        if scan.flooded:
            size = max(1, len(part) // 8)
            continue
        parts.append(_refined(table, part, scan))
        parts[-1].query[:] += first
        first += len(part)
    return joined(parts)


def joined(parts: Sequence[Possible]) -> Possible:
    """What may be in the answers of several queries, together."""
    if not parts:
        none = np.zeros(0, np.int64)
        return Possible(none, none, none, none.astype(float), none.astype(float))
    columns = (
        np.concatenate([getattr(part, name) for part in parts]) for name in Possible.__slots__
    )
    return Possible(*columns)


class _Scan:
    """One reading of the codes for a few queries."""

    def __init__(
        self, table: Table, queries: FloatArray, k: int, products: Products, rows: IntArray | None
    ) -> None:
        exact = queries.astype(np.float64)
        scale = products.limit / np.maximum(np.abs(exact).max(axis=1), 1e-30)
        code = np.rint(exact * scale[:, None])
        length = np.sqrt((exact**2).sum(axis=1))
        lost = np.sqrt(((exact - code / scale[:, None]) ** 2).sum(axis=1)) * (1 + 1e-9) + 1e-12
        self.table, self.k, self.products, self.rows = table, k, products, rows
        self.code = np.ascontiguousarray(code.T.astype(np.int8))
        self.unit = 1 / (scale * table.scale)
        self.slope = length + lost
        self.base = lost * table.longest + SLACK
        self.zero = ZERO * code.sum(axis=1)
        self.best = np.full(len(queries), -np.inf)
        self.found = _nothing()
        self.flooded = False
        self._new: list[_Rows] = []
        self._settled = 0
        self._lock = threading.Lock()
        self._ask()

    def run(self, spans: Sequence[tuple[int, int]], threads: int) -> None:
        """Look at the slots, or entries of `rows`, of spans; `found` is then what remains, unless
        it `flooded`."""
        blocks = _blocks(spans, self.table.chunk if self.rows is None else 0, len(self.best))
        seen = 0
        for block in blocks:
            self._look(block)
            seen += block.stop - block.start
            if seen >= ALONE:
                break
        rest = _Shared(blocks)
        with ThreadPoolExecutor(max(1, threads - 1)) as pool:
            others = [pool.submit(self._look_at_all, rest) for _ in range(threads - 1)]
            self._look_at_all(rest)
        for other in others:
            other.result()
        self._settle()

    def _look_at_all(self, blocks: _Shared) -> None:
        while (block := blocks.next()) is not None and not self.flooded:
            self._look(block)

    def _look(self, block: slice) -> None:
        """Keep what may be in the answer among the slots, or entries of `rows`, of a block."""
        table, slots = self.table, None
        if self.rows is None:
            codes = table.chunks[block.start // table.chunk]
            start = block.start % table.chunk
            codes = codes[start : start + block.stop - block.start]
            spreads = table.spreads[block]
        else:
            slots = self.rows[block]
            codes, spreads = table.codes(slots), table.spreads[slots]
        sums = np.empty((len(codes), len(self.best)), np.int32)
        self.products.multiply(codes, self.code, sums)
        row, query = self._passing(sums, spreads)
        slot = row + block.start if slots is None else slots[row]
        value = (sums[row, query] - self.zero[query]) * self.unit[query]
        there = table.keys[slot] > 0
        if there.any():
            self._keep(_Rows(query[there], slot[there], value[there]))

    def _passing(self, sums: Sums, spreads: FloatArray) -> tuple[IntArray, IntArray]:
        """Rows and queries whose upper bound reaches what is known of T.

        Most rows are judged by the table's `cut`, a comparison of integers; the few with a larger
        spread by their own.
        """
        best, passing = self.best, sums >= self.level
        wide = np.flatnonzero(spreads > self.table.cut)
        if len(wide):
            value = (sums[wide] - self.zero) * self.unit + self.base
            passing[wide] |= value + self.slope * spreads[wide, None] >= best
        flat = passing.reshape(-1)
        whole = len(flat) // 8 * 8
        words = np.flatnonzero(flat[:whole].view(np.uint64))  # eight at a time: nearly all are 0
        near = (words[:, None] * 8 + np.arange(8)).reshape(-1)
        near = np.concatenate([near, np.arange(whole, len(flat))])
        row, query = np.divmod(near[flat[near]], sums.shape[1])
        return row, query

    def _keep(self, rows: _Rows) -> None:
        with self._lock:
            self._new.append(rows)
            count = len(self.found) + sum(map(len, self._new))
            if count > 2 * self._settled + 4 * QUERIES_AT_ONCE:
                self._settle()
            if len(self.found) > FLOOD and len(self.best) > 1:
                self.flooded = True

    def _settle(self) -> None:
        """Raise T by what was kept, and let go of what is below it."""
        rows = _Rows.joined([self.found, *self._new])
        owner = self.table.owners[rows.slot]
        wide = self.slope[rows.query] * self.table.spreads[rows.slot] + self.base[rows.query]
        keep, self.best = settle(
            rows.query, owner, rows.value - wide, rows.value + wide, k=self.k, best=self.best
        )
        self.found, self._new = rows.taken(keep), []
        self._settled = len(self.found)
        self._ask()

    def _ask(self) -> None:
        """The integers that a row of at most the table's cut must reach, (m,)."""
        with np.errstate(invalid="ignore"):
            level = (self.best - self.base - self.slope * self.table.cut) / self.unit + self.zero
        limits = np.iinfo(np.int32)
        self.level = np.clip(np.floor(level) - 1, limits.min, limits.max).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Kept rows: query, slot int64 and value float64, (n,) each."""

    query: IntArray
    slot: IntArray
    value: Doubles

    def __len__(self) -> int:
        return len(self.query)

    def taken(self, which: IntArray) -> _Rows:
        return _Rows(self.query[which], self.slot[which], self.value[which])

    @classmethod
    def joined(cls, parts: list[_Rows]) -> _Rows:
        return cls(
            np.concatenate([part.query for part in parts]),
            np.concatenate([part.slot for part in parts]),
            np.concatenate([part.value for part in parts]),
        )


def _nothing() -> _Rows:
    none = np.zeros(0, np.int64)
    return _Rows(none, none, np.zeros(0))


class _Shared:
    """Blocks handed out to several threads, each once."""

    def __init__(self, blocks: Iterator[slice]) -> None:
        self._blocks = blocks
        self._lock = threading.Lock()

    def next(self) -> slice | None:
        with self._lock:
            return next(self._blocks, None)


def settle(
    query: IntArray,
    owner: NDArray[np.integer],
    low: Doubles,
    high: Doubles,
    *,
    k: int,
    best: Doubles,
) -> tuple[IntArray, Doubles]:
    """What may be among the k best owners of each query, by bounds: indices, and T of each query.

    query, owner, low, high: (n,), of rows. best: (m,), what T is known to be at least. Indices
    come sorted by query and owner. T is at least `best`.
    """
    order = np.lexsort((-low, owner, query))
    query, owner, low, high = query[order], owner[order], low[order], high[order]
    lead = np.ones(len(order), np.bool_)
    lead[1:] = (query[1:] != query[:-1]) | (owner[1:] != owner[:-1])
    own = low[lead][np.cumsum(lead) - 1]
    leader, reached = query[lead], low[lead]
    ranked = np.lexsort((-reached, leader))
    leader, reached = leader[ranked], reached[ranked]
    starts = groups(leader) if len(leader) else np.zeros(1, np.int64)
    kth = starts[:-1] + k - 1
    kth = kth[kth < starts[1:]]
    best = best.copy()
    best[leader[kth]] = np.maximum(best[leader[kth]], reached[kth])
    keep = high >= np.maximum(own, best[query])
    return order[keep], best


def _blocks(spans: Sequence[tuple[int, int]], chunk: int, queries: int) -> Iterator[slice]:
    """Blocks over spans: small ones first, none across two chunks unless `chunk` is 0."""
    most, size = min(LARGEST_BLOCK, SUMS_AT_ONCE // queries), FIRST_SUMS // queries
    for start, end in spans:
        while start < end:
            stop = min(start + size, end)
            if chunk:
                stop = min(stop, (start // chunk + 1) * chunk)
            yield slice(start, stop)
            start, size = stop, min(2 * size, most)


def _refined(table: Table, queries: FloatArray, scan: _Scan) -> Possible:
    """What remains of a scan when the query is not rounded: r = 0, in fp64."""
    rows, exact = scan.found, queries.astype(np.float64)
    value = np.empty(len(rows))
    for start in range(0, len(rows), REFINED_AT_ONCE):
        part = slice(start, start + REFINED_AT_ONCE)
        code = table.codes(rows.slot[part]).astype(np.float64) - ZERO
        value[part] = np.einsum("ij,ij->i", exact[rows.query[part]], code) / table.scale
    length = np.sqrt((exact**2).sum(axis=1))
    wide = length[rows.query] * table.spreads[rows.slot] + SLACK
    owner, low, high = table.owners[rows.slot], value - wide, value + wide
    keep, _ = settle(rows.query, owner, low, high, k=scan.k, best=scan.best)
    slot = rows.slot[keep]
    return Possible(
        rows.query[keep], table.keys[slot], owner[keep].astype(np.int64), low[keep], high[keep]
    )
