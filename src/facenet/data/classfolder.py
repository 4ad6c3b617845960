"""The files of a training set in class folders: which are pictures, and what is wrong with others.

Unlike `facenet.data.folders`, which passes over what is no picture, everything that is left out is
told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from facenet.data.pairs import short
from facenet.errors import DataError, ImageError
from facenet.images import LIMITS, SUFFIXES, is_image_name, open_image

OF_THE_ALIGNER = ("align.json", "bounding_boxes.txt", ".align.lock")
"""What `facenet align` leaves beside the folders of people: nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not learnt from: its name in the set, and why, in words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Files:
    """Files below a folder, by their paths in it."""

    root: Path
    paths: tuple[str, ...]

    def name(self, place: int) -> str:
        """The path of a file in the folder."""
        return self.paths[place]

    def read(self, place: int) -> bytes:
        """The bytes of a file. Raises DataError, which names it, when it cannot be read."""
        path = self.root / self.paths[place]
        try:
            if wrong := _wrong_size(path):
                raise DataError(
                    f"The picture {short(path, 300)} should be as it was when the set was opened; "
                    f"{wrong}. Put it back."
                )
            return path.read_bytes()
        except OSError as error:
            raise DataError(
                f"The picture {short(path, 300)} should be there as it was when the set was "
                f"opened; {error.strerror}. Put it back."
            ) from error


def usable_files(
    root: Path, *, check: bool
) -> tuple[dict[str, list[tuple[str, int]]], list[Skipped]]:
    """The pictures of each class folder, as path in `root` and bytes, and what is none.

    check: read every picture once, without decoding it. People and paths come sorted. OSError for
    a folder that cannot be read.
    """
    people: dict[str, list[tuple[str, int]]] = {}
    skipped = []
    for entry in sorted(root.iterdir()):
        if entry.name in OF_THE_ALIGNER:
            continue
        if entry.name.startswith("."):
            skipped.append(Skipped(entry.name, "it is hidden"))
        elif not entry.is_dir():
            skipped.append(Skipped(entry.name, "it lies in no person's folder"))
        else:
            pictures = people[entry.name] = []
            for path, reason in _files_of(entry):
                name = path.relative_to(root).as_posix()
                reason = reason or _wrong_with(path, check=check)
                if reason:
                    skipped.append(Skipped(name, reason))
                else:
                    pictures.append((name, path.stat().st_size))
    return people, skipped


def damage(picture: Path | bytes) -> str:
    """What is wrong with a picture as far as that shows without decoding it, or ""."""
    try:
        open_image(picture)
    except ImageError as error:
        return str(error)
    return ""


def _files_of(person: Path) -> list[tuple[Path, str]]:
    """Everything below a person's folder, in the order of paths, each with what is wrong, or ""."""
    found: list[tuple[Path, str]] = []
    for folder, folders, files in os.walk(person, onerror=_raised):
        here = Path(folder)
        found += _looked_at(here, folders, _not_entered)
        found += _looked_at(here, files, _no_picture)
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(found)


def _looked_at(
    folder: Path, names: list[str], verdict: Callable[[Path], str | None]
) -> list[tuple[Path, str]]:
    pairs = ((folder / name, verdict(folder / name)) for name in names)
    return [(path, said) for path, said in pairs if said is not None]


def _raised(error: OSError) -> None:
    raise error


def _not_entered(folder: Path) -> str | None:
    """Why a folder is not looked into; None: it is."""
    if folder.name.startswith("."):
        return "it is hidden"
    return "it is a link to another folder" if folder.is_symlink() else None


def _no_picture(path: Path) -> str:
    """What keeps a file from being a picture, or ""."""
    if path.name.startswith("."):
        return "it is hidden"
    if not is_image_name(path):
        return f"its name is none of a picture ({', '.join(SUFFIXES)})"
    return "" if path.is_file() else "it is no file, or a link to none"


def _wrong_with(path: Path, *, check: bool) -> str:
    """What keeps a picture file from being used, or ""."""
    return _wrong_size(path) or (damage(path) if check else "")


def _wrong_size(path: Path) -> str:
    size = path.stat().st_size
    if size > LIMITS.max_bytes:
        return f"it has {size:,} bytes, where {LIMITS.max_bytes:,} is the limit"
    return "" if size else "it is empty"
