"""`facenet gallery`, `enroll` and `identify --gallery` with the built-in models on the examples."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from shell import blank, copy, refused, run

PHOTOS = ("collins-rendition.jpg", "group.jpg", "hopper-rendition.jpg", "obama-speech-2009.jpg")


@pytest.fixture(scope="module")
def filled(examples, tmp_path_factory):
    """A gallery with the three known people, made by commands."""
    place = tmp_path_factory.mktemp("filled") / "Gé.db"
    assert run("gallery", "create", place).code == 0
    ran = run("gallery", "import", place, examples / "known", "--json")
    assert (ran.code, ran.json["people"], ran.json["enrolled"]) == (0, 3, 3)
    return place


@pytest.fixture
def gallery(filled, tmp_path):
    """A copy of it to be changed; its writer has closed it, so that one file is all."""
    assert [path.name for path in filled.parent.iterdir()] == [filled.name]
    return Path(shutil.copy(filled, tmp_path / "G.db"))


def people(gallery: Path) -> dict[str, dict]:
    return {row["name"]: row for row in run("gallery", "list", gallery, "--json").json}


def faces(gallery: Path, who: str) -> list[int]:
    return [row["id"] for row in run("gallery", "show", gallery, who, "--json").json["faces_"]]


def test_everybody_is_named_and_the_stranger_is_told_from_them(filled, examples):
    ran = run("identify", "--gallery", filled, examples / "photos", "--json")
    assert (ran.code, ran.err) == (0, "")
    named = [(row["photo"].rsplit("/", 1)[1], row["person"]) for row in ran.json]
    assert sorted(named, key=str) == sorted(
        [
            (PHOTOS[0], "Eileen Collins"),
            (PHOTOS[1], "Barack Obama"),
            (PHOTOS[1], None),
            (PHOTOS[1], "Grace Hopper"),
            (PHOTOS[1], "Eileen Collins"),
            (PHOTOS[2], "Grace Hopper"),
            (PHOTOS[3], "Barack Obama"),
        ],
        key=str,
    )
    ids = {row["id"]: name for name, row in people(filled).items()}
    for row in ran.json:
        assert ids.get(row["person_id"]) == row["person"]
        assert row["runner_up"] in set(ids.values()) - {row["best_candidate"]}
        assert row["margin"] == pytest.approx(
            row["similarity"] - row["runner_up_similarity"], abs=1e-5
        )
        assert row["reason"] == (None if row["person"] else "below_threshold")
        assert row["fpir"] == pytest.approx(1 - (1 - 1e-4) ** 3, rel=1e-4)


def test_the_answers_are_those_of_a_folder_of_people(filled, examples):
    kept = run("identify", "--gallery", filled, examples / "photos", "--json").json
    plain = run("identify", examples / "known", examples / "photos", "--json").json
    for one, other in zip(kept, plain, strict=True):
        for key, value in other.items():
            close = isinstance(value, float)
            assert one[key] == (pytest.approx(value, abs=2e-6) if close else value), key


def test_enrolling_again_changes_nothing_and_a_second_photo_is_added(gallery, examples):
    photo = examples / "photos" / PHOTOS[3]
    first = run("enroll", gallery, "Barack Obama", photo, "--json")
    assert (first.code, [row["already"] for row in first.json]) == (0, [False])
    again = run("enroll", gallery, "Barack Obama", photo, "--json")
    assert (again.code, [row["already"] for row in again.json]) == (0, [True])
    assert people(gallery)["Barack Obama"]["faces"] == 2


def test_photos_that_will_not_do_are_refused_with_the_reason(gallery, examples, tmp_path):
    empty = blank(tmp_path / "wall.png")
    ran = run("enroll", gallery, "Ann", empty, examples / "photos" / "group.jpg", "--json")
    assert ran.code == 1
    assert [row["reasons"] for row in ran.json] == [
        ["no_face"],
        ["several_faces", "conflict"],
    ]
    assert ran.err.count("was not enrolled") == 2
    assert "Ann" not in people(gallery)
    claimed = run("enroll", gallery, "Ann", examples / "photos" / PHOTOS[2], "--json")
    assert (claimed.code, claimed.json[0]["reasons"]) == (1, ["conflict"])
    allowed = run(
        "enroll", gallery, "Ann", examples / "photos" / PHOTOS[2], "--allow", "conflict", "--json"
    )
    assert (allowed.code, allowed.json[0]["overruled"]) == (0, ["conflict"])


def test_corrections_are_made_listed_and_taken_back(gallery):
    before = people(gallery)
    assert run("gallery", "rename", gallery, "Grace Hopper", "Amazing Grace").code == 0
    assert "Amazing Grace" in people(gallery)
    merged = run("gallery", "merge", gallery, "Amazing Grace", "Eileen Collins", "--json")
    assert (merged.code, merged.json["faces"]) == (0, 1)
    numbers = faces(gallery, "Amazing Grace")
    assert len(numbers) == 2
    run("gallery", "split", gallery, "--face", numbers[0], "--name", "Somebody")
    run("gallery", "move", gallery, "--face", numbers[0], "--to", "Amazing Grace")
    assert people(gallery)["Somebody"]["faces"] == 0
    history = run("gallery", "history", gallery, "--json").json
    assert [row["action"] for row in history][-4:] == ["rename", "merge", "split", "move"]
    for _ in range(4):
        assert run("gallery", "undo", gallery).code == 0
    assert people(gallery) == before


def test_what_was_confirmed_or_rejected_is_obeyed(gallery, examples):
    photo = examples / "photos" / PHOTOS[2]
    run("enroll", gallery, "Grace Hopper", photo)
    number = faces(gallery, "Grace Hopper")[1]
    run("gallery", "reject", gallery, "--face", number, "--person", "Grace Hopper")
    (answer,) = run("identify", "--gallery", gallery, photo, "--json").json
    assert answer["person"] != "Grace Hopper"
    said = refused("gallery", "move", gallery, "--face", number, "--to", "Grace Hopper")
    assert "said not to be" in said
    run("gallery", "forget", gallery, "--face", number, "--person", "Grace Hopper")
    assert run("gallery", "move", gallery, "--face", number, "--to", "Grace Hopper").code == 0
    run("gallery", "confirm", gallery, "--face", number, "--person", "Grace Hopper")
    (answer,) = run("identify", "--gallery", gallery, photo, "--json").json
    assert answer["person"] == "Grace Hopper"
    ids = [people(gallery)[name]["id"] for name in ("Grace Hopper", "Eileen Collins")]
    assert run("gallery", "apart", gallery, *ids).code == 0
    assert "two" in refused("gallery", "merge", gallery, *ids)
    assert run("gallery", "apart", gallery, *ids, "--revoke").code == 0


def test_what_is_deleted_is_gone_from_the_file(gallery, examples):
    name = "Eileen Collins"
    number = faces(gallery, name)[0]
    ran = run("gallery", "delete", gallery, "--person", name)
    assert (ran.code, "gone for good" in ran.out) == (0, True)
    assert name not in people(gallery)
    rows = run("identify", "--gallery", gallery, examples / "photos" / PHOTOS[0], "--json").json
    assert rows[0]["person"] is None
    assert name.encode() not in gallery.read_bytes()
    assert "no face" in refused("gallery", "delete", gallery, "--face", number)
    assert "--person or --face" in refused("gallery", "delete", gallery)


def test_two_people_of_one_name_are_told_apart_by_id(gallery):
    twin = run("gallery", "add", gallery, "Grace Hopper", "--external-id", "E-2", "--json").json
    said = refused("gallery", "show", gallery, "Grace Hopper")
    assert twin["id"] in said
    assert run("gallery", "show", gallery, twin["id"], "--json").json["external_id"] == "E-2"
    assert run("gallery", "show", gallery, "E-2", "--json").json["id"] == twin["id"]


def test_metadata_narrow_a_search(gallery, examples):
    row = people(gallery)["Grace Hopper"]
    run("gallery", "add", gallery, "Nobody", "--set", "team=a")
    photo = examples / "photos" / PHOTOS[2]
    asked = ("identify", "--gallery", gallery, photo, "--where", "team=a", "--json")
    (answer,) = run(*asked).json
    assert (answer["person"], answer["reason"]) == (None, "no_one_enrolled")
    run("enroll", gallery, row["id"], photo, "--set", "team=a")
    (answer,) = run(*asked).json
    assert answer["person"] == "Grace Hopper"
    assert "NAME=VALUE" in refused(*asked[:-2], "team", "--json")


def test_a_photo_is_verified_against_a_person(gallery, examples):
    photo = examples / "photos" / PHOTOS[2]
    ran = run("verify", "Grace Hopper", photo, "--gallery", gallery, "--json")
    assert (ran.code, ran.json["match"], ran.json["person"]) == (0, True, "Grace Hopper")
    other = run("verify", "Barack Obama", photo, "--gallery", gallery)
    assert other.code == 1
    assert other.out.startswith("it is not Barack Obama: similarity")
    assert "Did you mean Grace Hopper?" in refused(
        "verify", "Grace Hoper", photo, "--gallery", gallery
    )


def test_a_search_ranks_without_deciding(gallery, examples):
    ran = run("gallery", "search", gallery, examples / "photos" / PHOTOS[2], "--top", 2, "--json")
    assert [row["person"] for row in ran.json][0] == "Grace Hopper"
    assert len(ran.json) == 2


def test_a_backup_brings_a_gallery_back(gallery, tmp_path):
    copy_ = tmp_path / "backup.db"
    assert run("gallery", "backup", gallery, copy_).code == 0
    assert stat.S_IMODE(copy_.stat().st_mode) == 0o600
    before = people(gallery)
    run("gallery", "rename", gallery, "Grace Hopper", "X")
    made = run("gallery", "restore", gallery, copy_, "--json").json
    assert (made["ok"], made["erasures_known"]) == (True, True)
    assert Path(made["aside"]).exists()
    assert people(gallery) == before
    assert run("gallery", "verify", gallery).code == 0


def test_a_damaged_gallery_is_refused_and_said_to_be_damaged(gallery):
    data = bytearray(gallery.read_bytes())
    at = data.index(b"Grace Hopper")
    data[at] = ord("B")
    gallery.write_bytes(data)
    assert run("gallery", "verify", gallery).code == 1
    assert "damaged" in refused("gallery", "list", gallery)


def test_an_export_comes_back_with_the_same_answers(gallery, examples, tmp_path):
    folder, other = tmp_path / "out", tmp_path / "other.db"
    assert run("gallery", "export", gallery, folder).code == 0
    run("gallery", "create", other)
    came = run("gallery", "import", other, folder, "--json").json
    assert came == {"people": 3, "enrolled": 3, "already": 0, "decisions_left_out": 0}
    photo = examples / "photos/group.jpg"
    mine, theirs = (
        run("identify", "--gallery", place, photo, "--json").json for place in (gallery, other)
    )
    assert mine == theirs


def test_an_import_is_resumed_and_reports_every_photo(examples, tmp_path):
    place, source = tmp_path / "G.db", tmp_path / "people"
    run("gallery", "create", place)
    copy(examples / "known/Grace Hopper.jpg", source / "Grace" / "1.jpg")
    blank(source / "Grace" / "2.png")
    (source / "Grace" / "3.jpg").write_bytes(b"no picture")
    report = tmp_path / "report.csv"
    first = run("gallery", "import", place, source, "--report", report, "--json")
    assert first.code == 1
    wanted = {"people": 1, "photos": 3, "enrolled": 1, "already": 0, "refused": 2}
    assert {key: first.json[key] for key in wanted} == wanted
    assert first.json["reasons"] == {"no_face": 1, "unreadable": 1}
    assert len(report.read_text().splitlines()) == 4
    copy(examples / "known/Eileen Collins.jpg", source / "Eileen" / "1.jpg")
    second = run("gallery", "import", place, source, "--json")
    assert (second.json["enrolled"], second.json["already"]) == (1, 1)


def test_a_list_brings_names_ids_and_metadata(examples, tmp_path):
    place = tmp_path / "G.db"
    run("gallery", "create", place, "--keep-crops")
    (tmp_path / "list.csv").write_text(
        "person,photo,external_id,team\n"
        f"Grace,{examples / 'known/Grace Hopper.jpg'},E-1,navy\n"
        f"Eileen,{examples / 'known/Eileen Collins.jpg'},,\n"
    )
    assert run("gallery", "import", place, tmp_path / "list.csv").code == 0
    assert people(place)["Grace"]["metadata"] == {"team": "navy"}
    assert run("gallery", "show", place, "--json").json["keep_crops"] is True
    with sqlite3.connect(place) as file:
        assert file.execute("SELECT count(*) FROM crop").fetchone() == (2,)
    file.close()


def test_the_audit_finds_a_face_under_the_wrong_name(gallery, examples, tmp_path):
    run(
        "enroll",
        gallery,
        "Eileen Collins",
        examples / "photos" / PHOTOS[2],
        "--allow",
        "conflict,unlike",
    )
    page = tmp_path / "audit.html"
    ran = run("gallery", "audit", gallery, "--html", page, "--json")
    assert ran.code == 1
    (finding,) = [row for row in ran.json["findings"] if row["kind"] == "wrong_label"]
    assert finding["names"] == ["Eileen Collins", "Grace Hopper"]
    assert "data:image/jpeg" in page.read_text()
    command = finding["fixes"][0].split()
    assert run(*command[1:]).code == 0
    assert run("gallery", "audit", gallery, "--json").json["found"]["wrong_label"] == 0


def test_the_model_is_changed_and_changed_back(examples, tmp_path):
    place, known = tmp_path / "G.db", tmp_path / "known"
    shutil.copytree(examples / "known", known)
    run("gallery", "create", place)
    run("gallery", "import", place, known)
    asked = ("identify", "--gallery", place, examples / "photos" / PHOTOS[3], "--json")
    before = run(*asked).json
    hidden = (known / "Grace Hopper.jpg").rename(tmp_path / "away.jpg")
    upgrade = ("gallery", "upgrade", place, "--model", "mobilefacenet", "--flip")
    stopped = run(*upgrade, "--json")
    assert (stopped.code, stopped.json["switched"], stopped.json["embedded"]) == (1, False, 2)
    assert "gone or changed" in stopped.err
    assert run(*asked).json == before
    hidden.rename(known / "Grace Hopper.jpg")
    done = run(*upgrade, "--json")
    assert (done.code, done.json["embedded"], done.json["already"]) == (0, 1, 2)
    assert run("gallery", "show", place, "--json").json["contract"].endswith("+flip")
    (after,) = run(*asked).json
    assert (after["person"], before[0]["person"]) == ("Barack Obama", "Barack Obama")
    assert after["similarity"] != before[0]["similarity"]
    assert run("gallery", "rollback", place).code == 0
    assert run(*asked).json == before


def test_faces_are_embedded_again_from_their_crops(examples, tmp_path):
    place, known = tmp_path / "G.db", tmp_path / "known"
    shutil.copytree(examples / "known", known)
    run("gallery", "create", place, "--keep-crops")
    run("gallery", "import", place, known)
    shutil.rmtree(known)
    assert run("gallery", "upgrade", place, "--model", "mobilefacenet", "--flip").code == 0
    rows = run("identify", "--gallery", place, examples / "photos" / "group.jpg", "--json").json
    named = {row["person"] for row in rows}
    assert named == {"Barack Obama", "Grace Hopper", "Eileen Collins", None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gallery", "list", "none.db"), "none.db"),
        (("gallery", "create", "{gallery}"), "already"),
        (("gallery", "rename", "{gallery}", "Nobody", "X"), "Nobody"),
        (("gallery", "rename", "{gallery}", "Grace Hopper", "x" * 10_000_000), "1 to 200"),
        (("gallery", "import", "{gallery}", "{gallery}"), "another file"),
        (("identify", "--gallery", "{gallery}", "none.jpg"), "none.jpg"),
        (("identify", "{gallery}"), "--gallery"),
        (("identify", "a", "b", "--template"), "--gallery"),
        (("gallery", "rollback", "{gallery}"), "no earlier model"),
        (("gallery", "upgrade", "{gallery}", "--model", "mobilefacenet"), "nothing to change"),
        (("gallery", "undo", "{gallery}", "--entry", 99), "99"),
    ],
)
def test_each_mistake_gets_one_sentence(gallery, arguments, said, monkeypatch):
    monkeypatch.chdir(gallery.parent)
    given = [str(a).replace("{gallery}", "G.db") for a in arguments]
    assert said in refused(*given)


def test_a_gallery_of_another_model_is_refused(gallery, examples):
    said = refused(
        "identify",
        "--gallery",
        gallery,
        "--precision",
        "bf16",
        "--model",
        "mobilefacenet",
        examples / "photos",
    )
    assert "is of mobilefacenet in fp32" in said


def test_a_newer_gallery_and_another_file_are_refused(gallery, tmp_path):
    with sqlite3.connect(gallery) as file:
        file.execute("PRAGMA user_version = 999")
    file.close()
    assert "newer" in refused("gallery", "list", gallery)
    other = tmp_path / "notes.db"
    other.write_text(json.dumps({"a": 1}))
    assert "gallery" in refused("gallery", "list", other)
