"""Who is meant: ids, names, external ids, metadata."""

from __future__ import annotations

import difflib
import unicodedata

import numpy as np
import pytest
from peopled import axis, peopled

from facenet.errors import InputError, SettingsError, UnknownPersonError
from facenet.gallery import people
from facenet.gallery.enrolment import Enrollee, find_person
from facenet.gallery.records import EnrolledFace, Person
from facenet.gallery.register import Register


@pytest.fixture
def view():
    store, _ = peopled({"Anna Maria": [axis(0)], "Ben": [axis(1)]}, metadata={"Ben": {"team": "b"}})
    with store.write() as draft:
        for number in range(12):
            draft.put(Person(f"twin-{number:02}", "Twin", 1.0, f"ext-{number}", {"team": "t"}))
        draft.put(Person("x", "person-1", 1.0))
    with store.read() as found:
        yield found


def test_by_id_by_name_by_external_id(view):
    assert people.resolve(view, "person-0").name == "Anna Maria"
    assert people.resolve(view, "Ben").id == "person-1"
    assert people.resolve(view, "ext-3").id == "twin-03"
    assert people.resolve(view, "person-1").name == "Ben", "an id comes before a name"


def test_several_of_one_name_are_listed_by_id(view):
    with pytest.raises(UnknownPersonError) as caught:
        people.resolve(view, "Twin")
    assert "12 people are called Twin" in str(caught.value)
    assert "twin-00, twin-01" in str(caught.value) and "and 2 more" in str(caught.value)


def test_close_names_are_offered(view):
    with pytest.raises(UnknownPersonError, match=r"Did you mean Anna Maria\?"):
        people.resolve(view, "anna mria")
    with pytest.raises(UnknownPersonError, match="lists everybody"):
        people.resolve(view, "Zoroaster")


def test_close_names_among_many_are_what_comparing_all_finds():
    generator = np.random.default_rng(0)
    letters = list("abcdefghij")
    names = sorted({"".join(generator.choice(letters, 6)) for _ in range(300)})
    store, _ = peopled({name: [] for name in names})
    with store.read() as view:
        for name in names[::30]:
            typed = name[:2] + "z" + name[3:]
            with pytest.raises(UnknownPersonError) as caught:
                people.resolve(view, typed)
            best = difflib.get_close_matches(typed, names, n=1, cutoff=0.6)
            assert best[0] in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "Anna\u00a0Maria",
        "\u0646\u200c\u0648",
        "\u5c71\u7530\u3000\u592a\u90ce",
        "Zoe\u0308",
        "Zo\u00eb",
    ],
)
def test_every_name_that_can_be_kept_is_found_again(name):
    store, _ = peopled({"Anna": [axis(0)]})
    register = Register(store)
    first = register.add(name, external_id=f"e {name}")
    decomposed = unicodedata.normalize("NFD", name)
    assert first.name == unicodedata.normalize("NFC", name)
    for typed in (name, decomposed, f"e {decomposed}"):
        assert register.person(typed) == first
        with store.read() as view:
            assert find_person(view, Enrollee(typed)) == first
            assert find_person(view, Enrollee(decomposed, f"e {decomposed}")) == first
    assert register.rename("Anna", decomposed).person.name == first.name
    with store.write() as draft:
        draft.put(Person("old", unicodedata.normalize("NFD", "Am\u00e9lie"), 1.0))
    assert register.person(unicodedata.normalize("NFD", "Am\u00e9lie")).id == "old"


@pytest.mark.parametrize("who", ["", "x" * 10_000_000, "a\nb", "\ud800", b"Ben", None, 7])
def test_what_can_be_nobody_is_said_shortly(view, who):
    with pytest.raises(UnknownPersonError) as caught:
        people.resolve(view, who)
    assert len(str(caught.value)) < 300
    str(caught.value).encode()


def test_metadata_choose_people(view):
    assert [found.id for found in people.matching(view, {"team": "b"})] == ["person-1"]
    assert len(people.matching(view, {"team": "t"})) == 12
    assert people.matching(view, {"team": "t", "age": None}) == []
    assert len(people.matching(view, {})) == 15
    for wrong in ("team", [("team", "b")], {1: 2}):
        with pytest.raises(SettingsError, match="where should map names of metadata"):
            people.matching(view, wrong)


def test_new_people_have_ids_of_their_own():
    made = [people.new_person(None) for _ in range(50)]
    assert len({person.id for person in made}) == 50
    assert all(p.automatic and p.name == f"unknown-{p.id[:8]}" for p in made)
    named = people.new_person("Ä b", external_id="7", metadata={"k": 1}, now=2.0)
    assert (named.automatic, named.created, named.external_id) == (False, 2.0, "7")
    with pytest.raises(InputError, match="1 to 200 characters; got 10,000,000"):
        people.new_person("x" * 10_000_000)


@pytest.mark.parametrize(
    ("box", "same"),
    [
        ((10, 20, 50, 80), True),
        ((10, 20, 50, 50), True),
        ((10, 20, 50, 49), False),
        ((50, 20, 90, 80), False),
        ((10, 20, 10, 20), False),
        (None, False),
    ],
)
def test_a_face_is_known_again_by_its_photo_and_place(view, box, same):
    """The enrolled box is 40 x 60; half of it overlaps by exactly one half."""
    found = people.seen_before(view, "p1", box)
    assert [face.id for face in found] == ([1] if same else [])
    assert people.seen_before(view, "p9", box) == people.seen_before(view, "", box) == []


def test_faces_without_a_box_are_never_known_again():
    store, _ = peopled({"Anna": [axis(0)]})
    with store.write() as draft:
        draft.put(EnrolledFace(9, "person-0", 1.0, "p9"))
    with store.read() as view:
        assert people.seen_before(view, "p9", (0, 0, 1, 1)) == []
