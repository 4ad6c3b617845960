"""Fixtures of the applications' tests."""

import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr

from facenet.faces.embed import Embedder
from facenet.recognizer import Recognizer


@pytest.fixture
def toy_recognizer():
    """One face of 40 x 48 pixels in every picture, embedded by a random projection."""
    embedder = Embedder(toy_card(fmr=toy_fmr()), ToyEngine())
    return Recognizer.from_parts(ToyDetector(toy_faces()), embedder)
