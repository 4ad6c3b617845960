"""Rows as a store keeps them: columns, a JSON body, and a seal over all of it.

A seal is BLAKE2b (RFC 7693) of 16 bytes over the kind, the key and every column of a row. It is
checked whenever the row is used, so that a damaged disk can make a gallery refuse but not make it
name the wrong person. It is no signature: whoever may write the file may also seal it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any, TypeAlias, cast

import numpy as np

from facenet.errors import DamagedGalleryError, InputError
from facenet.gallery.records import (
    Apart,
    Crop,
    EnrolledFace,
    Entry,
    Key,
    Person,
    Row,
    Ruling,
    Setting,
    Space,
)
from facenet.gallery.store import FILTERS

SIZE = 16
"""Bytes of a seal."""

Value: TypeAlias = bytes | int | None
"""A column as SQLite gives it here: text is read as its UTF-8 bytes."""

ADVICE = "See `facenet gallery verify`, and bring a backup back with `facenet gallery restore`."


@dataclass(frozen=True, slots=True)
class Table:
    """How rows of a kind lie: key, columns, body, seal. numbered: the key is an integer.
    rest: fields that are kept in the body."""

    row: type[Any]
    numbered: bool
    columns: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Name of the table."""
        return cast(str, self.row.kind)


def _table(row: type[Any], key: str, *, numbered: bool = False) -> Table:
    columns = FILTERS[row.kind]
    names = (field.name for field in fields(row))
    rest = tuple(name for name in names if name != key and name not in columns)
    return Table(row, numbered, columns, rest)


TABLES: Mapping[str, Table] = {
    "person": _table(Person, "id"),
    "face": _table(EnrolledFace, "id", numbered=True),
    "crop": _table(Crop, "face", numbered=True),
    "ruling": _table(Ruling, ""),
    "apart": _table(Apart, ""),
    "space": _table(Space, "contract"),
    "entry": _table(Entry, "id", numbered=True),
    "setting": _table(Setting, "name"),
}
"""Kind -> how its rows lie."""

KEYS = {
    "person": "id",
    "face": "id",
    "crop": "face",
    "space": "contract",
    "entry": "id",
    "setting": "name",
}
"""Field of a row that is its key; rulings and aparts make theirs of two columns."""


def seal(kind: str, values: Sequence[Value]) -> bytes:
    """The seal over a row: its kind, then key, columns and body, each with its length."""
    parts = [
        b"-" if value is None else b"%d;" % value if isinstance(value, int) else
        b"%d:%b" % (len(value), value)
        for value in values
    ]  # fmt: skip
    return blake2b(b"".join(parts), digest_size=SIZE, person=kind.encode()).digest()


def seal_vector(space: int, face: int, data: bytes) -> bytes:
    """The seal over a vector: the number of its space, the id of its face, its bytes."""
    salt = space.to_bytes(8, "little") + face.to_bytes(8, "little")
    return blake2b(data, digest_size=SIZE, salt=salt, person=b"vector").digest()


def encode(row: Row, **more: int) -> list[Value]:
    """Key, columns and body of a row. more: numbers to keep in the body besides its fields."""
    table = TABLES[row.kind]
    if isinstance(row, Crop):
        return [row.face, row.data]
    content = {name: getattr(row, name) for name in table.rest} | more
    try:
        columns = [_column(getattr(row, name)) for name in ("key", *table.columns)]
        body = _JSON.encode(content).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"A row of the kind {row.kind} should hold texts, finite numbers, lists and mappings; "
            f"got {str(error)[:120]}. Leave that out."
        ) from error
    return [*columns, body]


def decode(kind: str, values: Sequence[Value]) -> Row:
    """The row of key, columns and body. Raises DamagedGalleryError when they make none."""
    table = TABLES[kind]
    try:
        if kind == "crop":
            return Crop(cast(int, values[0]), cast(bytes, values[1]))
        found = json.loads(cast(bytes, values[-1]))
        content = {name: found[name] for name in table.rest}
        for name, value in zip(table.columns, values[1:-1], strict=True):
            content[name] = value.decode() if isinstance(value, bytes) else value
        if kind in KEYS:
            content[KEYS[kind]] = key_of(table, values[0])
        return cast(Row, table.row(**{name: _frozen(value) for name, value in content.items()}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InputError) as error:
        raise DamagedGalleryError(
            f"A row of the kind {kind} is damaged; it cannot be read as one. {ADVICE}"
        ) from error


def number_of(values: Sequence[Value]) -> int:
    """The number of a space, which its body keeps."""
    try:
        return int(json.loads(cast(bytes, values[-1]))["number"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedGalleryError(f"A space of vectors is damaged. {ADVICE}") from error


def key_of(table: Table, value: Value) -> Key:
    """A key as rows bear it."""
    if isinstance(value, bytes) and not table.numbered:
        return value.decode()
    if isinstance(value, int) and table.numbered:
        return value
    raise ValueError("the key has another type")


def same_as_kept(row: Row) -> Row:
    """The row as it would come back from a file: mappings copied, tuples in them as lists."""
    values = encode(row)
    return decode(row.kind, values)


def _column(value: Any) -> Value:
    return value.encode() if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__}")


_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False, default=_plain)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
