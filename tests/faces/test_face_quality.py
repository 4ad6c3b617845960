"""Measures of faces: points of a head that is turned in space, loops over pixels, bad input."""

import math

import numpy as np
import pytest
from fakes import toy_faces

from facenet.errors import InputError
from facenet.faces.align import TEMPLATE_112
from facenet.faces.quality import (
    MEASURES,
    face_size,
    measure_quality,
    pose_from_landmarks,
    sharpness,
)

HEAD = np.array([(-1, -1, 0), (1, -1, 0), (0, 0, 0.8), (-0.8, 1, 0.1), (0.8, 1, 0.1)])
"""Eyes, nose and mouth in space: x to the right, y down, z towards the camera."""


def seen(yaw=0.0, pitch=0.0, roll=0.0):
    """The head's points in the image, turned by degrees: to the right, down, clockwise."""
    y, p, r = np.deg2rad([yaw, pitch, roll])
    right = np.array([(np.cos(y), 0, np.sin(y)), (0, 1, 0), (-np.sin(y), 0, np.cos(y))])
    down = np.array([(1, 0, 0), (0, np.cos(p), np.sin(p)), (0, -np.sin(p), np.cos(p))])
    flat = (HEAD @ right.T @ down.T)[:, :2]
    return flat @ np.array([(np.cos(r), np.sin(r)), (-np.sin(r), np.cos(r))]) * 40 + 100


def pose(*points):
    got = pose_from_landmarks(np.stack(points))
    return got.yaw, got.pitch, got.roll


def test_the_template_is_frontal():
    yaw, pitch, roll = pose(TEMPLATE_112)
    assert abs(yaw[0]) < 0.01 and abs(pitch[0]) < 0.005 and abs(roll[0]) < 0.5
    assert {value.dtype for value in (yaw, pitch, roll)} == {np.dtype(np.float32)}


def test_proxies_grow_with_the_angle_and_have_its_sign():
    angles = np.arange(-60, 61, 10)
    yaw, _, roll = pose(*(seen(yaw=angle) for angle in angles))
    assert np.all(np.diff(yaw) >= 0) and np.all(np.sign(yaw) == np.sign(angles))
    assert yaw == pytest.approx(-yaw[::-1], abs=1e-6) and np.allclose(roll, 0)
    yaw, pitch, _ = pose(*(seen(pitch=angle) for angle in angles[2:-2]))
    assert np.all(np.diff(pitch) > 0) and np.allclose(yaw, 0)
    assert abs(pitch[4]) < 0.05 < pitch[-1]


def test_turning_moving_and_growing_the_picture_changes_only_roll():
    turns = np.arange(-170, 171, 20)
    yaw, pitch, roll = pose(*(seen(25, 10, turn) * 3 - 50 for turn in turns))
    first = pose(seen(25, 10, 0))
    assert np.allclose(yaw, first[0], atol=1e-6) and np.allclose(pitch, first[1], atol=1e-6)
    assert np.allclose((roll - first[2] - turns + 180) % 360, 180, atol=1e-4)


def test_the_ratios_by_hand():
    points = np.array([(0, 0), (10, 0), (8, 6), (1, 10), (9, 10)], float)
    # The left points are at 0.5 on average, the right ones at 9.5: 7.5 and 1.5 from the nose.
    yaw, pitch, roll = pose(points)
    assert yaw[0] == pytest.approx((7.5 - 1.5) / 9) and roll[0] == 0
    frontal = (71.7366 - 51.59885) / (92.2848 - 51.59885)
    assert pitch[0] == pytest.approx((0.6 - frontal) / (1 - frontal))
    points[2] = (30, -5)
    assert [float(value[0]) for value in pose(points)[:2]] == [1, -1]


def test_points_that_cannot_tell_have_no_pose():
    upturned = TEMPLATE_112[[0, 1, 2, 3, 4]].copy()
    upturned[3:, 1] = 10  # the mouth above the eyes
    broken = TEMPLATE_112.copy()
    broken[2, 0] = np.nan
    for points in (np.zeros((5, 2)), upturned, broken, np.full((5, 2), np.inf)):
        assert all(math.isnan(value[0]) for value in pose(points))


@pytest.mark.parametrize("shape", [(5, 2), (1, 4, 2), (1, 5, 3)])
def test_landmarks_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"five points per face, \(n, 5, 2\); got "):
        pose_from_landmarks(np.zeros(shape))


def gray(crop):
    red, green, blue = np.moveaxis(crop.astype(float), -1, 0)
    return np.rint(0.299 * red + 0.587 * green + 0.114 * blue)


def test_sharpness_is_the_variance_of_the_laplacian():
    crops = np.random.default_rng(0).integers(0, 256, (3, 9, 11, 3)).astype(np.uint8)
    for crop, value in zip(crops, sharpness(crops), strict=True):
        wide = np.pad(gray(crop), 1, mode="reflect")
        around = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2]
        assert value == pytest.approx((around - 4 * wide[1:-1, 1:-1]).var(), rel=1e-3)


def test_a_blurred_crop_is_less_sharp_and_a_flat_one_not_at_all():
    crop = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    wide = np.pad(crop.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    mean = sum(wide[:, i : i + 32, j : j + 32] for i in range(3) for j in range(3)) / 9
    sharp, blurred, flat = sharpness(np.concatenate([crop, mean.astype(np.uint8), crop * 0 + 99]))
    assert sharp > 5 * blurred > 0 == flat


@pytest.mark.parametrize(
    "crops",
    [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3)), np.zeros((1, 0, 4, 3), np.uint8)],
)
def test_what_is_no_crop_is_refused(crops):
    with pytest.raises(InputError, match=r"Crops should be uint8 of the shape \(n, H, W, 3\)"):
        sharpness(crops)


def test_the_size_of_a_face_is_its_shorter_side():
    boxes = np.array([(10, 10, 40, 60), (0, 0, 50.5, 20), (5, 5, 1, 9)])
    assert face_size(boxes).tolist() == [30, 20, 0]


def test_all_measures_of_some_faces():
    faces = toy_faces((10, 10, 50, 70), (0, 0, 20, 20))
    crops = np.random.default_rng(2).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    columns = (faces.detection_score, faces.boxes, faces.landmarks)
    got = measure_quality(*columns, sharpness=sharpness(crops), norm=np.array([3.5, 9.0]))
    assert tuple(got) == MEASURES and {value.shape for value in got.values()} == {(2,)}
    assert {value.dtype for value in got.values()} == {np.dtype(np.float32)}
    assert got["norm"].tolist() == [3.5, 9] and got["face_size"].tolist() == [40, 20]
    assert got["sharpness"].tolist() == sharpness(crops).tolist()
    assert got["detection_score"] == pytest.approx([0.99, 0.99])
    found = pose_from_landmarks(faces.landmarks)
    assert got["pose"] == pytest.approx(1 - np.maximum(abs(found.yaw), abs(found.pitch)))
    assert "norm" not in measure_quality(*columns, sharpness=np.ones(2))


def test_the_more_frontal_face_has_the_better_pose_and_one_without_points_none():
    points = np.stack([seen(5, 0), seen(20, 0), seen(40, 0)])
    scores, boxes = np.ones(3), np.tile([(0.0, 0, 200, 200)], (3, 1))
    quality = measure_quality(scores, boxes, points, sharpness=scores)["pose"]
    assert 1 > quality[0] > quality[1] > quality[2] > 0
    assert np.all(np.isnan(measure_quality(scores, boxes, None, sharpness=scores)["pose"]))
    nobody = measure_quality(scores[:0], boxes[:0], points[:0], sharpness=scores[:0])
    assert {value.shape for value in nobody.values()} == {(0,)}


def test_a_picture_without_a_face_has_no_measure():
    lost = np.full((1, 16), np.nan, np.float32)
    points = lost[:, 5:15].reshape(1, 5, 2)
    got = measure_quality(lost[:, 0], lost[:, 1:5], points, sharpness=lost[:, 15], norm=lost[:, 0])
    assert all(np.isnan(value).all() for value in got.values())


def test_columns_of_other_lengths_are_refused():
    boxes = np.zeros((2, 4))
    with pytest.raises(InputError, match=r"one norm for each of the 2 boxes; got the shape \(3,\)"):
        measure_quality(np.ones(2), boxes, None, sharpness=np.ones(2), norm=np.ones(3))
    with pytest.raises(InputError, match="one pose for each of the 2 boxes"):
        measure_quality(np.ones(2), boxes, TEMPLATE_112[None], sharpness=np.ones(2))
