"""Broken and hostile files: a whole picture or an ImageError, and nothing on the terminal."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter

import cv2
import numpy as np
import picture_maker as maker
import pytest
from cv2.utils import logging as cv2_logging
from PIL import Image

from facenet.errors import ImageError
from facenet.images import ImageLimits, load_image

PHOTO = maker.photo()
ALPHA = Image.fromarray(np.dstack([PHOTO, PHOTO[..., 0]]))
TURNED = maker.exif(6)
FILES = {
    "jpeg": maker.encode(PHOTO, "JPEG", quality=80, exif=TURNED),
    "jpeg progressive": maker.encode(PHOTO, "JPEG", quality=80, progressive=True),
    "jpeg restarts": maker.encode(PHOTO, "JPEG", restart_marker_blocks=2),
    "jpeg grey": maker.encode(PHOTO[..., 0].copy(), "JPEG"),
    "jpeg cmyk": maker.encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
    "png": maker.encode(PHOTO[:20], "PNG", exif=TURNED),
    "png palette": maker.encode(Image.fromarray(PHOTO).quantize(16), "PNG"),
    "webp": maker.encode(PHOTO, "WEBP", exif=TURNED),
    "webp lossless": maker.encode(PHOTO[:20], "WEBP", lossless=True),
    "webp alpha": maker.encode(ALPHA, "WEBP"),
    "bmp": maker.encode(PHOTO[:20], "BMP"),
    "bmp palette": maker.encode(Image.fromarray(PHOTO).quantize(16), "BMP"),
    "tiff": maker.encode(PHOTO[:20], "TIFF", exif=TURNED),
    "tiff lzw": maker.encode(PHOTO[:20], "TIFF", compression="tiff_lzw"),
    "tiff jpeg": maker.encode(PHOTO, "TIFF", compression="jpeg"),
    "tiff fax": maker.encode(Image.fromarray(PHOTO).convert("1"), "TIFF", compression="group4"),
    "tiff directory first": maker.tiff((48, 20), PHOTO[:20]),
}


def cut_kinds(data: bytes, cuts: range) -> Counter[str]:
    """What comes of a file that is cut there: refused, or whole."""
    whole = load_image(data)
    seen: Counter[str] = Counter()
    for cut in cuts:
        try:
            pixels = load_image(data[:cut])
        except ImageError:
            seen["refused"] += 1
        else:
            assert np.array_equal(pixels, whole), f"half a picture from {cut} of {len(data)} bytes"
            seen["whole"] += 1
    return seen


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_anywhere_is_refused_or_whole(kind):
    data = FILES[kind]
    seen = cut_kinds(data, range(len(data)))
    assert seen.total() == len(data)
    assert seen["whole"] <= 8  # only the padding behind the last pixel can be spared


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_larger_file_cut_in_many_places_is_refused_or_whole(form):
    data = maker.encode(maker.photo(400, 300), form)
    seen = cut_kinds(data, range(1, len(data) - 8, len(data) // 40))
    assert seen["whole"] == 0


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg restarts", "png"])
def test_a_file_filled_up_with_zeros_is_refused(kind, cut):
    data = FILES[kind]
    whole = int(len(data) * cut)
    with pytest.raises(ImageError, match="ends early|damaged"):
        load_image(data[:whole] + bytes(len(data) - whole))


@pytest.mark.parametrize(
    ("kind", "cut", "told"),
    [
        ("jpeg", -2, "ends early or is damaged: a JPEG should run to its end marker.*again"),
        ("jpeg", 900, "ends early or is damaged: a JPEG should run to its end marker.*again"),
        ("png", -1, "ends early: a PNG should close with IEND. Copy it again"),
        ("png", 20, "ends early or is damaged: its header cannot be read|IEND"),
        ("webp", -1, r"ends early: WebP says \d+ bytes, \d+ came. Copy it again"),
        ("bmp", 50, "ends early: the BMP pixels should begin at byte 54; 50 bytes came"),
        ("bmp", -9, "BMP that cannot be decoded: it ends early, is damaged"),
        ("tiff", -900, "ends early|cannot be decoded"),
        ("tiff directory first", -1, "TIFF that cannot be decoded: it ends early, is damaged"),
    ],
)
def test_the_message_of_a_cut_file(kind, cut, told):
    with pytest.raises(ImageError, match=told) as refused:
        load_image(FILES[kind][:cut])
    assert str(refused.value).startswith("the picture (bytes) ")


@pytest.mark.parametrize("kind", FILES)
def test_bytes_behind_the_end_are_no_harm(kind):
    assert np.array_equal(load_image(FILES[kind] + b"trailing\xff\xda"), load_image(FILES[kind]))


# ---- PNG: OpenCV is right to refuse, and is not asked when a checksum tells


def idat(parts: list[bytes], *, spoil: int = 0) -> bytes:
    good = maker.png((48, 40), b"")
    body = b"".join(maker.chunk(b"IDAT", part, spoil=spoil) for part in parts)
    return good[:33] + body + maker.chunk(b"IEND", b"")


RAW = maker.lines(PHOTO)
PACKED = zlib.compress(RAW)
HALVES = [PACKED[:2500], PACKED[2500:]]


def test_png_of_two_idat_chunks_is_whole():
    assert np.array_equal(load_image(idat(HALVES)), PHOTO)


@pytest.mark.parametrize(
    "parts",
    [
        HALVES[:1],
        HALVES[1:],
        HALVES[::-1],
        [PACKED[:-4]],
        [PACKED[:-1] + bytes([PACKED[-1] ^ 1])],
        [PACKED[:2000] + b"\xa5" * 20 + PACKED[2020:]],
        [zlib.compress(RAW[: len(RAW) // 2])],
        [zlib.compress(b"\x09" + RAW[1:])],
        [],
        [b""],
    ],
)
def test_png_with_damaged_idat_of_right_checksum_is_refused(parts):
    with pytest.raises(ImageError, match="PNG that cannot be decoded: it ends early, is damaged"):
        load_image(idat(parts))


def test_png_with_a_wrong_checksum_is_refused_before_decoding(capfd):
    with pytest.raises(ImageError, match="damaged PNG: the checksum of 'IDAT' is wrong. Copy or"):
        load_image(idat(HALVES, spoil=1))
    flipped = bytearray(FILES["png palette"])
    flipped[flipped.index(b"PLTE") + 5] ^= 1
    with pytest.raises(ImageError, match="the checksum of 'PLTE' is wrong"):
        load_image(bytes(flipped))
    assert capfd.readouterr().err == ""


def test_every_flipped_bit_of_a_png_is_found_or_harmless():
    data = maker.encode(PHOTO[:6, :8], "PNG")
    for place in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            pixels = load_image(bytes(flipped))
        except ImageError:
            continue
        assert place // 8 >= len(data) - 12, "only the closing chunk has nothing to lose"
        assert np.array_equal(pixels, PHOTO[:6, :8])


# ---- mutations


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks all have the right checksum, so that the damage is deeper."""
    mended, position = bytearray(data), 8
    while position + 12 <= len(mended):
        end = position + 8 + struct.unpack_from(">I", mended, position)[0]
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[position + 4 : end]))
        position = end + 4
    return bytes(mended)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes, half of them near the start: bytes set, flipped, cut out, put in."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(len(out) if rng.random() < 0.5 else min(len(out), 120)))
        count = int(rng.integers(1, 9))
        match int(rng.integers(5)):
            case 0:
                out[place] = int(rng.integers(256))
            case 1:
                out[place] ^= 1 << int(rng.integers(8))
            case 2 if len(out) > 20:
                del out[place : place + count]
            case 3:
                out[place:place] = rng.integers(0, 256, count, dtype=np.uint8).tobytes()
            case _:
                extreme = (b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\1\0")
                out[place : place + 4] = extreme[int(rng.integers(4))]
    return with_right_checksums(bytes(out)) if data[:4] == b"\x89PNG" else bytes(out)


def test_mutated_files_are_pictures_or_image_errors():
    rng = np.random.default_rng(20240611)
    limits = ImageLimits(max_pixels=4_000_000)
    seen: Counter[str] = Counter()
    for _ in range(250):
        for kind, data in FILES.items():
            try:
                pixels = load_image(mutated(data, rng), limits=limits)
            except ImageError as error:
                assert len(str(error)) < 400
                seen["refused"] += 1
            else:
                assert pixels.dtype == np.uint8, kind
                assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
                seen["picture"] += 1
    assert seen.total() == 250 * len(FILES)
    assert min(seen["refused"], seen["picture"]) > 500


def opened_if_it_can_be(data: bytes) -> Image.Image | None:
    try:
        return maker.opened(data)
    except (
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ):
        return None


@pytest.mark.filterwarnings("ignore")  # Pillow's, of strange metadata
def test_mutated_files_that_pillow_opens_are_pictures_or_image_errors():
    rng = np.random.default_rng(7)
    limits = ImageLimits(max_pixels=4_000_000)
    seen: Counter[str] = Counter()
    for _ in range(40):
        for data in FILES.values():
            image = opened_if_it_can_be(mutated(data, rng))
            if image is None:
                continue
            try:
                seen["picture"] += load_image(image, limits=limits).size > 0
            except ImageError:
                seen["refused"] += 1
    assert min(seen["picture"], seen["refused"]) > 50


def test_noise_is_refused():
    rng = np.random.default_rng(3)
    starts = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP", b"BM", b"II*\0"]
    for i in range(600):
        noise = rng.integers(0, 256, int(rng.integers(1, 200)), dtype=np.uint8).tobytes()
        with pytest.raises(ImageError):
            load_image(starts[i % len(starts)] + noise)


# ---- bombs and limits

BOMBS = {
    "PNG": maker.png((30000, 30000), b""),
    "WebP extended": maker.webp_head(b"VP8X", 30000, 30000),
    "WebP lossy": maker.webp_head(b"VP8 ", 16383, 16383),
    "WebP lossless": maker.webp_head(b"VP8L", 16383, 16383),
    "TIFF": maker.tiff((30000, 30000), np.zeros((1, 1), np.uint8)),
    "BMP": maker.bmp_head(30000, 30000),
    "BMP top down": maker.bmp_head(30000, -30000),
    "JPEG": maker.jpeg_head(30000, 30000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_from_its_header(kind):
    side = 16383 if kind in ("WebP lossy", "WebP lossless") else 30000
    with pytest.raises(ImageError) as refused:
        load_image(BOMBS[kind])
    assert str(refused.value) == (
        f"the picture (bytes) is {side}x{side} = {side * side:,} pixels; the limit is 120,000,000. "
        "Scale it down, or pass ImageLimits with a higher max_pixels."
    )


def test_a_real_bomb_costs_no_memory():
    side = 20_000
    bomb = maker.png((side, side), bytes((side // 8 + 1) * side), bits=1, color=maker.GREY, level=1)
    assert len(bomb) < 500_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="400,000,000 pixels; the limit is 120,000,000"):
        load_image(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_the_limit_of_pixels_is_exact(form):
    data = maker.encode(maker.scene(20, 10), form)
    assert load_image(data, limits=ImageLimits(max_pixels=200)).shape == (10, 20, 3)
    with pytest.raises(ImageError, match="is 20x10 = 200 pixels; the limit is 199. Scale it down"):
        load_image(data, limits=ImageLimits(max_pixels=199))


def test_the_limit_of_a_side_is_exact():
    for side, told in ((1_000_000, None), (1_000_001, "1000001x1 pixels; a side should have at")):
        raw = b"\0" + b"\xaa" * (side // 8 + 1)
        data = maker.png((side, 1), raw[: 1 + (side + 7) // 8], bits=1, color=maker.GREY)
        if told is None:
            assert load_image(data)[0, :, 0].tolist() == [255, 0] * (side // 2)
            continue
        with pytest.raises(ImageError, match=f"{told} most 1,000,000. Crop it or scale it down"):
            load_image(data)


def test_the_limit_of_opencv_stands_when_ours_is_raised(capfd):
    limits = ImageLimits(max_pixels=2**40)
    with pytest.raises(ImageError, match="BMP that OpenCV refuses: it is damaged, or has more"):
        load_image(maker.bmp_head(40_000, 40_000), limits=limits)
    assert capfd.readouterr().err == ""


# ---- the terminal


def test_opencv_says_nothing_on_the_terminal(capfd):
    broken = FILES["tiff directory first"][:-50]
    assert cv2.imdecode(np.frombuffer(broken, np.uint8), cv2.IMREAD_COLOR) is None
    assert "global grfmt_tiff.cpp" in capfd.readouterr().err
    for kind in ("tiff directory first", "bmp", "tiff lzw", "webp lossless"):
        with pytest.raises(ImageError):
            load_image(FILES[kind][:-50])
    assert capfd.readouterr().err == ""


def test_the_log_level_of_the_caller_comes_back():
    before = cv2_logging.getLogLevel()
    try:
        for level in (cv2_logging.LOG_LEVEL_ERROR, cv2_logging.LOG_LEVEL_INFO):
            cv2_logging.setLogLevel(level)
            load_image(FILES["jpeg"])
            with pytest.raises(ImageError):
                load_image(FILES["bmp"][:-50])
            assert cv2_logging.getLogLevel() == level
    finally:
        cv2_logging.setLogLevel(before)


def test_the_log_level_comes_back_after_many_threads():
    before = cv2_logging.getLogLevel()
    whole = load_image(FILES["png"])
    seen: Counter[str] = Counter()

    def work() -> None:
        for i in range(40):
            try:
                same = np.array_equal(load_image(FILES["png"][: None if i % 2 else 300]), whole)
                seen["same" if same else "other"] += 1
            except ImageError:
                seen["refused"] += 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"same": 120, "refused": 120}
    assert cv2_logging.getLogLevel() == before


def test_opencv_is_imported_when_the_first_file_is_decoded():
    program = (
        "import sys, numpy, facenet.images as images\n"
        "images.load_image(numpy.zeros((2, 2), numpy.uint8))\n"
        "print('cv2' in sys.modules)\n"
        "images.load_image(open(0, 'rb'))\n"
        "print('cv2' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=FILES["png"], capture_output=True, check=True
    )
    assert done.stdout.split() == [b"False", b"True"]
    assert done.stderr == b""
