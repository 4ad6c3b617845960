"""The gate of fine-tuning, re-derived with loops, and its rule on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError, TrainingError
from facenet.evaluate.intervals import subject_weights
from facenet.train.gate import GateRow, JudgedPairs, gate, pair_rows, passes
from facenet.train.gaterecord import check_gate, read_gate, refusal, write_gate

PEOPLE, PICTURES, SIZE = 24, 4, 6


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def vectors_of(spread, seed):
    """Vectors of every picture: the person's direction, the same for every seed, and noise."""
    middle = np.random.default_rng(1).normal(size=(PEOPLE, SIZE)).repeat(PICTURES, axis=0)
    return unit(middle + spread * np.random.default_rng(seed).normal(size=middle.shape))


@pytest.fixture(scope="module")
def pairs():
    """All mated pairs, and non-mated pairs inside the two folds, twelve people each."""
    person = np.arange(PEOPLE * PICTURES) // PICTURES
    a, b = np.triu_indices(len(person), 1)
    fold = person // 12
    kept = (fold[a] == fold[b]) & ((person[a] == person[b]) | ((a + b) % 7 == 0))
    a, b = a[kept], b[kept]
    pictures = tuple(Picture(f"{row}", None, f"p{who}") for row, who in enumerate(person))
    return PairSet("toy", pictures, a, b, person[a] == person[b], fold[a])


def judged(pairs, old, new):
    found = np.ones(len(old), bool)
    return JudgedPairs("toy", pairs, old, new, found)


@pytest.mark.parametrize(
    ("difference", "interval", "good"),
    [
        (0.0, None, True),
        (-0.002, None, True),
        (0.998 - 1.0, (-0.01, -0.001), True),
        (-0.0021, None, False),
        (-0.0021, (-0.004, -0.0001), False),
        (-0.0021, (-0.01, 0.0), True),
        (-0.01, (-0.03, 0.001), True),
        (-0.0101, (-0.5, 0.5), False),
        (0.4, (0.3, 0.5), True),
    ],
)
def test_a_loss_beyond_the_allowed_one_passes_only_when_small_and_by_chance(
    difference, interval, good
):
    assert passes(difference, interval, 0.002) is good


def test_figures_of_pairs_are_those_of_loops(pairs):
    old, new = vectors_of(0.35, 2), vectors_of(0.6, 3)
    rows = {r.figure: r for r in pair_rows(judged(pairs, old, new), 0.002, replicates=40, seed=5)}
    similarity = [
        [float(np.dot(v[i].astype(float), v[j])) for i, j in zip(pairs.a, pairs.b, strict=True)]
        for v in (old, new)
    ]
    mated, others = (
        [[s for s, same in zip(one, pairs.same, strict=True) if same == kind] for one in similarity]
        for kind in (True, False)
    )

    def threshold(scores):
        """The lowest threshold, just above a non-mated score, with at most 1 % above it."""
        for level in sorted(scores):
            if sum(s > level for s in scores) <= 0.01 * len(scores):
                return level
        raise AssertionError

    levels = [threshold(one) for one in others]
    tar = [np.mean([s > level for s in one]) for one, level in zip(mated, levels, strict=True)]
    row = rows["tar@1e-2"]
    assert (row.old, row.new) == pytest.approx(tar)
    assert row.difference == pytest.approx(tar[1] - tar[0])
    assert row.judged and row.old > row.new and not row.passed

    drift = rows["fmr@1e-2"]
    lowest = min(s for s in mated[0] + others[0] if s > levels[0])
    assert drift.old == pytest.approx(np.mean([s > levels[0] for s in others[0]]))
    assert drift.new == pytest.approx(np.mean([s >= lowest - 1e-7 for s in others[1]]))
    assert drift.passed and not drift.judged

    cosine = np.mean([np.dot(a.astype(float), b) for a, b in zip(old, new, strict=True)])
    assert rows["cosine"].new == pytest.approx(cosine, abs=1e-6)
    assert "tar@1e-3" not in rows, "so few pairs cannot speak of it"


def test_the_drift_interval_draws_people_for_both_models_at_once(pairs):
    old, new = vectors_of(0.35, 2), vectors_of(0.6, 3)
    rows = {r.figure: r for r in pair_rows(judged(pairs, old, new), 0.002, replicates=60, seed=5)}
    similarity = [np.sum(v[pairs.a].astype(float) * v[pairs.b], axis=1) for v in (old, new)]
    row = rows["fmr@1e-2"]
    accepted = round(row.old * np.sum(~pairs.same))
    refused = np.sort(similarity[0][~pairs.same])[-1 - accepted]
    lowest = similarity[0][similarity[0] > refused + 1e-7].min()
    differences = []
    for drawn in subject_weights(PEOPLE, 60, 5):
        hits, total = [0.0, 0.0], 0.0
        for number in np.flatnonzero(~pairs.same):
            who = pairs.a[number] // PICTURES, pairs.b[number] // PICTURES
            weight = float(drawn[who[0]] * drawn[who[1]])
            total += weight
            for model in (0, 1):
                hits[model] += weight * (similarity[model][number] >= lowest - 1e-7)
        differences.append((hits[1] - hits[0]) / total)
    assert row.difference_interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))


def test_the_same_model_passes_and_a_forgetful_one_is_refused(pairs, tmp_path):
    old = vectors_of(0.35, 2)
    learned = GateRow("known", "toy", 0.5, 0.5, None, None, 0.0, None, True, True, "six")
    same = gate([judged(pairs, old, old)], [learned], notes=["told"], replicates=50)
    assert same.rows[-1] == learned
    assert not gate([], [replace(learned, passed=False)]).passed
    assert same.passed and refusal(same) is None and same.notes[0] == "told"
    assert {row.difference for row in same.rows if row.figure != "cosine"} == {0.0}
    assert not any("people say little" in note for note in same.notes), "24 are not few"

    worse = gate([judged(pairs, old, vectors_of(2.0, 9))], [], replicates=50)
    assert not worse.passed
    write_gate(tmp_path, worse)
    assert read_gate(tmp_path) == worse
    with pytest.raises(
        TrainingError, match=r"failed the gate .*tar@1e-2 on toy: .* before"
    ) as error:
        check_gate(tmp_path)
    assert "--publish-anyway" in str(error.value)
    worst = min(row.difference for row in worse.rows if not row.passed)
    assert f"{worst:+.4f}" in str(error.value)


def test_a_run_without_a_gate_may_be_exported_and_a_damaged_record_may_not(tmp_path):
    assert read_gate(tmp_path) is None
    check_gate(tmp_path)
    (tmp_path / "gate.json").write_text('{"passed": true}')
    with pytest.raises(DataError, match=r"gate\.json should be the outcome of a gate"):
        check_gate(tmp_path)


def test_few_people_and_rates_that_pairs_cannot_support_are_told(pairs):
    few = pairs.a // PICTURES % 12 < 5
    few &= pairs.b // PICTURES % 12 < 5
    columns = {name: getattr(pairs, name)[few] for name in ("a", "b", "same", "fold")}
    old = vectors_of(0.35, 2)
    notes = gate([judged(replace(pairs, **columns), old, old)], [], replicates=20).notes
    assert any("10 people say little of all others" in note for note in notes)
    assert any("1e-3 needs 3,000 non-mated pairs" in note for note in notes)


def test_vectors_that_do_not_fit_are_refused(pairs):
    old = vectors_of(0.35, 2)
    with pytest.raises(DataError, match="a vector of both models for each of the 96 pictures"):
        gate([JudgedPairs("toy", pairs, old, old[:-1], np.ones(96, bool))], [])
