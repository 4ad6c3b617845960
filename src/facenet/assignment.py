"""Who goes with whom: pairs of rows and columns that are worth the most together, exactly.

The assignment problem, solved by shortest augmenting paths (Jonker and Volgenant 1987, in the form
of Kuhn and Munkres that keeps a price for each row and column). Rows and columns that no pair of
any worth connects are solved apart, so that a large and sparse table is as fast as its parts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def best_pairs(worth: NDArray[np.floating]) -> tuple[Indices, Indices]:
    """Pairs of rows and columns, each in one pair at most, of the greatest worth in all.

    worth: (n, m), finite or -inf; a pair of 0 or less is never made. Returns (k,), (k,): rows,
    rising, and the column of each. The same table gives the same pairs, of equal sums too.
    Raises InputError for NaN, infinite worth or another shape.
    """
    table = np.asarray(worth, np.float64)
    if table.ndim != 2 or np.isnan(table).any() or np.isposinf(table).any():
        raise InputError(
            "A table of what pairs are worth should be (n, m) numbers below infinity; got "
            f"{table.dtype} of shape {table.shape}, or NaN in it. Check what it is made of."
        )
    rows, columns = np.nonzero(table > 0)
    parts = _connected(rows, columns, table.shape)
    alone = _alone(parts, rows, columns)
    first, second = [rows[alone]], [columns[alone]]
    for part in np.unique(parts[~alone]):
        inside = parts == part
        mine, theirs = np.unique(rows[inside]), np.unique(columns[inside])
        some, others = _solved(np.maximum(table[np.ix_(mine, theirs)], 0.0))
        first.append(mine[some])
        second.append(theirs[others])
    left, right = np.concatenate(first), np.concatenate(second)
    kept = table[left, right] > 0
    order = np.argsort(left[kept], kind="stable")
    return left[kept][order], right[kept][order]


def _connected(rows: Indices, columns: Indices, shape: tuple[int, ...]) -> Indices:
    """The number of the part that each pair (k,) is in; pairs that share an end are in one."""
    of_row, of_column = np.arange(shape[0]), np.full(shape[1], shape[0])
    while True:
        np.minimum.at(of_column, columns, of_row[rows])
        before = of_row.copy()
        np.minimum.at(of_row, rows, of_column[columns])
        of_row = of_row[of_row]
        if np.array_equal(before, of_row):
            return np.asarray(of_row[rows], np.intp)


def _alone(parts: Indices, rows: Indices, columns: Indices) -> NDArray[np.bool_]:
    """Which pairs (k,) are the only one of their part."""
    counts = np.bincount(parts) if parts.size else np.zeros(0, np.intp)
    return np.asarray(counts[parts] == 1, np.bool_)


def _solved(worth: Floats) -> tuple[Indices, Indices]:
    """Rows and columns of the best pairs of a dense table (n, m), min(n, m) of them."""
    if worth.shape[0] > worth.shape[1]:
        columns, rows = _solved(np.ascontiguousarray(worth.T))
        return rows, columns
    count, width = worth.shape
    row_price, column_price = np.zeros(count + 1), np.zeros(width + 1)
    owner, way = np.full(width + 1, -1, np.intp), np.zeros(width + 1, np.intp)
    for row in range(count):
        end = _path(-worth, row, (row_price, column_price), owner, way)
        while end != width:
            owner[end] = owner[way[end]]
            end = way[end]
    taken = np.flatnonzero(owner[:width] >= 0)
    return owner[taken], taken


def _path(
    cost: Floats, row: int, prices: tuple[Floats, Floats], owner: Indices, way: Indices
) -> int:
    """The free column at the end of the shortest way from a row; `way`: the column before each.

    The last column, of index m, stands for the start. prices and way are changed in place.
    """
    row_price, column_price = prices
    width = cost.shape[1]
    owner[width] = row
    least = np.full(width, np.inf)
    used = np.zeros(width + 1, np.bool_)
    here: int = width
    while owner[here] >= 0:
        used[here] = True
        mine = owner[here]
        left = cost[mine] - row_price[mine] - column_price[:width]
        nearer = ~used[:width] & (left < least)
        least[nearer] = left[nearer]
        way[:width][nearer] = here
        reach = np.where(used[:width], np.inf, least)
        nearest = int(np.argmin(reach))
        step = reach[nearest]
        row_price[owner[used]] += step
        column_price[used] -= step
        least[~used[:width]] -= step
        here = nearest
    return here
