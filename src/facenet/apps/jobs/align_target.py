"""The folder of the crops: who may write there, and the list of boxes in it.

Only whole lines of the list count, and of several for one crop the last: a run that was killed
leaves nothing that the next run cannot mend.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.errors import DataError, SettingsError, StorageError
from facenet.files import written

SETTINGS = "align.json"
BOXES = "bounding_boxes.txt"
LOCK = ".align.lock"
UNFINISHED = re.compile(r".+\.\d+\.part")
"""Temporary files of a run that was killed."""

Box = tuple[int, int, int, int]
"""x1 y1 x2 y2 in whole pixels of the photo."""


@contextmanager
def claimed(target: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Be the only run that writes into a folder, with the settings of the runs before.

    settings: plain values, kept in `align.json`. Raises SettingsError when another run is
    writing there or the settings are others, StorageError when it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(target / LOCK, timeout=0)
    try:
        target.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise SettingsError(
            f"Another run is writing into {target}. Wait for it, or choose another folder."
        ) from error
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        _same_settings(target, settings)
        for path in target.rglob("*.part"):
            if UNFINISHED.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class BoxList:
    """The list in a folder of crops as it was read: crop -> box text ("" without a face)."""

    root: Path
    lines: Mapping[str, str]

    @classmethod
    def mended(cls, root: Path) -> BoxList:
        """Read the list of a folder and write it back sorted, with a line per crop."""
        path = root / BOXES
        lines = _read(path)
        if lines:
            text = "".join(f"{name} {box}".rstrip() + "\n" for name, box in sorted(lines.items()))
            with written(path) as file:
                file.write(_encoded(text))
        return cls(root, lines)

    def lists(self, crop: Path) -> bool:
        """Whether a crop is listed with its box."""
        return bool(self.lines.get(_key(self.root, crop)))

    def faceless(self, target: Path) -> bool:
        """Whether the picture whose crop would go to `target` is listed without a face."""
        return self.lines.get(_key(self.root, target)) == ""


def list_boxes(root: Path, target: Path, crops: Sequence[tuple[Path, Box]]) -> None:
    """Append the crops of one picture to the list in one write, so that processes can share it.

    target: stands for the picture when there is no crop. Raises StorageError.
    """
    lines = [f"{_key(root, crop)} {' '.join(map(str, box))}\n" for crop, box in crops]
    data = _encoded("".join(lines) or f"{_key(root, target)}\n")
    try:
        with (root / BOXES).open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise _cannot_write(root / BOXES, error) from error


def _same_settings(target: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings beside the crops, or check that they are the same as before."""
    path, wanted = target / SETTINGS, json.loads(json.dumps(settings))
    try:
        before = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        with written(path) as file:
            file.write(json.dumps(wanted, indent=1).encode())
        return
    except (OSError, ValueError) as error:
        raise DataError(f"{path} should hold the settings of {target}; {error}.") from error
    if before != wanted:
        known = before if isinstance(before, dict) else {}
        changed = sorted(key for key in known.keys() | wanted if known.get(key) != wanted.get(key))
        raise SettingsError(
            f"{target} was made with another {', '.join(changed)}. Choose another folder, or "
            f"remove {target} to begin anew."
        )


def _read(path: Path) -> dict[str, str]:
    """Crop -> box text of the whole lines of a list; the last line of a crop counts."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    return dict(_split(line) for line in text.split("\n")[:-1] if line)


def _split(line: str) -> tuple[str, str]:
    name, *box = line.rsplit(" ", 4)
    return (name, " ".join(box)) if len(box) == 4 and all(map(str.isdecimal, box)) else (line, "")


def _key(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix().replace("\n", "?")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"Cannot write {path}: {error.strerror or error}. Choose another folder or free some space."
    )
