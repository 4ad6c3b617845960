"""Weights that may not be used commercially say so: on pull, and in every `--json` answer."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from detector_graphs import convolving
from fakes import toy_card
from miniature import write_people
from shell import copy, run
from toy_models import linear

from facenet.models.card import Licence, licence_notice

TERMS = "somebody: non-commercial research only"
OWN = f"own ({TERMS})"
FINDER = f"finder ({TERMS})"
SOFT = ("--model", "own")


def restrict(home, name):
    """Write into a model's card that its weights may not be used commercially."""
    path = home / "models" / name / "card.json"
    card = json.loads(path.read_text())
    card["licence"] = {"code": "MIT", "weights": TERMS, "commercial": False, "note": "Ask first."}
    path.write_text(json.dumps(card))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A FACENET_HOME with an embedder and a detector for non-commercial use."""
    home = tmp_path_factory.mktemp("notices") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACENET_HOME", str(home))
        files = home.parent
        (files / "own.onnx").write_bytes(linear().SerializeToString())
        (files / "finder.onnx").write_bytes(convolving(9))
        told = ("--crop", "margin_output", "--standardise", "fixed", "--size", 16)
        assert run("models", "import", files / "own.onnx", "--name", "own", *told).code == 0
        assert run("models", "import", files / "finder.onnx", "--name", "finder").code == 0
        restrict(home, "own")
        restrict(home, "finder")
        yield home


@pytest.fixture
def photos(examples, tmp_path):
    folder = tmp_path / "known"
    for name in ("Eileen Collins", "Grace Hopper"):
        copy(examples / f"known/{name}.jpg", folder / f"{name}.jpg")
    return folder


def test_a_notice_names_the_models_that_need_it():
    free = toy_card(licence=Licence("MIT", "MIT", commercial=True))
    unknown = toy_card(licence=Licence("MIT", "not stated", commercial=None))
    bound = toy_card(name="own", licence=Licence("MIT", TERMS, commercial=False))
    assert licence_notice([]) is licence_notice([free, unknown]) is None
    assert licence_notice([free, bound, bound]) == f"non-commercial weights: {OWN}"
    other = toy_card(name="other", licence=Licence("MIT", "research", commercial=False))
    assert licence_notice([bound, other]).endswith(f"{OWN}, other (research)")


def test_answers_that_are_objects(models, photos, tmp_path):
    a, b = sorted(photos.iterdir())
    notice = f"non-commercial weights: {OWN}"
    for command in (
        ("verify", a, b, "--threshold", 0.5, *SOFT),
        ("compare", a, b, *SOFT),
        ("embed", a, "--out", tmp_path / "v.npz", *SOFT),
        ("models", "show", "own"),
    ):
        ran = run(*command, "--json")
        assert ran.json["licence_notice"] == notice, command
        assert "notice" not in run(*command).out
    for command in (
        ("verify", a, b),
        ("compare", a, b),
        ("embed", a, "--out", tmp_path / "v.npz"),
        ("models", "show", "mobilefacenet"),
    ):
        assert "licence_notice" not in run(*command, "--json").json, command


def test_answers_that_are_rows_say_it_in_each_and_once_on_stderr(models, photos):
    notice = f"non-commercial weights: {OWN}"
    named = ("identify", photos, photos, "--threshold", -1)
    ran = run(*named, *SOFT, "--json")
    assert [row["licence_notice"] for row in ran.json] == [notice] * 2
    assert ran.err == f"facenet: {notice}.\n"
    table = run(*named, *SOFT)
    assert table.err == ran.err
    assert "licence_notice" not in table.rows[0]
    plain = run(*named, "--json")
    assert plain.err == ""
    assert not any("licence_notice" in row for row in plain.json)


def test_a_detector_counts_too(models, photos, tmp_path):
    photo = sorted(photos.iterdir())[0]
    found = run("detect", photo, "--detector", "finder", "--max-faces", 1, "--json")
    assert [row["licence_notice"] for row in found.json] == [f"non-commercial weights: {FINDER}"]
    assert not any("licence_notice" in row for row in run("detect", photo, "--json").json)
    both = ("--detector", "finder", "--select", "largest")
    answer = run("compare", photo, photo, *both, *SOFT, "--json").json
    assert answer["licence_notice"] == f"non-commercial weights: {FINDER}, {OWN}"
    people = tmp_path / "people"
    copy(photo, people / "Somebody" / photo.name)
    done = run("align", people, tmp_path / "out", *both, "--workers", 1, "--json")
    assert done.json["licence_notice"] == f"non-commercial weights: {FINDER}"


def test_evaluations_and_calibrations(models, tmp_path):
    notice = f"non-commercial weights: {OWN}"
    write_people(tmp_path / "people", 4)
    shutil.copytree(tmp_path / "people", tmp_path / "others")
    people, fast = tmp_path / "people", ("--replicates", 100)
    for command in (
        ("evaluate", "folder", people, *fast),
        ("evaluate", "all-pairs", people, *fast),
        ("evaluate", "audit", people),
        ("evaluate", "overlap", people, tmp_path / "others", "--threshold", 0.9),
        ("calibrate", people, "--out", tmp_path / "calibration.json"),
    ):
        assert run(*command, *SOFT, "--json").json["licence_notice"] == notice, command
    plain = run("evaluate", "all-pairs", people, *fast, "--json").json
    assert plain["commercial"] is True and "licence_notice" not in plain
    listed = run("evaluate", "folder", people, *fast, "--model", "mobilefacenet,own", "--json").json
    assert ["licence_notice" in model for model in listed["models"]] == [False, True]


def test_pull_says_what_there_is_to_know(models):
    ran = run("models", "pull", "mobilefacenet", "--json")
    assert ran.json["commercial"] is True
    assert "licence_notice" not in ran.json
    assert ran.json["licence_note"] in ran.err
    assert re.search("withdrawn by their publisher", ran.err)
    assert run("models", "list", "--json").json[-1]["commercial"] in (True, False, None)
    rows = {row["name"]: row["commercial"] for row in run("models", "list", "--json").json}
    assert (rows["own"], rows["finder"], rows["mtcnn"]) == (False, False, True)


def test_galleries_and_clusters(models, photos, tmp_path):
    notice, place = f"non-commercial weights: {OWN}", tmp_path / "G.db"
    allow = ("--allow", "several_faces,too_small,blurred,extreme_pose,low_score,conflict,unlike")
    photo = sorted(photos.iterdir())[0]
    copy(photo, tmp_path / "people" / "Ann" / photo.name)
    run("gallery", "create", place, *SOFT)
    done = run("gallery", "import", place, tmp_path / "people", *allow, "--json")
    assert done.json["licence_notice"] == notice
    rows = [
        *run("enroll", place, "Ann", photo, *allow, "--json").json,
        *run("gallery", "search", place, photo, "--json").json,
        *run("identify", "--gallery", place, photo, "--threshold", 0.5, "--json").json,
        *run("cluster", photos, *SOFT, "--threshold", 0.5, "--json").json,
    ]
    assert len(rows) >= 4
    assert {row["licence_notice"] for row in rows} == {notice}
    answer = run("verify", "Ann", photo, "--gallery", place, "--threshold", 0.5, "--json").json
    assert answer["licence_notice"] == notice
