"""YuNet with its own weights, against OpenCV's `FaceDetectorYN` and against MTCNN.

The weights are published, but not in this repository: they are taken from FACENET_TEST_DATA.
"""

from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest

from facenet.errors import EngineError
from facenet.faces.boxes import overlap
from facenet.faces.yunet import Yunet, YunetSettings
from facenet.models.engine import EngineSettings, open_engine

FILES = ("face_detection_yunet_2026may.onnx", "yunet_n_dynamic.onnx")
MTCNN = Path(__file__).parents[1] / "golden/facenet_pytorch_mtcnn.npz"


def opened(data, file=FILES[0], engine="openvino", **settings):
    running = open_engine(data / "models" / file, EngineSettings(engine=engine, device="cpu"))
    return Yunet(running, YunetSettings(**settings))


def read(path):
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def frames(data, every):
    clip = cv2.VideoCapture(str(data / "video/faces-1080p.mp4"))
    for number in range(105):
        if not clip.grab():
            return
        if number % every == 0:
            yield number, np.ascontiguousarray(clip.retrieve()[1][..., ::-1])


def opencv(data, file, image, threshold):
    """Boxes (n, 4), scores (n,) and landmarks (n, 5, 2) of the faces from 20 pixels on."""
    size = (image.shape[1], image.shape[0])
    net = cv2.FaceDetectorYN.create(str(data / "models" / file), "", size, threshold, 0.3, 5000)
    rows = net.detect(np.ascontiguousarray(image[..., ::-1]))[1]
    rows = np.zeros((0, 15), np.float32) if rows is None else rows
    rows = rows[rows[:, 2:4].max(axis=1) >= 20]
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    return boxes, rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("file", FILES)
def test_the_boxes_are_opencvs(data, file, engine):
    detector = opened(data, file, engine)
    lfw = sorted((data / "lfw/images").glob("*/*.jpg"))[:: 13233 // 8]
    images = [read(path)[: 250 - 7 * k, : 250 - 3 * k] for k, path in enumerate(lfw)]
    images += [read(data / "images/multiface.jpg"), *(frame for _, frame in frames(data, 50))]
    compared = 0
    for image, found in zip(images, detector.detect(images), strict=True):
        boxes, scores, landmarks = opencv(data, file, image, detector.settings.score_threshold)
        assert len(found) == len(boxes)
        if len(boxes):
            shares = overlap(found.boxes, boxes)
            other = shares.argmax(axis=1)
            assert sorted(other) == list(range(len(boxes)))
            assert shares.max(axis=1).min() > 0.99
            np.testing.assert_allclose(found.detection_score, scores[other], atol=1e-3)
            np.testing.assert_allclose(found.landmarks, landmarks[other], atol=0.05)
            compared += len(boxes)
    assert compared > 30


def test_bfloat16_finds_the_same_faces(data):
    """Scores move by 0.02 at most, so that faces within that of the threshold may come or go; a
    box may be that of a neighbouring cell (scripts/yunet.py --precision bf16 prints all)."""
    settings = EngineSettings(engine="openvino", device="cpu", precision="bf16")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match="no bfloat16"):
            open_engine(data / "models" / FILES[0], settings)
        return
    quick = Yunet(open_engine(data / "models" / FILES[0], settings))
    exact = opened(data, score_threshold=0.66)
    lfw = sorted((data / "lfw/images").glob("*/*.jpg"))[:: 13233 // 30]
    images = [read(path) for path in lfw] + [frame for _, frame in frames(data, 15)]
    shares, seen = [], 0
    for found, wanted in zip(quick.detect(images), exact.detect(images), strict=True):
        same = overlap(found.boxes, wanted.boxes)
        sure = wanted.detection_score > 0.72
        assert np.all(same.max(axis=0, initial=0)[sure] > 0.5) and len(found) <= len(wanted)
        if len(found):
            other, best = same.argmax(axis=1), same.max(axis=1)
            assert best.min() > 0.5
            shares += best.tolist()
            gap = found.detection_score - wanted.detection_score[other]
            assert np.abs(gap).max() < 0.02
            seen += len(found)
    assert seen > 60
    assert np.mean(np.array(shares) > 0.9) > 0.97 and np.median(shares) > 0.98


def test_it_finds_what_mtcnn_finds(data):
    """Of MTCNN's faces in the clip, and its landmarks are in the same order (scripts/yunet.py
    prints the share of the whole clip)."""
    golden = np.load(MTCNN)
    starts = np.concatenate([[0], np.cumsum(golden["clip_counts"])])
    detector, apart = opened(data), []
    theirs = ours = 0
    for number, frame in frames(data, 8):
        rows = slice(starts[number], starts[number + 1])
        boxes = golden["clip_boxes"][rows, :4].astype(np.float32)
        (found,) = detector.detect([frame])
        shares = overlap(boxes, found.boxes)
        same = np.flatnonzero(shares.max(axis=1, initial=0) > 0.4)
        theirs, ours = theirs + len(boxes), ours + len(same)
        gaps = golden["clip_landmarks"][rows][same] - found.landmarks[shares[same].argmax(axis=1)]
        apart.append(np.hypot(*gaps.T).T / (boxes[same, 2] - boxes[same, 0])[:, None])
    assert ours / theirs > 0.93
    medians = np.median(np.concatenate(apart), axis=0)
    assert medians.shape == (5,)
    assert medians.max() < 0.08


def test_faces_that_fill_a_large_picture_are_found(data):
    """OpenCV finds none of these: 1,400 pixels are too many for the network."""
    path = next(iter(sorted((data / "lfw/images").glob("George_W_Bush/*.jpg"))))
    small = read(path)[50:200, 50:200]
    large = cv2.resize(small, None, fx=14, fy=14, interpolation=cv2.INTER_CUBIC)
    detector = opened(data)
    alone, found = detector.detect([small, large])
    assert len(alone) == len(found) == 1
    assert found[0].width > 900
    assert overlap(alone.boxes * 14, found.boxes)[0, 0] > 0.8
    assert len(opencv(data, FILES[0], large, 0.7)[0]) == 0
