"""The sweep against all pairs, one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from facenet import vectors
from facenet.errors import DataError, InputError
from facenet.evaluate.curves import tar_at_far
from facenet.evaluate.sweep import MATED_MOST, labelled, sweep
from facenet.evaluate.tally import BINS, EDGES

BIN = 2 / BINS


def crowd(count, people, seed=0, dimension=12):
    """Vectors, people with any numbers; some pictures twice, under the same name and another."""
    generator = np.random.default_rng(seed)
    person = generator.integers(0, people, count) * 7 - 20
    centres = generator.normal(size=(people, dimension))
    rows = centres[(person + 20) // 7] + generator.normal(size=(count, dimension))
    copies = generator.integers(0, count, (count // 20, 2))
    rows[copies[:, 0]] = rows[copies[:, 1]]
    return rows.astype(np.float32) * 3, person


def all_pairs(rows, person):
    """(similarity, a, b) of the mated and of the non-mated pairs, the highest first, by loops."""
    unit = vectors.unit(rows).astype(np.float64)
    mated, others = [], []
    for a in range(len(rows)):
        scores = np.clip(unit[a + 1 :] @ unit[a], -1, 1).astype(np.float32).tolist()
        for b, score in enumerate(scores, a + 1):
            (mated if person[a] == person[b] else others).append((-score, a, b))
    return tuple([(-score, a, b) for score, a, b in sorted(pairs)] for pairs in (mated, others))


@pytest.fixture(scope="module")
def big():
    rows, person = crowd(2000, 300)
    return rows, person, *all_pairs(rows, person)


@pytest.mark.parametrize("block", [190, 2048])
def test_a_sweep_is_all_pairs(big, block):
    rows, person, mated, others = big
    found = sweep(labelled(rows, person), pool_size=20_000, block=block)
    assert found.pairs == found.tally.pairs == len(others)
    assert (found.pictures, found.people) == (2000, len(set(person.tolist())))
    assert found.mated.tolist() == [score for score, _, _ in mated]
    numbers = {p: row for row, p in enumerate(sorted(set(person.tolist())))}
    assert sorted(zip(found.mated, found.mated_subject, strict=True)) == sorted(
        (score, numbers[person[a]]) for score, a, _ in mated
    )
    assert 19_000 < len(found.pool) <= 20_000
    kept = list(zip(found.pool.tolist(), found.pool_a, found.pool_b, strict=True))
    assert kept == [pair for pair in others if pair[0] > found.floor]
    rising = np.array([score for score, _, _ in others])[::-1]
    counted = [(row * BIN - 1, found.tally.at_least[row]) for row in range(0, BINS, 997)]
    counted += zip(EDGES, found.tally.grid, strict=True)
    for edge, count in counted:
        low, high = len(rising) - np.searchsorted(rising, [edge + 2e-7, edge - 2e-7])
        assert low <= count <= high


def test_thresholds_are_those_of_sorted_scores(big):
    """In the pool exactly `tar_at_far`; below it at most a bin above, and never a rate above."""
    rows, person, mated, others = big
    found = sweep(labelled(rows, person), pool_size=20_000)
    one, two = (np.array([score for score, _, _ in pairs]) for pairs in (mated, others))
    for far in (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 9e-3, 0.02, 0.1, 0.5, 1.0):
        expected, point = tar_at_far(one, two, far), found.threshold_at(far)
        assert point.fmr <= far
        assert point.exact == (far <= 9e-3)
        if point.exact:
            assert (point.similarity, point.false_matches) == (
                expected.threshold,
                expected.false_matches,
            )
            assert (point.fmr, found.tmr(point.similarity)) == (expected.far, expected.tar)
        elif far < 1:
            highest_refused = np.sort(two)[::-1][int(far * len(two))]
            assert highest_refused - 1e-6 < point.similarity <= highest_refused + BIN + 1e-6


def test_counts_at_any_similarity(big):
    """Exact where the pool reaches; below it never fewer, beyond rounding, nor more than a bin."""
    rows, person, _, others = big
    found = sweep(labelled(rows, person), pool_size=20_000)
    scores = np.array([score for score, _, _ in others])
    exact = [float(score) for score in found.pool[::1500]]
    for similarity in [*exact, 0.99999, 1.5]:
        assert found.false_matches(similarity) == np.sum(scores >= similarity)
    for similarity in [-2.0, -1.0, -0.4321, -0.25, 0.0, 0.1 + 0.2, float(found.floor)]:
        low, high = np.sum(scores >= similarity + 1e-6), np.sum(scores >= similarity - BIN - 1e-6)
        assert low <= found.false_matches(similarity) <= high
        assert found.fmr(similarity) == found.false_matches(similarity) / len(scores)


def quarters(count=300):
    """Vectors of zeros and ones of equal weight: every similarity is a multiple of a quarter."""
    generator = np.random.default_rng(9)
    rows = np.zeros((count, 12), np.float32)
    for row in rows:
        row[generator.choice(12, 4, replace=False)] = 1
    return rows, generator.integers(0, 40, count)


@pytest.mark.parametrize("pool_size", [None, 0, 100, 2000, 20_000])
def test_ties_are_counted_whole_whatever_the_pool_holds(pool_size):
    rows, person = quarters()
    mated, others = all_pairs(rows, person)
    found = sweep(labelled(rows, person), pool_size=pool_size, block=64)
    scores = np.array([score for score, _, _ in others])
    for similarity in (-0.25, 0.0, 0.25, 0.26, 0.5, 0.75, 0.99, 1.0):
        reaching = BIN if similarity == 1.0 and len(found.pool) == 0 else 0.0
        assert found.false_matches(similarity) == np.sum(scores >= similarity - reaching)
    for far in (0.001, 0.01, 0.1, 0.3, 0.6):
        expected = tar_at_far(np.array([score for score, _, _ in mated]), scores, far)
        point = found.threshold_at(far)
        assert point.false_matches == expected.false_matches
        assert found.tmr(point.similarity) == expected.tar
    assert pool_size is None or len(found.pool) <= pool_size
    held = [score for score, _, _ in others if score > found.floor]
    assert found.pool.tolist() == held
    assert found.complete == (pool_size is None)


def test_equal_vectors_of_everybody_fill_no_pool():
    """A broken model: no threshold up to 1 refuses anything, and none is claimed to."""
    rows = np.tile(np.float32([0.3, 0.5, -0.1]), (200, 1))
    found = sweep(labelled(rows, np.arange(200) // 2), pool_size=1000, block=50)
    assert len(found.pool) == 0
    point = found.threshold_at(0.5)
    assert (point.similarity > 1, point.fmr, found.tmr(point.similarity)) == (True, 0, 0)
    assert found.threshold_at(1.0).fmr == found.fmr(0.99) == found.tmr(0.99) == 1


@pytest.mark.parametrize("size", [500, 7000, 20_000])
def test_no_pair_above_the_floor_is_missing_where_pairs_crowd(size):
    """Similarities within 1e-4 of each other: float32 products put many into a wrong bin."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=40) + 0.01 * generator.normal(size=(300, 40))
    person = generator.integers(0, 50, 300)
    found = sweep(labelled(rows, person), pool_size=size, block=100)
    scores = [pair[0] for pair in all_pairs(rows, person)[1]]
    assert found.pool.tolist() == [score for score in scores if score > found.floor]
    assert size / 2 < len(found.pool) <= size


@pytest.mark.parametrize("block", [23, 64, 150, 151, 4000])
def test_the_size_of_the_blocks_does_not_matter(block):
    rows, person = crowd(150, 9, seed=4)
    first, second = (
        sweep(labelled(rows, person), pool_size=500, block=size) for size in (block, 37)
    )
    assert np.array_equal(first.mated, second.mated)
    count = min(len(first.pool), len(second.pool))
    for name in ("pool", "pool_a", "pool_b"):
        assert np.array_equal(getattr(first, name)[:count], getattr(second, name)[:count])
    assert abs(first.floor - second.floor) <= 2 * BIN
    moved = np.abs(first.tally.at_least - second.tally.at_least)
    assert moved.max() <= 3
    assert np.count_nonzero(moved) <= 20


def test_pictures_without_a_face_count_and_match_nothing():
    rows, person = crowd(120, 8, seed=2)
    there = np.random.default_rng(3).random(120) < 0.8
    rows[~there] = np.nan
    found = sweep(labelled(rows, person, there), block=50)
    mated, others = all_pairs(np.where(there[:, None], rows, 1), person)
    both = there[None] & there[:, None]
    kept = [sorted((s for s, a, b in side if both[a, b]), reverse=True) for side in (mated, others)]
    assert (len(found.mated), found.pairs) == (len(mated), len(others))
    assert found.mated[: len(kept[0])].tolist() == kept[0]
    assert np.all(found.mated[len(kept[0]) :] == -np.inf)
    assert found.complete
    assert found.pool.tolist() == kept[1]
    assert found.threshold_at(1.0).similarity == min(kept[0][-1], kept[1][-1])
    assert found.fmr(-1.0) == len(kept[1]) / len(others) < 1


def test_progress_counts_pairs_and_ends_with_all():
    seen = []
    rows, person = crowd(101, 5)
    sweep(labelled(rows, person), block=30, done=lambda *at: seen.append(at))
    assert [total for _, total in seen] == [101 * 100 // 2] * len(seen)
    counts = [count for count, _ in seen]
    assert counts[-1] == 101 * 100 // 2
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1e30, 1e-30])
def test_a_vector_that_cannot_be_compared_is_named(bad):
    rows, person = crowd(20, 4)
    rows[[7, 11]] = bad
    with pytest.raises(InputError, match="row 7 is not, and 2 of 20 in all"):
        labelled(rows, person)
    assert len(labelled(rows, person, np.arange(20) % 4 != 3)) == 20


def test_what_cannot_be_swept():
    rows, person = crowd(20, 4)
    with pytest.raises(InputError, match=r"\(20, 12\), \(19,\) and \(20,\)"):
        labelled(rows, person[1:])
    with pytest.raises(InputError, match=r"\(20, 12\), \(20,\) and \(3,\)"):
        labelled(rows, person, np.ones(3, bool))
    with pytest.raises(InputError, match=r"\(12,\)"):
        labelled(rows[0], person)
    for some in (labelled(rows, np.zeros(20, int)), labelled(rows[:0], person[:0])):
        with pytest.raises(DataError, match="two people or more"):
            sweep(some)
    many = int(np.sqrt(2 * MATED_MOST)) + 10
    person = np.append(np.zeros(many, int), 1)
    with pytest.raises(DataError, match="At most 20,000,000 pairs of one person"):
        sweep(labelled(np.ones((many + 1, 1)), person))
