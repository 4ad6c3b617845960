"""Intervals: Wilson's against its definition, the bootstrap against people drawn in loops."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.evaluate import curves, intervals
from facenet.evaluate.intervals import PairScores, replicate, subject_weights, wilson


@pytest.mark.parametrize(("count", "total"), [(0, 10), (1, 10), (5, 10), (37, 6000), (10, 10)])
def test_wilson_ends_are_where_the_test_just_rejects(count, total):
    """Both ends p solve |count / total - p| = z sqrt(p (1 - p) / total)."""
    for end in wilson(count, total):
        if 0 < end < 1:
            distance = abs(count / total - end)
            assert distance == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / total), rel=1e-6)
    low, high = wilson(count, total)
    assert low <= count / total <= high


def test_wilson_of_another_confidence_and_of_nonsense():
    assert wilson(5, 10, confidence=0.9)[0] > wilson(5, 10)[0]
    with pytest.raises(DataError, match="got 3 of 2"):
        wilson(3, 2)
    with pytest.raises(DataError, match="got 0 of 0"):
        wilson(0, 0)


def toy(seed, pairs=120, people=15):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, people, (2, pairs))
    same = generator.random(pairs) < 0.5
    b[same] = a[same]
    b[~same & (a == b)] = (b[~same & (a == b)] + 1) % people
    similarity = np.round(np.where(same, 0.5, 0.2) + generator.normal(0, 0.2, pairs), 2)
    similarity[generator.random(pairs) < 0.05] = -np.inf
    return PairScores(similarity, same, a, b)


def repeated(scores, weights):
    """The scores of a draw, each pair written out as often as it weighs."""
    mated, others = [], []
    for value, same, a, b in zip(
        scores.similarity, scores.same, scores.subject_a, scores.subject_b, strict=True
    ):
        times = weights[a] if same else weights[a] * weights[b]
        (mated if same else others).extend([value] * int(times))
    return np.array(mated), np.array(others)


@pytest.mark.parametrize("seed", range(3))
def test_replicates_are_the_numbers_of_the_repeated_pairs(seed):
    scores = toy(seed)
    correct = (scores.similarity > 0.35) == scores.same
    shares = {
        "accuracy": (correct.astype(float), np.ones(len(correct))),
        "odd": (correct * scores.same * np.arange(120.0), scores.same * np.arange(120.0)),
    }
    drawn = replicate(scores, rates=(0.1, 0.03), shares=shares, replicates=20, seed=5)
    for row, weights in enumerate(subject_weights(scores.subjects, 20, 5)):
        mated, others = repeated(scores, weights)
        assert drawn["auc"][row] == pytest.approx(curves.area_under_roc(mated, others))
        assert drawn["eer"][row] == pytest.approx(curves.equal_error_rate(mated, others))
        assert drawn["d_prime"][row] == pytest.approx(curves.d_prime(mated, others))
        for rate in (0.1, 0.03):
            point = curves.tar_at_far(mated, others, rate)
            name = curves.rate_name(rate)
            assert drawn[f"tar@{name}"][row] == pytest.approx(point.tar)
            assert drawn[f"far@{name}"][row] == pytest.approx(point.far)
        right = np.sum(mated > 0.35) + np.sum(others <= 0.35)
        assert drawn["accuracy"][row] == pytest.approx(right / (len(mated) + len(others)))
        own = weights[scores.subject_a] * scores.same * np.arange(120)
        assert drawn["odd"][row] == pytest.approx(own[correct].sum() / own.sum())


def test_replicates_do_not_depend_on_how_many_are_held_at_a_time():
    scores = toy(1)
    whole = replicate(scores, rates=(0.1,), replicates=30)
    parts = replicate(scores, rates=(0.1,), replicates=30, cells=700)
    assert {name: values.tolist() for name, values in whole.items()} == {
        name: values.tolist() for name, values in parts.items()
    }


def test_draws_without_a_kind_of_pair_have_no_value():
    """Two people, one of whom has the mated pair: half of the draws lack one or the other."""
    scores = PairScores(
        np.array([0.9, 0.1]), np.array([True, False]), np.array([0, 0]), np.array([0, 1])
    )
    drawn = replicate(scores, rates=(0.5,), replicates=50)
    assert 0 < np.isnan(drawn["auc"]).sum() < 50
    assert np.isnan(drawn.pop("d_prime")).all()  # one score of a kind has no spread
    for values in drawn.values():
        assert np.array_equal(np.isnan(values), np.isnan(drawn["auc"]))
    assert intervals.percentiles(drawn["auc"]) is None


def test_draws_are_of_as_many_people_as_there_are():
    weights = subject_weights(7, 100, 3)
    assert weights.shape == (100, 7)
    assert set(weights.sum(axis=1).tolist()) == {7}
    assert np.array_equal(weights, subject_weights(7, 100, 3))


def test_shares_that_no_draw_moves_get_wilsons_interval_of_people():
    assert intervals.share_interval(np.ones(100), 1.0, 40) == wilson(40, 40)
    low, high = intervals.share_interval(np.linspace(0.4, 0.6, 101), 0.5, 40)
    assert (low, high) == pytest.approx((0.405, 0.595))
    assert intervals.share_interval(np.linspace(0.4, 0.6, 101), 0.7, 40)[1] == 0.7


def test_numbers_that_are_no_shares_get_no_interval_of_wilson():
    assert intervals.value_interval(np.full(100, 3.2), 3.2) is None
    assert intervals.value_interval(np.append(np.full(6, np.nan), np.ones(94)), 1.0) is None
    assert intervals.value_interval(np.linspace(3, 5, 101), 4.0) == pytest.approx((3.05, 4.95))
    assert intervals.value_interval(np.linspace(3, 5, 101), 5.5)[1] == 5.5
    drawn = {name: np.linspace(0.4, 0.6, 101) for name in intervals.SUMMARY}
    found = intervals.summary_intervals(drawn, {"auc": 0.5, "eer": None, "d_prime": 0.5}, 7)
    assert found["auc"] == found["d_prime"] == pytest.approx((0.405, 0.595))
    assert found["eer"] is None


def test_coverage_of_the_interval_is_about_what_it_says():
    """People differ much, pairs of one person little: an interval of pairs would be too narrow."""
    hits = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        people, each = 60, 6
        level = generator.normal(0.5, 0.3, people)
        rows = np.repeat(np.arange(people), each)
        mated = level[rows] + generator.normal(0, 0.05, len(rows))
        strangers = np.stack([rows, (rows + 1 + generator.integers(0, 58, len(rows))) % people])
        same = np.repeat([True, False], len(rows))
        scores = PairScores(
            np.concatenate([mated, generator.normal(-5, 0.1, len(rows))]),
            same,
            np.concatenate([rows, strangers[0]]),
            np.concatenate([rows, strangers[1]]),
        )
        correct = np.where(same, scores.similarity > 0.5, True)
        shares = {"accuracy": (correct.astype(float), np.ones(len(correct)))}
        drawn = replicate(scores, shares=shares, replicates=200, seed=seed)
        low, high = intervals.percentiles(drawn["accuracy"])
        hits += low <= 0.75 <= high  # half of the mated half, and all others
    assert hits >= 52


def test_nan_is_refused():
    with pytest.raises(DataError, match="1 of 2 are NaN"):
        PairScores(np.array([0.1, np.nan]), np.zeros(2, bool), np.zeros(2, int), np.ones(2, int))
    with pytest.raises(DataError, match="one length"):
        PairScores(np.zeros(3), np.zeros(2, bool), np.zeros(2, int), np.ones(2, int))


def test_differences_are_those_of_the_same_draws():
    one, two = toy(1), toy(1)
    first, second = replicate(one, replicates=50), replicate(two, replicates=50)
    found = intervals.difference_intervals(first, {**second, "other": second["auc"]})
    assert found == dict.fromkeys(intervals.SUMMARY, (0, 0))
