"""The wire format of Protocol Buffers messages, walked without their descriptions.

Every length is compared with the bytes that are there before it is used; nothing recurses.
Source: the Protocol Buffers encoding guide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
"""The wire types: how a field is laid down."""

Field = tuple[int, int, Any]
"""(field number, wire type, int or view)."""


class WireError(Exception):
    """What a damaged message holds, in words; its readers turn it into an error of facenet's."""


def varint(data: memoryview, position: int) -> tuple[int, int]:
    """(value, next position) of the base-128 number at ``position``, unsigned 64 bits.

    Raises WireError for a number that is cut short or too long.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise WireError("a number that is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise WireError("a number longer than ten bytes")


def signed(value: int) -> int:
    """A 64-bit two's complement number from its unsigned form."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: memoryview) -> Iterator[Field]:
    """(field number, wire type, int or view) for each field of one message.

    Numbers come as int, everything of a length and the fixed sizes as views of ``data``.
    Raises WireError where the message is damaged.
    """
    position = 0
    while position < len(data):
        key, position = varint(data, position)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise WireError("a field with the number 0")
        if wire == VARINT:
            value, position = varint(data, position)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, position = varint(data, position)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise WireError(f"the wire type {wire}")
        if length > len(data) - position:
            raise WireError(f"a field of {length} bytes where {len(data) - position} are left")
        yield number, wire, data[position : position + length]
        position += length
