"""Contiguous folds: as sklearn's KFold cuts them, and what is said of unbalanced ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facenet.data.folds import contiguous_folds
from facenet.errors import DataError


@given(st.lists(st.booleans(), min_size=2, max_size=90), st.integers(2, 12))
def test_blocks_are_those_of_kfold(truth, folds):
    """KFold: the first n % k folds have n // k + 1 pairs, the others n // k, in order."""
    if len(truth) < folds:
        return
    fold, notes = contiguous_folds(np.array(truth), folds)
    expected, blocks = [], []
    for number in range(folds):
        size = len(truth) // folds + (1 if number < len(truth) % folds else 0)
        blocks.append(truth[len(expected) : len(expected) + size])
        expected += [number] * size
    assert fold.tolist() == expected
    assert fold.dtype == np.int64
    alike = len({(len(block), sum(block)) for block in blocks}) == 1
    both = all(0 < sum(block) < len(block) for block in blocks)
    assert bool(notes) == (not (alike and both))


def test_lfw_has_balanced_folds():
    truth = ([True] * 300 + [False] * 300) * 10
    fold, notes = contiguous_folds(np.array(truth))
    assert notes == ()
    assert np.bincount(fold).tolist() == [600] * 10


@pytest.mark.parametrize(
    "truth, told",
    [
        ([True, False] * 10 + [True], "2 to 3 pairs, 1 to 2 of them mated."),
        ([True, False] * 9 + [True, True, False, False], "2 to 3 pairs, 0 to 2 of them mated; 2"),
        ([True] * 20, "2 pairs, 2 of them mated; 10 of them lack mated or non-mated pairs."),
        ([True, False, False] * 10 + [True, True, False] * 10, "6 pairs, 2 to 4 of them mated."),
    ],
)
def test_unbalanced_folds_are_said_in_one_sentence(truth, told):
    (note,) = contiguous_folds(np.array(truth))[1]
    assert note.startswith(f"The folds are unbalanced: 10 contiguous blocks of {told}")
    assert note.count(".") == 1


@pytest.mark.parametrize("pairs, folds", [(9, 10), (0, 10), (5, 1), (5, 0), (5, -2)])
def test_fewer_pairs_than_folds_or_fewer_than_two_folds_are_refused(pairs, folds):
    told = f"^{folds} folds .* should be two or more, .*; there are {pairs} pairs. Give more pairs"
    with pytest.raises(DataError, match=told):
        contiguous_folds(np.ones(pairs, bool), folds)
