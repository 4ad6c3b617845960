"""One door for pictures: whatever a user has becomes RGB pixels.

Takes a path, `Path`, bytes, a binary file object, a PIL image or a NumPy array, and lists or
iterators of them. Gives uint8 (H, W, 3) RGB with the EXIF orientation applied. Grey is copied to
three channels, alpha is dropped (as facenet did), 16 bits become 8 by keeping the high byte,
CMYK is converted. Nothing is fetched from the network.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ImageError, InputError, SettingsError
from facenet.images.arrays import eight_bits, from_array, from_pil, is_pil
from facenet.images.header import SUFFIXES, Header, plain, read_header
from facenet.images.limits import LIMITS as LIMITS
from facenet.images.limits import ImageLimits as ImageLimits
from facenet.images.limits import check_pixels
from facenet.types import ImageArray

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | NDArray[Any] | Any"
"""A path, bytes, a binary file, a PIL image, or an array of pixels."""

_BLOCK = 1 << 20
REDUCTIONS = (8, 4, 2)
"""Parts of its size at which a JPEG can be decoded at once, the smallest first."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenedImage:
    """A picture that was read and checked, but not decoded yet.

    width, height: in pixels, as stored (before any EXIF rotation); 0 for an array of another
    shape than a picture's, which `pixels` refuses. held: bytes of memory that it takes up now.
    reducible: whether `pixels` can give less than the whole.
    """

    width: int
    height: int
    held: int
    reducible: bool
    _decoded: Callable[[int], ImageArray]

    @property
    def decoded(self) -> int:
        """Bytes of its pixels once they are decoded as a whole."""
        return 3 * self.width * self.height

    def pixels(self, reduce: int = 1) -> ImageArray:
        """The picture as `load_image` gives it: uint8 (H, W, 3) RGB, upright.

        reduce: 2, 4 or 8 for a part of its size, which a JPEG gives faster (of its frequencies
        the lowest are used); for other pictures this changes nothing. Its sides are divided and
        rounded up, so that pixel x stands for the pixels from `reduce * x` on.
        Raises ImageError for a damaged picture, or one that is none.
        """
        return self._decoded(reduce if self.reducible else 1)


def open_image(
    source: ImageSource, *, color: str = "rgb", limits: ImageLimits = LIMITS
) -> OpenedImage:
    """Read one picture without decoding it; source, color and limits as in `load_image`.

    Raises ImageError for what is known to be unusable by now: no file, another format, too large.
    """
    if color not in ("rgb", "bgr"):
        raise SettingsError(f'color should be "rgb" or "bgr"; got {color!r}.')
    if isinstance(source, np.ndarray):
        height, width = source.shape[:2] if source.ndim >= 2 else (0, 0)
        array = source
        return OpenedImage(
            width, height, array.nbytes, False, lambda _: from_array(array, color, limits)
        )
    if is_pil(source):
        return _opened_pil(source, limits)
    data, name = _read(source, limits)
    return _opened(data, name, limits)


def load_image(
    source: ImageSource, *, color: str = "rgb", limits: ImageLimits = LIMITS
) -> ImageArray:
    """One picture as uint8 (H, W, 3) RGB pixels, upright.

    color: channel order of a NumPy array, "rgb" or "bgr" (OpenCV); files and PIL images know
    their own. limits: refused before decoding when the header asks for more. A contiguous RGB
    array of uint8 is not copied.
    Raises ImageError when it is no usable picture, with what to do; SettingsError for `color`.
    """
    return open_image(source, color=color, limits=limits).pixels()


def load_with_digest(
    source: ImageSource, *, color: str = "rgb", limits: ImageLimits = LIMITS
) -> tuple[ImageArray, str]:
    """A picture as `load_image` gives it, (H, W, 3), and what tells it from others: a SHA-256 in
    hex, of the bytes of a file, of the shape and pixels of an array or a PIL image."""
    if isinstance(source, np.ndarray) or is_pil(source):
        pixels = load_image(source, color=color, limits=limits)
        shape = repr(pixels.shape).encode()
        return pixels, hashlib.sha256(shape + pixels.tobytes()).hexdigest()
    data, name = _read(source, limits)
    return decode(data, name=name, limits=limits), hashlib.sha256(data).hexdigest()


def decode(data: bytes, *, name: str = "the picture", limits: ImageLimits = LIMITS) -> ImageArray:
    """Pixels of an encoded picture: bytes -> uint8 (H, W, 3) RGB, EXIF orientation applied.

    Raises ImageError for an unknown format, a truncated or damaged file, or one over the limits.
    """
    return _opened(data, name, limits).pixels()


def _opened(data: bytes, name: str, limits: ImageLimits) -> OpenedImage:
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
    check_pixels(name, header.width, header.height, limits)
    return OpenedImage(
        header.width,
        header.height,
        len(data),
        header.format == "JPEG",
        lambda reduce: _decoded(data, name, header, reduce),
    )


def _opened_pil(image: Any, limits: ImageLimits) -> OpenedImage:
    width, height = image.width, image.height
    return OpenedImage(width, height, 4 * width * height, False, lambda _: from_pil(image, limits))


def _decoded(data: bytes, name: str, header: Header, reduce: int) -> ImageArray:
    """The pixels of a file that `read_header` has passed, uint8 (H, W, 3), at 1 / `reduce`."""
    import cv2

    # OpenCV 5.0 rounds 16-bit TIFF to 8 bits unless asked not to, and asked for it as RGB gives
    # garbage: TIFF is read as BGR in its own depth.
    bgr = header.format == "TIFF"
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if bgr else cv2.IMREAD_COLOR_RGB
    if reduce > 1:
        flags |= getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{reduce}")  # the bit of the reduction
    try:
        with _quiet():
            pixels = cv2.imdecode(np.frombuffer(plain(data, header), np.uint8), flags)
    except cv2.error as error:
        raise ImageError(
            f"{name} is a {header.format} that OpenCV refuses: it is damaged, or has more than "
            "2**30 pixels. Copy it again, or save it smaller as 8-bit JPEG or PNG."
        ) from error
    height, width = (-(-side // reduce) for side in (header.height, header.width))
    if pixels is None or pixels.shape not in ((height, width, 3), (width, height, 3)):
        raise ImageError(
            f"{name} is a {header.format} that cannot be decoded: it ends early, is damaged or of "
            "an unusual kind. Copy it again, or save it as 8-bit JPEG or PNG."
        )
    return np.ascontiguousarray(eight_bits(pixels)[:, :, :: -1 if bgr else 1])


def is_many(source: Any) -> bool:
    """Whether a source stands for several pictures: a list, tuple, iterator or 4-D array."""
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    one = isinstance(source, str | os.PathLike | bytes | bytearray | memoryview)
    one = one or hasattr(source, "read") or is_pil(source)
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
