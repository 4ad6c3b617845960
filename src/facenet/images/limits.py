"""What a picture may cost, asked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from facenet.errors import ImageError, SettingsError

MAX_SIDE = 1_000_000
"""Pixels of the longer side, whatever the limits: libpng's own bound."""


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


def check_pixels(name: str, width: int, height: int, limits: ImageLimits) -> None:
    """Raise ImageError for a picture of more pixels than the limits allow, before it is decoded."""
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{name} is {width}x{height} pixels; a side should have at most {MAX_SIDE:,}. "
            "Crop it or scale it down."
        )
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} is {width}x{height} = {width * height:,} pixels; the limit is "
            f"{limits.max_pixels:,}. Scale it down, or pass ImageLimits with a higher max_pixels."
        )
