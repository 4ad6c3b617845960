"""Where the two systems that users know as MTCNN differ, to the pixel; see docs/detection.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from facenet.faces.resample import AreaSampler, OpenCvSampler, Sampler
from facenet.types import ImageArray


@dataclass(frozen=True, slots=True)
class Exactness:
    """Where the two systems differ.

    sampler: resampling and padding. level_size: side of a level from picture side times scale.
    powers: scales are powers of the factor, not repeated products (they round differently).
    real: arithmetic of the boxes. pixel: the +1 of areas in suppression.
    ties_last, by_column: among equal scores the later cell wins, cells counted down the columns;
    else the earlier one, counted along the rows.
    whole_boxes: R-net and O-net move the box truncated to whole pixels, not the box itself.
    mirror_single: facenet reads the box offsets of a level with a single candidate from the
    mirrored column, a slip of its Matlab port that moves a box now and then.
    """

    sampler: Callable[[ImageArray], Sampler]
    level_size: Callable[[float], int]
    powers: bool
    real: type[np.floating]
    pixel: float
    ties_last: bool
    by_column: bool
    whole_boxes: bool
    mirror_single: bool


EXACTNESS = {
    "facenet-pytorch": Exactness(
        sampler=AreaSampler,
        level_size=lambda side: int(side + 1),
        powers=False,
        real=np.float32,
        pixel=0.0,
        ties_last=False,
        by_column=False,
        whole_boxes=False,
        mirror_single=False,
    ),
    "facenet": Exactness(
        sampler=OpenCvSampler,
        level_size=ceil,
        powers=True,
        real=np.float64,
        pixel=1.0,
        ties_last=True,
        by_column=True,
        whole_boxes=True,
        mirror_single=True,
    ),
}
"""Names of the two ways; the first is the default."""
