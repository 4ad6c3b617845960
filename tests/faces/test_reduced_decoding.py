"""JPEGs decoded at a part of their size show MTCNN the same faces, within stated tolerances."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import facenet
from facenet.errors import SettingsError
from facenet.faces.detectors import open_detector
from facenet.faces.pipeline import Pipeline
from facenet.models.engine import EngineSettings

PARTS = [(80, 2), (160, 4)]
"""Smallest face looked for, and the part that it allows."""


def mtcnn(least):
    settings = facenet.MtcnnSettings(min_face_size=least)
    return open_detector("mtcnn", EngineSettings(), options=settings)


def overlaps(a, b):
    """Shared area over area in all, of every box with every other, in a loop: (n, 4), (m, 4)."""
    out = np.zeros((len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
            shared = float(np.prod(np.maximum(sides, 0)))
            areas = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])
            out[i, j] = shared / (areas - shared)
    return out


def reduced_to(least, part):
    return Pipeline(mtcnn(least), reduced={part: mtcnn(least // part)})


def compared(photos, least, other):
    """Overlaps of the faces found with the plain detector and in another way, their points'
    distance in sides, the faces found in one way only, and all faces of the plain one."""
    whole, reduced = Pipeline(mtcnn(least)).run(photos), other.run(photos)
    shared, points, lonely, total = [], [], 0, 0
    for a, b in zip(whole, reduced, strict=True):
        assert a.size == b.size
        total += len(a.faces)
        table = overlaps(a.faces.boxes, b.faces.boxes)
        pairs = [(i, int(row.argmax())) for i, row in enumerate(table) if row.max(initial=0) > 0.5]
        lonely += len(a.faces) + len(b.faces) - 2 * len(pairs)
        for i, j in pairs:
            shared.append(table[i, j])
            off = np.linalg.norm(a.faces.landmarks[i] - b.faces.landmarks[j], axis=1).max()
            points.append(off / np.sqrt(a.faces.areas[i]))
    return np.array(shared), np.array(points), lonely, total


@pytest.mark.parametrize(("least", "part"), PARTS)
def test_the_faces_of_photos_are_the_same(least, part, examples):
    photos = sorted(examples.rglob("*.jpg"))
    shared, points, lonely, total = compared(photos, least, reduced_to(least, part))
    assert (lonely, len(shared)) == (0, total) and total >= 10
    assert shared.min() > 0.8
    assert points.max() < 0.08


@pytest.mark.parametrize(("least", "part"), PARTS)
def test_the_faces_of_video_frames_are_nearly_the_same(least, part, data):
    """No more come and go than when min_face_size is raised by 2 %, and boxes move no more."""
    film = cv2.VideoCapture(str(data / "video/faces-1080p.mp4"))
    frames = []
    while (read := film.read())[0]:
        frames.append(read[1])
    jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames[::9]]
    shared, points, lonely, total = compared(jpegs, least, reduced_to(least, part))
    other, _, changed, _ = compared(jpegs, least, Pipeline(mtcnn(1.02 * least)))
    assert lonely <= changed + 1 and total > 10
    assert np.median(shared) > np.median(other) - 0.03
    assert np.median(points) < 0.08


def test_a_recognizer_reduces_only_what_its_faces_allow(examples):
    photo = examples / "photos/group.jpg"
    for least, said in ((20, "min_face_size of 80 or more here.*it is 20"), (79, "80 or more")):
        settings = facenet.MtcnnSettings(min_face_size=least)
        recognizer = facenet.Recognizer(detection=settings)
        with pytest.raises(SettingsError, match=said):
            recognizer.stream([photo], embed=False, reduced=True)
    recognizer = facenet.Recognizer(detection=facenet.MtcnnSettings(min_face_size=80))
    with pytest.raises(SettingsError, match="min_face_size of 224 or more here"):
        recognizer.stream([photo], reduced=True)
    (whole,) = recognizer.stream([photo], embed=False)
    (reduced,) = recognizer.stream([photo], embed=False, reduced=True)
    assert (len(whole.faces), whole.size) == (len(reduced.faces), reduced.size)
    assert not np.array_equal(whole.faces.boxes, reduced.faces.boxes)
    assert np.array_equal(whole.faces.boxes, recognizer.detect(photo).boxes)


def test_vectors_of_reduced_photos_are_nearly_the_same(examples):
    recognizer = facenet.Recognizer(detection=facenet.MtcnnSettings(min_face_size=224))
    photos = [examples / "photos/hopper-rendition.jpg", examples / "photos/obama-speech-2009.jpg"]
    image = cv2.imread(str(photos[0]))
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    jpeg = cv2.imencode(".jpg", large)[1].tobytes()
    (whole,), (reduced,) = (recognizer.stream([jpeg], reduced=part) for part in (False, True))
    assert (len(whole.faces), len(reduced.faces)) == (1, 1)
    assert whole.size == reduced.size == large.shape[1::-1]
    assert float(whole.faces.embedding[0] @ reduced.faces.embedding[0]) > 0.9
