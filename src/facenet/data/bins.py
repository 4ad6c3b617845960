"""Verification sets of InsightFace (``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin`` and so on).

A file is a pickle of two lists: 2n encoded pictures, two for each pair, and n truths. The
pictures are byte strings, or NumPy arrays that hold the encoded bytes. What Python 2 and 3 write
at every protocol is read by `facenet.pickles`, so that nothing of a file is ever run.
Source: insightface ``src/data/{lfw2pack,cfp2pack,agedb2pack}.py``; ``ndarray.__reduce__`` and
``__reduce_ex__`` of NumPy 1 and 2 (names and states).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from facenet.data.folds import contiguous_folds
from facenet.data.listfile import checked_file
from facenet.data.pairs import short
from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError
from facenet.pickles import BINARY, BYTES, TEXTUAL, Name, Refused, Rules, expect, interpret

MAX_FILE_BYTES: Final = 4 << 30
"""Largest file that is read, in bytes; published sets have less than 1 GiB."""
MAX_RANK: Final = 8
"""Largest number of axes of an array."""

_STARTS: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
"""First bytes of the formats `facenet.images` decodes: JPEG, PNG, WebP, BMP, TIFF."""


def read_bin(path: str | os.PathLike[str]) -> PairSet:
    """Read a verification set; its pictures stay encoded and are in memory once.

    Pictures are named by their row, "0000" and up, and keep no person; a picture is looked at no
    further than its first bytes. The folds are ten contiguous blocks. Of a file that Python 3
    wrote at protocols 0 to 2, the program's own text is in memory beside the pictures meanwhile.
    Raises DataError, in one sentence and what to do, for a file of more than `MAX_FILE_BYTES`,
    with fewer than ten pairs, or with anything else in it than such a set.
    """
    file = checked_file(path, "a verification set (.bin)", MAX_FILE_BYTES)
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            pictures, truth = _contents(interpret(stream, _RULES))
    except Refused as error:
        raise DataError(
            f"{short(file, 300)} should be a verification set of InsightFace (.bin), a pickle of "
            f"encoded pictures and truths; it holds {error}. Download it again, or pack it anew."
        ) from error
    except OSError as error:
        raise DataError(
            f"Cannot read the verification set {short(file, 300)}: {error.strerror or error}. "
            "Check the path and who may read it."
        ) from error
    return _pair_set(file, digest, pictures, truth)


def _pair_set(file: Path, digest: str, pictures: list[bytes], truth: list[bool]) -> PairSet:
    same = np.array(truth, bool)
    fold, notes = contiguous_folds(same)
    width = max(4, len(str(len(pictures) - 1)))
    first = np.arange(0, len(pictures), 2, dtype=np.int64)
    return PairSet(
        file.stem,
        tuple(Picture(f"{row:0{width}}", content) for row, content in enumerate(pictures)),
        first,
        first + 1,
        same,
        fold,
        aligned=True,
        digests={file.name: digest},
        notes=notes,
    )


def _contents(tree: object) -> tuple[list[bytes], list[bool]]:
    """The pictures and the truths of what a program left."""
    if not isinstance(tree, tuple | list) or len(tree) != 2:
        raise Refused(f"{_kind(tree)} in place of a pair of pictures and truths")
    pictures, truths = tree
    if not isinstance(pictures, list | tuple):
        raise Refused(f"{_kind(pictures)} in place of the list of pictures")
    values = _truths(truths)
    if len(pictures) != 2 * len(values):
        raise Refused(f"{len(pictures):,} pictures for {len(values):,} pairs, not two for each")
    contents = [_picture(value, row) for row, value in enumerate(pictures)]
    return contents, [_truth(value, row) for row, value in enumerate(values)]


def _picture(value: object, row: int) -> bytes:
    content = _flat(value, row) if isinstance(value, _Array) else value
    if not isinstance(content, bytes):
        raise Refused(f"{_kind(value)} in place of picture {row}")
    if not content:
        raise Refused(f"picture {row} without a single byte")
    if not content.startswith(_STARTS):
        raise Refused(
            f"picture {row} that is no picture by its first bytes, {content[:8]!r}, "
            "where JPEG or PNG is expected"
        )
    return content


def _flat(array: _Array, row: int) -> bytes:
    """The encoded bytes an array holds, of shape (n,), or (n, 1) as OpenCV gives them."""
    if array.type != _Type("u1"):
        raise Refused(f"values of the type {array.type.code} as picture {row}, not encoded bytes")
    if len(array.data) != max(array.shape, default=1):
        raise Refused(
            f"pixels of the shape {array.shape} as picture {row}, where the bytes of an encoded "
            "picture (JPEG, PNG) are expected"
        )
    return array.data


def _truths(value: object) -> Sequence[object]:
    """The list of truths, or the values of an array (n,) of them."""
    if isinstance(value, _Array) and len(value.shape) == 1:
        return value.data
    if not isinstance(value, list | tuple):
        raise Refused(f"{_kind(value)} in place of the list of truths")
    return value


def _truth(value: object, row: int) -> bool:
    if not isinstance(value, int) or value not in (0, 1):
        came = "another number" if isinstance(value, int) else _kind(value)
        raise Refused(f"{came} in place of the truth of pair {row}, true or false")
    return bool(value)


def _kind(value: object) -> str:
    """What a value is, in words: never the value itself, which may be anything."""
    named = {_Array: "an array", Name: "a name", bytes: "bytes", str: "text"}
    named |= {int: "a number", type(None): "None"}
    return named.get(type(value)) or f"a {type(value).__name__.strip('_').lower()}"


# ---- what NumPy and the bytes of old protocols look like in a pickle


@dataclass(frozen=True, slots=True)
class _Type:
    """The type of an array's values: u1, bytes, or b1, truths.

    No dtype, for that would take whatever it is compared with for the name of another.
    """

    code: str


class _Array:
    """An array, of one byte per value; it is empty until BUILD gives it what it holds."""

    __slots__ = ("data", "shape", "type")

    def __init__(self) -> None:
        self.type, self.shape, self.data = _Type("u1"), (0,), b""

    def fill(self, kind: object, shape: object, data: object) -> _Array:
        """Set what it holds; Refused where that does not fit together."""
        self.type = expect(kind, _Type, what="the type of an array")
        self.shape = expect(shape, tuple, what="the shape of an array")
        self.data = expect(data, bytes, what="the values of an array")
        sides = [side for side in self.shape if type(side) is int and 0 <= side <= MAX_FILE_BYTES]
        if len(sides) != len(self.shape) or len(sides) > MAX_RANK:
            raise Refused("an array of an impossible shape")
        if math.prod(sides) != len(self.data):
            raise Refused(f"an array of shape {self.shape} with {len(self.data):,} values")
        return self


def _dtype(arguments: tuple[Any, ...]) -> _Type:
    """The type of ("u1", align, copy); types of one byte are all that is needed."""
    name = arguments[0] if arguments else None
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if text not in ("u1", "b1"):
        shown = repr(text[:40]) if isinstance(text, str) else _kind(text)
        raise Refused(f"NumPy values of the type {shown}, not bytes (u1) or truths (b1)")
    return _Type(text)


def _reconstruct(arguments: tuple[Any, ...]) -> _Array:
    """The empty array of (ndarray, (0,), "b")."""
    if not arguments or arguments[0] != Name("numpy.ndarray"):
        raise Refused("an unusual kind of NumPy array")
    return _Array()


def _frombuffer(arguments: tuple[Any, ...]) -> _Array:
    """The array of (bytes, dtype, shape, order), as protocol 5 writes it."""
    if len(arguments) != 4:
        raise Refused("an unusual kind of NumPy buffer")
    return _Array().fill(arguments[1], arguments[2], arguments[0])


def _scalar(arguments: tuple[Any, ...]) -> int:
    """The number of (dtype, byte)."""
    if len(arguments) != 2:
        raise Refused("an unusual kind of NumPy number")
    (value,) = _Array().fill(arguments[0], (1,), arguments[1]).data
    return value


def _bytes(arguments: tuple[Any, ...]) -> bytes:
    """The bytes of (), (bytes,) or (text, "latin1")."""
    match arguments:
        case ():
            return b""
        case (bytes() as content,):
            return content
        case (str() as text, "latin1" | "latin-1" | b"latin-1"):
            return text.encode("latin-1")
    raise Refused("bytes in an unusual form")


def _build(target: object, state: object) -> None:
    """Give an array what (version, shape, dtype, order, data) says, and a type what it has."""
    parts = expect(state, tuple, what="a state")
    if isinstance(target, _Array) and len(parts) == 5:
        target.fill(parts[2], parts[1], parts[4])
    elif not isinstance(target, _Type) or parts[2:5] != (None, None, None):
        raise Refused("a state that is none of a NumPy array")


_NAMES: Final[dict[str, Callable[[tuple[Any, ...]], Any] | None]] = {
    "numpy.ndarray": None,
    "numpy.dtype": _dtype,
    "_codecs.encode": _bytes,
    **dict.fromkeys(
        (
            f"{room}.{name}"
            for room in ("builtins", "__builtin__")
            for name in ("bytes", "bytearray")
        ),
        _bytes,
    ),
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
}
_RULES: Final = Rules(
    kind="verification set", opcodes=BINARY | TEXTUAL | BYTES, names=_NAMES, build=_build
)
