"""What detectors of one network share: how a picture goes in, and how faces come out.

The network sees the whole picture in the upper left of a black one, and answers for the cells of
several grids at once; YuNet and SCRFD differ in what an answer means. Pictures become network
input channel by channel and in memory that is used again: to get fresh memory can take ten times
as long as to convert the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from facenet.errors import EngineError, ModelFileError, SettingsError
from facenet.faces.boxes import Indices
from facenet.faces.detect import largest_first
from facenet.models.engine import Engine
from facenet.types import Faces, FloatArray, ImageArray

BYTES = 12
"""Of a pixel of a network input."""
STRIP_ROWS = 64
"""Rows of a picture that are converted together: they should stay in the processor's cache."""
GAP = 48
"""Bytes between the channels of a strip: where they lie at like addresses, writing three of them
takes half as long again."""
KEPT = 1 << 26
"""Most bytes that are kept for the next picture: enough for four megapixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Candidates: boxes float32 (n, 4), scores (n,), landmarks (n, 5, 2) or None."""

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray | None

    def take(self, rows: Indices) -> Found:
        """Those of the given rows."""
        points = None if self.landmarks is None else self.landmarks[rows]
        return Found(self.boxes[rows], self.scores[rows], points)

    def sides(self) -> FloatArray:
        """The longer side of each box: (n,)."""
        extent = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.asarray(np.max(extent, axis=1, initial=-np.inf), np.float32)

    def scaled_back(self, factors: tuple[float, float]) -> Found:
        """In the pixels of a picture that was scaled by these factors of x and y."""
        back = np.array(factors, np.float32)
        points = None if self.landmarks is None else self.landmarks / back
        return Found(self.boxes / back[[0, 1, 0, 1]], self.scores, points)

    def faces(self, most: int) -> Faces:
        """The faces, the largest first, at most so many of them; 0 is all."""
        faces = largest_first(Faces(self.boxes, self.landmarks, np.clip(self.scores, 0, 1)))
        return faces[:most] if most else faces


def joined(parts: Sequence[Found]) -> Found:
    """One behind the other."""
    points = [part.landmarks for part in parts if part.landmarks is not None]
    return Found(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate(points) if points else None,
    )


def checked(found: Found) -> Found:
    """The same. Raises EngineError when a number is none."""
    points = np.float32(0) if found.landmarks is None else found.landmarks
    if not all(np.all(np.isfinite(part)) for part in (found.boxes, found.scores, points)):
        raise EngineError(
            "The detector should give finite numbers; it gave NaN or infinity. Use another engine "
            'or precision "fp32", and check the file against its digest.'
        )
    return found


def picture_input(engine: Engine, whose: str) -> tuple[str, tuple[int, int] | None]:
    """Name of the input of a detector, and the one width and height it takes, or None for any.

    whose: what a message calls it. Raises ModelFileError when it does not take one picture.
    """
    came = {
        name: " x ".join("any" if side is None else str(side) for side in shape)
        for name, shape in engine.inputs.items()
    }
    name, shape = next(iter(engine.inputs.items()), ("", ()))
    if len(came) != 1 or len(shape) != 4 or shape[0] not in (1, None) or shape[1] not in (3, None):
        raise ModelFileError(
            f"A detector of {whose} should take one picture, 1 x 3 x H x W; this graph takes "
            f"{', '.join(came.values())[:120] or 'nothing'}. Choose another file."
        )
    height, width = shape[2:]
    return name, None if height is None or width is None else (width, height)


class Canvas:
    """Makes network inputs of pictures, in memory that is used again.

    Several threads may draw at once, each on a memory of its own.
    """

    def __init__(self) -> None:
        self._idle: list[ImageArray] = []

    @contextmanager
    def drawn(
        self, image: ImageArray, width: int, height: int, *, color: str
    ) -> Iterator[FloatArray]:
        """A picture in the upper left of a black one, as values 0 to 255.

        image: uint8 (h, w, 3) RGB, at most `height` by `width`. color: order of the channels,
        "rgb" or "bgr". Gives float32 (1, 3, height, width), which is the caller's to change until
        the end of the context.
        """
        import cv2

        rows, columns = image.shape[:2]
        size, strip = BYTES * height * width, STRIP_ROWS * columns
        memory = self._memory(size + 3 * (strip + GAP))
        blob = memory[:size].view(np.float32).reshape(1, 3, height, width)
        rest = memory[size : size + 3 * (strip + GAP)].reshape(3, -1)
        bytewise = rest[:, :strip].reshape(3, STRIP_ROWS, columns)
        planes = blob[0] if color == "rgb" else blob[0, ::-1]
        for row in range(0, rows, STRIP_ROWS):
            part = image[row : row + STRIP_ROWS]
            channels = cv2.split(part, [plane[: len(part)] for plane in bytewise])
            for plane, channel in zip(planes, channels, strict=True):
                plane[row : row + len(part), :columns] = channel
        blob[..., rows:, :] = 0
        blob[..., :rows, columns:] = 0
        yield blob
        if memory.size <= KEPT:
            self._idle.append(memory)

    @contextmanager
    def copied(self, image: ImageArray, width: int, height: int) -> Iterator[ImageArray]:
        """A picture in the upper left of a black one, channels in the order "bgr".

        image: uint8 (h, w, 3) RGB, at most `height` by `width`. Gives uint8 (1, height, width, 3),
        which is the caller's until the end of the context.
        """
        import cv2

        rows, columns = image.shape[:2]
        size = 3 * height * width
        memory = self._memory(size)
        picture = memory[:size].reshape(1, height, width, 3)
        cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=picture[0, :rows, :columns])
        picture[:, rows:] = 0
        picture[:, :rows, columns:] = 0
        yield picture
        if memory.size <= KEPT:
            self._idle.append(memory)

    def _memory(self, size: int) -> ImageArray:
        """At least so many bytes, used before or new."""
        try:
            memory = self._idle.pop()
        except IndexError:
            memory = np.empty(0, np.uint8)
        return memory if memory.size >= size else np.empty(size, np.uint8)


def require_sensible(options: Any, *, least: int) -> None:
    """Raise SettingsError where options that YuNet and SCRFD both have make no sense.

    least: the smallest min_face_size in pixels.
    """
    for name in ("score_threshold", "nms_threshold"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise SettingsError(f"{name} should be from 0 to 1; got {value}.")
    if not least <= options.min_face_size < inf:
        raise SettingsError(
            f"min_face_size should be a number of pixels, {least} or more; got "
            f"{options.min_face_size}."
        )
    if options.max_faces < 0:
        raise SettingsError(
            f"max_faces should be 1 or more, or 0 for all; got {options.max_faces}."
        )
