"""Heads cut out of pictures, to be laid over others: see `movingfaces`."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.types import FloatArray, ImageArray

Floats = NDArray[np.float64]

HALF = (0.78, 0.74)
"""Half axes of the ellipse that is cut out, in widths and heights of the face."""
FADE = 0.12
"""Part of the half axes over which its edge fades."""


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A picture of a person: uint8 (H, W, 3) RGB, and the box of the face in it, x1 y1 x2 y2.

    Raises InputError for another picture, or a face of less than 4 pixels.
    """

    person: str
    image: ImageArray
    box: FloatArray

    def __post_init__(self) -> None:
        box, image = np.asarray(self.box, np.float64), self.image
        fits = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        if not (fits and box.shape == (4,) and (box[2:] - box[:2] >= 4).all()):
            raise InputError(
                "A portrait should be uint8 (H, W, 3) with a box of a face, 4 pixels or more; got "
                f"{image.dtype} {image.shape} and {str(box.tolist())[:80]}."
            )


class Head:
    """A head that is cut out of a portrait, drawn in any size."""

    def __init__(self, portrait: Portrait) -> None:
        x1, y1, x2, y2 = (float(value) for value in portrait.box)
        self.wide, self.high = x2 - x1, y2 - y1
        half = np.array([HALF[0] * self.wide, HALF[1] * self.high])
        middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
        columns, rows = (int(side) for side in np.ceil(2 * half))
        shift = np.array([[1, 0, half[0] - middle[0]], [0, 1, half[1] - middle[1]]])
        edge = cv2.BORDER_REPLICATE
        cut = np.asarray(
            cv2.warpAffine(portrait.image, shift, (columns, rows), borderMode=edge), np.float64
        )
        x, y = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
        away = np.hypot((x - half[0]) / half[0], (y - half[1]) / half[1])
        alpha = np.clip((1 - away) / FADE, 0, 1)[:, :, None]
        self._layers = np.concatenate([cut * alpha, alpha], axis=2).astype(np.float32)
        self._kept: tuple[tuple[int, int], FloatArray] = ((0, 0), self._layers)

    def box(self, place: Floats) -> tuple[float, float, float, float]:
        """The face, x1 y1 x2 y2, when its middle and width are `place`, (3,)."""
        x, y, wide = (float(value) for value in place)
        across, down = wide / 2, wide * self.high / self.wide / 2
        return x - across, y - down, x + across, y + down

    def draw(
        self, canvas: FloatArray, owner: ImageArray, place: Floats, *, turn: float, number: int
    ) -> None:
        """Draw it on a canvas (H, W, 3), turned by some degrees, its middle and width `place`.

        owner: uint8 (H, W), set to `number` where it covers what was there.
        """
        x, y, wide = (float(value) for value in place)
        layers = self._sized(wide / self.wide)
        reach = float(np.hypot(*layers.shape[:2])) / 2 + 1
        left, top = max(0, int(x - reach)), max(0, int(y - reach))
        right = min(canvas.shape[1], int(x + reach) + 1)
        below = min(canvas.shape[0], int(y + reach) + 1)
        if left >= right or top >= below:
            return
        middle = ((layers.shape[1] - 1) / 2, (layers.shape[0] - 1) / 2)
        matrix = np.array(cv2.getRotationMatrix2D(middle, turn, 1.0), np.float64)
        matrix[:, 2] += np.array([x - 0.5 - left, y - 0.5 - top]) - middle
        laid = np.asarray(cv2.warpAffine(layers, matrix, (right - left, below - top)), np.float32)
        part = canvas[top:below, left:right]
        part *= 1 - laid[:, :, 3:]
        part += laid[:, :, :3]
        owner[top:below, left:right][laid[:, :, 3] > 0.5] = number

    def _sized(self, scale: float) -> FloatArray:
        """The layers so much larger, kept for the next frame."""
        rows, columns = self._layers.shape[:2]
        size = max(2, round(columns * scale)), max(2, round(rows * scale))
        if self._kept[0] != size:
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            larger = np.asarray(cv2.resize(self._layers, size, interpolation=how), np.float32)
            self._kept = size, larger
        return self._kept[1]


def shown_share(owner: ImageArray, box: FloatArray, number: int) -> float:
    """Share, 0 to 1, of the ellipse in a box whose pixels are of this number.

    owner: uint8 (H, W); there is nothing beyond its edges.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    columns = np.arange(int(np.floor(x1)), int(np.ceil(x2)))
    rows = np.arange(int(np.floor(y1)), int(np.ceil(y2)))
    across = (columns + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    down = (rows + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    face = across[None, :] ** 2 + down[:, None] ** 2 <= 1
    wide = (columns >= 0) & (columns < owner.shape[1])
    high = (rows >= 0) & (rows < owner.shape[0])
    mine = owner[np.ix_(rows[high], columns[wide])] == number
    return float(np.sum(mine & face[np.ix_(high, wide)]) / max(1, int(face.sum())))
