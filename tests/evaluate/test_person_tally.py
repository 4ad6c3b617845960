"""Pairs counted by person: the counts in loops, the draws against every pair weighed exactly."""

from __future__ import annotations

import numpy as np
import pytest

from facenet import vectors
from facenet.evaluate import curves
from facenet.evaluate.intervals import (
    SUMMARY,
    PairScores,
    replicate,
    subject_weights,
    summary_intervals,
    wilson,
)
from facenet.evaluate.persontally import (
    LEVELS,
    PersonCounter,
    PersonTally,
    replicate_tallies,
    tally_intervals,
    tally_pairs,
)
from facenet.evaluate.sweep import labelled, sweep
from facenet.evaluate.tally import Counter, blocks

PEOPLE, EACH, DRAWS = 60, 3, 1000


def siblings(seed):
    """All pairs of 60 people with three pictures each; eight of the people look alike, so that it
    is the draw of people that decides how many pairs of two are similar."""
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(PEOPLE), EACH)
    faces = vectors.unit(generator.normal(size=(PEOPLE, 24)).astype(np.float32))
    common = vectors.unit(generator.normal(size=(1, 24)).astype(np.float32))
    faces[:8] = vectors.unit(0.8 * common + 0.3 * faces[:8])
    rows = faces[person] + 0.7 / np.sqrt(24) * generator.normal(size=(len(person), 24))
    unit = vectors.unit(rows.astype(np.float32)).astype(np.float64)
    i, j = np.triu_indices(len(person), 1)
    similarity = np.einsum("nd,nd->n", unit[i], unit[j])
    return PairScores(similarity, person[i] == person[j], person[i], person[j])


def tallies(pairs, **more):
    sides = (pairs.similarity, pairs.subject_a, pairs.subject_b)
    return tuple(
        tally_pairs(*sides, people=pairs.subjects, which=which, **more)
        for which in (pairs.same, ~pairs.same)
    )


def held(tally):
    """The same pairs, in every draw once: as if the non-mated side did not depend on people."""
    whole = tally.drawn(np.ones((1, len(tally.counts))))
    return PersonTally(np.tile(whole / PEOPLE, (PEOPLE, 1)), np.zeros(LEVELS + 1))


def exact_values(pairs):
    mated, others = pairs.mated, pairs.non_mated
    return {
        "auc": curves.area_under_roc(mated, others),
        "eer": curves.equal_error_rate(mated, others),
        "d_prime": curves.d_prime(mated, others),
    }


def width(interval):
    return interval[1] - interval[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_are_nearly_those_that_weigh_every_pair(seed):
    """Interval ends are as far apart, within 15 %, as those of w_i * w_j; draw by draw the two go
    together. The counter-test: what does not draw the non-mated side is much too narrow."""
    pairs = siblings(seed)
    values, weights = exact_values(pairs), subject_weights(PEOPLE, DRAWS, 1)
    exact = replicate(pairs, replicates=DRAWS, seed=1)
    expected = summary_intervals(exact, values, PEOPLE)
    mated, others = tallies(pairs)
    drawn = replicate_tallies(mated, others, weights)
    found = tally_intervals((mated, others), weights, values, trials=PEOPLE)
    narrow = tally_intervals((mated, held(others)), weights, values, trials=PEOPLE)
    for name in SUMMARY:
        low, high = found[name]
        assert low < values[name] < high
        assert width(found[name]) == pytest.approx(width(expected[name]), rel=0.15)
        assert np.corrcoef(drawn[name], exact[name])[0, 1] > 0.9
        assert width(narrow[name]) < 0.5 * width(expected[name])


def test_groups_of_people_spread_as_people_do():
    """Thirty groups of two people: a rougher estimate of the same widths."""
    ratios = []
    for seed in range(4):
        pairs = siblings(seed)
        values, weights = exact_values(pairs), subject_weights(PEOPLE, DRAWS, seed)
        by_person, by_group = (
            tally_intervals(tallies(pairs, groups=groups), weights, values, trials=PEOPLE)
            for groups in (PEOPLE, 30)
        )
        ratios.append([width(by_group[name]) / width(by_person[name]) for name in SUMMARY])
    assert np.array(ratios).shape == (4, 3)
    assert np.all((np.mean(ratios, axis=0) > 0.8) & (np.mean(ratios, axis=0) < 1.25))


def quarters(count=150, people=40):
    """Vectors of four ones: every similarity is a multiple of a quarter, whatever adds them up."""
    generator = np.random.default_rng(9)
    rows = np.zeros((count, 12), np.float32)
    for row in rows:
        row[generator.choice(12, 4, replace=False)] = 1
    return rows, generator.integers(0, people, count), generator.random(count) < 0.9


def in_loops(similarity, first, second, groups):
    """Pairs of each group by level, and those that have two people, one pair after the other."""
    counts, between = np.zeros((groups, LEVELS + 1)), np.zeros(LEVELS + 1)
    for score, a, b in zip(similarity, first, second, strict=True):
        level = 0
        if np.isfinite(score):
            level = min(int((score + 1) * LEVELS / 2), LEVELS - 1) + 1
        counts[a % groups, level] += 1
        if a != b:
            counts[b % groups, level] += 1
            between[level] += 1
    return counts, between


def non_mated(rows, person, found):
    unit = vectors.unit(rows)
    scores, first, second = [], [], []
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            if person[i] != person[j]:
                there = found[i] and found[j]
                scores.append(float(unit[i] @ unit[j]) if there else -np.inf)
                first.append(person[i])
                second.append(person[j])
    return np.array(scores), np.array(first), np.array(second)


@pytest.mark.parametrize("block", [7, 64, 2048])
def test_a_sweep_counts_the_pairs_of_each_person(block):
    rows, person, found = quarters()
    person = np.unique(person, return_inverse=True)[1]
    listed = non_mated(rows, person, found)
    counts, between = in_loops(*listed, groups=int(person.max()) + 1)
    swept = sweep(labelled(rows, person, found), pool_size=50, block=block).by_person
    assert np.array_equal(swept.counts, counts)
    assert np.array_equal(swept.between, between)
    assert counts[:, 0].sum() > 0  # some pairs have no similarity


@pytest.mark.parametrize("groups", [40, 7])
def test_people_are_dealt_out_to_groups(groups):
    rows, person, found = quarters()
    person = np.unique(person, return_inverse=True)[1]
    listed = non_mated(rows, person, found)
    counts, between = in_loops(*listed, groups=groups)
    order = np.flatnonzero(found)
    order = order[np.argsort(person[order], kind="stable")]
    ends = np.searchsorted(person[order], person[order], side="right")
    counter = PersonCounter(person, order, groups)
    fine = Counter()
    for part in blocks(vectors.unit(rows[order]), ends, 50, None):
        counter.add(part, fine.add(part.scaled))
    tally = counter.tally()
    again = tally_pairs(*listed, people=40, groups=groups)
    for one in (tally, again):
        assert np.array_equal(one.counts, counts)
        assert np.array_equal(one.between, between)


def test_a_draw_weighs_listed_pairs_to_first_order():
    """Also a pair of one person that is called non-mated: it comes as often as that person."""
    generator = np.random.default_rng(4)
    first, second = generator.integers(0, 6, (2, 80))
    similarity = np.append(generator.integers(-4, 5, 78) / 4, [-np.inf, -np.inf])
    which = generator.random(80) < 0.7
    tally = tally_pairs(similarity, first, second, people=6, which=which)
    for weight in subject_weights(6, 5, 2):
        expected = np.zeros(LEVELS + 1)
        for score, a, b, counts in zip(similarity, first, second, which, strict=True):
            level = 0 if np.isinf(score) else min(int((score + 1) * 512), 1023) + 1
            expected[level] += counts * (weight[a] if a == b else weight[a] + weight[b] - 1)
        assert tally.drawn(weight[None].astype(float))[0] == pytest.approx(expected)


def test_values_of_one_draw_are_those_of_the_bins():
    """Everybody once: AUC, EER and d' of the middles of the bins, the lost ones below all."""
    pairs = siblings(5)
    lost = np.arange(len(pairs.same)) % 11 == 0
    similarity = np.where(lost, -np.inf, (np.floor(pairs.similarity * 512) + 0.5) / 512)
    binned = PairScores(similarity, pairs.same, pairs.subject_a, pairs.subject_b)
    found = replicate_tallies(*tallies(binned), np.ones((1, PEOPLE), int))
    for name, value in exact_values(binned).items():
        assert found[name] == pytest.approx([value])


def test_what_no_draw_can_tell():
    """Perfect scores have Wilson's interval of people, and d' none without a spread; the draws of
    nobody have no value."""
    one, two = np.repeat(np.arange(9), 2), np.roll(np.repeat(np.arange(9), 2), 1)
    mated = tally_pairs(np.full(9, 0.75), np.arange(9), np.arange(9), people=9)
    others = tally_pairs(np.full(18, -0.25), one, two, people=9)
    weights = subject_weights(9, 40, 0)
    values = {"auc": 1.0, "eer": 0.0, "d_prime": None}
    found = tally_intervals((mated, others), weights, values, trials=9)
    assert found == {"auc": wilson(9, 9), "eer": wilson(0, 9), "d_prime": None}
    for drawn in replicate_tallies(mated, others, np.zeros((2, 9), int)).values():
        assert np.isnan(drawn).all()


def test_intervals_stay_within_0_and_1():
    """The exact value is above all draws of the bins: what moves them must not leave the range."""
    pairs = siblings(0)
    weights = subject_weights(PEOPLE, 100, 0)
    found = tally_intervals(tallies(pairs), weights, {"auc": 0.9999, "eer": 1e-6}, trials=PEOPLE)
    assert found["auc"][1] == 1
    assert found["eer"][0] == 0
    assert set(found) == {"auc", "eer"}
