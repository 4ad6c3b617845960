"""The parsers of headers: sizes, signatures, and the tricks of forged files."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import picture_maker as maker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facenet.errors import ImageError
from facenet.images import SUFFIXES, Header, load_image, read_header
from facenet.images.header import plain

FORMATS = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": maker.exif(1)}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]
NAMES = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "BMP": "BMP", "TIFF": "TIFF"}


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(FORMATS))
@settings(max_examples=120, deadline=None)
def test_format_and_size_are_what_was_saved(width, height, kind):
    form, options = kind
    data = maker.encode(maker.scene(width, height), form, **options)
    assert read_header(data, "x") == Header(NAMES[form], width, height)


@given(st.integers(1, 16384), st.integers(1, 16384))
@settings(max_examples=60, deadline=None)
def test_sizes_of_bare_heads(width, height):
    for kind in (b"VP8X", b"VP8L"):
        assert read_header(maker.webp_head(kind, width, height), "x") == Header(
            "WebP", width, height
        )
    small = width % 16383 + 1, height % 16383 + 1
    assert read_header(maker.webp_head(b"VP8 ", *small), "x") == Header("WebP", *small)
    assert read_header(maker.bmp_head(width, -height), "x") == Header("BMP", width, height)
    assert read_header(maker.jpeg_head(width, height), "x") == Header("JPEG", width, height)


@pytest.mark.parametrize("kind", [b"\x01\x00", b"\x03\x00", b"\x04\x00"])
def test_tiff_sizes_of_any_whole_number_type(kind):
    data = bytearray(maker.tiff((7, 6), np.zeros((6, 7), np.uint8)))
    for entry in (0, 1):
        data[10 + 12 * entry + 2 : 10 + 12 * entry + 4] = kind
    assert read_header(bytes(data), "x") == Header("TIFF", 7, 6)
    assert load_image(bytes(data)).shape == (6, 7, 3)


def gif() -> bytes:
    return maker.encode(maker.scene(), "GIF")


FOREIGN = {
    "say GIF": gif(),
    "say PDF": b"%PDF-1.7\n",
    "say ICO": maker.encode(maker.scene(32, 32), "ICO"),
    "say BigTIFF": b"II+\x00\x08\x00\x00\x00",
    "say Photoshop": b"8BPS\x00\x01",
    "say JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "say JPEG XL": b"\xff\x0a\xfa\x7f",
    "say ZIP": b"PK\x03\x04\x14\x00",
    "say HEIC or AVIF": b"\x00\x00\x00\x24ftypheic\x00\x00\x00\x00mif1",
    "say MP4 or MOV, a video": b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00",
    "say SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "say XML or SVG": b'\xef\xbb\xbf<?xml version="1.0"?><svg/>',
    "say HTML, a web page": b"\n\n<!DOCTYPE html><html>404</html>",
    "say a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "are b'hello wo'": b"hello world",
    "are b'\\xff\\xd8'": b"\xff\xd8",
}


@pytest.mark.parametrize(("told", "data"), FOREIGN.items(), ids=lambda v: str(v)[:20])
def test_other_formats_are_refused_by_their_first_bytes(told, data):
    with pytest.raises(ImageError) as refused:
        load_image(data)
    message = str(refused.value)
    assert message.startswith("the picture (bytes) should be JPEG, PNG, WebP, BMP or TIFF; ")
    assert f"its first bytes {told}" in message
    assert message.endswith("Save the picture as one of these.")


def test_big_endian_bigtiff_and_avif_are_refused():
    for data, told in ((b"MM\x00+\x00\x08", "BigTIFF"), (b"\0\0\0\x20ftypavif\0", "HEIC or AVIF")):
        with pytest.raises(ImageError, match=f"say {told}"):
            read_header(data, "x")


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".gif", ".txt", ""])
def test_the_ending_of_the_name_is_no_matter(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(maker.encode(maker.scene(), "PNG"))
    assert np.array_equal(load_image(path), maker.scene())
    path.write_bytes(gif())
    with pytest.raises(ImageError, match=f"{re.escape(str(path))} should be JPEG.*say GIF"):
        load_image(path)


@pytest.mark.parametrize(
    "data",
    [
        maker.png((0, 3), b""),
        maker.bmp_head(0, 3),
        maker.bmp_head(-3, 3),
        maker.jpeg_head(3, 0),
        maker.tiff((0, 6), np.zeros((6, 7), np.uint8)),
        maker.tiff((7, 6), np.zeros((6, 7), np.uint8), t257=None),
    ],
)
def test_pictures_without_a_pixel_are_refused(data):
    with pytest.raises(ImageError, match=r"should have at least one pixel; it says it is -?\d+x"):
        load_image(data)


# ---- forged files: what this parser reads must be what the decoder reads


def test_of_two_jpeg_frames_the_first_counts():
    frame = maker.jpeg_head(30000, 30000)[2:21]
    assert frame[:2] == b"\xff\xc0"
    assert read_header(maker.jpeg_head(8, 8, before=frame), "x") == Header("JPEG", 30000, 30000)


def test_jpeg_markers_without_a_length_do_not_hide_a_frame():
    frame = maker.jpeg_head(30000, 30000)[2:21]
    jump = b"\xff\xd0\x00\x13"  # taken for a segment of 19 bytes, it would jump over the frame
    for before in (b"\xff\xd0" + frame, jump + frame, b"\xff\x01" + frame, b"\xff\xff" + frame):
        data = maker.jpeg_head(8, 8, before=before)
        assert read_header(data, "x") == Header("JPEG", 30000, 30000)


def test_jpeg_frame_inside_a_comment_is_no_frame():
    frame = maker.jpeg_head(30000, 30000)[2:21]
    comment = b"\xff\xfe" + struct.pack(">H", len(frame) + 2) + frame
    assert read_header(maker.jpeg_head(8, 9, before=comment), "x") == Header("JPEG", 8, 9)


def test_jpeg_of_endless_scans_is_refused():
    data = maker.jpeg_head(8, 8)
    scan = data[data.index(b"\xff\xda") : -2]
    assert read_header(data[:-2] + scan * 99 + data[-2:], "x").format == "JPEG"
    with pytest.raises(ImageError, match="at most 100 JPEG scans; it has 101.*Save it again"):
        read_header(data[:-2] + scan * 100 + data[-2:], "x")


def test_jpeg_end_inside_a_comment_is_no_end():
    data = maker.jpeg_head(8, 8)
    with pytest.raises(ImageError, match="should run to its end marker"):
        read_header(data[:-2] + b"\xff\xfe\x00\x04\xff\xd9", "x")


def test_of_two_tiff_widths_the_first_counts():
    data = bytearray(maker.tiff((30000, 6), np.zeros((6, 7), np.uint8)))
    data[10 + 12 : 10 + 24] = struct.pack("<HHII", 256, 4, 1, 7)
    data[10 + 24 : 10 + 36] = struct.pack("<HHII", 257, 4, 1, 6)
    assert read_header(bytes(data), "x") == Header("TIFF", 30000, 6)


def test_tiff_directory_beyond_the_end_is_refused():
    data = maker.tiff((7, 6), np.zeros((6, 7), np.uint8))
    far = data[:4] + struct.pack("<I", len(data)) + data[8:]
    with pytest.raises(ImageError, match="its header cannot be read. Copy it again"):
        read_header(far, "x")


def test_webp_must_begin_with_the_picture():
    good = maker.encode(maker.scene(), "WEBP", lossless=True)
    junk = b"JUNK\x04\x00\x00\x00abcd"
    inner = good[8:12] + junk + good[12:]
    with pytest.raises(ImageError, match="VP8, VP8L or VP8X should come first; got b'JUNK'"):
        read_header(b"RIFF" + struct.pack("<I", len(inner)) + inner, "x")


def test_webp_canvas_that_lies_about_its_picture_is_refused():
    data = bytearray(maker.encode(maker.scene(), "WEBP", exif=maker.exif(1)))
    assert data[12:16] == b"VP8X"
    data[24] = 3
    with pytest.raises(ImageError, match="WebP that cannot be decoded"):
        load_image(bytes(data))


def test_png_must_begin_with_ihdr():
    good = maker.encode(maker.scene(), "PNG")
    apple = good[:8] + maker.chunk(b"CgBI", b"\x50\x00\x20\x02") + good[8:]
    with pytest.raises(ImageError, match="damaged PNG: IHDR should come first"):
        read_header(apple, "x")


def test_png_of_endless_chunks_is_refused():
    good = maker.encode(maker.scene(), "PNG")
    with pytest.raises(ImageError, match="its header cannot be read"):
        read_header(good[:33] + maker.chunk(b"tEXt", b"") * 70_000 + good[33:], "x")


def test_png_of_an_unknown_critical_chunk_is_refused():
    data = maker.png((2, 1), b"\0abcdef", extra=maker.chunk(b"ABCD", b"what"))
    with pytest.raises(ImageError, match="PNG that cannot be decoded"):
        load_image(data)


# ---- plain: the file that the decoder gets


def test_plain_png_keeps_pixels_and_exif_and_nothing_else(capfd):
    values = maker.scene(5, 4)
    bad_profile = maker.chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    turned = maker.chunk(b"eXIf", maker.exif(6).tobytes()[6:])
    extra = bad_profile + maker.chunk(b"tEXt", b"a\0b", spoil=1) + turned
    data = maker.png((5, 4), maker.lines(values), extra=extra)
    short = plain(data, read_header(data, "x"))
    kinds = [
        short[m.start() - 4 : m.start()] for m in re.finditer(rb"(?<=IHDR|eXIf|IDAT|IEND)", short)
    ]
    assert kinds == [b"IHDR", b"eXIf", b"IDAT", b"IEND"]
    assert np.array_equal(load_image(data), np.rot90(values, -1))
    assert capfd.readouterr().err == ""


def test_plain_drops_the_transparency_and_the_frames_of_a_png():
    frames = [Image.fromarray(255 - maker.scene())]
    moving = maker.encode(maker.scene(), "PNG", save_all=True, append_images=frames)
    see_through = maker.encode(maker.scene(), "PNG", transparency=(0, 0, 0))
    for data in (moving, see_through):
        short = plain(data, read_header(data, "x"))
        assert not re.search(rb"acTL|fcTL|fdAT|tRNS", short)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(short))), maker.scene())


@pytest.mark.parametrize("order", ["<", ">"])
def test_plain_tiff_changes_one_tag_and_only_with_alpha(order):
    values = np.dstack([maker.scene(), np.full((17, 23), 9, np.uint8)])
    data = maker.tiff((23, 17), values, order=order)
    short = plain(data, read_header(data, "x"))
    changed = [i for i, (a, b) in enumerate(zip(data, short, strict=True)) if a != b]
    assert [(data[i], short[i]) for i in changed] == [(2, 1)]
    opaque = maker.tiff((23, 17), maker.scene(), order=order)
    assert plain(opaque, read_header(opaque, "x")) is opaque


def test_plain_leaves_the_other_formats_alone():
    for form in ("JPEG", "WEBP", "BMP"):
        data = maker.encode(maker.scene(), form)
        assert plain(data, read_header(data, "x")) is data
