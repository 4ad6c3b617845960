"""The bilinear resize against Pillow and against the triangle filter by the definition."""

import numpy as np
import PIL.Image
import pytest

from facenet.faces.bilinear import resize_bilinear


def noise(height, width, *, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((40, 50), (160, 160)),  # enlarged
        ((300, 310), (160, 160)),  # reduced
        ((100, 400), (112, 96)),  # one of each
        ((1, 1), (16, 16)),
        ((3, 1), (20, 7)),
        ((997, 641), (31, 33)),  # far reduced
    ],
)
def test_it_is_pillow_s(size, target):
    image = noise(*size)
    wanted = PIL.Image.fromarray(image).resize(target, PIL.Image.Resampling.BILINEAR)
    got = resize_bilinear(image, *target)
    gap = np.abs(got.astype(int) - np.asarray(wanted, int))
    assert gap.max() <= 1
    assert np.mean(gap > 0) < 0.02


def test_the_same_size_changes_nothing():
    image = noise(33, 47, seed=1)
    assert np.array_equal(resize_bilinear(image, 47, 33), image)


def test_a_plain_picture_stays_plain():
    image = np.full((321, 123, 3), (7, 128, 255), np.uint8)
    assert np.all(resize_bilinear(image, 50, 400) == image[0, 0])


def test_twice_too_large_is_weighted_one_three_three_one():
    row = [0, 80, 160, 240, 40, 200, 120, 8]
    image = np.repeat(np.array(row, np.uint8)[None, :, None], 3, axis=2)
    got = resize_bilinear(image, 4, 1)[0, :, 0].tolist()
    inner = [(row[i - 1] + 3 * row[i] + 3 * row[i + 1] + row[i + 2]) / 8 for i in (2, 4)]
    ends = [(3 * 0 + 3 * 80 + 160) / 7, (200 + 3 * 120 + 3 * 8) / 7]
    wanted = [ends[0], *inner, ends[1]]
    assert got == [int(v + 0.5) for v in wanted]
