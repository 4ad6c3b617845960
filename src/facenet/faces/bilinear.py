"""Pillow's bilinear resize, which both facenet and facenet-pytorch crop with.

Unlike OpenCV's, its triangle filter widens when it shrinks, so that nothing aliases; the columns
are resized first and rounded to 8 bits, then the rows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from facenet.types import FloatArray, ImageArray


def resize_bilinear(image: ImageArray, width: int, height: int) -> ImageArray:
    """Resize uint8 (H, W, 3) to (height, width, 3); equals Pillow's to within one level."""
    columns, rows = _weights(image.shape[1], width), _weights(image.shape[0], height)
    across = _rounded(np.einsum("ow,hwc->hoc", columns, image.astype(np.float32), optimize=True))
    return _rounded(np.einsum("oh,hwc->owc", rows, across, optimize=True)).astype(np.uint8)


def _rounded(values: FloatArray) -> FloatArray:
    return np.asarray(np.floor(np.clip(values, 0, 255) + np.float32(0.5)))


@lru_cache(maxsize=256)
def _weights(size: int, target: int) -> FloatArray:
    """Share of each input pixel in each output pixel along one axis: float32 (target, size)."""
    scale = size / target
    reach = max(scale, 1.0)
    center = (np.arange(target) + 0.5)[:, None] * scale
    distance = np.abs(np.arange(size)[None, :] + 0.5 - center) / reach
    weights = np.maximum(1 - distance, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
