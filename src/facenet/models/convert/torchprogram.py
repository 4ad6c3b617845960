"""The object part of a torch file: what its pickle program may name, and the records it leaves.

The program is interpreted by `facenet.pickles`: it can only ever build dicts, lists, tuples,
numbers, text and the two records of this file.
Source: ``torch/serialization.py`` and ``torch/_utils.py`` (names).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Final

import numpy as np

from facenet.pickles import BINARY, DICTS, Name, Refused, Rules, expect, interpret

MAX_RANK: Final = 8
"""Largest number of axes of one tensor."""
MAX_COUNT: Final = 1 << 40
"""Largest length, offset or stride of a tensor, in elements."""

_DTYPES: Final = {
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.DoubleStorage": "<f8",
    "torch.IntStorage": "<i4",
    "torch.LongStorage": "<i8",
    "torch.ByteStorage": "|u1",
    "torch.BoolStorage": "|b1",
}


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """A flat run of numbers that lies elsewhere in the file."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A view of a storage; offset and strides count elements."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_program(stream: IO[bytes]) -> tuple[Any, dict[str, StorageRecord]]:
    """The value one program leaves, and the storages it names by key.

    The stream stands behind its STOP. Raises Refused for what is no part of a torch file.
    """
    storages: dict[str, StorageRecord] = {}
    rules = Rules(
        kind="state dict",
        opcodes=BINARY | DICTS | {"BINFLOAT", "BINPERSID"},
        names=_NAMES,
        build=_attributes,
        persistent=partial(_storage, storages),
        text=True,
    )
    return interpret(stream, rules), storages


def _counts(value: object, what: str) -> tuple[int, ...]:
    """A tuple of at most MAX_RANK whole numbers from 0 to MAX_COUNT."""
    items = expect(value, tuple, what=what)
    if len(items) > MAX_RANK or not all(type(n) is int and 0 <= n <= MAX_COUNT for n in items):
        raise Refused(f"an impossible {what}")
    return items


def _tensor(arguments: tuple[Any, ...]) -> TensorRecord:
    """The record for (storage, offset, shape, strides, ...), bounds checked."""
    if len(arguments) < 4:
        raise Refused("a tensor without shape or strides")
    storage = expect(arguments[0], StorageRecord, what="a tensor's storage")
    (offset,) = _counts((arguments[1],), "storage offset")
    shape = _counts(arguments[2], "tensor shape")
    strides = _counts(arguments[3], "tensor stride")
    if len(shape) != len(strides):
        raise Refused("a tensor with another number of strides than axes")
    if math.prod(max(size, 1) for size in shape) > max(storage.count, 1):
        raise Refused(f"a tensor of shape {shape} larger than its storage")
    if 0 in shape:
        return TensorRecord(storage, 0, shape, (1,) * len(shape))
    strides = tuple(step if size > 1 else 1 for size, step in zip(shape, strides, strict=True))
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if last >= storage.count:
        raise Refused(f"a tensor of shape {shape} that leaves its storage")
    return TensorRecord(storage, offset, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> TensorRecord:
    if not arguments:
        raise Refused("an unusual call of torch._utils._rebuild_parameter")
    return expect(arguments[0], TensorRecord, what="a parameter's tensor")


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise Refused("an unusual call of collections.OrderedDict")
    return {}


def _attributes(target: object, _: object) -> None:
    """Attributes of the dictionary, such as _metadata, are not needed."""
    expect(target, dict, what="a dictionary")


def _storage(storages: dict[str, StorageRecord], record: object) -> StorageRecord:
    parts = expect(record, tuple, what="a storage record")
    if len(parts) not in (5, 6) or parts[0] != "storage" or parts[5:] not in ((), (None,)):
        raise Refused("an unknown kind of storage record")
    kind = expect(parts[1], Name, what="a storage type").name
    key = expect(parts[2], str, what="a storage key")
    (count,) = _counts((parts[4],), "storage length")
    if kind not in _DTYPES:
        raise Refused(f"a storage of the type {kind}")
    storage = StorageRecord(key, np.dtype(_DTYPES[kind]), count)
    if storages.setdefault(key, storage) != storage:
        raise Refused(f"two storages with the key {key[:60]!r}")
    return storage


_NAMES: Final = {
    **dict.fromkeys(_DTYPES),
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
