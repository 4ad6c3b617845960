"""One door for pictures: whatever a user has becomes RGB pixels.

Takes a path, `Path`, bytes, a binary file object, a PIL image or a NumPy array, and lists or
iterators of them. Gives uint8 (H, W, 3) RGB with the EXIF orientation applied. Grey is copied to
three channels, alpha is dropped (as facenet did), 16 bits become 8 by keeping the high byte,
CMYK is converted. Nothing is fetched from the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ImageError, InputError, SettingsError
from facenet.images.header import SUFFIXES, read_header
from facenet.types import ImageArray

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | NDArray[Any] | Any"
"""A path, bytes, a binary file, a PIL image, or an array of pixels."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost: bytes of the file and pixels once decoded."""

    max_bytes: int = 256 * 1024 * 1024
    max_pixels: int = 120_000_000


LIMITS = ImageLimits()


def load_image(
    source: ImageSource, *, color: str = "rgb", limits: ImageLimits = LIMITS
) -> ImageArray:
    """One picture as uint8 (H, W, 3) RGB pixels, upright.

    color: channel order of a NumPy array, "rgb" or "bgr" (OpenCV); files and PIL images know
    their own. limits: refused before decoding when the header asks for more.
    Raises ImageError when it is no usable picture, with what to do; SettingsError for `color`.
    """
    if color not in ("rgb", "bgr"):
        raise SettingsError(f'color should be "rgb" or "bgr"; got {color!r}.')
    if isinstance(source, np.ndarray):
        return _from_array(source, color, limits)
    if _is_pil(source):
        return _from_pil(source, limits)
    data, name = _read(source, limits)
    return decode(data, name=name, limits=limits)


def decode(data: bytes, *, name: str = "the picture", limits: ImageLimits = LIMITS) -> ImageArray:
    """Pixels of an encoded picture: bytes -> uint8 (H, W, 3) RGB, EXIF orientation applied.

    Raises ImageError for an unknown format, a truncated or damaged file, or one over the limits.
    """
    import cv2

    if not data:
        raise ImageError(f"{name} is empty (0 bytes): expected a picture.")
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"{name} has {len(data):,} bytes; the limit is {limits.max_bytes:,}. "
            "Save it smaller, or pass ImageLimits with a higher max_bytes."
        )
    header = read_header(data, name)
    _check_pixels(name, header.width, header.height, limits)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{name} is a damaged {header.format}: OpenCV refused it.") from error
    if pixels is None:
        raise ImageError(
            f"{name} is a {header.format} that cannot be decoded: it is damaged or of an unusual "
            "kind (floating point, for example). Save it again as 8-bit JPEG or PNG."
        )
    return np.ascontiguousarray(pixels[:, :, ::-1])


def is_many(source: Any) -> bool:
    """Whether a source stands for several pictures: a list, tuple, iterator or 4-D array."""
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    one = isinstance(source, str | os.PathLike | bytes | bytearray) or hasattr(source, "read")
    return not one and not _is_pil(source) and isinstance(source, Iterable)


def load_images(
    sources: Iterable[ImageSource], *, color: str = "rgb", limits: ImageLimits = LIMITS
) -> Iterator[ImageArray]:
    """`load_image` over a list or iterator, one at a time."""
    return (load_image(source, color=color, limits=limits) for source in sources)


def find_images(places: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Picture files among files and folders: folders are walked, in sorted order.

    Hidden files and files without a picture ending are passed over inside folders; a file that
    is named itself is taken as it is. Raises InputError for a place that does not exist.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found += sorted(p for p in place.rglob("*") if is_image_name(p) and p.is_file())
        elif place.exists():
            found.append(place)
        else:
            raise InputError(f"No such file or folder: {place}. Check the spelling of the path.")
    return found


def is_image_name(path: Path) -> bool:
    """Whether a file name looks like a picture and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _read(source: Any, limits: ImageLimits) -> tuple[bytes, str]:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), "the picture (bytes)"
    if hasattr(source, "read"):
        return _read_file_object(source, limits)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            "A picture should be a path, bytes, a binary file, a PIL image or a NumPy array; "
            f"got {type(source).__name__}."
        )
    text = os.fspath(source)
    if "://" in text:
        raise ImageError(f"{text} is an address; facenet fetches nothing. Download it first.")
    try:
        with open(text, "rb") as file:
            return file.read(limits.max_bytes + 1), text
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ImageError(f"Cannot read the picture {text}: {reason}.") from error
    except ValueError as error:
        raise ImageError(f"{text!r} is not a path a file can have: {error}.") from error


def _read_file_object(source: Any, limits: ImageLimits) -> tuple[bytes, str]:
    name = str(getattr(source, "name", "the picture (file object)"))
    data = source.read(limits.max_bytes + 1)
    if not isinstance(data, bytes):
        raise ImageError(f'{name} should be opened in binary mode ("rb"); it gives text.')
    return data, name


def _check_pixels(name: str, width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} is {width}x{height} = {width * height:,} pixels; the limit is "
            f"{limits.max_pixels:,}. Scale it down, or pass ImageLimits with a higher max_pixels."
        )


def _from_array(array: NDArray[Any], color: str, limits: ImageLimits) -> ImageArray:
    pixels = array
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        hint = " It looks channels-first: use array.transpose(1, 2, 0)." * (
            array.ndim == 3 and array.shape[0] in (1, 3, 4)
        )
        raise ImageError(
            "An image array should have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); "
            f"got {array.shape}.{hint}"
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(
            f"An image array should be uint8 (0 to 255) or uint16; got {array.dtype}. "
            "If its values are 0 to 1, pass (array * 255).round().astype(numpy.uint8)."
        )
    height, width = pixels.shape[:2]
    if height == 0 or width == 0:
        raise ImageError(f"An image array should hold pixels; got the shape {array.shape}.")
    _check_pixels("the array", width, height, limits)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    rgb = pixels[:, :, :3] if color == "rgb" else pixels[:, :, 2::-1]
    return np.ascontiguousarray(rgb)


def _is_pil(source: Any) -> bool:
    return hasattr(source, "getexif") and hasattr(source, "convert")


def _from_pil(image: Any, limits: ImageLimits) -> ImageArray:
    _check_pixels("the PIL image", image.width, image.height, limits)
    if image.mode.startswith("I;16"):
        return _from_array(np.asarray(image), "rgb", limits)
    try:
        pixels = np.asarray(image.convert("RGB"), np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"The PIL image cannot be decoded: {error}.") from error
    return _upright(pixels, int(image.getexif().get(274, 1)))


def _upright(pixels: ImageArray, orientation: int) -> ImageArray:
    """Apply an EXIF orientation, 1 to 8, to (H, W, 3) pixels."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
