"""Folders of people: one sub-folder per person, or one picture file per person."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from facenet.data.pairset import Picture
from facenet.errors import DataError
from facenet.images import SUFFIXES, find_images, is_image_name


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of one person."""

    person: str
    path: Path


def read_people(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """People and their pictures: sub-folders by their name, loose files by their stem.

    Sub-folders are searched to any depth; what is hidden and what is no picture is passed over.
    A folder and a file of one name are one person. Raises DataError when nobody is there.
    """
    root, entries = _entries(folder)
    people: dict[str, list[Path]] = {}
    for entry in entries:
        if entry.is_dir():
            people.setdefault(entry.name, []).extend(find_images([entry]))
        elif is_image_name(entry) and entry.is_file():
            people.setdefault(entry.stem, []).append(entry)
    people = {name: paths for name, paths in people.items() if paths}
    if not people:
        raise DataError(
            f"{root} should hold one picture file or one sub-folder per person; it holds no "
            f"picture ({', '.join(SUFFIXES)}). Put one there for each person."
        )
    return people


def read_class_folders(folder: str | os.PathLike[str]) -> list[Sample]:
    """The pictures of a data set root/person/picture, sorted, to any depth below the person.

    Loose files, what is hidden and what is no picture are passed over. Raises DataError when
    there is none.
    """
    root, entries = _entries(folder)
    samples = [
        Sample(person.name, path)
        for person in entries
        if person.is_dir()
        for path in find_images([person])
    ]
    if not samples:
        raise DataError(
            f"{root} should hold sub-folders with pictures ({', '.join(SUFFIXES)}), one per "
            "person; it holds none. Put the pictures of each person into a folder of their name."
        )
    return samples


def class_pictures(folder: str | os.PathLike[str]) -> tuple[Picture, ...]:
    """The pictures of a data set as `read_class_folders` finds them, named by their path in it."""
    root = Path(folder)
    return tuple(
        Picture(sample.path.relative_to(root).as_posix(), sample.path, sample.person)
        for sample in read_class_folders(root)
    )


def _entries(folder: str | os.PathLike[str]) -> tuple[Path, list[Path]]:
    """The folder and what lies in it, sorted, without the hidden."""
    root = Path(folder)
    try:
        if not root.is_dir():
            came = "it is a file" if root.exists() else "there is no such folder"
            raise DataError(
                f"{root} should be a folder of people; {came}. Check the spelling of the path."
            )
        return root, sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"Cannot read the folder of people {str(root)[:300]}: {error.strerror}. Check the path "
            "and who may read it."
        ) from error
