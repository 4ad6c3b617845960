"""Changes made to a picture before a network learns from it, drawn by a generator that is passed.

facenet's order: decode, rotate, crop or pad, (AdaFace's three, JPEG,) flip, then standardise, which
is `facenet.faces.embed.standardise`. Sources: facenet ``facenet.create_input_pipeline``; AdaFace
``data/augmenter.py`` with torchvision's ``RandomResizedCrop`` and ``ColorJitter`` (Kim et al.,
"AdaFace", 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from facenet.errors import SettingsError
from facenet.faces.bilinear import resize_bilinear
from facenet.types import ImageArray

FITS = ("resize", "crop")
AREA, RATIO, TRIES = (0.2, 1.0), (3 / 4, 4 / 3), 10
"""Share of the picture that crop-paste keeps, width by height of that part, and attempts."""
SIDE = (0.2, 1.0)
"""Share of its side that a picture is shrunk to, and enlarged from."""
JITTER = 0.5
"""Brightness, contrast and saturation become 1 - this to 1 + this times as much."""
JPEG_QUALITY = (20, 90)
_INTERPOLATIONS = (
    cv2.INTER_NEAREST,
    cv2.INTER_LINEAR,
    cv2.INTER_AREA,
    cv2.INTER_CUBIC,
    cv2.INTER_LANCZOS4,
)


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """What is done to pictures at random.

    crop: take a window of the wanted size at a random place. flip: mirror half of them. rotate:
    turn by an angle of up to so many degrees, either way (facenet: 10). fit: what becomes of a
    picture of another size: "resize" it, without regard to its proportions (with `crop`: enlarge it
    where it is too small for the window), or "crop": cut its middle out, and put black around it
    where it is too small, as facenet does. adaface: probability of each of AdaFace's three
    (AdaFace: 0.2): most of the picture black, lower resolution, other brightness, contrast and
    saturation. jpeg: probability of storing it once more as JPEG, of quality 20 to 90.
    Raises SettingsError for a value outside its range.
    """

    crop: bool = False
    flip: bool = True
    rotate: float = 0.0
    fit: str = "resize"
    adaface: float = 0.0
    jpeg: float = 0.0

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise SettingsError(
                f"augment.fit should be one of {', '.join(FITS)}; got {self.fit!r:.80}."
            )
        for name, most in (("rotate", 180.0), ("adaface", 1.0), ("jpeg", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise SettingsError(
                    f"augment.{name} should be from 0 to {most:g}; got {getattr(self, name):g}."
                )


PLAIN = AugmentSettings(flip=False)
"""No change at random: pictures to judge by."""


def augmented(
    image: ImageArray, size: int, settings: AugmentSettings, random: np.random.Generator
) -> ImageArray:
    """A picture as it is learnt from: uint8 (H, W, 3) RGB -> uint8 (size, size, 3) RGB."""
    if settings.rotate:
        image = rotate(image, random.uniform(-settings.rotate, settings.rotate))
    image = fit(image, size, settings, random)
    for change in (crop_paste, low_resolution, colour_jitter):
        if settings.adaface and random.random() < settings.adaface:
            image = change(image, random)
    if settings.jpeg and random.random() < settings.jpeg:
        image = recompress(image, int(random.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1)))
    if settings.flip and random.random() < 0.5:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def rotate(image: ImageArray, degrees: float) -> ImageArray:
    """Turn uint8 (H, W, 3) about its middle, counter-clockwise, bicubic; black comes in."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC))


def fit(
    image: ImageArray, size: int, settings: AugmentSettings, random: np.random.Generator
) -> ImageArray:
    """Bring uint8 (H, W, 3) to (size, size, 3), as `crop` and `fit` of the settings say."""
    height, width = image.shape[:2]
    if settings.fit == "resize":
        small = size / min(height, width)
        if not settings.crop:
            return image if height == width == size else resize_bilinear(image, size, size)
        if small > 1:
            image = resize_bilinear(image, round(width * small), round(height * small))
    return window(padded(image, size), size, random if settings.crop else None)


def padded(image: ImageArray, size: int) -> ImageArray:
    """Black around uint8 (H, W, 3), so that no side is shorter than `size`; the spare pixel of an
    odd number goes to the right and below, as in TensorFlow."""
    if min(image.shape[:2]) >= size:
        return image
    above, left = (max(0, size - side) // 2 for side in image.shape[:2])
    below, right = (
        max(0, size - side) - before
        for side, before in zip(image.shape[:2], (above, left), strict=True)
    )
    return np.pad(image, ((above, below), (left, right), (0, 0)))


def window(image: ImageArray, size: int, random: np.random.Generator | None) -> ImageArray:
    """Cut (size, size, 3) out of uint8 (H, W, 3): at a random place, or the middle for None."""
    spare = [side - size for side in image.shape[:2]]
    if random is None:
        top, left = (extra // 2 for extra in spare)
    else:
        top, left = (int(random.integers(extra + 1)) for extra in spare)
    return image[top : top + size, left : left + size]


def crop_paste(image: ImageArray, random: np.random.Generator) -> ImageArray:
    """Keep a random part of uint8 (H, W, 3) where it is, black around it."""
    height, width = image.shape[:2]
    for _ in range(TRIES):
        area = height * width * random.uniform(*AREA)
        aspect = np.exp(random.uniform(*np.log(RATIO)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
            pasted = np.zeros_like(image)
            pasted[top : top + h, left : left + w] = image[top : top + h, left : left + w]
            return pasted
    return image


def low_resolution(image: ImageArray, random: np.random.Generator) -> ImageArray:
    """Shrink uint8 (H, W, 3) to a random part of its side and enlarge it again, each with an
    interpolation drawn from five."""
    height, width = image.shape[:2]
    share = random.uniform(*SIDE)
    small = (max(1, int(share * width)), max(1, int(share * height)))
    down, up = (_INTERPOLATIONS[i] for i in random.integers(len(_INTERPOLATIONS), size=2))
    reduced = cv2.resize(np.ascontiguousarray(image), small, interpolation=down)
    return np.asarray(cv2.resize(reduced, (width, height), interpolation=up), np.uint8)


def colour_jitter(image: ImageArray, random: np.random.Generator) -> ImageArray:
    """Change brightness, contrast and saturation of uint8 (H, W, 3), in random order."""
    changes: tuple[Callable[[ImageArray, float], ImageArray], ...]
    changes = (brightness, contrast, saturation)
    factors = random.uniform(1 - JITTER, 1 + JITTER, size=len(changes))
    for which in random.permutation(len(changes)).tolist():
        image = changes[which](image, float(factors[which]))
    return image


def brightness(image: ImageArray, factor: float) -> ImageArray:
    """Away from black: uint8 (H, W, 3), every value times the factor, as Pillow's enhancer."""
    return _blended(np.zeros((1, 1, 1), np.uint8), image, factor)


def contrast(image: ImageArray, factor: float) -> ImageArray:
    """Away from the mean grey of uint8 (H, W, 3), as Pillow's enhancer."""
    mean = int(grey(image).mean() + 0.5)
    return _blended(np.full((1, 1, 1), mean, np.uint8), image, factor)


def saturation(image: ImageArray, factor: float) -> ImageArray:
    """Away from the grey picture of uint8 (H, W, 3), as Pillow's enhancer."""
    return _blended(grey(image)[:, :, None], image, factor)


def grey(image: ImageArray) -> ImageArray:
    """Luma of uint8 (H, W, 3) as Pillow rounds it (ITU-R 601): uint8 (H, W)."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    return np.asarray((image @ weights + 0x8000) >> 16, np.uint8)


def recompress(image: ImageArray, quality: int) -> ImageArray:
    """What is left of uint8 (H, W, 3) RGB after a JPEG of that quality, 1 to 100."""
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    stored = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB), np.uint8)


def _blended(plain: ImageArray, image: ImageArray, factor: float) -> ImageArray:
    """From one picture to the other, and beyond for factors above 1; cut off, not rounded."""
    start = plain.astype(np.float32)
    values = start + np.float32(factor) * (image.astype(np.float32) - start)
    return np.clip(values, 0, 255).astype(np.uint8)
