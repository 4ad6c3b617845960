"""Pair sets: what they refuse, and who is the same person when nobody says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError


def make(pictures, rows, **changes):
    """A set of pairs (a, b, same) in one fold each."""
    a, b, same = zip(*rows, strict=True)
    columns = {"a": a, "b": b, "same": same, "fold": range(len(rows)), **changes}
    return PairSet("toy", tuple(pictures), **columns)


def test_named_people_are_their_names():
    pictures = [Picture(str(row), Path(str(row)), name) for row, name in enumerate("abca")]
    numbers = make(pictures, [(0, 1, False), (1, 2, False)]).subjects()
    assert numbers[0] == numbers[3]
    assert len(set(numbers.tolist())) == 3


def test_without_names_pairs_and_equal_pictures_link_people():
    """0-1 are a pair of one person, 2 repeats the bytes of 1, 3 and 4 are strangers."""
    content = [b"a", b"b", b"b", b"c", b"d"]
    pictures = [Picture(str(row), data) for row, data in enumerate(content)]
    numbers = make(pictures, [(0, 1, True), (2, 3, False), (3, 4, False)]).subjects().tolist()
    assert numbers[0] == numbers[1] == numbers[2]
    assert len({numbers[0], numbers[3], numbers[4]}) == 3


def test_long_chains_are_one_person():
    pictures = [Picture(str(row), str(row).encode()) for row in range(200)]
    order = np.random.default_rng(0).permutation(199)
    rows = [(int(row), int(row) + 1, True) for row in order]
    assert set(make(pictures, rows).subjects().tolist()) == {0}


def test_missing_pictures_are_nobody_known():
    pictures = [Picture("a", None), Picture("b", None)]
    assert len(set(make(pictures, [(0, 1, False)]).subjects().tolist())) == 2


def test_columns_are_kept_and_read_only():
    pairs = make([Picture("a", b"a"), Picture("b", b"b")], [(0, 1, 1)])
    assert len(pairs) == 1
    assert pairs.same.dtype == bool
    with pytest.raises(ValueError, match="read-only"):
        pairs.a[0] = 1


@pytest.mark.parametrize("row", [(0, 2, True), (-1, 0, True)])
def test_pairs_of_pictures_that_are_not_there(row):
    with pytest.raises(DataError, match=r"of its 2 pictures; they name picture (2|-1)"):
        make([Picture("a", b""), Picture("b", b"")], [row])


def test_columns_that_do_not_fit():
    pictures = [Picture("a", b""), Picture("b", b"")]
    with pytest.raises(DataError, match="one pair or more"):
        make(pictures, [(0, 1, True)], fold=[0, 1])
    with pytest.raises(DataError, match="one pair or more"):
        PairSet("toy", (), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))
