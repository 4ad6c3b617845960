"""People to be enrolled: a CSV file with a header and one photo per line.

    person,photo,external_id,team
    Grace Hopper,hopper/1.jpg,E-17,compilers
    Grace Hopper,hopper/2.jpg,,

Photos lie below the folder of the file, or are absolute paths. Every column but the first three is
metadata of the person; an empty cell says nothing.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facenet.data.listfile import numbered_lines, wrong_line
from facenet.errors import DataError

MAX_BYTES = 256 * 1024 * 1024
MAX_COLUMNS = 50
WHAT = "a list of people"
PERSON, PHOTO, EXTERNAL = "person", "photo", "external_id"


@dataclass(frozen=True, slots=True)
class Listed:
    """A person of a list and their photos, in the order of the file."""

    name: str
    photos: list[Path] = field(default_factory=list)
    external_id: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def read_roster(path: str | os.PathLike[str]) -> list[Listed]:
    """The people of a list, each once, in the order of their first lines.

    Lines with one external id are one person, and so are lines with one name and no external id.
    Raises DataError for a file without the columns person and photo, or a line that names no
    photo, gives one person two names or says two things of one person.
    """
    file, root = Path(path), Path(path).parent
    people: dict[tuple[str, str], Listed] = {}
    header: list[str] = []
    for number, line in numbered_lines(path, WHAT, max_bytes=MAX_BYTES):
        cells = _cells(file, number, line)
        if not header:
            header = _checked_header(file, number, cells)
            continue
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        if len(cells) != len(header) or not row[PERSON] or not row[PHOTO]:
            raise wrong_line(file, number, f"{len(header)} cells with a person and a photo", line)
        said = _said(file, number, row, people)
        said.photos.append(root / row[PHOTO])
    if not people:
        raise DataError(f"{file} should hold a header and a photo per line; it holds no photo.")
    return list(people.values())


def _said(
    file: Path, number: int, row: Mapping[str, str], people: dict[tuple[str, str], Listed]
) -> Listed:
    """The person of a line, with what it adds to them."""
    external = row.get(EXTERNAL) or None
    key = (EXTERNAL, external) if external else (PERSON, row[PERSON])
    person = people.setdefault(key, Listed(row[PERSON], external_id=external))
    if person.name != row[PERSON]:
        raise wrong_line(file, number, f"the name {person.name} for {external}", row[PERSON])
    for name, value in row.items():
        if name in (PERSON, PHOTO, EXTERNAL) or not value:
            continue
        if person.metadata.setdefault(name, value) != value:
            raise wrong_line(file, number, f"{name} {person.metadata[name]}, as before", value)
    return person


def _cells(file: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise wrong_line(file, number, "cells with commas between them", line) from error


def _checked_header(file: Path, number: int, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = len(set(names)) < len(names)
    if twice or not {PERSON, PHOTO} <= set(names) or len(names) > MAX_COLUMNS or "" in names:
        raise wrong_line(
            file, number, f"a header with {PERSON}, {PHOTO} and other names once", ",".join(cells)
        )
    return names
