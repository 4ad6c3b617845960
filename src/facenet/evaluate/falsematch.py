"""The table of false matches: every picture against every picture of another person.

The similarity matrix is computed block by block and counted into a histogram, so that millions
of pairs need no more memory than one block (training-free form of the sweep used for IJB).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import DataError, InputError
from facenet.models.card import FmrTable

STEPS = 100
"""Rows of the table to a similarity of 1."""
EDGES = np.arange(-STEPS, STEPS) / STEPS
"""Similarities of the rows, float64: -1, -0.99, ... 0.99, each the nearest to its decimals."""
BLOCK = 2048


def non_mated_histogram(
    embedding: NDArray[np.floating], people: Sequence[str], *, block: int = BLOCK
) -> NDArray[np.int64]:
    """Histogram of the similarities of all pairs of different people: int64 (200,).

    embedding: (n, d). people: name of each row. Entry i counts the pairs with a similarity of
    `EDGES[i]` or more, and less than the next edge, as `similarity >= threshold` decides it.
    """
    if len(embedding) != len(people):
        raise InputError(
            f"There should be one name per vector; got {len(people)} names for "
            f"{len(embedding)} vectors."
        )
    rows = vectors.unit(np.asarray(embedding, np.float32))
    labels = np.unique(np.asarray(people), return_inverse=True)[1]
    counts = np.zeros(len(EDGES), np.int64)
    for top in range(0, len(rows), block):
        for left in range(top, len(rows), block):
            scores = rows[top : top + block] @ rows[left : left + block].T
            wanted = labels[top : top + block, None] != labels[None, left : left + block]
            if top == left:
                wanted &= np.triu(np.ones_like(wanted), 1)
            counts += np.bincount(_row_of(scores[wanted]), minlength=len(EDGES))
    return counts


def _row_of(similarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """The last row whose edge is not above a similarity: (n,) -> (n,)."""
    exact = np.clip(similarity.astype(np.float64), -1, 1)
    last = len(EDGES) - 1
    row = np.clip(np.floor((exact + 1) * STEPS).astype(np.int64), 0, last)
    row -= exact < EDGES[row]  # where the sum or the product was rounded over an edge
    row += (row < last) & (exact >= EDGES[np.minimum(row + 1, last)])
    return row


def false_match_table(
    embedding: NDArray[np.floating], people: Sequence[str], *, dataset: str
) -> FmrTable:
    """Count the false matches at each similarity, in steps of 0.01.

    embedding: (n, d). people: name of each row. The table begins with the last row that all
    pairs reach and ends with the first that none reaches.
    Raises DataError with fewer than two people.
    """
    counts = non_mated_histogram(embedding, people)
    pairs = int(counts.sum())
    if pairs == 0:
        raise DataError("A table of false matches needs pictures of two people or more.")
    matches = counts[::-1].cumsum()[::-1]
    first = max(0, int(np.sum(matches == pairs)) - 1)
    last = len(EDGES) - max(0, int(np.sum(matches == 0)) - 1)
    return FmrTable(
        dataset=dataset,
        images=len(embedding),
        people=len(set(people)),
        pairs=pairs,
        similarity=tuple(float(edge) for edge in EDGES[first:last]),
        false_matches=tuple(int(count) for count in matches[first:last]),
    )
