"""The resampling of MTCNN: pyramid levels of a picture and square crops of boxes.

Two ways, because the two systems differ: `AreaSampler` is the adaptive-area mean of
facenet-pytorch (parts outside the picture are cut off), `OpenCvSampler` is facenet's OpenCV
area resize (parts outside are zero). Both give float32 values 0 to 255, channels last.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facenet.types import FloatArray, ImageArray, IntArray


class Sampler(Protocol):
    """Resamples one picture; built from uint8 (H, W, 3)."""

    def level(self, height: int, width: int) -> FloatArray:
        """The whole picture at another size: float32 (height, width, 3)."""
        ...

    def crops(self, boxes: IntArray, side: int) -> FloatArray:
        """Boxes as squares: int64 (n, 4) x1 y1 x2 y2, 1-based and inclusive as MTCNN counts.

        Returns float32 (n, side, side, 3).
        """
        ...


class AreaSampler:
    """Each output pixel is the mean of the input pixels its cell touches.

    Row i of n takes input rows floor(i*H/n) to ceil((i+1)*H/n); columns likewise (torch's
    adaptive_avg_pool2d). The sums come from one integral image in int32: it may wrap around in
    large pictures, but differences of its entries are exact, since one cell sums far below 2^31.
    """

    def __init__(self, image: ImageArray) -> None:
        import cv2

        self._height, self._width = image.shape[:2]
        self._sums = np.asarray(cv2.integral(image, sdepth=cv2.CV_32S), np.int32)

    def level(self, height: int, width: int) -> FloatArray:
        """The whole picture at another size: float32 (height, width, 3)."""
        top, bottom = _cells(np.array([self._height]), height)
        left, right = _cells(np.array([self._width]), width)
        rows = self._sums[bottom[0]] - self._sums[top[0]]
        total = rows[:, right[0]] - rows[:, left[0]]
        area = (bottom - top)[0][:, None] * (right - left)[0][None, :]
        return _mean(total, area)

    def crops(self, boxes: IntArray, side: int) -> FloatArray:
        """Boxes int64 (n, 4) as float32 (n, side, side, 3), cut at the borders.

        Every box must touch the picture.
        """
        x = np.maximum(boxes[:, 0], 1) - 1
        y = np.maximum(boxes[:, 1], 1) - 1
        width = np.minimum(boxes[:, 2], self._width) - x
        height = np.minimum(boxes[:, 3], self._height) - y
        top, bottom = ((edge + y[:, None])[:, :, None] for edge in _cells(height, side))
        left, right = ((edge + x[:, None])[:, None, :] for edge in _cells(width, side))
        sums = self._sums
        total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return _mean(total, (bottom - top) * (right - left))


class OpenCvSampler:
    """OpenCV's area interpolation, which becomes bilinear where it enlarges.

    Levels are rounded to whole numbers, since facenet resizes the 8-bit picture; crops are not.
    """

    def __init__(self, image: ImageArray) -> None:
        self._image = image

    def level(self, height: int, width: int) -> FloatArray:
        """The whole picture at another size: float32 (height, width, 3)."""
        import cv2

        scaled = cv2.resize(self._image, (width, height), interpolation=cv2.INTER_AREA)
        return scaled.astype(np.float32)

    def crops(self, boxes: IntArray, side: int) -> FloatArray:
        """Boxes int64 (n, 4) as float32 (n, side, side, 3), zero outside the picture."""
        import cv2

        out = np.empty((len(boxes), side, side, 3), np.float32)
        for row, box in enumerate(boxes):
            crop = _zero_padded(self._image, box)
            out[row] = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        return out


def _mean(total: NDArray[np.int32], area: IntArray) -> FloatArray:
    return np.asarray(total.astype(np.float32) / area[..., None].astype(np.float32))


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
