"""The two samplers against loops over single output pixels."""

from math import ceil, floor

import cv2
import numpy as np
import pytest

from facenet.faces.compiled import Compiled
from facenet.faces.resample import AreaSampler, OpenCvSampler

CLOSE = 3e-5
"""Of values 0 to 255: twice the rounding of float32 there."""


def pixels(standardised):
    """What the networks take, (..., 3, h, w), as values 0 to 255, channels last, in float64."""
    return np.moveaxis(standardised, -3, -1).astype(float) * 128 + 127.5


@pytest.fixture(params=["compiled", "numpy"])
def area(request, kernels):
    """Makes an `AreaSampler`, with the compiled functions and without."""
    here = Compiled(kernels if request.param == "compiled" else None)
    return lambda image: AreaSampler(image, lambda: here)


def noise(height, width, *, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def naive_area(part, height, width):
    """torch's adaptive_avg_pool2d, cell by cell, in float64."""
    rows, columns = part.shape[:2]
    out = np.empty((height, width, 3))
    for i in range(height):
        for j in range(width):
            top, bottom = floor(i * rows / height), ceil((i + 1) * rows / height)
            left, right = floor(j * columns / width), ceil((j + 1) * columns / width)
            out[i, j] = part[top:bottom, left:right].reshape(-1, 3).astype(float).mean(axis=0)
    return out


@pytest.mark.parametrize(
    "size", [(30, 41), (12, 13), (7, 50), (50, 7), (1, 1), (60, 82), (61, 90), (30, 82)]
)
def test_area_level_is_the_mean_of_touched_pixels(area, size):
    image = noise(30, 41)
    got = area(image).level(*size)
    assert got.dtype == np.float32 and got.shape == (3, *size)
    np.testing.assert_allclose(pixels(got), naive_area(image, *size), atol=CLOSE)


def test_area_level_of_the_same_size_is_the_picture(area):
    image = noise(23, 31)
    assert np.array_equal(pixels(area(image).level(23, 31)), image)


def test_large_cells_and_small_ones_are_read_alike(area):
    """Cells of up to 256 pixels are summed in 16 bits, larger ones in 32."""
    image = noise(200, 300, seed=6)
    image[:100] = 255  # sums as large as they get
    sampler = area(image)
    for size in ((13, 18), (12, 19), (12, 18), (4, 6)):
        np.testing.assert_allclose(
            pixels(sampler.level(*size)), naive_area(image, *size), atol=CLOSE
        )
    boxes = np.array([[1, 1, 300, 200], [1, 1, 24, 24], [-99, -99, 260, 190]])
    for crop, (x1, y1, x2, y2) in zip(pixels(sampler.crops(boxes, 12)), boxes, strict=True):
        part = image[max(y1, 1) - 1 : y2, max(x1, 1) - 1 : x2]
        np.testing.assert_allclose(crop, naive_area(part, 12, 12), atol=CLOSE)


BOXES = [
    (5, 6, 28, 29),  # inside, 24 pixels a side: nothing to resample
    (1, 1, 60, 60),  # large
    (10, 12, 15, 17),  # 6 pixels: enlarged
    (20, 20, 20, 20),  # one pixel
    (-9, 3, 20, 32),  # over the left border
    (50, -7, 79, 22),  # over the top border
    (60, 40, 95, 75),  # over the right and the bottom border
    (-50, -40, 200, 210),  # the whole picture and more
    (80, 60, 99, 79),  # the last pixel only
]


@pytest.mark.parametrize("side", [24, 48])
def test_area_crops_are_cut_at_the_borders(area, side):
    image = noise(60, 80, seed=1)
    got = area(image).crops(np.array(BOXES), side)
    assert got.shape == (len(BOXES), 3, side, side) and got.dtype == np.float32
    for crop, (x1, y1, x2, y2) in zip(pixels(got), BOXES, strict=True):
        part = image[max(y1, 1) - 1 : min(y2, 60), max(x1, 1) - 1 : min(x2, 80)]
        np.testing.assert_allclose(crop, naive_area(part, side, side), atol=CLOSE)


def test_sums_that_wrap_around_stay_exact(area):
    # 5000 x 4000 white pixels sum to 5.1e9 a channel, more than int32 and than uint32 hold.
    image = np.full((4000, 5000, 3), 255, np.uint8)
    image[3990:, 4990:] = noise(10, 10, seed=2)
    sampler = area(image)
    assert np.all(pixels(sampler.level(12, 16))[:11, :15] == 255)
    boxes = np.array([[4991, 3991, 5000, 4000], [4981, 3981, 5000, 4000], [1, 1, 4800, 3900]])
    got = pixels(sampler.crops(boxes, 24))
    assert np.array_equal(got[0], naive_area(image[3990:, 4990:], 24, 24))
    np.testing.assert_allclose(got[1], naive_area(image[3980:, 4980:], 24, 24), atol=CLOSE)
    assert np.all(got[2] == 255)


def test_samplers_take_pictures_that_are_views(area):
    image = noise(40, 50, seed=3)[:, ::-1, ::-1]
    copy = np.ascontiguousarray(image)
    boxes = np.array([[3, 4, 30, 31], [-5, -5, 20, 20]])
    for sampler in (area, OpenCvSampler):
        assert np.array_equal(sampler(image).level(17, 19), sampler(copy).level(17, 19))
        assert np.array_equal(sampler(image).crops(boxes, 24), sampler(copy).crops(boxes, 24))


def naive_padded(image, box):
    """A 1-based inclusive box pixel by pixel, zero where the picture has none."""
    x1, y1, x2, y2 = box
    height, width = image.shape[:2]
    out = np.zeros((y2 - y1 + 1, x2 - x1 + 1, 3), np.float32)
    for y in range(y1, y2 + 1):
        for x in range(x1, x2 + 1):
            if 1 <= y <= height and 1 <= x <= width:
                out[y - y1, x - x1] = image[y - 1, x - 1]
    return out


@pytest.mark.parametrize("side", [24, 48])
def test_opencv_crops_are_zero_outside_the_picture(side):
    image = noise(60, 80, seed=4)
    got = OpenCvSampler(image).crops(np.array(BOXES), side)
    assert got.dtype == np.float32 and got.shape == (len(BOXES), 3, side, side)
    for crop, box in zip(pixels(got), BOXES, strict=True):
        padded = naive_padded(image, box)
        expected = cv2.resize(padded, (side, side), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(crop, expected, atol=CLOSE)
    whole = OpenCvSampler(image).crops(np.array([BOXES[0]]), 24)
    assert np.array_equal(pixels(whole)[0], image[5:29, 4:28])


def test_opencv_shrinks_whole_blocks_to_their_mean():
    image = noise(48, 96, seed=5)
    blocks = image.reshape(24, 2, 48, 2, 3).astype(float).mean(axis=(1, 3))
    got = pixels(OpenCvSampler(image).level(24, 48))
    assert np.array_equal(got, np.floor(got))  # facenet resizes the 8-bit picture
    assert np.abs(got - blocks).max() <= 0.5
    crop = OpenCvSampler(image).crops(np.array([[1, 1, 48, 48]]), 24)[0]
    np.testing.assert_allclose(pixels(crop), blocks[:, :24], atol=CLOSE)  # crops are not rounded


def test_compiled_and_not_are_the_same_to_the_bit(kernels):
    image = noise(211, 317, seed=7)
    ours, plain = AreaSampler(image, lambda: Compiled(kernels)), AreaSampler(image, Compiled)
    for size in ((127, 191), (90, 135), (12, 18), (211, 317), (300, 400)):
        assert np.array_equal(ours.level(*size), plain.level(*size))
    for side in (24, 48):
        assert np.array_equal(ours.crops(np.array(BOXES), side), plain.crops(np.array(BOXES), side))
    none = np.zeros((0, 4), np.int64)
    assert ours.crops(none, 24).shape == plain.crops(none, 24).shape == (0, 3, 24, 24)
