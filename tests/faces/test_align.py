"""Crops against independent least squares, supersampling, the formulas and frozen crops."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import toy_faces

from facenet.errors import InputError
from facenet.faces.align import (
    TEMPLATE_112,
    crop_face,
    crop_faces,
    margin_box,
    margin_crop,
    similarity_crop,
    similarity_transform,
    template,
)
from facenet.models.card import Preprocess
from facenet.types import Face, Faces

GOLDEN = Path(__file__).resolve().parents[1] / "golden/facenet_pytorch_crops.npz"


def noise(height, width, *, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def similarity(scale, degrees, shift):
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, shift])


def moved(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


# ---- the five-point transform


def test_the_templates_are_the_published_numbers():
    assert np.array_equal(template(112, 112), TEMPLATE_112)
    narrow = [30.2946, 65.5318, 48.0252, 33.5493, 62.7299]
    assert template(96, 112)[:, 0].tolist() == pytest.approx(narrow, abs=1e-12)
    assert np.array_equal(template(96, 112)[:, 1], TEMPLATE_112[:, 1])
    assert template(224, 224).tolist() == (TEMPLATE_112 * 2).tolist()


def test_the_transform_is_the_least_squares_similarity():
    generator = np.random.RandomState(1)
    for _ in range(50):
        source, target = generator.uniform(0, 200, (5, 2)), generator.uniform(0, 112, (5, 2))
        # x' = a x - b y + c, y' = b x + a y + d: four unknowns, ten equations.
        rows = []
        for x, y in source:
            rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        a, b, c, d = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
        expected = np.array([[a, -b, c], [b, a, d]])
        np.testing.assert_allclose(similarity_transform(source, target), expected, atol=1e-9)


@pytest.mark.parametrize("degrees", [0, 17, 90, 180, -135])
@pytest.mark.parametrize("scale", [0.03, 1, 40])
def test_a_known_transform_is_found_again(scale, degrees):
    known = similarity(scale, degrees, (-31.5, 250.25))
    source = np.random.RandomState(2).uniform(-50, 300, (5, 2))
    got = similarity_transform(source, moved(known, source))
    np.testing.assert_allclose(got, known, atol=1e-9)


def test_two_points_fix_the_transform():
    got = similarity_transform(np.array([[0, 0], [2, 0]]), np.array([[5, 5], [5, 9]]))
    np.testing.assert_allclose(got, [[0, -2, 5], [2, 0, 5]], atol=1e-12)


def test_a_mirrored_face_is_not_mirrored_back():
    flipped = TEMPLATE_112 * [-1, 1]
    matrix = similarity_transform(flipped, TEMPLATE_112)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("value", [7.0, np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_landmarks_without_a_spread_are_refused(value):
    with pytest.raises(InputError, match="these coincide"):
        similarity_transform(np.full((5, 2), value), TEMPLATE_112)


# ---- the five-point crop


def test_a_face_that_lies_on_the_template_is_cut_as_it_is():
    image = noise(200, 220, seed=3)
    crop = similarity_crop(image, (TEMPLATE_112 + [40, 30]).astype(np.float32))
    assert np.array_equal(crop, image[30:142, 40:152])
    narrow = similarity_crop(image, (template(96, 112) + [40, 30]), width=96, height=112)
    assert np.array_equal(narrow, image[30:142, 40:136])


def test_a_face_upside_down_is_turned():
    image = noise(200, 220, seed=4)
    turned = np.ascontiguousarray(image[::-1, ::-1])
    points = TEMPLATE_112 + [40, 30]
    crop = similarity_crop(turned, np.array([219, 199]) - points)
    assert np.array_equal(crop, image[30:142, 40:152])


def test_outside_the_photo_is_black():
    image = np.full((100, 100, 3), 200, np.uint8)
    crop = similarity_crop(image, TEMPLATE_112 - [30, 0])
    assert np.all(crop[:100, 30:] == 200)
    assert np.all(crop[:, :30] == 0) and np.all(crop[100:] == 0)


def supersampled(image, landmarks):
    """Each crop pixel as the mean of many bilinear samples over its footprint."""
    matrix = np.vstack([similarity_transform(landmarks, TEMPLATE_112), [0, 0, 1]])
    inverse = np.linalg.inv(matrix)
    count = int(np.ceil(2 * np.hypot(*inverse[:2, 0])))
    steps = (np.arange(count) + 0.5) / count - 0.5
    y, x = np.mgrid[0:112, 0:112].astype(float)
    total = np.zeros((112, 112, 3))
    for dy in steps:
        for dx in steps:
            place = np.stack([x + dx, y + dy], axis=-1) @ inverse[:2, :2].T + inverse[:2, 2]
            place = place.astype(np.float32)
            total += cv2.remap(
                image.astype(np.float32), place[..., 0], place[..., 1], cv2.INTER_LINEAR
            )
    return total / count**2


@pytest.mark.parametrize("scale", [0.9, 0.6, 0.5, 0.45, 0.34, 0.26, 0.2, 0.13, 0.08])
def test_a_large_face_is_reduced_without_aliasing(examples, scale):
    image = cv2.imread(str(examples / "photos/group.jpg"))[:, :, ::-1].copy()
    middle = np.array(image.shape[1::-1]) / 2
    landmarks = moved(similarity(1 / scale, -17, (0, 0)), TEMPLATE_112 - 56) + middle
    wanted = supersampled(image, landmarks)

    def error(crop):
        return np.sqrt(np.mean((crop.astype(float) - wanted) ** 2))

    plain = cv2.warpAffine(image, similarity_transform(landmarks, TEMPLATE_112), (112, 112))
    got = error(similarity_crop(image, landmarks))
    assert got < 5
    assert got <= error(plain)
    if scale <= 0.34:
        assert got < error(plain) / 2


def test_reduction_keeps_the_place():
    # A smooth slope, 2.04 levels to a pixel of the crop: the mean shows a shift of 1/40 of one.
    columns = np.linspace(0, 255, 1500)
    image = np.repeat(np.tile(columns, (1500, 1))[..., None], 3, axis=2).round().astype(np.uint8)
    landmarks = TEMPLATE_112 * 12 + [60, 80]
    crop = similarity_crop(image, landmarks)
    wanted = (np.arange(112) * 12 + 60) * 255 / 1499
    gap = crop.astype(float) - wanted[None, :, None]
    assert abs(gap.mean()) < 0.05
    assert np.abs(gap).max() < 1


# ---- margins


def boxes_with_margins():
    golden = np.load(GOLDEN)
    for row, margin in enumerate(golden["crop_margins"].tolist()):
        for column, box in enumerate(golden["crop_boxes"]):
            yield margin, box.astype(np.float32), golden["crops_array"][row, column], (row, column)


def test_margin_output_boxes_are_those_of_facenet_pytorch():
    """`crops_array` was resized by OpenCV's area mode: only the right box gives the same pixels."""
    picture = np.load(GOLDEN)["picture"]
    for margin, box, crop, case in boxes_with_margins():
        left, top, right, bottom = margin_box(box, (320, 240), margin=margin, output=(160, 160))
        part = picture[top:bottom, left:right]
        got = cv2.resize(part, (160, 160), interpolation=cv2.INTER_AREA)
        assert np.abs(got.astype(int) - crop).max() <= 1, case


def test_margin_crops_are_those_of_facenet_pytorch_for_files():
    golden = np.load(GOLDEN)
    for margin, box, _, case in boxes_with_margins():
        preprocess = Preprocess(160, 160, crop="margin_output", standardise="fixed", margin=margin)
        got = crop_face(golden["picture"], Face(box, None, 1.0), preprocess)
        assert np.abs(got.astype(int) - golden["crops_pil"][case]).max() <= 1, case


@pytest.mark.parametrize("margin", [0, 14, 44])
@pytest.mark.parametrize("output", [None, (160, 160), (96, 112)])
def test_margin_boxes_follow_the_formulas(margin, output):
    generator = np.random.RandomState(5)
    for _ in range(200):
        corner, size = generator.uniform(-20, 250, 2), generator.uniform(3, 120, 2)
        box = np.array([*corner, *(corner + size)], np.float32)
        x1, y1, x2, y2 = map(float, box)
        if output:
            wide = margin * (x2 - x1) / (output[0] - margin)
            high = margin * (y2 - y1) / (output[1] - margin)
        else:
            wide = high = margin
        inside = (
            np.clip([x1 - wide / 2, x2 + wide / 2], 0, 300),
            np.clip([y1 - high / 2, y2 + high / 2], 0, 200),
        )
        expected = [int(v) for v in (inside[0][0], inside[1][0], inside[0][1], inside[1][1])]
        if expected[2] <= expected[0] or expected[3] <= expected[1]:
            with pytest.raises(InputError):
                margin_box(box, (300, 200), margin=margin, output=output)
        else:
            got = margin_box(box, (300, 200), margin=margin, output=output)
            assert list(got) == expected


def test_facenet_s_margin_is_in_pixels_of_the_photo():
    box = np.array([100.7, 50.2, 160.9, 140.4], np.float32)
    assert margin_box(box, (400, 300), margin=44) == (78, 28, 182, 162)
    assert margin_box(box, (170, 150), margin=44) == (78, 28, 170, 150)
    assert margin_box(np.array([5, 5, 50, 60], np.float32), (400, 300), margin=44) == (0, 0, 72, 82)


@pytest.mark.parametrize(
    "box", [(-60, 10, -20, 50), (310, 10, 350, 50), (10, -80, 50, -40), (10, 250, 50, 290)]
)
def test_a_box_outside_the_photo_is_refused(box):
    photo = np.zeros((240, 300, 3), np.uint8)
    with pytest.raises(InputError, match="should lie in the photo of 300x240 pixels"):
        margin_box(np.array(box, np.float32), (300, 240), margin=8)
    preprocess = Preprocess(16, 16, crop="margin_original", standardise="fixed", margin=8)
    assert len(crop_faces(photo, toy_faces((-5, 10, 3, 50)), preprocess)) == 1
    with pytest.raises(InputError, match="Pass the photo that the box was found in"):
        crop_faces(photo, toy_faces(box), preprocess)


def test_a_margin_crop_of_its_own_size_is_the_part_itself():
    image = noise(60, 80, seed=6)
    assert np.array_equal(margin_crop(image, (10, 20, 42, 52), (32, 32)), image[20:52, 10:42])


# ---- the crop a card asks for


@pytest.mark.parametrize("crop", ["margin_original", "margin_output"])
def test_the_two_margins_differ_by_the_size_of_the_face(crop):
    image = noise(240, 300, seed=7)
    faces = toy_faces((100, 60, 180, 150))
    preprocess = Preprocess(40, 48, crop=crop, standardise="fixed", margin=8)
    # 80 x 90 pixels: 8 of the photo, or 8 of 40 x 48 less 8, which are 20 x 18 of the photo.
    box = (96, 56, 184, 154) if crop == "margin_original" else (90, 51, 190, 159)
    expected = margin_crop(image, box, (40, 48))
    assert np.array_equal(crop_faces(image, faces, preprocess)[0], expected)


def test_all_crops_are_those_of_the_single_faces():
    image = noise(240, 300, seed=8)
    faces = toy_faces((10, 20, 70, 90), (100, 60, 180, 150), (200, -10, 290, 80))
    for crop in ("similarity", "margin_original", "margin_output"):
        preprocess = Preprocess(112, 112, crop=crop, standardise="fixed")
        got = crop_faces(image, faces, preprocess)
        assert got.dtype == np.uint8
        assert len({row.tobytes() for row in got}) == 3
        for row, face in zip(got, faces, strict=True):
            assert np.array_equal(row, crop_face(image, face, preprocess))
        assert crop_faces(image, Faces.empty(), preprocess).shape == (0, 112, 112, 3)


def test_a_similarity_crop_needs_landmarks():
    faces = Faces([[1, 1, 9, 9]], None, [1.0])
    preprocess = Preprocess(112, 112, crop="similarity", standardise="fixed")
    with pytest.raises(InputError, match="aligns by five landmarks"):
        crop_faces(noise(20, 20), faces, preprocess)
