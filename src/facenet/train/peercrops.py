"""facenet-pytorch's pictures and crops: PIL images, arrays and tensors, one or several.

Source: `models/mtcnn.py` and `models/utils/detect_face.py` of timesler/facenet-pytorch 2.6, whose
conventions these are to the pixel. `facenet.pytorch` is the door to them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from facenet.errors import ImageError, SettingsError
from facenet.faces.align import margin_box
from facenet.faces.detect import RULES
from facenet.faces.draw import save_image
from facenet.images.arrays import from_array, is_pil
from facenet.images.limits import ImageLimits
from facenet.types import FloatArray, ImageArray

Picture: TypeAlias = Any
"""A PIL image, or an array or tensor (H, W, 3) RGB with values from 0 to 255."""
Pictures: TypeAlias = Any
"""One picture, a list or tuple of them, or an array or tensor (n, H, W, 3)."""
Place: TypeAlias = str | os.PathLike[str]
Places: TypeAlias = Place | Sequence[Place | None] | None

BILINEAR = 2
"""Pillow's number of bilinear resampling."""
NOTHING = (None, [None], None)
"""Box, probability and landmarks of no face."""


def extract_face(
    img: Picture,
    box: Sequence[float] | FloatArray,
    image_size: int = 160,
    margin: int = 0,
    save_path: Place | None = None,
) -> Tensor:
    """The crop of one box as float32 (3, image_size, image_size), 0 to 255.

    box: x1 y1 x2 y2 in pixels. margin: pixels of the crop around the box. save_path: file for it.
    As in facenet-pytorch a PIL image is resized bilinearly by Pillow, an array by OpenCV's and a
    tensor by torch's mean over areas (cut to whole numbers): the three differ a little.
    Raises InputError when the box lies outside the picture, StorageError when the file cannot be
    written.
    """
    check_crop(image_size, margin)
    where = margin_box(
        np.asarray(box, np.float64),
        size_of(img),
        margin=margin,
        output=(image_size, image_size),
    )
    face = _resized(img, where, image_size)
    if save_path is not None:
        save_image(np.clip(np.rint(face), 0, 255).astype(np.uint8), Path(save_path))
    return torch.from_numpy(np.array(face.transpose(2, 0, 1), np.float32, order="C"))


def fixed_image_standardization(image_tensor: Tensor) -> Tensor:
    """(x - 127.5) / 128 of a tensor of any shape, values from 0 to 255."""
    return (image_tensor - 127.5) / 128.0


def prewhiten(x: Tensor) -> Tensor:
    """(x - mean) / max(deviation, 1 / sqrt(count)) over all values of a tensor, as facenet-pytorch.

    Its deviation divides by count - 1; facenet's own, on our cards "per_image", by count.
    """
    deviation = x.std().clamp(min=1.0 / float(x.numel()) ** 0.5)
    return (x - x.mean()) / deviation


def listed(img: Pictures) -> tuple[list[Picture], bool]:
    """The pictures one by one, and whether several were passed. Raises ImageError for none."""
    several = isinstance(img, list | tuple)
    if isinstance(img, np.ndarray | Tensor) and img.ndim == 4:
        several = True
    pictures = list(img) if several else [img]
    if not pictures:
        raise ImageError("A list of pictures should hold one at least; it is empty.")
    return pictures, several


def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height in pixels."""
    if is_pil(picture):
        return int(picture.width), int(picture.height)
    return int(picture.shape[1]), int(picture.shape[0])


def pixels_of(picture: Picture) -> ImageArray:
    """uint8 (H, W, 3) RGB of a picture as it lies in memory: no EXIF orientation is applied.

    Raises ImageError for another shape, and for values that are not 0 to 255.
    """
    if is_pil(picture):
        return np.asarray(picture.convert("RGB"), np.uint8)
    array = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
    if not isinstance(array, np.ndarray):
        raise ImageError(
            "A picture should be a PIL image, a NumPy array or a tensor (H, W, 3); got "
            f"{type(picture).__name__}. Open files with PIL.Image.open or facenet.load_image."
        )
    if array.dtype != np.uint8:
        array = _whole(array)
    return from_array(array, "rgb", ImageLimits())


def _whole(array: NDArray[Any]) -> ImageArray:
    """Numbers from 0 to 255 rounded to uint8. Raises ImageError for others."""
    values = np.asarray(array, np.float32)
    largest = float(values.max(initial=0))
    if not np.all(np.isfinite(values)) or values.min(initial=0) < 0 or largest > 255:
        raise ImageError(
            "A picture should hold values from 0 to 255; these go beyond, or are not finite. "
            "Pass it as it was decoded, before it is standardised."
        )
    if array.dtype.kind == "f" and 0 < largest <= 1:
        raise ImageError(
            "A picture should hold values from 0 to 255; the largest of these is "
            f"{largest:g}. Multiply it by 255."
        )
    return np.asarray(np.rint(values), np.uint8)


def _resized(picture: Picture, where: tuple[int, int, int, int], side: int) -> FloatArray:
    """Whole pixels x1 y1 x2 y2 of a picture as float32 (side, side, 3)."""
    import cv2

    left, top, right, bottom = where
    if is_pil(picture):
        face = picture.convert("RGB").crop(where).resize((side, side), BILINEAR)
        return np.asarray(face, np.float32)
    part = picture[top:bottom, left:right]
    if isinstance(part, Tensor):
        planes = part.permute(2, 0, 1).unsqueeze(0).float()
        small = interpolate(planes, size=(side, side), mode="area").byte().squeeze(0)
        return np.asarray(small.permute(1, 2, 0).cpu().numpy(), np.float32)
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def selected(
    boxes: Any,
    probs: Any,
    points: Any,
    size: tuple[int, int],
    method: str,
    weights: tuple[float, float],
) -> tuple[Any, Any, Any]:
    """Box (1, 4), probability (1,) and landmarks (1, 5, 2) of the face a rule prefers, or none."""
    if boxes is None:
        return NOTHING
    boxes, probs, points = (np.asarray(part) for part in (boxes, probs, points))
    edges = boxes.astype(np.float64)
    values = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    if method == "probability":
        values = probs.astype(np.float64)
    elif method == "center_weighted_size":
        offset = (edges[:, :2] + edges[:, 2:]) / 2 - np.array(size) / 2
        values = values - weights[1] * np.sum(offset**2, axis=1)
    elif method == "largest_over_threshold":
        values = np.where(probs.astype(np.float64) > weights[0], values, -np.inf)
    best = np.argsort(values)[::-1][:1]
    if not len(best) or not np.isfinite(values[best[0]]):
        return NOTHING
    return boxes[best], probs[best], points[best]


def together(values: list[Any]) -> NDArray[Any]:
    """An array with an entry for each picture: dense where all are arrays of one shape."""
    shapes = {value.shape if isinstance(value, np.ndarray) else None for value in values}
    if None not in shapes and len(shapes) == 1:
        return np.stack(values)
    return np.array(values, dtype=object)


def paths_for(save_path: Places, count: int) -> list[Path | None]:
    """A place or None for each picture. Raises SettingsError when there are not as many."""
    if save_path is None:
        return [None] * count
    given = [save_path] if isinstance(save_path, str | os.PathLike) else list(save_path)
    if len(given) != count:
        raise SettingsError(
            f"save_path should name a file for each of the {count} pictures; got {len(given)}."
        )
    return [None if path is None else Path(path) for path in given]


def check_crop(image_size: int, margin: int) -> None:
    """Raises SettingsError unless a crop has room for a face beside its margin."""
    if not 0 <= margin < image_size:
        raise SettingsError(
            "image_size should be pixels, 1 or more, and margin 0 to less than it; got "
            f"image_size={image_size}, margin={margin}."
        )


def check_rule(method: str) -> None:
    """Raises SettingsError for a rule of selection that does not exist."""
    if method not in RULES:
        raise SettingsError(
            f"selection_method should be one of {', '.join(RULES)}; got {method!r:.60}."
        )
