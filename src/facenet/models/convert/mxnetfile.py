"""The arrays inside a parameter file of MXNet (`.params`), read without MXNet.

The file is a list of arrays and a list of their names, "arg:NAME" for weights and "aux:NAME" for
statistics. All three layouts of dense arrays are read (before 0.10, 1.0 and from 1.0 on).
Source: ``src/ndarray/ndarray.cc`` of Apache MXNet 1.9.1 (`NDArray::Save`, `NDArray::Load`).
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError

MAGIC: Final = struct.pack("<Q", 0x112)
"""First bytes of a parameter file."""
MAX_FILE_BYTES: Final = 2 << 30
"""Largest file that is read, in bytes."""
MAX_ARRAYS: Final = 20_000
"""Most arrays of a file; LResNet100-IR has about 700."""
MAX_RANK: Final = 8
"""Largest number of axes of an array."""
MAX_NAME_BYTES: Final = 1024
"""Longest name of an array, in bytes."""

_V1, _V2 = 0xF993FAC8, 0xF993FAC9
_DENSE: Final = 0
_DTYPES: Final = {0: "<f4", 1: "<f8", 2: "<f2", 3: "|u1", 4: "<i4", 5: "|i1", 6: "<i8"}


def read_params(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays by name, without "arg:" and "aux:", in the file's order.

    data: the whole file. The arrays are read-only, of the stored shape and type, and share the
    memory of the file. Raises ModelFileError for anything but such a file.
    """
    try:
        return _Reader(data).read()
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise _refusal("damaged parts, or it is cut short") from error


class _Reader:
    """A file and how far it was read."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def read(self) -> dict[str, NDArray[Any]]:
        """All arrays with their names."""
        if not self._data.startswith(MAGIC):
            raise _refusal("bytes of another kind")
        if len(self._data) > MAX_FILE_BYTES:
            raise _refusal(f"{len(self._data):,} bytes, more than {MAX_FILE_BYTES:,}")
        self._place = 16  # behind the magic number and eight bytes for later use
        arrays = [self._array() for _ in range(self._count("<Q", MAX_ARRAYS))]
        names = [self._name() for _ in range(self._count("<Q", MAX_ARRAYS))]
        short = [name.removeprefix("arg:").removeprefix("aux:") for name in names]
        if len(names) != len(arrays) or len(set(short)) != len(short) or not names:
            raise _refusal(f"{len(arrays)} arrays with {len(set(short))} names")
        return dict(zip(short, arrays, strict=True))

    def _take(self, layout: str) -> Any:
        values = struct.unpack_from(layout, self._data, self._place)
        self._place += struct.calcsize(layout)
        return values if len(values) > 1 else values[0]

    def _count(self, layout: str, most: int) -> int:
        value = int(self._take(layout))
        if not 0 <= value <= most:
            raise _refusal(f"a count of {value:,} where at most {most:,} is possible")
        return value

    def _name(self) -> str:
        size = self._count("<Q", MAX_NAME_BYTES)
        return bytes(self._take(f"<{size}s")).decode("utf-8")

    def _array(self) -> NDArray[Any]:
        magic = self._take("<I")
        if magic == _V2 and self._take("<i") != _DENSE:
            raise _refusal("an array that is sparse")
        known = magic in (_V1, _V2)
        rank = self._count("<I", MAX_RANK) if known else magic
        if not 1 <= rank <= MAX_RANK:
            raise _refusal("an array without a shape, or of an unknown layout")
        shape = struct.unpack_from(f"<{rank}{'q' if known else 'I'}", self._data, self._place)
        self._place += rank * (8 if known else 4)
        _, _, kind = self._take("<iii")  # device, its number, type
        if kind not in _DTYPES or min(shape) < 0:
            raise _refusal(f"an array of the type {kind} and the shape {shape}")
        dtype, count = np.dtype(_DTYPES[kind]), math.prod(shape)
        if count * dtype.itemsize > len(self._data) - self._place:
            raise _refusal("an array that is longer than the file")
        values = np.frombuffer(self._data, dtype, count, self._place)
        self._place += count * dtype.itemsize
        return values.reshape(shape)


def _refusal(came: str) -> ModelFileError:
    return ModelFileError(
        f"expected a parameter file of MXNet (.params), but it holds {came[:200]}; get the file "
        "again"
    )
