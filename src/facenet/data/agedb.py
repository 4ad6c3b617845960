"""AgeDB: pictures of people at known ages, compared across a gap of 5, 10, 20 or 30 years.

The pictures are called ID_Name_age_gender.jpg, such as 0_MariaCallas_35_f.jpg. Each protocol has
10 folds of 300 + 300 pairs, and "the age difference of each pair's faces is equal to a fixed,
predefined value" (Moschoglou et al., AgeDB: the first manually collected, in-the-wild age
database, CVPRW 2017). They are given out as MATLAB files (04_FINAL_protocol_30_years.mat, a cell
`splits` of structures with the pairs and their labels 1 and -1, for the pictures in
03_Protocol_Images), which facenet does not read. A list in text is read, and pairs are drawn from
the pictures in the manner of the protocols.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facenet.data.csvpairs import read_csv_pairs
from facenet.data.drawn import Drawn, check_numbers, deal_people, drawn_set, shares
from facenet.data.folds import contiguous_folds
from facenet.data.listfile import numbered_lines, stays_inside, wrong_line
from facenet.data.pairs import file_digest, listed, people_notes, resolve_pictures, short
from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError, SettingsError
from facenet.images import find_images
from facenet.types import IntArray

MAX_BYTES = 64 * 1024 * 1024
FOLDERS = ("03_Protocol_Images", "AgeDB", "")
"""Where below the root a picture is looked for, in this order."""
SUFFIXES = ("", ".jpg", ".png", ".jpeg")
"""What is tried at the end of a name of a list; the published ones are without .jpg."""
LABELS = {"1": True, "0": False, "-1": False}
NAME = re.compile(r"[0-9]+_(.+)_([0-9]{1,3})_[mf]", re.IGNORECASE | re.DOTALL)
MATLAB = (
    "{} is a MATLAB file, which facenet does not read. Write its pairs as text, a line such as "
    "'name_of_a name_of_b 1' each (1 for one person, 0 or -1 for two), or give no list: "
    "then pairs are drawn."
)


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Person and path of each picture; person: as a number, and age in years: int64 (n,).

    strange: names that are not ID_Name_age_gender.
    """

    pictures: list[tuple[str, Path]]
    person: IntArray
    age: IntArray
    strange: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Across:
    """Which pictures are `gap` years older than each, as ranges of places in one order.

    rows: the pictures of the pool in that order. low, high: those of anybody. own_low, own_high:
    those of the same person, which lie within. int64 (n,) all.
    """

    rows: IntArray
    low: IntArray
    high: IntArray
    own_low: IntArray
    own_high: IntArray

    @property
    def mated(self) -> IntArray:
        """How many mated pairs each is the younger picture of: int64 (n,)."""
        return self.own_high - self.own_low

    @property
    def others(self) -> IntArray:
        """How many non-mated pairs each is the younger picture of: int64 (n,)."""
        return self.high - self.low - self.mated


def read_agedb(root: str | os.PathLike[str], pairs_file: str | os.PathLike[str]) -> PairSet:
    """The pairs of a list in text, or in CSV with paths from `root` as `read_csv_pairs` reads it.

    A line is the names of two pictures and a label, which is last or first: 1 for one person, 0 or
    -1 for two. Names are looked for in root/03_Protocol_Images, root/AgeDB and root, and may lack
    .jpg. As in AgeDB-30 the folds are ten blocks of the list. Raises DataError that names the line,
    and for the MATLAB files.
    """
    file, place = Path(pairs_file), Path(root)
    _refuse_matlab(file)
    if file.suffix.lower() == ".csv":
        return replace(read_csv_pairs(file, place), dataset="AgeDB")
    keys, labels = _text_pairs(file)
    pictures, a, b = resolve_pictures(
        keys, lambda name: Picture(name, _find(place, name), _person(name)), place, keys[0][0]
    )
    same = np.array(labels)
    fold, told = contiguous_folds(same)
    nobody = [picture.name for picture in pictures if not picture.person]
    notes = [*told, *people_notes(pictures, a, b, same=same, fold=fold)]
    if nobody:
        notes.append(f"{len(nobody)} names of pictures tell no person: {listed(nobody)}.")
    digests = {file.name: file_digest(file)}
    return PairSet("AgeDB", pictures, a, b, same, fold, digests=digests, notes=tuple(notes))


def _refuse_matlab(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            matlab = file.suffix.lower() == ".mat" or stream.read(6) == b"MATLAB"
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read the list of pairs {short(file)}: {error}. Give a text file with two "
            "names and a label per line."
        ) from error
    if matlab:
        raise DataError(MATLAB.format(short(file)))


def _text_pairs(file: Path) -> tuple[list[tuple[str, str]], list[bool]]:
    """Names and labels; the first line tells where the label stands."""
    keys: list[tuple[str, str]] = []
    labels: list[bool] = []
    at = -1
    for number, line in numbered_lines(file, "a list of pairs", max_bytes=MAX_BYTES):
        fields = line.split()
        if not keys and fields[-1] not in LABELS:
            at = 0
        label = LABELS.get(fields.pop(at))
        if label is None or len(fields) != 2 or not all(map(stays_inside, fields)):
            where = "last" if at else "first"
            raise wrong_line(file, number, f"names of two pictures and 1, 0 or -1 {where}", line)
        labels.append(label)
        keys.append((fields[0], fields[1]))
    if not keys:
        raise DataError(
            f"{short(file)} should hold the names of two pictures and a label per line; it is "
            "empty. Give a list of pairs."
        )
    return keys, labels


def _find(place: Path, name: str) -> Path | None:
    paths = (place / folder / (name + end) for folder in FOLDERS for end in SUFFIXES)
    return next((path for path in paths if os.path.isfile(path)), None)


def _person(name: str) -> str:
    """The person in ID_Name_age_gender, or in Name_..._age_... of 03_Protocol_Images; else ""."""
    stem = os.path.basename(name)
    stem = next((stem.removesuffix(end) for end in SUFFIXES[1:] if stem.endswith(end)), stem)
    if found := NAME.fullmatch(stem):
        return found[1]
    parts = stem.split("_")
    aged = len(parts) >= 5 and any(part.isdecimal() for part in parts[2:4])
    return parts[0] if aged and not parts[0].isdecimal() else ""


def draw_agedb(
    root: str | os.PathLike[str],
    *,
    gap: int = 30,
    pairs: int = 6000,
    folds: int = 10,
    seed: int = 0,
) -> PairSet:
    """Draw pairs in the manner of AgeDB's protocols from pictures ID_Name_age_gender.jpg.

    gap: years between the two ages of every pair, mated or not. No pair comes twice, every fold
    has as many mated as non-mated pairs, and nobody is in two folds. Names of another form are
    counted in a note. Raises DataError when there are not enough people for two folds,
    SettingsError for numbers that cannot be.
    """
    check_numbers(pairs, folds, seed)
    if gap < 1:
        raise SettingsError(f"The gap of AgeDB's pairs should be 1 year or more; got {gap}.")
    pool = _read_pool(Path(root))
    people = int(pool.person.max()) + 1
    random = np.random.default_rng(seed)
    everyone = _across(pool, np.arange(len(pool.person)), gap)
    weights = np.bincount(pool.person[everyone.rows], everyone.mated, people).astype(np.int64)
    made = max(1, min(folds, int(np.sum(weights > 0)), people // 2))
    dealt = deal_people(random, weights, made)
    drawn = [
        _draw_fold(random, _across(pool, np.flatnonzero(np.isin(pool.person, who)), gap), wanted)
        for who, wanted in zip(dealt, shares(pairs // 2, made), strict=True)
    ]
    drawn = [fold for fold in drawn if len(fold.mated)]
    if len(drawn) < 2:
        raise DataError(
            f"{short(root)} should hold pictures {gap} years apart, of one person and of two, for "
            f"two folds that share nobody; its {len(pool.pictures)} pictures of {people} people "
            f"give {len(drawn)}. Choose a smaller gap or add pictures."
        )
    notes = _notes(pool, people, gap, seed)
    if len(drawn) < folds:
        notes.append(
            f"There are {len(drawn)} folds instead of {folds}: each needs a person with two "
            f"pictures {gap} years apart and somebody else, and nobody is in two folds."
        )
    return drawn_set(f"AgeDB-{gap} (drawn)", pool.pictures, drawn, notes=notes, pairs=pairs)


def _notes(pool: _Pool, people: int, gap: int, seed: int) -> list[str]:
    notes = [
        f"The pairs, all {gap} years apart, were drawn with seed {seed} from "
        f"{len(pool.pictures)} pictures of {people} people; they are not AgeDB's published pairs."
    ]
    if pool.strange:
        notes.append(
            f"{len(pool.strange)} pictures were left out, as their names are not "
            f"ID_Name_age_gender: {listed(pool.strange)}."
        )
    return notes


def _read_pool(place: Path) -> _Pool:
    """The pictures below a folder whose names tell person and age."""
    if not os.path.isdir(place):
        raise DataError(
            f"{short(place)} should be the folder of AgeDB's pictures; there is no such folder. "
            "Check the spelling of the path."
        )
    told = [(NAME.fullmatch(path.stem), path) for path in find_images([place])]
    strange = [path.name for found, path in told if not found]
    named = sorted((found[1], path, int(found[2])) for found, path in told if found)
    if not named:
        raise DataError(
            f"{short(place)} should hold pictures called ID_Name_age_gender.jpg, such as "
            f"0_MariaCallas_35_f.jpg; it holds {len(strange)} pictures, and none is called so. "
            "Give the folder of AgeDB's pictures."
        )
    numbers: dict[str, int] = {}
    person = [numbers.setdefault(who, len(numbers)) for who, _, _ in named]
    return _Pool(
        [(who, path) for who, path, _ in named],
        np.array(person, np.int64),
        np.array([age for _, _, age in named], np.int64),
        strange,
    )


def _across(pool: _Pool, rows: IntArray, gap: int) -> _Across:
    """Sort the pictures `rows` by age and person, and find who is `gap` years older."""
    rows = rows[np.lexsort((pool.person[rows], pool.age[rows]))]
    age, key = pool.age[rows], pool.age[rows] * len(pool.person) + pool.person[rows]
    own = key + gap * len(pool.person)
    return _Across(
        rows,
        np.searchsorted(age, age + gap, "left"),
        np.searchsorted(age, age + gap, "right"),
        np.searchsorted(key, own, "left"),
        np.searchsorted(key, own, "right"),
    )


def _draw_fold(random: np.random.Generator, across: _Across, wanted: int) -> Drawn:
    """Draw pairs of both kinds, every pair equally likely."""
    mated, others = int(across.mated.sum()), int(across.others.sum())
    count = min(wanted, mated, others)
    younger, place = _pick(random, across.mated, count)
    mates = np.stack([younger, across.own_low[younger] + place], axis=1)
    younger, place = _pick(random, across.others, count)
    older = across.low[younger] + place
    older += np.where(older >= across.own_low[younger], across.mated[younger], 0)
    fewer = "" if count == wanted else "mated" if mated <= others else "non-mated"
    return Drawn(across.rows[mates], across.rows[np.stack([younger, older], axis=1)], fewer)


def _pick(random: np.random.Generator, counts: IntArray, number: int) -> tuple[IntArray, IntArray]:
    """Draw `number` of sum(counts) without repetition: whose it is, and its place in theirs."""
    ends = np.cumsum(counts)
    index = random.choice(int(ends[-1]), number, replace=False) if number else ends[:0]
    who = np.searchsorted(ends, index, side="right")
    return who, index - (ends - counts)[who]
