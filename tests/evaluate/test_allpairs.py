"""The report over all pairs against sorted scores, and its intervals against the weighted pairs."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest

from facenet import vectors
from facenet.errors import DataError
from facenet.evaluate import curves
from facenet.evaluate.allpairs import all_pairs_report, supported_rates
from facenet.evaluate.falsematch import false_match_table
from facenet.evaluate.intervals import (
    SUMMARY,
    PairScores,
    replicate,
    share_interval,
    subject_weights,
    summary_intervals,
)
from facenet.evaluate.sweep import labelled, sweep

DRAWS = 60


def crowd(count=260, people=60, seed=0, noise=1.2, dimension=24):
    generator = np.random.default_rng(seed)
    person = np.append(np.arange(people), generator.integers(0, people, count - people))
    rows = generator.normal(size=(people, dimension))[person]
    return (rows + noise * generator.normal(size=(count, dimension))).astype(np.float32), person


def every_pair(rows, person, found=None):
    """All pairs as scored pairs, by loops; minus infinity where there is no face."""
    there = np.ones(len(rows), bool) if found is None else found
    unit = vectors.unit(np.where(there[:, None], rows, 1)).astype(np.float64)
    scores, a, b = [], [], []
    for i, j in combinations(range(len(rows)), 2):
        score = float(np.float32(np.clip(unit[i] @ unit[j], -1, 1)))
        scores.append(score if there[i] and there[j] else -np.inf)
        a.append(person[i])
        b.append(person[j])
    a, b = np.array(a), np.array(b)
    return PairScores(np.array(scores), a == b, a, b)


@pytest.fixture(scope="module", params=["all found", "some without a face", "many ties"])
def whole(request):
    """A set whose pairs all fit into the pool: its report, all its pairs, and its draws."""
    rows, person = crowd()
    found = None
    if request.param == "some without a face":
        found = np.arange(len(rows)) % 9 != 5
        rows[~found] = 0
    if request.param == "many ties":  # rows of four ones: multiples of a quarter
        rows = (np.argsort(np.argsort(-rows, axis=1), axis=1) < 4).astype(np.float32)
    pairs = every_pair(rows, person, found)
    rates = supported_rates(int((~pairs.same).sum()))[0]
    drawn = replicate(pairs, rates=rates, replicates=DRAWS, seed=3)
    swept = sweep(labelled(rows, person, found), block=100)
    assert swept.complete
    return all_pairs_report(swept, dataset="set", replicates=DRAWS, seed=3), pairs, drawn


def test_numbers_are_those_of_sorted_scores(whole):
    values, pairs, _ = whole
    assert list(values["tar_at_far"]) == ["1e-1", "1e-2", "1e-3", "1e-4"]
    for name, point in values["tar_at_far"].items():
        expected = curves.tar_at_far(pairs.mated, pairs.non_mated, float(name))
        assert (point["tar"], point["far"]) == (expected.tar, expected.far)
        assert point["threshold"] == expected.threshold
        assert point["false_matches"] == expected.false_matches
    assert values["auc"] == pytest.approx(curves.area_under_roc(pairs.mated, pairs.non_mated))
    assert values["eer"] == pytest.approx(curves.equal_error_rate(pairs.mated, pairs.non_mated))
    d_prime = curves.d_prime(pairs.mated, pairs.non_mated)
    assert values["d_prime"] == pytest.approx(d_prime, rel=1e-5)
    assert (values["mated"], values["pairs"]) == (len(pairs.mated), len(pairs.non_mated))
    assert values["not_found"] == np.isinf(pairs.similarity).sum()
    assert values["not_found_mated"] == np.isinf(pairs.mated).sum()


def test_intervals_are_those_of_the_weighted_pairs(whole):
    """Draw by draw as `intervals.replicate`, which weighs and sorts every pair."""
    values, _, drawn = whole
    summary = {name: values[name] for name in SUMMARY}
    for name, expected in summary_intervals(drawn, summary, 60).items():
        assert values[f"{name}_ci"] == pytest.approx(expected, abs=1e-9)
    for name, point in values["tar_at_far"].items():
        expected = share_interval(drawn[f"tar@{name}"], point["tar"], 60)
        assert point["ci"] == pytest.approx(expected)
        assert point["threshold_in_draws"] == "redrawn"


def held_interval(pairs, accepted, estimate, same):
    """Interval of a share of accepted pairs at a fixed threshold, a draw after the other."""
    values = []
    for weight in subject_weights(60, DRAWS, 3):
        part = total = 0
        for good, a, b in zip(
            accepted[pairs.same == same],
            pairs.subject_a[pairs.same == same],
            pairs.subject_b[pairs.same == same],
            strict=True,
        ):
            both = weight[a] if same else weight[a] * weight[b]
            total += both
            part += both * good
        values.append(part / total)
    return share_interval(np.array(values), estimate, 60)


def test_the_interval_of_far_holds_the_threshold(whole):
    values, pairs, _ = whole
    for name in ("1e-1", "1e-3"):
        point = values["tar_at_far"][name]
        accepted = pairs.similarity >= point["threshold"]
        expected = held_interval(pairs, accepted, point["far"], same=False)
        assert point["far_ci"] == pytest.approx(expected)


def test_a_pool_that_holds_little_says_what_it_cannot():
    rows, person = crowd()
    pairs = every_pair(rows, person)
    full = all_pairs_report(sweep(labelled(rows, person)), dataset="set", replicates=DRAWS, seed=3)
    swept = sweep(labelled(rows, person), pool_size=int(0.02 * len(pairs.non_mated)))
    values = all_pairs_report(swept, dataset="set", replicates=DRAWS, seed=3)
    for name in ("1e-3", "1e-4"):
        assert values["tar_at_far"][name] == full["tar_at_far"][name]
    middle, high = values["tar_at_far"]["1e-2"], values["tar_at_far"]["1e-1"]
    assert middle | {"ci": 0, "threshold_in_draws": 0} == full["tar_at_far"]["1e-2"] | {
        "ci": 0,
        "threshold_in_draws": 0,
    }
    assert (high["threshold_exact"], high["far_ci"]) == (False, None)
    assert 0.0995 < high["far"] <= 0.1
    for point in (middle, high):
        assert point["threshold_in_draws"] == "held"
        accepted = pairs.similarity >= point["threshold"]
        expected = held_interval(pairs, accepted, point["tar"], same=True)
        assert point["ci"] == pytest.approx(expected)
    for name in SUMMARY:
        assert values[name] == pytest.approx(full[name], rel=1e-4)
        near, exact = values[f"{name}_ci"], full[f"{name}_ci"]
        assert near[0] < values[name] < near[1]
        assert near[1] - near[0] == pytest.approx(exact[1] - exact[0], rel=0.15)
        assert near == pytest.approx(exact, abs=0.1 * (exact[1] - exact[0]))


def test_a_pool_just_as_long_as_it_must_be_redraws_the_threshold():
    """At three times the false matches; with one bin less it holds it."""
    rows, person = crowd()
    pairs = int(sum(p != q for p, q in combinations(person, 2)))
    for share, words in ((0.033, "redrawn"), (0.029, "held")):
        swept = sweep(labelled(rows, person), pool_size=int(share * pairs))
        point = all_pairs_report(swept, dataset="set", replicates=5)["tar_at_far"]["1e-2"]
        assert point["threshold_in_draws"] == words


def test_a_threshold_that_draws_often_cannot_reach_is_held():
    """All of the pool is two people with 30 pictures each: one is missing in most draws."""
    generator = np.random.default_rng(0)
    person = np.append(np.repeat([0, 1], 30), np.repeat(np.arange(2, 72), 2))
    rows = generator.normal(size=(200, 24))
    rows[:60] = generator.normal(size=24) + 0.3 * rows[:60]
    swept = sweep(labelled(rows, person), pool_size=920)
    assert 3 * 0.01 * swept.pairs < len(swept.pool)
    assert np.mean(np.isin(swept.pool_b, range(60))) > 0.9
    point = all_pairs_report(swept, dataset="two", replicates=DRAWS)["tar_at_far"]["1e-2"]
    assert (point["threshold_in_draws"], point["threshold_exact"]) == ("held", True)
    assert point["ci"][0] <= point["tar"] <= point["ci"][1]


def test_curves_and_table(whole):
    values, pairs, _ = whole
    roc = values["curves"]["roc"]
    assert 4 < len(roc["fmr"]) == len(roc["tmr"]) == len(roc["threshold"]) <= 200
    for threshold, fmr, tmr in zip(roc["threshold"], roc["fmr"], roc["tmr"], strict=True):
        assert fmr == np.mean(pairs.non_mated >= threshold)
        assert tmr == np.mean(pairs.mated >= threshold)
    assert roc["fmr"] == sorted(roc["fmr"])
    shown, expected = values["curves"]["histogram"], curves.histogram(pairs.mated, pairs.non_mated)
    assert shown["edges"] == pytest.approx(expected["edges"])
    assert shown["mated"] == expected["mated"]
    assert np.abs(np.subtract(shown["non_mated"], expected["non_mated"])).max() <= 1
    assert json.loads(json.dumps(values))["refused"] == values["refused"]


def test_the_table_is_that_of_the_pictures_with_a_face():
    rows, person = crowd()
    found = person != 7
    table = all_pairs_report(sweep(labelled(rows, person, found)), dataset="set", replicates=3)
    expected = false_match_table(rows[found], [str(p) for p in person[found]], dataset="set")
    shown = table["fmr_table"]
    assert shown == {name: getattr(expected, name) for name in shown}
    assert (shown["people"], table["people"]) == (59, 60)


def test_rates_go_as_far_as_three_false_matches():
    assert supported_rates(29)[0] == ()
    rates, refused = supported_rates(3000)
    assert rates == (0.1, 0.01, 1e-3)
    assert list(refused) == ["1e-4", "1e-5", "1e-6"]
    assert refused["1e-4"] == curves.refusal(1e-4, 3000)
    rates, refused = supported_rates(300_000_000)
    assert rates[-1] == 1e-8
    assert list(refused) == ["1e-9"]


@pytest.mark.parametrize("person", [[0, 1, 2, 3], [0, 0, 1, 1]])
def test_a_report_needs_both_kinds_of_pairs(person):
    """Also where there are some, but never with a face on both pictures."""
    there = np.array([True, False, True, False])
    swept = sweep(labelled(np.eye(4), np.array(person), there))
    with pytest.raises(DataError, match="all with a face; got 0 and 1"):
        all_pairs_report(swept, dataset="four")
