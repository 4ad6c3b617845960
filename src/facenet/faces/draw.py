"""Pictures of results: boxes with labels, for people who would rather look than read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facenet.errors import StorageError
from facenet.types import Faces, ImageArray

KNOWN_COLOR = (38, 166, 91)
UNKNOWN_COLOR = (214, 69, 65)
INK = (255, 255, 255)


def draw_faces(
    image: ImageArray, faces: Faces, labels: Sequence[str | None], *, unknown: str = "unknown"
) -> ImageArray:
    """A copy of a photo with a box and a label per face.

    image: uint8 (H, W, 3) RGB. labels: one per face, None for a face nobody knows (red,
    labelled `unknown`). Line and letter sizes follow the photo's size. Returns uint8 RGB.
    """
    canvas = image.copy()
    thickness = max(2, round(min(image.shape[:2]) / 220))
    for face, label in zip(faces, labels, strict=True):
        color = UNKNOWN_COLOR if label is None else KNOWN_COLOR
        _draw_one(canvas, face.box, unknown if label is None else label, (color, thickness))
    return canvas


def save_image(image: ImageArray, path: Path) -> None:
    """Write a picture, uint8 (H, W, 3) RGB, whole or not at all; the ending names the format.

    Raises StorageError when it cannot be written.
    """
    import cv2

    suffix = path.suffix.lower() or ".png"
    done, data = cv2.imencode(suffix, image[:, :, ::-1])
    if not done:
        raise StorageError(f"Cannot encode {path} as {suffix}: use .png or .jpg.")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data.tobytes())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"Cannot write {path}: {error.strerror or error}.") from error


def _draw_one(
    canvas: ImageArray,
    box: np.ndarray,
    label: str,
    style: tuple[tuple[int, int, int], int],
) -> None:
    import cv2

    color, thickness = style
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness, cv2.LINE_AA)
    if not label:
        return
    size, pad = 7 * thickness, 2 * thickness
    font = cv2.FontFace("sans")
    left, top, width, height = cv2.getTextSize(canvas.shape[1::-1], label, (0, 0), font, size)
    x = max(0, min(x1 - thickness // 2, canvas.shape[1] - width - 2 * pad))
    bottom = y1 if y1 - height - 2 * pad >= 0 else min(y2 + height + 2 * pad, canvas.shape[0])
    corner = (x + width + 2 * pad, bottom)
    cv2.rectangle(canvas, (x, bottom - height - 2 * pad), corner, color, cv2.FILLED)
    origin = (x + pad - left, bottom - pad - height - top)
    cv2.putText(canvas, label, origin, INK, font, size)
