"""Tables on people they have not seen: counted in loops, intervals against draws of people."""

import math
from itertools import combinations

import numpy as np
import pytest

from facenet import vectors
from facenet.errors import DataError, InputError
from facenet.evaluate.falsematch import false_match_table
from facenet.evaluate.heldout import (
    false_matches_by_person,
    held_out_check,
    split_people,
    table_intervals,
)
from facenet.evaluate.intervals import subject_weights, wilson
from facenet.gallery.calibrate import similarity_at


def some_vectors(seed=0, people=30, pictures=3, dimension=6, common=0.0):
    """Vectors of people; `common` pulls all of them together, some people more than others."""
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=(people, dimension))
    centre[:, 0] += common * generator.exponential(size=people)
    counts = generator.integers(1, 2 * pictures, people)
    person = np.repeat(np.arange(people), counts)
    rows = centre[person] + 0.4 * generator.normal(size=(len(person), dimension))
    return rows.astype(np.float32), [f"p{number:03}" for number in person]


def non_mated(rows, names):
    """(similarity, a, b) of every pair of different people."""
    unit = vectors.unit(rows)
    return [
        (float(unit[i] @ unit[j]), names[i], names[j])
        for i, j in combinations(range(len(rows)), 2)
        if names[i] != names[j]
    ]


@pytest.mark.parametrize("block", [1, 13, 64, 5000])
def test_false_matches_by_person_are_counted_in_loops(block):
    rows, names = some_vectors()
    order = np.random.default_rng(1).permutation(len(rows))
    rows, names = rows[order], [names[at] for at in order]
    levels = np.array([-0.5, 0.1234, 0.1234, 0.7])
    counts, pictures = false_matches_by_person(rows, names, levels, block=block)
    everybody = sorted(set(names))
    assert pictures.tolist() == [names.count(name) for name in everybody]
    pairs = non_mated(rows, names)
    for name, row in zip(everybody, counts, strict=True):
        mine = [score for score, *two in pairs if name in two]
        assert row.tolist() == [sum(score >= level for score in mine) for level in levels]


def test_a_similarity_on_a_level_reaches_it_and_one_a_hair_below_does_not():
    """Products of two float32 vectors against levels at, just above and just below them."""
    generator = np.random.default_rng(2)
    angles = np.concatenate([generator.uniform(0, np.pi, 60), [0, np.pi / 2, np.pi]])
    for angle in angles:
        rows = np.array([(1, 0), (np.cos(angle), np.sin(angle))], np.float32)
        unit = vectors.unit(rows)
        score = float(np.clip(unit[:1] @ unit[1:].T, -1, 1)[0, 0])
        levels = np.array([np.nextafter(score, -2), score, np.nextafter(score, 2)])
        counts, _ = false_matches_by_person(rows, ["a", "b"], levels)
        assert counts.tolist() == [[1, 1, 0]] * 2


def test_the_halves_are_of_people_at_random():
    _, names = some_vectors(people=31)
    first = split_people(names, 0)
    groups = [
        {name for name, half in zip(names, first, strict=True) if half == side} for side in (1, 0)
    ]
    assert (len(groups[0]), len(groups[1])) == (16, 15) and not groups[0] & groups[1]
    assert np.array_equal(first, split_people(names, 0))
    assert not np.array_equal(first, split_people(names, 1))
    shuffled = np.random.default_rng(0).permutation(len(names))
    again = split_people([names[at] for at in shuffled], 0)
    assert np.array_equal(again, first[shuffled]), "the order of the pictures does not matter"
    with pytest.raises(DataError, match="need four people or more; got 3"):
        split_people(["a", "b", "c", "c"], 0)


def test_the_table_of_one_half_is_observed_on_the_other():
    rows, names = some_vectors(people=120)
    got = held_out_check(rows, names, similarity_at, seed=5)
    first = split_people(names, 5)
    halves = [
        (rows[side], [name for name, wanted in zip(names, side, strict=True) if wanted])
        for side in (first, ~first)
    ]
    table = false_match_table(*halves[0], dataset="x")
    pairs = non_mated(*halves[1])
    assert list(got) == ["1e-1", "1e-2", "1e-3", "1e-4"]
    for rate in (1e-1, 1e-2, 1e-3):
        entry = got[f"1e-{round(-math.log10(rate))}"]
        assert (entry.printed, entry.threshold) == (rate, similarity_at(table, rate))
        seen = sum(score >= entry.threshold for score, *_ in pairs) / len(pairs)
        assert entry.observed == pytest.approx(seen, abs=1.5 / len(pairs))
        assert entry.ratio == entry.observed / rate and entry.pairs == len(pairs)
        assert entry.ci[0] <= entry.observed <= entry.ci[1]
    assert got["1e-2"].within_factor_two is True and got["1e-2"].note == ""
    # about 20 false matches are expected at 1e-3, but of few people
    assert got["1e-3"].within_factor_two is None
    assert got["1e-3"].note.startswith(
        "The data do not allow the claim: at FMR 1e-3 the halves, whose pairs share people, are "
    )
    assert got["1e-3"].note.endswith("a factor of two needs about 16 in each. Add people.")
    last = got["1e-4"]
    assert (last.threshold, last.observed, last.ratio, last.ci) == (None, None, None, ())
    assert last.within_factor_two is None and last.note == (
        "The data do not allow the claim: FMR 1e-4 needs 30,000 pairs (3 / rate) in the half "
        f"that makes the table; there are {table.pairs:,}."
    )


def test_a_table_of_other_faces_does_not_hold():
    """Half of the people are all alike: what one half prints is far from what is seen."""
    generator = np.random.default_rng(0)
    names = [f"p{number:03}" for number in range(600)]
    first = split_people(names, 0)
    rows = generator.normal(size=(600, 8)).astype(np.float32)
    rows[~first, 0] += 3
    got = held_out_check(rows, names, similarity_at, rates=(1e-1, 1e-2))
    assert [entry.within_factor_two for entry in got.values()] == [False, False]
    assert got["1e-2"].ratio > 10 and got["1e-2"].ci[0] > 0.02


def test_claims_are_made_only_where_chance_alone_would_not_break_them():
    """Halves drawn again and again from one crowd: of the claims made, few are denied."""
    said = []
    for seed in range(12):
        rows, names = some_vectors(people=120)
        got = held_out_check(rows, names, similarity_at, rates=(1e-1, 3e-2, 1e-2), seed=seed)
        said += [entry.within_factor_two for entry in got.values()]
    assert said.count(True) >= 12
    assert said.count(False) <= 2


def test_a_rate_below_that_of_pictures_under_two_names_is_no_claim():
    rows, names = some_vectors(people=40)
    doubled = np.concatenate([rows, rows])
    got = held_out_check(doubled, names + [f"{name} again" for name in names], similarity_at)
    assert got["1e-1"].within_factor_two is True
    assert "that no threshold of the table refuses" in got["1e-3"].note
    assert got["1e-3"].threshold is None


# ---- intervals


def test_the_intervals_are_those_of_the_jackknife():
    rows, names = some_vectors(common=2.0)
    table = false_match_table(rows, names, dataset="x")
    low, high = table_intervals(table, rows, names)
    pairs, everybody = non_mated(rows, names), sorted(set(names))
    for row in range(5, len(low), 9):
        level, count = table.similarity[row], table.false_matches[row]
        share = count / table.pairs
        left_out = []
        for name in everybody:
            rest = [score >= level for score, *two in pairs if name not in two]
            left_out.append(sum(rest) / len(rest))
        spread = sum((value - np.mean(left_out)) ** 2 for value in left_out)
        variance = (len(everybody) - 1) / len(everybody) * spread
        if 0 < share < 1:
            effective = min(share * (1 - share) / variance, table.pairs)
            expected = wilson(share * effective, effective)
            assert (low[row], high[row]) == pytest.approx(expected, rel=1e-6)
    assert all(
        a <= c / table.pairs <= b for a, c, b in zip(low, table.false_matches, high, strict=True)
    )


def test_the_variance_is_near_that_of_draws_of_people():
    rows, names = some_vectors(1, people=80, common=2.0)
    table = false_match_table(rows, names, dataset="x")
    row = int(np.argmin(np.abs(np.array(table.false_matches) / table.pairs - 0.1)))
    low, high = table_intervals(table, rows, names)
    number = {name: at for at, name in enumerate(sorted(set(names)))}
    score, a, b = zip(*non_mated(rows, names), strict=True)
    one, two = ([number[name] for name in side] for side in (a, b))
    match = np.array(score) >= table.similarity[row]
    drawn = subject_weights(len(number), 400, 0).astype(float)
    weight = drawn[:, one] * drawn[:, two]
    deviation = np.std((weight @ match) / weight.sum(axis=1))
    assert high[row] - low[row] == pytest.approx(2 * 1.96 * deviation, rel=0.25)
    naive = wilson(table.false_matches[row], table.pairs)
    assert high[row] - low[row] > 2 * (naive[1] - naive[0])


def test_the_intervals_hold_the_rate_of_all_people_as_often_as_they_should():
    """Samples of a large crowd: 95 % intervals hold its rate; those of free pairs do not."""
    level, held, naive = 0.5, [], []
    rows, names = some_vectors(7, people=700, pictures=1, common=1.5)
    counts, pictures = false_matches_by_person(rows, names, np.array([level]))
    truth = counts.sum() / (pictures.sum() ** 2 - np.sum(pictures**2))
    generator = np.random.default_rng(0)
    for _ in range(100):
        chosen = generator.choice(len(rows), 50, replace=False)
        part = rows[chosen], [names[at] for at in chosen]
        table = false_match_table(*part, dataset="x")
        low, high = table_intervals(table, *part)
        row = table.similarity.index(level)
        held.append(low[row] <= truth <= high[row])
        free = wilson(table.false_matches[row], table.pairs)
        naive.append(free[0] <= truth <= free[1])
    assert np.mean(held) > 0.88 > 0.8 > np.mean(naive)


def test_rows_that_saw_nothing_or_all_have_intervals_too():
    rows, names = some_vectors()
    table = false_match_table(rows, names, dataset="x")
    low, high = table_intervals(table, rows, names)
    assert (table.false_matches[0], high[0], low[-1]) == (table.pairs, 1.0, 0.0)
    assert low[0] < 1 and 3 / table.pairs < high[-1] < 0.05
    # Two people only: nobody can be left out, so the pairs count as one.
    few = np.array([(1, 0), (0.9, 0.4), (0, 1)], np.float32)
    pair = false_match_table(few, ["a", "a", "b"], dataset="x")
    low, high = table_intervals(pair, few, ["a", "a", "b"])
    assert (low[-1], high[-1]) == wilson(0, 1)


def test_vectors_that_do_not_belong_to_the_table_are_refused():
    rows, names = some_vectors()
    table = false_match_table(rows, names, dataset="x")
    with pytest.raises(InputError, match="The table of x was made of .* Pass the vectors that"):
        table_intervals(table, rows[1:], names[1:])
    for call in (
        lambda: false_matches_by_person(rows, names[1:], np.zeros(1)),
        lambda: held_out_check(rows, names[1:], similarity_at),
        lambda: held_out_check(rows[0], names[:6], similarity_at),
    ):
        with pytest.raises(InputError, match="one name per vector; got .* names for vectors of"):
            call()
