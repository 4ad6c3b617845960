"""Flags of the detectors: each family's reach it, another family's are refused."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import pytest
from detector_graphs import convolving
from shell import refused, run
from yunet_graphs import looking

import facenet
from facenet.apps.cli.flags import Detection
from facenet.errors import SettingsError
from facenet.faces.detectors import FAMILIES
from facenet.faces.mtcnn import MtcnnSettings
from facenet.faces.scrfd import ScrfdSettings
from facenet.faces.yunet import YunetSettings

ORT = ("--engine", "onnxruntime")


@pytest.fixture
def finder(home, tmp_path):
    (tmp_path / "finder.onnx").write_bytes(convolving(9))
    assert run("models", "import", tmp_path / "finder.onnx").code == 0
    return "finder"


@pytest.fixture
def looker(home, tmp_path):
    (tmp_path / "looker.onnx").write_bytes(looking(seed=4))
    assert run("models", "import", tmp_path / "looker.onnx").code == 0
    return "looker"


def test_every_setting_of_every_family_is_a_flag():
    flags = {entry.name for entry in fields(Detection)}
    settings = {entry.name for f in FAMILIES.values() for entry in fields(f.settings)}
    assert settings < flags
    assert {"detector", "engine", "device"} <= flags - settings
    for family in FAMILIES.values():
        assert "min_face_size" in {entry.name for entry in fields(family.settings)}


def test_without_flags_each_family_has_its_own_defaults(finder, looker):
    assert Detection().settings() == MtcnnSettings()
    assert Detection(detector=finder).settings() == ScrfdSettings()
    assert Detection(detector=looker).settings() == YunetSettings()


def test_the_flags_of_yunet_reach_it(looker, examples):
    chosen = Detection(
        detector=looker,
        min_face_size=40,
        score_threshold=0.75,
        nms_threshold=0.1,
        max_megapixels=2.5,
        max_faces=3,
    )
    assert chosen.settings() == YunetSettings(0.75, 0.1, 40, 2.5, 3)
    photo = examples / "photos/hopper-rendition.jpg"
    flags = ("--score-threshold", 0.65, "--nms-threshold", 0.2, "--max-megapixels", 0.02)
    ran = run("detect", photo, "--detector", looker, *ORT, *flags, "--json")
    settings = YunetSettings(0.65, 0.2, max_megapixels=0.02)
    alone = facenet.detect(photo, detector=looker, detection=settings, engine="onnxruntime")
    assert [row["box"] for row in ran.json] == [
        pytest.approx(box, abs=0.01) for box in alone.boxes.tolist()
    ]
    whole = run("detect", photo, "--detector", looker, *ORT, *flags[:4], "--json")
    assert len(whole.json) != len(alone) > 0


def test_the_flags_of_scrfd_reach_it(finder, examples):
    chosen = Detection(
        detector=finder,
        min_face_size=7,
        score_threshold=0.25,
        nms_threshold=0.1,
        sizes="640, 128,320x256",
        max_faces=3,
    )
    expected = ScrfdSettings(0.25, 0.1, ((640, 640), (128, 128), (320, 256)), 7, 3)
    assert chosen.settings() == expected
    recognizer = chosen.recognizer()
    assert json.loads(recognizer.detection.split(" ", 1)[1]) == json.loads(
        json.dumps(asdict(expected))
    )
    photo = examples / "photos/hopper-rendition.jpg"
    flags = ("--score-threshold", 0.25, "--nms-threshold", 0.1, "--sizes", "128,64")
    ran = run("detect", photo, "--detector", finder, *ORT, *flags, "--max-faces", 5, "--json")
    settings = ScrfdSettings(0.25, 0.1, ((128, 128), (64, 64)), 0, 5)
    alone = facenet.detect(photo, detector=finder, detection=settings, engine="onnxruntime")
    assert len(ran.json) == len(alone) == 5
    assert [row["box"] for row in ran.json] == [
        pytest.approx(box, abs=0.01) for box in alone.boxes.tolist()
    ]
    more = run("detect", photo, "--detector", finder, *ORT, *flags, "--json")
    assert len(more.json) > 5


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--score-threshold", 0.7),
        ("--nms-threshold", 0.7),
        ("--sizes", "128"),
        ("--max-faces", 2),
        ("--max-megapixels", 2),
    ],
)
def test_flags_of_others_are_refused_for_mtcnn(examples, flag, value):
    said = refused("detect", examples / "photos/group.jpg", flag, value)
    whose = {"--sizes": "SCRFD", "--max-megapixels": "YuNet"}.get(flag, "SCRFD and YuNet")
    assert said.startswith(f"{flag} is for {whose} only, and the detector mtcnn is none.")


def test_flags_of_mtcnn_are_refused_for_scrfd(finder):
    for changes in ({"factor": 0.5}, {"thresholds": "0.1,0.1,0.1"}, {"exactness": "facenet"}):
        (name,) = changes
        with pytest.raises(SettingsError, match=f"^--{name} is for MTCNN only, and the detector f"):
            Detection(detector=finder, **changes).settings()
    with pytest.raises(SettingsError, match="^--thresholds and --factor is for MTCNN only"):
        Detection(detector=finder, thresholds="1,1,1", factor=0.1).settings()


def test_flags_of_others_are_refused_for_yunet(finder, looker):
    for changes, whose in (({"sizes": "64"}, "SCRFD"), ({"factor": 0.5}, "MTCNN")):
        (name,) = changes
        with pytest.raises(SettingsError, match=f"^--{name} is for {whose} only.* looker is none"):
            Detection(detector=looker, **changes).settings()
    with pytest.raises(SettingsError, match="^--max-megapixels is for YuNet only.* finder is none"):
        Detection(detector=finder, max_megapixels=1).settings()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sizes", "100"), "sizes should be pairs of width and height"),
        (("--sizes", ""), "size should be a number or WIDTHxHEIGHT; got ''"),
        (("--sizes", "640,"), "size should be a number or WIDTHxHEIGHT; got ''"),
        (("--score-threshold", 2), "score_threshold should be from 0 to 1"),
        (("--nms-threshold", -1), "nms_threshold should be from 0 to 1"),
        (("--max-faces", -1), "max_faces should be 1 or more, or 0 for all"),
        (("--min-face-size", -1), "min_face_size should be a number of pixels, 0 or more"),
    ],
)
def test_values_that_cannot_be_are_told(finder, examples, flags, message):
    photo = examples / "photos/group.jpg"
    assert message in refused("detect", photo, "--detector", finder, *flags)
