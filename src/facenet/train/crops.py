"""Encoded crops to batches of pixels, where order and augmentation do not matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from facenet.errors import ImageError
from facenet.images import load_image
from facenet.models.card import Preprocess
from facenet.types import ImageArray

BATCH = 64


def crop_batches(
    sources: Iterable[tuple[int, bytes | None]], preprocess: Preprocess
) -> Iterator[tuple[list[int], ImageArray]]:
    """Numbers and crops uint8 (n, h, w, 3) RGB, at the size of the network, up to 64 at a time.

    sources: a number and an encoded picture, None where there is none. Pictures that cannot be
    decoded are left out: their number does not come.
    """
    numbers: list[int] = []
    crops: list[ImageArray] = []
    for number, data in sources:
        crop = None if data is None else _decoded(data)
        if crop is None:
            continue
        numbers.append(number)
        crops.append(fitted(crop, preprocess))
        if len(numbers) == BATCH:
            yield numbers, np.stack(crops)
            numbers, crops = [], []
    if numbers:
        yield numbers, np.stack(crops)


def fitted(crop: ImageArray, preprocess: Preprocess) -> ImageArray:
    """A crop, uint8 (H, W, 3) -> uint8 (height, width, 3), the size of the network's input."""
    if crop.shape[:2] == (preprocess.height, preprocess.width):
        return crop
    size = (preprocess.width, preprocess.height)
    smaller = crop.shape[0] > preprocess.height
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, size, interpolation=method), np.uint8)


def _decoded(data: bytes) -> ImageArray | None:
    try:
        return load_image(data)
    except ImageError:
        return None
