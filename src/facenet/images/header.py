"""What a picture file says of itself, read before any decoder sees it.

Only five formats are let through, told apart by their first bytes, never by the file name.
The parsers here read the size and look for the end mark, with bounds on every step.
Sources: JPEG T.81 B.1, PNG 3rd edition, WebP container, BMP v3-v5, TIFF 6.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from facenet.errors import ImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File name endings that a folder scan takes for pictures."""

_FOREIGN = {
    b"GIF8": "GIF",
    b"%PDF": "PDF",
    b"\x00\x00\x01\x00": "ICO",
    b"II+\x00": "BigTIFF",
    b"MM\x00+": "BigTIFF",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"<?xm": "XML or SVG",
    b"PK\x03\x04": "ZIP",
}
_WIDTH_TAG, _HEIGHT_TAG = 256, 257
_MAX_STEPS = 65_536


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
        raise ImageError(f"{name} ends early or is damaged: its header cannot be read.") from error
    if header.width < 1 or header.height < 1:
        raise ImageError(f"{name} says it is {header.width}x{header.height} pixels: nothing to see.")
    return header


def _parse(data: bytes, name: str) -> Header:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data, name)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data, name)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data, name)
    if data.startswith((b"II*\x00", b"MM\x00*")):
        tags = _ifd(data)
        return Header("TIFF", tags[_WIDTH_TAG], tags[_HEIGHT_TAG])
    if data.startswith(b"BM"):
        return _bmp(data, name)
    kind = _FOREIGN.get(data[:4]) or ("HEIC or AVIF" if data[4:8] == b"ftyp" else "unknown")
    raise ImageError(
        f"{name} should be JPEG, PNG, WebP, BMP or TIFF; its first bytes say {kind}. "
        "Convert it to one of these."
    )


def _jpeg(data: bytes, name: str) -> Header:
    size, scan = None, 0
    for marker, start in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = struct.unpack_from(">HH", data, start + 1)
        elif marker == 0xDA:
            scan = start
            break
    if size is None or data.rfind(b"\xff\xd9", scan or len(data)) < 0:
        raise ImageError(
            f"{name} ends early: a JPEG should have an end marker, and this one has none. "
            "Copy or download it again."
        )
    return Header("JPEG", size[1], size[0])


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, start of payload) up to and with the start of the scan."""
    position = 2
    for _ in range(_MAX_STEPS):
        while data[position] == 0xFF and data[position + 1] == 0xFF:
            position += 1
        if data[position] != 0xFF:
            return
        marker = data[position + 1]
        length = struct.unpack_from(">H", data, position + 2)[0]
        yield marker, position + 4
        if marker == 0xDA:
            return
        position += 2 + length


def _png(data: bytes, name: str) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    position = 8
    for _ in range(_MAX_STEPS):
        if position + 12 > len(data):
            raise ImageError(f"{name} ends early: a PNG should close with IEND. Copy it again.")
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return Header("PNG", width, height)
        position += 12 + length
    raise ImageError(f"{name} has more than {_MAX_STEPS} PNG chunks: not a photograph.")


def _webp(data: bytes, name: str) -> Header:
    declared = struct.unpack_from("<I", data, 4)[0] + 8
    if len(data) < declared:
        raise ImageError(
            f"{name} ends early: WebP says {declared} bytes, {len(data)} came. Copy it again."
        )
    position = 12
    for _ in range(_MAX_STEPS):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind in (b"VP8X", b"VP8 ", b"VP8L"):
            return Header("WebP", *_webp_size(kind, data[position + 8 : position + 18]))
        position += 8 + length + (length & 1)
    raise ImageError(f"{name} has more than {_MAX_STEPS} WebP chunks: not a photograph.")


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int]:
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(body[4:7], "little"),
            1 + int.from_bytes(body[7:10], "little"),
        )
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    bits = struct.unpack_from("<I", body, 1)[0]
    return 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)


def _bmp(data: bytes, name: str) -> Header:
    offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    if offset >= len(data):
        raise ImageError(f"{name} ends early: the BMP pixels should begin at byte {offset}.")
    return Header("BMP", width, abs(height))


def _ifd(block: bytes) -> dict[int, int]:
    """The whole-number tags of the first TIFF directory."""
    order = "<" if block.startswith(b"II") else ">"
    start = struct.unpack_from(f"{order}I", block, 4)[0]
    count = struct.unpack_from(f"{order}H", block, start)[0]
    tags = {_WIDTH_TAG: 0, _HEIGHT_TAG: 0}
    for position in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", block, position)
        if kind in (3, 4):
            form = f"{order}H" if kind == 3 else f"{order}I"
            tags[tag] = struct.unpack_from(form, block, position + 8)[0]
    return tags
