"""Box arithmetic of the detectors: real arrays (n, 4), x1 y1 x2 y2 in pixels.

Everything is computed in the precision of the boxes, float32 or float64.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from facenet.faces.compiled import Find, compiled
from facenet.types import FloatArray

BLOCK = 256
"""Boxes that are compared with all others at a time."""

Indices = NDArray[np.intp]
RealArray = NDArray[np.floating]


def non_maximum_suppression(
    boxes: RealArray,
    scores: RealArray,
    threshold: float,
    *,
    pixel: float = 0.0,
    smaller: bool = False,
    ties_last: bool = False,
    find: Find = compiled,
) -> Indices:
    """Rows to keep, best score first: greedily drop boxes that overlap a better one too much.

    boxes: (n, 4). scores: (n,). threshold: boxes with a larger overlap go.
    pixel: 1.0 for the inclusive-pixel areas of the Caffe and TensorFlow MTCNN, 0.0 for plain
    areas (torchvision). smaller: overlap = intersection over the smaller area (MTCNN's "Min"),
    else over the union. ties_last: among equal scores the later row wins (facenet), else the
    earlier one (torchvision). find: gives the compiled functions; without them NumPy does it.
    """
    rising = np.argsort(scores if ties_last else -scores, kind="stable")
    order = rising[::-1] if ties_last else rising
    if kernels := find().kernels:
        left = kernels.suppress(boxes[order], threshold, pixel=pixel, smaller=smaller)
        return np.asarray(order[left])
    keep = []
    while order.size:
        block, order = order[:BLOCK], order[BLOCK:]
        beaten = _beaten(boxes, block, block, threshold, pixel, smaller)
        alive = np.ones(len(block), bool)
        for row in np.flatnonzero(beaten.any(axis=1)):
            if alive[row]:
                alive[row + 1 :] &= ~beaten[row, row + 1 :]
        best = block[alive]
        keep.append(best)
        order = order[~_beaten(boxes, best, order, threshold, pixel, smaller).any(axis=0)]
    return np.concatenate([np.zeros(0, np.intp), *keep])


def suppression_by_group(
    boxes: RealArray,
    scores: RealArray,
    groups: Indices,
    threshold: float,
    *,
    pixel: float = 0.0,
    smaller: bool = False,
    ties_last: bool = False,
) -> Indices:
    """`non_maximum_suppression` of each group by itself: rows to keep, group after group.

    groups: the group of each box, rising: int64 (n,).
    """
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
    kept = [np.zeros(0, np.intp)]
    for start, end in pairwise(edges):
        part = non_maximum_suppression(
            boxes[start:end],
            scores[start:end],
            threshold,
            pixel=pixel,
            smaller=smaller,
            ties_last=ties_last,
        )
        kept.append(part + start)
    return np.concatenate(kept)


def _beaten(
    boxes: RealArray, best: Indices, rest: Indices, threshold: float, pixel: float, smaller: bool
) -> NDArray[np.bool_]:
    """Which of `rest` overlap which of `best` too much: (m, n); a box does not beat itself."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[rest].T)
    a1, b1, a2, b2 = boxes[best].T
    width = np.minimum(a2[:, None], x2) - np.maximum(a1[:, None], x1) + pixel
    height = np.minimum(b2[:, None], y2) - np.maximum(b1[:, None], y1) + pixel
    beaten = (width > 0) & (height > 0) & (best[:, None] != rest)
    one, other = np.nonzero(beaten)
    shared = width[one, other] * height[one, other]
    area, own = (x2 - x1 + pixel) * (y2 - y1 + pixel), (a2 - a1 + pixel) * (b2 - b1 + pixel)
    area, own = area[other], own[one]
    whole = np.minimum(own, area) if smaller else own + area - shared
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without any area
        beaten[one, other] = shared / whole > threshold
    return np.asarray(beaten)


def overlap(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of every box of a with every box of b: (n, 4), (m, 4) -> (n, m)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(bottom_right - top_left, 0), axis=2)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=1)
    whole = area_a[:, None] + area_b[None, :] - shared
    return np.asarray(shared / np.maximum(whole, 1e-9), np.float32)


def squared(boxes: RealArray) -> RealArray:
    """Square boxes of the longer side about the same centres: (n, 4) -> (n, 4)."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    side = np.maximum(width, height)
    left = boxes[:, 0] + width * 0.5 - side * 0.5
    top = boxes[:, 1] + height * 0.5 - side * 0.5
    return np.stack([left, top, left + side, top + side], axis=1)


def regressed(boxes: RealArray, offsets: RealArray, *, pixel: float) -> RealArray:
    """Move each edge by its offset times the box size (+ pixel): (n, 4), (n, 4) -> (n, 4)."""
    width = boxes[:, 2] - boxes[:, 0] + pixel
    height = boxes[:, 3] - boxes[:, 1] + pixel
    size = np.stack([width, height, width, height], axis=1)
    return boxes + offsets * size
