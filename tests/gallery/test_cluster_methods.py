"""Clusters, derived again in loops, by SciPy and by scikit-learn; constraints on random cases."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import DBSCAN

from facenet.errors import InputError, SettingsError
from facenet.gallery.cluster.constraints import apart_in_photos, link
from facenet.gallery.cluster.density import dbscan, hdbscan, similarity_of
from facenet.gallery.cluster.labels import by_size, joined
from facenet.gallery.cluster.linkage import REACH, average_link, template_link
from facenet.gallery.cluster.methods import (
    DEFAULT_METHOD,
    FACENET,
    METHODS,
    ClusterSettings,
    cluster_faces,
)
from facenet.gallery.cluster.neighbours import neighbour_graph
from facenet.gallery.cluster.whispers import chinese_whispers
from facenet.vectors import unit

LEVEL = 0.6


def crowd(seed, most=40, people=5, noise=0.55, width=8):
    """Unit vectors of a few people, with who each is."""
    random = np.random.default_rng(seed)
    person = random.integers(0, people, random.integers(2, most))
    centres = random.standard_normal((people, width))
    rows = centres[person] / np.linalg.norm(centres[person], axis=1)[:, None]
    return unit(rows + noise * random.standard_normal(rows.shape) / np.sqrt(width) * 2), person


def links_for(seed, count):
    """A few random must-links and cannot-links that do not contradict each other."""
    random = np.random.default_rng([seed, 1])
    together = random.integers(0, count, (random.integers(0, 4), 2))
    unit_of = link(count, together=together).unit
    apart = random.integers(0, count, (random.integers(0, 12), 2))
    apart = apart[unit_of[apart[:, 0]] != unit_of[apart[:, 1]]]
    return together, apart


def same(a, b):
    """Whether two labellings are one partition."""
    return np.array_equal(a[:, None] == a, b[:, None] == b)


def greedy(vectors, threshold, together=(), apart=()):
    """Average link by definition: the most similar two clusters that may, again and again."""
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    clusters = [{row} for row in range(len(vectors))]
    for a, b in together:
        first = next(c for c in clusters if a in c)
        second = next(c for c in clusters if b in c)
        if first is not second:
            clusters.remove(second)
            first |= second
    foes = {frozenset(pair) for pair in np.asarray(apart).tolist()}
    while True:
        best, pair = threshold, None
        for i, one in enumerate(clusters):
            for other in clusters[i + 1 :]:
                average = np.mean([scores[a, b] for a in one for b in other])
                if average >= best and not any(
                    frozenset((a, b)) in foes for a in one for b in other
                ):
                    best, pair = average, (one, other)
        if pair is None:
            break
        clusters.remove(pair[1])
        pair[0].update(pair[1])
    label = np.zeros(len(vectors), int)
    for number, members in enumerate(clusters):
        label[list(members)] = number
    return label


def test_labels_are_numbered_by_size_and_then_by_who_comes_first():
    assert by_size(np.array([7, 3, 3, 9, 7, 9, 9])).tolist() == [1, 2, 2, 0, 1, 0, 0]
    assert by_size(np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_joined_nodes_are_those_a_walk_reaches(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 60))
    edges = random.integers(0, count, (int(random.integers(0, count + 1)), 2))
    near = {node: set() for node in range(count)}
    for a, b in edges.tolist():
        near[a].add(b)
        near[b].add(a)
    expected = np.full(count, -1)
    for start in range(count):
        waiting = [start] if expected[start] < 0 else []
        while waiting:
            node = waiting.pop()
            expected[node] = start
            waiting += [other for other in near[node] if expected[other] < 0]
    assert joined(count, edges[:, 0], edges[:, 1]).tolist() == expected.tolist()


def test_a_long_chain_is_joined():
    order = np.random.default_rng(0).permutation(5000)
    assert np.all(joined(5000, order[1:], order[:-1]) == 0)


@pytest.mark.parametrize("seed", range(40))
def test_average_link_is_that_of_scipy(seed):
    vectors, _ = crowd(seed)
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    tree = linkage(1 - scores[np.triu_indices(len(vectors), 1)], "average")
    expected = by_size(fcluster(tree, 1 - LEVEL, "distance"))
    found = average_link(neighbour_graph(vectors, LEVEL), vectors, LEVEL)
    assert found.tolist() == expected.tolist()
    lower = average_link(neighbour_graph(vectors, 0.2), vectors, LEVEL)
    assert lower.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(40))
def test_average_link_with_constraints_is_the_greedy_order_without_what_they_forbid(seed):
    vectors, _ = crowd(seed, most=25)
    together, apart = links_for(seed, len(vectors))
    links = link(len(vectors), together=together, apart=apart)
    found = average_link(neighbour_graph(vectors, LEVEL), vectors, LEVEL, links)
    assert same(found, greedy(vectors, LEVEL, together, apart))


@pytest.mark.parametrize("seed", range(40))
def test_template_link_ends_where_no_two_near_templates_are_left(seed):
    vectors, _ = crowd(seed)
    together, apart = links_for(seed, len(vectors))
    graph = neighbour_graph(vectors, LEVEL - REACH)
    links = link(len(vectors), together=together, apart=apart)
    found = template_link(graph, vectors, LEVEL, links)
    templates = [unit(vectors[found == one].sum(axis=0)) for one in range(found.max() + 1)]
    for a, b in zip(found[graph.rows], found[graph.columns], strict=True):
        told = any({a, b} == {found[i], found[j]} for i, j in apart.tolist())
        assert a == b or told or templates[a] @ templates[b] < LEVEL + 1e-6


def test_an_odd_photo_comes_to_the_template_but_not_to_the_average():
    """Four photos around a direction and a fifth as far from each of them: 0.58 on average, 0.65
    from the template of the four."""
    spread = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)]) * np.sqrt(0.25 / 2)
    four = np.column_stack([np.full(4, np.sqrt(0.8)), spread[:, :1] * 0 + spread * np.sqrt(0.8)])
    rows = unit(np.column_stack([four, np.zeros(4)]))
    odd = np.array([0.65, 0, 0, np.sqrt(1 - 0.65**2)])
    vectors = unit(np.vstack([rows, odd]))
    average = float(np.mean(vectors[:4] @ vectors[4]))
    assert average < LEVEL < 0.65
    graph = neighbour_graph(vectors, LEVEL - REACH)
    assert template_link(graph, vectors, LEVEL).tolist() == [0, 0, 0, 0, 0]
    assert average_link(graph, vectors, LEVEL).tolist() == [0, 0, 0, 0, 1]


def test_whispers_are_those_of_a_loop_with_the_same_seed():
    for seed in range(15):
        vectors, _ = crowd(seed)
        scores = neighbour_graph(vectors, LEVEL)
        near = [
            {
                int(scores.columns[e]): float(scores.similarity[e])
                for e in range(scores.starts[i], scores.starts[i + 1])
            }
            for i in range(len(vectors))
        ]
        label = list(range(len(vectors)))
        random = np.random.default_rng(seed)
        heard = np.array([i for i in range(len(vectors)) if near[i]], int)
        for _ in range(20):
            for i in random.permutation(heard).tolist():
                votes = {}
                for other, weight in near[i].items():
                    votes[label[other]] = votes.get(label[other], 0.0) + weight
                label[i] = max(sorted(votes), key=votes.get)
        found = chinese_whispers(scores, seed=seed)
        assert same(found, np.array(label))


def test_whispers_of_a_seed_are_the_same_and_few_rounds_are_enough():
    vectors, person = crowd(3, most=400, noise=0.2, width=32)
    graph = neighbour_graph(vectors, LEVEL)
    first, again = (chinese_whispers(graph, seed=5) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert same(first, person)
    assert same(chinese_whispers(graph, seed=6, rounds=3), person)


@pytest.mark.parametrize("samples", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(10))
def test_dbscan_is_that_of_scikit_learn(seed, samples):
    """Cores are parted alike and noise is the same; faces at a border may go to either side."""
    vectors, _ = crowd(seed, noise=0.7)
    distance = np.sqrt(2 - 2 * LEVEL)
    peer = DBSCAN(eps=distance, min_samples=samples).fit(vectors.astype(np.float64))
    found = dbscan(neighbour_graph(vectors, LEVEL), samples=samples)
    cores = peer.core_sample_indices_
    assert same(found[cores], peer.labels_[cores])
    for row in np.flatnonzero(peer.labels_ < 0):
        assert np.sum(found == found[row]) == 1
    for row in np.setdiff1d(np.flatnonzero(peer.labels_ >= 0), cores):
        nearest = cores[np.argmax(vectors[cores] @ vectors[row])]
        assert found[row] == found[nearest]


def test_facenets_settings_are_those_of_its_scripts():
    assert similarity_of(1.0) == 0.5
    vectors, _ = crowd(1)
    peer = DBSCAN(eps=1.0, min_samples=1).fit(vectors.astype(np.float64)).labels_
    assert same(cluster_faces(vectors, ClusterSettings("facenet-dbscan")).labels, peer)
    settings = ClusterSettings("facenet-whispers", 0.9)
    assert (settings.threshold, settings.rounds, settings.family) == (0.55, 20, "whispers")
    own = chinese_whispers(neighbour_graph(vectors, 0.55), rounds=20)
    assert cluster_faces(vectors, settings).labels.tolist() == own.tolist()


def test_hdbscan_finds_people_and_leaves_no_noise():
    vectors, person = crowd(3, most=60, noise=0.15, width=32)
    lonely = unit(np.random.default_rng(9).standard_normal((2, 32)))
    found = hdbscan(np.vstack([vectors, lonely]))
    assert same(found[: len(person)], person)
    assert found.min() == 0
    with pytest.raises(SettingsError, match="up to 20,000 faces; got 20,001"):
        hdbscan(np.tile(unit(np.ones((1, 2))), (20_001, 1)))


@pytest.mark.parametrize("method", ["template", "average", "whispers", "dbscan"])
@pytest.mark.parametrize("seed", range(40))
def test_no_method_breaks_a_constraint(method, seed):
    vectors, _ = crowd(seed, noise=0.4)
    count = len(vectors)
    together, apart = links_for(seed, count)
    fixed = np.random.default_rng([seed, 2]).integers(0, count, 3)
    links = link(count, together=together, apart=apart, fixed=fixed)
    samples = 1 + seed % 3
    settings = ClusterSettings(method, LEVEL, samples=samples, seed=seed)
    found = cluster_faces(vectors, settings, links).labels
    assert all(found[a] == found[b] for a, b in together)
    assert all(found[a] != found[b] for a, b in apart)
    people = {int(links.unit[row]) for row in fixed}
    assert len({int(found[links.unit == one][0]) for one in people}) == len(people)
    assert sorted(set(found.tolist())) == list(range(found.max() + 1))


def test_constraints_that_hold_anyway_change_nothing():
    vectors, _ = crowd(3, most=60, noise=0.2, width=32)
    for method in ("template", "average", "dbscan"):
        settings = ClusterSettings(method, LEVEL)
        free = cluster_faces(vectors, settings).labels
        a, b = np.flatnonzero(free == 0)[:2], np.flatnonzero(free == 1)[:2]
        links = link(len(vectors), together=[tuple(a)], apart=[(a[0], b[0])], fixed=[a[1], b[1]])
        assert same(cluster_faces(vectors, settings, links).labels, free)


def test_links_that_cannot_be():
    with pytest.raises(InputError, match="faces 0 and 2 are said to be one person and two"):
        link(4, together=[(0, 1), (1, 2)], apart=[(0, 2)])
    with pytest.raises(InputError, match="rows from 0 to 3; got 4"):
        link(4, together=[(0, 4)])
    with pytest.raises(InputError, match="got -1"):
        link(4, fixed=[-1])
    with pytest.raises(SettingsError, match="HDBSCAN knows no rulings"):
        cluster_faces(
            crowd(0)[0], ClusterSettings("hdbscan"), link(len(crowd(0)[0]), apart=[(0, 1)])
        )


def test_faces_of_one_photo_are_apart_unless_they_are_nearly_one_picture():
    vectors = unit(np.array([[1, 0.0], [1, 0.1], [0, 1.0], [1, 0.0], [1, 1.0]]))
    photo = np.array([4, 4, 4, 9, 9])
    pairs = apart_in_photos(vectors, photo, twice_at=0.9)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 2), (1, 2), (3, 4)]
    assert apart_in_photos(vectors, photo, twice_at=0.9, since=3).tolist() == [[3, 4]]
    assert apart_in_photos(vectors, np.arange(5), twice_at=0.9).shape == (0, 2)


@pytest.mark.parametrize("method", [*METHODS, *FACENET])
def test_few_faces_and_equal_faces(method):
    """HDBSCAN alone never puts all that there is into one cluster."""
    settings, heap = ClusterSettings(method), method != "hdbscan"
    one = unit(np.ones((1, 4)))
    assert cluster_faces(one[:0], settings).labels.tolist() == []
    assert cluster_faces(one, settings).labels.tolist() == [0]
    assert cluster_faces(np.vstack([one, -one]), settings).labels.tolist() == [0, 1]
    for count in (2, 300):
        equal = cluster_faces(np.repeat(one, count, axis=0), settings).labels
        assert equal.dtype == np.int64
        assert equal.tolist() == ([0] * count if heap else list(range(count)))


def test_vectors_and_settings_that_cannot_be_used():
    good = unit(np.ones((3, 4)))
    for bad in (np.nan, np.inf, 0, 2):
        rows = good.copy()
        rows[1] = bad
        with pytest.raises(InputError, match="of length one; row 1 is not, and 1 of 3 in all"):
            cluster_faces(rows, ClusterSettings())
    with pytest.raises(InputError, match=r"shape \(n, d\); got \(4,\)"):
        cluster_faces(good[0], ClusterSettings())
    for threshold in (-1, 1.01, np.nan):
        with pytest.raises(SettingsError, match="a cosine above -1 and up to 1"):
            ClusterSettings(threshold=threshold)
    with pytest.raises(SettingsError, match="one of template, average.*got 'kmeans'"):
        ClusterSettings("kmeans")
    for values in ({"samples": 0}, {"rounds": 0}, {"most": 0}, {"seed": -1}):
        with pytest.raises(SettingsError, match="should be 1 or more and seed 0 or more"):
            ClusterSettings(**values)
    with pytest.raises(SettingsError, match="samples should be 1 or more; got 0"):
        dbscan(neighbour_graph(good, 0.5), samples=0)
    assert DEFAULT_METHOD in METHODS
