"""Samplers: permutations are permutations, shares are shares, and steps need no history."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.errors import DataError, SettingsError
from facenet.train.sampling import (
    PRIMES,
    Balanced,
    PeopleTimesImages,
    Shuffled,
    permuted,
    place_in_epoch,
)

LABELS = np.repeat(np.arange(6), [1, 2, 5, 10, 30, 52])


@given(
    st.integers(1, 3000) | st.integers(4090, 20_000), st.integers(0, 2**40), st.integers(0, 1000)
)
@settings(max_examples=80, deadline=None)
def test_a_permutation_meets_every_number_once(n, seed, epoch):
    sent = permuted(np.arange(n), n, (seed, epoch))
    assert np.array_equal(np.sort(sent), np.arange(n))
    some = np.arange(n)[:: max(1, n // 7)]
    assert np.array_equal(permuted(some, n, (seed, epoch)), sent[some])


def test_neighbours_and_passes_are_as_independent():
    """Chi squared, 8 degrees of freedom: above 35 has a probability of 3e-5; the keys are fixed."""
    sent = np.array([permuted(np.arange(6000), 6000, (7, key)) for key in range(20)])
    thirds = sent // 2000
    pairs = [(row[:-1], row[1:]) for row in thirds]
    pairs += list(itertools.pairwise(thirds))
    for a, b in pairs:
        seen = np.bincount(3 * a + b, minlength=9)
        assert np.sum((seen - len(a) / 9) ** 2 / (len(a) / 9)) < 35


def test_a_large_permutation_takes_the_memory_of_a_batch():
    sent = permuted(np.arange(10**15, 10**15 + 500), 3 * 10**15, (1, 2))
    assert len(np.unique(sent)) == 500
    assert 0.4 < np.mean(sent / 3e15) < 0.6


def every(sampler, epoch: int = 0) -> list[np.ndarray]:
    first = epoch * sampler.steps_per_epoch
    pairs = [sampler.batch(step) for step in range(first, first + sampler.steps_per_epoch)]
    assert {number for _, number in pairs} == {epoch}
    return [rows for rows, _ in pairs]


@pytest.mark.parametrize(
    "sampler",
    [
        Shuffled(100, 7, 3),
        Shuffled(100, 7, 3, drop_last=False),
        Shuffled(10, 7, 3, epoch_size=5),
        Balanced(LABELS, 7, 3),
        PeopleTimesImages(LABELS, 3, 4, 3),
    ],
    ids=["shuffled", "with the last", "endless", "balanced", "people"],
)
def test_a_step_is_the_same_in_any_order_and_another_seed_is_other(sampler):
    steps = list(range(3 * sampler.steps_per_epoch))
    forward = [sampler.batch(step)[0].tolist() for step in steps]
    backward = [sampler.batch(step)[0].tolist() for step in reversed(steps)]
    assert forward == backward[::-1]
    assert len({tuple(rows) for rows in forward}) > len(forward) // 2
    per = sampler.steps_per_epoch
    assert place_in_epoch(sampler, 2 * per + 1) == (2, 1)
    assert forward[:per] != forward[per : 2 * per]


def test_a_pass_has_every_picture_once():
    epochs = [every(Shuffled(100, 7, 5, drop_last=False), epoch) for epoch in range(2)]
    for batches in epochs:
        assert [len(rows) for rows in batches] == [7] * 14 + [2]
        assert sorted(np.concatenate(batches).tolist()) == list(range(100))
    dropped = [every(Shuffled(100, 7, 5), epoch) for epoch in range(2)]
    assert [len(batches) for batches in dropped] == [14, 14]
    left_out = [set(range(100)) - set(np.concatenate(batches).tolist()) for batches in dropped]
    assert [len(rows) for rows in left_out] == [2, 2]
    assert left_out[0] != left_out[1]
    assert not np.array_equal(dropped[0], every(Shuffled(100, 7, 6)))


def test_facenets_epoch_is_a_piece_of_an_endless_row_of_passes():
    sampler = Shuffled(10, 4, 1, epoch_size=3)
    assert (sampler.steps_per_epoch, sampler.repeats, Shuffled(10, 4).repeats) == (3, True, False)
    stream = np.concatenate([sampler.batch(step)[0] for step in range(10)])
    assert [sampler.batch(step)[1] for step in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    for start in range(0, 40, 10):
        assert sorted(stream[start : start + 10].tolist()) == list(range(10))
    assert len(Shuffled(3, 8, epoch_size=2).batch(0)[0]) == 8


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_people_come_as_often_as_the_power_says(power):
    sampler = Balanced(LABELS, 10, 2, power=power)
    counts = np.bincount(LABELS)
    wanted = counts**power / np.sum(counts**power) * 100
    seen = []
    for epoch in range(4):
        rows = np.concatenate(every(sampler, epoch))
        people = np.bincount(LABELS[rows], minlength=6)
        assert np.all(np.abs(people - wanted) < 1 + 1e-9)
        for label in range(6):
            times = np.bincount(rows[LABELS[rows] == label], minlength=100)[label == LABELS]
            assert times.max() - times.min() <= 1
        seen.append(rows)
    assert len(np.unique(np.concatenate(seen))) > (90 if power else 75)


def test_the_steps_through_a_person_are_primes():
    for prime in PRIMES.tolist():
        divisors = np.arange(3, math.isqrt(prime) + 1, 2)
        assert prime % 2
        assert np.all(prime % divisors)


def test_a_batch_has_p_people_with_k_pictures():
    sampler = PeopleTimesImages(LABELS, 2, 4, 1)
    assert sampler.steps_per_epoch == 100 // 8
    met = []
    for step in range(8):
        rows, _ = sampler.batch(step)
        people = LABELS[rows].reshape(2, 4)
        assert np.all(people == people[:, :1])
        assert people[0, 0] != people[1, 0]
        for block in rows.reshape(2, 4):
            count = int(np.sum(LABELS[block[0]] == LABELS))
            assert np.max(np.bincount(block)) == -(-4 // count)
        met.append(set(people[:, 0].tolist()))
    assert 0 not in set.union(*met)
    assert all(not first & second for first, second in zip(met[::2], met[1::2], strict=True))
    assert len(set.union(*met)) == 5
    assert PeopleTimesImages(LABELS, 2, 4, epoch_size=7).steps_per_epoch == 7


def test_what_cannot_be_sampled_is_told():
    for wrong in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(SettingsError, match="A sampler should have"):
            Shuffled(*wrong)
    with pytest.raises(SettingsError, match="got epoch_size 0"):
        Shuffled(9, 3, epoch_size=0)
    with pytest.raises(DataError, match="for a batch of 8 or more; there are 7"):
        Shuffled(7, 8)
    with pytest.raises(DataError, match="for a batch of 101 or more; there are 100"):
        Balanced(LABELS, 101)
    with pytest.raises(SettingsError, match="power should be from 0 .* got 1.5"):
        Balanced(LABELS, 4, power=1.5)
    with pytest.raises(DataError, match="as many with two pictures or more; there are 5"):
        PeopleTimesImages(LABELS, 6, 2)
    with pytest.raises(DataError, match="there are 0"):
        PeopleTimesImages(np.arange(9), 2, 2)
    with pytest.raises(SettingsError, match="images should be 2 or more"):
        PeopleTimesImages(LABELS, 2, 1)
