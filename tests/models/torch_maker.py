"""torch.save files written by hand, opcode by opcode, for the reader's tests."""

import io
import pickle
import struct
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"f4": "Float", "f2": "Half", "f8": "Double", "i4": "Int", "i8": "Long"}
STORAGES |= {"u1": "Byte", "b1": "Bool"}
FACTS = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}


class Raw(bytes):
    """Opcodes that stand for a value as they are."""


def value(item):
    """The opcodes that push a value."""
    if isinstance(item, Raw):
        return bytes(item)
    if item is None or isinstance(item, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[item]
    if isinstance(item, int):
        fits = -(1 << 31) <= item < 1 << 31
        return b"J" + struct.pack("<i", item) if fits else b"\x8a\x09" + item.to_bytes(9, "little")
    if isinstance(item, str):
        return b"X" + struct.pack("<I", len(item)) + item.encode()
    if isinstance(item, tuple):
        return b"(" + b"".join(value(part) for part in item) + b"t"
    if isinstance(item, list):
        return b"](" + b"".join(value(part) for part in item) + b"e"
    return b"}(" + b"".join(value(k) + value(v) for k, v in item.items()) + b"u"


def call(name, *arguments):
    """The opcodes that call a global."""
    module, _, attribute = name.rpartition(".")
    return Raw(f"c{module}\n{attribute}\n".encode() + value(arguments) + b"R")


def name(text):
    module, _, attribute = text.rpartition(".")
    return Raw(f"c{module}\n{attribute}\n".encode())


def storage(key, kind, count, *view):
    """A storage record; ``view`` is the sixth entry of the old format."""
    parts = ("storage", name(f"torch.{STORAGES[kind]}Storage"), key, "cpu", count, *view)
    return Raw(value(parts) + b"Q")


def tensor(where, shape, strides, offset=0):
    arguments = (where, offset, shape, strides, False, call("collections.OrderedDict"))
    return call("torch._utils._rebuild_tensor_v2", *arguments)


def program(item):
    return b"\x80\x02" + value(item) + b"."


def legacy(tree, storages, *, magic=MAGIC, protocol=1001, facts=FACTS, keys=None):
    """The sequential format; ``storages`` maps keys to arrays, ``tree`` is a value."""
    parts = [pickle.dumps(part, 2) for part in (magic, protocol, facts)]
    parts += [program(tree), pickle.dumps(list(storages) if keys is None else keys, 2)]
    for array in storages.values():
        parts.append(struct.pack("<q", array.size) + array.tobytes())
    return b"".join(parts)


def zipped(tree, storages, *, compress=zipfile.ZIP_STORED, extra=None, pickled=None):
    """The zip format."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as archive:
        archive.writestr("net/data.pkl", program(tree) if pickled is None else pickled)
        for key, array in storages.items():
            archive.writestr(f"net/data/{key}", array.tobytes())
        for entry, content in (extra or {"net/byteorder": b"little"}).items():
            archive.writestr(entry, content)
    return out.getvalue()


def contiguous(key, array):
    """A tensor record for a whole array of its own storage."""
    steps = tuple(step // array.itemsize for step in array.strides)
    where = storage(key, array.dtype.str[1:], array.size)
    return tensor(where, tuple(array.shape), steps)
