"""Pairs drawn from class folders: what must hold of them, checked pair by pair."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.data.drawn import MAX_PAIRS, deal_people, draw_pairs, shares
from facenet.data.folders import Sample, read_class_folders
from facenet.errors import DataError, SettingsError


def people(*sizes: int) -> list[Sample]:
    """One person per size, with so many pictures."""
    return [
        Sample(f"p{who:03d}", Path(f"/set/p{who:03d}/{number:03d}.jpg"))
        for who, size in enumerate(sizes)
        for number in range(size)
    ]


def checked(pairs, samples):
    """The pairs as (name, name, same, fold), after what holds of every drawn set was checked."""
    owner = {str(sample.path): sample.person for sample in samples}
    columns = (pairs.a.tolist(), pairs.b.tolist(), pairs.same.tolist(), pairs.fold.tolist())
    told, seen, homes = [], set(), {}
    for a, b, same, fold in zip(*columns, strict=True):
        one, other = pairs.pictures[a], pairs.pictures[b]
        assert frozenset((a, b)) not in seen, "a pair twice"
        seen.add(frozenset((a, b)))
        assert a != b
        assert same == (one.person == other.person)
        for picture in (one, other):
            assert owner[str(picture.source)] == picture.person
            assert homes.setdefault(picture.person, fold) == fold, "a person in two folds"
        told.append((one.name, other.name, same, fold))
    for fold in range(max(pairs.fold) + 1):
        kinds = [same for _, _, same, where in told if where == fold]
        assert kinds == [True] * (len(kinds) // 2) + [False] * (len(kinds) // 2) != []
    assert {row for column in columns[:2] for row in column} == set(range(len(pairs.pictures)))
    assert len({picture.name for picture in pairs.pictures}) == len(pairs.pictures)
    return told


@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=14),
    st.integers(2, 5),
    st.integers(1, 40),
    st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_drawn_pairs_hold_what_is_promised(sizes, folds, half, seed):
    samples = people(*sizes)
    pairs = 2 * max(half, folds)
    made = min(folds, sum(size > 1 for size in sizes), len(sizes) // 2)
    if made < 2:
        with pytest.raises(DataError, match=f"it has {len(sizes)} people"):
            draw_pairs(samples, dataset="toy", pairs=pairs, folds=folds, seed=seed)
        return
    drawn = draw_pairs(samples, dataset="toy", pairs=pairs, folds=folds, seed=seed)
    told = checked(drawn, samples)
    assert (drawn.dataset, len(set(drawn.fold.tolist()))) == ("toy", made)
    wanted, homes = shares(pairs // 2, made), {}
    for one, _, _, fold in told:
        homes.setdefault(fold, set()).add(one[:4])
    short = 0
    for fold in range(made):
        count = sum(where == fold for *_, where in told)
        assert count <= 2 * wanted[fold]
        short += count < 2 * wanted[fold]
    assert any("pairs were wanted" in note for note in drawn.notes) == (short > 0)
    assert any("folds instead of" in note for note in drawn.notes) == (made < folds)


def test_a_small_folder_is_drawn_to_the_last_pair():
    """Four people, two folds: every mated and non-mated pair that there is, by enumeration."""
    samples = people(2, 2, 2, 2)
    for seed in range(20):
        pairs = draw_pairs(samples, dataset="toy", pairs=400, folds=2, seed=seed)
        told = checked(pairs, samples)
        assert len(told) == 8
        mated = {frozenset(pair[:2]) for pair in told if pair[2]}
        assert mated == {frozenset((f"p00{i}/000.jpg", f"p00{i}/001.jpg")) for i in range(4)}
        assert pairs.notes[1] == (
            "400 pairs were wanted and 8 drawn: the people of some folds have no more mated pairs."
        )


def test_every_non_mated_pair_is_drawn_when_they_are_few():
    samples = people(9, 1, 9, 1)
    pairs = draw_pairs(samples, dataset="toy", pairs=72, folds=2)
    told = checked(pairs, samples)
    every = {
        frozenset((one.path, other.path))
        for one, other in combinations(samples, 2)
        if one.person != other.person
    }
    drawn = {
        frozenset(pairs.pictures[row].source for row in rows)
        for *rows, same in zip(pairs.a, pairs.b, pairs.same, strict=True)
        if not same
    }
    homes = {frozenset(name[:4] for name in pair[:2]) for pair in told if not pair[2]}
    assert drawn == {
        pair for pair in every if frozenset(path.parent.name for path in pair) in homes
    }
    assert len(drawn) in (18, 82), "9 + 9 pairs, or 81 + 1"
    assert "no more non-mated pairs" in pairs.notes[1] or "mated and non-mated" in pairs.notes[1]


def test_the_order_of_the_folder_does_not_matter():
    samples = people(*range(1, 30))
    wanted = draw_pairs(samples, dataset="toy", pairs=400, seed=3)
    random = np.random.default_rng(0)
    for _ in range(5):
        mixed = [samples[row] for row in random.permutation(len(samples))] + samples[:3]
        got = draw_pairs(mixed, dataset="toy", pairs=400, seed=3)
        assert (got.pictures, got.notes) == (wanted.pictures, wanted.notes)
        for column in ("a", "b", "same", "fold"):
            assert np.array_equal(getattr(got, column), getattr(wanted, column))
    other = draw_pairs(samples, dataset="toy", pairs=400, seed=4)
    assert not np.array_equal(other.a, wanted.a)


def test_a_draw_is_the_same_for_all_time():
    """Frozen: these pairs came from numpy's default generator when this was written."""
    pairs = draw_pairs(people(3, 1, 2, 4, 2, 1), dataset="toy", pairs=12, folds=2, seed=7)
    names = [one.name.replace("/00", "-").removesuffix(".jpg") for one in pairs.pictures]
    told = " ".join(f"{names[a]}:{names[b]}" for a, b in zip(pairs.a, pairs.b, strict=True))
    assert told == (
        "p000-1:p000-2 p000-0:p000-1 p002-0:p002-1 p002-1:p005-0 p000-1:p005-0 p000-0:p002-0 "
        "p003-1:p003-2 p003-0:p003-3 p004-0:p004-1 p001-0:p004-0 p003-3:p004-0 p001-0:p003-0"
    )


def test_people_take_turns_whatever_they_have():
    """One person of 300 pictures among 40 of two is in no more mated pairs than the others."""
    samples = people(300, *[2] * 39)
    pairs = draw_pairs(samples, dataset="toy", pairs=40, folds=2, seed=1)
    mated = [pairs.pictures[a].person for a in pairs.a[pairs.same]]
    assert len(set(mated)) == 20
    pairs = draw_pairs(samples, dataset="toy", pairs=1200, folds=2, seed=1)
    mated = [pairs.pictures[a].person for a in pairs.a[pairs.same]]
    assert mated.count("p000") == 299
    assert {mated.count(who) for who in mated if who != "p000"} == {1}
    checked(pairs, samples)


def test_millions_of_pairs_are_counted_and_not_listed():
    """20,000 pictures have 10^8 pairs; uniform over people, the large ones do not take all."""
    samples = people(*[9000, 9000], *[2] * 1000)
    pairs = draw_pairs(samples, dataset="toy", pairs=4000, folds=2)
    told = checked(pairs, samples)
    assert len(told) == 4000
    large = sum("p000" in a + b or "p001" in a + b for a, b, same, _ in told if not same)
    assert large < 40


def test_people_are_dealt_evenly():
    random = np.random.default_rng(0)
    for _ in range(200):
        folds, count = int(random.integers(2, 8)), int(random.integers(2, 60))
        weights = random.integers(0, random.choice([2, 4, 100]), count)
        dealt = deal_people(np.random.default_rng(1), weights, folds)
        assert sorted(np.concatenate(dealt).tolist()) == list(range(count))
        sums = [int(weights[part].sum()) for part in dealt]
        if np.sum(weights > 0) >= folds and count >= 2 * folds:
            assert min(sums) > 0
            assert min(map(len, dealt)) >= 2
        if count >= 4 * folds:
            assert max(sums) - min(sums) <= weights.max()


def test_who_has_many_pictures_is_spread_over_the_folds():
    """Two people can give 250 pairs each; with both in one fold, the others had too few."""
    samples = people(*[300] * 2, *[2] * 250, *[1] * 100)
    for seed in range(10):
        pairs = draw_pairs(samples, dataset="toy", pairs=1000, folds=2, seed=seed)
        assert np.bincount(pairs.fold).tolist() == [500, 500]


def test_shares_differ_by_one_at_most():
    assert shares(10, 4) == [3, 3, 2, 2]
    assert [sum(shares(n, k)) for n in range(20) for k in range(1, 6)] == [
        n for n in range(20) for _ in range(5)
    ]


@pytest.mark.parametrize(
    ("sizes", "have"), [((), "0 people, 0"), ((5,), "1 people, 1"), ((5, 5, 5), "3 people, 3"),
                        ((5, 1, 1, 1, 1), "5 people, 1"), ((1,) * 9, "9 people, 0")]
)  # fmt: skip
def test_too_few_people_are_refused(sizes, have):
    told = f"toy should have four people or more, two of them .*; it has {have} of them with two"
    with pytest.raises(DataError, match=told):
        draw_pairs(people(*sizes), dataset="toy")


@pytest.mark.parametrize(
    ("pairs", "folds"), [(7, 2), (2, 2), (0, 2), (-4, -2), (10, 1), (MAX_PAIRS + 2, 2)]
)
def test_numbers_that_cannot_be_are_refused(pairs, folds):
    with pytest.raises(SettingsError, match=f"got {pairs} pairs and {folds} folds"):
        draw_pairs(people(2, 2, 2, 2), dataset="toy", pairs=pairs, folds=folds)
    with pytest.raises(SettingsError, match="A seed should be 0 or more; got -1"):
        draw_pairs(people(2, 2, 2, 2), dataset="toy", seed=-1)


def test_folders_with_any_names(tmp_path):
    names = ["Zoë", "李", "a b", os.fsdecode(b"\xff\xfe")]
    for name in names:
        for number in ("1.jpg", "deep/2.png"):
            path = tmp_path / name / number
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    pairs = draw_pairs(read_class_folders(tmp_path), dataset="toy", pairs=8, folds=2)
    assert {one.person for one in pairs.pictures} == {*names[:3], r"\udcff\udcfe"}
    assert {one.name for one in pairs.pictures} >= {"Zoë/1.jpg", "李/deep/2.png"}
    assert all(os.path.isfile(one.source) for one in pairs.pictures)
    assert all(one.name.encode() for one in pairs.pictures)
