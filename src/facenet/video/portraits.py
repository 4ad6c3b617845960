"""The best pictures of a track: sharp, large and frontal, and not all of one second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facenet.errors import InputError
from facenet.faces.align import margin_box
from facenet.faces.looking import KEPT_MARGIN, KEPT_SIDE, kept_crops
from facenet.images import Frame
from facenet.types import Face, Faces, FloatArray
from facenet.video.events import Portrait
from facenet.video.template import Template

APART_S = 0.5
"""Seconds between two portraits."""
BETTER = 1.05
"""Times as good as another a picture must be to take its place."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    portrait: Portrait
    vector: FloatArray | None


class Portraits:
    """At most `limit` pictures of one track."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[_Kept] = []

    def offer(self, frame: Frame, faces: Faces, row: int, quality: float) -> None:
        """Keep a picture of a face of a frame if it is better than those there are."""
        near = [k for k in self._kept if abs(k.portrait.time_s - frame.time_s) < APART_S]
        full = self._kept if len(self._kept) >= self._limit else []
        beaten = min(near or full, key=lambda kept: kept.portrait.quality, default=None)
        if not self._limit or (beaten and quality < BETTER * beaten.portrait.quality):
            return
        portrait = _taken(frame, faces, row, quality)
        if portrait is not None:
            face = faces[row]
            self._kept = [kept for kept in self._kept if kept is not beaten]
            self._kept.append(_Kept(portrait, face.embedding))

    def absorb(self, other: Portraits) -> None:
        """Take in another track's pictures of the same person."""
        ranked = sorted([*self._kept, *other._kept], key=lambda kept: -kept.portrait.quality)
        self._kept = ranked[: self._limit]

    def of(self, template: Template) -> tuple[Portrait, ...]:
        """The pictures by falling quality, without those of somebody else than the template."""
        mine = [k for k in self._kept if k.vector is None or template.agrees(k.vector)]
        ranked = sorted(mine, key=lambda kept: -kept.portrait.quality)
        return tuple(kept.portrait for kept in ranked)


def _taken(frame: Frame, faces: Faces, row: int, quality: float) -> Portrait | None:
    face = faces[row]
    try:
        jpeg = kept_crops(frame.image, faces[[row]])[0]
    except InputError:  # the box is outside the frame
        return None
    return Portrait(frame.time_s, frame.number, jpeg, quality, face.box, _within(frame, face))


def _within(frame: Frame, face: Face) -> FloatArray:
    """Where the face is in its picture: float32 (4,)."""
    wide, tall = face.width * KEPT_MARGIN, face.height * KEPT_MARGIN
    widened = face.box + np.array([-wide, -tall, wide, tall], np.float32)
    height, width = frame.image.shape[:2]
    left, top, right, bottom = margin_box(widened, (width, height), margin=0)
    share = min(1.0, KEPT_SIDE / max(right - left, bottom - top))
    corner = np.array([left, top, left, top])
    return np.asarray((face.box - corner) * share, np.float32)
