"""People who were learned: names, pairs and searches, re-derived with loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from facenet.evaluate.intervals import subject_weights
from facenet.train.closedset import (
    Known,
    KnownVectors,
    accepted,
    known_rows,
    nearest_centre,
    one_shot,
    pair_trials,
    search_trials,
)

PEOPLE, PICTURES, SIZE, STRANGERS = 9, 5, 6, 70


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def seen(spread, seed, held=3):
    """Vectors of 9 people with 5 learned pictures and 3 held back, and of 70 strangers."""
    middle = np.random.default_rng(1).normal(size=(PEOPLE, SIZE))
    random = np.random.default_rng(seed)
    rows = [
        unit(np.repeat(middle, count, axis=0) + spread * random.normal(size=(PEOPLE * count, SIZE)))
        for count in (PICTURES, held)
    ]
    return KnownVectors(*rows, unit(random.normal(size=(STRANGERS * 5, SIZE))))


def known(old, new, held=3):
    people = np.arange(PEOPLE)
    return Known(
        people.repeat(PICTURES), people.repeat(held), np.arange(STRANGERS).repeat(5), old, new
    )


def figures(rows):
    return {row.figure: row for row in rows}


def test_the_nearest_centre_is_that_of_loops():
    v = seen(1.1, 4)
    labels, probes = np.arange(PEOPLE).repeat(PICTURES), np.arange(PEOPLE).repeat(3)
    kept = np.random.default_rng(4).permutation(len(labels))[:40]
    right = nearest_centre(v.learned[kept], labels[kept], v.back, probes)
    wanted = []
    for probe, label in zip(v.back, probes, strict=True):
        best, named = -2.0, None
        for who in sorted(set(labels[kept].tolist())):
            centre = v.learned[kept][labels[kept] == who].astype(float).sum(axis=0)
            cosine = np.dot(probe, centre) / np.linalg.norm(centre)
            if cosine > best:
                best, named = cosine, who
        wanted.append(named == label)
    assert right.tolist() == wanted
    assert 0.2 < np.mean(wanted) < 0.98


def test_one_shot_is_the_mean_over_all_galleries_of_one_picture_each():
    random = np.random.default_rng(7)
    labels = np.array([2, 0, 0, 1, 2, 1, 0, 3])
    learned, probes = unit(random.normal(size=(8, 3))), unit(random.normal(size=(6, 3)))
    who = np.array([0, 1, 2, 3, 0, 2])
    pictures = [np.flatnonzero(labels == person).tolist() for person in range(4)]
    wanted = [
        np.mean([
            int(np.argmax([np.dot(probe, learned[row]) for row in gallery])) == person
            for gallery in product(*pictures)
        ])
        for probe, person in zip(probes, who, strict=True)
    ]  # fmt: skip
    for cells in (4_000_000, 3):
        shares = one_shot(learned, labels, probes, who, cells=cells)
        assert shares == pytest.approx(np.array(wanted))
    assert 0 < np.mean(wanted) < 1


def test_names_are_compared_with_draws_of_people():
    old, new = seen(1.1, 8), seen(0.7, 9)
    both = known(old, new)
    rows = figures(known_rows(both, replicates=60, seed=3))
    for name, of in (("accuracy", nearest_centre), ("one-shot", one_shot)):
        before, after = (of(v.learned, both.learned, v.back, both.back) for v in (old, new))
        differences = []
        for drawn in subject_weights(PEOPLE, 60, 3):
            picked = [i for who, n in enumerate(drawn) for _ in range(n)
                      for i in np.flatnonzero(both.back == who)]  # fmt: skip
            differences.append(np.mean(after[picked]) - np.mean(before[picked]))
        row = rows[name]
        assert (row.old, row.new) == pytest.approx((before.mean(), after.mean()))
        assert row.difference_interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
        assert row.judged and row.passed and row.set == "learned people"
        assert f"{np.sum(np.greater(after, before))} " in row.of
    assert rows["accuracy"].old_interval[0] < rows["accuracy"].old < 1


def at_rate(mated, other, rate, weights=(None, None)):
    """The largest weighted share of mated values above a threshold that enough others are below."""
    mine, theirs = (np.ones(len(v)) if w is None else w
                    for v, w in zip((mated, other), weights, strict=True))  # fmt: skip
    best = 0.0
    for level in [*other, -2.0]:
        if theirs[other > level].sum() <= rate * theirs.sum() + 1e-9:
            best = max(best, mine[mated > level].sum() / mine.sum())
    return best


def test_pairs_at_a_rate_are_those_of_loops():
    old, new = seen(1.0, 8, held=6), seen(0.6, 9, held=6)
    both = known(old, new, held=6)
    row = figures(known_rows(both, replicates=30, seed=5))["tar@1e-2"]
    drawn = []
    for v in (old, new):
        a, b = np.triu_indices(len(v.back), 1)
        values = np.array([np.dot(v.back[i], v.back[j]) for i, j in zip(a, b, strict=True)])
        same = both.back[a] == both.back[b]
        drawn.append([at_rate(values[same], values[~same], 1e-2)])
        for weight in subject_weights(PEOPLE, 30, 5):
            mated = weight[both.back[a]][same].astype(float)
            other = (weight[both.back[a]] * weight[both.back[b]])[~same].astype(float)
            drawn[-1].append(at_rate(values[same], values[~same], 1e-2, (mated, other)))
    points = np.array(drawn)
    assert (row.old, row.new) == pytest.approx(points[:, 0])
    assert 0 < row.old < row.new and row.passed
    differences = points[1, 1:] - points[0, 1:]
    assert row.difference_interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert row.of.startswith("135 mated and 1296 non-mated pairs of 54 pictures held back")


def test_searches_at_a_rate_are_those_of_loops():
    both = known(seen(1.0, 8), seen(0.6, 9))
    rows = figures(known_rows(both, replicates=30, seed=5))
    assert "tpir@1e-2" in rows and "tpir@1e-3" not in rows, "350 strangers speak of 1 % alone"
    v, row = both.old, rows["tpir@1e-2"]
    middles = unit(np.array([v.learned[both.learned == p].sum(axis=0) for p in range(PEOPLE)]))
    mated = []
    for probe, who in zip(v.back, both.back, strict=True):
        cosines = middles @ probe
        mated.append(cosines.max() if np.argmax(cosines) == who else -np.inf)
    other = np.array([(middles @ stranger).max() for stranger in v.strangers])
    assert row.old == pytest.approx(at_rate(np.array(mated), other, 1e-2))
    trials = search_trials(both, v)
    weights = subject_weights(PEOPLE + STRANGERS, 5, 2).astype(float)
    for weight, share in zip(weights, accepted(trials, weights, [1e-2])[:, 0], strict=True):
        told = weight[both.back], weight[PEOPLE + both.strangers]
        assert share == pytest.approx(at_rate(np.array(mated), other, 1e-2, told))
    assert row.of == "27 pictures held back, searched among 9 people, and 350 of 70 strangers"


def test_a_draw_of_one_person_has_no_rate():
    trials = pair_trials(seen(1.0, 8).back, np.arange(PEOPLE).repeat(3), 0)
    alone = np.zeros((1, PEOPLE))
    alone[0, 4] = PEOPLE
    assert np.isnan(accepted(trials, alone, [1e-2])).all()


def test_of_many_pictures_some_are_drawn():
    random = np.random.default_rng(0)
    rows, label = unit(random.normal(size=(1100, 3))), np.arange(1100) // 2
    one, again, another = (pair_trials(rows, label, seed) for seed in (1, 1, 2))
    assert len(one.mated) + len(one.other) == 1000 * 999 // 2
    assert np.array_equal(one.mated, again.mated)
    assert not np.array_equal(one.mated[:300], another.mated[:300])


def test_what_there_is_too_little_of_has_no_row():
    one = known(seen(0.5, 2, held=1), seen(0.5, 3, held=1), held=1)
    assert set(figures(known_rows(one, replicates=5))) == {"accuracy", "one-shot", "tpir@1e-2"}
    nobody = np.zeros(0, np.int64)
    v = seen(0.5, 2)
    empty = KnownVectors(v.learned, v.back[:0], v.strangers[:0])
    assert known_rows(Known(one.learned, nobody, nobody, empty, empty)) == []
    alone = KnownVectors(v.learned, v.back, v.strangers[:0])
    few = known_rows(Known(one.learned, known(v, v).back, nobody, alone, alone), replicates=5)
    assert set(figures(few)) == {"accuracy", "one-shot", "tar@1e-2"}


def test_a_worse_model_fails_and_the_same_one_does_not():
    good, bad = seen(0.4, 8), seen(3.0, 9)
    lost = known_rows(known(good, bad), replicates=40)
    assert {row.figure for row in lost if not row.passed} == {
        *("accuracy", "one-shot", "tar@1e-2", "tpir@1e-2")
    }
    for row in known_rows(known(bad, bad), replicates=40):
        assert (row.difference, row.difference_interval, row.passed) == (0.0, (0.0, 0.0), True)
