"""The pairs file of Labeled Faces in the Wild: who is compared with whom.

A header `folds<TAB>n` (or `n` alone: one fold), then lines of 3 fields (name, i, j: the same
person) or 4 (name, i, other name, j). A fold is n + n lines; in LFW the same person come first.

Below it is what the readers of pair lists share: the pictures behind what a list calls them, and
what is to be said of the people.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError
from facenet.types import IntArray

MAX_BYTES = 64 * 1024 * 1024
NAMED = 5
"""How many names a note lists."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures as (name, number), whether they show the same person, and their fold."""

    a: tuple[str, int]
    b: tuple[str, int]
    same: bool
    fold: int


def lfw_pairs(images: str | os.PathLike[str], pairs_file: str | os.PathLike[str]) -> PairSet:
    """LFW's View 2, or any list in its form: pictures images/Name/Name_0001.jpg.

    A picture that is missing has no source; people without a folder are named in a note.
    Raises DataError for a pairs file that cannot be read, and when no picture is there.
    """
    file = Path(pairs_file)
    lines, digest = _lines(file)
    pairs = _pairs(file, lines)
    people = dict.fromkeys(name for pair in pairs for name in (pair.a[0], pair.b[0]))
    absent = [name for name in people if not os.path.isdir(os.path.join(images, name))]
    note = (
        f"{len(absent)} of the {len(people)} people have no folder in {short(images)}: "
        f"{listed(absent)}."
    )
    pictures, a, b = resolve_pictures(
        [(pair.a, pair.b) for pair in pairs],
        lambda key: Picture(f"{key[0]}_{key[1]:04d}", lfw_path(images, key), key[0]),
        Path(images),
        "Name/Name_0001.jpg",
    )
    same = np.array([pair.same for pair in pairs])
    fold = np.array([pair.fold for pair in pairs])
    notes = ([note] if absent else []) + people_notes(pictures, a, b, same=same, fold=fold)
    digests = {file.name: digest}
    return PairSet("LFW", pictures, a, b, same, fold, digests=digests, notes=tuple(notes))


def read_lfw_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """Read a pairs file. Raises DataError that names the line."""
    return _pairs(Path(path), _lines(Path(path))[0])


def _lines(file: Path) -> tuple[list[str], str]:
    """The lines of the file, and its SHA-256."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(
                f"{file} should be a pairs file of at most {MAX_BYTES:,} bytes; it is larger. "
                "Check that it is the right file."
            )
        return data.decode("utf-8-sig").splitlines(), hashlib.sha256(data).hexdigest()
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read the pairs file {file}: {error}. Give a text file such as LFW's pairs.txt."
        ) from error


def _pairs(file: Path, lines: Sequence[str]) -> list[Pair]:
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


def _header(file: Path, lines: Sequence[str]) -> tuple[int, int]:
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


# ---- what the readers of pair lists share


def resolve_pictures(
    keys: Sequence[tuple[Key, Key]], picture: Callable[[Key], Picture], place: Path, form: str
) -> tuple[tuple[Picture, ...], IntArray, IntArray]:
    """The pictures that pairs name, and the rows of both sides: int64 (n,) and (n,).

    keys: what a list calls its pictures. picture: asked once per key, in their order. place,
    form: the folder and how pictures are called in it. Raises DataError when no picture has a
    source.
    """
    rows: dict[Key, int] = {}
    sides = [rows.setdefault(key, len(rows)) for pair in keys for key in pair]
    pictures = tuple(picture(key) for key in rows)
    if not any(one.source is not None for one in pictures):
        raise DataError(
            f"{short(place)} should hold {form}; no picture of the pairs is there. Give the folder "
            "in which they lie."
        )
    a, b = np.array(sides, np.int64).reshape(-1, 2).T
    return pictures, a, b


def file_digest(file: Path) -> str:
    """The SHA-256 of a file as 64 hex digits. Raises DataError when it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"Cannot read {short(file)}: {error.strerror}. Check who may read it."
        ) from error


def people_notes(
    pictures: Sequence[Picture],
    a: IntArray,
    b: IntArray,
    *,
    same: NDArray[np.bool_],
    fold: IntArray,
) -> list[str]:
    """What the names of the people tell about pairs: a, b, same, fold of the shape (n,).

    A sentence where the truth is another than the names say, and one where a person is in more
    than one fold, as in CFP and AgeDB (Wu et al., arXiv 2405.15965).
    """
    person = people_numbers(pictures)
    notes = []
    wrong = int(np.sum(disagreeing(person, a, b, same=same)))
    if wrong:
        notes.append(
            f"In {wrong} of the {len(a)} pairs the truth is another than the names of the people "
            "say; the truth of the list is used."
        )
    who, where = np.concatenate([person[a], person[b]]), np.concatenate([fold, fold])
    places = np.unique(np.stack([who, where])[:, who >= 0], axis=1)
    people, folds = np.unique(places[0], return_counts=True)
    if (shared := int(np.sum(folds > 1))) > 0:
        notes.append(
            f"{shared} of the {len(people)} people are in more than one fold, so that the folds "
            "are not independent and their spread is too small."
        )
    return notes


def people_numbers(pictures: Sequence[Picture]) -> IntArray:
    """A number per picture, the same for equal names, -1 without a name: int64 (pictures,)."""
    numbers: dict[str, int] = {"": -1}
    return np.array(
        [numbers.setdefault(one.person, len(numbers) - 1) for one in pictures], np.int64
    )


def disagreeing(
    person: IntArray, a: IntArray, b: IntArray, *, same: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Pairs whose truth contradicts known people: person (pictures,), a, b, same (n,) -> (n,)."""
    known = (person[a] >= 0) & (person[b] >= 0)
    wrong: NDArray[np.bool_] = known & ((person[a] == person[b]) != same)
    return wrong


def short(text: str | os.PathLike[str], limit: int = 80) -> str:
    """A name for a sentence: printable whatever a file system holds, and not too long."""
    plain = os.fspath(text).encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= limit else f"{plain[:limit]}..."


def listed(names: Sequence[str]) -> str:
    """The first `NAMED` names for a sentence, and how many more there are."""
    shown = ", ".join(short(name) for name in names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown
