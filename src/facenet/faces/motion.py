"""Where faces are going: a Kalman filter of constant velocity for many boxes at once.

A box is its centre and the logarithms of its width and height, each with a speed of its own in
real seconds (Kalman 1960; Bewley and others, SORT, 2016; Zhang and others, ByteTrack, 2022). All
noise is in sizes of the face, the root of width times height, so a near face and a far one are
followed alike. The four numbers do not depend on each other: a track needs no matrix but four
variances of the place, four of the speed and four of both together. Acceleration is white noise,
so two short steps are worth the same as a long one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.types import FloatArray

Floats = NDArray[np.float64]

PLACE, SIZE = 0.06, 0.06
"""Standard deviations of a detection: of its centre in face sizes, of the logarithm of its size."""
SPEED, GROWTH = 4.0, 0.7
"""What a new face may do: face sizes a second, and by what factor (logarithm) it grows in one."""
SWERVE, SWELL = 7.0, 0.2
"""How quickly that changes: standard deviation of the speed after a second."""
FARTHEST = 1e7
"""Pixels from the origin at the most, and the largest face: a track never leaves the numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What is known of n faces. All float64.

    mean: (n, 4), centre x y in pixels and logarithms of width and height. speed: (n, 4), of these,
    a second. place: (n, 4), variances of the mean. both: (n, 4), covariances of mean and speed.
    change: (n, 4), variances of the speed.
    """

    mean: Floats
    speed: Floats
    place: Floats
    both: Floats
    change: Floats

    @classmethod
    def begin(cls, boxes: FloatArray) -> Motion:
        """Faces seen for the first time, boxes (n, 4) x1 y1 x2 y2 of some area."""
        mean = _measured(boxes)
        size = _size(mean)
        still = np.zeros_like(mean)
        return cls(
            mean, still, _noise(size, PLACE, SIZE), still.copy(), _noise(size, SPEED, GROWTH)
        )

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: NDArray[Any]) -> Motion:
        return Motion(*(getattr(self, field.name)[rows] for field in fields(self)))

    def joined(self, more: Motion) -> Motion:
        """These faces, then some more."""
        return Motion(
            *(
                np.concatenate([getattr(part, f.name) for part in (self, more)])
                for f in fields(self)
            )
        )

    def moved(self, seconds: float) -> Motion:
        """The same faces so many seconds later, 0 or more."""
        shake = _noise(_size(self.mean), SWERVE, SWELL)
        limit = np.array([FARTHEST, FARTHEST, np.log(FARTHEST), np.log(FARTHEST)])
        return replace(
            self,
            mean=np.clip(self.mean + seconds * self.speed, [-FARTHEST, -FARTHEST, 0, 0], limit),
            place=self.place
            + 2 * seconds * self.both
            + seconds**2 * self.change
            + shake * seconds**3 / 3,
            both=self.both + seconds * self.change + shake * seconds**2 / 2,
            change=self.change + shake * seconds,
        )

    def corrected(self, boxes: FloatArray) -> Motion:
        """The same faces after each was seen in its box, (n, 4)."""
        spread = self.spread()
        off = _measured(boxes) - self.mean
        gain, push = self.place / spread, self.both / spread
        return Motion(
            self.mean + gain * off,
            self.speed + push * off,
            (1 - gain) * self.place,
            (1 - gain) * self.both,
            self.change - push * self.both,
        )

    def spread(self) -> Floats:
        """Variances, (n, 4), of where the next detection of each face may be."""
        return self.place + _noise(_size(self.mean), PLACE, SIZE)

    def boxes(self) -> FloatArray:
        """Where the faces are: float32 (n, 4), x1 y1 x2 y2."""
        half = np.exp(self.mean[:, 2:]) / 2
        middle = self.mean[:, :2]
        return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)

    def likelihood(self, boxes: FloatArray) -> Floats:
        """How well each box fits each face: (m, 4) -> (n, m).

        Natural logarithm of the density, the centre in face sizes.
        """
        seen, size = _measured(boxes), _size(self.mean)
        spread = self.spread()
        squared = np.zeros((len(self), len(seen)))
        for part in range(4):
            off = seen[None, :, part] - self.mean[:, part, None]
            squared += off * off / spread[:, part, None]
        volume = np.sum(np.log(2 * np.pi * spread), axis=1) - 4 * np.log(size)
        return np.asarray(-0.5 * (squared + volume[:, None]))


def _measured(boxes: FloatArray) -> Floats:
    """Boxes (n, 4) as centre and logarithms of width and height: float64 (n, 4)."""
    corners = np.asarray(boxes, np.float64)
    sides = np.maximum(corners[:, 2:] - corners[:, :2], 1e-3)
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, np.log(sides)], axis=1)


def _size(mean: Floats) -> Floats:
    """Sizes (n,) in pixels: the root of width times height."""
    return np.asarray(np.exp((mean[:, 2] + mean[:, 3]) / 2))


def _noise(size: Floats, place: float, growth: float) -> Floats:
    """Variances (n, 4) for faces of a size (n,)."""
    across = (place * size) ** 2
    other = np.full_like(size, growth**2)
    return np.stack([across, across, other, other], axis=1)
