"""Pairs of one's own: a CSV file with a header and one pair per line.

    a,b,same
    ann/1.jpg,ann/2.jpg,1
    ann/1.jpg,bob/1.jpg,0

Further columns: fold (a whole number), person_a and person_b (names, empty where unknown).
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from facenet.data.folds import contiguous_folds, fold_notes
from facenet.data.listfile import MAX_LINE, checked_file, whole_number, wrong_line
from facenet.data.pairs import disagreeing, listed, people_notes, people_numbers, short
from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError
from facenet.types import IntArray

MAX_BYTES = 1 << 30
MAX_ROWS = 20_000_000
MAX_PICTURES = 2_000_000
TRUTH = {"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0}
NEEDED = ("a", "b", "same")
OPTIONAL = ("fold", "person_a", "person_b")


@dataclass(slots=True, frozen=True, eq=False)
class _Table:
    """What was read so far: columns of numbers per pair, and each picture once.

    line: where each pair stands. rows: the row of each spelling of a path. person: "" or a name
    per picture.
    """

    file: Path
    root: Path
    a: array[int] = field(default_factory=lambda: array("q"))
    b: array[int] = field(default_factory=lambda: array("q"))
    same: array[int] = field(default_factory=lambda: array("b"))
    fold: array[int] = field(default_factory=lambda: array("q"))
    line: array[int] = field(default_factory=lambda: array("q"))
    rows: dict[str, int] = field(default_factory=dict)
    paths: dict[Path, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    person: list[str] = field(default_factory=list)


def read_csv_pairs(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> PairSet:
    """Read pairs from CSV (UTF-8), with paths relative to `root` or else to the file's folder.

    same: 1, true, yes or 0, false, no. Without a column fold, the list is cut into ten contiguous
    folds. A picture that is missing has no source. At most `MAX_BYTES`, `MAX_ROWS` pairs and
    `MAX_PICTURES` pictures. Raises DataError that names the line.
    """
    file = checked_file(path, "a list of pairs", MAX_BYTES)
    table = _Table(file, file.parent if root is None else Path(root))
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            with io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
                unread = _read(table, text)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read the list of pairs {short(file)}: {error}. Give a CSV file in UTF-8 with "
            "the columns a, b and same."
        ) from error
    return _pair_set(table, digest, unread)


def _read(table: _Table, text: IO[str]) -> list[str]:
    """Fill the table; the columns that were not read."""
    lines = _cells(table.file, text)
    header = [name.strip().lower() for name in next(lines, (1, []))[1]]
    columns = _columns(table.file, header)
    for line, cells in lines:
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise wrong_line(table.file, line, f"{len(header)} cells", ",".join(cells))
        _add(table, line, {name: cells[at] for name, at in columns.items()})
    return [name for name in header if name not in columns]


def _cells(file: Path, text: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line; a quoted cell may go over several."""
    reader = csv.reader(_lines(file, text), strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(
            f"{short(file)}, line {reader.line_num}: expected cells between commas; {error}. "
            "Correct the quotes or save the list anew."
        ) from error


def _lines(file: Path, text: IO[str]) -> Iterator[str]:
    """The lines as they are, none longer than `MAX_LINE`."""
    for number, line in enumerate(iter(lambda: text.readline(MAX_LINE + 1), ""), 1):
        if len(line) > MAX_LINE:
            raise wrong_line(file, number, f"at most {MAX_LINE} characters", line)
        yield line


def _columns(file: Path, header: list[str]) -> Mapping[str, int]:
    """Where each column stands that is read."""
    missing = [name for name in NEEDED if name not in header]
    if missing or ("person_a" in header) != ("person_b" in header):
        raise DataError(
            f"{short(file)} should begin with a line that names the columns a, b and same, and "
            "perhaps fold, and person_a with person_b; it begins with "
            f"{short(','.join(header))!r}. Add that line."
        )
    double = [name for name in NEEDED + OPTIONAL if header.count(name) > 1]
    if double:
        raise DataError(
            f"{short(file)} should name each column once; {', '.join(double)} is there twice or "
            "more. Remove one of them."
        )
    return {name: header.index(name) for name in NEEDED + OPTIONAL if name in header}


def _add(table: _Table, line: int, cells: Mapping[str, str]) -> None:
    if len(table.same) == MAX_ROWS:
        raise DataError(
            f"{short(table.file)} should hold at most {MAX_ROWS:,} pairs; it holds more. Split it."
        )
    same = TRUTH.get(cells["same"].strip().lower())
    if same is None:
        raise wrong_line(table.file, line, "same to be 1, true, yes, 0, false or no", cells["same"])
    a, b = (
        _row(table, line, cells[side], cells.get(f"person_{side}", "").strip()) for side in "ab"
    )
    if a == b:
        raise wrong_line(table.file, line, "two pictures", f"{table.names[a]} twice")
    if "fold" in cells:
        fold = whole_number(cells["fold"].strip())
        if fold is None:
            raise wrong_line(table.file, line, "fold to be 0, 1, 2 or so", cells["fold"])
        table.fold.append(fold)
    table.a.append(a)
    table.b.append(b)
    table.same.append(same)
    table.line.append(line)


def _row(table: _Table, line: int, text: str, person: str) -> int:
    """The row of a picture, which is new or known; its person is noted."""
    row = table.rows.get(text)
    if row is None:
        row = _new_row(table, line, text)
    if person and table.person[row] not in ("", person):
        said = f"{short(table.names[row])} to show {short(table.person[row])}, as a line above says"
        raise wrong_line(table.file, line, said, person)
    table.person[row] = table.person[row] or person
    return row


def _new_row(table: _Table, line: int, text: str) -> int:
    if not text:
        raise wrong_line(table.file, line, "the paths of two pictures", "an empty cell")
    path = table.root / text
    row = table.rows[text] = table.paths.setdefault(path, len(table.names))
    if row == len(table.names):
        if row == MAX_PICTURES:
            raise DataError(
                f"{short(table.file)} should name at most {MAX_PICTURES:,} pictures; it names "
                "more. Split it."
            )
        table.names.append(str(Path(text)))
        table.person.append("")
    return row


def _pair_set(table: _Table, digest: str, unread: list[str]) -> PairSet:
    if not table.same:
        raise DataError(
            f"{short(table.file)} should hold a pair per line below its header; it holds none. Add "
            "the pairs."
        )
    a, b = (np.frombuffer(column, np.int64) for column in (table.a, table.b))
    same = np.frombuffer(table.same, np.int8).astype(bool)
    pictures = _pictures(table)
    person = people_numbers(pictures)
    for at in np.flatnonzero(disagreeing(person, a, b, same=same))[:1].tolist():
        people = " and ".join(short(pictures[row].person) for row in (a[at], b[at]))
        said = f"same to be {int(not same[at])}, as the pictures show {people}"
        raise wrong_line(table.file, table.line[at], said, str(int(same[at])))
    fold, told = _folds(table, same)
    notes = [*told, *([f"Columns that were not read: {listed(unread)}."] if unread else [])]
    notes += _repeated(a, b) + people_notes(pictures, a, b, same=same, fold=fold)
    digests = {table.file.name: digest}
    return PairSet(table.file.stem, pictures, a, b, same, fold, digests=digests, notes=tuple(notes))


def _folds(table: _Table, same: NDArray[np.bool_]) -> tuple[IntArray, tuple[str, ...]]:
    if table.fold:
        fold = np.array(table.fold, np.int64)
        return fold, fold_notes(same, fold)
    return contiguous_folds(same)


def _pictures(table: _Table) -> tuple[Picture, ...]:
    pictures = tuple(
        Picture(name, path if os.path.isfile(path) else None, person)
        for path, name, person in zip(table.paths, table.names, table.person, strict=True)
    )
    if not any(picture.source for picture in pictures):
        raise DataError(
            f"{short(table.file)} should give paths of pictures relative to {short(table.root)}; "
            f"none of its {len(pictures)} is there, not even {short(pictures[0].name)}. Give the "
            "folder from which the paths start."
        )
    return pictures


def _repeated(a: IntArray, b: IntArray) -> list[str]:
    """A sentence when pairs come more than once, in either order."""
    keys = np.minimum(a, b) * (int(max(a.max(), b.max())) + 1) + np.maximum(a, b)
    again = len(keys) - len(np.unique(keys))
    return [f"{again} of the {len(a)} pairs repeat an earlier one."] if again else []
