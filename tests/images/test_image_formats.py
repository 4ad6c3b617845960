"""What comes out of a picture file, against Pillow or against the values that went in."""

from __future__ import annotations

import struct

import numpy as np
import picture_maker as maker
import pytest
from PIL import Image, ImageOps

from facenet.errors import ImageError
from facenet.images import load_image

SCENE = maker.scene()
LOSSLESS = [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("BMP", {})]
TIFF_KINDS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"]


@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_rgb_comes_back_exactly(form, options):
    pixels = load_image(maker.encode(SCENE, form, **options))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, SCENE)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (64, 65)])
@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_any_size_comes_back_exactly(form, options, size):
    pixels = maker.photo(*size)
    assert np.array_equal(load_image(maker.encode(pixels, form, **options)), pixels)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_is_what_pillow_sees(progressive, subsampling):
    data = maker.encode(
        maker.photo(), "JPEG", quality=85, progressive=progressive, subsampling=subsampling
    )
    assert maker.largest_difference(load_image(data), maker.seen_by_pillow(data)) <= 2


def test_jpeg_with_restart_markers_is_what_pillow_sees():
    data = maker.encode(maker.photo(200, 160), "JPEG", restart_marker_blocks=1)
    assert data.count(b"\xff\xd0") > 10
    assert maker.largest_difference(load_image(data), maker.seen_by_pillow(data)) <= 2


def test_lossy_webp_is_what_pillow_sees():
    data = maker.encode(maker.photo(), "WEBP", quality=70)
    assert maker.largest_difference(load_image(data), maker.seen_by_pillow(data)) <= 2


@pytest.mark.parametrize("compression", TIFF_KINDS)
def test_tiff_compressions(compression):
    assert np.array_equal(load_image(maker.encode(SCENE, "TIFF", compression=compression)), SCENE)


def test_tiff_with_jpeg_inside_is_what_pillow_sees():
    data = maker.encode(maker.photo(), "TIFF", compression="jpeg")
    assert maker.largest_difference(load_image(data), maker.seen_by_pillow(data)) <= 2


def test_fax_tiff_is_black_and_white():
    image = Image.fromarray(SCENE).convert("1")
    data = maker.encode(image, "TIFF", compression="group4")
    assert np.array_equal(load_image(data), np.asarray(image.convert("RGB")))


def test_a_tiff_compression_that_opencv_lacks_is_refused_with_advice():
    with pytest.raises(ImageError, match="TIFF that cannot be decoded.*save it as 8-bit JPEG"):
        load_image(maker.encode(SCENE, "TIFF", compression="zstd"))


@pytest.mark.parametrize("mode", ["L", "P", "1"])
@pytest.mark.parametrize(("form", "options"), LOSSLESS)
def test_grey_palette_and_one_bit(mode, form, options):
    image = Image.fromarray(SCENE).convert(mode)
    want = np.asarray(image.convert("RGB"))
    assert np.array_equal(load_image(maker.encode(image, form, **options)), want)


def test_grey_jpeg_has_three_equal_channels():
    pixels = load_image(maker.encode(Image.fromarray(SCENE).convert("L"), "JPEG"))
    assert pixels.shape == SCENE.shape
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("color", [maker.GREY, maker.PALETTE])
def test_png_of_few_bits(bits, color):
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 2**bits, (5, 8))
    table = rng.integers(0, 256, (2**bits, 3), dtype=np.uint8)
    packed = bytearray()
    for row in values:
        number = 0
        for value in row:
            number = number << bits | int(value)
        packed += b"\0" + number.to_bytes(bits, "big")
    extra = maker.chunk(b"PLTE", table.tobytes()) if color == maker.PALETTE else b""
    data = maker.png((8, 5), bytes(packed), bits=bits, color=color, extra=extra)
    grey = np.repeat((values * 255 // (2**bits - 1)).astype(np.uint8)[..., None], 3, axis=2)
    want = table[values] if color == maker.PALETTE else grey
    assert np.array_equal(load_image(data), want)


@pytest.mark.parametrize("alpha", [0, 1, 128, 255])
@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {}), ("BMP", {})],
)
def test_alpha_is_dropped_and_the_colour_below_it_stays(form, options, alpha):
    image = Image.fromarray(np.dstack([SCENE, np.full(SCENE.shape[:2], alpha, np.uint8)]))
    assert np.array_equal(load_image(maker.encode(image, form, **options)), SCENE)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_with_alpha(form):
    grey = SCENE[..., 0]
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(SCENE[..., 1].copy())])
    assert np.array_equal(load_image(maker.encode(image, form)), np.dstack([grey] * 3))


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))])
def test_palette_with_transparency(transparency):
    image = Image.fromarray(SCENE).quantize(16)
    data = maker.encode(image, "PNG", transparency=transparency)
    assert np.array_equal(load_image(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("color", [maker.GREY, maker.GREY_ALPHA, maker.RGB, maker.RGBA])
def test_sixteen_bit_png_keeps_the_high_byte(color):
    channels = {maker.GREY: 1, maker.GREY_ALPHA: 2, maker.RGB: 3, maker.RGBA: 4}[color]
    values = np.random.default_rng(color).integers(0, 65536, (6, 7, channels), dtype=np.uint16)
    data = maker.png((7, 6), maker.lines(values), bits=16, color=color)
    high = (values // 256).astype(np.uint8)
    want = high[..., :3] if channels >= 3 else np.repeat(high[..., :1], 3, axis=2)
    assert np.array_equal(load_image(data), want)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_both_byte_orders(order, channels, dtype):
    shape = (6, 7) if channels is None else (6, 7, channels)
    top = np.iinfo(dtype).max
    values = np.random.default_rng(1).integers(0, top, shape, dtype=dtype, endpoint=True)
    high = (values // 256 if dtype == np.uint16 else values).astype(np.uint8)
    want = np.dstack([high] * 3) if channels is None else high[..., :3]
    assert np.array_equal(load_image(maker.tiff((7, 6), values, order=order)), want)


@pytest.mark.parametrize(("dtype", "told"), [("f2", "16"), ("f4", "32"), ("f8", "64")])
def test_floating_point_tiff_is_refused_with_advice(dtype, told):
    values = np.linspace(0, 1, 42).reshape(6, 7).astype(dtype)
    with pytest.raises(ImageError) as refused:
        load_image(maker.tiff((7, 6), values))
    assert f"has floating-point numbers of {told} bits" in str(refused.value)
    assert "Scale the values to 0-255" in str(refused.value)


def test_floating_point_tiff_of_pillow_is_refused():
    with pytest.raises(ImageError, match="floating-point numbers of 32 bits"):
        load_image(maker.encode((SCENE[..., 0] / 255).astype(np.float32), "TIFF"))


def test_thirty_two_bit_whole_tiff_is_refused():
    with pytest.raises(
        ImageError, match="should be a TIFF of whole numbers.*has whole numbers of 32"
    ):
        load_image(maker.tiff((7, 6), np.zeros((6, 7), np.uint32)))


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_signed_tiff_is_refused(dtype):
    with pytest.raises(ImageError, match="has signed numbers of (8|16) bits. Scale the values"):
        load_image(maker.tiff((7, 6), np.zeros((6, 7), dtype)))


def test_camera_raw_is_refused_and_not_read_as_its_preview():
    preview = maker.tiff((7, 6), np.zeros((6, 7, 3), np.uint8), t254=1)
    with pytest.raises(ImageError, match="begins with a preview, as camera raw files.*Develop it"):
        load_image(preview)
    page = maker.tiff((7, 6), np.zeros((6, 7, 3), np.uint8), t254=2)
    assert load_image(page).shape == (6, 7, 3)


def test_cmyk_tiff_and_jpeg_are_what_pillow_sees():
    image = Image.fromarray(maker.photo()).convert("CMYK")
    for form, tolerance in (("TIFF", 0), ("JPEG", 2)):
        data = maker.encode(image, form)
        assert maker.opened(data).mode == "CMYK"
        assert maker.largest_difference(load_image(data), maker.seen_by_pillow(data)) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_orientation_of_files_and_of_pil_images(form, options, orientation):
    data = maker.encode(SCENE, form, exif=maker.exif(orientation), **options)
    image = maker.opened(data)
    assert image.getexif()[274] == orientation
    want = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert want.shape[:2] == (SCENE.shape[:2] if orientation < 5 else SCENE.shape[1::-1])
    assert maker.largest_difference(load_image(data), want) <= 2
    assert maker.largest_difference(load_image(maker.opened(data)), want) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_by_where_the_corners_go(orientation):
    corners = {  # TIFF 6.0: where row 0 and column 0 are; so, clockwise from the top left
        1: "abdc", 2: "bacd", 3: "dcab", 4: "cdba", 5: "acdb", 6: "cabd", 7: "dbac", 8: "bdca",
    }  # fmt: skip
    grey = np.array([[10, 20], [30, 40]], np.uint8)
    names = dict(zip((10, 20, 30, 40), "abcd", strict=True))
    data = maker.encode(np.dstack([grey] * 3), "PNG", exif=maker.exif(orientation))
    seen = load_image(data)[..., 0]
    clockwise = [seen[0, 0], seen[0, 1], seen[1, 1], seen[1, 0]]
    assert "".join(names[int(value)] for value in clockwise) == corners[orientation]


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation):
    data = maker.encode(SCENE, "PNG", exif=maker.exif(orientation))
    assert np.array_equal(load_image(data), SCENE)
    assert np.array_equal(load_image(maker.opened(data)), SCENE)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_pil_image_is_turned_too(form):
    grey = (SCENE[..., 0].astype(np.uint16) << 8) + SCENE[..., 1]
    data = maker.encode(grey, form, exif=maker.exif(6))
    image = maker.opened(data)
    assert image.mode.startswith("I;16")
    want = np.dstack([np.rot90(SCENE[..., 0], -1)] * 3)
    assert np.array_equal(load_image(data), want)
    assert np.array_equal(load_image(image), want)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_taken(form):
    other = [Image.fromarray(255 - SCENE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = maker.encode(SCENE, form, save_all=True, append_images=other, **options)
    assert maker.opened(data).n_frames == 2
    assert maker.largest_difference(load_image(data), maker.seen_by_pillow(data)) <= 2


def test_bmp_from_the_top_down_and_with_the_old_header():
    row = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]], np.uint8)
    picture = np.concatenate([row, row + 100])
    body = picture[..., ::-1].tobytes()
    flipped = picture[::-1, :, ::-1].tobytes()
    new = struct.pack("<IiiHHIIiiII", 40, 4, -2, 1, 24, 0, 0, 0, 0, 0, 0)
    old = struct.pack("<IHHHH", 12, 4, 2, 1, 24)
    for header, pixels in ((new, body), (old, flipped)):
        start = 14 + len(header)
        data = b"BM" + struct.pack("<IHHI", start + 24, 0, 0, start) + header + pixels
        assert np.array_equal(load_image(data), picture)
