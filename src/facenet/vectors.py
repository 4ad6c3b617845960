"""Embeddings as vectors: unit length, cosine similarity, pooling, top-k. One definition each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.types import FloatArray, IntArray

TINY = np.float32(1e-10)
"""Lengths below this count as zero (the epsilon of facenet's own l2_normalize)."""


def unit(vectors: NDArray[np.floating]) -> FloatArray:
    """Scale vectors to length one along the last axis.

    vectors: (..., d). Returns float32 of the same shape; a zero vector stays zero.
    """
    array = np.asarray(vectors, np.float32)
    length = np.sqrt(np.sum(array * array, axis=-1, keepdims=True, dtype=np.float32))
    return np.asarray(array / np.maximum(length, TINY), np.float32)


def similarity(a: NDArray[np.floating], b: NDArray[np.floating]) -> FloatArray:
    """Cosine similarity, -1 to 1, higher is closer.

    a, b: (d,) or (n, d) row by row, broadcast against each other. Returns float32 () or (n,).
    """
    _same_width(a, b)
    return np.clip(np.sum(unit(a) * unit(b), axis=-1), -1.0, 1.0).astype(np.float32)


def similarity_matrix(a: NDArray[np.floating], b: NDArray[np.floating]) -> FloatArray:
    """Cosine similarity of every row of a with every row of b: (n, d), (m, d) -> (n, m)."""
    _same_width(a, b)
    return np.clip(unit(a) @ unit(b).T, -1.0, 1.0).astype(np.float32)


def template(vectors: NDArray[np.floating], weights: Sequence[float] | None = None) -> FloatArray:
    """One person's pooled vector: the unit vector of the (weighted) mean of unit vectors.

    vectors: (n, d), n >= 1. weights: n numbers >= 0, or None for equal weights. Returns (d,).
    """
    rows = unit(np.atleast_2d(vectors))
    if len(rows) == 0:
        raise InputError("A template needs at least one vector; got none.")
    weighted = rows if weights is None else rows * np.asarray(weights, np.float32)[:, None]
    return unit(weighted.sum(axis=0))


def top_k(scores: NDArray[np.floating], k: int) -> IntArray:
    """Columns of the k highest scores of each row, best first; ties keep the lower column.

    scores: (n, m). Returns int64 (n, min(k, m)).
    """
    table = np.atleast_2d(scores)
    order = np.argsort(-table, axis=1, kind="stable")
    return order[:, : max(k, 0)].astype(np.int64)


def _same_width(a: NDArray[np.floating], b: NDArray[np.floating]) -> None:
    if np.shape(a)[-1:] != np.shape(b)[-1:]:
        raise InputError(
            f"Vectors to compare should have the same number of values; got {np.shape(a)} and "
            f"{np.shape(b)}. They come from different models: embed both with one model."
        )
