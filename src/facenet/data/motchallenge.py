"""Who is where in a video, as MOTChallenge writes it down (gt.txt): a line for each face.

    frame,id,left,top,width,height,consider,class,visibility

Frames and ids count from 1, left and top are pixels from the corner of the picture. consider: 0
for a face that may be found or not. visibility: the share of it that can be seen, 0 to 1. The class
is not looked at. A tracker's own file has ten columns, the seventh a score and the last three -1;
`facenet video --tracks FILE.txt` writes it so. Corrected by hand it is the truth as well, and a
score of 0 is then a face that may be found or not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenet.data.listfile import numbered_lines, whole_number, wrong_line
from facenet.errors import DataError
from facenet.types import FloatArray, IntArray

MAX_BYTES = 1 << 28
"""Bytes of a file; a line has about 40."""
MAX_SIDE = 1e6
"""Pixels; no place in a picture is farther off."""
COLUMNS = "frame,id,left,top,width,height,consider,class,visibility"
"""What stands in a line of a gt.txt."""
PLAIN = 10
"""Columns of a tracker's own file."""


@dataclass(frozen=True, slots=True, eq=False)
class MotFrame:
    """The truth about one frame.

    boxes: float32 (n, 4), x1 y1 x2 y2 in pixels. people: int64 (n,), their ids. counted: bool
    (n,), False for faces that may be found or not. shown: float32 (n,), share of each face, 0 to
    1, that can be seen; 1 where the file does not say.
    """

    boxes: FloatArray
    people: IntArray
    counted: NDArray[np.bool_]
    shown: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class MotTruth:
    """What a file says. file: where it is. frames: by number, from 0, those with somebody."""

    file: Path
    frames: Mapping[int, MotFrame]

    @property
    def people(self) -> list[int]:
        """The ids, rising, each once."""
        return sorted({who for frame in self.frames.values() for who in frame.people.tolist()})

    def of_video(self, count: int) -> list[MotFrame]:
        """The truth about each frame of a video. count: how many it has.

        Raises DataError when the file speaks of a frame beyond them.
        """
        if (last := max(self.frames) + 1) > count:
            raise DataError(
                f"{str(self.file)[:300]} should be the truth about a video of {count:,} frames; it "
                f"names frame {last:,}. Give the file that belongs to the video."
            )
        return [self.frames.get(number, _frame({})) for number in range(count)]


_Row = tuple[float, ...]
"""Left, top, width, height, consider, visibility."""


def read_motchallenge(path: str | os.PathLike[str]) -> MotTruth:
    """Read a gt.txt of nine columns, or a tracker's file of ten. Raises DataError with the line."""
    file, frames = Path(path), dict[int, dict[int, _Row]]()
    for number, line in numbered_lines(file, "a file of true boxes", max_bytes=MAX_BYTES):
        frame, person, row = _parsed(file, number, line)
        people = frames.setdefault(frame - 1, {})
        if person in people:
            raise wrong_line(file, number, f"each id once in frame {frame}", line)
        people[person] = row
    if not frames:
        raise DataError(
            f"{str(file)[:300]} should have a line for each face in each frame; it has none. Give "
            f"{COLUMNS}."
        )
    return MotTruth(file, {number: _frame(people) for number, people in frames.items()})


def _parsed(file: Path, number: int, line: str) -> tuple[int, int, _Row]:
    """Frame, id and the rest of a line."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) not in (len(COLUMNS.split(",")), PLAIN):
        raise wrong_line(file, number, COLUMNS, line)
    frame, person = whole_number(cells[0]), whole_number(cells[1])
    if not frame or not person:
        raise wrong_line(file, number, "frame and id as whole numbers from 1 up", line)
    try:
        left, top, width, height, consider, _, last, *_ = map(float, cells[2:])
    except ValueError:
        raise wrong_line(file, number, "numbers between commas", line) from None
    sides = (left, top, width, height)
    if not (all(abs(side) <= MAX_SIDE for side in sides) and width > 0 and height > 0):
        raise wrong_line(file, number, "a box in pixels, wider and higher than 0", line)
    shown = 1.0 if len(cells) == PLAIN else last
    if not (math.isfinite(consider) and 0 <= shown <= 1):
        raise wrong_line(file, number, "consider as a number and visibility from 0 to 1", line)
    return frame, person, (*sides, consider, shown)


def _frame(people: Mapping[int, _Row]) -> MotFrame:
    table = np.array(list(people.values()), np.float64).reshape(-1, 6)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    return MotFrame(
        boxes.astype(np.float32),
        np.array(list(people), np.int64),
        table[:, 4] != 0,
        table[:, 5].astype(np.float32),
    )
