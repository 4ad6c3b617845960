"""The best pairs: beside every possible choice."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from facenet.assignment import best_pairs
from facenet.errors import InputError


def brute(worth):
    """The most that pairs of a table may be worth together, by trying all."""
    table = np.maximum(worth, 0)
    table = table if table.shape[0] <= table.shape[1] else table.T
    rows = range(len(table))
    return max(
        sum(table[row, column] for row, column in zip(rows, choice, strict=True))
        for choice in permutations(range(table.shape[1]), len(table))
    )


@pytest.mark.parametrize("sparse", [0.0, 0.6])
def test_no_other_choice_is_worth_more(sparse):
    random = np.random.default_rng(3)
    for _ in range(300):
        worth = np.round(random.normal(0.5, 1, random.integers(1, 6, 2)), 1)
        worth[random.random(worth.shape) < sparse] = -np.inf
        rows, columns = best_pairs(worth)
        assert worth[rows, columns].sum() == pytest.approx(brute(worth), abs=1e-9)
        assert (worth[rows, columns] > 0).all()
        assert len(set(rows.tolist())) == len(rows) == len(set(columns.tolist()))
        assert rows.tolist() == sorted(rows.tolist())


def test_a_large_table_of_a_known_answer():
    """Prices make every other choice worth less: duality, not another solver."""
    random = np.random.default_rng(1)
    count = 120
    answer = random.permutation(count)
    loss = random.random((count, count))
    loss[np.arange(count), answer] = 0
    worth = random.random(count)[:, None] + random.random(count) - loss + 1
    rows, columns = best_pairs(worth)
    assert rows.tolist() == list(range(count)) and columns.tolist() == answer.tolist()


def test_long_chains_are_one_part():
    """Each row fits two columns: only the whole chain together is right."""
    count = 60
    worth = np.zeros((count, count))
    worth[np.arange(count), np.arange(count)] = 1.0
    worth[np.arange(1, count), np.arange(count - 1)] = 1.5
    rows, columns = best_pairs(worth[::-1])
    assert len(rows) == count - 1
    assert worth[::-1][rows, columns].sum() == pytest.approx(1.5 * (count - 1))


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0), (3, 2)])
def test_no_pair_is_made_of_nothing(shape):
    rows, columns = best_pairs(np.zeros(shape))
    assert rows.shape == columns.shape == (0,)


@pytest.mark.parametrize("worth", [np.array([[np.nan]]), np.array([[np.inf]]), np.zeros(3)])
def test_what_is_no_table_is_refused(worth):
    with pytest.raises(InputError, match="should be \\(n, m\\) numbers below infinity"):
        best_pairs(worth)
