"""A gallery changes its model: filled beside the old one, switched whole, rolled back whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from facenet.errors import GalleryError, InputError
from facenet.gallery.memory import MemoryStore
from facenet.gallery.records import EnrolledFace, Person, Space
from facenet.gallery.upgrade import (
    BATCH,
    begin,
    drop,
    fill,
    missing,
    roll_back,
    switch,
)
from facenet.types import FloatArray
from facenet.vectors import unit

OLD, NEW = "old@1", "new@2"


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def vector(face: int, width: int) -> FloatArray:
    return unit(np.random.default_rng(face * 100 + width).normal(size=width))


def embed(faces: Sequence[EnrolledFace]) -> list[FloatArray | str]:
    return [vector(face.id, 6) for face in faces]


def enrolled(count: int) -> MemoryStore:
    store = MemoryStore()
    with store.write() as draft:
        draft.put(Space(OLD, "old", 4, "active", 1.0))
        draft.put(Person("a", "Ann", 1.0))
    for _ in range(count):
        enrol(store, OLD, 4)
    return store


def enrol(store: MemoryStore, contract: str, width: int) -> int:
    with store.write() as draft:
        face = draft.next_id(EnrolledFace)
        draft.put(EnrolledFace(face, "a", 1.0))
        draft.put_vectors(contract, {face: vector(face, width)})
    return face


def states(store: MemoryStore) -> dict[str, str]:
    with store.read() as view:
        return {space.contract: space.state for space in view.find(Space)}


def test_a_change_of_model_from_beginning_to_end_and_back() -> None:
    store = enrolled(BATCH + 3)
    begin(store, NEW, "new", 6, "bf16")
    assert states(store) == {OLD: "active", NEW: "building"}
    filled = fill(store, NEW, embed, quiet)
    assert (filled.embedded, filled.already, filled.problems) == (BATCH + 3, 0, {})
    assert states(store)[OLD] == "active"
    assert switch(store, NEW).precision == "bf16"
    assert states(store) == {OLD: "retired", NEW: "active"}
    with store.read() as view:
        block = view.vectors(NEW)
        for face, row in zip(block.ids, block.rows, strict=True):
            np.testing.assert_array_equal(row, vector(int(face), 6))
    assert roll_back(store).contract == OLD
    assert states(store) == {OLD: "active", NEW: "retired"}
    assert roll_back(store).contract == NEW
    drop(store, OLD)
    assert states(store) == {NEW: "active"}


def test_filling_goes_on_where_it_stopped() -> None:
    store = enrolled(2 * BATCH)
    begin(store, NEW, "new", 6, "fp32")
    seen: list[int] = []

    def stopped(faces: Sequence[EnrolledFace]) -> list[FloatArray | str]:
        if seen:
            raise KeyboardInterrupt
        seen.extend(face.id for face in faces)
        return embed(faces)

    with pytest.raises(KeyboardInterrupt):
        fill(store, NEW, stopped, quiet)
    begin(store, NEW, "new", 6, "fp32")
    again = fill(store, NEW, embed, quiet)
    assert (again.embedded, again.already) == (BATCH, BATCH)


def test_a_face_that_cannot_be_embedded_is_told_and_stops_the_switch_but_not_the_rest() -> None:
    store = enrolled(3)
    begin(store, NEW, "new", 6, "fp32")

    def partly(faces: Sequence[EnrolledFace]) -> list[FloatArray | str]:
        return ["the photo is gone" if face.id == 2 else vector(face.id, 6) for face in faces]

    filled = fill(store, NEW, partly, quiet)
    assert (filled.embedded, dict(filled.problems)) == (2, {2: "the photo is gone"})
    with pytest.raises(InputError, match="1 of 3 faces have no vector of new yet"):
        switch(store, NEW)
    assert states(store) == {OLD: "active", NEW: "building"}
    switch(store, NEW, leave=True)
    with store.read() as view:
        assert [face.id for face in missing(view, NEW)] == [2]


def test_faces_enrolled_after_the_change_stand_in_the_way_back() -> None:
    store = enrolled(2)
    begin(store, NEW, "new", 6, "fp32")
    fill(store, NEW, embed, quiet)
    switch(store, NEW)
    enrol(store, NEW, 6)
    with pytest.raises(InputError, match="1 faces have no vector of old"):
        roll_back(store)
    assert states(store) == {OLD: "retired", NEW: "active"}


def test_a_face_deleted_meanwhile_gets_no_vector() -> None:
    store = enrolled(2)
    begin(store, NEW, "new", 6, "fp32")

    def deleting(faces: Sequence[EnrolledFace]) -> list[FloatArray | str]:
        with store.write() as draft:
            draft.delete(EnrolledFace, 1)
        return embed(faces)

    assert fill(store, NEW, deleting, quiet).embedded == 1
    with store.read() as view:
        assert view.vectors(NEW).ids.tolist() == [2]


def test_wrong_steps_are_refused() -> None:
    store = enrolled(1)
    with pytest.raises(InputError, match="nothing to change"):
        begin(store, OLD, "old", 4, "fp32")
    with pytest.raises(InputError, match="no earlier model"):
        roll_back(store)
    with pytest.raises(InputError, match="no space"):
        switch(store, NEW)
    with pytest.raises(InputError, match="old@1 is searched"):
        drop(store, OLD)
    with pytest.raises(InputError, match="not in this gallery"):
        drop(store, "nothing")
    begin(store, NEW, "new", 6, "fp32")
    with pytest.raises(InputError, match="One change of model at a time"):
        begin(store, "third@3", "third", 6, "fp32")

    def dropping(faces: Sequence[EnrolledFace]) -> list[FloatArray | str]:
        drop(store, NEW)
        return embed(faces)

    with pytest.raises(GalleryError, match="dropped while"):
        fill(store, NEW, dropping, quiet)


def test_a_change_that_was_given_up_makes_way_for_another() -> None:
    store = enrolled(1)
    begin(store, NEW, "new", 6, "fp32")
    fill(store, NEW, embed, quiet)
    assert [space.contract for space in drop(store, "new")] == [NEW]
    with store.read() as view:
        assert len(view.vectors(NEW)) == 0
    assert begin(store, "third@3", "third", 6, "fp32").state == "building"


def test_a_face_that_was_left_behind_can_come_later() -> None:
    store = enrolled(2)
    begin(store, NEW, "new", 6, "fp32")

    def one(faces: Sequence[EnrolledFace]) -> list[FloatArray | str]:
        return ["gone" if face.id == 2 else vector(face.id, 6) for face in faces]

    fill(store, NEW, one, quiet)
    switch(store, NEW, leave=True)
    assert begin(store, NEW, "new", 6, "fp32").state == "active"
    assert fill(store, NEW, embed, quiet).embedded == 1
    with pytest.raises(InputError, match="nothing to change"):
        begin(store, NEW, "new", 6, "fp32")


def test_two_precisions_of_one_model_are_not_mixed() -> None:
    store = enrolled(1)
    with pytest.raises(InputError, match="in fp32; bf16 was asked for"):
        begin(store, OLD, "old", 4, "bf16")
    begin(store, NEW, "new", 6, "fp32")
    with pytest.raises(InputError, match="in fp32; bf16 was asked for"):
        begin(store, NEW, "new", 6, "bf16")
