"""Augmentation: each change against another way to the same pixels, and its probability."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from facenet.errors import SettingsError
from facenet.train import augment
from facenet.train.augment import PLAIN, AugmentSettings, augmented


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def draws(settings: AugmentSettings, image, size: int, count: int = 200):
    random = np.random.default_rng(1)
    return [augmented(image, size, settings, random) for _ in range(count)]


def test_nothing_changes_what_fits():
    image = picture(20, 20)
    assert np.array_equal(augmented(image, 20, PLAIN, np.random.default_rng(0)), image)


def test_half_are_mirrored_and_the_others_not():
    image = picture(12, 12)
    mirrored = [np.array_equal(one, image[:, ::-1]) for one in draws(AugmentSettings(), image, 12)]
    plain = [np.array_equal(one, image) for one in draws(AugmentSettings(), image, 12)]
    assert [a != b for a, b in zip(mirrored, plain, strict=True)] == [True] * 200
    assert 70 < sum(mirrored) < 130


def test_the_same_generator_gives_the_same_picture():
    settings = AugmentSettings(crop=True, rotate=10, fit="crop", adaface=0.7, jpeg=0.5)
    image = picture(30, 24)
    kept = image.copy()
    first, second = draws(settings, image, 20, 30), draws(settings, image, 20, 30)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert {one.shape for one in first} == {(20, 20, 3)}
    assert all(one.flags.c_contiguous and one.dtype == np.uint8 for one in first)
    assert np.array_equal(image, kept)


def test_resizing_is_pillows():
    image = picture(30, 24)
    wanted = np.asarray(Image.fromarray(image).resize((20, 20), Image.Resampling.BILINEAR))
    got = augmented(image, 20, PLAIN, np.random.default_rng(0))
    assert np.max(np.abs(got.astype(int) - wanted)) <= 1


@pytest.mark.parametrize(("height", "width"), [(9, 30), (30, 9), (9, 10), (21, 20), (25, 31)])
def test_the_middle_is_cut_and_black_is_added_as_in_tensorflow(height, width):
    """``resize_image_with_crop_or_pad``: halves rounded down, in front."""
    image = picture(height, width)
    got = augmented(image, 20, AugmentSettings(flip=False, fit="crop"), np.random.default_rng(0))
    wanted = np.zeros((20, 20, 3), np.uint8)
    for y in range(20):
        for x in range(20):
            from_y = y + (max(0, height - 20) // 2) - (max(0, 20 - height) // 2)
            from_x = x + (max(0, width - 20) // 2) - (max(0, 20 - width) // 2)
            if 0 <= from_y < height and 0 <= from_x < width:
                wanted[y, x] = image[from_y, from_x]
    assert np.array_equal(got, wanted)


def test_a_random_window_is_any_window():
    image = np.zeros((12, 13, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(12)[:, None], np.arange(13)[None]
    settings = AugmentSettings(crop=True, flip=False)
    corners = {tuple(one[0, 0, :2].tolist()) for one in draws(settings, image, 10)}
    assert corners == {(y, x) for y in range(3) for x in range(4)}
    for one in draws(settings, image, 10, 20):
        y, x = one[0, 0, :2].tolist()
        assert np.array_equal(one, image[y : y + 10, x : x + 10])


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_a_picture_smaller_than_the_window_is_no_error(fit):
    """Enlarged, or with black around it, where TensorFlow's random_crop failed (facenet)."""
    image = np.full((8, 40, 3), 200, np.uint8)
    got = augmented(image, 16, AugmentSettings(crop=True, fit=fit), np.random.default_rng(0))
    assert got.shape == (16, 16, 3)
    assert np.mean(got == 200) == (1.0 if fit == "resize" else 0.5)


def test_turning_is_about_the_middle():
    image = picture(15, 15)
    assert np.array_equal(augment.rotate(image, 90), np.rot90(image))
    assert np.array_equal(augment.rotate(image, 0), image)
    wide = np.zeros((41, 61, 3), np.uint8)
    wide[18:23, 28:33] = 255
    for degrees in (10.0, -7.0):
        turned = Image.fromarray(wide).rotate(degrees, Image.Resampling.BICUBIC)
        away = np.abs(augment.rotate(wide, degrees).astype(int) - np.asarray(turned))
        assert away.mean() < 0.1
    light = np.full((41, 41, 3), 255, np.uint8)
    most = draws(AugmentSettings(rotate=10, flip=False), light, 41)
    black = [np.mean(one[0] < 128) for one in most]
    assert max(black) < np.sin(np.radians(10)) + 0.5
    assert len({round(share, 2) for share in black}) > 5


def test_a_part_is_kept_where_it_is():
    image = picture(40, 40) | 1
    shares = []
    for seed in range(200):
        got = augment.crop_paste(image, np.random.default_rng(seed))
        kept = got.any(axis=2)
        rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
        h, w = len(rows), len(columns)
        assert kept.sum() == h * w == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert np.array_equal(got[kept], image[kept])
        assert 0.7 < w / h < 1.42
        shares.append(h * w / 1600)
    assert 0.17 < min(shares) < 0.25
    assert 0.85 < max(shares) <= 1
    long = picture(2, 200)
    assert np.array_equal(augment.crop_paste(long, np.random.default_rng(0)), long)


def test_lower_resolution_keeps_the_size_and_loses_detail():
    image = picture(40, 30)
    for seed in range(30):
        got = augment.low_resolution(image, np.random.default_rng(seed))
        assert (got.shape, got.dtype) == (image.shape, np.uint8)
    grid = np.kron(picture(4, 4), np.ones((10, 10, 1), np.uint8))
    assert augment.low_resolution(picture(1, 1), np.random.default_rng(0)).shape == (1, 1, 3)
    assert len(np.unique(augment.low_resolution(grid, np.random.default_rng(3)))) > 3


@pytest.mark.parametrize("factor", [0.5, 0.83, 1.0, 1.21, 1.5])
@pytest.mark.parametrize(
    ("ours", "pillow"),
    [
        (augment.brightness, ImageEnhance.Brightness),
        (augment.contrast, ImageEnhance.Contrast),
        (augment.saturation, ImageEnhance.Color),
    ],
)
def test_colours_are_pillows(factor, ours, pillow):
    image = picture(16, 16)
    wanted = np.asarray(pillow(Image.fromarray(image)).enhance(factor)).astype(int)
    assert np.max(np.abs(ours(image, factor).astype(int) - wanted)) <= 1
    assert np.array_equal(augment.grey(image), np.asarray(Image.fromarray(image).convert("L")))


def test_jpeg_costs_more_at_a_lower_quality():
    image = np.asarray(Image.fromarray(picture(6, 6)).resize((48, 48)))
    errors = [np.abs(augment.recompress(image, q).astype(int) - image).mean() for q in (20, 95)]
    assert errors[0] > 1.5 * errors[1] > 0
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert np.argmax(augment.recompress(red, 90)[0, 0]) == 0


@pytest.mark.parametrize("name", ["adaface", "jpeg"])
def test_probabilities_are_met(name):
    """1 - (1 - p)**3 for AdaFace's three, p for JPEG; a change may leave a picture as it was."""
    image = np.asarray(Image.fromarray(picture(6, 6)).resize((24, 24)))
    wanted = 0.488 if name == "adaface" else 0.2
    settings = AugmentSettings(flip=False, **{name: 0.2})
    share = np.mean([not np.array_equal(one, image) for one in draws(settings, image, 24, 400)])
    assert abs(share - wanted) < 0.08


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "stretch"}, "augment.fit should be one of resize, crop; got 'stretch'"),
        ({"rotate": -1.0}, "augment.rotate should be from 0 to 180; got -1"),
        ({"adaface": 1.1}, "augment.adaface should be from 0 to 1; got 1.1"),
        ({"jpeg": float("nan")}, "augment.jpeg should be from 0 to 1; got nan"),
    ],
)
def test_a_value_outside_its_range_is_told(options, message):
    with pytest.raises(SettingsError, match=message):
        AugmentSettings(**options)
