"""Faces made unrecognisable: the region is reduced to a few numbers, and painted from these.

After the pixelation ("mosaic") of broadcasting. What is reduced cannot be got back from the
picture: another face with the same few numbers gives the same pixels, to the last bit. What this
does not hide: that there is a face, its place and size, hair, clothes, gait and surroundings; the
coarse colours of "pixelate" and "blur", from which a network that knows the candidates may still
guess (McPherson and others, "Defeating Image Obfuscation with Deep Learning", 2016), the more so
from many frames of a moving face. "fill" leaves nothing of the face. A face that was not found is
not hidden at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError, SettingsError
from facenet.types import FloatArray, ImageArray

STYLES = ("blur", "pixelate", "fill")
"""Soft colours, a mosaic, or one grey that is the same for everybody."""
CELLS = 8
"""The longer side of a region is reduced to at most so many values."""
CELL_PIXELS = 8
"""A value stands for at least so many pixels across, so that small faces are reduced too."""
LEVELS = 16
"""Each value is rounded to one of so many, 16 apart."""
GREY = 128
LEAST = 2.0
"""Pixels by which a box grows at least."""
ROUNDNESS = 4
"""The power of the superellipse |x|^4 + |y|^4 = 1: a box with round corners. An ellipse proper
would come too near to the eyes when a box is off."""


def blur_faces(
    image: ImageArray,
    boxes: FloatArray | Sequence[Sequence[float]],
    *,
    how: str = "blur",
    margin: float = 0.25,
    rounded: bool = True,
) -> ImageArray:
    """A copy of a picture on which nobody in the boxes can be recognised.

    image: uint8 (H, W, 3) RGB. boxes: (n, 4), x1 y1 x2 y2 in pixels; what lies outside the
    picture is passed over. how: one of `STYLES`. margin: how far the box grows on each side, as a
    part of its width and height, 0 to 2; with 0.25 both eyes stay covered when a box is off by 20
    % in place and in size at once. rounded: whether corners are left free.

    Returns uint8 (H, W, 3). Raises SettingsError for another style or margin, InputError for
    boxes of another shape or that are not finite: a face would stay visible.
    """
    if how not in STYLES:
        raise SettingsError(f"how should be one of {', '.join(STYLES)}; got {str(how)[:50]!r}.")
    if not 0 <= margin <= 2:
        raise SettingsError(f"margin should be from 0 to 2; got {margin}. 0.25 is usual.")
    canvas = image.copy()
    for box in _checked(boxes):
        _hide(canvas, _grown(box, margin), how, rounded)
    return canvas


def _checked(boxes: FloatArray | Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """(n, 4) with the smaller corner first."""
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise InputError(
            "Boxes to blur should be finite numbers of the shape (n, 4), x1 y1 x2 y2; got "
            f"{array.shape} with {int((~np.isfinite(array)).sum())} that are not finite."
        )
    first, second = array[:, :2], array[:, 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


def _grown(box: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    more = np.maximum((box[2:] - box[:2]) * margin, LEAST)
    return np.concatenate([box[:2] - more, box[2:] + more])


def _hide(canvas: ImageArray, box: NDArray[np.float64], how: str, rounded: bool) -> None:
    """Paint over the part of a box that lies in the picture."""
    height, width = canvas.shape[:2]
    left, top = (int(v) for v in np.clip(np.floor(box[:2]), 0, (width, height)))
    right, bottom = (int(v) for v in np.clip(np.ceil(box[2:]), 0, (width, height)))
    if left >= right or top >= bottom:
        return
    region = canvas[top:bottom, left:right]
    painted = _painted(region, how)
    if rounded:
        mask = _mask(box, (left, top, right, bottom))
        region[mask] = painted[mask]
    else:
        region[:] = painted


def _painted(region: ImageArray, how: str) -> ImageArray:
    """uint8 (h, w, 3) that depends on nothing but the few rounded means of a region."""
    import cv2

    height, width = region.shape[:2]
    if how == "fill":
        return np.full_like(region, GREY)
    coarse = _coarse(region)
    method = cv2.INTER_NEAREST if how == "pixelate" else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=method), np.uint8)


def _coarse(region: ImageArray) -> ImageArray:
    """At most 8 x 8 means of a region (h, w, 3), each rounded to one of 16 levels."""
    import cv2

    height, width = region.shape[:2]
    cell = max(CELL_PIXELS, max(height, width) / CELLS)
    size = (max(1, int(width / cell)), max(1, int(height / cell)))
    means = cv2.resize(np.ascontiguousarray(region), size, interpolation=cv2.INTER_AREA)
    step = 256 // LEVELS
    return np.asarray(means, np.uint8).reshape(size[1], size[0], 3) // step * step + step // 2


def _mask(box: NDArray[np.float64], part: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Which pixels of a part (left, top, right, bottom) lie in the rounded box, (h, w)."""
    left, top, right, bottom = part
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    x = (np.arange(left, right) + 0.5 - middle[0]) / half[0]
    y = (np.arange(top, bottom) + 0.5 - middle[1]) / half[1]
    return np.asarray(x[None] ** ROUNDNESS + y[:, None] ** ROUNDNESS <= 1)
