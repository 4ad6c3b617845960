"""YuNet: the small detector of OpenCV, fast enough for whole video frames on a CPU.

Wu, Peng, Yu: "YuNet: A Tiny Millisecond-level Face Detector" (2023). The network looks at the
picture once, at its own size, and gives per cell of three grids two scores, a box and five
landmarks. Source: `FaceDetectorYN` of OpenCV (`modules/objdetect/src/face_detect.cpp`) and
ShiqiYu/libfacedetection.train. In two things this goes further than OpenCV: a picture is scaled
to the smallest face that is wanted, and a large one is looked at a second time at a quarter of
its size, since the network does not see faces that fill more than 500 of its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError, SettingsError
from facenet.faces.boxes import non_maximum_suppression
from facenet.faces.onestage import Canvas, Found, checked, joined, picture_input, require_sensible
from facenet.models.engine import Engine, Seeing
from facenet.types import Faces, FloatArray, ImageArray

STRIDES = (8, 16, 32)
"""Pixels between the cells of the three grids."""
LEAST = 20
"""Side of the smallest faces that the network finds reliably, in pixels of what it sees."""
LARGEST = 500
"""Side of the largest; beyond it boxes get loose, and from 700 on faces are not found."""
FILLS = 720
"""A picture whose shorter side is longer is looked at again, smaller."""
STEP = 4
"""How much smaller."""
SHARED = 0.8
"""From this part of `LARGEST` on both looks count, and suppression takes the better box."""
ARITHMETIC = ("fp32", "bf16", "auto")
"""What the network may compute in, the exact way first."""
CANDIDATES = 20_000
"""Most candidates that are compared with one another, the best: bounds time and memory."""


@dataclass(frozen=True, slots=True)
class YunetSettings:
    """Options of YuNet.

    score_threshold: score that a face must reach, 0 to 1; those of faces end near 0.93.
    nms_threshold: faces that overlap a better one more go, 0 to 1. min_face_size: side of the
    smallest face looked for, in pixels of the picture; it is reduced (or enlarged) until such a
    face has 20 pixels, so twice as much is four times as fast, and smaller faces are left out.
    max_megapixels: a picture that would have more of them after that is reduced to so many:
    bounds memory, about 50 bytes a pixel. max_faces: at most so many, the largest; 0 is all.
    arithmetic: "fp32"; "bf16", much faster on processors with AMX, which moves scores by up to
    0.02, so that a box may be that of a neighbouring cell; or "auto", bf16 where it is faster.
    """

    score_threshold: float = 0.7
    nms_threshold: float = 0.3
    min_face_size: float = LEAST
    max_megapixels: float = 8
    max_faces: int = 0
    arithmetic: str = ARITHMETIC[0]

    def __post_init__(self) -> None:
        require_sensible(self, least=1)
        if self.arithmetic not in ARITHMETIC:
            raise SettingsError(
                f"arithmetic should be one of {', '.join(ARITHMETIC)}; got {self.arithmetic!r:.40}."
            )
        if not 0.01 <= self.max_megapixels <= 100:
            raise SettingsError(
                "max_megapixels should be millions of pixels, 0.01 to 100; got "
                f"{self.max_megapixels}."
            )


class Yunet:
    """The detector.

    engine: takes one picture, float32 (1, 3, H, W), BGR from 0 to 255, and gives 12 outputs.
    threads: pictures that are looked at side by side. beside: gives the engine for these, the same
    network with a stream for every thread; called when several pictures first come together.
    Raises ModelFileError when it takes something else.
    """

    def __init__(
        self,
        engine: Engine,
        settings: YunetSettings | None = None,
        *,
        beside: Callable[[], Engine] | None = None,
        threads: int = 1,
    ) -> None:
        self.settings = settings or YunetSettings()
        self._beside = beside or (lambda: engine)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._engine = engine
        self._input, self._fixed = picture_input(engine, "YuNet's kind")
        self._canvas = Canvas()

    def detect(self, images: Sequence[ImageArray]) -> list[Faces]:
        """Faces of pictures of any sizes: uint8 (H, W, 3) RGB -> `Faces`, the largest first.

        Several are looked at side by side where there are `threads`. Boxes and landmarks may
        reach beyond the borders of the picture. Raises ModelFileError when the outputs are none of
        YuNet, EngineError when they are not finite.
        """
        if len(images) < 2 or self._pool is None:
            return [self._detect(image, self._engine) for image in images]
        engine = self._several
        return list(self._pool.map(lambda image: self._detect(image, engine), images))

    @cached_property
    def _several(self) -> Engine:
        return self._beside()

    def _detect(self, image: ImageArray, engine: Engine) -> Faces:
        settings, (height, width) = self.settings, image.shape[:2]
        found = joined(list(self._looks(image, engine)))
        best = np.argsort(-found.scores, kind="stable")[:CANDIDATES]
        found = found.take(best)
        found = found.take(
            non_maximum_suppression(found.boxes, found.scores, settings.nms_threshold)
        )
        inside = np.all(found.boxes[:, 2:] > 0, axis=1)
        inside &= np.all(found.boxes[:, :2] < np.array([width, height], np.float32), axis=1)
        inside &= found.sides() >= settings.min_face_size
        return found.take(np.flatnonzero(inside)).faces(settings.max_faces)

    def _looks(self, image: ImageArray, engine: Engine) -> Iterator[Found]:
        """The faces of a picture at one size after the other, in the pixels of the picture."""
        seen, least = resized(image, self._scale(image)), 0.0
        while True:
            last = min(seen.shape[:2]) <= FILLS
            found = self._look(seen, engine)
            sides = found.sides()
            fits = (sides >= least) & (sides <= (inf if last else LARGEST))
            factors = (seen.shape[1] / image.shape[1], seen.shape[0] / image.shape[0])
            yield found.take(np.flatnonzero(fits)).scaled_back(factors)
            if last:
                return
            seen, least = resized(seen, 1 / STEP), SHARED * LARGEST / STEP

    def _scale(self, image: ImageArray) -> float:
        """By how much a picture is scaled before the first look."""
        (height, width), most = image.shape[:2], self.settings.max_megapixels * 1e6
        fixed_width, fixed_height = self._fixed or (inf, inf)
        scale = min(
            LEAST / self.settings.min_face_size,
            sqrt(most / (height * width)),
            most / STRIDES[-1] / max(height, width),  # a line becomes a band of so many rows
            fixed_width / width,
            fixed_height / height,
        )
        return float(scale)

    def _look(self, seen: ImageArray, engine: Engine) -> Found:
        """The faces of a picture that has the size the network sees it at."""
        height, width = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in seen.shape[:2])
        width, height = self._fixed or (width, height)
        if isinstance(engine, Seeing):
            with self._canvas.copied(seen, width, height) as picture:
                outputs = engine.see(picture)
        else:
            with self._canvas.drawn(seen, width, height, color="bgr") as blob:
                outputs = engine.run({self._input: blob})
        return decoded(outputs.values(), (width, height), self.settings.score_threshold)


def resized(image: ImageArray, scale: float) -> ImageArray:
    """A picture at another size, no side below a pixel: uint8 (H, W, 3) -> uint8 (h, w, 3).

    It is halved as often as that goes, so that all pixels count, and then interpolated.
    """
    import cv2

    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = tuple(-(-side // 2) for side in image.shape[1::-1])
        image = np.asarray(cv2.resize(image, half), np.uint8)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height)), np.uint8)


def decoded(
    outputs: Iterable[NDArray[np.float32]], size: tuple[int, int], threshold: float
) -> Found:
    """The candidates that reach the threshold, in pixels of the picture the network saw.

    outputs: for each stride two scores (1, cells, 1), boxes (1, cells, 4) and landmarks
    (1, cells, 10), told apart by their shapes. size: width and height of the picture. Raises
    ModelFileError for other outputs, EngineError when they are not finite.
    """
    tables: dict[tuple[int, ...], list[FloatArray]] = {}
    for values in {id(values): values for values in outputs}.values():  # one may have many names
        if values.ndim == 2 or (values.ndim == 3 and len(values) == 1):
            tables.setdefault(values.shape[-2:], []).append(values.reshape(values.shape[-2:]))
    if any(side % STRIDES[-1] for side in size):
        raise _unreadable(tables, size)
    return joined([_level(tables, size, stride, threshold) for stride in STRIDES])


def _level(
    tables: dict[tuple[int, ...], list[FloatArray]],
    size: tuple[int, int],
    stride: int,
    threshold: float,
) -> Found:
    """What one stride gives."""
    columns, rows = size[0] // stride, size[1] // stride
    try:
        (one, other), (edges,), (points,) = (tables[columns * rows, k] for k in (1, 4, 10))
    except (KeyError, ValueError):
        raise _unreadable(tables, size) from None
    scores = np.sqrt(np.clip(one[:, 0], 0, 1) * np.clip(other[:, 0], 0, 1))
    cells = np.flatnonzero(~(scores < threshold))  # what is no number is told below
    corners = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32)
    edges, far = edges[cells], np.float32(stride)
    centers = (corners + edges[:, :2]) * far
    with np.errstate(over="ignore"):
        half = np.exp(edges[:, 2:]) * (far / 2)
    marks = (corners[:, None] + points[cells].reshape(-1, 5, 2)) * far
    boxes = np.concatenate([centers - half, centers + half], axis=1)
    return checked(Found(boxes, scores[cells], marks))


def _unreadable(tables: Iterable[tuple[int, ...]], size: tuple[int, int]) -> ModelFileError:
    came = ", ".join(" x ".join(map(str, shape)) for shape in tables)
    return ModelFileError(
        "YuNet should give for each of three strides two scores, boxes and landmarks of "
        f"{size[0]}x{size[1]} pixels; this graph gives tables of {came[:200] or 'nothing'}. "
        "Choose another file."
    )
