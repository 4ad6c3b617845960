"""Enrolment: what is refused and why, what is kept, and that a refusal leaves nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fakes import toy_fmr
from peopled import SPACE, axis, contents, entries_of, faces_of, owner, peopled

from facenet.errors import ContractError, InputError, SettingsError, UnknownPersonError
from facenet.gallery import corrections
from facenet.gallery.enrolment import Enrollee, enrol, find_person
from facenet.gallery.index import Index
from facenet.gallery.judgement import ALLOWABLE, Enrolment, EnrolmentRules, Sighting, judge_photo
from facenet.gallery.records import Crop, EnrolledFace, Person

GOOD = {"face_size": 90.0, "sharpness": 80.0, "detection_score": 0.999, "yaw": 0.1, "pitch": -0.1}


def seen(*rows, photo="new", measures=GOOD, **more):
    told = [measures] * len(rows)
    return Sighting(faces_of(rows), told, photo=photo, source=f"/{photo}.jpg", **more)


def put(store, who, *sightings, allow=(), table=None, **how):
    whom = who if isinstance(who, Enrollee) else Enrollee(who)
    rules = EnrolmentRules(**how)
    index = Index(store, SPACE.contract)
    return enrol(store, index, whom, sightings, Enrolment(rules, tuple(allow), table or toy_fmr()))


def codes(answer):
    return [reason.code for reason in answer.reasons]


@pytest.fixture
def store():
    return peopled({"Anna": [axis(0)], "Ben": [axis(1)] * 2})[0]


# ---- the photo


@pytest.mark.parametrize(
    ("name", "bound", "value", "code", "beyond"),
    [
        ("face_size", "min_face_size", 32.0, "too_small", -1e-3),
        ("sharpness", "min_sharpness", 23.0, "blurred", -1e-3),
        ("detection_score", "min_detection_score", 0.986, "low_score", -1e-6),
        ("yaw", "max_yaw", 0.89, "extreme_pose", 1e-6),
        ("yaw", "max_yaw", -0.89, "extreme_pose", -1e-6),
        ("pitch", "max_pitch", 0.56, "extreme_pose", 1e-6),
    ],
)
def test_each_bound_refuses_beyond_it_alone_and_can_be_overruled(name, bound, value, code, beyond):
    def judge(measure, allow=(), **rules):
        sighting = seen(axis(0), measures=GOOD | {name: measure})
        return judge_photo(sighting, Enrolment(EnrolmentRules(**rules), allow))

    assert judge(value).accepted
    refused = judge(value + beyond)
    assert [reason.code for reason in refused.reasons] == [code]
    assert not refused.accepted
    text = refused.reasons[0].text
    assert f"allow {code}" in text and f"{abs(value):g}" in text
    allowed = judge(value + beyond, (code,))
    assert allowed.accepted and [reason.code for reason in allowed.overruled] == [code]
    assert judge(value + beyond, **{bound: None}).accepted
    assert judge(math.copysign(value / 2 if "max" in bound else value * 2, value)).accepted
    assert judge(math.nan, ()).accepted != ("max" in bound), "points that say nothing are no pose"


def test_all_reasons_are_given_at_once():
    bad = {"face_size": 5.0, "sharpness": 1.0, "detection_score": 0.5, "yaw": 1.0, "pitch": 1.0}
    judged = judge_photo(seen(axis(0), axis(1), measures=bad), Enrolment())
    assert {reason.code for reason in judged.reasons} == set(ALLOWABLE[:5])
    assert judged.row == 0
    some = judge_photo(seen(axis(0), measures=bad), Enrolment(allow=("blurred", "low_score")))
    assert [reason.code for reason in some.reasons] == ["too_small", "extreme_pose"]
    assert judge_photo(seen(axis(0), measures={}), Enrolment()).accepted, "not measured, not judged"


def test_no_face_and_no_picture_cannot_be_overruled(store):
    before = contents(store)
    nobody = seen(photo="empty")
    broken = Sighting(faces_of(np.zeros((0, 8))), source="/x.jpg", problem="/x.jpg is no picture.")
    for sighting, code in ((nobody, "no_face"), (broken, "unreadable")):
        (answer,) = put(store, "Anna", sighting, allow=ALLOWABLE)
        assert codes(answer) == [code] and answer.refused
        with pytest.raises(SettingsError, match=f"{code}.*cannot be overruled|allow should be"):
            Enrolment(allow=(code,))
    assert contents(store) == before and entries_of(store) == []
    with pytest.raises(SettingsError, match="allow should be among several_faces"):
        Enrolment(allow=("blury",))


def test_of_several_faces_the_first_is_taken_where_that_is_allowed(store):
    (refused,) = put(store, "Cleo", seen(axis(2), axis(3)))
    assert codes(refused) == ["several_faces"]
    assert "2 faces were found in /new.jpg" in refused.reasons[0].text
    (taken,) = put(store, "Cleo", seen(axis(2), axis(3)), allow=["several_faces"])
    with store.read() as view:
        assert view.vectors(SPACE.contract, ids=[taken.face]).rows[0].tolist() == axis(2).tolist()
    assert taken.to_dict()["overruled"] == ["several_faces"]


@pytest.mark.parametrize(
    "wrong", [{"min_face_size": -1}, {"conflict_fpir": 1}, {"unlike_fmr": 0}, {"max_yaw": math.nan}]
)
def test_bounds_are_numbers(wrong):
    with pytest.raises(SettingsError, match=f"EnrolmentRules.{next(iter(wrong))} should be"):
        EnrolmentRules(**wrong)


# ---- what is kept


def test_what_is_kept_of_a_face(store):
    sighting = seen(axis(4), measures=GOOD | {"norm": math.nan}, crops=[b"jpeg"])
    whom = Enrollee("Dora", "e-1", {"team": "d"})
    (answer,) = put(store, whom, sighting)
    with store.read() as view:
        person = view.get(Person, answer.person)
        face = view.get(EnrolledFace, answer.face)
        assert view.get(Crop, answer.face).data == b"jpeg"
        rows = view.vectors(SPACE.contract, ids=[answer.face]).rows
    assert (person.name, person.external_id, person.metadata) == ("Dora", "e-1", {"team": "d"})
    assert (face.person, face.photo, face.source) == (person.id, "new", "/new.jpg")
    assert face.box == (10, 20, 50, 80) and face.measures == GOOD
    assert rows[0].tolist() == axis(4).tolist()
    assert not answer.refused and not answer.already and answer.reasons == ()
    (entry,) = entries_of(store)
    assert (entry.action, entry.people) == ("enrol", (person.id,))


def test_enrolling_again_changes_nothing(store):
    photos = [seen(axis(2), photo="a"), seen(axis(2, 0.1), photo="b")]
    first = put(store, "Cleo", *photos)
    before = contents(store)
    for how in ({}, {"min_face_size": 500.0}):
        again = put(store, "Cleo", *photos, photos[0], **how)
        assert [answer.face for answer in again] == [first[0].face, first[1].face, first[0].face]
        assert all(answer.already and not answer.reasons for answer in again)
    assert contents(store) == before and len(entries_of(store)) == 1
    twice = put(store, "Dora", seen(axis(3), photo="c"), seen(axis(3), photo="c"))
    assert [answer.already for answer in twice] == [False, True]


def test_a_refused_photo_leaves_nothing(store):
    before = contents(store)
    (answer,) = put(store, Enrollee("Zoe", "z-1", {"a": 1}), seen(axis(0), photo="n"))
    assert codes(answer) == ["conflict"] and answer.person is None
    (answer,) = put(store, Enrollee("person-0", "z-1", {"a": 1}), seen(axis(5), photo="n"))
    assert codes(answer) == ["unlike"] and answer.person == "person-0"
    assert contents(store) == before and entries_of(store) == []


def test_an_enrolment_can_be_taken_back(store):
    before = contents(store)
    photos = [seen(axis(2), photo="a"), seen(axis(2), photo="b")]
    put(store, Enrollee("Cleo", metadata={"team": "c"}), *photos)
    more = put(store, Enrollee("Anna", metadata={"team": "a"}), seen(axis(0), photo="c"))
    with store.read() as view:
        assert view.get(Person, "person-0").metadata == {"team": "a"}
    corrections.confirm(store, more[0].face, "Anna")
    with pytest.raises(InputError, match=r"later faces or decisions depend on a face"):
        corrections.undo(store, 2)
    for _ in range(3):
        corrections.undo(store)
    assert contents(store) == before
    assert all(entry.undone and entry.undo is None for entry in entries_of(store)[:2])


def test_with_a_bad_vector_nothing_of_the_call_is_kept(store):
    before = contents(store)
    for row, problem in ((np.full(8, np.nan), "NaN"), (np.zeros(8), "zero vector")):
        with pytest.raises(InputError, match=problem):
            put(store, "Cleo", seen(axis(2), photo="a"), seen(row, photo="b"))
    foreign = Sighting(faces_of([axis(2)], contract="other:1"), [GOOD], photo="c")
    with pytest.raises(ContractError, match="expected toy:1, but the photo was embedded with"):
        put(store, "Cleo", seen(axis(2), photo="a"), foreign)
    with pytest.raises(InputError, match="1 to 200 characters; got 10,000,000"):
        put(store, "x" * 10_000_000, seen(axis(2)))
    assert contents(store) == before


# ---- whose face it is


@pytest.mark.parametrize("seed", range(5))
def test_conflict_and_unlike_are_what_the_loops_say(seed):
    """Levels of the toy table: a rate r is reached at -log10(r) / 10."""
    generator = np.random.default_rng(seed)
    people = {f"P{n}": generator.standard_normal((2, 8)) for n in range(5)}
    store, ids = peopled(people)
    corrections.apart(store, "P0", "P1")
    with store.read() as view:
        block = view.vectors(SPACE.contract)
    outcomes = set()
    for number in range(40):
        row = faces_of([generator.standard_normal(8)]).embedding[0]
        best = {
            own: max(
                float(np.sum(r.astype(np.float64) * row))
                for r, one in zip(block.rows, block.people, strict=True)
                if one == own
            )
            for own in ids.values()
        }
        mine = best.pop(ids["P0"])
        del best[ids["P1"]]
        rival = max(best, key=lambda own: best[own])
        level = -math.log10(1 - (1 - 0.05) ** (1 / 10)) / 10
        expected = ["conflict"] * (best[rival] >= level and best[rival] >= mine)
        expected += ["unlike"] * (mine < -math.log10(0.03) / 10)
        sighting = seen(row, photo=f"n{number}")
        (answer,) = put(store, "P0", sighting, conflict_fpir=0.05, unlike_fmr=0.03)
        assert codes(answer) == expected
        outcomes.add(tuple(expected))
        if "conflict" in expected:
            reason = answer.reasons[0]
            assert reason.person == rival
            assert reason.similarity == pytest.approx(best[rival], abs=1e-6)
        if not answer.refused:
            corrections.delete_faces(store, answer.face)
    assert len(outcomes) >= 3


def test_a_conflict_names_whom_and_can_be_overruled(store):
    (refused,) = put(store, "Cleo", seen(axis(0, 0.1)))
    assert codes(refused) == ["conflict"]
    assert "looks like Anna (person-0), similarity 0.995" in refused.reasons[0].text
    assert not put(store, "Anna", seen(axis(0, 0.1), photo="b"))[0].refused, "it is Anna's own"
    (allowed,) = put(store, "Cleo", seen(axis(0, 0.1)), allow=["conflict"])
    assert not allowed.refused and allowed.overruled[0].person == "person-0"
    (twin,) = put(store, "Cleo", seen(axis(0, 0.2), photo="c"), conflict_fpir=None)
    assert not twin.refused


def test_two_people_who_are_apart_are_no_conflict(store):
    with store.write() as draft:
        draft.put(Person("twin", "Hanna", 1.0))
    corrections.apart(store, "Anna", "Hanna")
    assert not put(store, "Hanna", seen(axis(0)))[0].refused
    (refused,) = put(store, "Hanna", seen(axis(1), photo="b"))
    assert codes(refused) == ["conflict", "unlike"] and refused.reasons[0].person == "person-1"


def test_without_a_table_the_very_photo_is_still_a_conflict(store):
    index = Index(store, SPACE.contract)
    how = Enrolment(EnrolmentRules(), (), None)
    (same,) = enrol(store, index, Enrollee("Cleo"), [seen(axis(0), photo="p1")], how)
    assert codes(same) == ["conflict"] and same.reasons[0].person == "person-0"
    other = [seen(axis(0), photo="n"), seen(axis(5), photo="m")]
    assert not any(answer.refused for answer in enrol(store, index, Enrollee("Cleo"), other, how))


def test_what_a_user_rejected_is_not_enrolled_again(store):
    corrections.reject(store, 1, "Anna")
    (refused,) = put(store, "Anna", seen(axis(0), photo="p1"), allow=ALLOWABLE)
    assert codes(refused) == ["rejected"]
    assert "face, number 1, is not Anna. If it is, confirm it." in refused.reasons[0].text
    corrections.confirm(store, 1, "Anna")
    assert put(store, "Anna", seen(axis(0), photo="p1"))[0].already


# ---- whom to enrol


def test_names_ids_and_external_ids(store):
    with store.write() as draft:
        draft.put(Person("ben-2", "Ben", 1.0, "e-2"))

    def found(who, external=None):
        with store.read() as view:
            return find_person(view, Enrollee(who, external))

    assert found("Anna").id == found("person-0").id == found("Anna", None).id == "person-0"
    assert found("Ben", "e-2").id == found("ben-2", "e-2").id == "ben-2"
    fresh = found("Ben", "e-3")
    assert fresh.id not in ("person-1", "ben-2") and fresh.external_id == "e-3"
    with pytest.raises(UnknownPersonError, match="2 people are called Ben"):
        found("Ben")
    with pytest.raises(InputError, match=r"e-2 should be Anna's alone; Ben \(ben-2\) has e-2"):
        found("Anna", "e-2")
    with pytest.raises(InputError, match="Ben .ben-2. has e-2"):
        found("ben-2", "e-9")
    (given,) = put(store, Enrollee("person-0", "e-7"), seen(axis(0), photo="x"))
    assert found("Anna", "e-7").id == given.person == owner(store, given.face) == "person-0"


def test_an_external_id_is_whom_to_enrol_and_an_unknown_id_is_nobody(store):
    with store.write() as draft:
        draft.put(Person("ben-2", "Ben", 1.0, "E-9"))
    (answer,) = put(store, "E-9", seen(axis(4)))
    assert (answer.person, answer.name) == ("ben-2", "Ben")
    before = contents(store)
    with pytest.raises(InputError, match="nobody has the id 0123456789abcdef"):
        put(store, "0123456789abcdef", seen(axis(5), photo="b"))
    assert contents(store) == before
    (named,) = put(store, Enrollee("0123456789abcdef", "E-10"), seen(axis(5), photo="b"))
    assert named.name == "0123456789abcdef" != named.person
    assert not put(store, "0123456789abcde", seen(axis(6), photo="c"))[0].refused
