"""Frames turned and mirrored as the file says that they are to be shown."""

from __future__ import annotations

from typing import Any

import numpy as np

from facenet.types import ImageArray

Matrix = tuple[int, int, int, int]
SMALL = 16
"""Pixels along the sides of the copy of a frame that is asked how it is to be shown."""


def display_matrix(frame: Any) -> Matrix:
    """How a frame is to be shown: x' = a x + c y, y' = b x + d y, as (a, b, c, d).

    Nine numbers (a b u c d v x y w) lie beside the frame, see libavutil/display.h. PyAV's frame
    and its side data hold each other: one that was asked waits, with all its pixels, for Python's
    collector. So a copy of few pixels is asked, which has the same beside it; in RGB, since not
    every kind of pixels can be written.
    """
    small = frame.reformat(width=SMALL, height=SMALL, format="rgb24")
    data: Any = small.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return a, b, c, d


class Turning:
    """How the frames of a video are to be shown, one after the other.

    The data beside a frame are looked at once, and again when its rotation changes, which costs
    less to ask. (A mirroring that begins in the middle of a video is not noticed.)
    """

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._matrix: Matrix = (1, 0, 0, 1)

    def of(self, frame: Any) -> Matrix:
        """The display matrix of the next frame."""
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, display_matrix(frame)
        return self._matrix


def upright(pixels: ImageArray, matrix: Matrix) -> ImageArray:
    """Turn and mirror (H, W, 3) pixels by quarter turns, the nearest to a display matrix."""
    a, b, c, d = matrix
    if abs(b) <= abs(a) and a >= 0 and d >= 0:
        return pixels
    import cv2

    across, down = (c, b) if abs(b) > abs(a) else (a, d)
    if abs(b) > abs(a):
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    flips = {(True, False): 1, (False, True): 0, (True, True): -1}
    if (code := flips.get((across < 0, down < 0))) is not None:
        pixels = np.asarray(cv2.flip(pixels, code), np.uint8)
    return pixels
