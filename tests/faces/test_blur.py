"""Blur: nothing of a face is left, and what is beside it stays."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.errors import InputError, SettingsError
from facenet.faces.blur import CELL_PIXELS, CELLS, STYLES, blur_faces

SIDE = 200


def noise(seed=0, shape=(SIDE, SIDE, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def changed(before, after):
    return np.any(before != after, axis=2)


@pytest.mark.parametrize("how", STYLES)
@pytest.mark.parametrize("rounded", [True, False])
def test_only_the_box_and_its_margin_change(how, rounded):
    photo = noise()
    photo.setflags(write=False)
    after = changed(photo, blur_faces(photo, [(80, 60, 120, 120)], how=how, rounded=rounded))
    rows, columns = np.flatnonzero(after.any(1)), np.flatnonzero(after.any(0))
    assert (columns[0], columns[-1] + 1) == (70, 130)  # a quarter of 40 on each side
    assert (rows[0], rows[-1] + 1) == (45, 135)
    assert after[60:120, 80:120].mean() > 0.999
    corner = after[45:49, 70:74]
    assert not corner.any() if rounded else corner.all()


def coarse(image, box, cell):
    """The means of square cells of a region, by loops."""
    x1, y1, x2, y2 = box
    rows = [
        [image[y : y + cell, x : x + cell].mean((0, 1)) for x in range(x1, x2, cell)]
        for y in range(y1, y2, cell)
    ]
    return np.array(rows)


def twins(box, cell, seed=1):
    """Two pictures that differ in nearly every pixel of a box, but not in the means of cells."""
    one = noise(seed)
    other = one.copy()
    x1, y1, x2, y2 = box
    for y in range(y1, y2, cell):
        for x in range(x1, x2, cell):
            block = one[y : y + cell, x : x + cell].reshape(-1, 3)
            mixed = np.random.default_rng([x, y]).permutation(block)
            other[y : y + cell, x : x + cell] = mixed.reshape(cell, cell, 3)
    return one, other


@pytest.mark.parametrize("how", STYLES)
@pytest.mark.parametrize("side", [64, 128])  # cells of 8 and of 16 pixels
def test_faces_with_the_same_coarse_values_cannot_be_told_apart(how, side):
    box, cell = (40, 40, 40 + side, 40 + side), side // CELLS
    one, other = twins(box, cell)
    assert changed(one, other)[40 : 40 + side, 40 : 40 + side].mean() > 0.95
    half = side / 6  # grown by a quarter of itself, the inner box is the box
    inner = (40 + half, 40 + half, 40 + side - half, 40 + side - half)
    options = {"how": how, "rounded": False}
    assert np.array_equal(
        blur_faces(one, [inner], **options), blur_faces(other, [inner], **options)
    )


@pytest.mark.parametrize("side", [64, 128])
def test_a_mosaic_shows_the_means_to_sixteen_levels(side):
    box, cell = (40, 40, 40 + side, 40 + side), side // CELLS
    y, x = np.mgrid[:SIDE, :SIDE]
    photo = np.stack([x, y, (x + y) // 2], axis=2).astype(np.uint8)
    after = blur_faces(photo, [box], how="pixelate", margin=0, rounded=False)
    shown = coarse(after, box, cell)
    # A box grows by two pixels at least, and its cells with it.
    assert np.abs(shown - coarse(photo, box, cell)).max() <= 8 + 4
    assert set(np.unique(after[40 : 40 + side, 40 : 40 + side]) % 16) == {8}


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 5), (12, 14), (30, 40), (77, 61), (150, 120), (9, 90)]
)
def test_the_number_of_values_is_bounded_at_every_size(size):
    width, height = size
    box = (20.4, 30.2, 20.4 + width, 30.2 + height)
    after = blur_faces(noise(), [box], how="pixelate")
    inside = after[changed(noise(), after)]
    most = np.prod([max(1, min(CELLS, 1.5 * s / CELL_PIXELS + 1)) for s in size])
    assert 1 <= len(np.unique(inside, axis=0)) <= most
    grey = blur_faces(noise(), [box], how="fill")
    assert np.all(grey[changed(noise(), grey)] == 128)


def test_soft_colours_lie_between_the_coarse_values():
    """Noise has a mean of 128 everywhere: nothing of its 0 to 255 may be left."""
    photo = noise()
    after = blur_faces(photo, [(40, 40, 160, 160)], how="blur")
    inside = after[40:160, 40:160]
    assert inside.min() >= 104 and inside.max() <= 152
    assert len(np.unique(inside)) <= 50


@pytest.mark.parametrize("how", STYLES)
@pytest.mark.parametrize(
    "box",
    [
        (-30, -20, 30, 40),
        (170, 180, 260, 300),
        (-500, -500, 900, 900),
        (0, 0, SIDE, SIDE),
        (-1e30, -1e30, 1e30, 1e30),
        (60, 60, 60, 60),
        (100, 100, 60, 60),  # corners the wrong way round
    ],
)
def test_boxes_over_the_border_tiny_and_huge(how, box):
    photo = noise()
    after = changed(photo, blur_faces(photo, [box], how=how, rounded=False))
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    left, right = (int(np.clip(v, 0, SIDE)) for v in (x1 - 2, x2 + 2))
    top, bottom = (int(np.clip(v, 0, SIDE)) for v in (y1 - 2, y2 + 2))
    assert after[top:bottom, left:right].mean() > 0.99


@pytest.mark.parametrize(
    "box", [(300, 10, 340, 50), (-90, 10, -40, 50), (10, 250, 50, 290), (10, -90, 50, -40)]
)
def test_boxes_outside_the_picture_change_nothing(box):
    assert np.array_equal(blur_faces(noise(), [box]), noise())
    assert np.array_equal(blur_faces(noise(), []), noise())
    assert np.array_equal(blur_faces(noise(), np.zeros((0, 4), np.float32)), noise())


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("how", STYLES)
@pytest.mark.parametrize("size", [(20, 24), (60, 80)])
def test_the_eyes_stay_covered_when_the_box_is_off_by_a_fifth(rounded, how, size):
    """In place, along both sides at once, and too small by a fifth as well. The eyes with their
    lids lie at 0.15 to 0.85 of the width and 0.3 to 0.5 of the height of a face."""
    width, height = size
    x, y = 70, 60
    eyes = np.s_[
        round(y + 0.3 * height) : round(y + 0.5 * height),
        round(x + 0.15 * width) : round(x + 0.85 * width),
    ]
    for right in (-0.2, 0, 0.2):
        for down in (-0.2, 0, 0.2):
            for scale in (0.8, 1.0, 1.2):
                middle = np.array([x + width * (0.5 + right), y + height * (0.5 + down)])
                half = scale * np.array([width, height]) / 2
                box = [*(middle - half), *(middle + half)]
                black = np.zeros((SIDE, SIDE, 3), np.uint8)
                after = blur_faces(black, [box], how=how, rounded=rounded)
                assert changed(black, after)[eyes].all(), (right, down, scale)


def test_several_boxes_and_overlaps_are_all_covered():
    photo = noise()
    boxes = np.array([(20, 20, 60, 60), (40, 40, 90, 100), (150, 150, 170, 180)], np.float32)
    after = changed(photo, blur_faces(photo, boxes, how="pixelate"))
    for x1, y1, x2, y2 in boxes.astype(int):
        assert after[y1:y2, x1:x2].mean() > 0.98


def test_a_view_and_a_grey_strip_are_fine():
    view = noise()[:, ::-1, ::-1]
    assert changed(view, blur_faces(view, [(50, 50, 90, 90)]))[50:90, 50:90].mean() > 0.99
    strip = noise(shape=(3, 500, 3))
    assert changed(strip, blur_faces(strip, [(100, -10, 140, 30)]))[:, 110:130].mean() > 0.98


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"how": "smear"}, "how should be one of blur, pixelate, fill; got 'smear'."),
        ({"margin": -0.1}, "margin should be from 0 to 2; got -0.1. 0.25 is usual."),
        ({"margin": float("nan")}, "margin should be from 0 to 2; got nan. 0.25 is usual."),
    ],
)
def test_options_are_checked(options, sentence):
    with pytest.raises(SettingsError) as caught:
        blur_faces(noise(), [], **options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("boxes", "got"),
    [
        ([(1, 2, float("nan"), 4)], "(1, 4) with 1 that are not finite."),
        ([(float("inf"), 2, float("nan"), 4)], "(1, 4) with 2 that are not finite."),
        ([1, 2, 3, 4], "(4,) with 0 that are not finite."),
        (np.zeros((2, 5)), "(2, 5) with 0 that are not finite."),
    ],
)
def test_boxes_that_would_leave_a_face_visible_are_refused(boxes, got):
    with pytest.raises(InputError) as caught:
        blur_faces(noise(), boxes)
    assert str(caught.value) == (
        "Boxes to blur should be finite numbers of the shape (n, 4), x1 y1 x2 y2; got " + got
    )
