"""MTCNN: the three-network cascade, as users of facenet and facenet-pytorch know it.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks" (2016). Two exactness modes reproduce davidsandberg/facenet (2018) and facenet-pytorch
2.6 to the pixel conventions in which they differ; see docs/detection.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from facenet.errors import SettingsError
from facenet.faces.boxes import non_maximum_suppression, regressed, squared
from facenet.faces.detect import largest_first
from facenet.faces.resample import AreaSampler, OpenCvSampler, Sampler
from facenet.models.engine import Engine
from facenet.types import Faces, FloatArray, ImageArray, IntArray

CELL, STRIDE = 12, 2
"""Field of view of P-net and the step between its cells, in pixels of a level."""
CHUNK = 512
"""Crops that go through R-net or O-net at once: bounds memory (facenet-pytorch#105)."""


@dataclass(frozen=True, slots=True)
class Exactness:
    """Where the two systems differ.

    sampler: resampling and padding. level_size: side of a level from picture side and scale.
    real: arithmetic in which cell corners are divided by the scale and cut to whole pixels.
    pixel: the +1 of areas in suppression. ties_last: order among equal scores.
    whole_boxes: R-net and O-net move the box truncated to whole pixels, not the box itself.
    mirror_single: facenet reads the box offsets of a level with a single candidate from the
    mirrored column, a slip of its Matlab port that moves a box now and then.
    """

    sampler: Callable[[ImageArray], Sampler]
    level_size: Callable[[float], int]
    real: type[np.floating]
    pixel: float
    ties_last: bool
    whole_boxes: bool
    mirror_single: bool


EXACTNESS = {
    "facenet-pytorch": Exactness(
        sampler=AreaSampler,
        level_size=lambda side: int(side + 1),
        real=np.float32,
        pixel=0.0,
        ties_last=False,
        whole_boxes=False,
        mirror_single=False,
    ),
    "facenet": Exactness(
        sampler=OpenCvSampler,
        level_size=lambda side: ceil(side),
        real=np.float64,
        pixel=1.0,
        ties_last=True,
        whole_boxes=True,
        mirror_single=True,
    ),
}
"""Names of the two ways; the first is the default."""


@dataclass(frozen=True, slots=True)
class MtcnnSettings:
    """Options of MTCNN, with the defaults of facenet and facenet-pytorch.

    min_face_size: smallest face looked for, in pixels. thresholds: scores that a face must reach
    in P-, R- and O-net, 0 to 1. factor: ratio of one pyramid level to the one before.
    exactness: a key of `EXACTNESS`.
    """

    min_face_size: int = 20
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    factor: float = 0.709
    exactness: str = "facenet-pytorch"

    def __post_init__(self) -> None:
        if self.min_face_size < 1:
            raise SettingsError(f"min_face_size should be 1 or more; got {self.min_face_size}.")
        if len(self.thresholds) != 3 or not all(0 <= t < 1 for t in self.thresholds):
            raise SettingsError(
                f"thresholds should be three numbers from 0 to below 1; got {self.thresholds}."
            )
        if not 0 < self.factor < 1:
            raise SettingsError(f"factor should be between 0 and 1; got {self.factor}.")
        if self.exactness not in EXACTNESS:
            raise SettingsError(
                f"exactness should be one of {', '.join(EXACTNESS)}; got {self.exactness!r}."
            )


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Boxes float32 (n, 4) and scores (n,) on their way through the cascade, with the number of
    the picture each belongs to, int64 (n,), and landmarks float32 (n, 5, 2) at the end."""

    boxes: FloatArray
    scores: FloatArray
    image: IntArray
    landmarks: FloatArray | None = None

    def take(self, rows: object) -> _Candidates:
        points = None if self.landmarks is None else self.landmarks[rows]  # type: ignore[index]
        return _Candidates(self.boxes[rows], self.scores[rows], self.image[rows], points)  # type: ignore[index]


class Mtcnn:
    """The detector. engines: "pnet", "rnet", "onet" as in the card `mtcnn`."""

    def __init__(
        self, engines: Mapping[str, Engine], settings: MtcnnSettings | None = None
    ) -> None:
        self.settings = settings or MtcnnSettings()
        self._engines = engines
        self._rules = EXACTNESS[self.settings.exactness]

    def detect(self, images: Sequence[ImageArray]) -> list[Faces]:
        """Faces of pictures of any sizes: uint8 (H, W, 3) RGB -> `Faces`, the largest first.

        A picture smaller than `min_face_size` has no faces. P-net sees one picture at a time,
        R-net and O-net the crops of all of them.
        """
        samplers = [self._rules.sampler(image) for image in images]
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        found = [
            self._propose(sampler, size, number)
            for number, (sampler, size) in enumerate(zip(samplers, sizes, strict=True))
        ]
        if not found:
            return []
        candidates = _joined(found)
        candidates = self._refine(candidates, samplers, sizes)
        candidates = self._output(candidates, samplers, sizes)
        return [_faces(candidates, number) for number in range(len(images))]

    def _propose(self, sampler: Sampler, size: tuple[int, int], number: int) -> _Candidates:
        """P-net over the pyramid of one picture."""
        found = [self._level(sampler, size, scale) for scale in self._scales(size)]
        boxes = np.concatenate([np.zeros((0, 9), np.float32), *found])
        keep = self._suppress(boxes[:, :4], boxes[:, 8], 0.7)
        boxes = boxes[keep]
        moved = squared(regressed(boxes[:, :4], boxes[:, 4:8], pixel=0.0))
        return _Candidates(moved, boxes[:, 8], np.full(len(boxes), number, np.int64))

    def _scales(self, size: tuple[int, int]) -> list[float]:
        scales, scale = [], CELL / self.settings.min_face_size
        side = min(size) * scale
        while side >= CELL:
            scales.append(scale)
            scale *= self.settings.factor
            side *= self.settings.factor
        return scales

    def _level(self, sampler: Sampler, size: tuple[int, int], scale: float) -> FloatArray:
        """Cells of one level over the threshold: float32 (n, 9), box + offsets + score."""
        height, width = (self._rules.level_size(side * scale) for side in size)
        pixels = _standardised(sampler.level(height, width)[None])
        answer = self._engines["pnet"].run({"image": pixels})
        score, offset = answer["score"][0], answer["offset"][0]
        rows, columns = np.nonzero(score >= self.settings.thresholds[0])
        real = self._rules.real
        first = STRIDE * np.stack([columns, rows], axis=1).astype(real)
        corners = [np.floor((first + real(edge)) / real(scale)) for edge in (1, CELL)]
        scores = score[rows, columns]
        if self._rules.mirror_single and len(rows) == 1:
            offset = offset[:, :, ::-1]
        moves = offset[:, rows, columns].T
        cells = np.concatenate([*corners, moves, scores[:, None]], axis=1).astype(np.float32)
        return cells[self._suppress(cells[:, :4], scores, 0.5)]

    def _refine(
        self, candidates: _Candidates, samplers: list[Sampler], sizes: list[tuple[int, int]]
    ) -> _Candidates:
        """R-net: throw out, move and square the proposals."""
        candidates, answer = self._judge("rnet", candidates, samplers, sizes)
        passed = answer["score"] > self.settings.thresholds[1]
        candidates, offset = candidates.take(passed), answer["offset"][passed]
        keep = self._per_image(candidates, lambda c: self._suppress(c.boxes, c.scores, 0.7))
        candidates, offset = candidates.take(keep), offset[keep]
        boxes = squared(regressed(candidates.boxes, offset, pixel=1.0))
        return _Candidates(boxes, candidates.scores, candidates.image)

    def _output(
        self, candidates: _Candidates, samplers: list[Sampler], sizes: list[tuple[int, int]]
    ) -> _Candidates:
        """O-net: the last judgement, with landmarks placed in the box before it is moved."""
        candidates, answer = self._judge("onet", candidates, samplers, sizes)
        passed = answer["score"] > self.settings.thresholds[2]
        candidates = candidates.take(passed)
        corner = candidates.boxes[:, None, :2]
        extent = candidates.boxes[:, None, 2:] - corner + 1
        points = answer["landmark"][passed].reshape(-1, 2, 5).transpose(0, 2, 1)
        boxes = regressed(candidates.boxes, answer["offset"][passed], pixel=1.0)
        landmarks = (extent * points + corner - 1).astype(np.float32)
        final = _Candidates(boxes, candidates.scores, candidates.image, landmarks)
        return final.take(self._per_image(final, _suppress_inner))

    def _judge(
        self,
        net: str,
        candidates: _Candidates,
        samplers: list[Sampler],
        sizes: list[tuple[int, int]],
    ) -> tuple[_Candidates, dict[str, FloatArray]]:
        """Run R-net or O-net on the crops of the candidates, in bounded chunks."""
        engine = self._engines[net]
        side = int(engine.inputs["image"][-1] or 0)
        boxes = np.trunc(candidates.boxes).astype(np.int64)
        usable = _touches(boxes, np.array(sizes)[candidates.image])
        candidates, boxes = candidates.take(usable), boxes[usable]
        parts = []
        for start in range(0, max(len(boxes), 1), CHUNK):
            rows = slice(start, start + CHUNK)
            crops = _crops(samplers, candidates.image[rows], boxes[rows], side)
            parts.append(engine.run({"image": _standardised(crops)}) if len(crops) else None)
        answer = _stacked([part for part in parts if part])
        judged = boxes.astype(np.float32) if self._rules.whole_boxes else candidates.boxes
        return _Candidates(judged, answer["score"], candidates.image), answer

    def _suppress(self, boxes: FloatArray, scores: FloatArray, threshold: float) -> IntArray:
        rules = self._rules
        return non_maximum_suppression(
            boxes, scores, threshold, pixel=rules.pixel, ties_last=rules.ties_last
        )

    def _per_image(
        self, candidates: _Candidates, keep: Callable[[_Candidates], IntArray]
    ) -> IntArray:
        """Row numbers kept when `keep` looks at each picture by itself."""
        kept = [np.zeros(0, np.int64)]
        for number in np.unique(candidates.image):
            rows = np.flatnonzero(candidates.image == number)
            kept.append(rows[keep(candidates.take(rows))])
        return np.concatenate(kept)


def _suppress_inner(candidates: _Candidates) -> IntArray:
    return non_maximum_suppression(
        candidates.boxes, candidates.scores, 0.7, pixel=1.0, smaller=True, ties_last=True
    )


def _standardised(pixels: FloatArray) -> FloatArray:
    """(n, h, w, 3) values 0 to 255 -> contiguous (n, 3, h, w), (x - 127.5) / 128."""
    scaled = (pixels - np.float32(127.5)) * np.float32(0.0078125)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _crops(samplers: list[Sampler], image: IntArray, boxes: IntArray, side: int) -> FloatArray:
    """Crops in the order of the boxes, each from its own picture: float32 (n, side, side, 3)."""
    out = np.empty((len(boxes), side, side, 3), np.float32)
    for number in np.unique(image):
        rows = image == number
        out[rows] = samplers[number].crops(boxes[rows], side)
    return out


def _touches(boxes: IntArray, sizes: IntArray) -> object:
    """Which 1-based inclusive boxes hold a pixel of their picture (height, width)."""
    left, top = np.maximum(boxes[:, 0], 1), np.maximum(boxes[:, 1], 1)
    right, bottom = np.minimum(boxes[:, 2], sizes[:, 1]), np.minimum(boxes[:, 3], sizes[:, 0])
    return (right >= left) & (bottom >= top)


def _stacked(parts: list[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    empty = {"score": (0,), "offset": (0, 4), "landmark": (0, 10)}
    if not parts:
        return {name: np.zeros(shape, np.float32) for name, shape in empty.items()}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: list[_Candidates]) -> _Candidates:
    return _Candidates(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.image for part in parts]),
    )


def _faces(candidates: _Candidates, number: int) -> Faces:
    mine = candidates.take(candidates.image == number)
    points = np.zeros((0, 5, 2), np.float32) if mine.landmarks is None else mine.landmarks
    return largest_first(Faces(mine.boxes, points, np.clip(mine.scores, 0, 1)))
