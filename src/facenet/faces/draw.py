"""Pictures of results: boxes with labels, for people who would rather look than read."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from facenet.errors import InputError, StorageError
from facenet.files import written
from facenet.types import Faces, ImageArray

KNOWN_COLOR = (38, 166, 91)
UNKNOWN_COLOR = (214, 69, 65)
INK = (255, 255, 255)
WEIGHT = 600
"""Semibold letters: OpenCV's default is thin, and hard to read at 14 pixels."""
UNTRACKED_COLOR = (150, 150, 150)
GOLDEN = 0.618033988749895
"""The golden ratio: its multiples, taken as hues, stay far apart for any count of tracks."""

Trail = Sequence[tuple[float, float]]
"""Where a face was, oldest first: points x, y in pixels."""


def draw_faces(
    image: ImageArray, faces: Faces, labels: Sequence[str | None], *, unknown: str = "unknown"
) -> ImageArray:
    """A copy of a photo with a box and a label per face.

    image: uint8 (H, W, 3) RGB. labels: one per face, None for a face nobody knows (red,
    labelled `unknown`). Line and letter sizes follow the photo's size. Returns uint8 RGB.
    Raises InputError for another number of labels.
    """
    if len(labels) != len(faces):
        raise InputError(
            f"draw_faces should get one label per face; got {len(labels)} for {len(faces)} faces."
        )
    canvas = image.copy()
    thickness = max(2, round(min(image.shape[:2]) / 220))
    for face, label in zip(faces, labels, strict=True):
        color = UNKNOWN_COLOR if label is None else KNOWN_COLOR
        text = _drawable(unknown if label is None else label)
        _draw_one(canvas, face.box, text, (color, thickness))
    return canvas


def draw_tracks(
    image: ImageArray,
    faces: Faces,
    labels: Mapping[int, str | None],
    *,
    unknown: str = "unknown",
    trails: Mapping[int, Trail] | None = None,
) -> ImageArray:
    """A copy of a frame with a box per face, in the colour of its track, and who it is.

    image: uint8 (H, W, 3) RGB. labels: per track id the name, None or nothing for somebody nobody
    knows (labelled `unknown`); the number of the track follows, as in "Ada #3". trails: per track
    id where it was, drawn as a line. A face of no track (id 0, or faces without ids) gets a thin
    grey box without a label. Returns uint8 RGB.
    """
    canvas = image.copy()
    thickness = max(2, round(min(image.shape[:2]) / 220))
    for track, trail in (trails or {}).items():
        _draw_trail(canvas, trail, track_color(track), thickness)
    for face in faces:
        if not face.track_id:
            _draw_one(canvas, face.box, "", (UNTRACKED_COLOR, max(1, thickness // 2)))
            continue
        name = labels.get(face.track_id)
        text = _drawable(f"{unknown if name is None else name} #{face.track_id}".strip())
        _draw_one(canvas, face.box, text, (track_color(face.track_id), thickness))
    return canvas


def track_color(track: int) -> tuple[int, int, int]:
    """The colour of a track, RGB: always the same, unlike that of its neighbours, and dark enough
    for white letters."""
    hue = track * GOLDEN % 1.0
    red, green, blue = (value / 255 for value in _rgb(hue, 1.0))
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return _rgb(hue, 0.85 - 0.35 * light)


def _rgb(hue: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_trail(
    canvas: ImageArray, trail: Trail, color: tuple[int, int, int], thickness: int
) -> None:
    import cv2

    if len(trail) > 1:
        points = np.rint(np.asarray(trail, np.float64)).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [points], False, color, thickness, cv2.LINE_AA)


def save_image(image: ImageArray, path: Path) -> None:
    """Write a picture, uint8 (H, W, 3) RGB, whole or not at all; the ending names the format.

    Raises StorageError when it cannot be written.
    """
    import cv2

    suffix = path.suffix.lower() or ".png"
    try:
        done, data = cv2.imencode(suffix, image[:, :, ::-1])
    except cv2.error as error:
        raise StorageError(f"Cannot write {path} as {suffix}: use .png or .jpg.") from error
    if not done:
        raise StorageError(f"Cannot write {path}: too large for {suffix}. Use .png.")
    with written(path) as file:
        file.write(data.tobytes())


def _drawable(label: str) -> str:
    """A label without half characters, as file names of odd bytes have: OpenCV dies of them."""
    return label.encode("utf-8", "backslashreplace").decode()


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
    frame = canvas.shape[1::-1]
    left, top, width, height = cv2.getTextSize(frame, label, (0, 0), font, size, WEIGHT)
    wide, tall = width + 2 * pad, height + 2 * pad
    x = max(0, min(x1 - thickness // 2, canvas.shape[1] - wide))
    bottom = y1 if y1 >= tall else y2 + tall
    bottom = max(tall, min(bottom, canvas.shape[0]))
    cv2.rectangle(canvas, (x, bottom - tall), (x + wide, bottom), color, cv2.FILLED)
    origin = (x + pad - left, bottom - pad - height - top)
    cv2.putText(canvas, label, origin, INK, font, size, WEIGHT)
