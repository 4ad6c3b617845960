"""Pictures that are read but not decoded, and JPEGs decoded at a part of their size."""

from __future__ import annotations

import numpy as np
import picture_maker as maker
import pytest
from PIL import Image

from facenet.errors import ImageError, SettingsError
from facenet.images import REDUCTIONS, ImageLimits, load_image, open_image

PHOTO = maker.photo(203, 150)
JPEG = maker.encode(PHOTO, "JPEG", quality=95)


def means(pixels, side):
    """Means of blocks of side x side pixels, those at the right and below cut; in a loop."""
    height, width = (-(-length // side) for length in pixels.shape[:2])
    out = np.zeros((height, width, 3))
    for y in range(height):
        for x in range(width):
            block = pixels[y * side : (y + 1) * side, x * side : (x + 1) * side]
            out[y, x] = block.reshape(-1, 3).mean(axis=0)
    return out


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_what_is_known_before_decoding(form, tmp_path):
    data = maker.encode(PHOTO, form)
    (tmp_path / "a").write_bytes(data)
    for source in (data, tmp_path / "a"):
        opened = open_image(source)
        assert (opened.width, opened.height) == (PHOTO.shape[1], PHOTO.shape[0])
        assert opened.held == len(data)
        assert opened.decoded == PHOTO.size
        assert opened.reducible == (form == "JPEG")
        assert np.array_equal(opened.pixels(), load_image(data))


def test_arrays_and_pil_images_are_opened_too():
    for source, held in ((PHOTO, PHOTO.nbytes), (Image.fromarray(PHOTO), PHOTO.size // 3 * 4)):
        opened = open_image(source)
        assert (opened.width, opened.height, opened.held) == (203, 150, held)
        assert not opened.reducible
        assert np.array_equal(opened.pixels(2), PHOTO)
    turned = open_image(PHOTO[..., ::-1], color="bgr")
    assert np.array_equal(turned.pixels(), PHOTO)
    odd = open_image(np.zeros(5, np.uint8))
    assert odd.decoded == 0
    with pytest.raises(ImageError, match="should have the shape"):
        odd.pixels()


def test_what_cannot_be_used_is_told_when_it_is_opened(tmp_path):
    for source, said in (
        (tmp_path / "none.jpg", "Check the spelling"),
        (b"", "is empty"),
        (b"GIF89a" + bytes(50), "say GIF"),
        (JPEG[:-20], "ends early"),
    ):
        with pytest.raises(ImageError, match=said):
            open_image(source)
    with pytest.raises(ImageError, match="the limit is 99"):
        open_image(JPEG, limits=ImageLimits(max_pixels=99))
    with pytest.raises(SettingsError, match="color should be"):
        open_image(JPEG, color="hsv")


@pytest.mark.parametrize("part", REDUCTIONS)
def test_a_reduced_jpeg_is_the_mean_of_its_pixels(part):
    """To within a few grey levels in most places, since the lowest frequencies make the mean."""
    reduced = open_image(JPEG).pixels(part)
    wanted = means(load_image(JPEG).astype(np.float64), part)
    assert reduced.shape == wanted.shape
    assert reduced.dtype == np.uint8 and reduced.flags.c_contiguous
    inner = (slice(0, PHOTO.shape[0] // part), slice(0, PHOTO.shape[1] // part))
    off = np.abs(reduced[inner] - wanted[inner])
    assert np.median(off) < 2
    swapped = np.abs(reduced[inner][..., ::-1] - wanted[inner])
    assert np.median(off) < np.median(swapped) / 10


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_upright(orientation):
    data = maker.encode(PHOTO, "JPEG", quality=95, exif=maker.exif(orientation))
    whole, reduced = load_image(data), open_image(data).pixels(2)
    assert reduced.shape == (-(-whole.shape[0] // 2), -(-whole.shape[1] // 2), 3)
    size = (whole.shape[1] // 2, whole.shape[0] // 2)
    shrunk = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BOX), np.float64)
    off = np.abs(reduced[: size[1], : size[0]] - shrunk).mean()
    assert off < np.abs(shrunk[::-1, ::-1] - shrunk).mean() / 4


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_formats_are_decoded_whole(form):
    data = maker.encode(PHOTO, form)
    assert np.array_equal(open_image(data).pixels(4), load_image(data))


@pytest.mark.parametrize("part", REDUCTIONS)
def test_a_jpeg_is_refused_or_not_at_every_size(part):
    """A file whose frame is fine and whose pixels are not; one with fewer pixels than a block."""
    opened = open_image(maker.jpeg_head(64, 48))
    with pytest.raises(ImageError, match="cannot be decoded"):
        opened.pixels(part)
    small = maker.encode(maker.photo(3, 2), "JPEG")
    assert open_image(small).pixels(part).shape == (-(-2 // part), -(-3 // part), 3)
