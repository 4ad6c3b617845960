"""TensorFlow GraphDef messages written by hand, field by field, for the converter's tests."""

import struct

import numpy as np

from facenet.models.convert.graphdef import DType, Shape

NUMBERS = {"f4": 1, "f8": 2, "i4": 3, "u1": 4, "i8": 9, "b1": 10, "f2": 19}
FLOAT, BOOL, STRING = DType(1), DType(10), DType(7)


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def block(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def real(field, value):
    return varint(field << 3 | 5) + struct.pack("<f", value)


def shape(sizes):
    if sizes is None:
        return number(3, 1)
    dims = (number(1, -1 if size is None else size) for size in sizes)
    return b"".join(block(2, dim) for dim in dims)


def tensor(array, sizes=None, *, dtype=None, values=None):
    """A TensorProto: the array's bytes, or ``values`` (encoded fields) in their place."""
    array = np.asarray(array)
    kind = NUMBERS[array.dtype.str[1:]] if dtype is None else dtype
    body = number(1, kind) + block(2, shape(array.shape if sizes is None else sizes))
    return body + (block(4, array.tobytes()) if values is None else values)


def attr(value):
    if isinstance(value, (list, tuple)):
        return block(1, b"".join(number(3, item) for item in value))
    if isinstance(value, np.ndarray):
        return block(8, tensor(value))
    if isinstance(value, Shape):
        return block(7, shape(value.sizes))
    if isinstance(value, DType):
        return number(6, value.number)
    if isinstance(value, bytes):
        return block(2, value)
    if isinstance(value, bool):
        return number(5, value)
    return number(3, value) if isinstance(value, int) else real(4, value)


def raw_node(name, op, inputs=(), attrs=None):
    """A node whose attributes are encoded already."""
    body = block(1, name.encode()) + block(2, op.encode())
    body += b"".join(block(3, source.encode()) for source in inputs)
    for key, value in (attrs or {}).items():
        body += block(5, block(1, key.encode()) + block(2, value))
    return block(1, body)


def node(name, op, *inputs, **attrs):
    return raw_node(name, op, inputs, {key: attr(value) for key, value in attrs.items()})


def const(name, values, dtype="<f4"):
    return node(name, "Const", value=np.asarray(values, dtype=dtype), dtype=FLOAT)


def picture(size=None, batch=None, channels=3):
    return node("input", "Placeholder", dtype=FLOAT, shape=Shape((batch, size, size, channels)))


def graph(*nodes):
    return b"".join(nodes) + block(2, b"") + block(4, number(1, 26))
