"""Folders of people: one sub-folder per person, or one picture file per person."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from facenet.errors import DataError
from facenet.images import SUFFIXES, is_image_name


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of one person."""

    person: str
    path: Path


def read_people(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """People and their pictures: sub-folders by their name, loose files by their stem.

    Sub-folders are searched to any depth; hidden and non-picture files are passed over. A folder
    and a file of one name are one person. Raises DataError when nobody is there.
    """
    root = _existing_folder(folder)
    people: dict[str, list[Path]] = {}
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            found = sorted(p for p in entry.rglob("*") if is_image_name(p) and p.is_file())
            people.setdefault(entry.name, []).extend(found)
        elif is_image_name(entry):
            people.setdefault(entry.stem, []).append(entry)
    people = {name: paths for name, paths in people.items() if paths}
    if not people:
        raise DataError(
            f"{root} should hold one picture file or one sub-folder per person; it holds no "
            f"picture ({', '.join(SUFFIXES)}). Put one there for each person."
        )
    return people


def read_class_folders(folder: str | os.PathLike[str]) -> list[Sample]:
    """The pictures of a data set root/person/picture, sorted; other files are passed over.

    Raises DataError when there is none.
    """
    root = _existing_folder(folder)
    samples = [
        Sample(person.name, path)
        for person in sorted(root.iterdir())
        if person.is_dir() and not person.name.startswith(".")
        for path in sorted(person.rglob("*"))
        if is_image_name(path) and path.is_file()
    ]
    if not samples:
        raise DataError(f"{root} should hold sub-folders with pictures, one per person; found none.")
    return samples


def _existing_folder(folder: str | os.PathLike[str]) -> Path:
    root = Path(folder)
    if not root.is_dir():
        came = "it is a file" if root.exists() else "there is no such folder"
        raise DataError(f"{root} should be a folder of people; {came}.")
    return root
