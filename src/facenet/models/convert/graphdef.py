"""A frozen TensorFlow graph (``.pb``) as plain records, read without TensorFlow.

The file is a Protocol Buffers message ``GraphDef``, whose wire format is walked by ``wire``.
Every repeated part has a limit, nothing recurses, and large constants stay views of the file.
Sources: TensorFlow's ``graph.proto``, ``node_def.proto``, ``attr_value.proto``,
``tensor.proto`` and ``types.proto``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.models.convert.wire import BYTES, FIXED32, VARINT, WireError, fields, signed, varint

MAX_FILE_BYTES: Final = 1 << 30
"""Largest file that is looked at, in bytes."""
MAX_NODES: Final = 100_000
"""Largest number of nodes in one graph."""
MAX_RANK: Final = 8
"""Largest number of axes of a tensor or shape."""
MAX_NAME_BYTES: Final = 4096
"""Longest name, operator, input or text attribute that is kept, in bytes."""
MAX_PARTS: Final = 1 << 16
"""Most inputs or attributes of a node, items of a list, or varints of a constant."""
MAX_FILL_ELEMENTS: Final = 1 << 20
"""Largest tensor that may be stored as one repeated value."""
MAX_FILL_FACTOR: Final = 64
"""Most elements per stored value where a tensor's last one of several fills the rest."""

_DTYPES: Final = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "|u1",
    5: "<i2",
    6: "|i1",
    9: "<i8",
    10: "|b1",
    19: "<f2",
}
# TensorProto fields with one value per element: number -> NumPy type of the packed form.
_VALUE_FIELDS: Final = {5: "<f4", 6: "<f8", 7: "varint", 10: "varint", 11: "varint", 13: "varint"}

AttrValue = Any
"""bytes, int, float, bool, DType, Shape, NDArray, Opaque, or a tuple of the first six."""


@dataclass(frozen=True, slots=True)
class DType:
    """A TensorFlow element type by its number in ``types.proto``."""

    number: int

    @property
    def numpy(self) -> np.dtype[Any] | None:
        """The NumPy type, or None for text, resources and other foreign types."""
        name = _DTYPES.get(self.number)
        return None if name is None else np.dtype(name)


@dataclass(frozen=True, slots=True)
class Shape:
    """A static shape: sizes with None for a free axis; None as a whole for an unknown rank."""

    sizes: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class Opaque:
    """A tensor or attribute of a kind no network needs (text, resources, functions)."""

    what: str


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of the graph.

    ``inputs`` are as in the file: ``name`` or ``name:0`` for the first output of another
    node, ``name:k`` for its output k, ``^name`` for mere ordering.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, AttrValue]


def read_graph_def(data: bytes) -> dict[str, Node]:
    """The nodes of a serialised ``GraphDef`` by name, in the file's order.

    Tensors become read-only NumPy arrays of the stored shape and dtype, mostly views of
    ``data``. Raises ModelFileError where ``data`` is cut short, is no GraphDef, or is
    larger than the limits of this module.
    """
    if len(data) > MAX_FILE_BYTES:
        raise _refusal(f"{len(data)} bytes, more than the {MAX_FILE_BYTES} that are read")
    nodes: dict[str, Node] = {}
    try:
        for number, wire, value in fields(memoryview(data)):
            if number == 1 and wire == BYTES:
                node = _node(value)
                if node.name in nodes or len(nodes) >= MAX_NODES:
                    raise _refusal(f"two nodes {node.name!r} or more than {MAX_NODES} nodes")
                nodes[node.name] = node
    except WireError as error:
        raise _refusal(str(error)) from error
    except (ValueError, struct.error, OverflowError) as error:
        raise _refusal("a damaged message") from error
    if not nodes:
        raise _refusal("no nodes")
    return nodes


def _refusal(came: str) -> ModelFileError:
    return ModelFileError(
        f"expected a frozen TensorFlow graph (.pb), but the file holds {came}; "
        "download it again or freeze the graph again"
    )


def _text(value: Any) -> str:
    if not isinstance(value, memoryview) or len(value) > MAX_NAME_BYTES:
        raise _refusal("a name that is no text or too long")
    return bytes(value).decode("utf-8")


def _view(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise _refusal("a number in place of a message")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise _refusal("a message in place of a number")
    return signed(value)


def _bound(items: Sized, limit: int, *, what: str) -> None:
    if len(items) > limit:
        raise _refusal(f"more than {limit} {what}")


def _node(data: memoryview) -> Node:
    texts: dict[int, str] = {1: "", 2: ""}
    inputs: list[str] = []
    attrs: dict[str, AttrValue] = {}
    for number, _, value in fields(data):
        if number in texts:
            texts[number] = _text(value)
        elif number == 3:
            inputs.append(_text(value))
            _bound(inputs, MAX_PARTS, what="inputs of a node")
        elif number == 5:
            key, content = _attr_entry(_view(value))
            attrs[key] = content
            _bound(attrs, MAX_PARTS, what="attributes of a node")
    if not texts[1] or not texts[2]:
        raise _refusal("a node without a name or operator")
    return Node(texts[1], texts[2], tuple(inputs), attrs)


def _attr_entry(data: memoryview) -> tuple[str, AttrValue]:
    key, content = "", memoryview(b"")
    for number, _, value in fields(data):
        if number == 1:
            key = _text(value)
        elif number == 2:
            content = _view(value)
    return key, _attr(content)


def _attr(data: memoryview) -> AttrValue:
    """The one value of an ``AttrValue`` message (the last one where several are present)."""
    result: AttrValue = Opaque("an empty attribute")
    for number, wire, value in fields(data):
        if number == 1:
            result = _attr_list(_view(value))
        elif number == 8:
            result = _tensor(_view(value))
        else:
            result = _scalar_attr(number, wire, value=value)
    return result


def _scalar_attr(number: int, wire: int, *, value: Any) -> AttrValue:
    """Fields 2 to 7: text, int, float, bool, type, shape (the same in an attribute list)."""
    if number == 2:
        text = _view(value)
        return bytes(text) if len(text) <= MAX_NAME_BYTES else Opaque("a long text")
    if number == 4 and wire == FIXED32:
        return float(struct.unpack("<f", value)[0])
    if number in (3, 5, 6):
        whole = _whole(value)
        return {3: whole, 5: bool(whole), 6: DType(whole)}[number]
    if number == 7:
        return _shape(_view(value))
    return Opaque(f"an attribute of the kind {number}")


def _attr_list(data: memoryview) -> tuple[AttrValue, ...]:
    """A ``ListValue``; repeated numbers come one by one or packed into one field."""
    items: list[AttrValue] = []
    for number, wire, value in fields(data):
        if number in (3, 5, 6) and wire == BYTES:
            items += [_scalar_attr(number, VARINT, value=item) for item in _packed(value)]
        elif number == 4 and wire == BYTES:
            items += np.frombuffer(value, dtype="<f4").tolist()
        elif number == 8:
            items.append(Opaque("a list of tensors"))
        else:
            items.append(_scalar_attr(number, wire, value=value))
        _bound(items, MAX_PARTS, what="items of a list")
    return tuple(items)


def _packed(data: memoryview) -> list[int]:
    _bound(data, 10 * MAX_PARTS, what="bytes of packed numbers")
    values: list[int] = []
    position = 0
    while position < len(data):
        value, position = varint(data, position)
        values.append(value)
    return values


def _shape(data: memoryview) -> Shape:
    sizes: list[int | None] = []
    for number, _, value in fields(data):
        if number == 3 and _whole(value):
            return Shape(None)
        if number == 2:
            size = 0
            for inner, _, content in fields(_view(value)):
                size = _whole(content) if inner == 1 else size
            sizes.append(None if size < 0 else size)
            _bound(sizes, MAX_RANK, what="axes of a shape")
    return Shape(tuple(sizes))


def _tensor(data: memoryview) -> NDArray[Any] | Opaque:
    """A ``TensorProto`` as a read-only array; Opaque for element types NumPy lacks."""
    dtype, shape = DType(0), Shape(())
    content = memoryview(b"")
    parts: list[NDArray[Any]] = []
    for number, wire, value in fields(data):
        if number == 1:
            dtype = DType(_whole(value))
        elif number == 2:
            shape = _shape(_view(value))
        elif number == 4:
            content = _view(value)
        elif number in _VALUE_FIELDS:
            parts.append(_values(_VALUE_FIELDS[number], wire, value=value))
            _bound(parts, MAX_PARTS, what="single numbers of a constant")
    kind = dtype.numpy
    if kind is None:
        return Opaque(f"a tensor of the TensorFlow type {dtype.number}")
    if shape.sizes is None or None in shape.sizes:
        raise _refusal("a constant without a full shape")
    sizes = tuple(int(size or 0) for size in shape.sizes)
    if len(content):
        return _from_content(content, kind, sizes=sizes)
    return _from_values(np.concatenate(parts) if parts else np.zeros(0), kind, sizes=sizes)


def _values(form: str, wire: int, *, value: Any) -> NDArray[Any]:
    """The numbers of one value field, packed or single."""
    if form != "varint":
        return np.frombuffer(_view(value), dtype=form)
    raw = _packed(value) if wire == BYTES else [value]
    return np.array([_whole(item) for item in raw], dtype="<i8")


def _from_content(data: memoryview, kind: np.dtype[Any], *, sizes: tuple[int, ...]) -> NDArray[Any]:
    if math.prod(sizes) * kind.itemsize != len(data):
        raise _refusal(f"a constant of shape {sizes} with {len(data)} bytes of content")
    return np.frombuffer(data, dtype=kind).reshape(sizes)


def _from_values(
    values: NDArray[Any], kind: np.dtype[Any], *, sizes: tuple[int, ...]
) -> NDArray[Any]:
    """A tensor from its leading values; the last one (or 0) fills the rest."""
    count = math.prod(sizes)
    limit = MAX_FILL_ELEMENTS if len(values) <= 1 else MAX_FILL_FACTOR * len(values)
    if len(values) > count or (len(values) < count and count > limit):
        raise _refusal(f"a constant of shape {sizes} with {len(values)} values")
    halves = kind == np.float16  # half_val holds bit patterns
    with np.errstate(all="ignore"):
        filled = values.astype("<u2").view("<f2") if halves else values.astype(kind)
    if len(filled) <= 1:
        return np.broadcast_to(filled[0] if len(filled) else kind.type(0), sizes)
    filled = np.pad(filled, (0, count - len(filled)), mode="edge").reshape(sizes)
    filled.flags.writeable = False
    return filled
