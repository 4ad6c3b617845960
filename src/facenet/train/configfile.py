"""The YAML file of a run, and `key=value` words that change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from facenet.errors import SettingsError
from facenet.files import written
from facenet.train.settings import Config, config_from

MAX_BYTES = 1_000_000
"""Most bytes of a configuration file."""
DEEPEST = 20
"""Levels of sections in sections."""


def read_config(path: Path, changes: Sequence[str] = ()) -> Config:
    """The settings of a YAML file, with changes such as "loop.batch=32" laid over them.

    Paths are from the folder facenet is started in, but a file of learning rates may lie beside the
    recipe. Raises SettingsError for a file that cannot be read, is no YAML, or has keys that do not
    exist.
    """
    merged = changed(read_values(path), changes)
    _find_rates(merged, path)
    try:
        return config_from(merged)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def read_values(path: Path) -> Mapping[str, Any]:
    """The sections of a YAML file as plain values, unchecked. Raises SettingsError."""
    values = _parsed(_text(path), str(path))
    if not isinstance(values, Mapping):
        raise SettingsError(
            f"{path} should hold sections such as data, backbone and loss; it holds "
            f"{type(values).__name__}. See docs/training.md."
        )
    return values


def changed(values: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A copy of the values with changes such as "loop.batch=32" laid over them."""
    merged = {key: _copied(value) for key, value in values.items()}
    for change in changes:
        _apply(merged, change)
    return merged


def write_config(config: Config, path: Path) -> None:
    """Write all settings, the unchanged ones too. Raises StorageError when the disk is full."""
    with written(path) as file:
        file.write(yaml.safe_dump(config.to_dict(), sort_keys=False, width=100).encode())


def _find_rates(values: Mapping[str, Any], recipe: Path) -> None:
    """Name the file of learning rates by where it is, when it lies beside the recipe."""
    schedule = values.get("schedule")
    if isinstance(schedule, dict) and isinstance(schedule.get("file"), str):
        beside = recipe.parent / schedule["file"]
        if beside.is_file():
            schedule["file"] = str(beside.absolute())


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SettingsError(f"{path} should be a configuration of at most 1 MB; it is larger.")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"Cannot read the configuration {path}: {error}. Check the path; recipes lie in "
            "recipes/."
        ) from error


def _parsed(text: str, origin: str) -> Any:
    try:
        _check_shape(text, origin)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{origin} should be YAML; {' '.join(str(error).split())}.") from error


def _check_shape(text: str, origin: str) -> None:
    """Refuse aliases, by which a small file becomes a huge one, and deep nesting, which is slow."""
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise SettingsError(f"{origin} should spell out its values; it uses a YAML alias (*).")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise SettingsError(f"{origin} should have at most {DEEPEST} levels; it has more.")


def _copied(value: Any) -> Any:
    """Sections that can be changed without changing what was read."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _apply(values: dict[str, Any], change: str) -> None:
    """Lay "section.key=value" over the values; value is YAML."""
    key, equals, text = change.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise SettingsError(
            f"A change of the configuration should be key=value, such as loop.batch=32; got "
            f"{change!r:.80}."
        )
    section = values
    for step in steps[:-1]:
        section = section.setdefault(step, {})
        if not isinstance(section, dict):
            raise SettingsError(f"{key} names a key inside {step}, which is no section.")
    section[steps[-1]] = _parsed(text, f"The value of {key}")
