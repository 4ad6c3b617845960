"""Embeddings as vectors: unit length, cosine similarity, pooling, top-k. One definition each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.types import FloatArray, IntArray

TINY = np.float32(1e-10)
"""Vectors shorter than this are not stretched to length one, so that zero stays zero.

Far below TensorFlow's l2_normalize in facenet, which stops at 1e-10 of the squared length.
"""

SMALL = 1 << 24
"""Multiplications up to which a table of similarities is not worth waking threads."""


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
    try:
        np.broadcast_shapes(np.shape(a), np.shape(b))
    except ValueError as error:
        raise InputError(
            "Vectors to compare row by row should come in equal numbers, or one against many; got "
            f"{np.shape(a)} and {np.shape(b)}. Use similarity_matrix for every pair."
        ) from error
    return np.asarray(np.clip(np.sum(unit(a) * unit(b), axis=-1), -1.0, 1.0), np.float32)


def similarity_matrix(a: NDArray[np.floating], b: NDArray[np.floating]) -> FloatArray:
    """Cosine similarity of every row of a with every row of b: (n, d), (m, d) -> (n, m)."""
    _same_width(a, b)
    return np.asarray(np.clip(_products(unit(a), unit(b)), -1.0, 1.0), np.float32)


def _products(a: FloatArray, b: FloatArray) -> FloatArray:
    """Every row of a times every row of b: (n, d), (m, d) -> (n, m).

    Small ones without BLAS: its threads go on spinning for 20 ms afterwards, in the way of the
    networks that run next.
    """
    rows, others = np.atleast_2d(a), np.atleast_2d(b)
    if rows.shape[0] * others.size <= SMALL:
        return np.asarray(np.einsum("id,jd->ij", rows, others), np.float32)
    return np.asarray(rows @ others.T, np.float32)


def template(vectors: NDArray[np.floating], weights: Sequence[float] | None = None) -> FloatArray:
    """One person's pooled vector: the unit vector of the (weighted) mean of unit vectors.

    vectors: (n, d), n >= 1. weights: n numbers >= 0, or None for equal weights. Returns (d,).
    """
    rows = np.atleast_2d(unit(vectors))
    if rows.size == 0:
        raise InputError("A template should be made of at least one vector; got none.")
    if weights is None:
        return unit(rows.sum(axis=0))
    shares = np.asarray(weights, np.float32)
    if shares.shape != (len(rows),) or not np.all(shares >= 0) or not np.any(shares > 0):
        raise InputError(
            f"The weights of {len(rows)} vectors should be {len(rows)} numbers, 0 or more and not "
            f"all 0; got {np.array2string(shares, threshold=8)}."
        )
    return unit((rows * shares[:, None]).sum(axis=0))


def top_k(scores: NDArray[np.floating], k: int) -> IntArray:
    """Columns of the k highest scores of each row, best first; ties keep the lower column.

    scores: (n, m); NaN comes last. Returns int64 (n, min(k, m)).
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
