"""The record of a verification set: each number is that of the rooms below, with its interval."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from facenet.data.pairset import PairSet, Picture
from facenet.evaluate import curves
from facenet.evaluate.intervals import share_interval, subject_weights
from facenet.evaluate.pairreport import compare_models, verification_report, worst_pairs
from facenet.evaluate.verification import VerificationSettings, Views, verify_pairs

PEOPLE, EACH, PAIRS = 40, 3, 400


def world(noise, seed=0, lost=()):
    """People with noisy vectors; half of the pairs are of one person."""
    generator = np.random.default_rng(seed)
    people = np.repeat(np.arange(PEOPLE), EACH)
    centres = generator.normal(size=(PEOPLE, 8))
    a = generator.integers(0, len(people), PAIRS)
    b = np.where(
        np.arange(PAIRS) % 2,
        people[a] * EACH + generator.integers(0, EACH, PAIRS),
        generator.integers(0, len(people), PAIRS),
    )
    same = people[a] == people[b]
    pictures = tuple(Picture(f"p{row}", None, str(person)) for row, person in enumerate(people))
    pairs = PairSet("toy", pictures, a, b, same, np.arange(PAIRS) // (PAIRS // 10))
    rows = centres[people] + generator.normal(0, noise, (len(people), 8))
    found = np.ones(len(people), bool)
    found[list(lost)] = False
    return pairs, Views(rows.astype(np.float32), None, found)


def report(noise=0.9, lost=(), **options):
    pairs, views = world(noise, lost=lost)
    made = verification_report(
        pairs, views, VerificationSettings(), **{"replicates": 200, **options}
    )
    return pairs, views, made


def test_numbers_are_those_of_their_definitions():
    pairs, views, made = report(lost=(5, 6))
    result = verify_pairs(pairs, views, VerificationSettings())
    mated, others = result.similarity[pairs.same], result.similarity[~pairs.same]
    values = made.values
    assert values["accuracy"] == result.decisions.accuracy.mean()
    assert values["accuracy_std"] == result.decisions.accuracy.std()
    assert values["auc"] == curves.area_under_roc(mated, others)
    assert values["eer"] == curves.equal_error_rate(mated, others)
    point = curves.tar_at_far(mated, others, 0.1)
    assert values["tar_at_far"]["1e-1"] | {"ci": None} == {
        "tar": point.tar,
        "ci": None,
        "far": point.far,
        "threshold": point.threshold,
        "false_matches": point.false_matches,
    }
    errors = values["errors"]
    assert sum(errors.values()) == PAIRS - result.decisions.correct.sum()
    assert values["mated"] + values["non_mated"] == values["pairs"] == PAIRS
    assert values["failures"] == 2
    lost = ~np.isfinite(result.similarity)
    assert values["not_found"] == lost.sum() > 2
    assert values["not_found_mated"] == (lost & pairs.same).sum()


def test_every_interval_holds_its_number():
    values = report()[2].values
    for name in ("accuracy", "auc", "eer"):
        low, high = values[f"{name}_ci"]
        assert 0 <= low <= values[name] <= high <= 1
        assert low < high
    for point in values["tar_at_far"].values():
        assert point["ci"][0] <= point["tar"] <= point["ci"][1]
    low, high = values["d_prime_ci"]
    assert 0 < low < values["d_prime"] < high
    low, high = values["val_at_far"]["val_ci"]
    assert 0 <= low < values["val_at_far"]["val"] < high <= 1


def test_accuracy_and_val_draw_people_and_hold_the_thresholds():
    """The mean over the folds, which have unlike many pairs, in each draw."""
    pairs, views = world(0.9)
    fold = np.minimum(np.arange(PAIRS) // 25, 5)
    pairs = replace(pairs, fold=fold)
    made = verification_report(pairs, views, VerificationSettings(), replicates=30, seed=4)
    decided, people = made.result.decisions, [int(p.person) for p in pairs.pictures]
    weights = subject_weights(PEOPLE, 30, 4)
    for draw, weight in enumerate(weights):
        pair = np.array([
            weight[people[a]] * (1 if same else weight[people[b]])
            for a, b, same in zip(pairs.a, pairs.b, pairs.same, strict=True)
        ])  # fmt: skip
        for name, hit, kind in (
            ("accuracy", decided.correct, np.ones(PAIRS, bool)),
            ("val@1e-3", decided.accepted, pairs.same),
        ):
            part = whole = 0.0
            for number in range(6):
                rows = (fold == number) & kind
                part += pair[rows & hit].sum() / rows.sum()
                whole += pair[rows].sum() / rows.sum()
            assert made.replicates[name][draw] == pytest.approx(part / whole)
    values = made.values
    assert values["accuracy"] == pytest.approx(
        np.mean([decided.correct[fold == number].mean() for number in range(6)])
    )
    val = values["val_at_far"]
    assert val["val"] == pytest.approx(
        np.mean([decided.accepted[(fold == n) & pairs.same].mean() for n in range(6)])
    )
    expected = share_interval(made.replicates["val@1e-3"], val["val"], PEOPLE)
    assert val["val_ci"] == list(expected)


def test_rates_that_the_pairs_cannot_support_are_refused_with_what_they_need():
    values = report()[2].values
    others = values["non_mated"]
    assert 30 <= others < 300
    assert list(values["tar_at_far"]) == ["1e-1"]
    assert list(values["refused"]) == ["1e-2", "1e-3", "1e-4", "1e-5", "1e-6"]
    assert values["refused"]["1e-6"] == (
        f"FAR 1e-6 needs 3,000,000 non-mated pairs (3 / rate); there are {others}."
    )


def test_perfect_models_are_not_called_certain():
    values = report(noise=1e-3)[2].values
    assert values["accuracy"] == 1
    low, high = values["accuracy_ci"]
    assert (low, high) == (pytest.approx(PEOPLE / (PEOPLE + 3.8415), abs=1e-3), 1)


def test_the_record_is_plain_and_the_same_every_time():
    first, second = report()[2].values, report()[2].values
    assert json.dumps(first, allow_nan=False) == json.dumps(second)
    assert report(seed=1)[2].values["accuracy_ci"] != first["accuracy_ci"]


def test_worst_pairs_are_wrong_and_sorted():
    pairs, views, made = report(lost=(1, 2))
    names = {picture.name: row for row, picture in enumerate(pairs.pictures)}
    listed = worst_pairs(pairs, made.result)
    for kind, sign in (("false_matches", -1), ("false_non_matches", 1)):
        scores = [sign * pair["similarity"] for pair in listed[kind]]
        assert scores == sorted(scores)
        assert len(scores) > 2
        for pair in listed[kind]:
            one, two = names[pair["a"]], names[pair["b"]]
            row = next(n for n in range(PAIRS) if (pairs.a[n], pairs.b[n]) == (one, two))
            assert not made.result.decisions.correct[row]
            assert pairs.same[row] == (kind == "false_non_matches")


def test_models_are_compared_on_the_same_draws():
    better, worse = report(0.6)[2], report(1.4)[2]
    rows = {row["metric"]: row for row in compare_models(better, worse)}
    assert set(rows) == {"accuracy", "auc", "d_prime", "eer", "tar@1e-1", "val@1e-3"}
    for name in ("accuracy", "auc", "d_prime", "tar@1e-1", "val@1e-3"):
        assert rows[name]["difference"] > 0
        assert rows[name]["ci"][0] > 0
    assert rows["eer"]["difference"] < 0
    width = np.diff(rows["accuracy"]["ci"])
    apart = np.diff(better.values["accuracy_ci"]) + np.diff(worse.values["accuracy_ci"])
    assert width < apart
    for row in compare_models(better, better):
        assert (row["difference"], row["ci"]) == (0, [0, 0])


@pytest.mark.parametrize("same", [True, False])
def test_one_kind_of_pair_has_an_accuracy_and_no_error_rates(same):
    pairs, views = world(1.0)
    rows = np.flatnonzero(pairs.same == same)
    one = PairSet(
        "toy",
        pairs.pictures,
        pairs.a[rows],
        pairs.b[rows],
        pairs.same[rows],
        np.arange(len(rows)) % 2,
    )
    made = verification_report(one, views, VerificationSettings(), replicates=50)
    values = made.values
    assert 0.9 < values["accuracy"] <= 1
    assert [values[name] for name in ("auc", "auc_ci", "eer", "eer_ci")] == [None] * 4
    assert (values["d_prime"], values["d_prime_ci"]) == (None, None)
    assert values["val_at_far"] == {"target": 1e-3} | dict.fromkeys(
        ("val", "val_std", "val_ci", "far")
    )
    assert values["tar_at_far"] == {}
    assert len(values["refused"]) == 6
    assert f"of {'one person' if same else 'two people'}: error rates need" in values["notes"][0]
    json.dumps(values, allow_nan=False)
    assert [row["metric"] for row in compare_models(made, made)] == ["accuracy"]
