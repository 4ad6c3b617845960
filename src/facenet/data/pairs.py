"""The pairs file of Labeled Faces in the Wild: who is compared with whom.

A header `folds<TAB>n`, then lines of 3 fields (name, i, j: the same person) or 4 (name, i,
other name, j). Each fold has n pairs of the same person, then n of different people.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from facenet.errors import DataError

MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures as (name, number), whether they show the same person, and their fold."""

    a: tuple[str, int]
    b: tuple[str, int]
    same: bool
    fold: int


def read_lfw_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """Read a pairs file. Raises DataError that names the line."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file} is too large for a pairs file (limit {MAX_BYTES:,} bytes).")
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read the pairs file {file}: {error}.") from error
    folds, size = _header(file, lines)
    rows = [line for line in lines[1:] if line.strip()]
    if len(rows) != 2 * folds * size:
        raise DataError(
            f"{file} announces {folds} folds of {size} + {size} pairs = {2 * folds * size} lines; "
            f"it has {len(rows)}."
        )
    return [_pair(file, number, row, size) for number, row in enumerate(rows)]


def _header(file: Path, lines: list[str]) -> tuple[int, int]:
    fields = lines[0].split() if lines else []
    if len(fields) == 1:
        fields = ["1", *fields]
    if len(fields) != 2 or not all(field.isdigit() and int(field) > 0 for field in fields):
        raise DataError(
            f"{file} should begin with the number of folds and of pairs, such as 10 and 300; "
            f"its first line is {lines[0][:80]!r}."
            if lines
            else f"{file} is empty: expected an LFW pairs file."
        )
    return int(fields[0]), int(fields[1])


def _pair(file: Path, number: int, row: str, size: int) -> Pair:
    fields = row.split("\t") if "\t" in row else row.split()
    fold = number // (2 * size)
    try:
        if len(fields) == 3:
            name = fields[0]
            return Pair((name, int(fields[1])), (name, int(fields[2])), True, fold)
        if len(fields) == 4:
            return Pair((fields[0], int(fields[1])), (fields[2], int(fields[3])), False, fold)
    except ValueError:
        pass
    raise DataError(
        f"{file}, line {number + 2}: expected a name and two numbers, or two names with a number "
        f"each; got {row[:80]!r}."
    )


def lfw_path(root: str | os.PathLike[str], picture: tuple[str, int]) -> Path | None:
    """Where a picture lies: root/Name/Name_0001 with .jpg, .png or .jpeg; None when missing."""
    name, number = picture
    stem = Path(root) / name / f"{name}_{number:04d}"
    found = (stem.with_name(stem.name + suffix) for suffix in (".jpg", ".png", ".jpeg"))
    return next((path for path in found if path.is_file()), None)
