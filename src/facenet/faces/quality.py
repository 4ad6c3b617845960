"""Measures of a face that need no network: how large, how sharp, how frontal.

None is a quality score by itself. Whether one foretells errors is for the error-versus-discard
curve of `facenet.evaluate.quality` to say. The five points give proxies of the pose, ratios that
grow with the angle; they are no angles, but for roll.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.faces.align import TEMPLATE_112
from facenet.types import FloatArray, ImageArray

MEASURES = ("detection_score", "face_size", "sharpness", "pose", "norm")
"""Keys of `measure_quality`."""


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Proxies of the pose of n faces, each float32 (n,); NaN where the points cannot tell
    (they coincide, or the mouth is not below the eyes).

    yaw: -1 to 1, 0 when the nose is midway between the left and the right points, 1 when it has
    reached those on the right side of the image. pitch: -1 to 1, 0 when the nose is as far down
    from the eyes to the mouth as in the 112x112 template, 1 when it has reached the mouth (looking
    down), -1 when it has reached the eyes. roll: degrees by which the line of the eyes falls to
    the right, -180 to 180.
    """

    yaw: FloatArray
    pitch: FloatArray
    roll: FloatArray


def pose_from_landmarks(landmarks: NDArray[np.floating]) -> Pose:
    """Yaw, pitch and roll proxies of five points.

    landmarks: (n, 5, 2), left eye, right eye, nose, left mouth, right mouth as they appear in the
    image, pixels with y down. The points are turned until the eyes are level; then
    yaw = (l - r) / (l + r) with l and r the distances of the nose from the left and the right
    points, and pitch compares (nose - eyes) / (mouth - eyes) with the template. Neither changes
    when the face moves, grows or turns in the image. Raises InputError for another shape.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise InputError(
            f"Landmarks should be five points per face, (n, 5, 2); got {points.shape}. Use a "
            "detector with landmarks."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        across, down, roll = _upright(points)
        left, right = (across[:, 0] + across[:, 3]) / 2, (across[:, 1] + across[:, 4]) / 2
        yaw = (2 * across[:, 2] - left - right) / (right - left)
        pitch = _signed_share(_depth(down), float(_depth(TEMPLATE_112[None, :, 1])[0]))
        upright = down[:, 3] + down[:, 4] > down[:, 0] + down[:, 1]
        sound = upright & (right > left) & np.isfinite(yaw) & np.isfinite(pitch)
    yaw, pitch, roll = (np.where(sound, value, np.nan) for value in (yaw, pitch, roll))
    return Pose(
        np.clip(yaw, -1, 1).astype(np.float32),
        np.clip(pitch, -1, 1).astype(np.float32),
        roll.astype(np.float32),
    )


def sharpness(crops: ImageArray) -> FloatArray:
    """Variance of the Laplacian of the gray crop (Pech-Pacheco and others, 2000).

    crops: uint8 (n, H, W, 3) RGB. Returns float32 (n,); only crops of one size can be compared.
    Raises InputError for another shape or dtype.
    """
    import cv2

    pixels = np.asarray(crops)
    shaped = pixels.ndim == 4 and pixels.shape[3] == 3 and min(pixels.shape[1:3]) > 0
    if not shaped or pixels.dtype != np.uint8:
        raise InputError(
            f"Crops should be uint8 of the shape (n, H, W, 3); got {pixels.dtype} of "
            f"{pixels.shape}."
        )
    found = np.empty(len(pixels), np.float32)
    for row, crop in enumerate(pixels):
        gray = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
        found[row] = cv2.Laplacian(gray, cv2.CV_64F).var()
    return found


def face_size(boxes: NDArray[np.floating]) -> FloatArray:
    """Shorter side of each box in pixels: (n, 4), x1 y1 x2 y2 -> float32 (n,), 0 or more."""
    corners = np.asarray(boxes, np.float32)
    sides = corners[:, 2:] - corners[:, :2]
    return np.asarray(np.maximum(sides.min(axis=1), 0), np.float32)


def measure_quality(
    detection_score: NDArray[np.floating],
    boxes: NDArray[np.floating],
    landmarks: NDArray[np.floating] | None,
    *,
    sharpness: NDArray[np.floating],
    norm: NDArray[np.floating] | None = None,
) -> dict[str, FloatArray]:
    """Every measure of n faces, each float32 (n,), higher is better, NaN where it is not known.

    detection_score: (n,). boxes: (n, 4). landmarks: (n, 5, 2), or None. sharpness: (n,), of the
    crops, by the function of this name. norm: (n,), lengths of the vectors before they were scaled
    to one, or None. A row of NaN is a picture without a face. Returns "detection_score",
    "face_size" (pixels), "sharpness", "pose" (1 less the larger of the yaw and pitch proxies, 0 to
    1; roll does not count, as alignment takes it out) and "norm" where norms are given.
    Raises InputError for columns of different lengths.
    """
    count = len(boxes)
    pose = np.full(count, np.nan, np.float32)
    if landmarks is not None:
        found = pose_from_landmarks(landmarks)
        pose = 1 - np.maximum(np.abs(found.yaw), np.abs(found.pitch))
    measured = {
        "detection_score": np.array(detection_score, np.float32),
        "face_size": face_size(boxes),
        "sharpness": np.array(sharpness, np.float32),
        "pose": pose,
    }
    if norm is not None:
        measured["norm"] = np.array(norm, np.float32)
    for name, column in measured.items():
        if column.shape != (count,):
            raise InputError(
                f"There should be one {name} for each of the {count} boxes; got the shape "
                f"{column.shape}."
            )
    return measured


def _upright(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Coordinates along the line of the eyes and down from it, (n, 5), and its angle, (n,)."""
    eyes = points[:, 1] - points[:, 0]
    axis = (eyes / np.linalg.norm(eyes, axis=1, keepdims=True))[:, None]
    across = np.sum(points * axis, axis=2)
    down = np.sum(points * np.stack([-axis[..., 1], axis[..., 0]], axis=-1), axis=2)
    return across, down, np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))


def _depth(down: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the nose is between the eyes (0) and the mouth (1): (n, 5) -> (n,)."""
    eyes, mouth = (down[:, 0] + down[:, 1]) / 2, (down[:, 3] + down[:, 4]) / 2
    return np.asarray((down[:, 2] - eyes) / (mouth - eyes))


def _signed_share(depth: NDArray[np.float64], frontal: float) -> NDArray[np.float64]:
    """0 at the frontal depth, -1 at the eyes, 1 at the mouth: (n,) -> (n,)."""
    return np.where(depth < frontal, depth / frontal - 1, (depth - frontal) / (1 - frontal))
