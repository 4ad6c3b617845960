"""The audit finds what was put wrong into a set, and nothing else, and agrees with loops."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.errors import DataError, InputError
from facenet.evaluate import audit
from facenet.evaluate.audit import NamedVectors


def people(count, each, seed=0, noise=0.25, dimension=24):
    """Clear people: pictures "p3/1", person "p3"."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(count, dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = np.repeat(centres, each, axis=0)
    rows = rows + generator.normal(0, noise / np.sqrt(dimension), rows.shape)
    names = [f"p{row // each}" for row in range(count * each)]
    pictures = [f"{name}/{row % each}" for row, name in enumerate(names)]
    return rows.astype(np.float32), pictures, names


def test_swapped_labels_are_found_and_right_ones_are_not():
    rows, pictures, names = people(80, 6)
    generator = np.random.default_rng(1)
    wrong = sorted(generator.choice(len(names), 20, replace=False).tolist())
    truth = {pictures[row]: names[row] for row in wrong}
    for row in wrong:
        names[row] = f"p{(int(names[row][1:]) + 7) % 80}"
    found = audit.label_suspects(NamedVectors(rows, pictures, names))
    assert {suspect.picture for suspect in found} == set(truth)
    assert all(suspect.looks_like == truth[suspect.picture] for suspect in found)
    margins = [suspect.other - suspect.own for suspect in found]
    assert margins == sorted(margins, reverse=True)


def test_suspects_are_those_of_the_definition():
    rows, pictures, names = people(12, 3, noise=1.6)
    pictures.append("lonely/0")
    names.append("lonely")
    rows = np.concatenate([rows, rows[:1]])
    found = {s.picture: s for s in audit.label_suspects(NamedVectors(rows, pictures, names))}
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = {}
    for row, name in enumerate(names):

        def near(who, leave=None, own=unit[row]):
            total = sum(unit[i] for i, n in enumerate(names) if n == who and i != leave)
            return float(own @ total / np.linalg.norm(total))

        if names.count(name) > 1:
            others = {who: near(who) for who in set(names) - {name}}
            best = max(others, key=others.get)
            if others[best] > near(name, leave=row):
                expected[pictures[row]] = (best, near(name, leave=row), others[best])
    assert 3 < len(expected) < len(names) - 1
    assert set(found) == set(expected)
    for name, (who, own, other) in expected.items():
        assert found[name].looks_like == who
        assert (found[name].own, found[name].other) == pytest.approx((own, other), abs=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_similar_pairs_are_all_pairs_above_the_threshold(same):
    rows, pictures, names = people(300, 4, noise=1.0)  # more than one block
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    scores = unit.astype(np.float64) @ unit.T
    level = 0.75 if same else 0.5
    expected = {
        (pictures[i], pictures[j])
        for i, j in zip(*np.nonzero(np.triu(scores, 1) >= level), strict=True)
        if (names[i] == names[j]) == same
    }
    labelled = NamedVectors(rows, pictures, names)
    found = audit.similar_pairs(labelled, threshold=level, same=same, most=10**6)
    assert len(expected) > 20
    assert {(pair.a, pair.b) for pair in found} == expected
    values = [pair.similarity for pair in found]
    assert values == sorted(values, reverse=True)
    few = audit.similar_pairs(labelled, threshold=level, same=same, most=5)
    assert few == found[:5]


def test_lowest_mated_pairs():
    rows, pictures, names = people(40, 4, noise=1.0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = sorted(
        float(unit[i] @ unit[j])
        for i in range(len(names))
        for j in range(i)
        if names[i] == names[j]
    )
    found = audit.lowest_mated(NamedVectors(rows, pictures, names), most=30)
    assert [pair.similarity for pair in found] == pytest.approx(expected[:30], abs=1e-6)
    assert all(pair.person_a == pair.person_b for pair in found)


def test_people_of_both_sets_are_found_by_their_best_pictures():
    rows, pictures, names = people(50, 4)
    other = [f"{name} again" for name in names[80:]]
    first = NamedVectors(rows[:120], pictures[:120], names[:120])
    second = NamedVectors(rows[80:], [f"b/{name}" for name in pictures[80:]], other)
    found = audit.identity_overlap(first, second, threshold=0.8)
    both = {f"p{number}" for number in range(20, 30)}
    assert {(pair.person_a, pair.person_b) for pair in found} == {
        (name, f"{name} again") for name in both
    }
    for pair in found:  # the same picture is in both
        assert pair.similarity == pytest.approx(1)
        assert pair.b == f"b/{pair.a}"


def test_overlap_agrees_with_loops():
    rows, pictures, names = people(30, 3, noise=1.0)
    one, two = slice(0, 45), slice(45, 90)
    first = NamedVectors(rows[one], pictures[one], names[one])
    second = NamedVectors(rows[two], pictures[two], names[two])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    best: dict = {}
    for i in range(45):
        for j in range(45, 90):
            key = (names[i], names[j])
            best[key] = max(best.get(key, -2), float(unit[i] @ unit[j]))
    expected = {key: value for key, value in best.items() if value >= 0.3}
    found = audit.identity_overlap(first, second, threshold=0.3)
    assert len(expected) > 5
    assert {(p.person_a, p.person_b): p.similarity for p in found} == pytest.approx(expected)


def test_columns_that_do_not_fit_and_empty_sets():
    with pytest.raises(InputError, match="got 2 vectors, 1 names and 2 people"):
        NamedVectors(np.ones((2, 3), np.float32), ["a"], ["a", "b"])
    with pytest.raises(DataError, match="there are none"):
        NamedVectors(np.ones((0, 3), np.float32), [], [])
