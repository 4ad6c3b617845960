"""Pictures to learn from: a folder per person, or a record file of InsightFace.

What cannot be used is listed with the reason, and never read afterwards: files that are no
pictures (facenet took every file of a folder for one), pictures that end early or are damaged at
their beginning, and people with too few of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from facenet.data.classfolder import Files, damage, usable_files
from facenet.data.classfolder import Skipped as Skipped
from facenet.data.pairs import listed, short
from facenet.data.recordio import Records, open_records, read_property
from facenet.errors import DataError, SettingsError
from facenet.types import IntArray

RECORD_FILE = "train.rec"
"""The record file that a folder of InsightFace holds."""


class _Pictures(Protocol):
    """Where the bytes come from, by a number per picture."""

    def name(self, place: int) -> str: ...

    def read(self, place: int) -> bytes: ...


class Names(Sequence[str]):
    """The names of pictures, made when they are asked for: millions take no memory."""

    __slots__ = ("_pictures", "_places")

    def __init__(self, pictures: _Pictures, places: IntArray) -> None:
        self._pictures, self._places = pictures, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Names(self._pictures, self._places[index])
        return self._pictures.name(int(self._places[index]))

    def __iter__(self) -> Iterator[str]:
        return (self._pictures.name(place) for place in self._places.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Pictures of people, with a label each.

    name: of the set. people: their names, by label. labels: int64 (n,), 0 to len(people) - 1, each
    of them there. sizes: int64 (n,), bytes of each encoded picture. skipped: what was left out when
    the set was opened.
    """

    name: str
    people: tuple[str, ...]
    labels: IntArray
    sizes: IntArray
    skipped: tuple[Skipped, ...]
    _pictures: _Pictures
    _places: IntArray
    _told: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> Sequence[str]:
        """A name per picture that stays the same: its path in the folder, or its key."""
        return Names(self._pictures, self._places)

    def read(self, row: int) -> bytes:
        """The encoded picture. Raises DataError, which names it, when it is no longer there."""
        return self._pictures.read(int(self._places[row]))

    def subset(self, rows: Sequence[int] | IntArray) -> TrainingSet:
        """The pictures `rows`, int64 (m,), in that order; people without any are gone, and labels
        count from 0 again. Raises DataError for no rows, and for rows that the set does not have.
        """
        chosen = np.asarray(rows, np.int64)
        if chosen.ndim != 1 or len(chosen) == 0:
            raise DataError(
                f"A part of {short(self.name)} should hold a picture or more; it would hold none. "
                "Choose other limits."
            )
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise DataError(
                f"A part of {short(self.name)} should name its rows 0 to {len(self) - 1}; it names "
                f"{chosen.min() if chosen.min() < 0 else chosen.max()}. Is it of another set?"
            )
        kept, labels = np.unique(self.labels[chosen], return_inverse=True)
        return replace(
            self,
            people=tuple(self.people[label] for label in kept.tolist()),
            labels=_frozen(labels),
            sizes=_frozen(self.sizes[chosen]),
            _places=_frozen(self._places[chosen]),
            _told={},
        )

    def of_people(self, labels: Sequence[int] | IntArray) -> TrainingSet:
        """All pictures of the people with these labels, int64 (m,), in the order of this set."""
        return self.subset(np.flatnonzero(np.isin(self.labels, np.asarray(labels, np.int64))))

    @property
    def digest(self) -> str:
        """SHA-256, in hex, over the name, label and size in bytes of every picture, in order."""
        if "digest" not in self._told:
            sha = hashlib.sha256()
            columns = (self.names, self.labels.tolist(), self.sizes.tolist())
            for name, label, size in zip(*columns, strict=True):
                sha.update(os.fsencode(f"{name}\t{label}\t{size}\n"))
            self._told["digest"] = sha.hexdigest()
        return str(self._told["digest"])

    def manifest(self) -> dict[str, Any]:
        """What the set is, as plain data for JSON: name, digest, number of pictures, and for each
        person how many pictures, and 16 digits of the SHA-256 over their names and sizes, sorted.
        """
        if "people" not in self._told:
            order = np.argsort(self.labels, kind="stable")
            ends = np.cumsum(np.bincount(self.labels))[:-1]
            self._told["people"] = {
                person: [len(rows), self._digest_of_person(rows)]
                for person, rows in zip(self.people, np.split(order, ends), strict=True)
            }
        return {
            "name": self.name,
            "digest": self.digest,
            "pictures": len(self),
            "people": self._told["people"],
        }

    def _digest_of_person(self, rows: IntArray) -> str:
        names = Names(self._pictures, self._places[rows])
        lines = sorted(
            f"{name}\t{size}\n" for name, size in zip(names, self.sizes[rows].tolist(), strict=True)
        )
        return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()[:16]


def open_training_set(
    place: str | os.PathLike[str], *, min_images: int = 1, check: bool = True
) -> TrainingSet:
    """Open a folder of class folders, a .rec file, or a folder that holds `train.rec`.

    min_images: people with fewer usable pictures are left out. check: read every picture once,
    without decoding it, and leave out those that are damaged at the beginning or end early;
    without it, only sizes are looked at. People are in the order of their names (of their labels in
    a record file). Raises DataError when nothing is left, and for a place that is none of these.
    """
    if min_images < 1:
        raise SettingsError(f"min_images should be 1 or more; got {min_images}.")
    root = Path(place)
    try:
        inside = root / RECORD_FILE
        if root.is_file() and root.suffix == ".rec" or inside.is_file():
            file = root if root.is_file() else inside
            return _of_records(file, min_images=min_images, check=check)
        if not root.is_dir():
            came = "it is another file" if root.exists() else "there is nothing"
            raise DataError(
                f"{short(root, 300)} should be a folder with a sub-folder per person, or a record "
                f"file (.rec); {came}. Check the spelling of the path."
            )
        return _of_folder(root, min_images=min_images, check=check)
    except OSError as error:
        raise DataError(
            f"Cannot read the training set {short(root, 300)}: {error.strerror}. Check the path "
            "and who may read it."
        ) from error


def manifest_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """In which way the second manifest differs from the first: a sentence, or None when it does
    not. Raises DataError for what is no manifest."""
    before, after = _people_of(old), _people_of(new)
    if old["digest"] == new["digest"]:
        return None
    gone, fresh = (
        [p for p in one if p not in two] for one, two in ((before, after), (after, before))
    )
    other = [p for p in before if p in after and list(before[p]) != list(after[p])]
    counted = [
        f"{person}: {after[person][0]} instead of {before[person][0]}"
        if after[person][0] != before[person][0]
        else f"{person}: as many, but others"
        for person in other
    ]
    parts = [
        f"{words}: {len(names)} ({listed(shown)})"
        for names, shown, words in (
            (gone, gone, "people gone"),
            (fresh, fresh, "people added"),
            (other, counted, "people with other pictures"),
        )
        if names
    ]
    what = "; ".join(parts) or "the same pictures come in another order"
    return (
        f"The training set {short(str(new['name']))} changed: {new['pictures']} pictures instead "
        f"of {old['pictures']}; {what}."
    )


def _people_of(manifest: Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
    """Count and digest of each person."""
    people = manifest.get("people") if isinstance(manifest, Mapping) else None
    fine = isinstance(people, Mapping) and {"name", "digest", "pictures"} <= set(manifest)
    told = people.values() if isinstance(people, Mapping) else ()
    if not fine or not all(isinstance(v, list | tuple) and len(v) == 2 for v in told):
        raise DataError(
            "The manifest of a training set should have name, digest, pictures and people, with a "
            "count and a digest each; this one does not. It is damaged, or of something else."
        )
    return dict(people or {})


# ---- class folders


def _of_folder(root: Path, *, min_images: int, check: bool) -> TrainingSet:
    people, skipped = usable_files(root, check=check)
    for name, pictures in people.items():
        if len(pictures) < min_images:
            skipped.append(Skipped(name, _too_few(len(pictures), min_images)))
    kept = {name: found for name, found in people.items() if len(found) >= min_images}
    if not kept:
        raise _nothing(root, min_images, skipped)
    pairs = [pair for found in kept.values() for pair in found]
    counts = [len(found) for found in kept.values()]
    return TrainingSet(
        name=root.resolve().name,
        people=tuple(kept),
        labels=_frozen(np.repeat(np.arange(len(kept)), counts)),
        sizes=_frozen([size for _, size in pairs]),
        skipped=tuple(skipped),
        _pictures=Files(root, tuple(path for path, _ in pairs)),
        _places=_frozen(np.arange(len(pairs))),
    )


# ---- record files


@dataclass(frozen=True, slots=True)
class _Recorded:
    """Pictures of a record file, by their keys."""

    records: Records

    def name(self, place: int) -> str:
        return str(self.records.keys[place])

    def read(self, place: int) -> bytes:
        return self.records.read(place)


def _of_records(file: Path, *, min_images: int, check: bool) -> TrainingSet:
    records = open_records(file)
    _check_labels(file, records)
    if check:
        _check_identities(records)
    skipped = [
        Skipped(str(records.keys[place]), reason)
        for place in range(len(records.keys))
        if (reason := _wrong_with_record(records, place, check=check))
    ]
    broken = {skip.name for skip in skipped}
    usable = [place for place, key in enumerate(records.keys.tolist()) if str(key) not in broken]
    places = np.array(usable, np.int64)
    written, labels, counts = np.unique(
        records.labels[places], return_inverse=True, return_counts=True
    )
    absent = np.setdiff1d(records.labels, written)
    few = [*zip(written.tolist(), counts.tolist(), strict=True), *((a, 0) for a in absent.tolist())]
    skipped += [
        Skipped(f"person {label}", _too_few(count, min_images))
        for label, count in sorted(few)
        if count < min_images
    ]
    rows = np.flatnonzero(counts[labels] >= min_images) if len(places) else places
    if not len(rows):
        raise _nothing(file, min_images, skipped)
    whole = TrainingSet(
        name=file.resolve().parent.name if file.name == RECORD_FILE else file.stem,
        people=tuple(map(str, written.tolist())),
        labels=_frozen(labels),
        sizes=_frozen(records.sizes[places]),
        skipped=tuple(skipped),
        _pictures=_Recorded(records),
        _places=_frozen(places),
    )
    return whole.subset(rows)


def _wrong_with_record(records: Records, place: int, *, check: bool) -> str:
    if records.sizes[place] == 0:
        return "its record holds no picture"
    return damage(records.read(place)) if check else ""


def _check_labels(file: Path, records: Records) -> None:
    """Raise DataError when `property`, where it is there, announces fewer people than labels."""
    place = file.with_name("property")
    if not place.is_file() or not len(records.labels):
        return
    classes, highest = read_property(place).classes, int(records.labels.max())
    if highest >= classes:
        raise DataError(
            f"{short(place, 300)} says {classes} people, so that labels should be 0 to "
            f"{classes - 1}; the record of key {records.keys[records.labels.argmax()]} has the "
            f"label {highest}. Correct the file, or remove it: labels are counted then."
        )


def _check_identities(records: Records) -> None:
    """Raise DataError when a person's range of keys holds pictures of two labels."""
    for first, end in records.identities.tolist():
        rows = slice(*np.searchsorted(records.keys, (first, end)).tolist())
        labels = np.unique(records.labels[rows])
        if len(labels) > 1:
            raise DataError(
                f"{short(records.path, 300)} says that the keys {first} to {end - 1} are one "
                f"person; their pictures have the labels {listed([str(v) for v in labels])}. Pack "
                "the set anew, or open it with check=False: the labels of the pictures count then."
            )


# ---- both


def _too_few(count: int, min_images: int) -> str:
    pictures = "no usable picture" if count == 0 else f"{count} usable picture{'s'[: count != 1]}"
    return f"{pictures}, where {min_images} or more are needed"


def _nothing(place: Path, min_images: int, skipped: Sequence[Skipped]) -> DataError:
    """Nobody is left: say so, with the first reasons."""
    reasons = "; ".join(f"{short(s.name)}: {short(s.reason, 120)}" for s in islice(skipped, 3))
    return DataError(
        f"{short(place, 300)} should hold people with {min_images} or more usable pictures each; "
        f"it holds nobody. {len(skipped)} things were passed over{': ' if reasons else ''}"
        f"{reasons}. Put the pictures of each person into a folder of their name."
    )


def _frozen(values: Any) -> IntArray:
    array = np.array(values, np.int64)
    array.setflags(write=False)
    return array
