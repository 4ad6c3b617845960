"""Pillow's bilinear resize, which both facenet and facenet-pytorch crop with.

Unlike OpenCV's, its triangle filter widens when it shrinks, so that nothing aliases; the columns
are resized first and rounded to 8 bits, then the rows. As in Pillow (`Resample.c`), weights are
whole numbers of 22 bits, so that every order of adding up gives the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from facenet.faces.compiled import Find, compiled
from facenet.types import ImageArray

BITS = 22
"""Of a weight behind the point."""

Whole = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """What each output pixel of one axis is made of: `first` int32 (n,), the first input pixel,
    and `weights` int32 (n, taps) of that and those behind it, zero where there is none."""

    first: Whole
    weights: Whole

    def dense(self, size: int) -> NDArray[np.float64]:
        """The weight of each of `size` input pixels in each output pixel: float64 (n, size)."""
        count, taps = self.weights.shape
        out = np.zeros((count, size + taps), np.float64)
        at = self.first[:, None] + np.arange(taps)
        np.put_along_axis(out, at, self.weights.astype(np.float64), axis=1)
        return out[:, :size]


def resize_bilinear(
    image: ImageArray, width: int, height: int, *, find: Find = compiled
) -> ImageArray:
    """Resize uint8 (H, W, 3) to (height, width, 3).

    The pixels are Pillow's; its versions since 13 begin with the rows where that is less work,
    and then differ by one level here and there.
    find: gives the compiled functions; without them NumPy does it.
    """
    columns, rows = axis(image.shape[1], width), axis(image.shape[0], height)
    if kernels := find().kernels:
        return kernels.bilinear(image, (columns.first, columns.weights), (rows.first, rows.weights))
    across = _rounded(np.einsum("ow,hwc->hoc", columns.dense(image.shape[1]), image, optimize=True))
    down = np.einsum("oh,hwc->owc", rows.dense(image.shape[0]), across, optimize=True)
    return _rounded(down).astype(np.uint8)


def _rounded(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.minimum(np.floor((sums + (1 << (BITS - 1))) / (1 << BITS)), 255))


@lru_cache(maxsize=256)
def axis(size: int, target: int) -> Axis:
    """How `size` pixels become `target`, computed in float64 step by step as Pillow does."""
    scale = size / target
    reach = max(scale, 1.0)
    center = (np.arange(target) + 0.5) * scale
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((center + reach + 0.5).astype(np.int64), size)
    at = first[:, None] + np.arange(2 * ceil(reach) + 1)
    shares = np.maximum(1 - np.abs((at - center[:, None] + 0.5) * (1 / reach)), 0)
    shares[at >= last[:, None]] = 0
    shares /= np.cumsum(shares, axis=1)[:, -1:]  # added up from left to right
    weights = (shares * (1 << BITS) + 0.5).astype(np.int32)
    return Axis(first.astype(np.int32), weights)
