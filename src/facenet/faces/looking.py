"""What is seen in a photo before anybody is named: faces, measures, pictures to keep.

The measures are of `faces.quality`. Sharpness is that of the box alone, at one size for every
model, so that one bound serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facenet.errors import InputError
from facenet.faces.align import margin_box, margin_crop
from facenet.faces.quality import measure_quality, pose_from_landmarks, sharpness
from facenet.types import Face, Faces, ImageArray

SHARPNESS_SIDE = 112
"""Pixels a side of the crop that sharpness is measured on."""
KEPT_MARGIN = 0.5
"""Of a side of the box on each side of it: enough to find and align the face again."""
KEPT_SIDE = 512
"""Pixels of the longer side of a picture that is kept."""
KEPT_QUALITY = 95
"""Of its JPEG, 0 to 100."""


def measure_faces(image: ImageArray, faces: Faces) -> list[dict[str, float]]:
    """Measures of each face of a photo, uint8 (H, W, 3) RGB; what is not known is left out.

    "detection_score", "face_size", "sharpness" and "pose" as `measure_quality` has them, the
    sharpness of the box at 112x112 pixels, and the proxies "yaw" and "pitch", -1 to 1; both are 1
    where the points say nothing, as those of a face seen from the side do.
    """
    crops = [_box_crop(image, face) for face in faces]
    sharp = np.full(len(faces), np.nan, np.float32)
    there = [row for row, crop in enumerate(crops) if crop is not None]
    if there:
        sharp[there] = sharpness(np.stack([crop for crop in crops if crop is not None]))
    columns = measure_quality(faces.detection_score, faces.boxes, faces.landmarks, sharpness=sharp)
    if faces.landmarks is not None:
        pose = pose_from_landmarks(faces.landmarks)
        columns["yaw"] = np.where(np.isnan(pose.yaw), np.float32(1), pose.yaw)
        columns["pitch"] = np.where(np.isnan(pose.pitch), np.float32(1), pose.pitch)
    return [
        {name: float(column[row]) for name, column in columns.items() if np.isfinite(column[row])}
        for row in range(len(faces))
    ]


def kept_crops(image: ImageArray, faces: Faces) -> list[bytes]:
    """A JPEG of each face with its surroundings, at most 512 pixels a side.

    image: uint8 (H, W, 3) RGB. The box is widened by half of its sides on each side, as far as
    the photo goes. Raises InputError for a box outside the photo.
    """
    return [_encoded(_surroundings(image, face)) for face in faces]


def _box_crop(image: ImageArray, face: Face) -> ImageArray | None:
    try:
        box = margin_box(face.box, (image.shape[1], image.shape[0]), margin=0)
    except InputError:  # it lies outside the photo: nothing to measure
        return None
    return margin_crop(image, box, (SHARPNESS_SIDE, SHARPNESS_SIDE))


def _surroundings(image: ImageArray, face: Face) -> ImageArray:
    wide, tall = face.width * KEPT_MARGIN, face.height * KEPT_MARGIN
    widened = face.box + np.array([-wide, -tall, wide, tall], np.float32)
    left, top, right, bottom = margin_box(widened, (image.shape[1], image.shape[0]), margin=0)
    size = _fitted(right - left, bottom - top)
    return margin_crop(image, (left, top, right, bottom), size)


def _fitted(width: int, height: int) -> tuple[int, int]:
    """Width and height within `KEPT_SIDE`, never enlarged."""
    share = min(1.0, KEPT_SIDE / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def _encoded(crop: ImageArray) -> bytes:
    import cv2

    settings: Sequence[int] = (cv2.IMWRITE_JPEG_QUALITY, KEPT_QUALITY)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(crop[:, :, ::-1]), settings)
    return bytes(data.tobytes())
