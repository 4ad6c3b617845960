"""What every store must do. A module with a fixture `store` runs it by importing its tests.

Expected values are written out by hand or come from plain dictionaries, never from a store.
"""

import dataclasses
import threading

import numpy as np
import pytest

from facenet.errors import ContractError, GalleryError, InputError
from facenet.gallery.records import (
    Apart,
    Crop,
    EnrolledFace,
    Entry,
    Person,
    Ruling,
    Setting,
    Space,
)

WIDTH = 8
SPACE = Space("model:1", "tiny", WIDTH, "active", 100.0)
ANNA = Person("a1", "Anna Müller", 1.5, "E-1", {"team": ["blue", 7], "on": True})
BEN = Person("b2", "Ben", 2.5)
OTHER_ANNA = Person("c3", "Anna Müller", 3.5, automatic=True)
FACE = EnrolledFace(
    1, "a1", 4.5, "ab" * 32, "/photos/ä 1.jpg", (1.0, 2.0, 3.5, 4.25), 0.5, {"blur": 0.1}
)
SECOND = EnrolledFace(2, "b2", 5.5)
EVERY_KIND = (
    ANNA,
    BEN,
    OTHER_ANNA,
    SPACE,
    FACE,
    SECOND,
    Crop(1, bytes(range(256))),
    Ruling(1, "b2", False, 6.5),
    Apart("a1", "b2", 7.5),
    Entry(1, 8.5, "rename", ("a1",), {"name": "Anna", "deep": {"x": [1, None, 0.1]}}),
    Setting("gallery", "0f" * 8),
)


def vector(seed):
    """A unit vector of its own for every seed."""
    row = np.random.default_rng(seed).standard_normal(WIDTH)
    return (row / np.linalg.norm(row)).astype(np.float32)


def fill(store):
    """One row of every kind, and vectors of both faces."""
    with store.write() as draft:
        for row in EVERY_KIND:
            draft.put(row)
        draft.put_vectors(SPACE.contract, {1: vector(1), 2: vector(2)})


def test_a_new_store_is_empty(store):
    with store.read() as view:
        assert view.revision == 0
        assert all(view.find(type(row)) == [] for row in EVERY_KIND)
        block = view.vectors("model:1")
        assert (len(block), block.people, block.rows.shape) == (0, (), (0, 0))
        assert view.get(Person, "a1") is None and view.count(Person) == 0


@pytest.mark.parametrize("row", EVERY_KIND, ids=lambda row: f"{row.kind}-{row.key}")
def test_a_row_comes_back_as_it_was_put(store, row):
    fill(store)
    with store.read() as view:
        assert view.get(type(row), row.key) == row
        assert view.revision == 1


def test_rows_are_found_by_their_filters_in_the_order_of_keys(store):
    fill(store)
    with store.read() as view:
        assert view.find(Person) == [ANNA, BEN, OTHER_ANNA]
        assert view.find(Person, name="Anna Müller") == [ANNA, OTHER_ANNA]
        assert view.find(Person, external_id=None) == [BEN, OTHER_ANNA]
        assert view.find(Person, external_id="E-1", name="Ben") == []
        assert view.find(Person, after="a1", limit=1) == [BEN]
        assert view.find(EnrolledFace, after=1) == [SECOND]
        assert view.find(EnrolledFace, photo="ab" * 32, source="/photos/ä 1.jpg") == [FACE]
        assert view.find(EnrolledFace, photo="\udcff") == []
        assert view.find(Ruling, face=1) == view.find(Ruling, person="b2")
        assert view.find(Person, limit=0) == []
        assert view.count(Person, name="Anna Müller") == 2
        assert view.count(EnrolledFace) == 2
        with pytest.raises(InputError, match="can be found by name, external_id; got colour"):
            view.find(Person, colour="red")


def test_keys_that_no_row_can_have_are_not_there(store):
    fill(store)
    with store.read() as view:
        for key in ("\udcff", "1", "", "nobody", None, 2**70, 1.5):
            assert view.get(Person, key) is None
        for key in ("1", 2**70, -1, 0, None):
            assert view.get(EnrolledFace, key) is None
        assert view.get(EnrolledFace, np.int64(1)) == FACE


def test_vectors_come_with_the_people_of_their_faces(store):
    fill(store)
    with store.write() as draft:
        draft.put(dataclasses.replace(FACE, person="c3"))
    with store.read() as view:
        block = view.vectors(SPACE.contract)
        assert block.ids.tolist() == [1, 2] and block.ids.dtype == np.int64
        assert block.people == ("c3", "b2")
        assert block.rows.dtype == np.float32 and block.rows.flags.writeable
        assert np.array_equal(block.rows, [vector(1), vector(2)])
        assert view.vectors(SPACE.contract, after=1).ids.tolist() == [2]
        assert view.vectors(SPACE.contract, limit=1).ids.tolist() == [1]
        chosen = view.vectors(SPACE.contract, ids=np.array([2, 9, 2, 1, 2**62]))
        assert chosen.ids.tolist() == [1, 2]
        assert view.vectors(SPACE.contract, ids=[]).rows.shape == (0, WIDTH)
        assert view.vectors("other").rows.shape == (0, 0)


def test_spaces_are_apart(store):
    fill(store)
    wide = Space("model:2", "wide", 4, "building", 1.0)
    row = np.array([0, 0, 0.6, 0.8], np.float32)
    with store.write() as draft:
        draft.put(wide)
        draft.put_vectors("model:2", {2: row})
    with store.write() as draft:
        draft.put(dataclasses.replace(wide, state="active"))
        draft.put(dataclasses.replace(SPACE, state="retired"))
    with store.read() as view:
        assert np.array_equal(view.vectors("model:2").rows, [row])
        assert view.vectors("model:1").ids.tolist() == [1, 2]
        assert [space.contract for space in view.find(Space, state="active")] == ["model:2"]
    with store.write() as draft:
        assert draft.delete(Space, "model:2")
        draft.put(wide)
    with store.read() as view:
        assert len(view.vectors("model:2")) == 0
        assert len(view.vectors("model:1")) == 2
        assert view.changes(view.revision - 1) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (EnrolledFace(9, "nobody", 1.0), "kind face needs its person; there is nobody"),
        (Crop(9, b"x"), "A crop needs its face; there is no face 9"),
        (Ruling(9, "a1", True, 1.0), "A ruling needs its face; there is no face 9"),
        (Ruling(1, "nobody", True, 1.0), "kind ruling needs its person"),
        (Apart("a1", "nobody", 1.0), "kind apart needs its person"),
        (Person("d4", "Dora", 1.0, "E-1"), "E-1 is that of Anna Müller"),
        (Setting("x", "\udcff"), "should hold texts"),
        (Entry(5, 1.0, "x", (), {"o": object()}), "should hold texts"),
    ],
)
def test_what_is_not_there_is_needed(store, row, message):
    fill(store)
    with store.write() as draft:
        with pytest.raises(InputError, match=message):
            draft.put(row)
        draft.put(Setting("after", "the draft goes on"))
    with store.read() as view:
        assert view.get(type(row), row.key) is None
        assert view.get(Setting, "after") is not None
        assert view.revision == 2


def test_an_external_id_can_be_kept_and_freed(store):
    fill(store)
    with store.write() as draft:
        draft.put(dataclasses.replace(ANNA, name="Anna"))
        draft.put(dataclasses.replace(ANNA, external_id=None))
        draft.put(dataclasses.replace(BEN, external_id="E-1"))
    with store.read() as view:
        assert [person.id for person in view.find(Person, external_id="E-1")] == ["b2"]
        assert [person.id for person in view.find(Person, name="Anna Müller")] == ["a1", "c3"]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({1: np.zeros(WIDTH)}, InputError, "length one; got 0"),
        ({1: np.full(WIDTH, np.nan)}, InputError, "NaN or infinity"),
        ({1: np.full(WIDTH, np.inf)}, InputError, "NaN or infinity"),
        ({1: vector(5), 2: vector(5) * 2}, InputError, "length one; got 2"),
        ({1: vector(5)[:5]}, ContractError, "8 values; got"),
        ({1: vector(5), 2: vector(5)[:5]}, ContractError, "8 values; got"),
        ({1: vector(5), 9: vector(5)}, InputError, "there is no face 9"),
        ({1: vector(5), 2**60: vector(5)}, InputError, "there is no face"),
    ],
)
def test_unfit_vectors_change_nothing(store, rows, error, message):
    fill(store)
    with store.write() as draft:
        with pytest.raises(error, match=message):
            draft.put_vectors(SPACE.contract, rows)
        with pytest.raises(InputError, match="should be a space other"):
            draft.put_vectors("other", {1: vector(5)})
        draft.put_vectors(SPACE.contract, {})
    with store.read() as view:
        assert view.revision == 1
        assert np.array_equal(view.vectors(SPACE.contract).rows, [vector(1), vector(2)])


def test_with_a_person_goes_what_is_theirs(store):
    fill(store)
    with store.write() as draft:
        assert draft.delete(Person, "a1")
        assert not draft.delete(Person, "a1")
        assert not draft.delete(EnrolledFace, 1)
        assert draft.find(EnrolledFace) == [SECOND]
    with store.read() as view:
        assert view.find(Person) == [BEN, OTHER_ANNA]
        assert view.find(Ruling) == view.find(Apart) == view.find(Crop) == []
        assert view.vectors(SPACE.contract).ids.tolist() == [2]
        assert view.find(Space) == [SPACE]


def test_with_a_face_go_its_vector_crop_and_rulings(store):
    fill(store)
    with store.write() as draft:
        assert draft.delete(EnrolledFace, 1)
    with store.read() as view:
        assert view.find(Ruling) == view.find(Crop) == []
        assert view.find(Person) == [ANNA, BEN, OTHER_ANNA]
        assert view.vectors(SPACE.contract, ids=[1, 2]).ids.tolist() == [2]


def test_an_error_in_the_block_undoes_all_and_goes_on(store):
    fill(store)
    with pytest.raises(ZeroDivisionError), store.write() as draft:
        draft.delete(Person, "a1")
        draft.put(Person("z9", "Zoe", 1.0))
        draft.next_id(EnrolledFace)
        _ = 1 / 0
    with store.write() as draft:
        assert draft.revision == 1
        assert draft.find(Person) == [ANNA, BEN, OTHER_ANNA]
        assert draft.next_id(EnrolledFace) == 3


def test_numbers_are_never_given_out_twice(store):
    fill(store)
    with store.write() as draft:
        assert [draft.next_id(EnrolledFace) for _ in range(3)] == [3, 4, 5]
    with store.write() as draft:
        draft.put(EnrolledFace(5, "a1", 1.0))
        draft.delete(EnrolledFace, 5)
        assert draft.next_id(Entry) == 2
    with store.write() as draft:
        assert draft.next_id(EnrolledFace) == 6
        draft.put(EnrolledFace(40, "a1", 1.0))
        assert draft.next_id(EnrolledFace) == 41


def test_the_revision_counts_drafts_that_changed_something(store):
    fill(store)
    with store.write() as draft:
        assert draft.revision == 1
        assert not draft.delete(Person, "nobody")
    with store.write() as draft:
        draft.next_id(EnrolledFace)
    with store.read() as view:
        assert view.revision == 1
    with store.write() as draft:
        draft.put(ANNA)
        draft.put(BEN)
        assert draft.revision == 2
    with store.read() as view:
        assert view.revision == 2


def test_changes_name_the_faces_since_a_revision(store):
    fill(store)
    with store.write() as draft:
        draft.put(EnrolledFace(3, "a1", 1.0))
    with store.write() as draft:
        draft.put_vectors(SPACE.contract, {2: vector(7)})
        draft.delete(EnrolledFace, 3)
        draft.put(EnrolledFace(4, "a1", 1.0))
    with store.write() as draft:
        draft.put(Setting("x", "y"))
    with store.read() as view:

        def since(revision):
            changes = view.changes(revision)
            return changes and (changes.put, changes.gone)

        assert since(0) == ((1, 2, 4), (3,))
        assert since(1) == since(2) == ((2, 4), (3,))
        assert since(3) == since(4) == ((), ())
        assert since(5) is None and since(-1) is None


def test_rows_are_counted_by_a_column(store):
    fill(store)
    with store.write() as draft:
        draft.put(EnrolledFace(3, "b2", 6.5))
        assert draft.tallied(EnrolledFace, "person") == {"a1": 1, "b2": 2}
    with store.read() as view:
        assert view.tallied(EnrolledFace, "person") == {"a1": 1, "b2": 2}
        assert view.tallied(Person, "name") == {"Anna Müller": 2, "Ben": 1}
        assert view.tallied(Person, "external_id") == {"E-1": 1}
        with pytest.raises(InputError, match="can be found by"):
            view.tallied(Person, "created")


def test_stamps_tell_a_face_from_all_it_was_and_their_sum_is_known(store):
    fill(store)
    with store.write() as draft:
        draft.put(EnrolledFace(3, "b2", 6.5))
    changes = (
        lambda draft: draft.put(dataclasses.replace(FACE, person="b2")),
        lambda draft: draft.put_vectors(SPACE.contract, {2: vector(9)}),
        lambda draft: draft.put(dataclasses.replace(FACE, person="c3")),
        lambda draft: draft.delete(EnrolledFace, 2),
    )
    seen = {1: set(), 2: set()}
    for change in (lambda draft: None, *changes):
        with store.write() as draft:
            change(draft)
        with store.read() as view:
            census, block = view.census(SPACE.contract), view.vectors(SPACE.contract)
            bare = view.bare(SPACE.contract)
            assert view.bare(SPACE.contract, [1, 3, 9]) == bare
            assert view.census("another") is None and view.bare("another") == {}
        if census is None:
            assert (block.stamps, bare) == (None, {})
            continue
        stamps = dict(zip(block.ids.tolist(), block.stamps.tolist(), strict=True))
        assert list(bare) == [3]
        assert (census.vectors, census.faces) == (len(stamps), len(stamps) + 1)
        assert (sum(stamps.values()) + sum(bare.values()) - census.total) % 2**64 == 0
        for face, stamp in stamps.items():
            seen[face].add(stamp)
    assert [len(found) for found in seen.values()] in ([3, 2], [0, 0])


def test_a_reader_sees_one_revision(store):
    fill(store)
    with store.read() as before:
        assert before.revision == 1
        with store.write() as draft:
            draft.delete(Person, "a1")
            draft.put_vectors(SPACE.contract, {2: vector(9)})
        assert before.revision == 1
        assert before.get(Person, "a1") == ANNA
        assert before.vectors(SPACE.contract).ids.tolist() == [1, 2]
    with store.read() as after:
        assert after.revision == 2
        assert np.array_equal(after.vectors(SPACE.contract).rows, [vector(9)])


def test_a_draft_shows_what_was_put_and_nobody_else_sees_it(store):
    with store.write() as draft:
        draft.put(ANNA)
        draft.put(SPACE)
        draft.put(FACE)
        draft.put_vectors(SPACE.contract, {1: vector(1)})
        assert draft.find(Person, name="Anna Müller") == [ANNA]
        assert draft.vectors(SPACE.contract).people == ("a1",)
        with store.read() as view:
            assert view.revision == 0 and view.find(Person) == []


def test_what_a_caller_changes_later_is_not_changed_in_the_store(store):
    metadata, row = {"a": [1]}, vector(1)
    with store.write() as draft:
        draft.put(Person("p1", "P", 1.0, None, metadata))
        draft.put(SPACE)
        draft.put(EnrolledFace(1, "p1", 1.0))
        draft.put_vectors(SPACE.contract, {1: row})
        metadata["a"].append(2)
        row[:] = 0
    with store.read() as view:
        found = view.get(Person, "p1")
        assert found is not None and found.metadata == {"a": [1]}
        assert np.array_equal(view.vectors(SPACE.contract).rows, [vector(1)])


def test_views_end_with_their_block(store):
    with store.write() as draft:
        draft.put(ANNA)
        with pytest.raises(GalleryError, match="open in this thread already"), store.write():
            pass
    with store.read() as view:
        pass
    for use in (
        lambda: view.find(Person),
        lambda: view.get(Person, "a1"),
        lambda: draft.put(BEN),
        lambda: draft.delete(Person, "a1"),
    ):
        with pytest.raises(GalleryError, match="has ended"):
            use()
    store.close()
    store.close()
    with pytest.raises(GalleryError, match="was closed"), store.read():
        pass
    with pytest.raises(GalleryError, match="was closed"), store.write():
        pass


def test_threads_write_one_after_the_other(store):
    """Lost updates would leave the number below the sum; a torn view would show two numbers."""
    errors, done = [], threading.Event()

    def add():
        for _ in range(25):
            with store.write() as draft:
                found = draft.get(Setting, "n")
                number = int(found.value) + 1 if found else 1
                draft.put(Setting("n", str(number)))
                draft.put(Setting("m", str(number)))

    def look():
        while not done.is_set():
            with store.read() as view:
                pair = view.get(Setting, "n"), view.get(Setting, "m")
            if pair[0] and pair[0].value != pair[1].value:
                errors.append(pair)

    writers = [threading.Thread(target=add) for _ in range(4)]
    reader = threading.Thread(target=look)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    with store.read() as view:
        assert view.get(Setting, "n") == Setting("n", "100")
        assert view.revision == 100
    assert errors == []
