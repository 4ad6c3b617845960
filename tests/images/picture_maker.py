"""Test pictures: what Pillow can write, and by hand what it cannot."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Colour types of PNG."""


def scene(width: int = 23, height: int = 17) -> np.ndarray:
    """uint8 (H, W, 3) without any symmetry: every corner and channel is told apart."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1)
    return np.stack([red, green, (x * x + 3 * y) % 256], -1).astype(np.uint8)


def photo(width: int = 48, height: int = 40, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 3): smooth colours with noise, so that every part of a file matters."""
    noise = np.random.default_rng(seed).integers(-9, 10, (height, width, 3))
    return (scene(width, height) * 0.9 + 12 + noise).clip(0, 255).astype(np.uint8)


def encode(pixels: np.ndarray | Image.Image, form: str, **options: Any) -> bytes:
    """A file as Pillow writes it."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """The file as Pillow opens it."""
    return Image.open(io.BytesIO(data))


def seen_by_pillow(data: bytes) -> np.ndarray:
    """RGB pixels of a file as Pillow decodes it."""
    return np.asarray(opened(data).convert("RGB"))


def largest_difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def chunk(kind: bytes, body: bytes, *, spoil: int = 0) -> bytes:
    """A PNG chunk; spoil is added to the checksum."""
    checksum = (zlib.crc32(kind + body) + spoil) % 2**32
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(
    size: tuple[int, int],
    raw: bytes,
    *,
    bits: int = 8,
    color: int = RGB,
    extra: bytes = b"",
    level: int = 6,
) -> bytes:
    """A PNG of scan lines that are given with their filter bytes; extra chunks before IDAT."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, color, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(raw, level))
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")


def lines(values: np.ndarray) -> bytes:
    """Unfiltered scan lines of values (H, W) or (H, W, n); 16 bits go big-endian."""
    wide = values.astype(">u2") if values.dtype == np.uint16 else values
    return b"".join(b"\0" + row.tobytes() for row in wide)


def tiff(size: tuple[int, int], values: np.ndarray, *, order: str = "<", **tags: int) -> bytes:
    """An uncompressed one-strip TIFF of values (H, W), (H, W, 3) or (H, W, 4).

    tags: t254=1 sets or overrides a tag with a LONG; its value None leaves the tag out.
    """
    channels = 1 if values.ndim == 2 else values.shape[2]
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries: dict[int, int | None] = {
        256: size[0],
        257: size[1],
        258: values.dtype.itemsize * 8,
        259: 1,
        262: 1 if channels == 1 else 2,
        273: -1,
        277: channels,
        278: size[1],
        279: len(body),
        339: {"u": 1, "i": 2, "f": 3}[values.dtype.kind],
    }
    if channels == 4:
        entries[338] = 2
    entries |= {int(name[1:]): value for name, value in tags.items()}
    kept = sorted((tag, value) for tag, value in entries.items() if value is not None)
    after = 8 + 2 + 12 * len(kept) + 4
    bits = struct.pack(f"{order}{channels}H", *[entries[258] or 0] * channels)
    parts = [b"II*\0" if order == "<" else b"MM\0*", struct.pack(f"{order}IH", 8, len(kept))]
    for tag, value in kept:
        number = after + len(bits) if value == -1 else value
        if tag == 258 and channels > 2:
            parts.append(struct.pack(f"{order}HHII", tag, 3, channels, after))
        elif tag in (258, 338, 339):
            parts.append(struct.pack(f"{order}HHIHH", tag, 3, 1, number, 0))
        else:
            parts.append(struct.pack(f"{order}HHII", tag, 4, 1, number))
    return b"".join([*parts, b"\0\0\0\0", bits, body])


def jpeg_head(width: int, height: int, *, before: bytes = b"") -> bytes:
    """A JPEG with a frame header, one empty scan and an end, and nothing to see."""
    frame = struct.pack(">BHH", 8, height, width) + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    scan = b"\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00"
    return (
        b"\xff\xd8" + before + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame
        + b"\xff\xda" + struct.pack(">H", len(scan) + 2) + scan + b"\x12\x34\xff\xd9"
    )  # fmt: skip


def webp_head(kind: bytes, width: int, height: int) -> bytes:
    """A WebP with the first chunk of one of its three kinds, and nothing to see."""
    if kind == b"VP8X":
        body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8 ":
        body = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(6)
    else:
        body = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(5)
    inner = b"WEBP" + kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


def bmp_head(width: int, height: int) -> bytes:
    """A BMP of 24 bits with its two headers and four bytes of pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + info + bytes(4)
