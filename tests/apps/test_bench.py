"""`facenet bench`: rows that make sense; never how long something takes."""

from __future__ import annotations

import pytest
from shell import blank, refused, run

from facenet.apps.jobs.stopwatch import measure_pipeline, measure_startup
from facenet.errors import InputError, SettingsError


def test_startup(examples):
    photo = examples / "photos/hopper-rendition.jpg"
    rows = run("bench", "startup", photo, photo, "--rounds", 1, "--json").json
    assert [row["what"] for row in rows] == [
        "python",
        "import facenet",
        "facenet --help",
        "facenet verify",
    ]
    assert rows[0]["seconds"] > 0
    assert rows[3]["seconds"] > rows[0]["seconds"]


def test_startup_measures_no_failure(examples, tmp_path):
    photo = examples / "photos/hopper-rendition.jpg"
    with pytest.raises(InputError, match=r"failed: facenet: No face was found in .*sky.png"):
        measure_startup(photo, blank(tmp_path / "sky.png"), rounds=1)
    with pytest.raises(SettingsError, match="rounds should be 1 or more"):
        measure_startup(photo, photo, rounds=0)


def test_pipeline(examples):
    ran = run("bench", "pipeline", examples / "photos/hopper-rendition.jpg", "--rounds", 1)
    assert ran.code == 0
    assert [row["what"] for row in ran.rows] == ["read a photo", "detect a photo", "embed a face"]
    for row in ran.rows:
        product = float(row["milliseconds"]) * float(row["per_second"])
        assert product == pytest.approx(1000, rel=1e-4)


def test_pipeline_needs_faces_and_rounds(tmp_path, toy_recognizer):
    assert "should show a face" in refused("bench", "pipeline", blank(tmp_path / "sky.png"))
    with pytest.raises(SettingsError, match="rounds should be 1 or more"):
        measure_pipeline([tmp_path], toy_recognizer, rounds=0)
