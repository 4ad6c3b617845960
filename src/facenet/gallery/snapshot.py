"""An index on the disk, so that a gallery of a million faces opens in seconds.

A snapshot is a copy and never the truth: a header, the arrays, and a SHA-256 over both. One that
is of another gallery, space or revision, cut short or changed in any byte is not used, and the
index is made anew from the store. It holds coded vectors, which are biometric data as the vectors
themselves are: its mode is 0600, removed people and rows are not written, and whoever deletes from
a gallery calls `drop_snapshots` after the commit, so that no vector outlives its face.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import StorageError
from facenet.gallery.codes import Table
from facenet.gallery.numbering import Numbers

MAGIC = b"facenet index 2\n"
LARGEST_HEADER = 1 << 24
DIGEST = 32
PART = ".part"


def snapshot_path(place: Path, contract: str) -> Path:
    """Where the snapshot of a space lies: beside the file of its gallery."""
    return place.with_name(
        f"{place.name}.index-{hashlib.sha256(contract.encode()).hexdigest()[:16]}"
    )


def drop_snapshots(place: Path) -> None:
    """Remove every snapshot of the gallery in a file, whole or half written.

    Call it after the commit of every deletion, and when another file takes the gallery's place
    (restore). Raises StorageError for a file that cannot be removed.
    """
    for name in glob.glob(f"{glob.escape(str(place))}.index-*"):
        drop(Path(name))


def write(path: Path, facts: Mapping[str, Any], table: Table, numbers: Numbers) -> None:
    """Write a snapshot: a new file, flushed to the disk, that takes the place of the old one.

    facts: what the snapshot is of, as JSON. Raises StorageError.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    with suppress(OSError):
        part.unlink()
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            _pour(file, facts, table, numbers)
            os.fsync(descriptor)
        os.replace(part, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"Cannot write the index {str(path)[:300]}: {error.strerror or error}. The gallery "
            "itself is whole; free some space, or go on without a saved index."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def read(
    path: Path, expected: Mapping[str, Any], table: Table
) -> tuple[dict[str, Any], Numbers] | None:
    """Fill an empty table from a snapshot: its facts and its people, or None if it is not to be
    used.

    expected: facts that must hold of it. The table is left empty for None.
    """
    try:
        with path.open("rb", buffering=0) as file:
            found = _take(file, expected, table)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # no file, or none of ours
        found = None
    if found is None:
        table.clear()
    return found


def _pour(file: IO[bytes], facts: Mapping[str, Any], table: Table, numbers: Numbers) -> None:
    alive = table.keys > 0
    used = np.zeros(len(numbers), np.bool_)
    used[table.owners[alive]] = True
    people, fresh = numbers.only(used)
    header = json.dumps({
        **facts, "dimension": table.dimension, "scale": table.scale, "longest": table.longest,
        "rows": int(alive.sum()), "people": len(people), "width": people.ids.itemsize,
    }).encode()  # fmt: skip
    owners = fresh[table.owners[alive]].astype(np.int32)
    digest = hashlib.sha256()

    def put(data: Any) -> None:
        digest.update(data)
        view = memoryview(data).cast("B")
        while view:
            view = view[file.write(view) or 0 :]

    put(MAGIC + len(header).to_bytes(4, "little") + header)
    for array in (
        people.ids.view(np.uint8),
        people.order,
        table.keys[alive],
        owners,
        table.spreads[alive],
        table.stamps[alive],
    ):
        if array.size:
            put(np.ascontiguousarray(array))
    for rows in _living(table, alive):
        put(rows)
    file.write(digest.digest())


def _living(table: Table, alive: NDArray[np.bool_]) -> Iterator[NDArray[np.uint8]]:
    """Codes of the rows that are there, chunk by chunk."""
    for number, chunk in enumerate(table.chunks):
        here = alive[number * table.chunk : (number + 1) * table.chunk]
        if here.any():
            yield chunk[: len(here)] if here.all() else chunk[: len(here)][here]


def _take(
    file: IO[bytes], expected: Mapping[str, Any], table: Table
) -> tuple[dict[str, Any], Numbers] | None:
    digest = hashlib.sha256()

    def take(array: NDArray[Any]) -> NDArray[Any]:
        view = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        done = 0
        while done < len(view):
            count = file.readinto(view[done:]) or 0  # type: ignore[attr-defined]
            if not count:
                raise ValueError("the file is too short")
            done += count
        digest.update(view)
        return array

    facts = _header(take, expected, table)
    if facts is None:
        return None
    rows, people, width = (int(facts[name]) for name in ("rows", "people", "width"))
    size = file.tell() + people * (width + 8) + rows * (8 + 4 + 4 + 8 + table.dimension) + DIGEST
    if min(rows, people) < 0 or width < 1 or os.fstat(file.fileno()).st_size != size:
        return None
    numbers = Numbers()
    numbers.ids = take(np.empty(people * width, np.uint8)).view(f"S{width}")
    numbers.order = take(np.empty(people, np.int64))
    keys, owners = take(np.empty(rows, np.int64)), take(np.empty(rows, np.int32))
    spreads, stamps = take(np.empty(rows, np.float32)), take(np.empty(rows, np.uint64))
    table.adopt(keys, owners, spreads, stamps, longest=float(facts["longest"]))
    for number, chunk in enumerate(table.chunks):
        take(chunk[: rows - number * table.chunk])
    return (facts, numbers) if file.read(DIGEST) == digest.digest() else None


def _header(take: Any, expected: Mapping[str, Any], table: Table) -> dict[str, Any] | None:
    start = bytes(take(np.empty(len(MAGIC) + 4, np.uint8)))
    length = int.from_bytes(start[len(MAGIC) :], "little")
    if start[: len(MAGIC)] != MAGIC or length > LARGEST_HEADER:
        return None
    facts = json.loads(bytes(take(np.empty(length, np.uint8))))
    wanted = {**expected, "dimension": table.dimension, "scale": table.scale}
    same = all(facts[name] == value for name, value in wanted.items())
    return facts if same else None


def drop(path: Path) -> None:
    """Remove one snapshot. Raises StorageError."""
    try:
        path.unlink(missing_ok=True)
        _flush_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"Cannot remove the saved index {str(path)[:300]}: {error.strerror or error}. Remove "
            "the file: it may hold vectors of people who were deleted."
        ) from error


def _flush_folder(folder: Path) -> None:
    """Make a rename or a removal durable, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
