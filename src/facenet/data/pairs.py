"""The pairs file of Labeled Faces in the Wild: who is compared with whom.

A header `folds<TAB>n` (or `n` alone: one fold), then lines of 3 fields (name, i, j: the same
person) or 4 (name, i, other name, j). A fold is n + n lines; in LFW the same person come first.
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
            raise DataError(
                f"{file} should be a pairs file of at most {MAX_BYTES:,} bytes; it is larger. "
                "Check that it is the right file."
            )
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read the pairs file {file}: {error}. Give a text file such as LFW's pairs.txt."
        ) from error
    folds, size = _header(file, lines)
    rows = [(number, line) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if len(rows) != 2 * folds * size:
        raise DataError(
            f"{file} announces {folds} folds of {size} + {size} pairs = {2 * folds * size} lines; "
            f"it has {len(rows)}. Copy or download it again."
        )
    return [
        _pair(file, number, line, fold=index // (2 * size))
        for index, (number, line) in enumerate(rows)
    ]


def _header(file: Path, lines: list[str]) -> tuple[int, int]:
    first = lines[0] if lines else ""
    fields = [_number(field) for field in first.split()]
    if len(fields) == 1:
        fields = [1, *fields]
    if len(fields) != 2 or not all(fields):
        raise DataError(
            f"{file} should begin with the number of folds and of pairs, such as 10 and 300; "
            f"its first line is {first[:80]!r}. Give a pairs file such as LFW's pairs.txt."
        )
    return fields[0] or 0, fields[1] or 0


def _pair(file: Path, number: int, row: str, *, fold: int) -> Pair:
    fields = [field.strip() for field in (row.split("\t") if "\t" in row else row.split())]
    if len(fields) in (3, 4):
        name, other = fields[0], fields[-2] if len(fields) == 4 else fields[0]
        i, j = _number(fields[1]), _number(fields[-1])
        if name and other and i is not None and j is not None:
            return Pair((name, i), (other, j), len(fields) == 3, fold)
    raise DataError(
        f"{file}, line {number}: expected a name and two numbers, or two names with a number each; "
        f"got {row[:80]!r}. Correct the line."
    )


def _number(text: str) -> int | None:
    """A whole number, 0 or more, of at most nine digits."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def lfw_path(root: str | os.PathLike[str], picture: tuple[str, int]) -> Path | None:
    """Where a picture lies: root/Name/Name_0001 with .jpg, .png or .jpeg; None when missing."""
    name, number = picture
    stem = Path(root) / name / f"{name}_{number:04d}"
    found = (stem.with_name(stem.name + suffix) for suffix in (".jpg", ".png", ".jpeg"))
    return next((path for path in found if os.path.isfile(path)), None)
