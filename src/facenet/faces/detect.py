"""What a detector is, how faces are chosen, and which detectors there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from facenet.errors import SettingsError
from facenet.types import Faces, FloatArray, ImageArray


class Detector(Protocol):
    """Finds faces in pictures of any and different sizes."""

    def detect(self, images: Sequence[ImageArray]) -> list[Faces]:
        """uint8 (H, W, 3) RGB pictures -> one `Faces` each, the largest face first."""
        ...


SURE = 0.9
"""Detection score above which "largest_over_threshold" takes a face (facenet-pytorch)."""
CENTER_WEIGHT = 2.0
"""Weight of the squared offset from the centre (facenet, InsightFace, facenet-pytorch)."""

Rule = Callable[[Faces, int, int], FloatArray]


def _center_weighted(faces: Faces, width: int, height: int) -> FloatArray:
    centers = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    offset = centers - np.array([width / 2, height / 2], np.float32)
    return np.asarray(faces.areas - CENTER_WEIGHT * np.sum(offset**2, axis=1), np.float32)


def _sure_area(faces: Faces, width: int, height: int) -> FloatArray:
    return np.where(faces.detection_score > SURE, faces.areas, -np.inf).astype(np.float32)


RULES: dict[str, Rule] = {
    "probability": lambda faces, width, height: faces.detection_score,
    "largest": lambda faces, width, height: faces.areas,
    "largest_over_threshold": _sure_area,
    "center_weighted_size": _center_weighted,
}
"""Rule name -> value of each face; the face of the highest value is chosen."""


def select_faces(faces: Faces, rule: str, size: tuple[int, int]) -> Faces:
    """Choose among the faces of a picture.

    rule: "all", or a key of `RULES` (names of facenet-pytorch) for at most one face. size: width
    and height of the picture in pixels. Raises SettingsError for another rule.
    """
    if rule == "all":
        return faces
    if rule not in RULES:
        raise SettingsError(f"select should be one of all, {', '.join(RULES)}; got {rule!r}.")
    if len(faces) == 0:
        return faces
    values = RULES[rule](faces, *size)
    best = int(np.argmax(values))
    return faces[[best]] if np.isfinite(values[best]) else faces[[]]


def largest_first(faces: Faces) -> Faces:
    """The faces by falling box area (the order of facenet-pytorch's `detect`)."""
    return faces[np.argsort(-faces.areas, kind="stable")]
