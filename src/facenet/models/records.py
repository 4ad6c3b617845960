"""Records from what JSON gives: the card's, and those that lie beside a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, TypeVar, get_type_hints

from facenet.errors import ModelFileError

T = TypeVar("T")


def build(kind: type[T], data: Mapping[str, Any]) -> T:
    """A frozen record of plain data, by the names of its fields.

    Raises ModelFileError for a name that is none of them, one that lacks, and a simple field of
    another type.
    """
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise ModelFileError(
            f"{kind.__name__} has no field {', '.join(unknown)}. Known: {', '.join(sorted(known))}."
        )
    for name, hint in get_type_hints(kind).items():
        simple = isinstance(hint, type | UnionType)
        if name in data and simple and not _is(data[name], hint):
            raise ModelFileError(
                f"{kind.__name__}.{name} should be {getattr(hint, '__name__', hint)}; "
                f"got {data[name]!r:.60}."
            )
    try:
        return kind(**data)
    except TypeError as error:
        raise ModelFileError(f"{kind.__name__} is incomplete: {error}.") from error


def _is(value: Any, hint: type | UnionType) -> bool:
    if isinstance(value, bool):
        return hint in (bool, bool | None)
    return isinstance(value, (int | float) if hint is float else hint)
