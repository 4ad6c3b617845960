"""New faces come to clusters that are there: names, rulings and labels stay."""

import numpy as np
import pytest

from facenet.errors import InputError
from facenet.gallery.cluster.incremental import add_faces
from facenet.gallery.cluster.methods import ClusterSettings, cluster_faces
from facenet.gallery.cluster.scores import score_clusters
from facenet.vectors import unit

LEVEL = 0.6


def crowd(seed, count=120, people=12, noise=0.5, width=24):
    random = np.random.default_rng(seed)
    person = random.integers(0, people, count)
    centres = unit(random.standard_normal((people, width)))
    change = random.standard_normal((count, width)) / np.sqrt(width)
    return unit(centres[person] + noise * change), person


def plane(*degrees):
    """Unit vectors in a plane, at angles."""
    angle = np.radians(degrees)
    return unit(np.column_stack([np.cos(angle), np.sin(angle)]))


@pytest.mark.parametrize("templates", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_clusters_are_never_parted_and_named_ones_never_come_together(seed, templates):
    vectors, _ = crowd(seed, noise=0.9)
    random = np.random.default_rng([seed, 1])
    known = random.integers(0, 30, 70)
    named = set(random.choice(30, 10).tolist())
    apart = [
        (int(a), int(b))
        for a, b in random.integers(0, 120, (10, 2))
        if not (a == b or (max(a, b) < 70 and known[a] == known[b]))
    ]
    found = add_faces(vectors, known, LEVEL, named=named, apart=apart, templates=templates)
    for cluster in set(known.tolist()):
        assert len(set(found[:70][known == cluster].tolist())) == 1
    for one in named & set(known.tolist()):
        assert found[:70][known == one][0] == one
    assert all(found[a] != found[b] for a, b in apart)
    new = set(found.tolist()) - set(known.tolist())
    assert new == set(range(known.max() + 1, known.max() + 1 + len(new)))


@pytest.mark.parametrize("templates", [True, False])
def test_nothing_before_is_the_clustering_itself_and_nothing_new_changes_nothing(templates):
    vectors, _ = crowd(4)
    method = "template" if templates else "average"
    whole = cluster_faces(vectors, ClusterSettings(method, LEVEL)).labels
    found = add_faces(vectors, np.zeros(0, np.int64), LEVEL, templates=templates)
    assert np.array_equal(found[:, None] == found, whole[:, None] == whole)
    assert add_faces(vectors, whole, LEVEL, templates=templates).tolist() == whole.tolist()


def test_two_halves_are_close_to_all_at_once():
    vectors, person = crowd(5, count=600, people=60, noise=0.7)
    whole = cluster_faces(vectors, ClusterSettings("template", LEVEL)).labels
    half = cluster_faces(vectors[:300], ClusterSettings("template", LEVEL)).labels
    found = add_faces(vectors, half, LEVEL)
    assert score_clusters(found, whole).bcubed.f > 0.99
    difference = score_clusters(found, person).bcubed.f - score_clusters(whole, person).bcubed.f
    assert abs(difference) < 0.01


def test_a_face_that_was_left_alone_comes_to_its_person_later():
    """At 0, 40 and 80 degrees: the first two are too far apart until one is seen between them."""
    level = float(np.cos(np.radians(30)))
    alone = cluster_faces(plane(0, 40), ClusterSettings("template", level)).labels
    assert alone.tolist() == [0, 1]
    assert add_faces(plane(0, 40, 20), alone, level).tolist() == [0, 0, 0]
    assert add_faces(plane(0, 40, 20), alone, level, named=[1]).tolist() == [1, 1, 1]
    assert sorted(add_faces(plane(0, 40, 20), alone, level, named=[0, 1]).tolist()) in (
        [0, 0, 1],
        [0, 1, 1],
    )


def test_rulings_send_a_face_elsewhere():
    level = float(np.cos(np.radians(30)))
    known = np.array([0, 1])
    at = plane(0, 50, 10)
    assert add_faces(at, known, level, named=[0, 1]).tolist() == [0, 1, 0]
    assert add_faces(at, known, level, named=[0, 1], apart=[(0, 2)]).tolist() == [0, 1, 2]
    assert add_faces(at, known, level, named=[0, 1], together=[(1, 2)]).tolist() == [0, 1, 1]


def test_what_contradicts_the_clusters_is_refused():
    with pytest.raises(InputError, match="faces 0 and 1 are said to be one person and two"):
        add_faces(plane(0, 1), np.array([3, 3]), LEVEL, apart=[(0, 1)])
    with pytest.raises(InputError, match="as numbers from 0; got the shape .1,. and a lowest one"):
        add_faces(plane(0, 1), np.array([-1]), LEVEL)
    with pytest.raises(InputError, match="for the first of 2 faces"):
        add_faces(plane(0, 1), np.array([0, 1, 2]), LEVEL)
    assert add_faces(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), LEVEL).tolist() == []
