"""TensorFlow checkpoints written by hand, byte by byte, for the reader's tests."""

import struct
import zlib

import numpy as np
from graph_maker import block, number, shape, varint

MAGIC = 0xDB4775248B80FB57
TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def seeded(name, shape):
    """The values of a variable in scripts/golden/tensorflow_checkpoints.py, by the same recipe."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(shape, np.float32)
    if name.endswith("moving_variance"):
        return np.float32(0.5) + np.abs(values)
    scale = np.sqrt(2 / np.prod(shape[:-1])) if name.endswith("weights") else 0.1
    return values * np.float32(scale)


def crc32c(data):
    """CRC-32C, bit by bit for a table, byte by byte for the data."""
    table = []
    for state in range(256):
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
        table.append(state)
    state = 0xFFFFFFFF
    for byte in data:
        state = state >> 8 ^ table[(state ^ byte) & 255]
    return state ^ 0xFFFFFFFF


def masked(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def fixed(field, value):
    return varint(field << 3 | 5) + struct.pack("<I", value)


def entries(pairs):
    """The content of a block; keys share what they can, as LevelDB writes them."""
    out, last = b"", b""
    for key, value in pairs:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out, last = out + key[shared:] + value, key
    return out + struct.pack("<II", 0, 1)


def stored(content, kind=0):
    """A block with its trailer."""
    body = content + bytes([kind])
    return body + struct.pack("<I", masked(crc32c(body)))


def table(pairs, *, per_block=4, kind=0):
    """A sorted table of (key, value) pairs, which are written in the order given."""
    data, index = b"", []
    for start in range(0, len(pairs), per_block):
        part = pairs[start : start + per_block]
        content = entries(part)
        index.append((part[-1][0], varint(len(data)) + varint(len(content))))
        data += stored(content, kind)
    return finished(data, index)


def finished(data, index):
    """Blocks with the block of the index, an empty one of other facts, and the footer."""
    other = varint(len(data)) + varint(8)
    data += stored(entries([]))
    content = entries(index)
    handles = other + varint(len(data)) + varint(len(content))
    data += stored(content)
    return data + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def header(shards=1, order=0):
    return b"", number(1, shards) + (number(2, order) if order else b"") + block(3, number(1, 1))


def entry(array, offset, *, extra=b"", **change):
    """A BundleEntryProto; ``change`` replaces its dtype, sizes, shard, size or crc."""
    facts = {
        "dtype": TYPES[array.dtype.name],
        "sizes": array.shape,
        "shard": 0,
        "size": array.nbytes,
        "crc": masked(crc32c(array.tobytes())),
    } | change
    body = number(1, facts["dtype"]) + block(2, shape(facts["sizes"]))
    body += number(3, facts["shard"]) + number(4, offset) + number(5, facts["size"])
    return body + fixed(6, facts["crc"]) + extra


def write(folder, name, arrays, *, change=None, crc=None):
    """A checkpoint of these arrays; ``change``: variable -> what `entry` replaces.

    crc: a faster checksum for large arrays, of `facenet` itself.
    """
    data, pairs = b"", [header()]
    for key in sorted(arrays):
        array = np.asarray(arrays[key], order="C")
        facts = {"crc": masked(crc(array.tobytes()))} if crc else {}
        facts |= (change or {}).get(key, {})
        pairs.append((key.encode(), entry(array, len(data), **facts)))
        data += array.tobytes()
    (folder / f"{name}.index").write_bytes(table(pairs))
    (folder / f"{name}.data-00000-of-00001").write_bytes(data)
    return folder / name
