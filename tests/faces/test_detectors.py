"""Which detectors there are, and what a name that is none of them is told."""

from dataclasses import replace

import pytest

from facenet.errors import ModelFileError, SettingsError, UnknownModelError
from facenet.faces.detectors import MTCNN, SCRFD, detector_settings, family_of, open_detector
from facenet.faces.mtcnn import Mtcnn, MtcnnSettings
from facenet.faces.scrfd import ScrfdSettings
from facenet.models.catalog import catalog
from facenet.models.engine import EngineSettings


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


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownModelError, match="mtcnn"):
        open_detector("mtcn", EngineSettings())


def test_an_embedder_is_no_detector() -> None:
    with pytest.raises(ModelFileError, match="mobilefacenet is an embedder"):
        open_detector("mobilefacenet", EngineSettings())
