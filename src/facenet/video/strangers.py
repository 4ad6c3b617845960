"""Unknown people keep one number within a run, by the templates of their tracks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

import numpy as np

from facenet import vectors
from facenet.types import FloatArray

WEIGHT = 64
"""Faces of a stranger that count at most, when another visit's are added."""


class Strangers:
    """Numbers of unknown people, from 1.

    level: similarity from which two templates are of one person; None: nobody is known again.
    limit: strangers that are remembered; the one that was not seen for longest is forgotten, and
    gets another number when coming back.
    """

    def __init__(self, level: float | None, limit: int) -> None:
        self.level, self._limit, self._last = level, limit, 0
        self._known: OrderedDict[int, tuple[FloatArray, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def recognise(self, vector: FloatArray, present: Collection[int | None] = ()) -> int | None:
        """The number of the stranger who is most like a unit vector (d,); None: nobody is.

        present: numbers of others who are there at the same time.
        """
        rows = [number for number in self._known if number not in present]
        if self.level is None or not rows:
            return None
        table = np.stack([self._known[number][0] for number in rows])
        scores = vectors.similarity(table, vector)
        best = int(np.argmax(scores))
        return rows[best] if float(scores[best]) >= self.level else None

    def enter(self, vector: FloatArray, faces: int) -> int:
        """Give a new number to a unit vector (d,), of so many faces."""
        self._last += 1
        self._known[self._last] = (vector, min(faces, WEIGHT))
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        return self._last

    def remember(self, number: int, vector: FloatArray, faces: int) -> None:
        """Add what a visit showed of a stranger: unit vector (d,), of so many faces."""
        if number in self._known:
            before, weight = self._known[number]
            pooled = vectors.template(np.stack([before, vector]), [weight, max(faces, 1)])
            self._known[number] = (pooled, min(weight + faces, WEIGHT))
            self._known.move_to_end(number)
