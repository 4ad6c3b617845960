"""Attributes of people or of pictures: a CSV file that parts a data set into groups.

    person,sex,age
    Ada,female,20-39
    Bob,male,

The first column is `person` (a name as the data set has it) or `picture` (a picture's name); each
further column is an attribute. An empty cell is not known. Values are kept as they are written.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facenet.data.listfile import numbered_lines, wrong_line
from facenet.data.pairs import file_digest, listed, short
from facenet.errors import DataError, SettingsError

MAX_BYTES = 256 * 1024 * 1024
MAX_ROWS = 2_000_000
MAX_COLUMNS = 50
MAX_VALUE = 100
"""Characters of a value; it becomes the name of a group."""
KEYS = ("person", "picture")
WHAT = "a list of attributes"
JOINT = " / "


@dataclass(frozen=True, slots=True)
class Cells:
    """The group of each picture of a data set.

    labels: one per picture, such as "female / 20-39", "" where an attribute is not known.
    unknown: people (or pictures) of the data set without a row or with an empty cell, sorted.
    unused: those of the file that are not in the data set, sorted.
    """

    labels: tuple[str, ...]
    unknown: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should say, a sentence each; names are listed up to a few."""
        said = []
        if self.unknown:
            said.append(
                f"{len(self.unknown):,} of the data set have no attribute and are left out of the "
                f"groups: {listed(self.unknown)}."
            )
        if self.unused:
            said.append(
                f"{len(self.unused):,} of the list of attributes are not in the data set: "
                f"{listed(self.unused)}."
            )
        return tuple(said)


@dataclass(frozen=True, slots=True, eq=False)
class Attributes:
    """A file of attributes.

    by: "person" or "picture", what `values` is keyed by. names: of the attributes. values: a
    value per name, "" where it is not known. file: its name. digest: its SHA-256.
    """

    by: str
    names: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    file: str
    digest: str

    def cells(self, keys: Sequence[str], names: Sequence[str] = ()) -> Cells:
        """The group of each picture.

        keys: the person, or the name, of each picture, as `by` says. names: attributes that are
        combined, in this order; none: all of the file.
        Raises SettingsError for an attribute that is not there, DataError when nobody has one.
        """
        wanted = tuple(names) or self.names
        missing = [name for name in wanted if name not in self.names]
        if missing:
            raise SettingsError(
                f"{self.file} has the attributes {listed(self.names)}; it has no "
                f"{short(missing[0])}. Choose among these."
            )
        at = [self.names.index(name) for name in wanted]
        label = {key: self._label(key, at) for key in dict.fromkeys(keys)}
        unknown = sorted(key for key, text in label.items() if not text)
        unused = sorted(key for key in self.values if key not in label)
        if len(unknown) == len(label):
            raise DataError(
                f"{self.file} should give attributes of each {self.by} of the data set, such as "
                f"{listed(unknown[:3])}; it names none of them, but {listed(unused[:3])}. Write "
                "the names as the data set has them."
            )
        return Cells(tuple(label[key] for key in keys), tuple(unknown), tuple(unused))

    def _label(self, key: str, at: Sequence[int]) -> str:
        row = self.values.get(key)
        parts = [row[column] for column in at] if row else [""]
        return JOINT.join(parts) if all(parts) else ""


def read_attributes(path: str | os.PathLike[str]) -> Attributes:
    """Read attributes from CSV (UTF-8, with or without a byte-order mark, commas).

    At most `MAX_BYTES`, `MAX_ROWS` lines, `MAX_COLUMNS` columns and `MAX_VALUE` characters a value.
    Raises DataError that names the line.
    """
    file = Path(path)
    lines = _cells(file)
    by, *names = _header(file, next(lines, (1, [])))
    values: dict[str, tuple[str, ...]] = {}
    for number, cells in lines:
        key, row = _row(file, number, cells, len(names))
        if key in values:
            raise wrong_line(file, number, f"each {by} once", f"{short(key)} again")
        if len(values) == MAX_ROWS:
            raise DataError(f"{short(file)} should have at most {MAX_ROWS:,} lines; split it.")
        values[key] = row
    if not values:
        raise DataError(
            f"{short(file)} should have a line for each {by} below its header; it has none. Add "
            "the attributes."
        )
    return Attributes(by, tuple(names), values, short(file.name), file_digest(file))


def _cells(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and stripped cells of each line that is not blank."""
    for number, text in numbered_lines(file, WHAT, max_bytes=MAX_BYTES):
        try:
            row = next(csv.reader([text], strict=True, skipinitialspace=True))
        except csv.Error as error:
            raise wrong_line(file, number, f"cells between commas ({error})", text) from error
        yield number, [cell.strip() for cell in row]


def _header(file: Path, first: tuple[int, list[str]]) -> list[str]:
    number, cells = first
    names = [cells[0].lower(), *cells[1:]] if cells else [""]
    if names[0] not in KEYS or len(names) < 2 or not all(names):
        wanted = "person or picture, then the names of attributes, between commas"
        raise wrong_line(file, number, wanted, ",".join(cells))
    if len(set(names)) != len(names) or len(names) > MAX_COLUMNS:
        wanted = f"at most {MAX_COLUMNS} columns, each with a name of its own"
        raise wrong_line(file, number, wanted, ",".join(cells))
    _check_lengths(file, number, names)
    return names


def _row(file: Path, number: int, cells: list[str], width: int) -> tuple[str, tuple[str, ...]]:
    """The key and the values of a line."""
    if len(cells) != width + 1 or not cells[0]:
        raise wrong_line(file, number, f"a name and {width} values", ",".join(cells))
    _check_lengths(file, number, cells[1:])
    return cells[0], tuple(cells[1:])


def _check_lengths(file: Path, number: int, values: list[str]) -> None:
    for value in values:
        if len(value) > MAX_VALUE or not value.isprintable():
            raise wrong_line(file, number, f"values of at most {MAX_VALUE} characters", value)
