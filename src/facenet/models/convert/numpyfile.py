"""The layers inside an object array of NumPy (.npy), read without a pickle.

facenet keeps the weights of MTCNN so (`src/align/det1.npy` to `det3.npy`, from caffe-tensorflow):
an object array of no axes that holds one dictionary, layer -> variable -> real numbers. Such an
array is a pickle program, of Python 2 in the published files; `facenet.pickles` reads it.
Source: ``numpy/lib/format.py`` (header); ``ndarray.__reduce__`` of NumPy 1 and 2 (names, states).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.pickles import BINARY, BYTES, DICTS, Name, Refused, Rules, expect, interpret

MAGIC: Final = b"\x93NUMPY"
"""First bytes of a NumPy file."""
MAX_FILE_BYTES: Final = 64 << 20
"""Largest file that is read, in bytes; facenet's have 28 KB to 1.6 MB."""
MAX_HEADER_BYTES: Final = 512
"""Longest header that is read; that of an object array of no axes has 70 to 118 bytes."""
MAX_RANK: Final = 8
"""Largest number of axes of an array."""

_HEADER: Final = re.compile(
    rb"\{'descr': '\|O', 'fortran_order': (?:True|False), 'shape': \(\), \} *\n"
)
_SIZES: Final = {"f2": 2, "f4": 4, "f8": 8}
"""Types of the numbers that are read, with their bytes."""
_OBJECT: Final = ("O", "O4", "O8")


def read_layers(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a NumPy file of layers as LAYER/VARIABLE -> float array of any shape.

    data: the whole file, written by Python 2 or 3. The arrays are little-endian float16, float32
    or float64, read-only, and share the memory of what was read.
    Raises ModelFileError, in one sentence, for anything else.
    """
    try:
        return _read(data)
    except Refused as error:
        raise ModelFileError(
            "expected a NumPy file of layers, such as facenet's det1.npy, but it holds "
            f"{error}; take the file from facenet's src/align again"
        ) from error


def _read(data: bytes) -> dict[str, NDArray[Any]]:
    if len(data) > MAX_FILE_BYTES:
        raise Refused(f"{len(data):,} bytes, more than the {MAX_FILE_BYTES:,} that are read")
    stream = io.BytesIO(data)
    stream.seek(_program_start(data))
    tree = expect(interpret(stream, _RULES), _Array, what="an array")
    if tree.type != _Type("O") or tree.shape != ():
        raise Refused("another array than one of layers")
    (content,) = expect(tree.data, list, what="an object")
    arrays: dict[str, NDArray[Any]] = {}
    for layer, variables in expect(content, dict, what="the layers").items():
        for variable, values in expect(variables, dict, what="the variables of a layer").items():
            array = expect(values, _Array, what="the values of a variable")
            arrays[f"{layer}/{variable}"] = array.numbers()
    if not arrays:
        raise Refused("no layers")
    return arrays


def _program_start(data: bytes) -> int:
    """Where the pickle program begins, behind a header that says object array of no axes."""
    if not data.startswith(MAGIC):
        raise Refused("bytes of another kind")
    width = {1: 2, 2: 4, 3: 4}.get(int.from_bytes(data[6:7], "little"))
    if width is None:
        raise Refused("a header of an unknown version")
    start = 8 + width
    size = int.from_bytes(data[8:start], "little")
    if size > MAX_HEADER_BYTES or len(data) < start + size:
        raise Refused("a header that is cut short or too long")
    if not _HEADER.fullmatch(data[start : start + size]):
        raise Refused("an array of plain numbers or of several objects")
    return start + size


@dataclass(frozen=True, slots=True)
class _Type:
    """The type of an array's values: f2, f4, f8, or O for objects."""

    code: str


class _Array:
    """An array; it is empty until BUILD gives it what it holds."""

    __slots__ = ("columns", "data", "shape", "type")

    def __init__(self) -> None:
        self.type, self.columns = _Type("f4"), False
        self.shape: tuple[int, ...] = (0,)
        self.data: bytes | list[Any] = b""

    def fill(self, state: tuple[Any, ...]) -> None:
        """Set (version, shape, type, column order, values); Refused where they do not fit."""
        self.type = expect(state[2], _Type, what="the type of an array")
        self.shape = expect(state[1], tuple, what="the shape of an array")
        self.columns = expect(state[3], bool, what="the order of an array")
        sides = [side for side in self.shape if type(side) is int and 0 <= side <= MAX_FILE_BYTES]
        if len(sides) != len(self.shape) or len(sides) > MAX_RANK:
            raise Refused("an array of an impossible shape")
        values = state[4].encode("latin-1") if isinstance(state[4], str) else state[4]
        kind: type[list[Any]] | type[bytes] = list if self.type == _Type("O") else bytes
        self.data = expect(values, kind, what="the values of an array")
        if math.prod(sides) * _SIZES.get(self.type.code, 1) != len(self.data):
            raise Refused(f"an array of the shape {self.shape} with other values than it asks for")

    def numbers(self) -> NDArray[Any]:
        """The values as float numbers, in the order they are stored in."""
        content = expect(self.data, bytes, what="the values of a variable")
        flat = np.frombuffer(content, dtype=f"<{self.type.code}")
        return flat.reshape(self.shape, order="F" if self.columns else "C")


def _dtype(arguments: tuple[Any, ...]) -> _Type:
    """The type of ("f4", align, copy)."""
    name = arguments[0] if arguments else None
    if not isinstance(name, str) or name not in (*_SIZES, *_OBJECT):
        shown = repr(name[:40]) if isinstance(name, str) else "without a name"
        raise Refused(f"values of the type {shown}, not real numbers (f4)")
    return _Type("O" if name in _OBJECT else name)


def _reconstruct(arguments: tuple[Any, ...]) -> _Array:
    """The empty array of (ndarray, (0,), "b")."""
    if not arguments or arguments[0] != Name("numpy.ndarray"):
        raise Refused("an unusual kind of NumPy array")
    return _Array()


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """The bytes of (text, "latin1"), as Python 3 writes them for Python 2."""
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")  # a UnicodeEncodeError is a ValueError: Refused
    raise Refused("bytes in an unusual form")


def _build(target: object, state: object) -> None:
    """Give an array what it holds, and see that a type is of little-endian numbers."""
    parts = expect(state, tuple, what="a state")
    if isinstance(target, _Array) and len(parts) == 5:
        target.fill(parts)
    elif not isinstance(target, _Type) or parts[2:5] != (None, None, None):
        raise Refused("a state that is none of a NumPy array")
    elif parts[1] not in ("<", "|"):
        raise Refused("numbers in big-endian order")


_NAMES: Final[dict[str, Callable[[tuple[Any, ...]], Any] | None]] = {
    "numpy.ndarray": None,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encoded,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
}
_RULES: Final = Rules(
    kind="file of layers",
    opcodes=BINARY | BYTES | DICTS,
    names=_NAMES,
    build=_build,
    text=True,
)
