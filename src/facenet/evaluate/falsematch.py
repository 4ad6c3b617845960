"""The table of false matches: every picture against every picture of another person.

The similarity matrix is computed block by block and counted into a histogram, so that millions
of pairs need no more memory than one block (training-free form of the sweep used for IJB).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import DataError
from facenet.models.card import FmrTable

STEP = 0.01
BINS = 4000
"""Bins of the histogram over -1 to 1: twenty to each row of the table."""
BLOCK = 2048


def non_mated_histogram(
    embedding: NDArray[np.floating], people: Sequence[str], *, block: int = BLOCK
) -> NDArray[np.int64]:
    """Histogram of the similarities of all pairs of different people: int64 (BINS,).

    embedding: (n, d). people: name of each row. Bin i holds similarities from -1 + 2i/BINS on.
    """
    rows = vectors.unit(np.asarray(embedding, np.float32))
    labels = np.unique(np.asarray(people), return_inverse=True)[1]
    counts = np.zeros(BINS, np.int64)
    for top in range(0, len(rows), block):
        for left in range(top, len(rows), block):
            scores = rows[top : top + block] @ rows[left : left + block].T
            wanted = labels[top : top + block, None] != labels[None, left : left + block]
            if top == left:
                wanted &= np.triu(np.ones_like(wanted), 1)
            bins = np.floor((scores[wanted].astype(np.float64) + 1) * (BINS / 2)).astype(np.int64)
            counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
    return counts


def false_match_table(
    embedding: NDArray[np.floating], people: Sequence[str], *, dataset: str
) -> FmrTable:
    """Count the false matches at each similarity, in steps of 0.01.

    Raises DataError with fewer than two people.
    """
    counts = non_mated_histogram(embedding, people)
    pairs = int(counts.sum())
    if pairs == 0:
        raise DataError("A table of false matches needs pictures of two people or more.")
    at_least = counts[::-1].cumsum()[::-1]
    edges = np.arange(0, BINS, round(STEP * BINS / 2))
    similarity = np.round(-1 + edges * (2 / BINS), 6)
    matches = at_least[edges]
    first = max(0, int(np.argmax(matches < pairs)) - 1)
    last = min(len(edges), int(np.argmax(matches == 0)) + 1 if (matches == 0).any() else len(edges))
    return FmrTable(
        dataset=dataset,
        images=len(embedding),
        people=len(set(people)),
        pairs=pairs,
        similarity=tuple(float(s) for s in similarity[first:last]),
        false_matches=tuple(int(m) for m in matches[first:last]),
    )
