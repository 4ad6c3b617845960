"""One door for pictures: whatever a user has becomes RGB pixels.

Takes a path, `Path`, bytes, a binary file object, a PIL image or a NumPy array, and lists or
iterators of them. Gives uint8 (H, W, 3) RGB with the EXIF orientation applied. Grey is copied to
three channels, alpha is dropped (as facenet did), 16 bits become 8 by keeping the high byte,
CMYK is converted. Nothing is fetched from the network.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ImageError, InputError, SettingsError
from facenet.images.header import SUFFIXES, plain, read_header
from facenet.types import ImageArray

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | NDArray[Any] | Any"
"""A path, bytes, a binary file, a PIL image, or an array of pixels."""

_BLOCK = 1 << 20
_MAX_SIDE = 1_000_000
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


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost: bytes of the file and pixels once decoded.

    Whatever the limits, no side may be longer than 1,000,000 pixels (libpng's own limit), and
    OpenCV decodes at most 2**30 pixels.
    """

    max_bytes: int = 256 * 1024 * 1024
    max_pixels: int = 120_000_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SettingsError(
                    f"ImageLimits.{name} should be a whole number above 0; got {value!r}."
                )


LIMITS = ImageLimits()


def load_image(
    source: ImageSource, *, color: str = "rgb", limits: ImageLimits = LIMITS
) -> ImageArray:
    """One picture as uint8 (H, W, 3) RGB pixels, upright.

    color: channel order of a NumPy array, "rgb" or "bgr" (OpenCV); files and PIL images know
    their own. limits: refused before decoding when the header asks for more. A contiguous RGB
    array of uint8 is not copied.
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


def load_with_digest(
    source: ImageSource, *, color: str = "rgb", limits: ImageLimits = LIMITS
) -> tuple[ImageArray, str]:
    """A picture as `load_image` gives it, (H, W, 3), and what tells it from others: a SHA-256 in
    hex, of the bytes of a file, of the shape and pixels of an array or a PIL image."""
    if isinstance(source, np.ndarray) or _is_pil(source):
        pixels = load_image(source, color=color, limits=limits)
        shape = repr(pixels.shape).encode()
        return pixels, hashlib.sha256(shape + pixels.tobytes()).hexdigest()
    data, name = _read(source, limits)
    return decode(data, name=name, limits=limits), hashlib.sha256(data).hexdigest()


def decode(data: bytes, *, name: str = "the picture", limits: ImageLimits = LIMITS) -> ImageArray:
    """Pixels of an encoded picture: bytes -> uint8 (H, W, 3) RGB, EXIF orientation applied.

    Raises ImageError for an unknown format, a truncated or damaged file, or one over the limits.
    """
    import cv2

    if not data:
        raise ImageError(
            f"{name} is empty (0 bytes): expected a picture. Copy or download it again; rewind a "
            "file object with seek(0)."
        )
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"{name} should have at most {limits.max_bytes:,} bytes; it has more. "
            "Save it smaller, or pass ImageLimits with a higher max_bytes."
        )
    header = read_header(data, name)
    _check_pixels(name, header.width, header.height, limits)
    # OpenCV 5.0 rounds 16-bit TIFF to 8 bits unless asked not to, and asked for it as RGB gives
    # garbage: TIFF is read as BGR in its own depth.
    bgr = header.format == "TIFF"
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if bgr else cv2.IMREAD_COLOR_RGB
    try:
        with _quiet():
            pixels = cv2.imdecode(np.frombuffer(plain(data, header), np.uint8), flags)
    except cv2.error as error:
        raise ImageError(
            f"{name} is a {header.format} that OpenCV refuses: it is damaged, or has more than "
            "2**30 pixels. Copy it again, or save it smaller as 8-bit JPEG or PNG."
        ) from error
    stored = (header.height, header.width, 3)
    if pixels is None or pixels.shape not in (stored, (header.width, header.height, 3)):
        raise ImageError(
            f"{name} is a {header.format} that cannot be decoded: it ends early, is damaged or of "
            "an unusual kind. Copy it again, or save it as 8-bit JPEG or PNG."
        )
    return np.ascontiguousarray(_eight_bits(pixels)[:, :, :: -1 if bgr else 1])


def is_many(source: Any) -> bool:
    """Whether a source stands for several pictures: a list, tuple, iterator or 4-D array."""
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    one = isinstance(source, str | os.PathLike | bytes | bytearray | memoryview)
    one = one or hasattr(source, "read") or _is_pil(source)
    return not one and isinstance(source, Iterable)


def load_images(
    sources: Iterable[ImageSource], *, color: str = "rgb", limits: ImageLimits = LIMITS
) -> Iterator[ImageArray]:
    """`load_image` over a list, an iterator or a 4-D array, one at a time.

    Raises InputError for a single picture.
    """
    if not is_many(sources):
        raise InputError(
            f"load_images should get a list or iterator of pictures; got {type(sources).__name__}. "
            "Use load_image for one."
        )
    return (load_image(source, color=color, limits=limits) for source in sources)


def find_images(places: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Picture files among files and folders: folders are walked, in sorted order.

    What is hidden and files without a picture ending are passed over inside folders; a place
    that is named itself is taken as it is. Raises InputError for a place that does not exist.
    """
    if isinstance(places, str | os.PathLike):
        places = [places]
    found: list[Path] = []
    for place in map(Path, places):
        try:
            is_folder, exists = place.is_dir(), place.exists()
        except OSError as error:
            raise InputError(f"Cannot look at {_clip(place)}: {error.strerror}.") from error
        if not exists:
            raise InputError(
                f"No such file or folder: {_clip(place)}. Check the spelling of the path."
            )
        found += _pictures_in(place) if is_folder else [place]
    return found


def is_image_name(path: Path) -> bool:
    """Whether a file name looks like a picture and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if is_image_name(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


# ---- from a source to bytes


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
    text = os.fsdecode(source)
    name = _clip(text)
    if "://" in text or text.startswith("data:"):
        raise ImageError(f"{name} is an address; facenet fetches nothing. Download it first.")
    try:
        with open(text, "rb") as file:
            return _bounded(file, limits.max_bytes), name
    except OSError as error:
        raise ImageError(f"Cannot read the picture {name!r}: {_reason(error)}") from error
    except ValueError as error:
        raise ImageError(f"{name!r} is not a path a file can have: {error}.") from error


def _reason(error: OSError) -> str:
    """What the system says, and what to do about it."""
    steps: dict[type[OSError], str] = {
        FileNotFoundError: "Check the spelling of the path.",
        IsADirectoryError: "Name a picture file in it.",
        PermissionError: "Check who may read the file.",
    }
    step = steps.get(type(error), "Check the path and the disk.")
    return f"{error.strerror or 'it cannot be read'}. {step}"


def _read_file_object(source: Any, limits: ImageLimits) -> tuple[bytes, str]:
    given = getattr(source, "name", None)
    name = _clip(given) if isinstance(given, str) else "the picture (file object)"
    try:
        return _bounded(source, limits.max_bytes), name
    except (TypeError, UnicodeDecodeError) as error:
        raise ImageError(
            f'{name} should be a file opened in binary mode ("rb") that gives bytes; it gives text '
            "or something else."
        ) from error
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{name} should be a file open for reading; reading fails: {error}."
        ) from error


def _bounded(file: Any, limit: int) -> bytes:
    """All bytes of a file from where it stands, or one more than the limit."""
    blocks, wanted = [], limit + 1
    while wanted > 0 and (block := file.read(min(wanted, _BLOCK))):
        blocks.append(block)
        wanted -= len(block)
    return b"".join(blocks)


def _clip(text: object) -> str:
    whole = str(text)
    return whole if len(whole) <= 300 else f"{whole[:150]}...{whole[-50:]}"


# ---- from arrays and PIL images


def _check_pixels(name: str, width: int, height: int, limits: ImageLimits) -> None:
    if max(width, height) > _MAX_SIDE:
        raise ImageError(
            f"{name} is {width}x{height} pixels; a side should have at most {_MAX_SIDE:,}. "
            "Crop it or scale it down."
        )
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} is {width}x{height} = {width * height:,} pixels; the limit is "
            f"{limits.max_pixels:,}. Scale it down, or pass ImageLimits with a higher max_pixels."
        )


def _from_array(array: NDArray[Any], color: str, limits: ImageLimits) -> ImageArray:
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise ImageError(
            "An image array should have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); "
            f"got {array.shape}.{_shape_hint(array.shape)}"
        )
    height, width = pixels.shape[:2]
    if height == 0 or width == 0:
        raise ImageError(f"An image array should hold pixels; got the shape {array.shape}.")
    _check_pixels("the array", width, height, limits)
    pixels = _eight_bits(pixels)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3] if color == "rgb" else pixels[:, :, 2::-1])


def _eight_bits(pixels: NDArray[Any]) -> ImageArray:
    """uint8 as it is; of uint16 the high byte; nothing else."""
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


def _is_pil(source: Any) -> bool:
    return hasattr(source, "getexif") and hasattr(source, "convert")


def _from_pil(image: Any, limits: ImageLimits) -> ImageArray:
    _check_pixels("the PIL image", image.width, image.height, limits)
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
    return _upright(_from_array(pixels, "rgb", limits), orientation)


def _upright(pixels: ImageArray, orientation: Any) -> ImageArray:
    """Apply an EXIF orientation, 1 to 8, to (H, W, 3) pixels; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


# ---- OpenCV's own log lines

_quiet_lock = threading.Lock()
_quiet_state = {"inside": 0, "level": 0}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's log lines off the terminal: a broken picture is told by an ImageError.

    The level is of the whole process; it is set when the first thread comes in, and set back
    when the last one leaves.
    """
    from cv2.utils import logging

    with _quiet_lock:
        if _quiet_state["inside"] == 0:
            _quiet_state["level"] = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        _quiet_state["inside"] += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_state["inside"] -= 1
            if _quiet_state["inside"] == 0:
                logging.setLogLevel(_quiet_state["level"])
