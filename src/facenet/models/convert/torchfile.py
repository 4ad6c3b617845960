"""The weights inside a torch state-dict file, read without torch and without a pickle.

Both layouts of ``torch.save`` are read: the old sequential one (magic number, protocol,
system facts, object, storage keys, storages) and the zip archive that replaced it in
torch 1.6. Their object part is a pickle program; ``torchprogram`` reads it without running
it and leaves records, which are joined with the stored numbers here.
Source of the formats: ``torch/serialization.py``.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.models.convert.torchprogram import StorageRecord, TensorRecord, read_program
from facenet.pickles import Refused, expect

MAX_FILE_BYTES: Final = 2 << 30
"""Largest file that is looked at, in bytes."""

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001


def read_state_dict(data: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a torch state dict by name, in the file's order.

    ``data`` is the whole file. The arrays are read-only, little-endian, of the stored
    shape and dtype (float16/32/64, int32/64, uint8, bool) and may be strided views, so
    the memory used never exceeds the file's length. A checkpoint whose top level holds
    one ``state_dict`` entry is opened one level down.
    Raises ModelFileError for anything that is not such a file or asks for other names.
    """
    try:
        return _read(data)
    except Refused as error:
        raise ModelFileError(
            f"expected a torch state dict file, but it holds {error}; "
            "save the network's state_dict() with torch.save and use that file"
        ) from error


def _read(data: bytes) -> dict[str, NDArray[Any]]:
    if len(data) > MAX_FILE_BYTES:
        raise Refused(f"{len(data)} bytes, more than the {MAX_FILE_BYTES} that are read")
    if data[:4] == b"PK\x03\x04":
        tree, storages = _read_zip(data)
    else:
        tree, storages = _read_sequential(data)
    return {name: _view(name, tensor, storages=storages) for name, tensor in _tensors(tree).items()}


def _read_sequential(data: bytes) -> tuple[object, dict[str, NDArray[Any]]]:
    stream = io.BytesIO(data)
    if read_program(stream)[0] != _MAGIC:
        raise Refused("no torch magic number at its start")
    if read_program(stream)[0] != _PROTOCOL:
        raise Refused("an unknown torch protocol number")
    facts = expect(read_program(stream)[0], dict, what="facts about the writing system")
    if facts.get("little_endian") is not True:
        raise Refused("numbers in big-endian order")
    tree, records = read_program(stream)
    keys = expect(read_program(stream)[0], list, what="the list of its storages")
    storages: dict[str, NDArray[Any]] = {}
    position = stream.tell()
    for key in keys:
        key = expect(key, str, what="a storage key")
        storage = records.get(key)
        if storage is None or key in storages:
            raise Refused(f"an unknown or repeated storage key {key[:60]!r}")
        storages[key], position = _sequential_storage(data, position, storage=storage)
    return tree, storages


def _sequential_storage(
    data: bytes, position: int, *, storage: StorageRecord
) -> tuple[NDArray[Any], int]:
    start = position + 8
    end = start + storage.count * storage.dtype.itemsize
    if end > len(data):
        raise Refused(f"a storage that ends at byte {end} of {len(data)} (cut short?)")
    if int.from_bytes(data[position:start], "little", signed=True) != storage.count:
        raise Refused(f"a storage {storage.key!r} of another length than declared")
    values = np.frombuffer(data[start:end], dtype=storage.dtype)
    return values, end


def _read_zip(data: bytes) -> tuple[object, dict[str, NDArray[Any]]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive, len(data))
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        struct.error,
    ) as error:
        raise Refused(f"a damaged zip archive ({error})") from error


def _read_archive(archive: zipfile.ZipFile, budget: int) -> tuple[object, dict[str, NDArray[Any]]]:
    programs = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
    if len(programs) != 1:
        raise Refused(f"{len(programs)} data.pkl entries instead of one")
    folder = programs[0][: -len("data.pkl")]
    order = folder + "byteorder"
    if order in archive.namelist() and _entry(archive, order, limit=16) != b"little":
        raise Refused("numbers in big-endian order")
    program = _entry(archive, programs[0], limit=budget)
    budget -= len(program)
    tree, records = read_program(io.BytesIO(program))
    storages: dict[str, NDArray[Any]] = {}
    for key, storage in records.items():
        content = _entry(archive, f"{folder}data/{key}", limit=budget)
        budget -= len(content)
        if len(content) != storage.count * storage.dtype.itemsize:
            raise Refused(f"a storage {key!r} of another length than declared")
        storages[key] = np.frombuffer(content, dtype=storage.dtype)
    return tree, storages


def _entry(archive: zipfile.ZipFile, name: str, *, limit: int) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise Refused(f"no entry {name[:80]!r}") from error
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
        raise Refused(f"an entry {name[:80]!r} that is compressed or longer than the file")
    return archive.read(info)


def _tensors(tree: object) -> dict[str, TensorRecord]:
    entries = expect(tree, dict, what="a dictionary of tensors")
    if isinstance(entries.get("state_dict"), dict):
        entries = entries["state_dict"]
    if not entries:
        raise Refused("no tensors")
    for name, value in entries.items():
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            raise Refused(f"an entry {str(name)[:80]!r} that is no tensor")
    return entries


def _view(name: str, tensor: TensorRecord, *, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    flat = storages.get(tensor.storage.key)
    if flat is None:
        raise Refused(f"a tensor {name!r} without its storage")
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :],
        shape=tensor.shape,
        strides=[step * flat.itemsize for step in tensor.strides],
        writeable=False,
    )
