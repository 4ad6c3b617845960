"""Cross-validated decisions: the threshold of a fold comes from the other folds.

Two searches. `GRID` is that of facenet's and InsightFace's `evaluate`: distances 0 to 3.99 in
steps of 0.01, the first best one wins, a pair matches when its distance is below. `exact_threshold`
looks at every score and takes the middle of the widest interval of best thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError
from facenet.types import IntArray

GRID = np.arange(0, 4, 0.01)
VAL_GRID = np.arange(0, 4, 0.001)
VAL_FAR = 1e-3

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Distances = Callable[[Bools], Floats]
"""Distances of all pairs (n,), plus infinity without a face, given the training pairs (n,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What cross-validation decided.

    accuracy, threshold: per fold, float64 (folds,); thresholds are distances. correct: bool (n,),
    each pair at the threshold of its fold. distance: float64 (n,), each pair as its own fold saw
    it. val, far: of facenet's VAL@FAR = 1e-3 per fold, (folds,); accepted: bool (n,), each pair at
    the threshold of that in its fold.
    """

    accuracy: Floats
    threshold: Floats
    correct: Bools
    distance: Floats
    val: Floats
    far: Floats
    accepted: Bools


def cross_validate(
    distances: Distances, same: Bools, fold: IntArray, *, exact: bool = False
) -> Decisions:
    """Decide every pair at the threshold that is best on the other folds.

    same, fold: (n,), the truth and the fold of each pair. exact: search all scores, not the grid.
    Raises DataError with fewer than two folds.
    """
    numbers = np.unique(fold)
    if len(numbers) < 2:
        raise DataError(
            f"Cross-validation needs two folds or more; got {len(numbers)}. Give more pairs, or a "
            "pairs file whose header announces folds."
        )
    correct, own = np.zeros(len(same), bool), np.zeros(len(same))
    accepted = np.zeros(len(same), bool)
    rows = []
    for number in numbers:
        test = fold == number
        distance = distances(~test)
        search = exact_threshold if exact else grid_threshold
        threshold = search(distance[~test], same[~test])
        matched = distance <= threshold if exact else distance < threshold
        correct[test], own[test] = (matched == same)[test], distance[test]
        val_threshold = far_threshold(distance[~test], same[~test])
        accepted[test] = distance[test] < val_threshold
        rows.append((correct[test].mean(), threshold, *_val_far(accepted[test], same[test])))
    accuracy, threshold, val, far = np.array(rows, np.float64).T
    return Decisions(accuracy, threshold, correct, own, val, far, accepted)


def grid_threshold(distance: Floats, same: Bools) -> float:
    """The first threshold of `GRID` with the best accuracy; distance, same: (n,)."""
    right = _accepted(distance[same], GRID) - _accepted(distance[~same], GRID)
    return float(GRID[int(np.argmax(right))])


def exact_threshold(distance: Floats, same: Bools) -> float:
    """Middle of the widest interval of thresholds with the best accuracy; distance, same: (n,).

    A pair matches when its distance is at most the threshold.
    """
    levels = np.unique(distance[np.isfinite(distance)])
    if len(levels) == 0:
        return 0.0
    edges = np.concatenate([[levels[0] - 1e-6], levels, [levels[-1] + 1e-6]])
    middles = (edges[1:] + edges[:-1]) / 2
    right = _accepted(distance[same], middles, "right") - _accepted(
        distance[~same], middles, "right"
    )
    best = np.flatnonzero(right == right.max())
    return float(middles[best[np.argmax(np.diff(edges)[best])]])


def far_threshold(distance: Floats, same: Bools, far: float = VAL_FAR) -> float:
    """The largest threshold of `VAL_GRID` whose FAR is at most `far`, 0 if FAR never gets there.

    distance, same: (n,). facenet interpolates linearly between rows of the grid, which newer
    SciPy refuses where a rate repeats; the thresholds differ by less than one step of 0.001.
    """
    others = distance[~same]
    if len(others) == 0:
        return 0.0
    rates = _accepted(others, VAL_GRID) / len(others)
    if rates[-1] < far:
        return 0.0
    return float(VAL_GRID[int(np.sum(rates <= far)) - 1])


def _accepted(distance: Floats, thresholds: Floats, side: str = "left") -> IntArray:
    """How many distances are below each threshold ("right": or equal): (n,), (m,) -> (m,)."""
    left = side == "left"
    return np.searchsorted(np.sort(distance), thresholds, side="left" if left else "right")


def _val_far(accepted: Bools, same: Bools) -> tuple[float, float]:
    mated, others = accepted[same], accepted[~same]
    return (
        float(mated.mean()) if len(mated) else np.nan,
        float(others.mean()) if len(others) else np.nan,
    )
