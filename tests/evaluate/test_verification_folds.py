"""Fold accuracy against the protocol written out with loops."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.evaluate.verification import fold_accuracy


def naive(similarity, same, folds):
    """For each fold, each threshold, each pair of the other folds: count; the first best wins."""
    thresholds = [step / 100 for step in range(400)]
    accuracies, chosen = [], []
    for fold in sorted(set(folds)):
        best_count, best = -1, 0.0
        for threshold in thresholds:
            count = 0
            for value, truth, own in zip(similarity, same, folds, strict=True):
                if own != fold:
                    count += (2 - 2 * value < threshold) == truth
            if count > best_count:
                best_count, best = count, threshold
        rows = [row for row, own in enumerate(folds) if own == fold]
        right = sum((2 - 2 * similarity[row] < best) == same[row] for row in rows)
        accuracies.append(right / len(rows))
        chosen.append(best)
    mean = sum(accuracies) / len(accuracies)
    deviation = (sum((a - mean) ** 2 for a in accuracies) / len(accuracies)) ** 0.5
    return mean, deviation, 1 - sum(chosen) / len(chosen) / 2


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_loops(seed):
    generator = np.random.default_rng(seed)
    count, number = 60, int(generator.integers(2, 7))
    same = generator.random(count) < 0.5
    similarity = np.where(same, 0.5, 0.2) + generator.normal(0, 0.2, count)
    similarity = np.clip(similarity, -1, 1).astype(np.float32 if seed % 2 else np.float64)
    if seed >= 3:
        similarity[generator.random(count) < 0.2] = -1  # no face was found
    folds = np.sort(np.arange(count) % number)
    result = fold_accuracy(similarity, same.tolist(), folds.tolist())
    expected = naive([float(v) for v in similarity], same.tolist(), folds.tolist())
    assert (result.accuracy, result.accuracy_std, result.threshold) == pytest.approx(expected)


def test_the_first_of_the_best_thresholds_wins():
    """Same pairs at 0.206, different ones at 1.0: every threshold from 0.21 to 1.0 is best."""
    result = fold_accuracy([0.897, 0.5] * 2, [True, False] * 2, [0, 0, 1, 1])
    assert result.accuracy == 1
    assert result.threshold == pytest.approx(1 - 0.21 / 2)


def test_a_pair_matches_below_the_threshold_and_not_at_it():
    """Squared distance 0.5, exactly on the grid: only from 0.51 on is it a match."""
    result = fold_accuracy([0.75] * 2, [True, True], [0, 1])
    assert result.threshold == pytest.approx(1 - 0.51 / 2)


def test_a_missing_face_is_never_a_match():
    """Even where the best threshold is the largest: distance 4 is above every one of them."""
    result = fold_accuracy([-0.99, -1.0, -0.99, -1.0], [True] * 4, [0, 0, 1, 1])
    assert result.accuracy == 0.5


def test_the_threshold_comes_from_the_other_folds():
    """Fold 0 would choose well for itself, and is judged by what fold 1 chooses."""
    similarity = [0.9, 0.5, 0.45, 0.1]
    result = fold_accuracy(similarity, [True, False, True, False], [0, 0, 1, 1])
    assert result.accuracy == 0.5
    assert result.accuracy_std == 0


def test_folds_of_different_sizes_count_alike():
    """Of a fold of one pair none is right, of a fold of three two: 1/3 in the mean, not 2/4."""
    similarity = [0.1, 0.9, 0.9, 0.2]
    result = fold_accuracy(similarity, [True, True, True, False], [0, 1, 1, 1])
    assert result.accuracy == pytest.approx(1 / 3)
    assert result.accuracy_std == pytest.approx(1 / 3)


def test_one_fold_is_refused():
    with pytest.raises(DataError, match="two folds or more; got 1"):
        fold_accuracy([0.5, 0.6], [True, False], [3, 3])
