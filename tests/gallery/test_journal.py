"""The journal: what it forgets with a person, and what taking back leaves."""

from __future__ import annotations

import pytest
from peopled import axis, contents, entries_of, faces_of, peopled

from facenet.errors import InputError
from facenet.gallery import corrections as change
from facenet.gallery.enrolment import Enrollee, enrol
from facenet.gallery.index import Index
from facenet.gallery.judgement import Enrolment, Sighting
from facenet.gallery.people import new_person
from facenet.gallery.records import Entry, Person
from facenet.gallery.register import Register


@pytest.fixture
def store():
    """Anna has the faces 1 and 2, Ben 3, Cleo 4, Dora none."""
    return peopled({"Anna": [axis(0)] * 2, "Ben": [axis(1)], "Cleo": [axis(2)], "Dora": []})[0]


def enrolled(store, who, row, photo):
    sighting = Sighting(faces_of([row]), photo=photo)
    (answer,) = enrol(store, Index(store, "toy:1"), Enrollee(who), [sighting], Enrolment())
    assert not answer.refused
    return answer


def whole_journal(store):
    return " ".join(map(repr, entries_of(store)))


# ---- deleting


def test_names_of_people_who_were_merged_into_a_deleted_one_are_gone(store):
    """Also over two merges, after a split, and with a merge that was taken back."""
    change.rename(store, "Cleo", "Secret1")
    change.rename(store, "Secret1", "Secret2")
    change.merge(store, "Ben", ["Secret2"])
    part = change.split(store, 4, "Secret3").person.id
    change.rename(store, part, "Secret4")
    change.merge(store, "Ben", [part])
    change.merge(store, "Anna", ["Dora"])
    change.undo(store)
    kept = change.rename(store, "Dora", "Dorothea").entry
    change.merge(store, "Anna", ["Ben"])
    change.delete_person(store, "Anna")
    assert "Secret" not in whole_journal(store)
    with store.read() as view:
        assert [person.name for person in view.find(Person)] == ["Dorothea"]
    change.undo(store, kept)
    with store.read() as view:
        assert [person.name for person in view.find(Person)] == ["Dora"]


def test_somebody_without_a_face_is_forgotten_with_whom_they_became(store):
    """The merge moved no face and changed nothing of Ben's own row."""
    change.rename(store, "Dora", "Secret")
    change.rename(store, "Secret", "Other")
    change.merge(store, "Ben", ["Other"])
    change.delete_person(store, "Ben")
    assert "Secret" not in whole_journal(store) and "Dora" not in whole_journal(store)


def test_those_who_are_still_there_keep_their_entries(store):
    """Anna was only spoken of beside Ben, and Cleo became Anna, not Ben."""
    renamed = change.rename(store, "Anna", "Ann").entry
    change.merge(store, "Ann", ["Cleo"])
    merged = entries_of(store)[-1].id
    change.apart(store, "Ann", "Ben")
    change.delete_person(store, "Ben")
    assert [entry.id for entry in entries_of(store)][:2] == [renamed, merged]
    change.undo(store, merged)
    change.undo(store, renamed)
    with store.read() as view:
        assert [person.name for person in view.find(Person)] == ["Anna", "Cleo", "Dora"]


# ---- taking back


def test_taking_an_enrolment_back_leaves_no_name_of_who_it_made(store):
    made = enrolled(store, "Secret1", axis(5), "x")
    enrolled(store, made.person, axis(5), "y")
    change.rename(store, made.person, "Secret2")
    for _ in range(2):
        change.undo(store)
    done = change.undo(store)
    assert (done.action, done.gone, done.person) == ("undo enrol", 1, None)
    assert "Secret" not in whole_journal(store) and made.person not in whole_journal(store)
    (left,) = entries_of(store)
    assert (left.action, left.undone, left.people) == ("enrol", True, ())
    with pytest.raises(InputError, match="was taken back already"):
        change.undo(store, left.id)


def test_whom_a_later_entry_needs_is_not_taken_back(store):
    """Otherwise a face could never go back to them."""
    start = contents(store)
    first = change.split(store, 1, "New").entry
    change.move(store, 3, "New")
    there = change.move(store, 3, "Anna").entry
    with pytest.raises(InputError, match=rf"entry {there} \(move\) changed the same later"):
        change.undo(store, first)
    for _ in range(3):
        change.undo(store)
    assert contents(store) == start


def test_what_brings_others_back_outlives_whom_it_was_said_with(store):
    """Dora became Anna, and was told apart from somebody whose making is then taken back."""
    change.add(store, new_person("New"))
    change.apart(store, "New", "Dora")
    change.undo(store)
    merged = change.merge(store, "Anna", ["Dora"]).entry
    change.undo(store, 1)
    assert [entry.id for entry in entries_of(store)] == [1, merged]
    change.undo(store, merged)
    with store.read() as view:
        assert [person.name for person in view.find(Person)] == ["Anna", "Ben", "Cleo", "Dora"]


def test_people_who_were_added_are_taken_back_before_older_changes(store):
    register = Register(store)
    enrolled(store, "Eve", axis(6), "e")
    before = contents(store)
    person = register.add("Fay", external_id="f-1", metadata={"team": "f"})
    assert register.person("f-1") == person
    done = register.undo()
    assert (done.action, done.gone) == ("undo add", 0)
    assert contents(store) == before
    assert register.undo().gone == 1
    with pytest.raises(InputError, match="should be one person's"):
        register.add("G", external_id=register.add("F", external_id="f-2").external_id)


def test_what_is_gone_for_good_is_counted(store):
    assert change.delete_faces(store, 1).gone == 1
    assert change.move(store, 2, "Ben").gone == 0
    assert change.undo(store).gone == 0
    assert change.delete_person(store, "Ben").gone == 1
    with store.read() as view:
        assert [entry.action for entry in view.find(Entry)] == ["delete_faces", "delete"]
