"""The index: the answer of brute force, at every revision, however it came to be."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from test_scan import hard_rows

from facenet.errors import ContractError, DamagedGalleryError, InputError, SettingsError
from facenet.gallery.index import Hit, Index
from facenet.gallery.memory import MemoryStore
from facenet.gallery.records import EnrolledFace, Person, Setting, Space, VectorBlock
from facenet.gallery.rescore import exact_similarity
from facenet.gallery.snapshot import snapshot_path
from facenet.gallery.sqlite import SqliteStore
from facenet.products import NumpyProducts
from facenet.vectors import template, unit

CONTRACT = "toy:1"


def enrolled(rows, people, store=None):
    """A store where face i + 1 has row i and belongs to people[i]."""
    store = store or MemoryStore()
    with store.write() as draft:
        draft.put(Setting("id", "a gallery"))
        draft.put(Space(CONTRACT, "toy", rows.shape[1], "active", 1.0))
        for person in dict.fromkeys(people):
            draft.put(Person(person, "Somebody", 1.0))
        for face, person in enumerate(people, 1):
            draft.put(EnrolledFace(face, person, 1.0))
        draft.put_vectors(CONTRACT, dict(enumerate(rows, 1)))
    return store


def brute_force(store, queries, k, among=None, pooled=False):
    """Every vector of the store with every query, one by one, in fp64 and rounded once."""
    with store.read() as view:
        block = view.vectors(CONTRACT)
    faces: dict[str, list[int]] = {}
    for place, person in enumerate(block.people):
        if among is None or person in among:
            faces.setdefault(person, []).append(place)
    answers = []
    for query in queries:
        rows = []
        for person, places in faces.items():
            known = [(int(block.ids[place]), block.rows[place]) for place in places]
            if pooled:
                known = [(0, template(np.stack([row for _, row in known])))]
            for face, row in known:
                value = np.float32(np.sum(query.astype(np.float64) * row.astype(np.float64)))
                rows.append((-float(value), person, face))
        best: dict[str, Hit] = {}
        for value, person, face in sorted(rows):
            best.setdefault(person, Hit(person, face, -value))
        answers.append(list(best.values())[:k])
    return answers


def drawn(d, seed, n=600, people=150):
    rng = np.random.default_rng(seed)
    rows = hard_rows(n, d, seed)
    names = [f"p{number:03d}" for number in rng.integers(0, people, n)]
    near = unit(rows[rng.integers(0, n, 12)] + 0.2 * unit(rng.standard_normal((12, d))))
    queries = np.concatenate([rows[[0, 1, n // 8, n // 5, n // 4, n // 3]], near])
    return rows, names, queries


@pytest.mark.parametrize("products", [None, NumpyProducts()], ids=["fastest", "numpy"])
@pytest.mark.parametrize("d", [1, 3, 128, 192, 512])
def test_the_answer_is_that_of_brute_force(d, products):
    rows, names, queries = drawn(d, d)
    store = enrolled(rows, names)
    index = Index(store, CONTRACT, products=products, threads=2)
    for k in (1, 5, 1000):
        assert index.search(queries, k) == brute_force(store, queries, k)
    assert (len(index), index.people) == (600, len(set(names)))
    assert index.bytes_held > 600 * d


def test_the_answer_from_a_file_is_that_of_brute_force(tmp_path):
    rows, names, queries = drawn(128, 4)
    store = enrolled(rows, names, SqliteStore(tmp_path / "G.db", create=True))
    index = Index(store, CONTRACT)
    assert index.search(queries, 5) == brute_force(store, queries, 5)
    with store.write() as draft:
        draft.delete(Person, names[0])
    assert index.search(queries, 5) == brute_force(store, queries, 5)
    store.close()


def test_a_filter_and_templates():
    rows, names, queries = drawn(96, 3)
    store = enrolled(rows, names)
    index = Index(store, CONTRACT)
    some = [*sorted(set(names))[10:40], "nobody"]
    for among in (None, some, some[:1], []):
        assert index.search(queries, 4, among=among) == brute_force(store, queries, 4, among)
        wanted = brute_force(store, queries, 4, among, pooled=True)
        assert index.search(queries, 4, among=among, template=True) == wanted
    with store.write() as draft:
        draft.delete(EnrolledFace, 1)
        draft.put(EnrolledFace(2, names[50], 2.0))
        draft.put_vectors(CONTRACT, {3: rows[400]})
        draft.delete(Person, names[60])
    wanted = brute_force(store, queries, 4, pooled=True)
    assert index.search(queries, 4, template=True) == wanted
    assert index.search(queries, 4) == brute_force(store, queries, 4)


def test_ties_keep_the_lower_person_then_the_lower_face():
    row = unit(np.ones((1, 64), np.float32))
    store = enrolled(np.repeat(row, 7, axis=0), ["c", "b", "b", "a", "d", "a", "c"])
    index = Index(store, CONTRACT)
    found = index.search(row, 3)[0]
    assert [(hit.person, hit.face) for hit in found] == [("a", 4), ("b", 2), ("c", 1)]
    assert len({hit.similarity for hit in found}) == 1
    tops = index.search(row, 9, template=True)[0]
    assert [(hit.person, hit.face) for hit in tops] == [(name, 0) for name in "abcd"]


def test_a_similarity_does_not_depend_on_its_company():
    rng = np.random.default_rng(0)
    for d in (1, 3, 130, 512, 1000):
        a, b = unit(rng.standard_normal((40, d))), unit(rng.standard_normal((40, d)))
        alone = [exact_similarity(a[i : i + 1], b[i : i + 1])[0] for i in range(40)]
        assert np.array_equal(exact_similarity(a, b), alone)
        by_hand = [np.float32(np.sum(a[i].astype(float) * b[i].astype(float))) for i in range(40)]
        assert np.array_equal(alone, by_hand)


def history(store, rng, rows):
    """One random draft: faces put, moved, given another vector, deleted; people deleted."""
    with store.write() as draft:
        people = [person.id for person in draft.find(Person)]
        faces = [face.id for face in draft.find(EnrolledFace)]
        for _ in range(int(rng.integers(1, 8))):
            what, row = rng.integers(0, 6), rows[rng.integers(0, len(rows))]
            if what <= 1 or not faces:
                person = f"p{rng.integers(0, 30):02d}"
                draft.put(Person(person, "Somebody", 1.0))
                face = draft.next_id(EnrolledFace)
                draft.put(EnrolledFace(face, person, 1.0 + face))
                people, faces = [*people, person], [*faces, face]
                if what:
                    draft.put_vectors(CONTRACT, {face: row})
            elif what == 2:
                draft.put_vectors(CONTRACT, {int(rng.choice(faces)): row})
            elif what == 3:
                draft.put(EnrolledFace(int(rng.choice(faces)), str(rng.choice(people)), 2.0))
            elif what == 4:
                draft.delete(EnrolledFace, gone := int(rng.choice(faces)))
                faces.remove(gone)
            elif rng.random() < 0.2:
                draft.delete(Person, str(rng.choice(people)))
                people = [person.id for person in draft.find(Person)]
                faces = [face.id for face in draft.find(EnrolledFace)]


@pytest.mark.parametrize("seed", range(6))
def test_live_rebuilt_and_loaded_indexes_are_one(tmp_path, seed):
    rng, rows = np.random.default_rng(seed), hard_rows(300, 48, seed)
    place = snapshot_path(tmp_path / "G.db", CONTRACT)
    store = enrolled(rows[:20], [f"p{number:02d}" for number in range(20)])
    live = Index(store, CONTRACT, snapshot=place)
    queries = rows[[0, 1, 35, 62, 80, 120]]
    for step in range(25):
        history(store, rng, rows)
        if step % 7 == 3:
            live.save()
        if step % 10 == 9:  # the space is given up and filled again
            with store.write() as draft:
                faces = [face.id for face in draft.find(EnrolledFace)]
                draft.delete(Space, CONTRACT)
                draft.put(Space(CONTRACT, "toy", 48, "active", 2.0 + step))
                draft.put_vectors(CONTRACT, {face: rows[face % 300] for face in faces[::2]})
        loaded = Index(store, CONTRACT, snapshot=place)
        for pooled in (False, True):
            wanted = brute_force(store, queries, 6, pooled=pooled)
            for index in (live, Index(store, CONTRACT), loaded):
                assert index.search(queries, 6, template=pooled) == wanted
        assert len(live) == len(loaded)
        assert live.people == loaded.people


def test_a_space_of_another_size_in_place_of_the_old_one():
    rows = hard_rows(20, 6, 0)
    store = enrolled(rows, ["a", "b"] * 10)
    index = Index(store, CONTRACT)
    index.search(rows[:2], template=True)
    wider = hard_rows(20, 9, 1)
    with store.write() as draft:
        draft.delete(Space, CONTRACT)
        draft.put(Space(CONTRACT, "toy", 9, "active", 1.0))
        draft.put_vectors(CONTRACT, {face: wider[face] for face in range(3, 12)})
    for pooled in (False, True):
        wanted = brute_force(store, wider[:3], 5, pooled=pooled)
        assert index.search(wider[:3], template=pooled) == wanted


class Meddling(NumpyProducts):
    """Products during which another program writes to the gallery."""

    def __init__(self):
        self.plan = []

    def multiply(self, rows, queries, out):
        while self.plan:
            self.plan.pop()()
        super().multiply(rows, queries, out)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_search_sees_one_revision_from_beginning_to_end(tmp_path, kind):
    rows = unit(np.eye(4, 8, dtype=np.float32) + 0.1)
    empty = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "G.db", create=True)
    store = enrolled(rows, ["a", "b", "c", "d"], empty)
    products = Meddling()
    index = Index(store, CONTRACT, products=products)

    def delete():
        with store.write() as draft:
            draft.delete(Person, "a")

    products.plan = [delete]
    before = brute_force(store, rows[:1], 4)
    assert index.search(rows[:1], 4) == before
    assert [hit.person for hit in index.search(rows[:1], 4)[0]] == ["b", "c", "d"]
    store.close()


def test_an_empty_space_has_no_answer():
    index = Index(enrolled(np.zeros((0, 5), np.float32), []), CONTRACT)
    query = unit(np.ones((2, 5)))
    assert index.search(query) == [[], []]
    assert index.search(query, template=True, among=["a"]) == [[], []]
    assert index.search(np.zeros((0, 5), np.float32)) == []
    assert (len(index), index.people, index.refresh()) == (0, 0, 1)


def test_bad_questions_are_refused():
    rows = unit(np.eye(3, dtype=np.float32))
    index = Index(enrolled(rows, ["a", "b", "c"]), CONTRACT)
    for bad in (0, -3, 1.5, "x", None, []):
        with pytest.raises(SettingsError, match=r"k should be 1 or more people.*; got ..?.?"):
            index.search(rows, bad)
    assert [len(hits) for hits in index.search(rows, 10**30)] == [3, 3, 3]
    for bad, kind in (
        (rows[:, :2], ContractError),
        (rows * np.nan, InputError),
        (rows * 0, InputError),
    ):
        with pytest.raises(kind, match="Vectors"):
            index.search(bad)
    with pytest.raises(ContractError, match="should hold vectors of another; it has none"):
        Index(enrolled(rows, ["a", "b", "c"]), "another").search(rows)


class Forgetful(MemoryStore):
    """A store that lists vectors and then does not have the first of them."""

    @contextmanager
    def read(self):
        with super().read() as view:
            whole = view.vectors

            def vectors(contract, **which):
                block = whole(contract, **which)
                if "ids" not in which:
                    return block
                return VectorBlock(block.ids[1:], block.people[1:], block.rows[1:])

            view.vectors = vectors
            yield view


def test_a_store_that_lost_a_vector_is_not_answered_from():
    rows = unit(np.eye(3, dtype=np.float32))
    index = Index(enrolled(rows, ["a", "b", "c"], Forgetful()), CONTRACT)
    with pytest.raises(DamagedGalleryError, match="faces that it listed; 2 were found"):
        index.search(rows, 3)


def test_how_many_vectors_some_people_have_is_counted():
    rows = unit(np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32))
    store = enrolled(rows, ["a", "b", "a", "c", "a", "b"])
    index = Index(store, CONTRACT)
    with store.write() as draft:
        draft.put(Person("empty", "Nobody", 1.0))
        draft.delete(EnrolledFace, 5)
    for among, faces, people in (
        (["a"], 2, 1),
        (["a", "b", "x", "empty"], 4, 2),
        (["empty"], 0, 0),
        ([], 0, 0),
        (["a", "b", "c"], 5, 3),
    ):
        assert index.count(frozenset(among)) == faces
        assert index.count(among, template=True) == people
