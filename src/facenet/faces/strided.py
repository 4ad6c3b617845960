"""FastMTCNN: look for faces in every n-th frame of a video, and say where they are in the others.

The original (FastMTCNN, a notebook beside facenet-pytorch) detects in every `stride`-th frame,
shrunk by `resize`, and reuses the boxes in the frames up to the next one: between="reuse". Here
the frames between may also be interpolated: the faces of the two detected frames around them are
paired by overlap, and boxes, landmarks and scores go from one to the other at an even pace.
`recall_against` tells what that loses against detection in every frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from facenet.errors import InputError, SettingsError
from facenet.faces.boxes import Indices, overlap
from facenet.faces.detect import Detector, largest_first
from facenet.images import Frame
from facenet.types import Faces, FloatArray, ImageArray

BETWEEN = ("interpolate", "reuse")
"""What is said of frames without detection; the first is the default."""
SPREAD, PAIRED = 3, 0.2
"""Faces of two detected frames may be the same when their boxes, made so many times wider and
higher about their centres, overlap by so much (IoU): one that moves by up to twice its width
still is. Measured on a street and on faces that cross the picture, see docs/video.md."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Strided:
    """A detector that looks at every `stride`-th frame.

    detector: anything with `detect`. stride: 1 detects in every frame. between: "interpolate",
    or "reuse", the faces of the last detected frame. resize: frames are shrunk by this factor
    before they are looked at; boxes are still in pixels of the frame.

    The first frame, and one of another size than the frame before, are always looked at. A face
    that is in only one of two detected frames is kept where it was in the nearer half of the
    frames between. Frames after the last detected one reuse its faces.
    Raises SettingsError for options that do not exist.
    """

    detector: Detector
    stride: int = 4
    between: str = BETWEEN[0]
    resize: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.stride, int) and self.stride >= 1):
            raise SettingsError(
                f"stride should be a whole number of frames, 1 or more; got {self.stride}."
            )
        if self.between not in BETWEEN:
            raise SettingsError(
                f"between should be one of {', '.join(BETWEEN)}; got {self.between!r:.40}."
            )
        if not 0 < self.resize <= 1:
            raise SettingsError(f"resize should be above 0 and at most 1; got {self.resize}.")

    def frames(self, images: Iterable[ImageArray]) -> Iterator[Faces]:
        """One `Faces` per picture, uint8 (H, W, 3) RGB, in order; they are evenly spaced in time.

        When interpolating, at most `stride` pictures are read ahead, and none of them is kept.
        """
        steps = ((None, float(step), image) for step, image in enumerate(images))
        return (faces for _, faces in self._follow(steps))

    def watch(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Faces]]:
        """Each frame of a video with its faces, in order; their own times count.

        When interpolating, at most `stride` frames are read ahead and kept until they are given.
        """
        return self._follow((frame, frame.time_s, frame.image) for frame in frames)

    def _follow(
        self, steps: Iterable[tuple[Item, float, ImageArray]]
    ) -> Iterator[tuple[Item, Faces]]:
        """Give each item with its faces. steps: item, when it is, its picture."""
        last: tuple[float, Faces] | None = None
        size: tuple[int, ...] = ()
        since = 0
        held: list[tuple[Item, float]] = []
        try:
            for item, when, image in steps:
                if last is None or since == self.stride or image.shape != size:
                    found = self._detect(image)
                    coming = (when, found) if image.shape == size else None
                    yield from _between(last, held, coming)
                    yield item, found
                    last, size, since, held = (when, found), image.shape, 0, []
                elif self.between == "reuse":
                    yield item, last[1]
                else:
                    held.append((item, when))
                since += 1
        except InputError:  # a video cut short: the frames that there are come first
            yield from _between(last, held, None)
            raise
        yield from _between(last, held, None)

    def _detect(self, image: ImageArray) -> Faces:
        if self.resize == 1:
            return self.detector.detect([image])[0]
        import cv2

        height, width = image.shape[:2]
        size = (max(1, int(width * self.resize)), max(1, int(height * self.resize)))
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        return _scaled(self.detector.detect([small])[0], (width / size[0], height / size[1]))


def paired(a: FloatArray, b: FloatArray, least: float) -> tuple[Indices, Indices]:
    """Rows of two lists of boxes that belong together: (n, 4), (m, 4) -> (k,), (k,).

    The pair of the highest overlap (IoU) first, then the next among the boxes that are left,
    down to `least`, above 0; of equal overlaps the earlier rows. Each box is in one pair at most.
    """
    shared = overlap(a, b)
    rows, columns = np.nonzero(shared >= least)
    order = np.argsort(-shared[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    first, second = [], []
    while rows.size:
        first.append(rows[0])
        second.append(columns[0])
        left = (rows != rows[0]) & (columns != columns[0])
        rows, columns = rows[left], columns[left]
    return np.array(first, np.intp), np.array(second, np.intp)


@dataclass(frozen=True, slots=True)
class Recall:
    """What was found of the faces that were expected.

    share: of the expected faces, 0 to 1, that were found; 1 when none was expected. lost: how
    many were not. faces: how many were expected. extra: faces found where none was expected.
    """

    share: float
    lost: int
    faces: int
    extra: int


def recall_against(
    found: Sequence[Faces], expected: Sequence[Faces], *, overlap: float = 0.5
) -> Recall:
    """How much of what one detector finds another, or a faster way, finds too.

    found, expected: one `Faces` per frame. A face is found when a box of the same frame overlaps
    its own by at least `overlap` (IoU); each box counts once, the best pair first.
    Raises InputError for another number of frames, SettingsError for an overlap that is none.
    """
    if not 0 < overlap <= 1:
        raise SettingsError(f"overlap should be above 0 and at most 1; got {overlap}.")
    if len(found) != len(expected):
        raise InputError(
            "recall_against should get as many frames found as expected; got "
            f"{len(found)} and {len(expected)}."
        )
    pairs = sum(
        len(paired(ours.boxes, theirs.boxes, overlap)[0])
        for ours, theirs in zip(found, expected, strict=True)
    )
    faces, given = sum(map(len, expected)), sum(map(len, found))
    return Recall(pairs / faces if faces else 1.0, faces - pairs, faces, given - pairs)


def _between(
    last: tuple[float, Faces] | None,
    held: Sequence[tuple[Item, float]],
    coming: tuple[float, Faces] | None,
) -> Iterator[tuple[Item, Faces]]:
    """The items after a detected frame, up to the next one; None: there is none of this size."""
    if last is None or not held:
        return
    if coming is None:
        yield from ((item, last[1]) for item, _ in held)
        return
    (start, before), (end, after) = last, coming
    pairs = paired(_spread(before.boxes), _spread(after.boxes), PAIRED)
    for place, (item, when) in enumerate(held, 1):
        even = place / (len(held) + 1)
        share = (when - start) / (end - start) if start < end else even
        yield item, _mixed(before, after, pairs, min(1.0, max(0.0, share)))


def _spread(boxes: FloatArray) -> FloatArray:
    """Boxes (n, 4) as much larger as `SPREAD` says."""
    more = (boxes[:, 2:] - boxes[:, :2]) * np.float32((SPREAD - 1) / 2)
    return np.asarray(boxes + np.concatenate([-more, more], axis=1), np.float32)


def _mixed(before: Faces, after: Faces, pairs: tuple[Indices, Indices], share: float) -> Faces:
    """Faces at a share, 0 to 1, of the way from one detected frame to the next."""
    one, two = before[pairs[0]], after[pairs[1]]
    nearer, known = (before, pairs[0]) if share <= 0.5 else (after, pairs[1])
    alone = nearer[np.setdiff1d(np.arange(len(nearer)), known)]
    boxes = _column(one.boxes, two.boxes, alone.boxes, share)
    scores = _column(one.detection_score, two.detection_score, alone.detection_score, share)
    return largest_first(Faces(boxes, _points(one, two, alone, share), scores))


def _points(one: Faces, two: Faces, alone: Faces, share: float) -> FloatArray | None:
    """Landmarks, unless there is a face without."""
    if not len(one):
        return alone.landmarks
    if one.landmarks is None or two.landmarks is None or alone.landmarks is None:
        return None
    return _column(one.landmarks, two.landmarks, alone.landmarks, share)


def _column(one: FloatArray, two: FloatArray, alone: FloatArray, share: float) -> FloatArray:
    """(k, ...) values on their way from one to two, then the (m, ...) of faces without a pair."""
    moving = one * np.float32(1 - share) + two * np.float32(share)
    return np.concatenate([moving, alone])


def _scaled(faces: Faces, by: tuple[float, float]) -> Faces:
    """Faces of a shrunk frame in pixels of the frame; by: how much wider and higher that is."""
    across = np.array(by, np.float32)
    points = None if faces.landmarks is None else faces.landmarks * across
    return faces.with_(boxes=faces.boxes * np.tile(across, 2), landmarks=points)
