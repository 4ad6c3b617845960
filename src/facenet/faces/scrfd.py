"""SCRFD, and every detector of InsightFace's packs that speaks like it (its RetinaFace too).

Guo et al., "Sample and Computation Redistribution for Efficient Face Detection" (2021). The
network looks at one square picture and gives, per stride and cell, a score, four distances from
the cell to the edges of a face and mostly five landmarks, all in units of the stride.
Source: `model_zoo/scrfd.py` and `model_zoo/retinaface.py` of InsightFace, which are the same but
for their names. In one thing this differs: InsightFace scales x and y back with the factor of y,
here each has its own (the same where the sides of the reduced picture are whole numbers).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError, SettingsError
from facenet.faces.boxes import non_maximum_suppression
from facenet.faces.onestage import Canvas, Found, checked, joined, picture_input, require_sensible
from facenet.models.convert.insightface import FORMS, Form
from facenet.models.engine import Engine
from facenet.types import Faces, ImageArray

SIZE = (640, 640)
"""Width and height that pictures are brought to where the graph takes any size."""
MAX_SIDE = 4096
"""Longest side of that size."""


@dataclass(frozen=True, slots=True)
class ScrfdSettings:
    """Options of SCRFD, with the defaults of InsightFace.

    score_threshold: score that a face must reach, 0 to 1. nms_threshold: faces that overlap a
    better one more go, 0 to 1. sizes: width and height that a picture is brought to, once for
    each; several find larger and smaller faces, and what is found twice goes. None is the size of
    the graph, or `SIZE` where it takes any. min_face_size: faces whose longer side is shorter go,
    in pixels of the picture. max_faces: at most so many, the largest; 0 is all.
    """

    score_threshold: float = 0.5
    nms_threshold: float = 0.4
    sizes: tuple[tuple[int, int], ...] | None = None
    min_face_size: float = 0
    max_faces: int = 0

    def __post_init__(self) -> None:
        require_sensible(self, least=0)
        if self.sizes is not None and not (self.sizes and all(map(_is_size, self.sizes))):
            raise SettingsError(
                f"sizes should be pairs of width and height, 32 to {MAX_SIDE} and divisible by 32, "
                f"such as ((640, 640), (128, 128)); got {str(self.sizes)[:80]}."
            )


class Scrfd:
    """The detector.

    engine: takes one picture, float32 (1, 3, H, W), and gives 6, 9, 10 or 15 outputs. Raises
    SettingsError when the settings ask for another size than the graph has, ModelFileError when
    the graph takes something else than a picture.
    """

    def __init__(self, engine: Engine, settings: ScrfdSettings | None = None) -> None:
        self.settings = settings or ScrfdSettings()
        self._engine = engine
        self._input, fixed = picture_input(engine, "InsightFace")
        self._canvas = Canvas()
        if fixed and self.settings.sizes not in (None, (fixed,)):
            raise SettingsError(
                f"This detector takes pictures of {fixed[0]}x{fixed[1]} only, as its graph says; "
                f"got the sizes {self.settings.sizes}. Leave sizes out."
            )
        self.sizes = self.settings.sizes or (fixed or SIZE,)

    def detect(self, images: Sequence[ImageArray]) -> list[Faces]:
        """Faces of pictures of any sizes: uint8 (H, W, 3) RGB -> `Faces`, the largest first.

        Boxes are cut at the borders of the picture; landmarks may lie outside, and are None where
        the graph has none. Raises ModelFileError when the outputs are none of a detector,
        EngineError when they are not finite.
        """
        return [self._detect(image) for image in images]

    def _detect(self, image: ImageArray) -> Faces:
        found, settings = joined([self._look(image, size) for size in self.sizes]), self.settings
        found = found.take(np.flatnonzero(found.sides() >= settings.min_face_size))
        found = found.take(
            non_maximum_suppression(found.boxes, found.scores, settings.nms_threshold, pixel=1.0)
        )
        height, width = image.shape[:2]
        boxes = np.clip(found.boxes, 0, np.array([width, height] * 2, np.float32))
        inside = np.flatnonzero(np.all(boxes[:, 2:] > boxes[:, :2], axis=1))
        return replace(found, boxes=boxes).take(inside).faces(settings.max_faces)

    def _look(self, image: ImageArray, size: tuple[int, int]) -> Found:
        """The faces of a picture at one size, in the pixels of the picture itself."""
        pixels, factors = letterbox(image, *size)
        with self._canvas.drawn(pixels, *size, color="rgb") as blob:
            blob -= np.float32(127.5)
            blob *= np.float32(1 / 128)
            outputs = self._engine.run({self._input: blob})
        found = _decoded(outputs.values(), size, self.settings.score_threshold)
        return found.scaled_back(factors)


def letterbox(image: ImageArray, width: int, height: int) -> tuple[ImageArray, tuple[float, float]]:
    """A picture as large as fits into the given size.

    uint8 (H, W, 3) -> uint8 (h, w, 3), and the factors of x and y.
    """
    import cv2

    rows, columns = image.shape[:2]
    ratio = rows / columns
    if ratio > height / width:
        new_width, new_height = max(int(height / ratio), 1), height
    else:
        new_width, new_height = width, max(int(width * ratio), 1)
    out = np.asarray(cv2.resize(image, (new_width, new_height)), np.uint8)
    return out, (new_width / columns, new_height / rows)


def _is_size(size: object) -> bool:
    """Whether this is a width and a height that all of three strides divide."""
    return (
        isinstance(size, tuple)
        and len(size) == 2
        and all(type(side) is int and 32 <= side <= MAX_SIDE and side % 32 == 0 for side in size)
    )


def _decoded(
    outputs: Iterable[NDArray[np.float32]], size: tuple[int, int], threshold: float
) -> Found:
    """The faces that reach the threshold, in pixels of the picture of this size.

    Which output is which is seen from its shape: (cells, 1) scores, (cells, 4) distances to the
    edges, (cells, 10) landmarks; the strides differ in their cells.
    """
    tables = {
        values.shape[-2:]: values.reshape(values.shape[-2:])
        for values in outputs
        if values.ndim == 2 or (values.ndim == 3 and len(values) == 1)
    }
    form = FORMS.get(len(tables))
    if form is None or any(side % form.strides[-1] for side in size):
        raise _unreadable(tables, size)
    return joined([_level(tables, size, stride, form, threshold) for stride in form.strides])


def _level(
    tables: dict[tuple[int, ...], NDArray[np.float32]],
    size: tuple[int, int],
    stride: int,
    form: Form,
    threshold: float,
) -> Found:
    """What one stride gives."""
    columns, rows = size[0] // stride, size[1] // stride
    count = columns * rows * form.anchors
    try:
        scores, edges = tables[count, 1][:, 0], tables[count, 4]
        points = tables[count, 10] if form.landmarks else None
    except KeyError:
        raise _unreadable(tables, size) from None
    reached = np.flatnonzero(scores >= threshold)
    cell = reached // form.anchors
    centers = np.stack([cell % columns, cell // columns], axis=1).astype(np.float32) * stride
    edges = edges[reached] * np.float32(stride)
    boxes = np.concatenate([centers - edges[:, :2], centers + edges[:, 2:]], axis=1)
    if points is not None:
        points = centers[:, None] + points[reached].reshape(-1, 5, 2) * np.float32(stride)
    return checked(Found(boxes, scores[reached], points))


def _unreadable(tables: Iterable[tuple[int, ...]], size: tuple[int, int]) -> ModelFileError:
    came = ", ".join(" x ".join(map(str, shape)) for shape in tables)
    return ModelFileError(
        "A detector of InsightFace should give 6, 9, 10 or 15 tables of scores, boxes and "
        f"landmarks for {size[0]}x{size[1]} pixels; this one gives {came[:200] or 'none'}. "
        "Choose another file, or another size."
    )
