"""MTCNN, the default detector, on what it is not given every day: very wide, crowded, odd."""

import cv2
import numpy as np
import pytest
from clips import LOSSLESS, write_clip

from facenet.faces.boxes import overlap
from facenet.faces.detectors import open_detector
from facenet.faces.mtcnn import MtcnnSettings
from facenet.images import load_image, read_video
from facenet.models.engine import EngineSettings


@pytest.fixture(scope="module")
def group(examples):
    """A photo of four people, 1280 x 448."""
    return load_image(examples / "photos/group.jpg")


def detector(**options):
    return open_detector("mtcnn", EngineSettings(), options=MtcnnSettings(**options))


def test_a_panorama_of_20_000_pixels(group):
    """The photo again and again: every face of it is found in every copy, where it is."""
    height, width = group.shape[:2]
    panorama = np.tile(group, (1, 16, 1))[:, :20_000]
    settings = {"min_face_size": 60}
    (alone,) = detector(**settings).detect([group])
    (found,) = detector(**settings).detect([panorama])
    assert panorama.shape == (448, 20_000, 3) and len(alone) == 4
    shifts = width * np.arange(16)
    expected = (alone.boxes + shifts[:, None, None] * np.float32([1, 0, 1, 0])).reshape(-1, 4)
    expected = expected[expected[:, 2] < 19_990]
    assert len(expected) == 62  # 15 copies, and half of one
    table = overlap(expected, found.boxes)
    assert np.all(table.max(axis=1) > 0.8)
    assert len(found) == len(expected) == len(set(table.argmax(axis=1)))


def test_500_faces_in_one_picture(group):
    """One face in every field of a board: 500 boxes, one to a field and about the same place."""
    face = cv2.resize(group[60:320, 380:600], (88, 104), interpolation=cv2.INTER_AREA)
    board = np.tile(face, (20, 25, 1))
    (found,) = detector(min_face_size=40).detect([board])
    assert len(found) == 500
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    fields = np.floor(centers / [88, 104]).astype(int)
    assert sorted(map(tuple, fields)) == [(x, y) for x in range(25) for y in range(20)]
    assert np.ptp(centers - fields * [88, 104], axis=0).max() < 15


@pytest.mark.parametrize("size", [(641, 223), (639, 225)])
def test_frames_of_odd_size(group, size, tmp_path):
    """The faces of a video's frames are those of the pictures it was made of."""
    picture = cv2.resize(group, size, interpolation=cv2.INTER_AREA)
    frames = [picture, np.ascontiguousarray(picture[:, ::-1])]
    path = write_clip(tmp_path / "odd.mkv", frames, **LOSSLESS)
    read = [frame.image for frame in read_video(path)]
    assert [image.shape[:2] for image in read] == [size[::-1]] * 2
    found, expected = detector().detect(read), detector().detect(frames)
    assert [len(faces) for faces in found] == [4, 4]
    assert found == expected
