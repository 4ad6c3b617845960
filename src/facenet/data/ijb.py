"""IJB-B and IJB-C as the community lays them out (deepinsight/insightface, _evaluation_/ijb).

    meta/ijbc_face_tid_mid.txt         name template media             a line per face
    meta/ijbc_name_5pts_score.txt      name x1 y1 ... x5 y5 score      the same faces
    meta/ijbc_template_pair_label.txt  template template 0|1           15.6 million pairs
    meta/ijbc_1N_gallery_G1.csv        TEMPLATE_ID,SUBJECT_ID,...      also _G2, _1N_probe_mixed
    loose_crop/NAME                    the pictures

IJB-B has the prefix ijbb and galleries S1 and S2. Whitelam et al. (2017), Maze et al. (2018).
"""

from __future__ import annotations

import csv
import hashlib
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenet.data.listfile import (
    MAX_LINE,
    checked_file,
    numbered_lines,
    stays_inside,
    whole_number,
    wrong_line,
)
from facenet.errors import DataError, SettingsError
from facenet.types import FloatArray, IntArray

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
"""Data sets and the names of their two galleries."""
MAX_FACES_BYTES = 256 * 1024 * 1024
MAX_PAIRS_BYTES = 2 * 1024**3
CHUNK = 4 * 1024 * 1024
"""Bytes of the list of pairs that are held at a time."""
FACE_LINE = "a name, a template and a media number"
POINTS_LINE = "a name, ten coordinates in pixels and a detector score of 0 to 1, all finite"
PAIR_LINE = "two template numbers and 1 (the same person) or 0"


@dataclass(frozen=True, slots=True, eq=False)
class IjbFaces:
    """The faces, in the order of the lists.

    names: files below loose_crop. template, media: int64 (n,), the numbers of the lists.
    landmarks: float32 (n, 5, 2), pixels of the loose crop, in the order of `LANDMARK_NAMES`.
    detection_score: float32 (n,), 0 to 1.
    """

    names: tuple[str, ...]
    template: IntArray
    media: IntArray
    landmarks: FloatArray
    detection_score: FloatArray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class TemplatePairs:
    """Templates that are compared: a, b int64 (n,), template numbers; same bool (n,)."""

    a: IntArray
    b: IntArray
    same: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.a)


@dataclass(frozen=True, slots=True, eq=False)
class TemplateSubjects:
    """Templates and whom they show: template, subject int64 (n,), a row per template, sorted."""

    template: IntArray
    subject: IntArray

    def __len__(self) -> int:
        return len(self.template)


@dataclass(frozen=True, slots=True, eq=False)
class IjbSearches:
    """The 1:N protocol: two disjoint galleries, by name, and the mixed probes of both."""

    galleries: Mapping[str, TemplateSubjects]
    probes: TemplateSubjects


@dataclass(frozen=True, slots=True, eq=False)
class IjbSet:
    """All lists of a data set. searches is None where none of the 1:N lists is there.

    digests: SHA-256 of each file that was read, by its name.
    """

    dataset: str
    faces: IjbFaces
    pairs: TemplatePairs
    searches: IjbSearches | None
    digests: Mapping[str, str]


def read_ijb(folder: str | os.PathLike[str], dataset: str) -> IjbSet:
    """Read the lists of "ijbb" or "ijbc" below a folder that holds `meta`.

    Raises DataError that names the file and the line of the first inconsistency, and the files
    that are missing.
    """
    files = ijb_files(folder, dataset)
    searching = [name for name in files if "_1N_" in name]
    wanted = [name for name in files if name not in searching]
    if any(files[name].exists() for name in searching):
        wanted += searching
    missing = [str(files[name])[:300] for name in wanted if not files[name].is_file()]
    if missing:
        raise DataError(
            f"{dataset} should have its lists; expected {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not there. Put them there, as "
            "insightface's meta archive has them."
        )
    faces = read_ijb_faces(folder, dataset)
    known = np.unique(faces.template)
    pairs = read_template_pairs(folder, dataset, known)
    searches = read_ijb_searches(folder, dataset, known) if searching[0] in wanted else None
    return IjbSet(dataset, faces, pairs, searches, {name: _digest(files[name]) for name in wanted})


def ijb_files(folder: str | os.PathLike[str], dataset: str) -> dict[str, Path]:
    """Where each list lies, by file name: faces, points, pairs, gallery, gallery, probes."""
    if dataset not in GALLERIES:
        raise SettingsError(
            f"The data set should be one of {', '.join(GALLERIES)}; got {dataset[:80]!r}."
        )
    ends = ["face_tid_mid.txt", "name_5pts_score.txt", "template_pair_label.txt"]
    ends += [f"1N_gallery_{name}.csv" for name in GALLERIES[dataset]] + ["1N_probe_mixed.csv"]
    return {f"{dataset}_{end}": Path(folder) / "meta" / f"{dataset}_{end}" for end in ends}


def crop_path(folder: str | os.PathLike[str], name: str) -> Path:
    """Where the loose crop of a face lies. Raises DataError for a name that leaves its folder."""
    if not stays_inside(name):
        raise DataError(
            f"A picture should be named by a plain path below loose_crop; got {name[:80]!r}. "
            "Correct the list."
        )
    return Path(folder) / "loose_crop" / name


def read_ijb_faces(folder: str | os.PathLike[str], dataset: str) -> IjbFaces:
    """Read the two lists of faces side by side. Raises DataError that names file and line."""
    media_file, points_file = list(ijb_files(folder, dataset).values())[:2]
    names: list[str] = []
    ids, points = array("q"), array("f")
    for media_line, points_line in zip_longest(
        numbered_lines(media_file, "the list of templates and media", max_bytes=MAX_FACES_BYTES),
        numbered_lines(points_file, "the list of landmarks", max_bytes=MAX_FACES_BYTES),
    ):
        if media_line is None or points_line is None:
            short, long = (media_file, points_file)[:: 1 if media_line is None else -1]
            raise DataError(
                f"{short} should have a face for each line of {long.name}; it ends after "
                f"{len(names)}. Fetch both files again."
            )
        name, numbers = _media(media_file, *media_line)
        other, values = _points(points_file, *points_line)
        if other != name:
            raise wrong_line(
                points_file, points_line[0], f"the face {name[:80]!r} of {media_file.name}", other
            )
        names.append(name)
        ids.extend(numbers)
        points.extend(values)
    if not names:
        raise DataError(f"{media_file} should list faces; it is empty. Fetch the file again.")
    template, media = np.array(ids, np.int64).reshape(-1, 2).T.copy()
    rows = np.array(points, np.float32).reshape(-1, 11)
    landmarks = rows[:, :10].reshape(-1, 5, 2).copy()
    return IjbFaces(tuple(names), template, media, landmarks, rows[:, 10].copy())


def _media(file: Path, number: int, line: str) -> tuple[str, tuple[int, int]]:
    fields = line.split()
    if len(fields) == 3:
        template, media = whole_number(fields[1]), whole_number(fields[2])
        if template is not None and media is not None:
            if stays_inside(fields[0]):
                return fields[0], (template, media)
            raise wrong_line(file, number, "a picture named by a path below loose_crop", fields[0])
    raise wrong_line(file, number, FACE_LINE, line)


def _points(file: Path, number: int, line: str) -> tuple[str, list[float]]:
    fields = line.split()
    written = "".join(fields[1:])
    if len(fields) == 12 and written.isascii() and "_" not in written:
        try:
            values = [float(field) for field in fields[1:]]
        except ValueError:
            values = []
        if values and all(abs(value) < 1e6 for value in values[:10]) and 0 <= values[10] <= 1:
            return fields[0], values
    raise wrong_line(file, number, POINTS_LINE, line)


def read_template_pairs(
    folder: str | os.PathLike[str], dataset: str, templates: IntArray
) -> TemplatePairs:
    """Read the list of pairs, some megabytes at a time.

    templates: int64 (m,), the sorted numbers that a pair may name. Raises DataError that names the
    line of what is no pair, or of a template without a face.
    """
    file = checked_file(
        list(ijb_files(folder, dataset).values())[2], "the list of pairs", MAX_PAIRS_BYTES
    )
    try:
        with file.open("rb") as stream:
            lines = 1 + sum(part.count(b"\n") for part in iter(lambda: stream.read(CHUNK), b""))
        a, b = np.empty(lines, np.int64), np.empty(lines, np.int64)
        same, count = np.empty(lines, np.bool_), 0
        for first, data in _chunks(file):
            rows, places = _whole_numbers(file, first, data, 3)
            known = _in_sorted(rows[:, 0], templates) & _in_sorted(rows[:, 1], templates)
            wrong = np.flatnonzero(~known | (rows[:, 2] > 1))
            if len(wrong):
                raise _pair_refused(file, rows[wrong[0]], first + int(places[wrong[0]]), templates)
            end = count + len(rows)
            if end > lines:
                raise DataError(f"{file} grew while it was read. Read it again when it is whole.")
            a[count:end], b[count:end], same[count:end] = rows[:, 0], rows[:, 1], rows[:, 2] == 1
            count = end
    except OSError as error:
        raise DataError(
            f"Cannot read the list of pairs {file}: {error.strerror}. Check who may read it."
        ) from error
    if count == 0:
        raise DataError(f"{file} should list pairs; it is empty. Fetch the file again.")
    return TemplatePairs(a[:count], b[:count], same[:count])


def _in_sorted(values: IntArray, known: IntArray) -> NDArray[np.bool_]:
    """Which values are in a sorted, not empty array: (n,) -> (n,)."""
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[at] == values)


def _pair_refused(file: Path, row: IntArray, number: int, templates: IntArray) -> DataError:
    text = " ".join(map(str, row.tolist()))
    if row[2] > 1:
        return wrong_line(file, number, PAIR_LINE, text)
    return wrong_line(file, number, f"two of the {len(templates):,} templates with faces", text)


def _chunks(file: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a file, some megabytes at a time, each with the number of its first line."""
    number, rest = 1, b""
    with file.open("rb") as stream:
        while part := stream.read(CHUNK):
            lines, newline, part_rest = part.rpartition(b"\n")
            if newline:
                yield number, rest + lines + newline
                number += lines.count(b"\n") + 1
                rest = b""
            rest += part_rest
            if len(rest) > MAX_LINE:
                raise wrong_line(file, number, f"at most {MAX_LINE} bytes", rest.decode("latin"))
    if rest:
        yield number, rest


def _whole_numbers(
    file: Path, first: int, data: bytes, columns: int
) -> tuple[IntArray, NDArray[np.intp]]:
    """Parse lines of whole numbers: int64 (rows, columns), and the line of each row, from 0 up.

    Blank lines are passed over. Raises DataError that names the first other line.
    """
    raw = np.frombuffer(data, np.uint8)
    digit = raw - np.uint8(48) < 10
    breaks = np.flatnonzero(raw == 10)
    edges = np.diff(digit.view(np.int8), prepend=np.int8(0), append=np.int8(0))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    place = np.searchsorted(breaks, starts)
    length = ends - starts
    strange = np.flatnonzero(~(digit | (raw == 32) | (raw == 10) | (raw == 13) | (raw == 9)))
    held = np.bincount(place, minlength=len(breaks) + 1)
    wrong = [
        *np.searchsorted(breaks, strange[:1]).tolist(),
        *place[length > 18][:1].tolist(),
        *np.flatnonzero((held != 0) & (held != columns))[:1].tolist(),
    ]
    if wrong:
        line = data.split(b"\n", min(wrong) + 1)[min(wrong)]
        raise wrong_line(file, first + min(wrong), PAIR_LINE, line.decode("latin"))
    values = np.zeros(len(starts), np.int64)
    for k in range(int(length.max(initial=0))):
        inside = length > k
        values[inside] = values[inside] * 10 + (raw[starts[inside] + k] - 48)
    return values.reshape(-1, columns), place[::columns]


def read_ijb_searches(
    folder: str | os.PathLike[str], dataset: str, templates: IntArray
) -> IjbSearches:
    """Read the galleries and the probes of the 1:N protocol.

    templates: int64 (m,), the sorted numbers of templates with faces. Raises DataError that names
    file and line, and where the two galleries share a person.
    """
    files = list(ijb_files(folder, dataset).values())[3:]
    lists = [_template_subjects(file, templates) for file in files]
    shared = np.intersect1d(lists[0].subject, lists[1].subject)
    if len(shared):
        raise DataError(
            f"{files[0].name} and {files[1].name} should have no person in common; they share "
            f"{len(shared)}, such as {shared[0]}. Fetch the files again."
        )
    return IjbSearches(dict(zip(GALLERIES[dataset], lists[:2], strict=True)), lists[2])


def _template_subjects(file: Path, templates: IntArray) -> TemplateSubjects:
    """Whom the templates of a 1:N list show; a template may have many rows, one per picture."""
    lines = numbered_lines(file, "a list of the 1:N protocol", max_bytes=MAX_FACES_BYTES)
    known, found = set(templates.tolist()), dict[int, int]()
    columns: tuple[int, int] | None = None
    for number, line in lines:
        fields = [field.strip() for field in _fields(file, number, line)]
        if columns is None:
            columns = _columns(file, number, fields)
            continue
        row = [whole_number(fields[at]) if at < len(fields) else None for at in columns]
        template, subject = row
        if template is None or subject is None:
            raise wrong_line(file, number, "whole numbers as TEMPLATE_ID and SUBJECT_ID", line)
        if found.setdefault(template, subject) != subject:
            told = f"template {template} to show person {found[template]}, as further above"
            raise wrong_line(file, number, told, line)
        if template not in known:
            raise wrong_line(file, number, "a template with faces", line)
    if not found:
        raise DataError(f"{file} should list templates; it has none. Fetch the file again.")
    keys = sorted(found)
    return TemplateSubjects(np.array(keys), np.array([found[key] for key in keys]))


def _fields(file: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise wrong_line(file, number, "fields with commas between them", line) from error


def _columns(file: Path, number: int, fields: list[str]) -> tuple[int, int]:
    names = [field.upper() for field in fields]
    try:
        return names.index("TEMPLATE_ID"), names.index("SUBJECT_ID")
    except ValueError as error:
        raise wrong_line(
            file, number, "a header with TEMPLATE_ID and SUBJECT_ID", ",".join(fields)
        ) from error


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}. Check who may read it.") from error
