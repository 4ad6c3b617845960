"""CRC-32C (Castagnoli), by which TensorFlow guards every block and tensor of a checkpoint.

Python computes CRC-32 only, so this is written in NumPy: the bytes are cut into lanes whose
remainders are computed side by side, then joined pair by pair. Sources: RFC 3720, appendix B.4
(polynomial and test values); M. Adler, `crc32_combine` of zlib (joining); LevelDB's `crc32c.h`
(the mask).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

LANE: Final = 512
"""Bytes of a lane."""
CHUNK: Final = 1 << 22
"""Bytes that are taken at once; this bounds the memory."""
_POLYNOMIAL: Final = 0x82F63B78
_MASK_DELTA: Final = 0xA282EAD8

Words = NDArray[np.uint32]


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of ``data``: 0xE3069283 for b"123456789". Takes about 4 x CHUNK bytes."""
    state, view = 0xFFFFFFFF, memoryview(data).cast("B")
    for start in range(0, len(view), CHUNK):
        state = _advanced(state, view[start : start + CHUNK])
    return state ^ 0xFFFFFFFF


def unmasked(stored: int) -> int:
    """The CRC behind the masked form that LevelDB and TensorFlow store, both 32 bits."""
    turned = (stored - _MASK_DELTA) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF


def _advanced(state: int, data: memoryview) -> int:
    """The register after ``data``, of which at least one byte is there."""
    if len(data) < LANE:
        table = _byte_table()
        for byte in data:
            state = state >> 8 ^ int(table[(state ^ byte) & 0xFF])
        return state
    # A register is the same as its value on the first bytes, and zeros in front change nothing.
    count = 1 << (-(-len(data) // LANE) - 1).bit_length()
    padded = np.zeros(count * LANE, np.uint8)
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    first = len(padded) - len(data)
    padded[first : first + 4] ^= np.array([state], "<u4").view(np.uint8)
    return _joined(_remainders(padded.view("<u2").reshape(count, -1)))


def _remainders(lanes: NDArray[np.uint16]) -> Words:
    """The register of each row, two bytes at a time, from a register of zero."""
    table = _pair_table()
    state = np.zeros(len(lanes), np.uint32)
    for column in np.ascontiguousarray(lanes.T):
        state = table[(state & 0xFFFF) ^ column] ^ state >> 16
    return state


def _joined(state: Words) -> int:
    """The register of all lanes in a row; their number is a power of two."""
    length = LANE
    while len(state) > 1:
        state = _applied(_zeros_behind(length), state[0::2]) ^ state[1::2]
        length *= 2
    return int(state[0])


def _applied(images: Words, state: Words) -> Words:
    """A linear map, given by the images of the 32 bits, of each register."""
    bits = state[:, None] >> np.arange(32, dtype=np.uint32) & 1
    moved: Words = np.bitwise_xor.reduce(bits * images, axis=1)
    return moved


@lru_cache(maxsize=32)
def _zeros_behind(length: int) -> Words:
    """What ``length`` zero bytes (a power of two) do to each bit of a register."""
    if length == 1:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        moved: Words = bits >> 8 ^ _byte_table()[bits & 0xFF]
        return moved
    half = _zeros_behind(length // 2)
    return _applied(half, half)


@lru_cache(maxsize=1)
def _byte_table() -> Words:
    return _table(8)


@lru_cache(maxsize=1)
def _pair_table() -> Words:
    return _table(16)


def _table(bits: int) -> Words:
    """The register after ``bits`` zero bits, for each value of its lowest ones."""
    state: Words = np.arange(1 << bits, dtype=np.uint32)
    for _ in range(bits):
        state = (state >> np.uint32(1)) ^ (state & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return state
