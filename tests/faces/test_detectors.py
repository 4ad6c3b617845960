"""Which detectors there are, and what a name that is none of them is told."""

from dataclasses import replace

import pytest

from facenet.errors import ModelFileError, SettingsError, UnknownModelError
from facenet.faces.detectors import (
    MTCNN,
    SCRFD,
    detector_settings,
    family_of,
    held_back,
    open_detector,
)
from facenet.faces.glance import glances_of
from facenet.faces.mtcnn import Mtcnn, MtcnnSettings
from facenet.faces.scrfd import ScrfdSettings
from facenet.models.catalog import catalog
from facenet.models.engine import EngineSettings
from facenet.models.loader import load_model


def test_every_detector_of_the_catalogue_can_be_run() -> None:
    cards = [card for card in catalog().values() if card.kind == "detector"]
    assert cards
    for card in cards:
        assert isinstance(detector_settings(card), family_of(card).settings)


def test_files_tell_the_family() -> None:
    card = catalog()["mtcnn"]
    assert family_of(card) is MTCNN
    one = replace(card, files=card.files[:1])
    assert family_of(one) is SCRFD
    assert detector_settings(one) == ScrfdSettings()
    with pytest.raises(ModelFileError, match="should have one file, or pnet, rnet and onet"):
        family_of(replace(card, files=card.files[:2]))
    with pytest.raises(SettingsError, match="family SCRFD and takes ScrfdSettings; got MtcnnSet"):
        detector_settings(one, MtcnnSettings())


def test_the_options_reach_the_detector() -> None:
    detector = open_detector("mtcnn", EngineSettings(), options=MtcnnSettings(min_face_size=77))
    assert isinstance(detector, Mtcnn)
    assert detector.settings.min_face_size == 77


def test_mtcnn_glances_where_the_processor_can() -> None:
    """Which it does is said by `glances_of`, see test_glance.py."""
    expected = glances_of(load_model("mtcnn").engines)
    detector = open_detector("mtcnn", EngineSettings())
    assert isinstance(detector, Mtcnn)
    found = detector._networks._glances
    assert found.reason == expected.reason
    assert (found.pnet is None, found.rnet is None) == (expected.pnet is None,) * 2


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownModelError, match="mtcnn"):
        open_detector("mtcn", EngineSettings())


def test_what_forbids_the_quick_look_is_said() -> None:
    """A processor without bfloat16 forbids nothing: there, fp32 is what it has."""
    held = EngineSettings(instructions="avx2")
    said = held_back("mtcnn", held, options=MtcnnSettings(min_face_size=40))
    assert said == (
        "fp32 alone, which is slower; bf16: it is left out where the instructions are held to avx2"
    )
    assert held_back("mtcnn", EngineSettings()) is None
    assert held_back("mtcnn", EngineSettings(engine="onnxruntime")) is None


def test_an_embedder_is_no_detector() -> None:
    with pytest.raises(ModelFileError, match="mobilefacenet is an embedder"):
        open_detector("mobilefacenet", EngineSettings())
