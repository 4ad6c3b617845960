"""MTCNN: the three-network cascade, as users of facenet and facenet-pytorch know it.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks" (2016). Two exactness modes reproduce davidsandberg/facenet (2018) and facenet-pytorch
2.6 to the pixel conventions in which they differ; see docs/detection.md. The faces of a picture
do not depend on the pictures it is detected with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import NDArray

from facenet.errors import SettingsError
from facenet.faces.beside import Beside
from facenet.faces.boxes import Indices, RealArray, regressed, squared, suppression_by_group
from facenet.faces.detect import largest_first
from facenet.faces.exactness import EXACTNESS
from facenet.faces.glance import Glances
from facenet.faces.networks import CELL, STRIDE, Asked, Networks, chunks
from facenet.faces.resample import Sampler
from facenet.models.engine import Engine
from facenet.types import Faces, FloatArray, ImageArray, IntArray

Mask = NDArray[np.bool_]

SIDES = {"rnet": 24, "onet": 48}
"""Side of the crops that a net judges, in pixels."""
PIXELS = 1 << 23
"""Pixels of pictures worked on together (one picture may have more): bounds memory."""
LEVELS = 1 << 18
"""Pixels of levels that go through P-net together (one level may have more)."""


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
        if not 1 <= self.min_face_size < inf:
            raise SettingsError(
                f"min_face_size should be a number of pixels, 1 or more; got {self.min_face_size}."
            )
        thresholds = np.asarray(self.thresholds, np.float64)
        if thresholds.shape != (3,) or not np.all((thresholds >= 0) & (thresholds < 1)):
            raise SettingsError(
                f"thresholds should be three numbers from 0 to below 1; got {self.thresholds}."
            )
        object.__setattr__(self, "thresholds", tuple(thresholds.tolist()))
        if not 0 < self.factor < 1:
            raise SettingsError(f"factor should be between 0 and 1; got {self.factor}.")
        if self.exactness not in EXACTNESS:
            raise SettingsError(
                f"exactness should be one of {', '.join(EXACTNESS)}; got {self.exactness!r}."
            )


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Boxes (n, 4) and scores float32 (n,) on their way through the cascade, with the number of
    the picture each belongs to, int64 (n,), and landmarks (n, 5, 2) at the end."""

    boxes: RealArray
    scores: FloatArray
    image: IntArray
    landmarks: RealArray | None = None

    def take(self, rows: Indices | Mask) -> _Candidates:
        points = None if self.landmarks is None else self.landmarks[rows]
        return _Candidates(self.boxes[rows], self.scores[rows], self.image[rows], points)


@dataclass(frozen=True, slots=True)
class _Work:
    """Pictures that are worked on together: their samplers and sizes (height, width)."""

    samplers: list[Sampler]
    sizes: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Level:
    """A level of some pictures of one size: their numbers, its scale, its height and width."""

    images: tuple[int, ...]
    scale: float
    size: tuple[int, int]


class Mtcnn:
    """The detector.

    engines: "pnet", "rnet", "onet" as in the card `mtcnn`. quick, glances: give the same networks
    in quicker arithmetic (see `Networks`). threads: that are kept busy; the engines should take as
    many runs at once.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        settings: MtcnnSettings | None = None,
        *,
        quick: Callable[[], Mapping[str, Engine]] = dict,
        glances: Callable[[], Glances] = Glances,
        threads: int = 1,
    ) -> None:
        self.settings = settings or MtcnnSettings()
        self._rules = EXACTNESS[self.settings.exactness]
        self._networks = Networks(engines, quick, glances=glances)
        self._beside, self._threads = Beside(threads), threads

    def detect(self, images: Sequence[ImageArray]) -> list[Faces]:
        """Faces of pictures of any sizes: uint8 (H, W, 3) RGB -> `Faces`, the largest first.

        A picture smaller than `min_face_size` has no faces. The levels of several pictures, up to
        `PIXELS` of pictures, are worked on side by side, and their crops together.
        """
        return [faces for group in _groups(images) for faces in self._together(group)]

    def _together(self, images: Sequence[ImageArray]) -> list[Faces]:
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        work = _Work([self._rules.sampler(image) for image in images], sizes)
        candidates = self._propose(work)
        candidates = self._refine(candidates, work)
        candidates = self._output(candidates, work)
        return [_faces(candidates, number) for number in range(len(images))]

    def _propose(self, work: _Work) -> _Candidates:
        """P-net over the pyramids of all pictures, the largest levels first; those of equal sizes
        go through it together."""
        threshold, by_column = self.settings.thresholds[0], self._rules.by_column

        def survey(job: _Level) -> Asked:
            return self._networks.survey(_made(work, job), threshold, by_column=by_column)

        jobs = list(self._levels(work.sizes))
        asked = self._beside.each(survey, jobs)
        answers = self._networks.look(asked, self._beside.each)
        if self._rules.mirror_single:
            for found in zip(jobs, asked, answers, strict=True):
                self._mirror(work, *found)
        return self._proposed(*self._cells(jobs, asked, answers))

    def _proposed(self, cells: RealArray, image: IntArray) -> _Candidates:
        """What is left of the cells (n, 9) of pictures (n,), of each by falling scale."""
        order = np.argsort(image, kind="stable")
        cells, image = cells[order], image[order]
        scores = cells[:, 8].astype(np.float32)
        keep = self._suppress(cells[:, :4], scores, image, 0.7)
        boxes = squared(regressed(cells[keep, :4], cells[keep, 4:8], pixel=0.0))
        return _Candidates(boxes, scores[keep], image[keep])

    def _levels(self, sizes: Sequence[tuple[int, int]]) -> Iterator[_Level]:
        """The levels of pictures of these sizes, of each picture by falling scale."""
        alike: dict[tuple[int, int], list[int]] = {}
        for number, size in enumerate(sizes):
            alike.setdefault(size, []).append(number)
        for size, images in alike.items():
            for scale in self._scales(size):
                height, width = (self._rules.level_size(side * scale) for side in size)
                most = max(1, LEVELS // (height * width))
                for start, end in _even(len(images), -(-len(images) // most)):
                    yield _Level(tuple(images[start:end]), scale, (height, width))

    def _scales(self, size: tuple[int, int]) -> list[float]:
        """Scales of the pyramid, the largest first; a level has at least one cell."""
        factor, first = self.settings.factor, CELL / self.settings.min_face_size
        scales, scale = [], first
        side = min(size) * first
        while side >= CELL:
            scales.append(scale)
            scale = first * factor ** len(scales) if self._rules.powers else scale * factor
            side *= factor
        return scales

    def _mirror(
        self, work: _Work, job: _Level, asked: Asked, answer: tuple[FloatArray, FloatArray]
    ) -> None:
        """Give a cell that is alone in its level the offsets of the mirrored column."""
        reached = np.flatnonzero(answer[0] >= self.settings.thresholds[0])
        numbers = asked.levels[reached]
        alone = reached[np.bincount(numbers)[numbers] == 1]
        if len(alone):
            columns = asked.width - 1 - asked.columns[alone]
            cells = asked.levels[alone], asked.rows[alone], columns
            mirrored = self._networks.cut(_made(work, job), cells)
            answer[1][alone] = self._networks.look([mirrored])[0][1]

    def _cells(
        self,
        jobs: Sequence[_Level],
        asked: Sequence[Asked],
        answers: Sequence[tuple[FloatArray, FloatArray]],
    ) -> tuple[RealArray, IntArray]:
        """Cells of levels that reach the threshold: (n, 9), box + offsets + score; and the number
        of the picture of each, (n,)."""
        real, counts = self._rules.real, [len(each.rows) for each in asked]
        if not counts:
            return np.zeros((0, 9), real), np.zeros(0, np.int64)
        scores, offsets = (np.concatenate(values) for values in zip(*answers, strict=True))
        reached = scores >= self.settings.thresholds[0]
        before = np.cumsum([0, *(len(job.images) for job in jobs[:-1])])
        levels = np.concatenate([each.levels for each in asked]) + np.repeat(before, counts)
        columns = np.concatenate([each.columns for each in asked])
        rows = np.concatenate([each.rows for each in asked])
        scale = np.repeat(np.array([job.scale for job in jobs], real), counts)[reached, None]
        first = STRIDE * np.stack([columns, rows], axis=1)[reached].astype(real)
        corners = [np.floor((first + edge) / scale) for edge in (1, CELL)]
        levels, scores = levels[reached], scores[reached]
        found = np.concatenate([*corners, offsets[reached], scores[:, None]], axis=1).astype(real)
        keep = self._suppress(found[:, :4], scores, levels, 0.5)
        images = np.concatenate([job.images for job in jobs])
        return found[keep], images[levels[keep]]

    def _refine(self, candidates: _Candidates, work: _Work) -> _Candidates:
        """R-net: throw out, move and square the proposals."""
        threshold = self.settings.thresholds[1]
        candidates, answer = self._judge("rnet", candidates, work, threshold)
        passed = answer["score"] > threshold
        candidates, offset = candidates.take(passed), answer["offset"][passed]
        keep = self._suppress(candidates.boxes, candidates.scores, candidates.image, 0.7)
        candidates, offset = candidates.take(keep), offset[keep]
        boxes = squared(regressed(candidates.boxes, offset, pixel=1.0))
        return _Candidates(boxes, candidates.scores, candidates.image)

    def _output(self, candidates: _Candidates, work: _Work) -> _Candidates:
        """O-net: the last judgement, with landmarks placed in the box before it is moved."""
        threshold = self.settings.thresholds[2]
        candidates, answer = self._judge("onet", candidates, work, threshold)
        passed = answer["score"] > threshold
        candidates = candidates.take(passed)
        corner = candidates.boxes[:, None, :2]
        extent = candidates.boxes[:, None, 2:] - corner + 1
        points = answer["landmark"][passed].reshape(-1, 2, 5).transpose(0, 2, 1)
        boxes = regressed(candidates.boxes, answer["offset"][passed], pixel=1.0)
        landmarks = extent * points + corner - 1
        final = _Candidates(boxes, candidates.scores, candidates.image, landmarks)
        final = final.take(_suppress_inner(final))
        first_pixel = final.boxes + np.array([1, 1, 0, 0], self._rules.real)
        return final.take(_touches(first_pixel, np.array(work.sizes)[final.image]))

    def _judge(
        self, net: str, candidates: _Candidates, work: _Work, threshold: float
    ) -> tuple[_Candidates, dict[str, FloatArray]]:
        """Run R-net or O-net on the crops of the candidates, in bounded chunks; those that surely
        do not reach the threshold are gone already."""
        usable = _touches(candidates.boxes, np.array(work.sizes)[candidates.image])
        candidates = candidates.take(usable)
        boxes = np.trunc(candidates.boxes).astype(np.int64)
        networks = self._networks

        def crops(rows: Indices) -> FloatArray:
            return _crops(work.samplers, candidates.image[rows], boxes[rows], SIDES[net])

        rows = np.arange(len(boxes))
        if networks.looks_quickly(net, len(rows)):
            near = self._beside.ask(
                crops,
                lambda some: networks.near(net, some, threshold),
                chunks(rows, net, self._threads),
            )
            rows = rows[np.concatenate([np.zeros(0, bool), *(mask for _, _, mask in near)])]
        judged = self._beside.ask(
            crops, lambda some: networks.judge(net, some), chunks(rows, net, self._threads)
        )
        answer = _stacked([said for _, _, said in judged])
        candidates, whole = candidates.take(rows), boxes[rows].astype(self._rules.real)
        moved = whole if self._rules.whole_boxes else candidates.boxes
        return _Candidates(moved, answer["score"], candidates.image), answer

    def _suppress(
        self, boxes: RealArray, scores: FloatArray, groups: IntArray, threshold: float
    ) -> Indices:
        rules = self._rules
        return suppression_by_group(
            boxes, scores, groups, threshold, pixel=rules.pixel, ties_last=rules.ties_last
        )


def _suppress_inner(candidates: _Candidates) -> Indices:
    return suppression_by_group(
        candidates.boxes,
        candidates.scores,
        candidates.image,
        0.7,
        pixel=1.0,
        smaller=True,
        ties_last=True,
    )


def _made(work: _Work, job: _Level) -> FloatArray:
    """The pixels of a level: float32 (n, 3, h, w), standardised."""
    made = [work.samplers[number].level(*job.size) for number in job.images]
    return made[0][None] if len(made) == 1 else np.stack(made)


def _even(count: int, parts: int) -> Iterator[tuple[int, int]]:
    """Starts and ends of parts of so many things, as even as can be."""
    return pairwise(count * part // parts for part in range(parts + 1))


def _crops(samplers: list[Sampler], image: IntArray, boxes: IntArray, side: int) -> FloatArray:
    """Crops in the order of the boxes, each from its own picture: float32 (n, 3, side, side)."""
    numbers = np.unique(image)
    if len(numbers) == 1:
        return samplers[int(numbers[0])].crops(boxes, side)
    out = np.empty((len(boxes), 3, side, side), np.float32)
    for number in numbers:
        rows = image == number
        out[rows] = samplers[number].crops(boxes[rows], side)
    return out


def _touches(boxes: RealArray, sizes: IntArray) -> Mask:
    """Which boxes, truncated, hold a pixel of their picture (height, width); both ends count.

    As MTCNN cuts crops, the first pixel has the number 1.
    """
    whole = np.trunc(boxes)
    first = np.maximum(whole[:, :2], 1)
    last = np.minimum(whole[:, 2:], sizes[:, ::-1])
    return np.asarray(np.all(last >= first, axis=1))


def _groups(images: Sequence[ImageArray]) -> Iterator[list[ImageArray]]:
    """The pictures in order, cut where one more would make a group larger than `PIXELS`."""
    group: list[ImageArray] = []
    pixels = 0
    for image in images:
        size = image.shape[0] * image.shape[1]
        if group and pixels + size > PIXELS:
            yield group
            group, pixels = [], 0
        group.append(image)
        pixels += size
    if group:
        yield group


def _stacked(parts: list[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    empty = {"score": (0,), "offset": (0, 4), "landmark": (0, 10)}
    if not parts:
        return {name: np.zeros(shape, np.float32) for name, shape in empty.items()}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _faces(candidates: _Candidates, number: int) -> Faces:
    mine = candidates.take(candidates.image == number)
    points = np.zeros((0, 5, 2), np.float32) if mine.landmarks is None else mine.landmarks
    return largest_first(Faces(mine.boxes, points, np.clip(mine.scores, 0, 1)))
