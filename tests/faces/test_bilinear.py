"""The bilinear resize against Pillow and against the triangle filter by the definition."""

import numpy as np
import PIL.Image
import pytest

from facenet.faces.bilinear import resize_bilinear
from facenet.faces.compiled import Compiled, compiled


def noise(height, width, *, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


SIZES = [
    ((40, 50), (160, 160)),  # enlarged
    ((300, 310), (160, 160)),  # reduced
    ((100, 400), (112, 96)),  # one of each
    ((1, 1), (16, 16)),
    ((3, 1), (20, 7)),
    ((997, 641), (31, 33)),  # far reduced
    ((641, 997), (2, 1)),
]
WAYS = pytest.mark.parametrize("find", [compiled, Compiled], ids=["compiled", "numpy"])


def pillow(image, width, height):
    """Pillow's answer, one axis after the other: newer versions begin with the one that pays."""
    bilinear = PIL.Image.Resampling.BILINEAR
    narrow = PIL.Image.fromarray(image).resize((width, image.shape[0]), bilinear)
    return np.asarray(narrow.resize((width, height), bilinear))


@WAYS
@pytest.mark.parametrize(("size", "target"), SIZES)
def test_it_is_pillow_s(size, target, find):
    image = noise(*size)
    got = resize_bilinear(image, *target, find=find)
    assert got.dtype == np.uint8 and got.shape == (target[1], target[0], 3)
    assert np.array_equal(got, pillow(image, *target))
    at_once = PIL.Image.fromarray(image).resize(target, PIL.Image.Resampling.BILINEAR)
    assert np.abs(got.astype(int) - np.asarray(at_once)).max() <= 1


@WAYS
def test_sizes_by_chance_and_parts_of_pictures_are_pillow_s_too(find):
    generator = np.random.default_rng(4)
    for seed in range(60):
        height, width, *target = (int(n) for n in generator.integers(1, 130, 4))
        whole = noise(height + 5, width + 4, seed=seed)
        for part in (whole[2:-3, 3:-1], whole[2:-3, 3:-1][::-1], whole[2:-3, 3:-1, ::-1]):
            got = resize_bilinear(part, *target, find=find)
            assert np.array_equal(got, pillow(np.ascontiguousarray(part), *target))


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
