"""Training sets of InsightFace: ``train.rec`` with ``train.idx`` and ``property``.

A .rec file is a row of records: a mark, a word of 3 bits flag and 29 bits length, the payload, and
padding to 4 bytes. A payload that contains the mark is cut there into parts; the mark between two
parts is left out. It begins with a header (flag, label, two numbers, then `flag` further labels);
the encoded picture follows. In InsightFace's sets record 0 says which keys are pictures, and which
are people, whose labels are the first key of their pictures and the one after the last.
Everything is read with bounds, and nothing of it is run. Sources: dmlc-core ``recordio.h``, MXNet
``recordio.py``, insightface ``face2rec2.py`` and ``arcface_torch/dataset.py``.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.data.listfile import checked_file, numbered_lines, whole_number, wrong_line
from facenet.data.pairs import short
from facenet.errors import DataError
from facenet.types import IntArray

MARK: Final = 0xCED7230A
MAX_FILE_BYTES: Final = 8 << 40
MAX_INDEX_BYTES: Final = 4 << 30
"""Bytes of an index; one of 100 million records has 2 GB."""
EXACT: Final = 1 << 24
"""Whole numbers below this are exact as float32, which labels are written in."""

_MARK_BYTES: Final = struct.pack("<I", MARK)
_HEADER: Final = 24
_BLOCK: Final = 1 << 20
_LINES: Final = re.compile(rb"(?:\d{1,18}\t\d{1,18}\r?\n)*\Z")
_WHOLE, _FIRST, _LAST = 0, 1, 3
_WHAT: Final = "a record file (.rec)"


@dataclass(frozen=True, slots=True)
class Property:
    """What the file `property` says: number of people, height and width of the pictures."""

    classes: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """The pictures of a record file; it stays open as long as this lives.

    path: of the .rec file. keys: int64 (n,), the key of each picture, rising. labels: int64 (n,),
    as written. sizes: int64 (n,), bytes of each encoded picture; 0 where a record holds none.
    identities: int64 (c, 2), first key and the one after the last of each person, as the file
    says; (0, 2) when it says nothing.
    """

    path: Path
    keys: IntArray
    labels: IntArray
    sizes: IntArray
    identities: IntArray
    _heads: _Heads
    _rows: IntArray
    _file: _Open

    def read(self, row: int) -> bytes:
        """The encoded picture. Raises DataError when the file no longer holds it."""
        head, size = int(self._rows[row]), int(self.sizes[row])
        parts = self._heads.parts.get(head)
        if parts is not None:
            whole = _MARK_BYTES.join(self._bytes(row, at, length) for at, length in parts)
            return whole[len(whole) - size :]
        end = int(self._heads.offsets[head]) + 8 + int(self._heads.lengths[head])
        return self._bytes(row, end - size, size)

    def _bytes(self, row: int, at: int, count: int) -> bytes:
        try:
            data = os.pread(self._file.number, count, at)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if len(data) < count:
            raise DataError(
                f"{short(self.path, 300)} should hold {count:,} bytes of the record of key "
                f"{self.keys[row]} from byte {at:,} on; it holds {len(data):,}: it became shorter "
                "since it was opened. Start again."
            )
        return data


class _Open:
    """A file that is closed when nobody has it any longer."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)


@dataclass(frozen=True, slots=True, eq=False)
class _Heads:
    """What the headers of records say: int64 (m,) each, labels float32 (m, 2).

    counts: how many further labels. parts: of the records that were cut, by row: where each part
    of the payload lies, and its length; the length in `lengths` is that of all, with the marks.
    """

    keys: IntArray
    offsets: IntArray
    lengths: IntArray
    counts: IntArray
    labels: NDArray[np.float32]
    parts: Mapping[int, list[tuple[int, int]]]

    @property
    def sizes(self) -> IntArray:
        """Bytes of the encoded pictures."""
        return self.lengths - _HEADER - 4 * self.counts


def open_records(path: str | os.PathLike[str]) -> Records:
    """Read the index and every header of a record file; the pictures stay in the file.

    path: of the .rec file. The index lies beside it (.idx); without one, the file is walked. In a
    file whose record 0 is no list of keys, all records are pictures. Raises DataError, in one
    sentence and what to do, for a file that is damaged, ends early, or is none.
    """
    file = checked_file(path, _WHAT, MAX_FILE_BYTES)
    index = file.with_suffix(".idx")
    try:
        size = file.stat().st_size
        if size < 8 + _HEADER:
            raise _early(file, f"a record has {8 + _HEADER} bytes or more", size)
        opened = _Open(file)
        with mmap.mmap(opened.number, 0, access=mmap.ACCESS_READ) as data:
            found = read_index(index) if index.exists() else _walked(file, data)
            heads = _heads(file, data, *found)
    except OSError as error:
        raise _unreadable(file, error) from error
    rows, identities = _pictures(file, heads)
    keys = heads.keys[rows]
    labels = _checked_labels(file, keys, heads.labels[rows, 0])
    return Records(file, keys, labels, heads.sizes[rows], identities, heads, rows, opened)


def read_property(path: str | os.PathLike[str]) -> Property:
    """Read a file `property`, one line "people,height,width". Raises DataError."""
    for number, line in numbered_lines(path, "a file `property`", max_bytes=1 << 16):
        values = [whole_number(cell.strip()) for cell in line.split(",")]
        if len(values) == 3 and all(values):
            return Property(*(value for value in values if value is not None))
        raise wrong_line(Path(path), number, "three numbers: people,height,width", line)
    raise DataError(
        f"{short(path, 300)} should hold a line people,height,width; it is empty. Remove it."
    )


def read_index(path: str | os.PathLike[str]) -> tuple[IntArray, IntArray]:
    """Read an index of lines "key<TAB>offset": keys, rising, and offsets in bytes, int64 (m,).

    Raises DataError for another line, a key that comes twice, and an index without any.
    """
    file = checked_file(path, "an index (.idx)", MAX_INDEX_BYTES)
    blocks = []
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            block += stream.readline(_BLOCK)
            block += b"" if block.endswith(b"\n") else b"\n"
            if not _LINES.match(block):
                raise _wrong_index_line(file, block)
            blocks.append(np.array(block.split(), "S18").astype(np.int64).reshape(-1, 2))
    table = np.concatenate([np.zeros((0, 2), np.int64), *blocks])
    order = np.argsort(table[:, 0], kind="stable")
    keys, offsets = table[order, 0], table[order, 1]
    twice = keys[1:][keys[1:] == keys[:-1]]
    if len(twice) or not len(keys):
        came = f"key {twice[0]} comes twice" if len(twice) else "it is empty"
        raise DataError(
            f"{short(file, 300)} should list every record once, a key and an offset per line; "
            f"{came}. Download it again, or remove it: the records are walked then."
        )
    return keys, offsets


def _wrong_index_line(file: Path, block: bytes) -> DataError:
    line = next(line for line in block.splitlines(keepends=True) if not _LINES.match(line))
    return DataError(
        f"{short(file, 300)} should hold lines of a key, a TAB and an offset; it holds "
        f"{line[:60]!r}. Download it again, or remove it: the records are walked then."
    )


# ---- records


def _walked(file: Path, data: mmap.mmap) -> tuple[IntArray, IntArray]:
    """Keys and offsets of a file without an index: the id in each header, where they differ."""
    offsets, ids, position = [], [], 0
    while position < len(data):
        parts = _parts(file, data, position)
        first = parts[0]
        if first[1] >= _HEADER:
            ids.append(struct.unpack_from("<Q", data, first[0] + 8)[0])
        offsets.append(position)
        position = sum(parts[-1]) + -parts[-1][1] % 4
    keys = np.arange(len(offsets), dtype=np.int64)
    if len(set(ids)) == len(offsets) and max(ids) < 1 << 62:
        keys = np.array(ids, np.int64)
    order = np.argsort(keys, kind="stable")
    return keys[order], np.array(offsets, np.int64)[order]


def _parts(file: Path, data: mmap.mmap, position: int) -> list[tuple[int, int]]:
    """Where the parts of the payload of the record at `position` lie, and their lengths."""
    parts: list[tuple[int, int]] = []
    start, flag = position, _FIRST
    while flag not in (_WHOLE, _LAST):
        if position + 8 > len(data):
            raise _early(file, f"the record at byte {start:,} goes on at {position:,}", len(data))
        mark, word = struct.unpack_from("<II", data, position)
        flag, length = word >> 29, word & (1 << 29) - 1
        if mark != MARK or flag > _LAST or (flag in (_WHOLE, _FIRST)) != (not parts):
            raise _no_record(file, position)
        if position + 8 + length > len(data):
            end = position + 8 + length
            raise _early(file, f"the record at byte {start:,} ends at {end:,}", len(data))
        parts.append((position + 8, length))
        position += 8 + length + -length % 4
    return parts


def _heads(file: Path, data: mmap.mmap, keys: IntArray, offsets: IntArray) -> _Heads:
    """Check and read the headers of the records at these offsets, all at once."""
    wrong = (offsets % 4 != 0) | (offsets > len(data) - 8 - _HEADER)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise _early(file, f"its index has key {keys[row]} at byte {offsets[row]:,}", len(data))
    at = offsets // 4
    marks, sizes, counts, written = (_words(data, at + i) for i in range(4))
    counts = counts.astype(np.int64)
    lengths = (sizes & np.uint32((1 << 29) - 1)).astype(np.int64)
    flags = sizes >> np.uint32(29)
    bad = (marks != MARK) | ((flags != _WHOLE) & (flags != _FIRST))
    bad |= (flags == _WHOLE) & (lengths < _HEADER + 4 * counts)
    if np.any(bad):
        raise _no_record(file, int(offsets[np.argmax(bad)]))
    ends = offsets + 8 + lengths
    if np.any(ends > len(data)):
        row = int(np.argmax(ends > len(data)))
        raise _early(file, f"the record of key {keys[row]} ends at {ends[row]:,}", len(data))
    labels = np.zeros((len(keys), 2), np.float32)
    labels[:, 0] = written.view("<f4")
    for column in range(2):
        rows = np.flatnonzero((counts > column) & (flags == _WHOLE))
        labels[rows, column] = _words(data, at[rows] + 8 + column).view("<f4")
    parts = {}
    for row in np.flatnonzero(flags == _FIRST).tolist():
        parts[row] = _parts(file, data, int(offsets[row]))
        content = _MARK_BYTES.join(data[a : a + n] for a, n in parts[row])
        lengths[row] = len(content)
        counts[row], labels[row] = _header(file, content, int(offsets[row]))
    return _Heads(keys, offsets, lengths, counts, labels, parts)


def _header(file: Path, content: bytes, offset: int) -> tuple[int, tuple[float, float]]:
    """Number of further labels, and the first two labels, of a payload."""
    if len(content) < _HEADER:
        raise _no_record(file, offset)
    count, label = struct.unpack_from("<If", content)
    if len(content) < _HEADER + 4 * count:
        raise _no_record(file, offset)
    further = struct.unpack_from(f"<{min(count, 2)}f", content, _HEADER)
    first, second = (*(further or (label,)), 0.0)[:2]
    return count, (first, second)


def _words(data: mmap.mmap, at: IntArray) -> NDArray[Any]:
    """Words of a file: int64 (m,), which ones -> uint32 (m,)."""
    return np.frombuffer(data, "<u4", count=len(data) // 4)[at]


# ---- which records are what


def _pictures(file: Path, heads: _Heads) -> tuple[IntArray, IntArray]:
    """Rows of the pictures, int64 (n,), and the key ranges of people, int64 (c, 2)."""
    none = np.zeros((0, 2), np.int64)
    if heads.keys[0] != 0 or heads.counts[0] == 0:
        return np.arange(len(heads.keys), dtype=np.int64), none
    ends = heads.labels[0].astype(np.float64)
    if not (np.all(np.isfinite(ends)) and 1 <= ends[0] <= ends[1]):
        raise DataError(
            f"Record 0 of {short(file, 300)} should give the first key after the pictures and the "
            f"first after the people; it gives {ends[0]:g} and {ends[1]:g}. Download it again."
        )
    if ends[1] >= EXACT:
        return np.flatnonzero((heads.keys > 0) & (heads.sizes > 0)), none
    pictures = (heads.keys >= 1) & (heads.keys < ends[0])
    people = (heads.keys >= ends[0]) & (heads.keys < ends[1])
    if pictures.sum() != ends[0] - 1 or people.sum() != ends[1] - ends[0]:
        raise DataError(
            f"Record 0 of {short(file, 300)} announces {ends[0] - 1:.0f} pictures and "
            f"{ends[1] - ends[0]:.0f} people; {pictures.sum()} and {people.sum()} are there. The "
            "index is of another file, or cut off: download both again."
        )
    ranges = heads.labels[people].astype(np.float64)
    inside = np.all(np.isfinite(ranges)) and np.all(ranges >= 1) and np.all(ranges <= ends[0])
    if not inside:
        raise DataError(
            f"The people of {short(file, 300)} should be ranges of the keys 1 to {ends[0]:.0f}; "
            "one of them is not. Download it again."
        )
    return np.flatnonzero(pictures), ranges.astype(np.int64)


def _checked_labels(file: Path, keys: IntArray, labels: NDArray[np.float32]) -> IntArray:
    """Labels as whole numbers, int64 (n,). Raises DataError for one that is none."""
    fine = (labels >= 0) & (labels < EXACT) & (labels == np.floor(labels))
    if not np.all(fine):
        row = int(np.argmin(fine))
        raise DataError(
            f"The labels of {short(file, 300)} should be whole numbers from 0 to {EXACT - 1:,}; "
            f"the record of key {keys[row]} has {labels[row]:g}. Number the people anew."
        )
    return labels.astype(np.int64)


# ---- errors


def _no_record(file: Path, position: int) -> DataError:
    return DataError(
        f"{short(file, 300)} should hold a record of MXNet at byte {position:,}; what stands there "
        "is none. It is damaged, or its index is of another file: download both again."
    )


def _early(file: Path, expected: str, size: int) -> DataError:
    return DataError(
        f"{short(file, 300)} ends early or its index is of another file: {expected}, and the file "
        f"has {size:,} bytes. Download both again."
    )


def _unreadable(file: Path, error: OSError) -> DataError:
    return DataError(
        f"Cannot read {_WHAT} at {short(file, 300)}: {error.strerror}. Check the path and who may "
        "read it."
    )
