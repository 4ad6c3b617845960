"""A classifier in one file: arrays as safetensors, all else as JSON in its metadata.

Layout (safetensors 0.5): 8 bytes, the length of the header, little-endian; the header, JSON padded
with spaces; the arrays one after the other. Nothing is pickled, nothing needs an extra; facenet's
own file is a pickle, which runs whatever it holds. The file holds face vectors of people, so it
is readable by its owner alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError, ModelFileError, SettingsError
from facenet.files import written
from facenet.gallery.classifier import Classifier, ClassifierSettings
from facenet.gallery.classifiermachines import ARRAYS, MACHINES

FORMAT = "facenet classifier"
VERSION = 1
KEY = "facenet_classifier"
"""Name of the JSON in the metadata."""
MOST_BYTES = 1 << 30
MOST_HEADER = 32 << 20
"""Bytes of the arrays, and of the JSON before them."""
TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}
TEXTS = ("facenet", "contract", "model", "precision", "dataset", "digest")
LONGEST_TEXT = 1000


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write a classifier, whole or not at all; the same one gives the same bytes.

    Raises StorageError where it cannot be written.
    """
    arrays = {"templates": classifier.templates, **classifier.arrays()}
    types = {"templates": "F32", **ARRAYS[classifier.settings.method]}
    entries: dict[str, Any] = {}
    blocks: list[bytes] = []
    end = 0
    for name in sorted(arrays):
        block = np.ascontiguousarray(arrays[name], TYPES[types[name]]).tobytes()
        place = [end, end := end + len(block)]
        entries[name] = {"dtype": types[name], "shape": arrays[name].shape, "data_offsets": place}
        blocks.append(block)
    data = b"".join(blocks)
    said = {
        "format": FORMAT,
        "version": VERSION,
        "settings": asdict(classifier.settings),
        "people": classifier.names,
        "counts": classifier.counts,
        "slope": classifier.slope,
        **{name: getattr(classifier, name) for name in TEXTS},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    header = json.dumps({"__metadata__": {KEY: json.dumps(said)}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    with written(path) as file:
        os.chmod(file.name, 0o600)
        file.write(len(header).to_bytes(8, "little") + header + data)


def load_classifier(path: Path) -> Classifier:
    """Read a classifier. Raises ModelFileError for a file that is none, is not whole, or is of
    another version."""
    try:
        with path.open("rb") as file:
            return _classifier(*_parts(file))
    except OSError as error:
        raise ModelFileError(
            f"Cannot read the classifier {str(path)[:300]}: {error.strerror}. Check the path, or "
            "make it with `facenet classifier train`."
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ModelFileError(
            f"{str(path)[:300]} should be a file of `facenet classifier train`; it is none, or "
            f"not whole ({ascii(str(error))[:100]}). Copy it again, or train again."
        ) from error
    except (DataError, SettingsError) as error:
        raise ModelFileError(f"{str(path)[:300]} is no classifier: {error}") from error


def _classifier(entries: dict[str, Any], data: bytes) -> Classifier:
    said = _json(_of(str, _of(dict, entries.pop("__metadata__"))[KEY]))
    if said.get("format") != FORMAT:
        raise ValueError("another format")
    if said["version"] != VERSION:
        raise DataError(
            f"expected version {VERSION}, got {ascii(said['version'])[:20]} of facenet "
            f"{ascii(said.get('facenet'))[:20]}. Train again with this version of facenet, or use "
            "that one."
        )
    if hashlib.sha256(data).hexdigest() != said["sha256"]:
        raise ValueError("its arrays are not what was written")
    settings = ClassifierSettings(**_plain(said["settings"]))
    types = {"templates": "F32", **ARRAYS[settings.method]}
    if set(entries) != set(types):
        raise ValueError(f"its arrays should be {', '.join(sorted(types))}")
    arrays = {name: _array(entries[name], kind, data) for name, kind in types.items()}
    if sum(array.nbytes for array in arrays.values()) != len(data):
        raise ValueError("its arrays do not fill it")
    templates = arrays.pop("templates")
    return Classifier(
        settings,
        tuple(_each(said["people"], str)),
        tuple(_each(said["counts"], int)),
        templates,
        MACHINES[settings.method](**arrays),
        _of(float, said["slope"]),
        **{name: _text(said, name) for name in TEXTS},
    )


def _parts(file: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what comes after it."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 0 < length <= MOST_HEADER:
        raise ValueError("it has no header of a size that can be")
    header = file.read(length)
    if len(header) < length:
        raise ValueError("its header is cut off")
    entries, data = _json(header), file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    return entries, data


def _json(text: bytes | str) -> dict[str, Any]:
    return dict(_of(dict, json.loads(text, parse_constant=_refuse)))


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} in its JSON")


def _array(entry: Any, kind: str, data: bytes) -> NDArray[Any]:
    """One array of a file, (n,) or (n, d), read-only, no larger than what was read."""
    _of(dict, entry)
    shape = _each(entry["shape"], int)
    start, end = _each(entry["data_offsets"], int)
    size = np.dtype(TYPES[kind]).itemsize
    for side in shape:
        size *= side
    whole = 0 <= start <= end <= len(data) and end - start == size and min(shape, default=0) >= 0
    if entry["dtype"] != kind or not 1 <= len(shape) <= 2 or not whole:
        raise ValueError("an array of it is cut off or of another type")
    return np.frombuffer(data[start:end], TYPES[kind]).reshape(shape)


def _plain(values: Any) -> dict[str, Any]:
    """Settings with the types that they have; an unknown one is a TypeError of the record."""
    kinds = {name: type(value) for name, value in asdict(ClassifierSettings()).items()}
    return {name: _of(kinds.get(name, object), value) for name, value in _of(dict, values).items()}


def _of(kind: Any, value: Any) -> Any:
    """A value of a type; a whole number may be for a float."""
    wanted = (int, float) if kind is float else (kind,)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} should be")
    return float(value) if kind is float else value


def _each(values: Any, kind: type) -> list[Any]:
    return [_of(kind, value) for value in _of(list, values)]


def _text(said: Mapping[str, Any], name: str) -> str:
    text = _of(str, said[name])
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise ValueError(f"{name} that cannot be shown")
    return str(text)
