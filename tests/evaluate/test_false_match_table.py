"""The table of false matches against brute force over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from facenet import vectors
from facenet.errors import DataError, InputError
from facenet.evaluate.falsematch import false_match_table, non_mated_tally
from facenet.evaluate.tally import EDGES
from facenet.gallery.calibrate import similarity_at


def people(count, number, seed=0, dimension=6):
    """Vectors of `number` people, alike within a person, and a name for each."""
    generator = np.random.default_rng(seed)
    names = [f"person {n}" for n in generator.integers(0, number, count)]
    centres = {name: generator.normal(size=dimension) for name in sorted(set(names))}
    rows = np.stack([centres[name] + generator.normal(size=dimension) for name in names])
    return rows.astype(np.float32), names


def pair_scores(rows, names):
    """Similarity of each pair of different people, by the definition."""
    unit = vectors.unit(rows)
    pairs = combinations(range(len(rows)), 2)
    return [np.float64(unit[i] @ unit[j]) for i, j in pairs if names[i] != names[j]]


def rows_of(embedding, names, **options):
    """Pairs in each row of the table: at its edge or above, and below the next."""
    return -np.diff(np.append(non_mated_tally(embedding, names, **options).grid, 0))


@pytest.mark.parametrize(("count", "dimension"), [(1500, 64), (700, 512)])
def test_counts_are_those_of_float32_products_against_every_edge(count, dimension):
    """Without any histogram: the whole matrix, compared with each edge in float64."""
    rows, names = people(count, 200, seed=7, dimension=dimension)
    unit = vectors.unit(rows)
    names = np.array(names)
    scores = (unit @ unit.T)[np.triu(names[:, None] != names, 1)].astype(np.float64)
    table = false_match_table(rows, list(names), dataset="made up")
    assert table.pairs == len(scores)
    assert len(table.similarity) >= 40
    for threshold, count in zip(table.similarity, table.false_matches, strict=True):
        near = int(np.sum(np.abs(scores - threshold) < 2e-7))  # the order of sums may decide
        assert abs(count - int(np.sum(scores >= threshold))) <= near


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_all_pairs(seed):
    rows, names = people(90, 12, seed)
    scores = np.array(pair_scores(rows, names))
    table = false_match_table(rows, names, dataset="made up")
    assert (table.images, table.people, table.dataset) == (90, len(set(names)), "made up")
    assert table.pairs == len(scores)
    for threshold, count in zip(table.similarity, table.false_matches, strict=True):
        near = int(np.sum(np.abs(scores - threshold) < 1e-6))  # the order of sums may decide
        assert abs(count - int(np.sum(scores >= threshold))) <= near


@pytest.mark.parametrize("block", [7, 32, 89, 90, 91, 5000])
def test_the_size_of_the_blocks_does_not_matter(block):
    rows, names = people(90, 12)
    assert np.array_equal(rows_of(rows, names, block=block), rows_of(rows, names))


def test_counts_of_vectors_without_rounding_agree_with_sorting():
    """Vectors of zeros and ones of equal weight: every product is a multiple of a quarter."""
    generator = np.random.default_rng(9)
    rows = np.zeros((120, 12), np.float32)
    for row in rows:
        row[generator.choice(12, 4, replace=False)] = 1
    names = [f"person {n}" for n in generator.integers(0, 20, len(rows))]
    table = false_match_table(rows, names, dataset="made up")
    scores = np.sort(pair_scores(rows, names))
    for threshold, count in zip(table.similarity, table.false_matches, strict=True):
        assert count == len(scores) - np.searchsorted(scores, threshold, side="left")


def test_the_table_falls_from_all_pairs_to_none():
    rows, names = people(300, 40, seed=5, dimension=24)
    table = false_match_table(rows, names, dataset="made up")
    assert table.false_matches[0] == table.pairs > table.false_matches[1]
    assert table.false_matches[-1] == 0 < table.false_matches[-2]
    assert all(a >= b for a, b in zip(table.false_matches, table.false_matches[1:], strict=False))
    steps = np.diff(table.similarity)
    assert steps == pytest.approx(np.full(len(steps), 0.01))
    assert all(value == round(value, 2) for value in table.similarity)


def two_vectors(cosine):
    """Two unit vectors in float32 whose product is float32(cosine), found by trying."""
    first = np.array([1, 0], np.float32)
    return np.stack([first, np.array([cosine, np.sqrt(max(0.0, 1 - cosine**2))], np.float32)])


def one_row(cosine):
    """The row of the histogram in which a pair of this similarity is counted."""
    counts = rows_of(two_vectors(cosine), ["a", "b"])
    assert counts.sum() == 1
    return int(np.argmax(counts))


def test_a_similarity_on_a_step_is_counted_as_the_comparison_decides_it():
    """`float32 >= threshold` is what `verify` asks: some steps are just below as float32."""
    seen = set()
    for step, threshold in enumerate(EDGES):
        rows = vectors.unit(two_vectors(float(threshold)))
        score = float(rows[0] @ rows[1])
        row = one_row(float(threshold))
        assert EDGES[row] <= score
        assert row == len(EDGES) - 1 or score < EDGES[row + 1]
        seen.add(row - step)
    assert seen <= {-1, 0, 1}


@pytest.mark.parametrize("exact", [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75])
def test_a_similarity_exactly_on_a_step_reaches_it(exact):
    """Values that float32 holds exactly, with vectors whose product is exact."""
    other = {0.0: (0, 1)}.get(exact, (exact, np.sqrt(1 - exact**2)))
    rows = np.array([(1, 0), other], np.float32)
    score = float(vectors.unit(rows)[0] @ vectors.unit(rows)[1])
    counts = rows_of(rows, ["a", "b"])
    at_least = int(counts[exact <= EDGES].sum())
    assert at_least == (score >= exact)


def test_identical_vectors_of_two_people_match_everywhere():
    rows = np.ones((2, 3), np.float32)
    table = false_match_table(rows, ["a", "b"], dataset="twins")
    assert table.similarity == (0.99,)
    assert table.false_matches == (1,)


def test_opposite_vectors_match_only_at_the_bottom():
    rows = np.array([[1, 0], [-1, 0]], np.float32)
    table = false_match_table(rows, ["a", "b"], dataset="opposites")
    assert table.similarity[0] == -1
    assert table.false_matches[:2] == (1, 0)


def test_similarities_a_little_below_zero_are_below_zero():
    rows = np.array([[1, 0], [-1e-20, 1]], np.float32)
    counts = rows_of(rows, ["a", "b"])
    assert EDGES[np.argmax(counts)] == -0.01


def test_pictures_of_one_person_are_never_a_false_match():
    rows = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    table = false_match_table(rows, ["a", "a", "b"], dataset="made up")
    assert table.pairs == 2
    assert dict(zip(table.similarity, table.false_matches, strict=True)) == {0.0: 2, 0.01: 0}


def test_a_threshold_from_the_table_lets_through_what_it_says():
    rows, names = people(400, 60, seed=3)
    table = false_match_table(rows, names, dataset="made up")
    scores = np.array(pair_scores(rows, names))
    for rate in (0.3, 0.1, 0.01, 0.001):
        share = np.mean(scores >= similarity_at(table, rate))
        assert share == pytest.approx(rate, rel=0.1, abs=3 / len(scores))


def test_what_cannot_be_counted():
    rows = np.ones((3, 2), np.float32)
    with pytest.raises(DataError, match="two people or more"):
        false_match_table(rows, ["a", "a", "a"], dataset="one")
    with pytest.raises(DataError, match="two people or more"):
        false_match_table(rows[:0], [], dataset="none")
    rows[1] = 0
    with pytest.raises(InputError, match="row 1 is not"):
        false_match_table(rows, ["a", "b", "c"], dataset="zero")
    with pytest.raises(InputError, match="2 names for 3 vectors"):
        false_match_table(rows, ["a", "b"], dataset="short")
