"""One vector for a track: the mean of its faces, weighted by quality, without those of others.

Faces are pooled as templates are (Klare and others 2015: IJB-A); that each should weigh by how
sure its vector is, is shown by Shi and Jain 2019 (probabilistic face embeddings). Here the weight
is made of measures that need no network. The ramps rest on what was measured on LFW (see
`EnrolmentRules`): with faces of 32 pixels 7 % of pairs of one person are missed, of 20 pixels 26 %,
of 16 pixels 57 %; of the 1 % that are blurred most, below a sharpness of 23, 16 % instead of 4 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.types import FloatArray

SMALLEST, LARGE = 12.0, 32.0
"""Pixels of the shorter side from which a face is worth something, and worth all."""
BLURRED = 23.0
"""Sharpness at which a face is worth half."""
HALF = 0.5
"""Share of the face inside the picture from which it is worth something."""
FLOOR = 0.01
"""Least that any one measure leaves of the quality."""
KEPT = 24
"""Faces of a track that are kept, the best."""
SURE = 0.3
"""Quality from which a face that disagrees speaks for another person."""
DOUBTS = 3
"""Such faces in a row, which agree with one another, until it is one."""


def face_quality(measures: Mapping[str, float]) -> float:
    """How much a face is worth, 0 to 1: the product of its parts; what is not known is left out.

    measures: of `faces.looking.measure_faces`, and `inside`. size: (face_size - 12) / 20, 0 to 1.
    sharpness: s / (s + 23). pose: 1 less the larger of the yaw and pitch proxies. inside: twice the
    share of the box that is in the picture, less 1: what is cut off by an edge makes the vectors of
    different people alike. detection_score as it is. Every part is at least 0.01.
    """
    parts = []
    if "face_size" in measures:
        parts.append((measures["face_size"] - SMALLEST) / (LARGE - SMALLEST))
    if "sharpness" in measures:
        parts.append(measures["sharpness"] / (measures["sharpness"] + BLURRED))
    if "yaw" in measures:  # 1 where the points say nothing
        parts.append(1 - max(abs(measures["yaw"]), abs(measures.get("pitch", 0.0))))
    if "inside" in measures:
        parts.append((measures["inside"] - HALF) / (1 - HALF))
    parts.append(measures.get("detection_score", 1.0))
    return float(np.prod(np.clip(parts, FLOOR, 1.0)))


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A face of a track that counts: unit vector float32 (d,) and its quality, above 0."""

    vector: FloatArray
    quality: float


class Template:
    """The pooled vector of a track, in bounded memory.

    agree: similarity below which two faces are not of one person. The best `KEPT` faces are kept.
    The vector is of those that agree with the face that most others agree with (by the square roots
    of their qualities: neither one good face nor many poor ones decide), so that a few of somebody
    else change nothing.
    """

    def __init__(self, agree: float) -> None:
        self.agree, self.faces, self.liked = agree, 0, False
        self._kept: list[Look] = []
        self._doubts: list[Look] = []
        self._pooled: tuple[FloatArray, float, FloatArray] | None = None

    def add(self, look: Look, *, back: bool = False) -> list[Look] | None:
        """Count a face. Gives the last faces where they are plainly another person's: the tracker
        went over to somebody else, and they belong to a track of their own.

        back: of a track that was out of sight; no face counts before one is like the template.
        """
        self.liked = self._likes(look, back)
        if self.liked:
            self._doubts = []
        if self.liked or (look.quality < SURE and not back):
            self.keep([look])
        elif look.quality >= SURE:
            return self._doubted(look)
        return None

    def keep(self, looks: list[Look], faces: int | None = None) -> None:
        """Take faces in; faces: how many they stand for."""
        self.faces += len(looks) if faces is None else faces
        self._kept = sorted([*self._kept, *looks], key=lambda look: -look.quality)[:KEPT]
        self._pooled = None

    def absorb(self, other: Template) -> None:
        """Take in what another track has of the same person."""
        self.keep(other._kept, other.faces)

    @property
    def doubting(self) -> bool:
        """Whether the last face that counts was like none before it."""
        return bool(self._doubts)

    @property
    def fit(self) -> bool:
        """Whether there is a good face, or more than one that counts."""
        return self.faces > 1 or self.quality >= SURE

    @property
    def vector(self) -> FloatArray | None:
        """The pooled unit vector, float32 (d,), None before the first face."""
        return self._pool()[0] if self._kept else None

    @property
    def quality(self) -> float:
        """The best quality of the faces that agree, 0 before the first."""
        return self._pool()[1] if self._kept else 0.0

    def agrees(self, vector: FloatArray) -> bool:
        """Whether a unit vector (d,) may be of this person; yes before the first face."""
        mine = self.vector
        return mine is None or float(vectors.similarity(mine, vector)) >= self.agree

    def _likes(self, look: Look, back: bool) -> bool:
        """Whether a face is like the template, or in sight like one that is linked to it."""
        if len(self._kept) < DOUBTS and not (back and self._kept):
            return True
        vector, _, linked = self._pool()
        rows = vector[None] if back else linked
        return float(vectors.similarity(rows, look.vector).max()) >= self.agree

    def _doubted(self, look: Look) -> list[Look] | None:
        """Note a good face that is like none before; gives those faces when they are enough."""
        if self._doubts:
            before = np.stack([one.vector for one in self._doubts])
            if float(vectors.similarity(before, look.vector).min()) < self.agree:
                self._doubts = []
        self._doubts.append(look)
        if len(self._doubts) < DOUBTS:
            return None
        others, self._doubts = self._doubts, []
        return others

    def _pool(self) -> tuple[FloatArray, float, FloatArray]:
        """The template, its best quality, and the faces (n, d) that are linked to it by others."""
        if self._pooled is None:
            rows = np.stack([look.vector for look in self._kept])
            quality = np.array([look.quality for look in self._kept], np.float32)
            agree = vectors.similarity_matrix(rows, rows) >= self.agree
            np.fill_diagonal(agree, True)
            members = agree[int(np.argmax(agree @ np.sqrt(quality)))]
            pooled = vectors.template(rows[members], list(quality[members]))
            self._pooled = pooled, float(quality[members].max()), rows[_linked(agree, members)]
        return self._pooled


def _linked(agree: NDArray[np.bool_], members: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Members and those who agree with one of them, and so on: (n, n), (n,) -> (n,)."""
    while True:
        more = np.asarray(agree[members].any(axis=0), np.bool_)
        if (more == members).all():
            return members
        members = more
