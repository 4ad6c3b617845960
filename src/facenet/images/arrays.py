"""Pixels that somebody else decoded: NumPy arrays and PIL images become uint8 RGB, upright."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ImageError
from facenet.images.limits import ImageLimits, check_pixels
from facenet.types import ImageArray

_PIL_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    AttributeError,
    struct.error,
)


def from_array(array: NDArray[Any], color: str, limits: ImageLimits) -> ImageArray:
    """uint8 (H, W, 3) RGB of an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), in the channel
    order "rgb" or "bgr". Raises ImageError for another shape or type, or one over the limits."""
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise ImageError(
            "An image array should have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); "
            f"got {array.shape}.{_shape_hint(array.shape)}"
        )
    height, width = pixels.shape[:2]
    if height == 0 or width == 0:
        raise ImageError(f"An image array should hold pixels; got the shape {array.shape}.")
    check_pixels("the array", width, height, limits)
    pixels = eight_bits(pixels)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3] if color == "rgb" else pixels[:, :, 2::-1])


def eight_bits(pixels: NDArray[Any]) -> ImageArray:
    """uint8 (H, W, n) as it is; of uint16 the high byte; nothing else."""
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        return (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(
            f"An image array should be uint8 (0 to 255) or uint16; got {pixels.dtype}. "
            "If its values are 0 to 1, pass (array * 255).round().astype(numpy.uint8); "
            "if they are 0 to 255, pass array.round().astype(numpy.uint8)."
        )
    return pixels


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return " It looks channels-first: use array.transpose(1, 2, 0)."
    if len(shape) == 4:
        return " It looks like several pictures: pass them one by one."
    return ""


def is_pil(source: Any) -> bool:
    """Whether a source is a PIL image; PIL itself is not imported."""
    return hasattr(source, "getexif") and hasattr(source, "convert")


def from_pil(image: Any, limits: ImageLimits) -> ImageArray:
    """uint8 (H, W, 3) RGB of a PIL image, upright. Raises ImageError when it cannot be read."""
    check_pixels("the PIL image", image.width, image.height, limits)
    if image.mode in ("I", "F"):
        raise ImageError(
            f"A PIL image should have 8 or 16 bits a value; got the mode {image.mode!r} (32 bits). "
            'Scale its values to 0-255 and convert it to "L".'
        )
    try:
        flat = image.convert("RGBA") if image.mode in ("P", "PA") else image
        flat = flat if image.mode.startswith("I;16") else flat.convert("RGB")
        pixels, orientation = np.asarray(flat), image.getexif().get(274, 1)
    except _PIL_ERRORS as error:
        raise ImageError(
            f"The PIL image cannot be read: {error}. Load or save it again as RGB."
        ) from error
    return _upright(from_array(pixels, "rgb", limits), orientation)


def _upright(pixels: ImageArray, orientation: Any) -> ImageArray:
    """Apply an EXIF orientation, 1 to 8, to (H, W, 3) pixels; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
