"""From many pictures to their faces: reading, detection, cropping and embedding overlap.

See `flow` for how. A picture that cannot be used has a problem and stops nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from stat import S_ISREG
from typing import Any

import numpy as np

from facenet.errors import InputError, SettingsError
from facenet.faces.align import crop_faces
from facenet.faces.allocator import clear_gaps, give_memory_back
from facenet.faces.detect import Detector, select_faces
from facenet.faces.embed import Embedder
from facenet.faces.flow import Flow, FlowLimits, Stream
from facenet.images import REDUCTIONS, OpenedImage, is_many, open_image
from facenet.types import Faces, FloatArray, ImageArray

LIMITS = FlowLimits()
SMALLEST = 40
"""Pixels of the smallest face that MTCNN may be left with in a reduced picture."""
CLEARED = 500
"""Pictures after which the gaps in memory are cleared."""
_MANY = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What came of one picture.

    source: the picture as it was handed in. faces: those found in it, with embeddings where they
    were asked for; none where the picture could not be used. size: width and height in pixels,
    upright; None where the picture could not be read. error: why it could not be used, or None.
    image: its pixels, uint8 (H, W, 3) RGB, where they were asked for.
    """

    source: Any
    faces: Faces
    size: tuple[int, int] | None = None
    error: InputError | None = None
    image: ImageArray | None = None

    @property
    def problem(self) -> str | None:
        """Why the picture could not be used, as a sentence; None for one that could."""
        return None if self.error is None else str(self.error)

    def found(self) -> Faces:
        """The faces. Raises the error of a picture that could not be used."""
        if self.error is not None:
            raise self.error
        return self.faces


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A picture on its way; `reduce`: its sides are divided by this in `image` and `faces`."""

    source: Any
    opened: OpenedImage | None = None
    image: ImageArray | None = None
    size: tuple[int, int] | None = None
    reduce: int = 1
    faces: Faces = field(default_factory=Faces.empty)
    error: InputError | None = None


class Pipeline:
    """A detector and an embedder at work on any number of pictures, in bounded memory.

    embedder: None to detect only. select: "all", or a key of `detect.RULES` for at most one face
    of each picture. reduced: which detector looks at a JPEG that is decoded at 1/2, 1/4 or 1/8 of
    its size, by the number below the line; the largest is taken. limits: how much is read ahead.
    """

    def __init__(
        self,
        detector: Detector,
        embedder: Embedder | None = None,
        *,
        select: str = "all",
        reduced: Mapping[int, Detector] | None = None,
        limits: FlowLimits = LIMITS,
    ) -> None:
        select_faces(Faces.empty(), select, (0, 0))  # refused before the work
        self.detectors = {1: detector, **(reduced or {})}
        self.embedder, self.select, self.limits = embedder, select, limits

    def run(
        self, sources: Iterable[Any], *, color: str = "rgb", pixels: bool = False
    ) -> Stream[Seen]:
        """What is seen in each picture, in order.

        sources: whatever `load_image` takes, drawn in the caller's thread and read ahead. color:
        channel order of arrays. pixels: hand each picture back too, decoded at its whole size.
        Raises InputError for a single picture, SettingsError for `color` or for pixels of reduced
        pictures; an error that is no InputError, such as EngineError, is raised in the place of
        its picture.
        """
        if not is_many(sources):
            raise InputError(
                f"A pipeline should get a list or iterator of pictures; got "
                f"{type(sources).__name__}. Put a single one into a list."
            )
        if color not in ("rgb", "bgr"):
            raise SettingsError(f'color should be "rgb" or "bgr"; got {color!r}.')
        if pixels and len(self.detectors) > 1:
            raise SettingsError(
                "Reduced decoding leaves no whole pixels to hand back or to draw on. Leave one of "
                "the two out."
            )
        give_memory_back()
        stages = _Work(self, color, pixels)
        return Flow(stages, self.limits).run(map(stages.drawn, sources))


def reduction(least: int, side: int = 0) -> int:
    """The part of its size at which a JPEG may be decoded when faces of `least` pixels and more
    are looked for with MTCNN: 8, 4 or 2, the number below the line.

    A face must keep `SMALLEST` pixels: measured on photos and video, no more faces then come and
    go than when min_face_size is changed by 2 %, while at the 20 pixels that MTCNN can find a
    tenth and more are lost. side: of the crops in pixels, where the faces are to be embedded: a
    face must keep as many, or the network would be shown less than the photo has.
    Raises SettingsError where no part is allowed.
    """
    kept = max(SMALLEST, side)
    for part in REDUCTIONS:
        if least >= part * kept:
            return part
    raise SettingsError(
        f"Reduced decoding needs a min_face_size of {2 * kept} or more here, so that a face keeps "
        f"{kept} pixels; it is {least}. Raise it, or leave reduced decoding out."
    )


class _Work:
    """The stages of one run, as `flow.Stages` has them."""

    def __init__(self, pipeline: Pipeline, color: str, pixels: bool) -> None:
        self._detectors, self._select = pipeline.detectors, pipeline.select
        self._embedder, self._color, self._pixels = pipeline.embedder, color, pixels
        self._reduce = max(pipeline.detectors)
        self.batch = 0 if self._embedder is None else batch_of(self._embedder)
        self._full, self._finished = False, 0

    def drawn(self, source: Any) -> _Picture:
        """A picture as it comes. Only a path, bytes or an array may be read later, in a thread:
        another object may share its file, or be changed into the next picture."""
        picture = _Picture(source)
        if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray):
            return picture
        return self.decode(self.open(picture))

    def weigh(self, item: _Picture) -> int:
        """Bytes that are read for a picture."""
        return bytes_to_read(item.source) or self.cost(item)

    def open(self, item: _Picture) -> _Picture:
        """Read a picture."""
        if item.error or item.image is not None:
            return item
        try:
            return replace(item, opened=open_image(item.source, color=self._color))
        except InputError as error:
            return replace(item, error=error)

    def cost(self, item: _Picture) -> int:
        """Bytes of source, file and pixels."""
        held = _bytes_in(item.source)
        if item.image is not None:
            return held + item.image.nbytes
        if item.opened is None:
            return held
        reduce = self._reduce if item.opened.reducible else 1
        return held + item.opened.held + item.opened.decoded // reduce**2

    def decode(self, item: _Picture) -> _Picture:
        """The pixels of a picture."""
        if item.opened is None:
            return item
        reduce = self._reduce if item.opened.reducible else 1
        try:
            image = item.opened.pixels(reduce)
        except InputError as error:
            return replace(item, opened=None, error=error)
        size = _whole_size(image, item.opened, reduce)
        return replace(item, opened=None, image=image, size=size, reduce=reduce)

    def look(self, items: Sequence[_Picture]) -> list[_Picture]:
        """Find and choose the faces of a group, in the pixels of `image`."""
        found: dict[int, Faces] = {}
        for reduce, detector in self._detectors.items():
            rows = [row for row, item in enumerate(items) if _at(item, reduce)]
            images = [image for row in rows if (image := items[row].image) is not None]
            if images:
                found |= dict(zip(rows, detector.detect(images), strict=True))
        return [
            replace(item, faces=self._chosen(item, found[row])) if row in found else item
            for row, item in enumerate(items)
        ]

    def _chosen(self, item: _Picture, faces: Faces) -> Faces:
        if item.image is None:
            return faces
        height, width = item.image.shape[:2]
        return select_faces(faces, self._select, (width, height))

    def crop(self, item: _Picture) -> tuple[_Picture, ImageArray]:
        """The crops of the faces, and the picture without its pixels unless they are wanted."""
        assert self._embedder is not None
        preprocess = self._embedder.preprocess
        crops = np.empty((0, preprocess.height, preprocess.width, 3), np.uint8)
        if item.image is not None:
            try:
                crops = crop_faces(item.image, item.faces, preprocess)
            except InputError as error:
                return replace(item, faces=Faces.empty(), image=None, error=error), crops
        return (item if self._pixels else replace(item, image=None)), crops

    def embed(self, crops: ImageArray) -> FloatArray:
        """Unit vectors (n, d) of crops (n, H, W, 3).

        After a full batch the smaller ones are filled up: a runtime holds memory for each size.
        """
        assert self._embedder is not None
        self._full |= len(crops) == self.batch
        short = self._full and 0 < len(crops) < self.batch
        filled = np.resize(crops, (self.batch, *crops.shape[1:])) if short else crops
        return self._embedder.embed_crops(filled)[: len(crops)]

    def finish(self, item: _Picture, rows: FloatArray | None) -> Seen:
        """The answer for a picture, its faces in pixels of the whole; rows: (n, d)."""
        self._finished += 1
        if self._finished % CLEARED == 0:
            clear_gaps()
        if item.error is not None:
            return Seen(item.source, Faces.empty(), item.size, item.error)
        faces = _enlarged(item.faces, item.reduce)
        if rows is not None and self._embedder is not None:
            faces = faces.with_(embedding=rows, contract=self._embedder.contract)
        return Seen(item.source, faces, item.size, image=item.image if self._pixels else None)


def _at(item: _Picture, reduce: int) -> bool:
    return item.image is not None and item.reduce == reduce


def _enlarged(faces: Faces, reduce: int) -> Faces:
    """Faces that MTCNN found in a reduced picture, in pixels of the whole.

    A box runs from its first pixel to its last, and the first of the picture has the number 1:
    pixel n of the reduced one stands for those from `reduce * (n - 1) + 1` to `reduce * n`.
    """
    if reduce == 1:
        return faces
    first = np.array([reduce - 1, reduce - 1, 0, 0], np.float32)
    points = None if faces.landmarks is None else faces.landmarks * reduce
    return faces.with_(boxes=faces.boxes * reduce - first, landmarks=points)


def _whole_size(image: ImageArray, opened: OpenedImage, reduce: int) -> tuple[int, int]:
    """Width and height, upright, of the whole picture that (H, W, 3) pixels are a part of."""
    height, width = image.shape[:2]
    if reduce == 1:
        return width, height
    turned = (width, height) != (-(-opened.width // reduce), -(-opened.height // reduce))
    return (opened.height, opened.width) if turned else (opened.width, opened.height)


def _bytes_in(source: Any) -> int:
    """Bytes that a source holds in memory by itself."""
    if isinstance(source, np.ndarray | memoryview):
        return source.nbytes
    return len(source) if isinstance(source, bytes | bytearray) else 0


def bytes_to_read(source: Any) -> int:
    """Bytes of a file; very many for a pipe or a device, which does not tell; 0 for no path."""
    if not isinstance(source, str | os.PathLike):
        return 0
    try:
        facts = os.stat(source)
    except (OSError, ValueError):  # reading it will say why
        return 0
    return facts.st_size if S_ISREG(facts.st_mode) else _MANY


def batch_of(embedder: Embedder) -> int:
    """Crops that an embedder runs at once."""
    return int(next(iter(embedder.plan(_MANY))).stop)
