"""What a picture file says of itself, read before any decoder sees it.

Only five formats are let through, told apart by their first bytes, never by the file name.
The parsers here read the size, look for the end and check what the decoder would not, with
bounds on every step.
Sources: JPEG T.81 B.1, PNG 3rd edition, WebP container, BMP v3-v5, TIFF 6.0.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from facenet.errors import ImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File name endings that a folder scan takes for pictures."""

_FOREIGN = (
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"II+\x00", "BigTIFF"),
    (b"MM\x00+", "BigTIFF"),
    (b"8BPS", "Photoshop"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"PK\x03\x04", "ZIP"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML or SVG"),
    (b"<!doctype", "HTML, a web page"),
    (b"<html", "HTML, a web page"),
    (b"version https://git-lfs", "a Git LFS pointer (git lfs pull gets the file)"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_MAX_STEPS = 65_536
_MAX_SCANS = 100


@dataclass(frozen=True, slots=True)
class Header:
    """Format name, width and height in pixels as stored (before any EXIF rotation)."""

    format: str
    width: int
    height: int


def read_header(data: bytes, name: str) -> Header:
    """Format and stored size of an encoded picture.

    data: the whole file. name: how to call it in an error.
    Raises ImageError for a format outside the five, or a header that makes no sense or ends early.
    """
    try:
        header = _parse(data, name)
    except (struct.error, IndexError, ValueError) as error:
        raise ImageError(
            f"{name} ends early or is damaged: its header cannot be read. Copy it again."
        ) from error
    if header.width < 1 or header.height < 1:
        raise ImageError(
            f"{name} should have at least one pixel; it says it is {header.width}x{header.height}. "
            "Save it again."
        )
    return header


def plain(data: bytes, header: Header) -> bytes:
    """The same pixels as a file that holds nothing else a decoder would act or stumble on.

    A PNG keeps its critical chunks and the EXIF: no profiles or texts that libpng complains of
    on the terminal, no animation. The alpha of a TIFF is renamed so that libtiff does not
    multiply the colours by it. Takes what `read_header` has passed.
    """
    if header.format == "PNG":
        kept = (data[a:b] for kind, a, b in _png_chunks(data) if _png_matters(kind))
        return data[:8] + b"".join(kept)
    if header.format == "TIFF":
        value, position = _ifd(data).get(_EXTRA_SAMPLES, (0, 0))
        if value == _UNASSOCIATED:
            associated = b"\x01\x00" if data.startswith(b"II") else b"\x00\x01"
            return data[:position] + associated + data[position + 2 :]
    return data


def _parse(data: bytes, name: str) -> Header:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data, name)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data, name)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data, name)
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return _tiff(data, name)
    if data.startswith(b"BM"):
        return _bmp(data, name)
    raise ImageError(
        f"{name} should be JPEG, PNG, WebP, BMP or TIFF; its first bytes {_foreign(data)}. "
        "Save the picture as one of these."
    )


def _foreign(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "say HEIC or AVIF" if data[8:12] in _HEIF_BRANDS else "say MP4 or MOV, a video"
    text = data[:64].lstrip(b"\xef\xbb\xbf\t\r\n ").lower()
    for start, kind in _FOREIGN:
        if data.startswith(start) or text.startswith(start):
            return f"say {kind}"
    return f"are {data[:8]!r}"


# ---- JPEG


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8, _END)
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _jpeg(data: bytes, name: str) -> Header:
    size, scans, marker = None, 0, 0
    for marker, start in _jpeg_segments(data):
        if marker in _FRAMES and size is None:
            size = struct.unpack_from(">HH", data, start + 3)
        scans += marker == _SCAN
    if size is None or scans == 0 or marker != _END:
        raise ImageError(
            f"{name} ends early or is damaged: a JPEG should run to its end marker, and this one "
            "does not. Copy or download it again."
        )
    if scans > _MAX_SCANS:
        raise ImageError(
            f"{name} should have at most {_MAX_SCANS} JPEG scans; it has {scans}, which no camera "
            "writes. Save it again."
        )
    return Header("JPEG", size[1], size[0])


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, where its length stands) up to and with the end marker, as libjpeg walks them.

    Bytes that are no marker are stepped over: the coded picture after a scan, and padding.
    """
    position = 2
    for _ in range(_MAX_STEPS):
        found = _MARKER.search(data, position)
        if found is None:
            return
        marker, position = data[found.end() - 1], found.end()
        yield marker, position
        if marker == _END:
            return
        if marker not in _WITHOUT_LENGTH:
            position += max(2, struct.unpack_from(">H", data, position)[0])


# ---- PNG


def _png(data: bytes, name: str) -> Header:
    if data[12:16] != b"IHDR":
        raise ImageError(f"{name} is a damaged PNG: IHDR should come first. Save it again.")
    kind = b""
    for kind, start, end in _png_chunks(data):
        if end > len(data):
            break
        checksum = struct.unpack_from(">I", data, end - 4)[0]
        if _png_matters(kind) and zlib.crc32(data[start + 4 : end - 4]) != checksum:
            raise ImageError(
                f"{name} is a damaged PNG: the checksum of {kind.decode('latin-1')!r} is wrong. "
                "Copy or download it again."
            )
    else:
        if kind == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return Header("PNG", width, height)
    raise ImageError(f"{name} ends early: a PNG should close with IEND. Copy it again.")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk, up to and with IEND or the first that ends too late."""
    position = 8
    for _ in range(_MAX_STEPS):
        if position + 12 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        start, position = position, position + 12 + length
        yield kind, start, position
        if kind == b"IEND":
            return
    raise ValueError("endless chunks")


def _png_matters(kind: bytes) -> bool:
    """Critical chunks have a capital first; of the others, only EXIF changes the picture."""
    return kind[:1].isupper() or kind == b"eXIf"


# ---- WebP


def _webp(data: bytes, name: str) -> Header:
    declared = struct.unpack_from("<I", data, 4)[0] + 8
    if len(data) < declared:
        raise ImageError(
            f"{name} ends early: WebP says {declared} bytes, {len(data)} came. Copy it again."
        )
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", body, 1)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
    else:
        raise ImageError(
            f"{name} is a damaged WebP: VP8, VP8L or VP8X should come first; got {kind!r}. "
            "Save it again."
        )
    return Header("WebP", width, height)


# ---- BMP


def _bmp(data: bytes, name: str) -> Header:
    offset, header_size = struct.unpack_from("<II", data, 10)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    if offset >= len(data):
        raise ImageError(
            f"{name} ends early: the BMP pixels should begin at byte {offset}; "
            f"{len(data)} bytes came. Copy it again."
        )
    return Header("BMP", width, abs(height))


# ---- TIFF


_WIDTH, _HEIGHT, _BITS, _KIND, _EXTRA_SAMPLES, _NUMBERS = 256, 257, 258, 254, 338, 339
_UNASSOCIATED, _PREVIEW = 2, 1
_UNUSABLE_NUMBERS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_WHOLE_NUMBERS = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4)}


def _tiff(data: bytes, name: str) -> Header:
    tags = {tag: value for tag, (value, _) in _ifd(data).items()}
    if tags.get(_KIND, 0) & _PREVIEW:
        raise ImageError(
            f"{name} should be a plain TIFF; it begins with a preview, as camera raw files (DNG, "
            "NEF, ARW) do. Develop it to JPEG or PNG."
        )
    bits = tags.get(_BITS, 1)
    numbers = _UNUSABLE_NUMBERS.get(tags.get(_NUMBERS, 1), "whole")
    if bits > 16 or numbers != "whole":
        raise ImageError(
            f"{name} should be a TIFF of whole numbers of 8 or 16 bits; it has {numbers} numbers "
            f"of {bits} bits. Scale the values to 0-255 and save it with 8 bits."
        )
    return Header("TIFF", tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0))


def _ifd(block: bytes) -> dict[int, tuple[int, int]]:
    """Whole-number tags of the first TIFF directory: tag -> (first value, where it stands).

    The first of two equal tags counts, as in libtiff.
    """
    order = "<" if block.startswith(b"II") else ">"
    start = struct.unpack_from(f"{order}I", block, 4)[0]
    count = struct.unpack_from(f"{order}H", block, start)[0]
    tags: dict[int, tuple[int, int]] = {}
    for position in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", block, position)
        if kind in _WHOLE_NUMBERS and tag not in tags:
            form, size = _WHOLE_NUMBERS[kind]
            inside = number * size <= 4
            at = position + 8 if inside else struct.unpack_from(f"{order}I", block, position + 8)[0]
            tags[tag] = (struct.unpack_from(order + form, block, at)[0], at)
    return tags
