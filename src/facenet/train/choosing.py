"""Settings from plain data: records whose unknown keys, wrong types and wrong names are errors."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from facenet.errors import SettingsError

T = TypeVar("T")
K = TypeVar("K")

EXPONENT = re.compile(r"[+-]?[0-9]{1,9}[eE][+-]?[0-9]{1,3}")


def chosen(what: str, name: str, choices: Mapping[str, K]) -> K:
    """The choice of that name. Raises SettingsError that lists all, and the nearest first."""
    if name in choices:
        return choices[name]
    near = get_close_matches(str(name), choices, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise SettingsError(f"{what} should be one of {', '.join(choices)}; got {name!r:.80}.{hint}")


def settings_from(kind: type[T], values: Any, where: str) -> T:
    """A settings dataclass from a mapping, nested ones included.

    where: as the user finds it, such as "loss" or "loop"; "" for the whole. Lists become tuples,
    whole numbers serve as floats. Raises SettingsError for what is no mapping, an unknown key (with
    the nearest known one), a missing one and a value of another type.
    """
    what = where or "the configuration"
    if not isinstance(values, Mapping):
        raise SettingsError(
            f"{what} should be a section of `key: value` lines; got {values!r:.80}. "
            f"Known keys: {', '.join(f.name for f in _fields(kind))}."
        )
    known = [f.name for f in _fields(kind)]
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SettingsError(
                f"{what} has no key {str(key)[:60]!r}.{hint} Known keys: {', '.join(known)}."
            )
    missing = [
        f.name
        for f in _fields(kind)
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise SettingsError(f"{what} should give {', '.join(missing)}; it does not. Add it.")
    hints = get_type_hints(kind)
    inside = f"{where}." if where else ""
    given = {key: _fitted(values[key], hints[key], f"{inside}{key}") for key in values}
    return kind(**given)


def _fields(kind: Any) -> tuple[Any, ...]:
    return fields(kind)


def _fitted(value: Any, hint: Any, where: str) -> Any:
    """The value as the field wants it, or SettingsError."""
    if hint is Any:
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _fitted_to_one(value, get_args(hint), where)
    if origin is tuple:
        return _fitted_items(value, get_args(hint), where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _misfit(value, hint, where)
        return {str(key): item for key, item in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return value if isinstance(value, hint) else settings_from(hint, value, where)
    if hint is float and not isinstance(value, bool | float):
        value = _number(value)
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, hint):
        raise _misfit(value, hint, where)
    return value


def _number(value: Any) -> Any:
    """A whole number or a text such as 5e-4 as a float: YAML takes the latter for a text."""
    if isinstance(value, int) or (isinstance(value, str) and EXPONENT.fullmatch(value)):
        return float(value)
    return value


def _fitted_to_one(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in hints:
        return None
    real = [hint for hint in hints if hint is not type(None)]
    for hint in real:
        try:
            return _fitted(value, hint, where)
        except SettingsError:
            if len(real) == 1:
                raise
    raise _misfit(value, hints, where)


def _fitted_items(value: Any, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise _misfit(value, "a list", where)
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        raise _misfit(value, f"a list of {len(hints)}", where)
    return tuple(
        _fitted(item, hint, f"{where}[{number}]")
        for number, (item, hint) in enumerate(zip(value, hints, strict=True))
    )


def _misfit(value: Any, hint: Any, where: str) -> SettingsError:
    if isinstance(hint, tuple):
        wanted = " or ".join("nothing" if h is type(None) else _called(h) for h in hint)
    else:
        wanted = _called(hint)
    return SettingsError(f"{where} should be {wanted}; got {value!r:.80}. Correct the value.")


def _called(hint: Any) -> str:
    named = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return hint if isinstance(hint, str) else named.get(hint, getattr(hint, "__name__", str(hint)))
