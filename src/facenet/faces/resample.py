"""The resampling of MTCNN: pyramid levels of a picture and square crops of boxes.

Two ways, because the two systems differ: `AreaSampler` is the adaptive-area mean of
facenet-pytorch (parts outside the picture are cut off), `OpenCvSampler` is facenet's OpenCV
area resize (parts outside are zero). Both give what the networks take: float32, channels first,
(x - 127.5) / 128 of values x from 0 to 255.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from facenet.faces.compiled import Find, compiled
from facenet.faces.kernels import Kernels
from facenet.types import FloatArray, ImageArray, IntArray

Lanes = NDArray[np.uint64]
Number = TypeVar("Number", bound=np.generic)

LARGEST_CELL = 16
"""Side of the largest cell whose sum surely fits into 16 bits: 16 * 16 * 255 < 2^16."""
STRIP_PIXELS = 1 << 16
"""Pixels of the picture that are worked on together: they should stay in the processor's cache."""


class Sampler(Protocol):
    """Resamples one picture; built from uint8 (H, W, 3)."""

    def level(self, height: int, width: int) -> FloatArray:
        """The whole picture at another size: float32 (3, height, width), standardised."""
        ...

    def crops(self, boxes: IntArray, side: int) -> FloatArray:
        """Boxes as squares: int64 (n, 4) x1 y1 x2 y2, 1-based and inclusive as MTCNN counts.

        Returns float32 (n, 3, side, side), standardised.
        """
        ...


class AreaSampler:
    """Each output pixel is the mean of the input pixels its cell touches.

    Row i of n takes input rows floor(i*H/n) to ceil((i+1)*H/n); columns likewise (torch's
    adaptive_avg_pool2d). find: gives the compiled functions; without them the sums are differences
    of an integral image.
    """

    def __init__(self, image: ImageArray, find: Find = compiled) -> None:
        self._height, self._width = image.shape[:2]
        kernels = find().kernels
        self._sums = (
            _CompiledSums(np.ascontiguousarray(image), kernels) if kernels else _PackedSums(image)
        )

    def level(self, height: int, width: int) -> FloatArray:
        """The whole picture at another size: float32 (3, height, width), standardised."""
        return self._sums.level(height, width)

    def crops(self, boxes: IntArray, side: int) -> FloatArray:
        """Boxes int64 (n, 4) as float32 (n, 3, side, side), standardised, cut at the borders.

        Every box must touch the picture.
        """
        first = np.maximum(boxes[:, :2], 1) - 1
        size = np.minimum(boxes[:, 2:], [self._width, self._height]) - first
        return self._sums.windows(np.concatenate([first, size], axis=1), side)


@dataclass(frozen=True, slots=True)
class _CompiledSums:
    image: ImageArray
    kernels: Kernels

    def level(self, height: int, width: int) -> FloatArray:
        return self.kernels.level(self.image, height, width)

    def windows(self, windows: IntArray, side: int) -> FloatArray:
        return self.kernels.crops(self.image, windows, side)


class _PackedSums:
    """The integral image holds the last 16 bits of the sums of red, green and blue side by side
    in one 64-bit number, which is looked up at once; a difference is right as long as it fits
    into 16 bits itself. Larger cells are summed up from parts."""

    def __init__(self, image: ImageArray) -> None:
        self._height, self._width = image.shape[:2]
        self._packed = _integral(image)

    def level(self, height: int, width: int) -> FloatArray:
        """The whole picture at another size: float32 (3, height, width), standardised."""
        top, bottom = (edge[0] for edge in _cells(np.array([self._height]), height))
        left, right = (edge[0] for edge in _cells(np.array([self._width]), width))
        out = np.empty((3, height, width), np.float32)
        step = max(1, STRIP_PIXELS // self._width)
        for start in range(0, height, step):
            rows = slice(start, start + step)
            area = _buffer("area", (len(top[rows]), width), np.float32)
            np.multiply((bottom - top)[rows, None], right - left, out=area, casting="unsafe")
            sums = _summed(self._strip, (top[rows], bottom[rows]), (left, right))
            _standardise(np.moveaxis(sums, -1, 0), area, out[:, rows])
        return out

    def windows(self, windows: IntArray, side: int) -> FloatArray:
        """Parts int64 (n, 4), first column, first row, width, height, as squares."""
        x, y, width, height = windows.T
        top, bottom = (edge + y[:, None] for edge in _cells(height, side))
        left, right = (edge + x[:, None] for edge in _cells(width, side))
        area = ((bottom - top)[:, :, None] * (right - left)[:, None, :]).astype(np.float32)
        out = np.empty((len(windows), 3, side, side), np.float32)
        wide = np.maximum(width, height) > LARGEST_CELL * (side - 1)
        for rows in (np.flatnonzero(~wide), np.flatnonzero(wide)):
            if len(rows):
                ends = (top[rows], bottom[rows]), (left[rows], right[rows])
                sums = np.moveaxis(_summed(self._windows, *ends), -1, 1)
                part = np.empty((len(rows), 3, side, side), np.float32)
                out[rows] = _standardise(sums, area[rows, None], part)
        return out

    def _strip(self, top: IntArray, bottom: IntArray, left: IntArray, right: IntArray) -> Lanes:
        """Sums of cells in whole rows (n,) and columns (m,): packed (n, m)."""
        packed = self._packed
        rows = _less(_taken(packed, bottom, 0, "below"), _taken(packed, top, 0, "above"))
        return _less(_taken(rows, right, 1, "right"), _taken(rows, left, 1, "left"))

    def _windows(self, top: IntArray, bottom: IntArray, left: IntArray, right: IntArray) -> Lanes:
        """Sums of cells of windows, each with its own rows (n, k) and columns (n, m): packed
        (n, k, m)."""
        flat, width = self._packed.reshape(-1), self._width + 1
        above, below = (top * width)[:, :, None], (bottom * width)[:, :, None]
        left, right = left[:, None, :], right[:, None, :]
        ends = _less(
            _taken(flat, below + right, None, "right"), _taken(flat, above + right, None, "below")
        )
        starts = _less(
            _taken(flat, below + left, None, "left"), _taken(flat, above + left, None, "above")
        )
        return _less(ends, starts)


class OpenCvSampler:
    """OpenCV's area interpolation, which becomes bilinear where it enlarges.

    Levels are rounded to whole numbers, since facenet resizes the 8-bit picture; crops are not.
    """

    def __init__(self, image: ImageArray) -> None:
        self._image = image

    def level(self, height: int, width: int) -> FloatArray:
        """The whole picture at another size: float32 (3, height, width), standardised."""
        import cv2

        scaled = cv2.resize(self._image, (width, height), interpolation=cv2.INTER_AREA)
        out = np.empty((3, height, width), np.float32)
        return _standardise(np.moveaxis(np.asarray(scaled), -1, 0), np.float32(1), out)

    def crops(self, boxes: IntArray, side: int) -> FloatArray:
        """Boxes int64 (n, 4) as float32 (n, 3, side, side), standardised, zero (black, before
        that) outside the picture."""
        import cv2

        out = np.empty((len(boxes), 3, side, side), np.float32)
        for row, box in enumerate(boxes):
            crop = _zero_padded(self._image, box)
            scaled = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
            _standardise(np.moveaxis(np.asarray(scaled), -1, 0), np.float32(1), out[row])
        return out


def _integral(image: ImageArray) -> Lanes:
    """Sums above and left of each corner of uint8 (H, W, 3), packed: (H + 1, W + 1)."""
    import cv2

    height, width = image.shape[:2]
    out = np.zeros((height + 1, width + 1, 4), np.uint16)
    step = max(1, STRIP_PIXELS // width)
    for start in range(0, height, step):
        band = cv2.cvtColor(image[start : start + step], cv2.COLOR_RGB2RGBA)
        sums = np.asarray(cv2.integral(band, sdepth=cv2.CV_32S))[1:]
        rows = out[start + 1 : start + 1 + len(sums)]
        np.copyto(rows, sums, casting="unsafe")
        np.add(rows, out[start], out=rows)
    return out.view(np.uint64)[..., 0]


def _summed(
    read: Callable[[IntArray, IntArray, IntArray, IntArray], Lanes],
    rows: tuple[IntArray, IntArray],
    columns: tuple[IntArray, IntArray],
) -> NDArray[np.unsignedinteger]:
    """Sums of cells as `read` gives them, of parts where they are too large: (..., 3).

    rows, columns: starts and ends of the cells.
    """
    row_parts, column_parts = _parts(*rows), _parts(*columns)
    if len(row_parts) == len(column_parts) == 1:
        return _unpacked(read(*rows, *columns))
    total: Any = np.uint32(0)
    for (top, bottom), (left, right) in product(row_parts, column_parts):
        total = total + _unpacked(read(top, bottom, left, right))
    return np.asarray(total)


def _parts(start: IntArray, end: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Starts and ends of as many equal parts as keep each within `LARGEST_CELL` pixels."""
    size = end - start
    count = -(-int(size.max()) // LARGEST_CELL)
    edges = [start + size * part // count for part in range(count + 1)]
    return list(pairwise(edges))


_scratch = threading.local()


def _buffer(name: str, shape: tuple[int, ...], kind: type[Number]) -> NDArray[Number]:
    """Room for an array of a thread's own, which the next of this name overwrites: asking the
    system for it again and again takes longer than filling it."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    room = _scratch.__dict__.get(name)
    if room is None or room.size < size:
        room = _scratch.__dict__[name] = np.empty(size, np.uint8)
    return np.asarray(room[:size].view(kind).reshape(shape))


def _taken(packed: Lanes, at: IntArray, axis: int | None, name: str) -> Lanes:
    """Rows (axis 0), columns (1) or values (None) of packed sums, in the buffer of a name."""
    shapes = {None: at.shape, 0: (*at.shape, *packed.shape[1:]), 1: (len(packed), *at.shape)}
    out = _buffer(name, shapes[axis], np.uint64)
    return np.asarray(
        packed.take(at, axis=axis, out=out, mode="clip")
    )  # "raise" would copy once more


def _less(a: Lanes, b: Lanes) -> Lanes:
    """Lane by lane a - b, modulo 2^16, into a."""
    lanes = a.view(np.uint16)
    np.subtract(lanes, b.view(np.uint16), out=lanes)
    return a


def _unpacked(packed: Lanes) -> NDArray[np.uint16]:
    """Three channels of packed sums (...): uint16 (..., 3)."""
    return packed.view(np.uint16).reshape(*packed.shape, 4)[..., :3]


def _standardise(
    sums: NDArray[np.generic], area: FloatArray | np.float32, out: FloatArray
) -> FloatArray:
    """(sums / area - 127.5) / 128, channels first, into `out`."""
    np.copyto(out, sums, casting="unsafe")
    np.divide(out, area, out=out)
    np.subtract(out, np.float32(127.5), out=out)
    return np.multiply(out, np.float32(0.0078125), out=out)


def _cells(sizes: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """Start and end of `count` cells along lines of the given sizes: two int64 (n, count)."""
    step = np.arange(count, dtype=np.int64)
    size = sizes[:, None]
    return step * size // count, -((-(step + 1) * size) // count)


def _zero_padded(image: ImageArray, box: IntArray) -> FloatArray:
    """A 1-based inclusive box of a picture, zero where it leaves the picture."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in box)
    crop = np.zeros((y2 - y1 + 1, x2 - x1 + 1, 3), np.float32)
    left, top, right, bottom = max(x1, 1), max(y1, 1), min(x2, width), min(y2, height)
    inside = image[top - 1 : bottom, left - 1 : right]
    crop[top - y1 : bottom - y1 + 1, left - x1 : right - x1 + 1] = inside
    return crop
