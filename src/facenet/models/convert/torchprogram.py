"""The object part of a torch file: a pickle program, interpreted without ``pickle``.

The stack machine below runs the program opcode by opcode (``pickletools`` knows their
arguments). It allows only the opcodes and the names a state dict needs, and can only ever
build dicts, lists, tuples, numbers, text and the two records of this file; a name is a
record too, nothing is imported or called.
Source: ``pickletools`` (opcodes), ``torch/serialization.py`` and ``torch/_utils.py`` (names).
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from facenet.errors import ModelFileError

MAX_OPCODES: Final = 4_000_000
"""Longest pickle program that is interpreted, in opcodes."""
MAX_NAME_BYTES: Final = 1024
"""Longest module or attribute name that is read, in bytes."""
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
_ORDERED_DICT: Final = "collections.OrderedDict"
_TENSOR: Final = "torch._utils._rebuild_tensor_v2"
_PARAMETER: Final = "torch._utils._rebuild_parameter"
_GLOBALS: Final = frozenset({*_DTYPES, _ORDERED_DICT, _TENSOR, _PARAMETER})
_OPCODES: Final = {info.code: info for info in pickletools.opcodes}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Global:
    """A name the program asked for; a record only, nothing is imported."""

    name: str


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


def refusal(came: str) -> ModelFileError:
    """The error for a torch file that holds ``came`` instead of plain weights."""
    return ModelFileError(
        f"expected a torch state dict file, but it holds {came}; "
        "save the network's state_dict() with torch.save and use that file"
    )


def expect(value: object, kind: type[_T], *, what: str) -> _T:
    """``value`` itself where it is a ``kind``; ModelFileError naming ``what`` otherwise."""
    if not isinstance(value, kind):
        raise refusal(f"{type(value).__name__.strip('_').lower()} in place of {what}")
    return value


def _counts(value: object, what: str) -> tuple[int, ...]:
    """A tuple of at most MAX_RANK whole numbers from 0 to MAX_COUNT."""
    items = expect(value, tuple, what=what)
    if len(items) > MAX_RANK or not all(type(n) is int and 0 <= n <= MAX_COUNT for n in items):
        raise refusal(f"an impossible {what}")
    return items


def _line(stream: io.BytesIO) -> str:
    """One line of a GLOBAL, without its end."""
    line = stream.readline(MAX_NAME_BYTES)
    if not line.endswith(b"\n"):
        raise refusal("a name that is cut short or too long")
    return line[:-1].decode("ascii")


def _tensor(arguments: tuple[Any, ...]) -> TensorRecord:
    """The record for (storage, offset, shape, strides, ...), bounds checked."""
    if len(arguments) < 4:
        raise refusal("a tensor without shape or strides")
    storage = expect(arguments[0], StorageRecord, what="a tensor's storage")
    (offset,) = _counts((arguments[1],), "storage offset")
    shape = _counts(arguments[2], "tensor shape")
    strides = _counts(arguments[3], "tensor stride")
    if len(shape) != len(strides):
        raise refusal("a tensor with another number of strides than axes")
    if math.prod(max(size, 1) for size in shape) > max(storage.count, 1):
        raise refusal(f"a tensor of shape {shape} larger than its storage")
    if 0 in shape:
        return TensorRecord(storage, 0, shape, (1,) * len(shape))
    strides = tuple(step if size > 1 else 1 for size, step in zip(shape, strides, strict=True))
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if last >= storage.count:
        raise refusal(f"a tensor of shape {shape} that leaves its storage")
    return TensorRecord(storage, offset, shape, strides)


class Machine:
    """Interprets one pickle program with an allow-list of opcodes and names."""

    def __init__(self) -> None:
        self.storages: dict[str, StorageRecord] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> object:
        """The value the program leaves; the stream stands behind its STOP."""
        try:
            for _ in range(MAX_OPCODES):
                if self._step(stream):
                    return self._pop()
        except (ValueError, IndexError, KeyError, struct.error) as error:
            raise refusal("a damaged or foreign pickle program") from error
        raise refusal(f"a program of more than {MAX_OPCODES} opcodes")

    def _step(self, stream: io.BytesIO) -> bool:
        """Run the next opcode; True where it ends the program."""
        code = stream.read(1)
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            raise refusal(f"the byte {code!r} in place of a pickle opcode")
        name = opcode.name
        if name not in _ALLOWED:
            raise refusal(f"the pickle opcode {name}, which no state dict needs")
        if name == "GLOBAL":
            self._name(f"{_line(stream)}.{_line(stream)}")
            return False
        argument = None if opcode.arg is None else opcode.arg.reader(stream)
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        return name == "STOP"

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise refusal("a pickle program that runs out of values")
        return self._stack.pop()

    def _pop_many(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _pop_marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _top(self, kind: type[_T], what: str) -> _T:
        return expect(self._stack[-1], kind, what=what)

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_marked()))

    def _append(self, _: Any) -> None:
        value = self._pop()
        self._top(list, "a list").append(value)

    def _appends(self, _: Any) -> None:
        values = self._pop_marked()
        self._top(list, "a list").extend(values)

    def _set_pairs(self, flat: list[Any]) -> None:
        target = self._top(dict, "a dictionary")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if type(key) not in (str, int):
                raise refusal("a dictionary key that is neither text nor a number")
            target[key] = value

    def _stack_global(self, _: Any) -> None:
        module, name = self._pop_many(2)
        self._name(f"{module}.{name}")

    def _name(self, name: str) -> None:
        if name not in _GLOBALS:
            raise refusal(f"a call of {name[:120]}, which is refused")
        self._stack.append(_Global(name))

    def _reduce(self, _: Any) -> None:
        function, arguments = self._pop_many(2)
        name = expect(function, _Global, what="a constructor's name").name
        arguments = expect(arguments, tuple, what="a constructor's arguments")
        if name == _ORDERED_DICT and not arguments:
            self._stack.append({})
        elif name == _TENSOR:
            self._stack.append(_tensor(arguments))
        elif name == _PARAMETER and arguments:
            self._stack.append(expect(arguments[0], TensorRecord, what="a parameter's tensor"))
        else:
            raise refusal(f"an unusual call of {name}")

    def _build(self, _: Any) -> None:
        self._pop()  # attributes of the dictionary, such as _metadata: not needed
        self._top(dict, "a dictionary")

    def _persistent(self, _: Any) -> None:
        parts = expect(self._pop(), tuple, what="a storage record")
        if len(parts) not in (5, 6) or parts[0] != "storage" or parts[5:] not in ((), (None,)):
            raise refusal("an unknown kind of storage record")
        kind = expect(parts[1], _Global, what="a storage type").name
        key = expect(parts[2], str, what="a storage key")
        (count,) = _counts((parts[4],), "storage length")
        if kind not in _DTYPES:
            raise refusal(f"a storage of the type {kind}")
        storage = StorageRecord(key, np.dtype(_DTYPES[kind]), count)
        if self.storages.setdefault(key, storage) != storage:
            raise refusal(f"two storages with the key {key[:60]!r}")
        self._stack.append(storage)

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])


_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_LITERALS: Final = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"}
)
_ACTIONS: Final[dict[str, Callable[[Machine, Any], None]]] = {
    "MARK": Machine._mark,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda machine, _: machine._stack.append(tuple(machine._pop_many(1))),
    "TUPLE2": lambda machine, _: machine._stack.append(tuple(machine._pop_many(2))),
    "TUPLE3": lambda machine, _: machine._stack.append(tuple(machine._pop_many(3))),
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "SETITEM": lambda machine, _: machine._set_pairs(machine._pop_many(2)),
    "SETITEMS": lambda machine, _: machine._set_pairs(machine._pop_marked()),
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": lambda machine, _: machine._put(len(machine._memo)),
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
}
_ALLOWED: Final = frozenset(
    {"PROTO", "FRAME", "STOP", "GLOBAL", *_CONSTANTS, *_LITERALS, *_ACTIONS}
)
