"""The variables of a TensorFlow checkpoint, read without TensorFlow.

A checkpoint of the second format is a table `PREFIX.index`, which says where each variable lies,
and the numbers themselves in `PREFIX.data-NNNNN-of-MMMMM`. Only the variables that are asked for
are read, and each is compared with its checksum. Sources: TensorFlow's `tensor_bundle.proto` and
`tensor_bundle.cc`.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError, StorageError
from facenet.models.convert import sstable
from facenet.models.convert.crc32c import crc32c, unmasked
from facenet.models.convert.graphdef import MAX_RANK, DType
from facenet.models.convert.wire import BYTES, FIXED32, VARINT, WireError, fields, signed

MAX_INDEX_BYTES: Final = 16 << 20
"""Largest index that is read; that of Inception-ResNet-v2 in training has about 300 kB."""
MAX_SHARDS: Final = 1000
"""Most data files of one checkpoint; facenet wrote one."""
_LITTLE_ENDIAN: Final = 0


@dataclass(frozen=True, slots=True)
class Variable:
    """Where a variable lies and what it is.

    dtype: TensorFlow's element type. offset, size: bytes in data file `shard`. checksum: CRC-32C.
    sliced: written in pieces by several machines, which is not read.
    """

    dtype: DType
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The index of a checkpoint: its prefix, its number of data files, its variables by name."""

    prefix: Path
    shards: int
    variables: Mapping[str, Variable]

    def read(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """The variables of these names as read-only arrays of the stored shape and dtype.

        Takes as much memory as they have bytes, never more than the data files have.
        Raises ModelFileError for a name that is not there, a variable of text or in pieces, data
        that are missing, cut short or changed; StorageError where the disk does not answer.
        """
        arrays: dict[str, NDArray[Any]] = {}
        with ExitStack() as stack:
            shards: dict[int, _Shard] = {}
            for name in names:
                variable = self._wanted(name)
                if variable.shard not in shards:
                    file = stack.enter_context(self._open(variable.shard))
                    shards[variable.shard] = _Shard(file)
                try:
                    arrays[name] = shards[variable.shard].array(variable)
                except WireError as error:
                    raise _refusal(self.prefix, f"{name[:120]!r} {error}") from error
                except OSError as error:
                    raise _unreadable(self.prefix, error) from error
        return arrays

    def _wanted(self, name: str) -> Variable:
        """A variable that can be read; its size is that of its shape."""
        variable = self.variables.get(name)
        if variable is None:
            raise _refusal(self.prefix, f"no variable {name[:120]!r}")
        kind = variable.dtype.numpy
        if variable.sliced:
            raise _refusal(
                self.prefix,
                f"{name[:120]!r} in pieces (a partitioned variable)",
                "save it once more from a program that does not partition it",
            )
        if kind is None:
            raise _refusal(
                self.prefix, f"{name[:120]!r} of the TensorFlow type {variable.dtype.number}"
            )
        if not variable.size or math.prod(variable.shape) * kind.itemsize != variable.size:
            raise _refusal(
                self.prefix,
                f"{name[:120]!r} with {variable.size} bytes for the shape {variable.shape}",
            )
        return variable

    def _open(self, shard: int) -> IO[bytes]:
        path = self.prefix.with_name(f"{self.prefix.name}.data-{shard:05d}-of-{self.shards:05d}")
        if not os.path.isfile(path):
            raise _refusal(self.prefix, f"no file {path.name[-120:]!r} beside it")
        try:
            return path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error


class _Shard:
    """An open data file, and how many of its bytes may still be read: each one once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = self._length = os.fstat(file.fileno()).st_size

    def array(self, variable: Variable) -> NDArray[Any]:
        """The numbers of a variable whose size is that of its shape."""
        if variable.offset + variable.size > self._length:
            raise WireError(f"beyond the {self._length} bytes of its data file")
        self._left -= variable.size
        if self._left < 0:
            raise WireError("in bytes that other variables have, too")
        self._file.seek(variable.offset)
        data = self._file.read(variable.size)
        if len(data) != variable.size or crc32c(data) != variable.checksum:
            raise WireError("whose checksum does not fit")
        return np.frombuffer(data, variable.dtype.numpy).reshape(variable.shape)


def read_checkpoint(prefix: Path) -> Checkpoint:
    """The index of the checkpoint `prefix`, as `find_checkpoint` gives it.

    Raises ModelFileError where the index is missing, damaged, too large or of another format;
    StorageError where the disk does not answer.
    """
    path = prefix.with_name(prefix.name + ".index")
    if not os.path.isfile(path):
        raise _refusal(prefix, f"no file {path.name[-120:]!r}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > MAX_INDEX_BYTES:
        raise _refusal(prefix, f"an index of more than {MAX_INDEX_BYTES} bytes")
    try:
        return _index(prefix, memoryview(data))
    except WireError as error:
        raise _refusal(prefix, str(error)) from error


def _index(prefix: Path, data: memoryview) -> Checkpoint:
    shards, variables = 0, {}
    for key, value in sstable.entries(data):
        if not key:
            shards = _header(value)
        elif key[0]:  # a key that begins with 0 is a piece of a variable
            variables[_name(key)] = _variable(value, shards=shards)
    if not shards:
        raise WireError("no header")
    return Checkpoint(prefix, shards, variables)


def _header(data: memoryview) -> int:
    """The number of data files, from a ``BundleHeaderProto``."""
    shards, order = 0, _LITTLE_ENDIAN
    for number, wire, value in fields(data):
        if number in (1, 2) and wire != VARINT:
            raise WireError("the header of another format (a checkpoint of the first one?)")
        shards = value if number == 1 else shards
        order = value if number == 2 else order
    if order != _LITTLE_ENDIAN:
        raise WireError("numbers of a big-endian machine")
    if not 1 <= shards <= MAX_SHARDS:
        raise WireError(f"{shards} data files")
    return shards


def _name(key: bytes) -> str:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a name that is no text") from error


def _variable(data: memoryview, *, shards: int) -> Variable:
    """A variable from its ``BundleEntryProto``."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}
    shape: tuple[int, ...] = ()
    checksum, sliced = 0, False
    for number, wire, value in fields(data):
        if number in numbers:
            numbers[number] = _expected(value, wire, kind=VARINT)
        elif number == 2:
            shape = _shape(_expected(value, wire, kind=BYTES))
        elif number == 6:
            (checksum,) = struct.unpack("<I", _expected(value, wire, kind=FIXED32))
        elif number == 7:
            sliced = True
    dtype, shard, offset, size = numbers.values()
    if shard >= shards:
        raise WireError(f"a variable in data file {shard} of {shards}")
    return Variable(DType(dtype), shape, shard, offset, size, unmasked(checksum), sliced)


def _shape(data: memoryview) -> tuple[int, ...]:
    """The sizes of a ``TensorShapeProto``, which is fully known."""
    sizes = []
    for number, wire, value in fields(data):
        if number == 2:
            size = 0
            for inner, kind, content in fields(_expected(value, wire, kind=BYTES)):
                size = signed(_expected(content, kind, kind=VARINT)) if inner == 1 else size
            sizes.append(size)
            if size < 0 or len(sizes) > MAX_RANK:
                raise WireError("a shape that is unknown or has too many axes")
    return tuple(sizes)


def _expected(value: Any, wire: int, *, kind: int) -> Any:
    """The content of a field that must be laid down in one way."""
    if wire != kind:
        raise WireError(f"a field of the wire type {wire} in place of {kind}")
    return value


def _refusal(
    prefix: Path, came: str, way_out: str = "copy all files of the checkpoint again"
) -> ModelFileError:
    return ModelFileError(
        f"expected {prefix.name[-120:]!r} to be a TensorFlow checkpoint (.index and .data-* "
        f"files), but it holds {came}; {way_out}"
    )


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"Cannot read {path}: {error.strerror or error}.")
