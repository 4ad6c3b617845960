"""MTCNN against what facenet-pytorch 2.6.0 and facenet (2018) themselves found.

The golden files and the pictures are described in scripts/golden/README.md; the same comparison
over all pictures and engines is `python scripts/agreement.py`.
"""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from naive_mtcnn import Ties
from naive_mtcnn import detect as naive_detect

from facenet.faces.boxes import overlap
from facenet.faces.exactness import EXACTNESS
from facenet.faces.glance import glances_of
from facenet.faces.mtcnn import SIDES, Mtcnn, MtcnnSettings
from facenet.models.loader import load_model
from facenet.types import Faces

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import agreement


@pytest.fixture(scope="module")
def engines(session_home):
    return load_model("mtcnn").engines


@pytest.fixture(scope="module")
def measured(engines, data):
    """(mode, set) -> Agreement; of facenet-pytorch's clip every fifth frame."""
    results, glances = {}, glances_of(engines)
    for mode, name in itertools.product(EXACTNESS, agreement.SETS):
        stride = 5 if (mode, name) == ("facenet-pytorch", "clip") else 1
        golden = agreement.load_golden(mode)
        settings = MtcnnSettings(exactness=mode)
        detector = Mtcnn(engines, settings, glances=lambda: glances)
        results[mode, name] = agreement.measure(detector, golden, data, name, stride=stride)
    return results


def test_the_figures(measured, capsys):
    """Shown with `pytest -s`, and by scripts/agreement.py for both engines."""
    with capsys.disabled():
        print("\n" + agreement.HEADER)
        for (mode, name), result in measured.items():
            print(agreement.line(f"{mode}, auto, {name}", result, 0.0))
    counts = {key: result.pictures for key, result in measured.items()}
    assert counts["facenet-pytorch", "clip"] == 21 and counts["facenet-pytorch", "lfw"] == 1000
    assert counts["facenet", "clip"] == 5 and counts["facenet", "lfw"] == 100


@pytest.mark.parametrize("name", agreement.SETS)
def test_facenet_pytorch_s_faces_are_ours(measured, name):
    result = measured["facenet-pytorch", name]
    assert result.found >= 0.995
    assert result.close >= 0.99
    assert result.equal >= 0.985
    assert result.median_distance < 0.01


@pytest.mark.parametrize("name", agreement.SETS)
def test_facenet_s_faces_are_ours(measured, name):
    result = measured["facenet", name]
    assert result.found == 1
    assert result.median_distance < 0.01
    if name == "lfw":
        # Ties, see below: 2 of 121 faces with exact scores, 4 with a Sigmoid good to 1e-7.
        assert result.equal >= 0.96
        assert set(result.shifts) and sum(shift > 1e-3 for shift in result.shifts) <= 4
    else:
        assert result.equal == 1


@pytest.mark.parametrize("mode", EXACTNESS)
def test_where_we_differ_scores_are_equal(measured, engines, data, mode):
    """Suppression takes the better of two faces. Scores near one are equal in float32, or differ
    in the last bit between runtimes; facenet leaves their order to NumPy's unstable sort. With
    another order of equal scores the plain cascade gives the other system's boxes."""
    golden = agreement.load_golden(mode)
    nets = {name: SimpleNamespace(run=engine.run) for name, engine in engines.items()}
    for name, side in SIDES.items():
        nets[name].side = side
    ends = np.cumsum(golden["lfw_counts"])
    orders = [
        Ties(digits, turned, last)
        for digits, turned, last in itertools.product((None, 6), (False, True), (False, True))
    ]
    disputed = measured[mode, "lfw"].disputed
    assert len(disputed) <= 6
    for number in disputed:
        image = agreement.read_rgb(data / "lfw/images" / str(golden["lfw_names"][number]))
        theirs = golden["lfw_boxes"][ends[number] - golden["lfw_counts"][number] : ends[number]]
        settings = MtcnnSettings(exactness=mode)
        best = 0.0
        for ties in orders:
            faces = naive_detect(image, nets, settings=settings, ties=ties)
            boxes = np.array([box for box, _, _ in faces], np.float32)
            best = max(best, overlap(boxes, theirs[:, :4]).max(axis=0).min())
            if best > 0.999:
                break
        assert best > 0.999, golden["lfw_names"][number]


@pytest.mark.parametrize("mode", EXACTNESS)
def test_the_plain_cascade_with_the_real_networks(engines, data, mode):
    """Ten photos, the plain cascade's faces against ours: the same conventions, the same boxes."""
    golden = agreement.load_golden(mode)
    nets = {name: SimpleNamespace(run=engine.run) for name, engine in engines.items()}
    for name, side in SIDES.items():
        nets[name].side = side
    settings = MtcnnSettings(exactness=mode)
    for name in golden["lfw_names"][:10]:
        image = agreement.read_rgb(data / "lfw/images" / str(name))
        found = Mtcnn(engines, settings).detect([image])[0]
        plain = naive_detect(image, nets, settings=settings)
        assert len(found) == len(plain)
        for face, (box, _, landmarks) in zip(found, plain, strict=True):
            np.testing.assert_allclose(face.box, box, atol=1e-3)
            np.testing.assert_allclose(face.landmarks, landmarks, atol=1e-3)


# ---- the comparison itself, without data


def test_pairs_are_one_to_one_and_the_best_first():
    table = np.array([[0.9, 0.8, 0.0], [0.85, 0.1, 0.0], [0.0, 0.0, 0.4]], np.float32)
    assert [pair[:2] for pair in agreement.paired(table)] == [(0, 0)]
    table[1, 1] = 0.6
    assert [pair[:2] for pair in agreement.paired(table)] == [(0, 0), (1, 1)]
    assert agreement.paired(np.zeros((0, 3), np.float32)) == []


def test_agreement_counts_what_only_one_finds():
    points = np.tile(np.float32([5, 5]), (2, 5, 1))
    found = Faces([[0, 0, 10, 10], [20, 20, 30, 30]], points, [0.9, 0.9])
    result = agreement.Agreement()
    result.add(7, found, np.float32([[0, 0, 10, 10], [20, 21, 30, 31]]), points + [3, 4])
    assert (result.found, result.close, result.equal, result.disputed) == (1, 0.5, 0.5, [7])
    assert result.overlaps == [1, pytest.approx(9 / 11)] and result.shifts == [0, 1]
    assert result.median_distance == result.largest_distance == 5
    result.add(8, found[:1], np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32))
    result.add(9, Faces.empty(), np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32))
    assert result.found == 2 / 3 and result.disputed == [7, 8] and result.pictures == 3
