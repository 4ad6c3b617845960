"""MegaFace in the layout of insightface (deepinsight/insightface, _evaluation_/megaface).

    facescrub_lst          Person/Person_1.png     probes, a path per line
    megaface_lst           0/0/picture.jpg         distractors
    facescrub_noises.txt   Person_1.png            file names of 605 noisy probes
    megaface_noises.txt    0/0/picture.jpg         719 noisy distractors
    features/facescrub/Person/Person_1.png_ALGO_112x112.bin
    features/megaface/0/0/picture.jpg_ALGO_112x112.bin

A feature file is an OpenCV matrix header, int32 (length, 1, 4, 5), and float32 values. The newer
gen_megaface leaves the size out of the name. Kemelmacher-Shlizerman et al., MegaFace (2016).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from facenet.data.listfile import numbered_lines, stays_inside, wrong_line
from facenet.errors import DataError, InputError, SettingsError
from facenet.files import written
from facenet.types import FloatArray

PARTS = {"facescrub": 2, "megaface": 3}
"""Sets, and how many parts at the end of a path name a picture of them."""
NOISE_PARTS = {"facescrub": 1, "megaface": 3}
"""The same in the lists of noisy pictures."""
MAX_LIST_BYTES = 512 * 1024 * 1024
MAX_LENGTH = 65_536
"""Values of a feature."""
HEADER = struct.Struct("<4i")
SIZE = "112x112"


def read_image_list(path: str | os.PathLike[str], kind: str) -> tuple[str, ...]:
    """Read facescrub_lst or megaface_lst: the pictures as relative paths.

    kind: "facescrub" or "megaface". Raises DataError that names the line, also of a path that
    leaves its folder.
    """
    parts = _parts(kind)
    lines = numbered_lines(path, f"the list of {kind} pictures", max_bytes=MAX_LIST_BYTES)
    expected = f"a relative path of {parts} parts or more"
    images = []
    for number, line in lines:
        if not stays_inside(line) or line.count("/") + 1 < parts:
            raise wrong_line(Path(path), number, expected, line)
        images.append(line)
    if not images:
        raise DataError(f"{path} should list {kind} pictures; it is empty. Fetch the file again.")
    return tuple(images)


def read_noise_list(path: str | os.PathLike[str], kind: str) -> frozenset[str]:
    """Read facescrub_noises.txt (file names) or megaface_noises.txt (paths of three parts).

    kind: "facescrub" or "megaface". Lines with # are comments; of fields with tabs between them
    the second counts. An empty list names nothing. Raises DataError that names the line.
    """
    parts = _parts(kind, NOISE_PARTS)
    expected = "a file name" if kind == "facescrub" else f"a relative path of {parts} parts"
    names = set()
    for number, line in numbered_lines(path, f"the {kind} noises", max_bytes=MAX_LIST_BYTES):
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        name = fields[1].strip() if kind == "megaface" and len(fields) > 1 else line
        if not stays_inside(name) or name.count("/") + 1 != parts:
            raise wrong_line(Path(path), number, expected, line)
        names.add(name)
    return frozenset(names)


def noisy(images: Sequence[str], noises: Set[str], kind: str) -> NDArray[np.bool_]:
    """Which pictures of a list (n paths) the noise list names: bool (n,).

    As remove_noises.py decides it: FaceScrub by the file name, MegaFace by the last three parts.
    """
    parts = _parts(kind, NOISE_PARTS)
    return np.array([tail(image, parts) in noises for image in images], np.bool_)


def person_of(image: str) -> str:
    """Whom a FaceScrub picture shows: the name of its folder."""
    return PurePosixPath(image).parent.name


def tail(image: str, parts: int) -> str:
    """The last parts of a path."""
    return "/".join(image.split("/")[-parts:])


def feature_path(
    folder: str | os.PathLike[str],
    kind: str,
    image: str,
    algorithm: str,
    *,
    size: str | None = SIZE,
) -> Path:
    """Where the feature of a picture lies.

    kind: "facescrub" or "megaface". image: a path of its list. size: as the first gen_megaface
    wrote it, or None for the names of the newer one. Raises DataError for a name that would leave
    the folder.
    """
    parts = _parts(kind)
    ending = algorithm if size is None else f"{algorithm}_{size}"
    name = f"{tail(image, parts)}_{ending}.bin"
    plain = stays_inside(image) and stays_inside(name) and "/" not in ending
    if not plain or image.count("/") + 1 < parts:
        raise DataError(
            f"A feature should be of a {kind} picture named by {parts} parts and of an algorithm "
            f"with a plain name; got {image[:80]!r} and {algorithm[:80]!r}. Correct the list."
        )
    return Path(folder) / kind / name


def read_feature(path: str | os.PathLike[str]) -> FloatArray:
    """Read a feature file: float32 (d,). Raises DataError for anything else."""
    file = Path(path)
    try:
        if not file.is_file():
            came = "there is something that is no file" if file.exists() else "there is none"
            raise DataError(
                f"Expected a feature file at {str(file)[:300]}; {came}. Write it first."
            )
        with file.open("rb") as stream:
            head = stream.read(HEADER.size)
            data = stream.read(4 * MAX_LENGTH + 1)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read the feature file {str(file)[:300]}: {str(error)[:200]}. Check the path "
            "and who may read it."
        ) from error
    header = HEADER.unpack(head) if len(head) == HEADER.size else ()
    if not header or header[1:] != (1, 4, 5) or not 0 < header[0] <= MAX_LENGTH:
        raise DataError(
            f"{file} should begin with the int32 numbers length, 1, 4, 5, the length at most "
            f"{MAX_LENGTH:,}; it begins with {header or f'{len(head)} bytes'}. Write it again."
        )
    if len(data) != 4 * header[0]:
        raise DataError(
            f"{file} announces {header[0]} values of 4 bytes; it has {len(data):,} bytes of them"
            f"{' or more' if len(data) > 4 * MAX_LENGTH else ''}. Write it again."
        )
    vector = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise DataError(f"{file} should hold finite values; some are not. Write it again.")
    return vector


def write_feature(path: str | os.PathLike[str], vector: NDArray[np.floating]) -> None:
    """Write a feature file as gen_megaface does, whole or not at all.

    vector: (d,), finite. Raises InputError for another one, StorageError where it cannot be
    written.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(vector, "<f4")
    if values.ndim != 1 or not 0 < len(values) <= MAX_LENGTH or not np.isfinite(values).all():
        raise InputError(
            f"A feature should be 1 to {MAX_LENGTH:,} finite numbers in a row; got an array of "
            f"shape {values.shape}. Write one vector per file."
        )
    with written(Path(path)) as file:
        file.write(HEADER.pack(len(values), 1, 4, 5) + values.tobytes())


def read_features(paths: Iterable[Path], *, block: int = 4096) -> Iterator[FloatArray]:
    """Read many feature files: float32 (up to block, d) at a time, all of one length.

    Raises DataError, also for a feature of another length.
    """
    rows: list[FloatArray] = []
    length = None
    for path in paths:
        row = read_feature(path)
        if length not in (None, len(row)):
            raise DataError(
                f"{path} should have {length} values like the files before it; it has {len(row)}. "
                "Give features of one model."
            )
        length = len(row)
        rows.append(row)
        if len(rows) == block:
            yield np.stack(rows)
            rows = []
    if rows:
        yield np.stack(rows)


def _parts(kind: str, table: Mapping[str, int] = PARTS) -> int:
    if kind not in PARTS:
        raise SettingsError(f"A MegaFace set is one of {', '.join(PARTS)}; got {kind[:80]!r}.")
    return table[kind]
