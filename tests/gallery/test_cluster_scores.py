"""Pairwise and B-cubed scores, counted again in loops."""

from itertools import combinations

import numpy as np
import pytest

from facenet.errors import InputError
from facenet.gallery.cluster.scores import score_clusters


def in_loops(labels, person):
    count = len(labels)
    both = [
        (labels[i] == labels[j], person[i] == person[j]) for i, j in combinations(range(count), 2)
    ]
    hits = sum(a and b for a, b in both)
    joined, mated = sum(a for a, _ in both), sum(b for _, b in both)
    pairwise = (hits / joined if joined else 1.0, hits / mated if mated else 1.0)
    precision, recall = 0.0, 0.0
    for i in range(count):
        cluster = {j for j in range(count) if labels[j] == labels[i]}
        people = {j for j in range(count) if person[j] == person[i]}
        precision += len(cluster & people) / len(cluster) / count
        recall += len(cluster & people) / len(people) / count
    return pairwise, (precision, recall)


@pytest.mark.parametrize("seed", range(30))
def test_scores_are_those_counted_in_loops(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 40))
    labels, person = random.integers(0, 8, count) * 7, random.integers(0, 6, count) - 3
    found = score_clusters(labels, person)
    pairwise, bcubed = in_loops(labels, person)
    for score, (precision, recall) in ((found.pairwise, pairwise), (found.bcubed, bcubed)):
        assert score.precision == pytest.approx(precision)
        assert score.recall == pytest.approx(recall)
        if precision + recall:
            assert score.f == pytest.approx(2 * precision * recall / (precision + recall))
        else:
            assert score.f == 0
    assert found.clusters == len(set(labels.tolist()))
    groups = {one: set(person[labels == one].tolist()) for one in labels.tolist()}
    assert found.mixed == sum(len(people) > 1 for people in groups.values())
    parts = {one: set(labels[person == one].tolist()) for one in person.tolist()}
    assert found.split == sum(len(clusters) > 1 for clusters in parts.values())


def test_right_clusters_have_ones_and_one_heap_has_all_recall():
    person = np.array([0, 0, 1, 1, 1, 2])
    right = score_clusters(person + 5, person)
    assert (right.pairwise.f, right.bcubed.f, right.mixed, right.split) == (1, 1, 0, 0)
    heap = score_clusters(np.zeros(6, int), person)
    assert (heap.pairwise.recall, heap.bcubed.recall) == (1, 1)
    assert heap.pairwise.precision == pytest.approx(4 / 15)
    assert heap.bcubed.precision == pytest.approx((4 + 9 + 1) / 36)
    assert heap.to_dict()["clusters"] == 1


def test_what_cannot_be_scored():
    for labels, person in (([], []), ([0], [0, 1]), ([[0]], [[0]])):
        with pytest.raises(InputError, match="one face or more; got the shapes"):
            score_clusters(np.array(labels), np.array(person))
