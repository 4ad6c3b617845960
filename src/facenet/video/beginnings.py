"""Where a face that is numbered now was first seen, while it was of no track yet."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from facenet import vectors
from facenet.faces.boxes import overlap
from facenet.faces.strided import PAIRED
from facenet.images import Frame
from facenet.types import Faces, FloatArray
from facenet.video.between import spread
from facenet.video.presence import Sighting


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """Faces of no track in a frame: boxes (n, 4), vectors (n, d); free (n,): of nobody so far."""

    time_s: float
    number: int
    boxes: FloatArray
    looks: FloatArray | None
    free: FloatArray


class Beginnings:
    """The last frames with their faces of no track. frames: how many."""

    def __init__(self, frames: int) -> None:
        self._frames: deque[_Frame] = deque(maxlen=frames)

    def note(self, frame: Frame, faces: Faces) -> None:
        """Keep those of a frame whose `track_id` is 0."""
        rest = faces[faces.tracks <= 0]
        free = np.ones(len(rest), np.float32)
        self._frames.append(_Frame(frame.time_s, frame.number, rest.boxes, rest.embedding, free))

    def first(self, here: Sighting, vector: FloatArray | None) -> Sighting:
        """The first sighting of a face, with its vector (d,): frame by frame back to the most alike
        of those that are near by; each is the beginning of one track only."""
        for before in reversed(self._frames):
            near = overlap(spread(here[2][None]), spread(before.boxes))[0] * before.free
            if not near.size or near.max() < PAIRED:
                break
            if vector is not None and before.looks is not None:
                near = np.where(near < PAIRED, -2, vectors.similarity(before.looks, vector))
            row = int(np.argmax(near))
            before.free[row] = 0
            here = (before.time_s, before.number, before.boxes[row])
        return here
