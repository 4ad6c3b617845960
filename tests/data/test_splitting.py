"""Held-out parts: nobody twice, the counts by hand, and what cannot be split."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.data.splitting import split_images, split_people
from facenet.errors import DataError, SettingsError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(
    lambda labels: np.array(labels, np.int64)
)
RATIOS = st.sampled_from([0.1, 0.25, 0.5, 0.9])


@given(LABELS, RATIOS, st.integers(0, 99), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_images_by_facenets_rule(labels, ratio, seed, min_images):
    wanted = {}
    for label in set(labels.tolist()):
        count = int(np.sum(labels == label))
        kept = min(math.floor(round(count * (1 - ratio), 9)), count - 1)
        wanted[label] = (kept, count - kept) if kept >= min_images else None
    if not any(wanted.values()):
        with pytest.raises(DataError, match="should leave somebody with"):
            split_images(labels, ratio, seed, min_images)
        return
    split = split_images(labels, ratio, seed, min_images)
    assert split.dropped.tolist() == sorted(label for label, pair in wanted.items() if not pair)
    for label, pair in wanted.items():
        got = tuple(int(np.sum(labels[rows] == label)) for rows in (split.train, split.held))
        assert got == (pair or (0, 0))
    assert not np.intersect1d(split.train, split.held).size
    for rows in (split.train, split.held):
        assert rows.tolist() == sorted(set(rows.tolist()))
    again = split_images(labels, ratio, seed, min_images)
    assert np.array_equal(split.held, again.held)


@given(LABELS, RATIOS, st.integers(0, 99), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_people_are_on_one_side(labels, ratio, seed, min_images):
    people = set(labels.tolist())
    able = {label for label in people if np.sum(labels == label) >= min_images}
    learnt = math.floor(round(len(people) * (1 - ratio), 9) + 0.5)
    out = min(len(people) - learnt, len(able))
    if out < 2 or out == len(people):
        with pytest.raises(DataError, match=f"holds out {out}. Add people"):
            split_people(labels, ratio, seed, min_images)
        return
    split = split_people(labels, ratio, seed, min_images)
    held = set(labels[split.held].tolist())
    assert len(held) == out
    assert held <= able
    assert set(labels[split.train].tolist()) == people - held
    assert sorted([*split.train.tolist(), *split.held.tolist()]) == list(range(len(labels)))


@pytest.mark.parametrize("split", [split_images, split_people])
def test_every_person_and_picture_may_be_held_out(split):
    """The last person too, whom facenet lost."""
    labels = np.repeat(np.arange(4), 4)
    held = [set(split(labels, 0.5, seed).held.tolist()) for seed in range(30)]
    assert set.union(*held) == set(range(16))
    assert len({frozenset(rows) for rows in held}) > 5


@pytest.mark.parametrize("split", [split_images, split_people])
def test_what_cannot_be_split_is_told(split):
    labels = np.repeat(np.arange(4), 4)
    for ratio in (0, 1, -0.1, float("nan")):
        with pytest.raises(SettingsError, match="above 0 and below 1"):
            split(labels, ratio, 0)
    for seed, least in ((-1, 1), (0, 0)):
        with pytest.raises(SettingsError, match=f"got {seed} and {least}"):
            split(labels, 0.5, seed, least)
    for wrong in (np.zeros(0, np.int64), np.zeros(3), -labels, labels[None]):
        with pytest.raises(DataError, match="a row of labels"):
            split(wrong, 0.5, 0)
    with pytest.raises(DataError, match="Holding out 0.5|holding out 0.5"):
        split(np.array([0, 1]), 0.5, 0)
