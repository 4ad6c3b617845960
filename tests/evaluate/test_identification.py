"""Searches and their rates against the definitions, written out in loops."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from facenet import vectors
from facenet.errors import DataError, InputError, SettingsError
from facenet.evaluate.identification import (
    gallery_scaling,
    identification_report,
    split_gallery,
)
from facenet.evaluate.intervals import share_interval, subject_weights, wilson
from facenet.evaluate.searches import gallery_sizes, identify, judge
from facenet.evaluate.sweep import labelled

INF = float("inf")


def crowd(count=400, people=70, enrol=1, seed=0, dimension=16):
    """A split set: some people with one picture only, equal vectors, pictures without a face."""
    generator = np.random.default_rng(seed)
    person = np.append(np.arange(people), generator.integers(0, people // 2, count - people)) * 3
    rows = generator.normal(size=(people * 3, dimension))[person]
    rows += 1.1 * generator.normal(size=rows.shape)
    copies = generator.integers(0, count, (count // 10, 2))
    rows[copies[:, 0]] = rows[copies[:, 1]]
    found = generator.random(count) > 0.06
    found[people - 1] = False  # the only picture of this person
    rows[~found] = np.nan
    split = split_gallery(person, enrol=enrol, seed=seed)
    return tuple(
        labelled(rows[part], person[part], found[part]) for part in (split.gallery, split.probes)
    )


def similarity(a, b):
    return float(np.float32(np.clip(a.astype(np.float64) @ b.astype(np.float64), -1, 1)))


def candidates(gallery, probe, enrolment):
    """(similarity, person) of everybody enrolled."""
    row, there = probe
    found = []
    for person in sorted(set(gallery.person.tolist())):
        own = [gallery.rows[g] for g in np.flatnonzero((gallery.person == person) & gallery.found)]
        if enrolment == "mean" and own:
            own = [vectors.template(np.stack(own))]
        found.append((max((similarity(row, v) for v in own), default=-INF), person))
    return found if there else [(-INF, person) for _, person in found]


def outcome(found, person):
    """Rank of the mate, its similarity, and that of the best other; ties rank before the mate."""
    others = [score for score, other in found if other != person]
    mate = max((score for score, other in found if other == person), default=-INF)
    rank = 1 + sum(score >= mate for score in others) if mate > -INF else 0
    return rank, mate, max(others, default=-INF)


@pytest.mark.parametrize(("enrol", "enrolment"), [(1, "max"), (3, "max"), (3, "mean")])
def test_searches_are_those_of_the_definition(enrol, enrolment):
    gallery, probes = crowd(enrol=enrol)
    found = identify(gallery, probes, enrolment=enrolment).searches[-1]
    enrolled = set(gallery.person.tolist())
    assert found.gallery == len(enrolled)
    for row, person in enumerate(probes.person):
        ranked = candidates(gallery, (probes.rows[row], probes.found[row]), enrolment)
        rank, mate, other = outcome(ranked, person)
        assert found.mated[row] == (person in enrolled)
        assert (found.mate[row], found.other[row]) == pytest.approx((mate, other), abs=1e-6)
        if enrolment == "max":  # the last bit of a mean depends on the order of its sum
            assert (found.rank[row], found.mate[row], found.other[row]) == (rank, mate, other)
    assert (found.rank[found.mated] == 0).any()
    assert (~found.mated & np.isinf(found.other)).any()


def rates(found, threshold, rank):
    """FPIR and FNIR, one search after the other."""
    alarms = misses = mated = 0
    for row in range(len(found.person)):
        if found.mated[row]:
            mated += 1
            good = 1 <= found.rank[row] <= rank and found.mate[row] >= threshold
            misses += not good
        else:
            alarms += found.other[row] >= threshold
    return alarms / (len(found.person) - mated), misses / mated


@pytest.mark.parametrize("rank", [1, 3])
def test_the_threshold_is_the_lowest_with_the_wanted_fpir(rank):
    gallery, probes = crowd()
    found = identify(gallery, probes).searches[-1]
    levels = sorted({*found.mate.tolist(), *found.other.tolist()} - {-INF})
    for fpir in (0.5, 0.1, 0.05, 0.03, 0.0):
        point = found.at_fpir(fpir, rank=rank)
        measured = rates(found, point.threshold, rank)
        assert measured == pytest.approx((point.far, 1 - point.tar))
        assert measured == pytest.approx(
            (found.fpir(point.threshold), found.fnir(point.threshold, rank=rank))
        )
        assert measured[0] <= fpir
        lower = [level for level in levels if level < point.threshold]
        for level in lower:
            below = rates(found, level, rank)
            assert below[0] > fpir or below == measured


def test_ranks_with_ties_are_the_worst_possible():
    scores = np.array(
        [
            [0.5, 0.5, 0.5, 0.1],  # mate is the first of three alike
            [0.5, 0.9, 0.9, 0.1],
            [0.5, 0.5, 0.5, 0.6],
            [-INF, -INF, -INF, -INF],  # no face
            [-INF, 0.2, 0.3, -INF],  # nor of the mate
            [0.7, 0.2, 0.7, 0.1],  # nobody enrolled
        ]
    )
    found = judge(scores, np.array([9, 4, 7, 5]), np.array([9, 4, 5, 4, 9, 1]))
    assert found.rank.tolist() == [3, 2, 1, 0, 0, 0]
    assert found.other.tolist() == [0.5, 0.9, 0.5, -INF, 0.3, 0.7]
    assert found.mated.tolist() == [True] * 5 + [False]
    assert [found.hit_rate(rank) for rank in (1, 2, 3, 100)] == [0.2, 0.4, 0.6, 0.6]
    assert [found.fnir(t, rank=3) for t in (0.5, 0.55, 0.6, 0.95)] == [0.4, 0.6, 0.6, 1.0]
    assert found.fnir(-2, rank=100) == 0.4
    assert (found.fpir(0.7), found.fpir(0.71)) == (1, 0)


def test_equal_pictures_tie_wherever_they_are_enrolled():
    """The mate is one of two thousand equal vectors: whatever the column, it comes last."""
    generator = np.random.default_rng(1)
    vector = generator.normal(size=173)
    probe = vector + 0.3 * generator.normal(size=(5, 173))
    gallery = labelled(np.tile(vector, (2001, 1)), np.arange(2001))
    found = identify(gallery, labelled(probe, np.array([0, 17, 1000, 1999, 2000])))
    assert [searches.rank.tolist() for searches in found.searches] == [
        [searches.gallery] * 5 for searches in found.searches
    ]


def test_smaller_galleries_keep_the_mate_and_draw_the_others():
    gallery, probes = crowd(seed=5)
    found = identify(gallery, probes, sizes=(1, 4, 15, len(gallery)), seed=8)
    order = np.argsort(np.random.default_rng(8).permutation(len(gallery)))
    people = np.unique(gallery.person)[order].tolist()
    for searches in found.searches:
        for row, person in enumerate(probes.person.tolist()):
            drawn = people[: searches.gallery]
            if person in people and person not in drawn:
                drawn = [*drawn[:-1], person]
            ranked = candidates(gallery, (probes.rows[row], probes.found[row]), "max")
            ranked = [(score, other) for score, other in ranked if other in drawn]
            assert len(ranked) == searches.gallery
            assert outcome(ranked, person) == (
                searches.rank[row],
                searches.mate[row],
                searches.other[row],
            )
    assert gallery_sizes(100) == (13, 25, 50, 100)
    assert gallery_sizes(7) == (7,)
    assert gallery_sizes(20) == (10, 20)


def test_known_similarities_give_the_same_searches():
    gallery, probes = crowd(seed=2)
    scores = np.full((len(probes), len(gallery)), -INF, np.float32)
    for row in np.flatnonzero(probes.found):
        for column in np.flatnonzero(gallery.found):
            scores[row, column] = similarity(probes.rows[row], gallery.rows[column])
    found = judge(scores, gallery.person, probes.person)
    expected = identify(gallery, probes).searches[-1]
    for name in ("person", "mated", "rank", "mate", "other"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.fixture(scope="module", params=["spread", "ties"])
def report(request):
    gallery, probes = crowd(900, 320, seed=3)
    if request.param == "ties":  # rows of four ones: multiples of a quarter
        gallery, probes = (
            labelled(
                np.argsort(np.argsort(-part.rows, axis=1), axis=1) < 4, part.person, part.found
            )
            for part in (gallery, probes)
        )
    values = identification_report(gallery, probes, rank=2, replicates=80, seed=4)
    return values, gallery, probes, identify(gallery, probes, seed=4)


def test_a_report_says_what_the_searches_say(report):
    values, gallery, probes, found = report
    whole = found.searches[-1]
    mated, others = int(whole.mated.sum()), int((~whole.mated).sum())
    assert (values["searches_mated"], values["searches_non_mated"]) == (mated, others)
    assert values["failures"] == {
        "gallery": int((~gallery.found).sum()),
        "probes": int((~probes.found).sum()),
    }
    assert [point["share"] for point in values["cmc"].values()] == [
        np.mean((whole.rank[whole.mated] > 0) & (whole.rank[whole.mated] <= k))
        for k in (1, 5, 10, 20)
    ]
    assert len(values["cmc_curve"]) == 100
    assert values["cmc_curve"][19] == values["cmc"]["20"]["share"]
    assert 100 < others < 300
    assert list(values["fnir_at_fpir"]) == ["1e-1"]
    assert list(values["refused"]) == ["1e-2", "3e-3", "1e-3"]
    assert values["refused"]["3e-3"] == (
        f"FPIR 3e-3 needs 1,000 non-mated searches (3 / rate); there are {others}."
    )
    point = values["fnir_at_fpir"]["1e-1"]
    assert rates(whole, point["threshold"], 2) == pytest.approx((point["fpir"], point["fnir"]))
    assert point["false_positives"] == round(point["fpir"] * others)
    curve = values["fnir_curve"]
    for threshold, fpir, fnir in zip(
        *(curve[k] for k in ("threshold", "fpir", "fnir")), strict=True
    ):
        assert rates(whole, threshold, 2) == pytest.approx((fpir, fnir))
    assert all(a < b for a, b in pairwise(curve["fpir"]))
    assert json.loads(json.dumps(values)) == values


def test_intervals_draw_people_with_their_searches(report):
    """FNIR with its own threshold in each draw, the hit rate, and FPIR, a search at a time."""
    values, _, _, found = report
    whole = found.searches[-1]
    people = sorted(set(whole.person.tolist()))
    drawn = []
    for weight in subject_weights(len(people), 80, 4):
        of = {person: int(times) for person, times in zip(people, weight, strict=True)}
        repeated = np.repeat(np.arange(len(whole.person)), [of[p] for p in whole.person.tolist()])
        alarms = sorted((whole.other[r] for r in repeated if not whole.mated[r]), reverse=True)
        refused = alarms[int(0.1 * len(alarms) + 1e-9)]
        mates = [r for r in repeated if whole.mated[r]]
        misses = [not (1 <= whole.rank[r] <= 2 and whole.mate[r] > refused) for r in mates]
        drawn.append((np.mean(misses), np.mean([whole.rank[r] == 1 for r in mates])))
    fnir, hits = np.array(drawn).T
    point = values["fnir_at_fpir"]["1e-1"]
    mated_people = len(set(whole.person[whole.mated].tolist()))
    assert point["ci"] == pytest.approx(share_interval(fnir, point["fnir"], mated_people))
    first = values["cmc"]["1"]
    assert first["ci"] == pytest.approx(share_interval(hits, first["share"], mated_people))
    others = values["searches_non_mated"]
    assert len(set(whole.person[~whole.mated].tolist())) == others  # each searched once
    assert point["fpir_ci"] == pytest.approx(wilson(point["false_positives"], others))


def test_the_size_of_the_gallery(report):
    values, gallery, probes, found = report
    rows = values["scaling"]
    assert [row["gallery"] for row in rows] == list(gallery_sizes(values["gallery"]))
    held = values["fnir_at_fpir"]["1e-1"]["threshold"]
    non_mated = [r for r in range(len(probes)) if not found.searches[-1].mated[r]]
    reaching = [
        score >= held
        for r in non_mated
        for score, _ in candidates(gallery, (probes.rows[r], probes.found[r]), "max")
    ]
    for row, searches in zip(rows, found.searches, strict=True):
        assert (row["threshold_held"], row["wanted"]) == (held, 0.1)
        assert rates(searches, row["threshold"], 2) == pytest.approx((row["fpir"], row["fnir"]))
        assert row["fpir_held"] == pytest.approx(rates(searches, held, 2)[0])
        predicted = 1 - (1 - np.mean(reaching)) ** row["gallery"]
        assert row["fpir_predicted"] == pytest.approx(predicted, rel=0.02)
        assert row["hit_rate"] == searches.hit_rate(1)
        low, high = row["hit_rate_ci"]
        assert low <= row["hit_rate"] <= high and low < high
    assert rows[-1]["hit_rate_ci"] == values["cmc"]["1"]["ci"] != rows[0]["hit_rate_ci"]
    assert rows[-1]["fnir"] == values["fnir_at_fpir"]["1e-1"]["fnir"]
    assert rows[-1]["fnir_ci"] == values["fnir_at_fpir"]["1e-1"]["ci"]
    grown = rows[-1]["fpir_held"]
    assert rows[0]["fpir_held"] < grown or grown == 0


def test_without_enough_non_mated_searches_only_ranks_are_told():
    person = np.repeat(np.arange(12), 3)
    rows = np.random.default_rng(0).normal(size=(36, 8))
    split = split_gallery(person)
    parts = [labelled(rows[part], person[part]) for part in (split.gallery, split.probes)]
    values = identification_report(*parts, replicates=20)
    assert (values["searches_non_mated"], values["fnir_at_fpir"]) == (0, {})
    assert len(values["refused"]) == 4
    assert values["fnir_curve"]["fpir"] == []
    (row,) = values["scaling"]
    ci = values["cmc"]["1"]["ci"]
    assert row == {"gallery": 12, "hit_rate": values["cmc"]["1"]["share"], "hit_rate_ci": ci}
    assert len(values["cmc_curve"]) == 12
    assert values["cmc_curve"][-1] == 1


@pytest.mark.parametrize("enrol", [1, 2])
def test_a_split_enrols_whoever_has_a_picture_left(enrol):
    person = np.random.default_rng(6).integers(0, 40, 120)
    split = split_gallery(person, enrol=enrol, seed=1)
    assert sorted([*split.gallery, *split.probes]) == list(range(120))
    for number in set(person.tolist()):
        own = int((person == number).sum())
        assert int((person[split.gallery] == number).sum()) == (enrol if own > enrol else 0)
    again, other = (split_gallery(person, enrol=enrol, seed=seed) for seed in (1, 2))
    assert again.gallery.tolist() == split.gallery.tolist()
    assert other.gallery.tolist() != split.gallery.tolist()
    first = [int(np.flatnonzero(person == n)[0]) for n in set(person.tolist())]
    assert not set(split.gallery.tolist()) <= set(first)


def test_what_cannot_be_searched():
    gallery, probes = crowd()
    with pytest.raises(SettingsError, match="max or mean; got 'best'"):
        identify(gallery, probes, enrolment="best")
    for sizes in ((), (5, 5, len(gallery)), (5, 6), (0, len(gallery))):
        with pytest.raises(SettingsError, match="sizes should rise"):
            identify(gallery, probes, sizes=sizes)
    short = labelled(np.ones((3, 4)), np.arange(3))
    for pair in ((gallery, short), (labelled(np.ones((0, 16)), np.arange(0)), probes)):
        with pytest.raises(InputError, match="vectors of one model, one or more of each"):
            identify(*pair)
    strangers = labelled(np.ones((3, 16)), np.arange(3) + 1000)
    with pytest.raises(DataError, match="none of 3 is"):
        identification_report(gallery, strangers)
    with pytest.raises(SettingsError, match="1 picture per person or more; got 0"):
        split_gallery(np.zeros(3, int), enrol=0)
    with pytest.raises(DataError, match="a person with 4 pictures or more, 3 of them"):
        split_gallery(np.zeros(3, int), enrol=3)
    with pytest.raises(InputError, match=r"\(1, 2\) with 1 different people; got \(1, 2\)"):
        judge(np.zeros((1, 2)), np.array([4, 4]), np.array([4]))
    with pytest.raises(InputError, match="got NaN"):
        judge(np.full((1, 2), np.nan), np.array([4, 5]), np.array([4]))


def test_progress_and_scaling_by_itself():
    gallery, probes = crowd()
    seen = []
    found = identify(gallery, probes, done=lambda *at: seen.append(at))
    assert seen[-1] == (len(probes), len(probes))
    rows = gallery_scaling(found, replicates=10)
    assert [row["gallery"] for row in rows] == [s.gallery for s in found.searches]
