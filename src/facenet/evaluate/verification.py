"""Verification accuracy by cross-validated folds, as facenet measured LFW.

Huang et al., "Labeled Faces in the Wild" (2007), and `validate_on_lfw` of davidsandberg/facenet:
for each fold the threshold with the best accuracy on the other folds is applied to it. Distance
is squared Euclidean between unit vectors, thresholds 0 to 3.99 in steps of 0.01, the first best
one wins, and a pair matches when its distance is below the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError

GRID = np.arange(0, 4, 0.01)


@dataclass(frozen=True, slots=True)
class FoldResult:
    """accuracy: mean over the folds. accuracy_std: population deviation over the folds.

    threshold: mean over the folds, as a cosine similarity (1 - squared distance / 2).
    """

    accuracy: float
    accuracy_std: float
    threshold: float


def fold_accuracy(
    similarity: NDArray[np.floating], same: Sequence[bool], folds: Sequence[int]
) -> FoldResult:
    """Cross-validated accuracy of pairs.

    similarity: (n,) cosine; -1 for a pair of which a face was not found, so that it counts as
    "different". same, folds: (n,) the truth and the fold of each pair.
    Raises DataError with fewer than two folds.
    """
    distance = 2 - 2 * np.asarray(similarity, np.float64)
    truth, fold = np.asarray(same, bool), np.asarray(folds)
    numbers = np.unique(fold)
    if len(numbers) < 2:
        raise DataError(f"Cross-validation needs two folds or more; got {len(numbers)}.")
    correct = (distance[:, None] < GRID) == truth[:, None]
    accuracies, thresholds = [], []
    for number in numbers:
        test = fold == number
        best = int(np.argmax(correct[~test].mean(axis=0)))
        thresholds.append(GRID[best])
        accuracies.append(correct[test, best].mean())
    return FoldResult(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        threshold=float(1 - np.mean(thresholds) / 2),
    )
