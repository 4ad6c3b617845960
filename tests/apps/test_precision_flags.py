"""Which arithmetic a command takes, and that it says so."""

from __future__ import annotations

import pytest
from shell import environment, process, refused, run

import facenet
from facenet.apps.jobs.align_one import AlignSettings
from facenet.models.engine import PRECISIONS
from facenet.sightings import space_named

HELD = "fp32 alone, which is slower; bf16: it is left out where the instructions are held to avx2"


@pytest.fixture
def pair(examples):
    """Two photos of one person."""
    return examples / "known/Grace Hopper.jpg", examples / "photos/hopper-rendition.jpg"


def test_auto_says_what_it_took_and_decides_alike(home, pair):
    exact = run("verify", *pair, "--json")
    fast = run("verify", *pair, "--json", "--precision", "auto")
    assert fast.json["match"] is exact.json["match"] is True
    assert fast.json["similarity"] == pytest.approx(exact.json["similarity"], abs=0.02)
    assert fast.err.startswith("facenet: mobilefacenet: ")
    taken = fast.err.split()[2].rstrip(",")
    assert taken in PRECISIONS
    assert "int8: mobilefacenet has no 8-bit file on this machine." in fast.err
    assert exact.err == ""
    again = run("verify", *pair, "--json", "--precision", "auto")
    assert (again.err, again.json) == (fast.err, fast.json)  # remembered


def test_as_on_an_older_processor_it_takes_fp32_and_says_so(home, pair):
    """In a process of its own, since OpenVINO looks at the processor once."""
    told = ("verify", *map(str, pair), "--json", "--instructions", "avx2")
    ran = process(*told, "--precision", "auto", env=environment(FACENET_HOME=home))
    assert ran.code == 0
    assert ran.json["match"] is True
    precision, detector = ran.err.splitlines()
    assert precision.startswith("facenet: mobilefacenet: fp32, the only one; bf16: it is left out")
    assert detector == f"facenet: mtcnn: {HELD}"
    ran = process(*told, "--precision", "bf16", env=environment(FACENET_HOME=home))
    assert ran.code == 2
    assert "bf16 was asked for; it is left out where the instructions are held to avx2" in (
        ran.sentence
    )
    assert "instructions should be one of auto, avx2; got 'sse9'" in refused(
        "verify", *pair, "--instructions", "sse9"
    )


def test_detectors_that_are_held_back_say_so_once(home, examples, tmp_path):
    photos = examples / "photos"
    ran = process("detect", photos, "--instructions", "avx2", env=environment(FACENET_HOME=home))
    assert ran.code == 0 and len(ran.rows) > 4
    assert ran.err.count(f"facenet: mtcnn: {HELD}\n") == 1
    free = run("detect", photos)
    assert [row["photo"] for row in free.rows] == [row["photo"] for row in ran.rows]
    assert "fp32" not in free.err
    people = ("align", examples / "known", tmp_path / "crops", "--workers", "1")
    ran = process(*people, "--instructions", "avx2", env=environment(FACENET_HOME=home))
    assert (ran.code, ran.err.count(HELD)) == (0, 1)


def test_the_doctor_says_the_precision_and_why(home):
    for options, held in (((), "auto"), (("--instructions", "avx2"), "avx2")):
        found = run("doctor", "--json", *options).json
        models = {model["name"]: model for model in found["models"]}
        assert (found["instructions"], found["problems"]) == (held, [])
        embedder = models["mobilefacenet"]
        assert embedder["precision"] in (PRECISIONS if held == "auto" else ("fp32",))
        assert embedder["precision_reason"].startswith(embedder["precision"])
        assert "precision" not in models["mtcnn"]
        assert "precision" not in models["facenet-casia-webface"]  # not here
        text = run("doctor", *options).out
        assert f"precision auto: {embedder['precision_reason']}" in text
        assert ("held to     avx2" in text) is (held == "avx2")
        assert models["mtcnn"]["reason"].endswith(HELD) is (held == "avx2")
        forbidden = "off: the instructions are held to avx2"
        assert (found["quick_look"] == forbidden) is (held == "avx2")
        assert found["quick_look"] == "AMX" or found["quick_look"].startswith("off: ")
        assert f"quick look  {found['quick_look']}\n" in text


def test_settings_of_an_engine_go_to_a_recognizer(home):
    one = facenet.EngineSettings(threads=1, precision="fp32")
    assert facenet.Recognizer(engine=one).embedder.engine["threads"] == 1
    asked = facenet.Recognizer(engine=one, device="cuda", precision="int8")._settings
    assert (asked.threads, asked.device, asked.precision) == (1, "cuda", "int8")
    eight = facenet.EngineSettings(precision="int8")
    assert facenet.Recognizer(engine=eight)._settings.precision == "int8"


def test_a_gallery_is_of_one_precision_by_name(home, tmp_path, pair):
    said = refused("gallery", "create", tmp_path / "g.db", "--precision", "auto")
    assert "precision should be one of fp32, bf16, int8; got 'auto'." in said
    assert space_named(None, "int8", False).precision == "int8"
    assert run("gallery", "create", tmp_path / "g.db", "--precision", "int8").code == 0
    said = refused("enroll", tmp_path / "g.db", "Grace", pair[0])
    assert "int8 was asked for; mobilefacenet has no 8-bit file on this machine." in said


def test_where_a_detector_runs_does_not_make_other_crops():
    held = AlignSettings(engine="openvino", device="cpu", instructions="avx2")
    assert held.lasting() == AlignSettings().lasting()
