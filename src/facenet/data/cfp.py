"""Celebrities in Frontal-Profile in the Wild (CFP), in the folders in which it is given out.

    Data/Images/001/frontal/01.jpg, Data/Images/001/profile/01.jpg
    Protocol/Pair_list_F.txt, Protocol/Pair_list_P.txt   index and path of each picture
    Protocol/Split/FP/01/same.txt, diff.txt, and so on   pairs of indices, "i,j"

A pair of FF is of two pictures of list F; a pair of FP is of list F, then of list P. Sengupta et
al., Frontal to Profile Face Verification in the Wild, WACV 2016.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facenet.data.listfile import numbered_lines, stays_inside, whole_number, wrong_line
from facenet.data.pairs import file_digest, people_notes, resolve_pictures, short
from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError, SettingsError

MAX_BYTES = 64 * 1024 * 1024
PROTOCOLS = {"FF": ("F", "F"), "FP": ("F", "P")}
"""The lists that the first and the second number of a pair index."""
SPLITS, PAIRS = 10, 350
"""The published size: splits, and pairs of each kind in a split."""


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The pairs so far. keys: person/pose/file of both pictures."""

    keys: list[tuple[str, str]] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    fold: list[int] = field(default_factory=list)


def read_cfp(root: str | os.PathLike[str], protocol: str = "FP") -> PairSet:
    """The pairs of the protocol FP (frontal with profile) or FF (frontal with frontal).

    A person is the number of a folder; a picture that is missing has no source. Raises DataError
    that names the file and the line, and SettingsError for another protocol.
    """
    if protocol not in PROTOCOLS:
        raise SettingsError(f"The protocol of CFP should be FF or FP; got {short(protocol)!r}.")
    place = Path(root)
    if not os.path.isdir(place / "Protocol"):
        raise DataError(
            f"{short(place)} should hold the folders Data and Protocol of CFP; there is no folder "
            "Protocol. Give the folder cfp-dataset of the download."
        )
    files = [place / "Protocol" / f"Pair_list_{side}.txt" for side in PROTOCOLS[protocol]]
    first = _picture_list(files[0])
    second = first if files[1] == files[0] else _picture_list(files[1])
    columns, splits = _Columns(), _splits(place / "Protocol" / "Split" / protocol)
    for fold, split in enumerate(splits):
        for name, same in (("same.txt", True), ("diff.txt", False)):
            _add(columns, split / name, (first, second), same=same, fold=fold)
            files.append(split / name)
    return _pair_set(place, protocol, columns, files)


def _picture_list(file: Path) -> Mapping[int, str]:
    """Index to person/pose/file, which are the last three parts of the path."""
    paths: dict[int, str] = {}
    for number, line in numbered_lines(file, "a picture list of CFP", max_bytes=MAX_BYTES):
        fields = line.split(maxsplit=1)
        index = whole_number(fields[0])
        key = "/".join(fields[-1].replace("\\", "/").split("/")[-3:])
        if index is None or key.count("/") != 2 or not stays_inside(key):
            raise wrong_line(file, number, "such as '1 ../Data/Images/001/frontal/01.jpg'", line)
        if index in paths:
            raise wrong_line(file, number, "an index that no line above has", line)
        paths[index] = key
    return paths


def _splits(folder: Path) -> list[Path]:
    """The folders 01, 02 and so on, in the order of their numbers."""
    splits = [entry for entry in folder.glob("*") if entry.is_dir() and entry.name.isdecimal()]
    if not splits:
        raise DataError(
            f"{short(folder)} should hold the folders 01 to 10 with same.txt and diff.txt; it has "
            "none. Unpack the download again."
        )
    return sorted(splits, key=lambda entry: (int(entry.name), entry.name))


def _add(
    columns: _Columns,
    file: Path,
    lists: tuple[Mapping[int, str], Mapping[int, str]],
    *,
    same: bool,
    fold: int,
) -> None:
    """Add the pairs of a file."""
    for number, line in numbered_lines(file, "pairs of CFP", max_bytes=MAX_BYTES):
        indices = [whole_number(text.strip()) for text in line.split(",")]
        if len(indices) != 2 or None in indices:
            raise wrong_line(file, number, "two indices such as '12,7'", line)
        key = tuple(paths.get(index or 0) for paths, index in zip(lists, indices, strict=True))
        if key[0] is None or key[1] is None:
            sizes = " and ".join(f"1 to {len(paths)}" for paths in lists)
            raise wrong_line(file, number, f"indices of the picture lists, {sizes}", line)
        columns.keys.append((key[0], key[1]))
        columns.same.append(same)
        columns.fold.append(fold)


def _pair_set(place: Path, protocol: str, columns: _Columns, files: list[Path]) -> PairSet:
    if not columns.keys:
        raise DataError(
            f"The files same.txt and diff.txt below {short(files[-1].parents[1])} should hold "
            "pairs; all are empty. Unpack the download again."
        )
    images = place / "Data" / "Images"

    def picture(key: str) -> Picture:
        path = images / key
        return Picture(key, path if os.path.isfile(path) else None, key.split("/")[0])

    form = "001/frontal/01.jpg and so on"
    pictures, a, b = resolve_pictures(columns.keys, picture, images, form)
    same, fold = np.array(columns.same), np.array(columns.fold)
    notes = list(_size(columns)) + people_notes(pictures, a, b, same=same, fold=fold)
    digests = {file.relative_to(place).as_posix(): file_digest(file) for file in files}
    return PairSet(
        f"CFP-{protocol}", pictures, a, b, same, fold, digests=digests, notes=tuple(notes)
    )


def _size(columns: _Columns) -> Iterator[str]:
    """A sentence when this is not as much as was published."""
    kinds = Counter(zip(columns.fold, columns.same, strict=True))
    if len(kinds) != 2 * SPLITS or set(kinds.values()) != {PAIRS}:
        yield (
            f"These are {len(columns.fold)} pairs in {len(set(columns.fold))} splits; CFP has "
            f"{SPLITS} splits of {PAIRS} + {PAIRS}."
        )
