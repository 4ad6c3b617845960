"""What the gallery commands take and say: addresses, metadata, plain text, and hints."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from shell import copy, refused, run

from facenet.apps.cli.people import person_sentence
from facenet.apps.jobs.galleryfacts import change_text
from facenet.galleries import Gallery
from facenet.gallery.answers import PersonVerification
from facenet.gallery.corrections import Change
from facenet.gallery.records import EnrolledFace, Person, new_person_id
from facenet.sightings import file_at, whereabouts
from facenet.vectors import unit

HOPPER, GROUP = "photos/hopper-rendition.jpg", "photos/group.jpg"


@pytest.fixture(scope="module")
def filled(examples, tmp_path_factory):
    """A gallery with the three known people, made by commands."""
    place = tmp_path_factory.mktemp("words") / "G.db"
    run("gallery", "create", place)
    assert run("gallery", "import", place, examples / "known").code == 0
    return place


@pytest.fixture
def gallery(filled, tmp_path):
    return Path(shutil.copy(filled, tmp_path / "G.db"))


@pytest.fixture
def empty(tmp_path):
    place = tmp_path / "E.db"
    assert run("gallery", "create", place).code == 0
    return place


def test_an_address_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = f"sqlite:///{tmp_path}/x.db"
    assert run("gallery", "create", place).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]
    run("gallery", "add", place, "Ann")
    assert [row["name"] for row in run("gallery", "list", tmp_path / "x.db", "--json").json] == [
        "Ann"
    ]
    assert run("gallery", "rename", place, "Ann", "Bob").code == 0
    assert run("gallery", "verify", place).code == 0
    assert run("gallery", "backup", place, "copy.db").code == 0
    assert run("gallery", "restore", place, "copy.db").code == 0
    said = refused("gallery", "backup", "memory://x", "copy2.db")
    assert "in a file" in said
    assert {path.name.split(".replaced")[0] for path in tmp_path.iterdir()} == {"x.db", "copy.db"}


def test_a_gallery_is_not_made_in_a_folder_that_is_not_there(tmp_path):
    for place in (tmp_path / "no/dir/x.db", f"sqlite:///{tmp_path}/no/x.db"):
        assert "folder that is there" in refused("gallery", "create", place)
    assert list(tmp_path.iterdir()) == []
    assert "in a file" in refused("gallery", "create", "memory://x")


def test_create_takes_no_option_that_does_nothing(tmp_path):
    text = run("gallery", "create", "--help").out
    assert [name for name in ("--model", "--precision", "--flip") if name not in text] == []
    for option in ("--detector", "--min-face-size", "--engine", "--thresholds"):
        ran = run("gallery", "create", tmp_path / "x.db", option, "scrfd")
        assert (ran.code, "No such option" in ran.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["=x"], "NAME=VALUE"),
        ([" =x"], "NAME=VALUE"),
        (["team"], "NAME=VALUE"),
        (["team=b", "team=c"], "one value for team; got b and c"),
    ],
)
def test_metadata_that_say_nothing_or_two_things_are_refused(empty, given, said):
    for verb, option in ((("add", empty, "Ann"), "--set"), (("list", empty), "--where")):
        asked = [part for pair in given for part in (option, pair)]
        answer = refused("gallery", *verb, *asked)
        assert said in answer
        assert option in answer or "NAME=VALUE" in answer
    assert run("gallery", "list", empty, "--json").json == []


def test_lists_are_plain_text_and_not_python(empty):
    run("gallery", "add", empty, "Ann", "--set", "team=ä", "--set", "x=1", "--external-id", "E")
    run("gallery", "add", empty, "Bob")
    rows = {row["name"]: row for row in run("gallery", "list", empty).rows}
    assert json.loads(rows["Ann"]["metadata"]) == {"team": "ä", "x": "1"}
    assert (rows["Bob"]["metadata"], rows["Bob"]["external_id"]) == ("", "")
    shown = run("gallery", "show", empty, "Bob").out
    assert "None" not in shown
    assert "{" not in shown
    assert "automatic: no\n" in shown
    assert "keep_crops: no\n" in run("gallery", "show", empty).out


def test_faces_are_shown_in_plain_text(filled):
    ran = run("gallery", "show", filled, "Grace Hopper")
    assert "'" not in ran.out
    assert "None" not in ran.out
    line = ran.out.splitlines()[-1]
    assert '""sharpness"": ' in line


def test_a_name_of_metadata_that_nobody_has_is_told(filled, gallery, examples):
    run("gallery", "add", gallery, "Ann", "--set", "team=a")
    for asked in (("gallery", "list", gallery), ("gallery", "search", gallery, examples / HOPPER)):
        ran = run(*asked, "--where", "taem=a")
        assert "Nobody in this gallery has metadata of the name taem. There is team." in ran.err
        assert run(*asked, "--where", "team=zzz").err == ""
    ran = run("identify", "--gallery", gallery, examples / HOPPER, "--where", "taem=a", "--json")
    assert (ran.json[0]["reason"], ran.err.count("\n")) == ("no_one_enrolled", 1)
    assert "name taem" in ran.err
    assert "Nobody has any" in run("gallery", "list", filled, "--where", "x=y").err


def test_a_search_chooses_among_several_faces(filled, examples):
    said = refused("gallery", "search", filled, examples / GROUP)
    assert f"4 faces were found in {examples / GROUP}" in said
    ran = run("gallery", "search", filled, examples / GROUP, "--select", "largest", "--json")
    assert (ran.code, ran.json[0]["person"]) == (0, "Barack Obama")
    assert str(examples / GROUP) in refused(
        "verify", "Grace Hopper", examples / GROUP, "--gallery", filled
    )


def test_photos_are_named_as_they_were_given(gallery, examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy(examples / HOPPER, tmp_path / "p" / "h.jpg")
    enrolled = run("enroll", gallery, "Grace Hopper", "p/h.jpg", "--json").json
    named = run("identify", "--gallery", gallery, "p/h.jpg", "--json").json
    assert enrolled[0]["photo"] == named[0]["photo"] == "p/h.jpg"


def test_what_a_user_decided_is_not_said_to_be_an_inequality(gallery, examples):
    photo = examples / HOPPER
    run("enroll", gallery, "Grace Hopper", photo)
    faces = run("gallery", "show", gallery, "Grace Hopper", "--json").json["faces_"]
    asked = ("verify", "Grace Hopper", photo, "--gallery", gallery)
    ruled = ("--face", faces[1]["id"], "--person", "Grace Hopper")
    run("gallery", "reject", gallery, *ruled)
    ran = run(*asked)
    assert ran.code == 1
    assert ran.out.startswith(
        "it is not Grace Hopper: a user said that this face is not Grace Hopper (similarity"
    )
    assert "<" not in ran.out
    run("gallery", "confirm", gallery, *ruled)
    ran = run(*asked)
    assert (ran.code, ran.out.startswith("it is Grace Hopper: similarity 1.000 >=")) == (0, True)


def test_a_confirmed_face_is_not_said_to_be_an_inequality():
    answer = PersonVerification(
        True, 0.2, 0.5, 1e-4, "toy", "Ann", "a" * 16, 1, 1, "confirmed_by_user"
    )
    said = person_sentence(answer)
    assert said.startswith("it is Ann: a user said that this face is Ann (similarity 0.200")
    assert ">=" not in said


def test_a_large_gallery_says_how_often_strangers_would_be_named(gallery, examples):
    rng = np.random.default_rng(0)
    with Gallery.open(gallery) as opened, opened.store.write() as draft:
        person = Person(new_person_id(), "Crowd", time.time())
        draft.put(person)
        numbers = [draft.next_id(EnrolledFace) for _ in range(1100)]
        for number in numbers:
            draft.put(EnrolledFace(number, person.id, 1.0))
        rows = unit(rng.standard_normal((1100, opened.space.dimension)).astype(np.float32))
        draft.put_vectors(opened.space.contract, dict(zip(numbers, rows, strict=True)))
    asked = ("identify", "--gallery", gallery, examples / HOPPER, "--json")
    ran = run(*asked)
    assert "makes 1,103 comparisons, so 10% of strangers would be named" in ran.err
    assert "--fpir" in ran.err
    assert ran.json[0]["fpir"] == pytest.approx(1 - (1 - 1e-4) ** 1103, rel=1e-4)
    assert run(*asked, "--fpir", "0.2").err == ""
    assert run(*asked, "--threshold", "0.9").err == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change("undo enrol", 3, None, 2, 2), "undo enrol; 2 faces are gone for good"),
        (Change("undo rename", 3, None), "undo rename"),
        (Change("delete", 3, None, 1, 1), "delete; 1 face is gone for good"),
        (Change("delete", 3, None), "delete; gone for good"),
        (Change("delete_faces", 3, None, 2, 2), "delete_faces; 2 faces are gone for good"),
        (Change("move", 3, None, 2), "move, 2 faces; take it back with `undo --entry 3`"),
        (Change("merge", None, None), "merge: there was nothing to change"),
    ],
)
def test_only_what_can_be_taken_back_is_said_to_be(change, said):
    assert change_text(change) == said


def test_messages_name_commands(filled):
    assert "`facenet gallery list`" in refused("gallery", "show", filled, "zzzzzzzzz")
    assert "facenet gallery show" in refused("gallery", "delete", filled, "--face", 999)
    assert "facenet gallery history" in refused("gallery", "undo", filled, "--entry", 999)


def test_the_place_of_a_photo_can_be_read_again(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a \xff%41\xe9.jpg"))
    for path in (odd, tmp_path / "ä %41.jpg"):
        text = whereabouts(path)
        text.encode()
        assert file_at(text) == path
    assert whereabouts(tmp_path / "ä.jpg") == str(tmp_path / "ä.jpg")
    assert whereabouts(b"bytes") == ""


def test_a_photo_whose_name_is_no_unicode_is_embedded_again(empty, examples, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/h\xff.jpg"))
    copy(examples / HOPPER, odd)
    with Gallery.open(empty) as gallery:
        assert not gallery.enroll("Grace", odd)[0].refused
    ran = run("gallery", "upgrade", empty, "--model", "mobilefacenet", "--flip", "--json")
    assert (ran.code, ran.json["embedded"], ran.err) == (0, 1, "")
