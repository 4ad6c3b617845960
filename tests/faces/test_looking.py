"""What is measured and kept of faces in a photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fakes import toy_faces

from facenet.errors import InputError
from facenet.faces.looking import kept_crops, measure_faces
from facenet.images import decode
from facenet.types import Faces


def noise(height=300, width=400, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_measures_are_those_of_the_box():
    image = noise()
    image[100:160] = 128
    faces = toy_faces((20, 10, 76, 90), (20, 100, 120, 160), score=0.75)
    sharp, flat = measure_faces(image, faces)
    assert sharp["face_size"] == 56 and flat["face_size"] == 60
    assert sharp["detection_score"] == flat["detection_score"] == 0.75
    assert sharp["sharpness"] > 1000 > flat["sharpness"] == 0
    for name in ("yaw", "pitch"):
        assert abs(sharp[name]) < 1e-6 + (name == "pitch")
    assert sharp["pose"] == pytest.approx(1 - max(abs(sharp["yaw"]), abs(sharp["pitch"])))


def test_sharpness_is_the_variance_of_the_laplacian_at_112_pixels():
    image = noise()
    (measured,) = measure_faces(image, toy_faces((40, 30, 152, 142)))
    gray = cv2.cvtColor(image[30:142, 40:152], cv2.COLOR_RGB2GRAY).astype(np.float64)
    padded = np.pad(gray, 1, mode="reflect")
    laplacian = sum(
        padded[1 + dy : 113 + dy, 1 + dx : 113 + dx]
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
    )
    assert measured["sharpness"] == pytest.approx(np.var(laplacian - 4 * gray), rel=1e-6)


def test_what_is_not_known_is_left_out_and_a_profile_is_extreme():
    faces = toy_faces((20, 10, 76, 90))
    (blind,) = measure_faces(noise(), faces.with_(landmarks=None))
    assert sorted(blind) == ["detection_score", "face_size", "sharpness"]
    (profile,) = measure_faces(noise(), faces.with_(landmarks=np.full((1, 5, 2), 50.0)))
    assert (profile["yaw"], profile["pitch"]) == (1, 1) and "pose" not in profile
    (outside,) = measure_faces(noise(), toy_faces((900, 900, 950, 960)))
    assert "sharpness" not in outside and outside["face_size"] == 50
    assert measure_faces(noise(), Faces.empty()) == []


def test_a_kept_crop_shows_the_surroundings():
    image = np.full((300, 400, 3), 50, np.uint8)
    image[100:180, 100:160] = (200, 100, 0)
    faces = toy_faces((100, 100, 160, 180), (0, 0, 40, 40), (0, 0, 400, 300))
    crops = [decode(data) for data in kept_crops(image, faces)]
    assert [crop.shape for crop in crops] == [(160, 120, 3), (60, 60, 3), (300, 400, 3)]
    inside = crops[0][44:116, 34:86].reshape(-1, 3).astype(int)
    assert np.abs(inside - (200, 100, 0)).max() < 12
    large = decode(kept_crops(noise(1500, 2000), toy_faces((200, 200, 1700, 1400)))[0])
    assert large.shape == (384, 512, 3)
    with pytest.raises(InputError, match="should lie in the photo"):
        kept_crops(image, toy_faces((900, 900, 950, 960)))
