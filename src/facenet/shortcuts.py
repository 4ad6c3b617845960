"""The questions of `Recognizer` as functions of the package, each with the options of the class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from facenet.gallery.compare import Verification
from facenet.recognizer import Recognizer
from facenet.types import FloatArray


@lru_cache(maxsize=4)
def _shared(options: tuple[tuple[str, Any], ...]) -> Recognizer:
    return Recognizer(**dict(options))


def _recognizer(options: Mapping[str, Any]) -> Recognizer:
    return _shared(tuple(sorted(options.items())))


def detect(source: Any, *, color: str = "rgb", **options: Any) -> Any:
    """The faces of a photo as `Faces`; for a list of photos, a list of `Faces`.

    color: channel order of NumPy arrays. options: those of `Recognizer`, which is kept for the
    next call with the same options.
    """
    return _recognizer(options).detect(source, color=color)


def embed(source: Any, *, color: str = "rgb", **options: Any) -> Any:
    """Unit vectors of all faces of a photo, float32 (n, d); for a list, a list of arrays.

    color, options: as in `detect`.
    """
    return _recognizer(options).embed(source, color=color)


def verify(
    a: Any,
    b: Any,
    *,
    fmr: float | None = None,
    threshold: float | None = None,
    select: str | None = None,
    color: str = "rgb",
    **options: Any,
) -> Verification:
    """Do two photos, one face each, show the same person? See `Recognizer.verify`."""
    prior = options.pop("prior", None)
    return _recognizer(options).verify(
        a, b, fmr=fmr, threshold=threshold, prior=prior, select=select, color=color
    )


def identify(
    known: Any,
    photos: Any,
    *,
    fmr: float | None = None,
    threshold: float | None = None,
    fpir: float | None = None,
    color: str = "rgb",
    **options: Any,
) -> Any:
    """Name every face of photos, or call it unknown. See `Recognizer.identify`."""
    return _recognizer(options).identify(
        known, photos, fmr=fmr, threshold=threshold, fpir=fpir, color=color
    )


def compare(
    sources: Iterable[Any], *, select: str | None = None, color: str = "rgb", **options: Any
) -> FloatArray:
    """Similarity of every photo with every other: float32 (n, n). See `Recognizer.compare`."""
    return _recognizer(options).compare(sources, select=select, color=color)
