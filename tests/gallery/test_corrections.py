"""Corrections of people: each against what it should leave, and all of them taken back."""

from __future__ import annotations

import numpy as np
import pytest
from peopled import SPACE, axis, contents, entries_of, owner, peopled

from facenet.errors import InputError, UnknownPersonError
from facenet.gallery import corrections as change
from facenet.gallery import journal
from facenet.gallery.records import Apart, Crop, EnrolledFace, Entry, Person, Ruling


@pytest.fixture
def store():
    """Anna has faces 1 2 3, Ben 4 5, Cleo 6."""
    rows = {"Anna": [axis(0)] * 3, "Ben": [axis(1)] * 2, "Cleo": [axis(2)]}
    return peopled(rows, metadata={"Anna": {"team": "a"}, "Ben": {"team": "b", "age": 4}})[0]


def person(store, who):
    with store.read() as view:
        return view.get(Person, who)


def faces(store, who):
    with store.read() as view:
        return [face.id for face in view.find(EnrolledFace, person=who)]


def rulings(store):
    with store.read() as view:
        return {(r.face, r.person, r.same) for r in view.find(Ruling)}


# ---- one by one


def test_renaming(store):
    before = contents(store)
    done = change.rename(store, "Anna", "Ann")
    assert done.person == person(store, "person-0")
    assert (done.person.name, done.action, done.faces) == ("Ann", "rename", 0)
    assert faces(store, "person-0") == [1, 2, 3]
    assert change.rename(store, "Ann", "Ann").entry is None
    with pytest.raises(InputError, match="1 to 200 characters"):
        change.rename(store, "Ann", "x" * 10_000_000)
    change.undo(store, done.entry)
    assert contents(store) == before


def test_two_people_of_one_name_are_told_apart_by_id(store):
    change.rename(store, "Ben", "Anna")
    with pytest.raises(UnknownPersonError) as caught:
        change.rename(store, "Anna", "Other")
    assert "2 people are called Anna" in str(caught.value)
    assert "person-0, person-1" in str(caught.value)
    change.rename(store, "person-1", "Benjamin")
    assert person(store, "person-1").name == "Benjamin"


def test_merging_keeps_what_is_known_of_all(store):
    with store.write() as draft:
        draft.put(Person("person-3", "Benny", 1.0, "ext-7", {"age": 5, "city": "Ulm"}))
    change.confirm(store, 4, "Ben")
    change.reject(store, 6, "Ben")
    change.apart(store, "Ben", "Cleo")
    before = contents(store)
    done = change.merge(store, "Anna", ["Ben", "Benny", "Anna"])
    assert faces(store, "person-0") == [1, 2, 3, 4, 5]
    assert person(store, "person-1") is None and person(store, "person-3") is None
    merged = person(store, "person-0")
    assert merged == done.person
    assert merged.metadata == {"team": "a", "age": 4, "city": "Ulm"}
    assert (merged.name, merged.external_id, done.faces) == ("Anna", "ext-7", 2)
    assert rulings(store) == {(4, "person-0", True), (6, "person-0", False)}
    with store.read() as view:
        assert view.find(Apart)[0].key == "person-0:person-2"
    change.undo(store)
    assert contents(store) == before


def test_a_merge_against_what_a_user_decided_is_refused(store):
    change.apart(store, "Anna", "Ben")
    change.reject(store, 6, "Ben")
    before = contents(store)
    with pytest.raises(InputError, match=r"Anna \(person-0\) and Ben .* said that they are two"):
        change.merge(store, "Ben", ["Anna"])
    with pytest.raises(InputError, match="face 6 was said not to be"):
        change.merge(store, "Cleo", ["Ben"])
    with pytest.raises(InputError, match="another person besides Anna"):
        change.merge(store, "Anna", ["Anna"])
    assert contents(store) == before
    change.apart(store, "Ben", "Anna", revoke=True)
    change.merge(store, "Ben", ["Anna"])
    assert faces(store, "person-1") == [1, 2, 3, 4, 5]


def test_people_with_opposite_decisions_about_a_face_are_not_merged(store):
    change.confirm(store, 1, "Anna")
    change.reject(store, 1, "Ben")
    with pytest.raises(InputError, match="face 1 is one of them and not the other"):
        change.merge(store, "Anna", ["Ben"])
    assert faces(store, "person-1") == [4, 5]


def test_splitting_and_moving(store):
    before = contents(store)
    done = change.split(store, [2, 3, 2], "Annabel")
    assert faces(store, done.person.id) == [2, 3]
    assert (done.person.name, done.person.automatic, done.faces) == ("Annabel", False, 2)
    change.move(store, np.int64(1), "Annabel")
    assert faces(store, done.person.id) == [1, 2, 3]
    assert person(store, "person-0").name == "Anna", "a person with a name stays without faces"
    assert change.move(store, [1], "Annabel").entry is None
    change.undo(store)
    change.undo(store)
    assert contents(store) == before


def test_an_automatic_person_goes_with_the_last_face(store):
    unnamed = change.split(store, 6).person
    assert unnamed.automatic and unnamed.name == f"unknown-{unnamed.id[:8]}"
    change.reject(store, 1, unnamed.id)
    before = contents(store)
    done = change.move(store, 6, "Ben")
    assert person(store, unnamed.id) is None
    assert rulings(store) == set()
    change.undo(store, done.entry)
    assert contents(store) == before
    named = change.rename(store, unnamed.id, "Cleopatra").person
    assert not named.automatic
    change.move(store, 6, "Ben")
    assert person(store, unnamed.id) == named


def test_a_rejected_face_leaves_for_a_new_person_and_never_comes_back(store):
    before = contents(store)
    done = change.reject(store, 2, "Anna")
    assert done.person.automatic and faces(store, done.person.id) == [2]
    assert rulings(store) == {(2, "person-0", False)}
    for attempt in (
        lambda: change.move(store, 2, "Anna"),
        lambda: change.merge(store, "Anna", [done.person.id]),
    ):
        with pytest.raises(InputError, match=r"face 2 was said not to be Anna \(person-0\)"):
            attempt()
    change.merge(store, "Ben", [done.person.id])
    assert rulings(store) == {(2, "person-0", False)}, "a decision survives a merge"
    assert owner(store, 2) == "person-1"
    again = change.reject(store, 6, "Ben")
    assert again.person.id == owner(store, 6) == "person-2", "it was not Ben's: it stays"
    change.confirm(store, 2, "Anna")
    assert owner(store, 2) == "person-0"
    for _ in range(4):
        change.undo(store)
    assert contents(store) == before


def test_a_confirmed_face_stays(store):
    done = change.confirm(store, 4, "Anna")
    assert owner(store, 4) == "person-0" and done.faces == 1
    assert change.confirm(store, 4, "Anna").entry is None
    for attempt in (
        lambda: change.move(store, 4, "Ben"),
        lambda: change.split(store, [4, 1], "New"),
    ):
        with pytest.raises(InputError, match="face 4 was confirmed as Anna"):
            attempt()
    assert owner(store, 1) == "person-0", "all or nothing"
    change.confirm(store, 4, "Ben")
    assert rulings(store) == {(4, "person-1", True)}, "the newer one counts"
    change.reject(store, 4, "Ben")
    assert rulings(store) == {(4, "person-1", False)}
    change.forget(store, 4, "Ben")
    assert rulings(store) == set()
    with pytest.raises(InputError, match=r"Nothing was decided about face 4 and Ben"):
        change.forget(store, 4, "Ben")


def test_telling_two_people_apart(store):
    with pytest.raises(InputError, match="got Anna .* twice"):
        change.apart(store, "Anna", "person-0")
    before = contents(store)
    assert change.apart(store, "Cleo", "Anna").entry == 1
    assert change.apart(store, "Anna", "Cleo").entry is None
    change.apart(store, "Anna", "Cleo", revoke=True)
    assert contents(store) == before
    assert change.apart(store, "Anna", "Cleo", revoke=True).entry is None


def test_metadata_can_be_put_and_taken_back(store):
    before = contents(store)
    change.describe(store, "Anna", {"age": 5})
    assert person(store, "person-0").metadata == {"age": 5}
    with pytest.raises(InputError, match="at most 16,384 bytes"):
        change.describe(store, "Anna", {"note": "x" * 20_000})
    change.undo(store)
    assert contents(store) == before


# ---- deleting


def test_a_deleted_person_leaves_nothing(store):
    change.rename(store, "Anna", "Secret Name")
    change.apart(store, "Secret Name", "Ben")
    change.reject(store, 4, "Secret Name")
    change.merge(store, "Secret Name", ["Cleo"])
    kept = change.rename(store, "Ben", "Benjamin")
    with store.write() as draft:
        draft.put(Crop(1, b"jpeg"))
    done = change.delete_person(store, "Secret Name")
    assert (done.faces, done.person) == (4, None)
    with store.read() as view:
        everything = [
            row
            for kind in (Person, EnrolledFace, Ruling, Apart, Crop, Entry)
            for row in view.find(kind)
        ]
        assert len(view.vectors(SPACE.contract)) == 2
    assert not any(word in repr(everything) for word in ("Secret", "person-0", "Cleo"))
    assert [entry.action for entry in entries_of(store)] == ["rename", "delete"]
    with pytest.raises(InputError, match=r"\(delete\) cannot be taken back: what was deleted is"):
        change.undo(store)
    change.undo(store, kept.entry)
    assert person(store, "person-1").name == "Ben"
    with pytest.raises(UnknownPersonError):
        change.delete_person(store, "person-0")


def test_deleted_faces_go_with_what_would_undo_them(store):
    moved = change.move(store, [4, 6], "Anna").entry
    renamed = change.rename(store, "Ben", "Benjamin").entry
    ruled = change.confirm(store, 5, "Benjamin").entry
    done = change.delete_faces(store, [4, 5])
    assert (done.faces, done.person) == (2, None), "of two people"
    with store.read() as view:
        assert view.vectors(SPACE.contract).ids.tolist() == [1, 2, 3, 6]
        assert view.find(Ruling) == []
        kept = {entry.id: entry.undo is not None for entry in view.find(Entry)}
    assert kept == {moved: False, renamed: True, ruled: False, done.entry: False}
    with pytest.raises(InputError, match="cannot be taken back"):
        change.undo(store, moved)
    assert change.delete_faces(store, 1).person.id == "person-0"


def test_deleting_the_last_face_of_an_automatic_person_deletes_them(store):
    unnamed = change.reject(store, 6, "Cleo").person
    change.delete_faces(store, 6)
    assert person(store, unnamed.id) is None
    assert unnamed.id not in repr(entries_of(store))


@pytest.mark.parametrize("wrong", [0, -1, 99, 2**70, "12", [1.5], []])
def test_faces_that_are_not_there(store, wrong):
    with pytest.raises(InputError, match="there is no face|should be one face"):
        change.delete_faces(store, wrong)
    with pytest.raises(InputError, match="there is no face"):
        change.confirm(store, wrong, "Anna")


# ---- taking back


def test_what_something_later_depends_on_is_not_taken_back(store):
    first = change.split(store, 1, "New").entry
    later = change.move(store, 1, "Ben").entry
    with pytest.raises(InputError, match=rf"entry {later} \(move\) changed the same later"):
        change.undo(store, first)
    change.undo(store, later)
    with pytest.raises(InputError, match="was taken back already"):
        change.undo(store, later)
    change.reject(store, 6, "New")
    with pytest.raises(InputError, match=r"entry 3 \(reject\) changed the same later"):
        change.undo(store, first)
    change.undo(store)
    change.undo(store, first)
    with pytest.raises(InputError, match="nothing to take back"):
        change.undo(store)
    with pytest.raises(InputError, match="There is no entry 77"):
        change.undo(store, 77)


def test_a_decision_that_came_later_is_not_broken_by_taking_back(store):
    first = change.move(store, 1, "Ben").entry
    change.reject(store, 1, "Anna")
    with pytest.raises(InputError, match="cannot be taken back: face 1 was said not to be Anna"):
        change.undo(store, first)
    assert owner(store, 1) == "person-1"


def test_the_journal_is_bounded(store):
    with store.write() as draft:
        for _ in range(13):
            journal.write_entry(draft, "noted", ["person-0"], keep=10)
    assert [entry.id for entry in entries_of(store)] == list(range(4, 14))


# ---- every sequence


def random_change(store, generator):
    """One correction of a random kind, or a refusal."""
    with store.read() as view:
        people = [found.id for found in view.find(Person)]
        numbers = [found.id for found in view.find(EnrolledFace)]
    who = [str(one) for one in generator.permutation(people)[:3]]
    some = [int(n) for n in generator.permutation(numbers)[: generator.integers(1, 4)]]
    kinds = [
        lambda: change.rename(store, who[0], f"name {generator.integers(4)}"),
        lambda: change.describe(store, who[0], {"n": int(generator.integers(3))}),
        lambda: change.merge(store, who[0], who[1 : generator.integers(2, 4)]),
        lambda: change.split(store, some, "new" if generator.random() < 0.5 else None),
        lambda: change.move(store, some, who[0]),
        lambda: change.confirm(store, some[0], who[0]),
        lambda: change.reject(store, some[0], owner(store, some[0])),
        lambda: change.reject(store, some[0], who[0]),
        lambda: change.apart(store, who[0], who[1], revoke=bool(generator.random() < 0.3)),
    ]
    try:
        return kinds[generator.integers(len(kinds))]()
    except (InputError, IndexError):
        return None


def require_sound(store):
    """Nothing that was decided is broken and nothing hangs loose; automatic people left empty."""
    with store.read() as view:
        people = {found.id for found in view.find(Person)}
        owners = {face.id: face.person for face in view.find(EnrolledFace)}
        assert set(owners.values()) <= people
        for ruling in view.find(Ruling):
            assert ruling.same == (owners[ruling.face] == ruling.person)
        for pair in view.find(Apart):
            assert {pair.first, pair.second} <= people
        return {found.id for found in view.find(Person) if found.automatic} - set(owners.values())


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_can_be_taken_back_to_the_beginning(seed):
    generator = np.random.default_rng(seed)
    rows = {f"P{n}": generator.standard_normal((generator.integers(1, 4), 8)) for n in range(5)}
    store, _ = peopled(rows)
    states, done = [contents(store)], 0
    while len(states) < 30 and done < 200:
        done += 1
        before = contents(store)
        made = random_change(store, generator)
        assert require_sound(store) == set()
        if made is None or made.entry is None:
            assert contents(store) == before, "a refusal changes nothing"
        else:
            states.append(contents(store))
    assert len(states) > 10
    for expected in states[-2::-1]:
        change.undo(store)
        require_sound(store)
        assert contents(store) == expected


@pytest.mark.parametrize("seed", range(6))
def test_taking_back_in_any_order_is_sound_or_refused(seed):
    generator = np.random.default_rng(100 + seed)
    store, _ = peopled({f"P{n}": generator.standard_normal((3, 8)) for n in range(4)})
    start = contents(store)
    for _ in range(60):
        random_change(store, generator)
    refused = 0
    while left := [entry.id for entry in entries_of(store) if not entry.undone]:
        before = contents(store)
        try:
            change.undo(store, int(generator.choice(left)))
        except InputError:
            refused += 1
            assert contents(store) == before
        require_sound(store)
        if refused > 400:
            change.undo(store)
    assert contents(store) == start
    assert refused
