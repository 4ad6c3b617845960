"""Which detectors there are, and what a name that is none of them is told."""

import pytest

from facenet.errors import ModelFileError, UnknownModelError
from facenet.faces.detectors import DETECTORS, open_detector
from facenet.faces.mtcnn import Mtcnn, MtcnnSettings
from facenet.models.catalog import catalog
from facenet.models.engine import EngineSettings


def test_every_detector_of_the_catalogue_can_be_run() -> None:
    cards = {card.name for card in catalog().values() if card.kind == "detector"}
    assert cards == set(DETECTORS)


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
