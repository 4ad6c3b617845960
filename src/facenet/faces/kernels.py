"""The compiled part of the detectors, `kernels.c`: area means, crops, the bilinear resize,
suppression, and the quick look of P-net and R-net.

It is built when facenet is installed, and needs no Python while it works, so that other threads go
on; `compiled.py` says whether it may be used here. Where it may not, `resample.py`, `bilinear.py`,
`boxes.py` and `networks.py` compute the same in NumPy, and take longer.
"""

from __future__ import annotations

import ctypes
import hashlib
from ctypes import c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.types import FloatArray, ImageArray, IntArray

LIBRARY = Path(__file__).with_name("kernels.lib")
"""Where the build puts it (`hatch_build.py`)."""


def source_digest(folder: Path = LIBRARY.parent) -> str:
    """What the C sources are, as the build (`hatch_build.py`) puts it into the library."""
    parts = (path.read_bytes() for path in sorted(folder.glob("*.c")))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


class Kernels:
    """The functions of a built library.

    source: the digest of the C sources it was built from. Raises OSError when it cannot be loaded
    here, AttributeError when a function is not in it.
    """

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        self._level, self._crops = loaded.facenet_level, loaded.facenet_crops
        self._level.argtypes = [c_void_p, *[c_int64] * 4, c_void_p]
        self._crops.argtypes = [c_void_p, c_int64, c_void_p, c_int64, c_int64, c_void_p]
        self._bilinear = loaded.facenet_bilinear
        self._bilinear.argtypes = [
            c_void_p, *[c_int64] * 3,
            *[c_void_p] * 2, *[c_int64] * 2,
            *[c_void_p] * 2, *[c_int64] * 2,
            c_void_p,
        ]  # fmt: skip
        self._suppress = {
            np.dtype(np.float32): (loaded.facenet_suppress_float32, ctypes.c_float),
            np.dtype(np.float64): (loaded.facenet_suppress_float64, ctypes.c_double),
        }
        for function, real in self._suppress.values():
            function.argtypes = [*[c_void_p] * 4, c_int64, real, real, c_int, c_void_p]
            function.restype = None
        self._windows, self._glance = loaded.facenet_windows, loaded.facenet_glance
        self._windows.argtypes = [c_void_p, *[c_int64] * 2, c_void_p, *[c_int64] * 2, c_void_p]
        self._windows.restype = None
        self._glance.argtypes = [c_void_p, *[c_int64] * 3, *[c_void_p] * 3]
        self._glance_crops = loaded.facenet_glance_crops
        self._glance_crops.argtypes = [c_void_p, c_int64, *[c_void_p] * 3]
        self._judge = loaded.facenet_judge
        self._judge.argtypes = [*[c_void_p] * 3, c_int64, *[c_void_p] * 2]
        self._judge.restype = None
        self._can_glance = loaded.facenet_can_glance
        loaded.facenet_source.restype = ctypes.c_char_p
        self.source = str(loaded.facenet_source(), "ascii")

    def level(self, image: ImageArray, height: int, width: int) -> FloatArray:
        """Area means of contiguous uint8 (H, W, 3): float32 (3, height, width), standardised."""
        out = np.empty((3, height, width), np.float32)
        rows, columns = image.shape[:2]
        _check(self._level(_at(image), rows, columns, height, width, _at(out)))
        return out

    def crops(self, image: ImageArray, windows: IntArray, side: int) -> FloatArray:
        """Area means of windows, which lie within contiguous uint8 (H, W, 3).

        windows: int64 (n, 4), first column, first row, width, height. Returns float32
        (n, 3, side, side), standardised.
        """
        windows = np.ascontiguousarray(windows, np.int64)
        out = np.empty((len(windows), 3, side, side), np.float32)
        width = image.shape[1]
        _check(self._crops(_at(image), width, _at(windows), len(windows), side, _at(out)))
        return out

    def bilinear(
        self,
        image: ImageArray,
        columns: tuple[NDArray[np.int32], NDArray[np.int32]],
        rows: tuple[NDArray[np.int32], NDArray[np.int32]],
    ) -> ImageArray:
        """Pillow's resize of uint8 (H, W, 3).

        columns, rows: of each output pixel of an axis the first input pixel (n,) and the weights
        (n, taps), contiguous, as `bilinear.Axis` has them. Returns uint8 (rows, columns, 3).
        """
        if image.strides[1:] != (3, 1) or image.strides[0] < 0:
            image = np.ascontiguousarray(image)
        axes: list[int] = []
        for first, weights in (columns, rows):
            axes += [_at(first), _at(weights), weights.shape[1], len(first)]
        out = np.empty((len(rows[0]), len(columns[0]), 3), np.uint8)
        height, width = image.shape[:2]
        _check(self._bilinear(_at(image), image.strides[0], height, width, *axes, _at(out)))
        return out

    def suppress(
        self, boxes: NDArray[Any], threshold: float, *, pixel: float, smaller: bool
    ) -> NDArray[np.bool_]:
        """Which boxes are left, float32 or float64 (n, 4) by falling score: bool (n,)."""
        corners = np.ascontiguousarray(boxes.T)
        keep = np.empty(len(boxes), np.uint8)
        function, _ = self._suppress[corners.dtype]
        function(*map(_at, corners), len(boxes), threshold, pixel, smaller, _at(keep))
        return keep.view(np.bool_)

    def windows(
        self, levels: FloatArray, corners: tuple[IntArray, IntArray, IntArray], side: int
    ) -> FloatArray:
        """Squares of levels, float32 (m, 3, h, w), zero where one ends: (n, 3, side, side).

        corners: number of the level, first row and first column of each, (n,).
        """
        levels, at = np.ascontiguousarray(levels), np.stack(corners).astype(np.int64)
        count, (height, width) = at.shape[1], levels.shape[2:]
        out = np.empty((count, 3, side, side), np.float32)
        self._windows(_at(levels), height, width, _at(at), count, side, _at(out))
        return out

    def can_glance(self) -> bool:
        """Whether this processor has what `glance` needs; asks the system for it."""
        return bool(self._can_glance())

    def glance(
        self, levels: FloatArray, tiles: NDArray[np.uint16], values: FloatArray
    ) -> FloatArray:
        """P-net's odds of levels, float32 (n, 3, h, w), of 12 pixels and more: see `glance`."""
        levels = np.ascontiguousarray(levels)
        count, _, height, width = levels.shape
        out = np.empty((count, (height - 1) // 2 - 4, (width - 1) // 2 - 4), np.float32)
        _check(self._glance(_at(levels), count, height, width, _at(tiles), _at(values), _at(out)))
        return out

    def glance_crops(
        self, crops: FloatArray, tiles: NDArray[np.uint16], values: FloatArray
    ) -> FloatArray:
        """R-net's odds (n,) of crops, float32 (n, 3, 24, 24): see `glance`."""
        crops, out = np.ascontiguousarray(crops), np.empty(len(crops), np.float32)
        _check(self._glance_crops(_at(crops), len(crops), _at(tiles), _at(values), _at(out)))
        return out

    def judge(
        self, windows: FloatArray, sizes: NDArray[np.uint8], weights: FloatArray
    ) -> FloatArray:
        """P-net's answers for windows, float32 (n, 3, 12, 12): odds and offsets (n, 5).

        sizes: how many rows and columns of each are in its level, 11 or 12, (2, n).
        """
        windows, sizes = np.ascontiguousarray(windows), np.ascontiguousarray(sizes)
        out, count = np.empty((len(windows), 5), np.float32), len(windows)
        rows, columns = sizes
        self._judge(_at(windows), _at(rows), _at(columns), count, _at(weights), _at(out))
        return out


def _at(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


def _check(failed: int) -> None:
    if failed:
        raise MemoryError
