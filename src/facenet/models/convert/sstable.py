"""The sorted table in which TensorFlow writes the index of a checkpoint, read with bounds.

The table is LevelDB's: blocks of keys that share beginnings, an index of the blocks, a footer.
Source: LevelDB's `doc/table_format.md`; TensorFlow's `lib/io/table` and `lib/io/format`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from facenet.models.convert.crc32c import crc32c, unmasked
from facenet.models.convert.wire import WireError, varint

MAGIC: Final = struct.pack("<Q", 0xDB4775248B80FB57)
"""Last bytes of every such table."""
MAX_ENTRIES: Final = 20_000
"""Most entries of a table; a training checkpoint of Inception-ResNet-v2 has about 4,000."""
MAX_KEY_BYTES: Final = 1024
"""Longest key."""
_FOOTER: Final = 48
_TRAILER: Final = 5


def entries(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """(key, value) in the order of the keys; the values are views of ``data``.

    data: the whole table. Raises WireError where it is damaged, compressed or out of order.
    """
    if len(data) < _FOOTER or data[-len(MAGIC) :] != MAGIC:
        raise WireError("a table without its end")
    footer = data[-_FOOTER : -len(MAGIC)]
    _, position = _handle(footer, 0)
    index, _ = _handle(footer, position)
    last, count, end = b"", 0, 0
    for _, handle in _block(data, index):
        place, _ = _handle(handle, 0)
        if place[0] < end:
            raise WireError("blocks that overlap")
        end = sum(place)
        for key, value in _block(data, place):
            if count and key <= last:
                raise WireError("keys that are not in order")
            last, count = key, count + 1
            if count > MAX_ENTRIES:
                raise WireError(f"more than {MAX_ENTRIES} entries")
            yield key, value


def _handle(data: memoryview, position: int) -> tuple[tuple[int, int], int]:
    """((offset, size), next position) of a pointer to a block."""
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return (offset, size), position


def _block(data: memoryview, place: tuple[int, int]) -> Iterator[tuple[bytes, memoryview]]:
    """The entries of the block at ``place``, whose checksum fits."""
    content = _checked(data, place)
    if len(content) < 4:
        raise WireError("a block that is cut short")
    (restarts,) = struct.unpack("<I", content[-4:])
    if 4 * (restarts + 1) > len(content):
        raise WireError("a block that is shorter than its list of restarts")
    content = content[: len(content) - 4 * (restarts + 1)]
    if not len(content):
        raise WireError("a block without entries")
    position, key = 0, b""
    while position < len(content):
        shared, position = varint(content, position)
        fresh, position = varint(content, position)
        length, position = varint(content, position)
        if shared > len(key) or shared + fresh > MAX_KEY_BYTES:
            raise WireError("a key that is too long or has no beginning")
        if fresh + length > len(content) - position:
            raise WireError("an entry that is cut short")
        key = key[:shared] + bytes(content[position : position + fresh])
        position += fresh
        yield key, content[position : position + length]
        position += length


def _checked(data: memoryview, place: tuple[int, int]) -> memoryview:
    """The bytes of an uncompressed block."""
    offset, size = place
    if offset + size + _TRAILER > len(data) - _FOOTER:
        raise WireError("a block outside the file")
    content = data[offset : offset + size]
    kind, stored = struct.unpack("<BI", data[offset + size : offset + size + _TRAILER])
    if kind:
        raise WireError("compressed blocks, which TensorFlow itself never writes")
    if crc32c(data[offset : offset + size + 1]) != unmasked(stored):
        raise WireError("a block whose checksum does not fit")
    return content
