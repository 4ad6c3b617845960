"""The graph of similar faces against the whole matrix, also where it is cut and built in parts."""

import numpy as np
import pytest

from facenet.errors import SettingsError
from facenet.gallery.cluster.neighbours import neighbour_graph
from facenet.vectors import unit


def rows(count, width=8, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((count, width)))


def pairs(graph):
    return {
        (int(a), int(b)): float(s)
        for a, b, s in zip(graph.rows, graph.columns, graph.similarity, strict=True)
    }


@pytest.mark.parametrize("threshold", [-0.99, 0.0, 0.5, 0.9, 1.0])
def test_every_pair_that_reaches_the_threshold_is_there_from_both_sides(threshold):
    vectors = rows(60)
    found = pairs(neighbour_graph(vectors, threshold, most=1000))
    expected = {
        (i, j)
        for i in range(60)
        for j in range(60)
        if i != j and float(vectors[i] @ vectors[j]) >= threshold
    }
    assert set(found) == expected
    for (i, j), similarity in found.items():
        assert similarity == pytest.approx(float(vectors[i] @ vectors[j]), abs=1e-6)
        assert similarity == found[j, i]


def test_columns_rise_inside_a_row_and_above_is_a_new_graph():
    vectors = rows(80)
    graph = neighbour_graph(vectors, 0.1)
    for row in range(80):
        columns = graph.columns[graph.starts[row] : graph.starts[row + 1]]
        assert np.all(np.diff(columns) > 0)
    assert pairs(graph.above(0.6)) == pairs(neighbour_graph(vectors, 0.6))
    assert graph.sentence() == ""


def test_a_row_with_too_many_neighbours_keeps_its_most_similar_ones():
    vectors = rows(50, seed=1)
    graph = neighbour_graph(vectors, -0.2, most=3)
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(scores, -2)
    expected = set()
    for i in range(50):
        best = [j for j in np.argsort(-scores[i])[:3] if scores[i, j] >= -0.2]
        expected |= {(i, int(j)) for j in best} | {(int(j), i) for j in best}
    assert set(pairs(graph)) == expected
    assert graph.capped == sum((scores[i] >= -0.2).sum() > 3 for i in range(50))
    assert graph.sentence().startswith(f"{graph.capped} of 50 faces have more similar faces")


def test_a_graph_of_many_blocks_that_is_cut_on_the_way_is_the_one_cut_once():
    """4,200 rows are two blocks, and their 1.5 million pairs more than are held at a time."""
    vectors = rows(4200, seed=2)
    graph = neighbour_graph(vectors, 0.35, most=2)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    assert (scores >= 0.35).sum() / 2 > 1 << 20
    best = np.argpartition(-scores, 2, axis=1)[:, :2]
    keys = {(min(i, int(j)), max(i, int(j))) for i in range(4200) for j in best[i]}
    found = {(a, b) for a, b in pairs(graph) if a < b}
    assert len(found ^ keys) <= 4  # similarities that differ in the last bit between two products
    assert graph.capped == (np.sum(scores >= 0.35, axis=1) > 2).sum()


@pytest.mark.parametrize("since", [0, 1, 30, 69, 70])
def test_only_pairs_with_a_new_row_are_there_since_a_row(since):
    vectors = rows(70)
    whole = pairs(neighbour_graph(vectors, 0.2, most=1000))
    part = pairs(neighbour_graph(vectors, 0.2, most=1000, since=since))
    assert set(part) == {(i, j) for i, j in whole if max(i, j) >= since}


def test_few_rows():
    for count in (0, 1):
        graph = neighbour_graph(rows(2)[:count], 0.5)
        assert (len(graph), len(graph.columns)) == (count, 0)


def test_numbers_that_cannot_be():
    with pytest.raises(SettingsError, match="since from 0 to 5; got 0 and 0"):
        neighbour_graph(rows(5), 0.5, most=0)
    with pytest.raises(SettingsError, match="got 1 and 6"):
        neighbour_graph(rows(5), 0.5, most=1, since=6)
    with pytest.raises(SettingsError, match="above -1"):
        neighbour_graph(rows(5), -1.0)
