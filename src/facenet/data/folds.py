"""Folds of pair sets that come without: contiguous blocks, as InsightFace and facenet cut them.

Source: ``sklearn.model_selection.KFold(n_splits=10, shuffle=False)``, which both call.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError
from facenet.types import IntArray


def contiguous_folds(same: NDArray[np.bool_], folds: int = 10) -> tuple[IntArray, tuple[str, ...]]:
    """Cut pairs into contiguous blocks whose sizes differ by one at most, the larger ones first.

    same: bool (n,), the truth of each pair. Returns the fold of each pair, int64 (n,), and a
    sentence when the blocks are not alike in size and share of mated pairs, or one lacks either
    kind. Raises DataError for fewer pairs than folds, or fewer folds than two.
    """
    truth = np.asarray(same, bool)
    if not 2 <= folds <= len(truth):
        raise DataError(
            f"{folds} folds for cross-validation should be two or more, each of one pair or more; "
            f"there are {len(truth)} pairs. Give more pairs."
        )
    size, larger = divmod(len(truth), folds)
    sizes = np.array([size + (fold < larger) for fold in range(folds)])
    fold = np.repeat(np.arange(folds, dtype=np.int64), sizes)
    mated = np.bincount(fold, weights=truth, minlength=folds).astype(np.int64)
    return fold, _unbalanced(sizes, mated)


def fold_notes(same: NDArray[np.bool_], fold: IntArray) -> tuple[str, ...]:
    """What is unlike in folds that a list gives: a sentence, or none. same, fold: (n,)."""
    number = np.unique(fold, return_inverse=True)[1]
    sizes = np.bincount(number)
    mated = np.bincount(number, weights=np.asarray(same, bool)).astype(np.int64)
    return _unbalanced(sizes, mated, kind="folds")


def _unbalanced(
    sizes: IntArray, mated: IntArray, *, kind: str = "contiguous blocks"
) -> tuple[str, ...]:
    """What is unlike in blocks of these sizes and numbers of mated pairs: (folds,), (folds,)."""
    lacking = int(np.sum((mated == 0) | (mated == sizes)))
    if np.ptp(sizes) == 0 and np.ptp(mated) == 0 and lacking == 0:
        return ()
    lacks = f"; {lacking} of them lack mated or non-mated pairs" if lacking else ""
    return (
        f"The folds are unbalanced: {len(sizes)} {kind} of {_span(sizes)} pairs, "
        f"{_span(mated)} of them mated{lacks}.",
    )


def _span(counts: IntArray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
