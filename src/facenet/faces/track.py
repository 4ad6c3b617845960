"""Faces of frames become tracks: one number for a face as long as it is in sight.

ByteTrack (Zhang and others 2022): faces that the detector is sure of are matched first, those it is
less sure of continue tracks that would be lost otherwise. Where a face may be is told by a Kalman
filter in real seconds (`motion`), and embeddings, where there are some, tell who is who when faces
cross. Both speak in logarithms of odds, and the pairs that are most likely together are taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.assignment import best_pairs
from facenet.errors import ContractError, InputError, SettingsError
from facenet.faces.motion import FARTHEST, Motion
from facenet.types import Faces, FloatArray, IntArray
from facenet.vectors import similarity_matrix, unit

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

ELSEWHERE = -11.0
"""Logarithm of the density of faces that belong to no track: a pair must fit better."""
UNRELATED = 0.3
"""Similarity that speaks neither for nor against one person."""
MEMORY = 0.8
"""Share of its looks that a track keeps when a new face is added; at first it is their mean."""
DOUBTFUL_S = 0.5
"""Seconds that a track that is not confirmed may go without a detection."""


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """How faces are followed.

    high: detection scores from which faces are matched first. low: those below are not looked at.
    new: detection scores from which a face begins a track. confirm: detections until a track
    counts. lost_s: seconds without a detection until a track ends, a day at most. appearance: how
    much a difference of 1 in similarity counts, as a logarithm of odds; 0: embeddings are not used.
    Raises SettingsError.
    """

    high: float = 0.6
    low: float = 0.1
    new: float = 0.7
    confirm: int = 2
    lost_s: float = 2.0
    appearance: float = 20.0

    def __post_init__(self) -> None:
        most = {"high": 1.0, "low": self.high, "new": 1.0, "lost_s": 86400.0, "appearance": 1e4}
        for name, limit in most.items():
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value <= limit):
                raise SettingsError(
                    f"{name} should be a number from 0 to {limit:g}; got {str(value)[:40]}."
                )
        if not (isinstance(self.confirm, int) and self.confirm >= 1):
            raise SettingsError(
                "confirm should be a whole number of detections, 1 or more; got "
                f"{str(self.confirm)[:40]}."
            )


DEFAULTS = TrackSettings()


@dataclass(frozen=True, slots=True, eq=False)
class _Tracks:
    """n tracks.

    number: int64, 0 before it is confirmed. detections: how many. seen: seconds, of the last.
    score: of that. points: landmarks in sides of the box. looks: unit length, or zero.
    """

    number: IntArray
    detections: IntArray
    seen: Floats
    score: FloatArray
    points: FloatArray
    looks: FloatArray
    motion: Motion

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, rows: NDArray[Any]) -> _Tracks:
        return _Tracks(*(getattr(self, field.name)[rows] for field in fields(self)))

    def joined(self, more: _Tracks) -> _Tracks:
        """These tracks, then some more."""
        columns: dict[str, Any] = {"motion": self.motion.joined(more.motion)}
        for field in fields(self)[:-1]:
            both = [getattr(part, field.name) for part in (self, more)]
            columns[field.name] = np.concatenate(both)
        return _Tracks(**columns)


class Tracker:
    """Gives the faces of one frame after the other the number of their track.

    A face that fits no track begins one. With its `confirm`-th detection a track gets the next
    number, from 1; before, its faces have 0. It ends when nothing was seen of it for `lost_s`
    seconds. Frames may be of different sizes: a track goes on where its pixels were, so begin a
    new Tracker where pixels mean something else. The same faces give the same tracks.

    confirmed_now: numbers of the tracks that were confirmed by the last update.
    """

    def __init__(self, settings: TrackSettings = DEFAULTS) -> None:
        self.settings = settings
        self.confirmed_now: list[int] = []
        self._time: float | None = None
        self._tracks = _begun(Faces.empty(), np.zeros((0, 0), np.float32), 0.0)
        self._numbered = 0
        self._contract: str | None = None
        self._ended: list[int] = []
        self._pointed = True

    @property
    def active(self) -> list[int]:
        """Numbers of the confirmed tracks that have not ended, rising."""
        return sorted(self._tracks.number[self._tracks.number > 0].tolist())

    def ended(self) -> list[int]:
        """Numbers of the tracks that ended since the last call, rising."""
        over, self._ended = sorted(self._ended), []
        return over

    def update(self, faces: Faces, time_s: float) -> Faces:
        """The faces of a detected frame, in their order, with `track_id`; 0: no confirmed track.

        time_s: when the frame is, in seconds, later than the one before; any step will do. Faces
        whose box has no area or is not finite get 0. Raises InputError for a time that is not
        later, ContractError for embeddings of another model; the tracks then stay as they were.
        """
        looks = self._looks(faces)
        self._step_to(time_s)
        self._widen(looks.shape[1])
        scores = np.where(_usable(faces), faces.detection_score, -1.0)
        owner = np.full(len(faces), -1, np.intp)
        sure = scores >= self.settings.high
        self._match(faces, looks, np.flatnonzero(sure), owner)
        self._match(faces, looks, np.flatnonzero(~sure & (scores >= self.settings.low)), owner)
        self._correct(faces, looks, owner)
        begin = np.flatnonzero((owner < 0) & (scores >= self.settings.new))
        owner[begin] = len(self._tracks) + np.arange(len(begin))
        self._tracks = self._tracks.joined(_begun(faces[begin], looks[begin], time_s))
        self._confirm()
        self._pointed = faces.landmarks is not None
        return faces.with_(track_id=np.append(self._tracks.number, 0)[owner])

    def predict(self, time_s: float) -> Faces:
        """Where the confirmed tracks of the last detected frame are at a time after it.

        Boxes and landmarks are moved along, detection scores are the last ones; in the order of
        `track_id`. Nothing changes by it. Raises InputError for a time before that frame.
        """
        if self._time is None:
            return Faces.empty().with_(track_id=np.zeros(0, np.int64))
        if not (math.isfinite(time_s) and time_s >= self._time):
            raise InputError(
                f"predict should get a time from {self._time:g} seconds on, that of the last "
                f"detected frame; got {time_s}."
            )
        shown = np.flatnonzero((self._tracks.number > 0) & (self._tracks.seen == self._time))
        tracks = self._tracks[shown[np.argsort(self._tracks.number[shown], kind="stable")]]
        boxes = tracks.motion.moved(time_s - self._time).boxes()
        sides = boxes[:, None, 2:] - boxes[:, None, :2]
        points = boxes[:, None, :2] + tracks.points * sides if self._pointed else None
        return Faces(boxes, points, tracks.score, track_id=tracks.number)

    def _looks(self, faces: Faces) -> FloatArray:
        """Embeddings (n, d), zero where there is none; remembers whose model they are of."""
        if faces.embedding is None or not len(faces) or not self.settings.appearance:
            return np.zeros((len(faces), self._tracks.looks.shape[1]), np.float32)
        if self._contract not in (None, faces.contract):
            raise ContractError(
                f"A tracker should get the embeddings of one model, {self._contract}; got those "
                f"of {faces.contract}. Begin a new Tracker."
            )
        self._contract = faces.contract
        good = np.isfinite(faces.embedding).all(axis=1, keepdims=True)
        return unit(np.where(good, faces.embedding, np.float32(0)))

    def _widen(self, width: int) -> None:
        """Make room for the first embeddings."""
        if self._tracks.looks.shape[1] != width:
            blank = np.zeros((len(self._tracks), width), np.float32)
            self._tracks = replace(self._tracks, looks=blank)

    def _step_to(self, time_s: float) -> None:
        """Move all tracks on; end those that are lost."""
        before = -math.inf if self._time is None else self._time
        if not (math.isfinite(time_s) and time_s > before):
            came = "the first one" if self._time is None else f"later than the last, at {before:g}"
            raise InputError(
                f"The time of a frame should be seconds, {came}; got {time_s}. Give each frame "
                "once and in order, or begin a new Tracker."
            )
        tracks = self._tracks
        patience = np.where(tracks.number > 0, self.settings.lost_s, DOUBTFUL_S)
        lost = time_s - tracks.seen > np.minimum(patience, self.settings.lost_s)
        self._ended += [number for number in tracks.number[lost].tolist() if number]
        tracks = tracks[~lost]
        step = time_s - before if len(tracks) else 0.0
        self._tracks, self._time = replace(tracks, motion=tracks.motion.moved(step)), time_s

    def _match(self, faces: Faces, looks: FloatArray, rows: Rows, owner: Rows) -> None:
        """Give some faces to the tracks that no face was given to before, in `owner`."""
        free = np.setdiff1d(np.arange(len(self._tracks)), owner)
        if not (rows.size and free.size):
            return
        tracks, seen = self._tracks[free], looks[rows]
        worth = tracks.motion.likelihood(faces.boxes[rows]) - ELSEWHERE
        if seen.any():
            known = np.outer(tracks.looks.any(axis=1), seen.any(axis=1))
            likeness = similarity_matrix(tracks.looks, seen) - UNRELATED
            worth += np.where(known, self.settings.appearance * likeness, 0.0)
        mine, theirs = best_pairs(worth)
        owner[rows[theirs]] = free[mine]

    def _correct(self, faces: Faces, looks: FloatArray, owner: Rows) -> None:
        """Tell the tracks what was seen of them."""
        rows = np.flatnonzero(owner >= 0)
        mine = owner[rows]
        old, seen = self._tracks[mine], _begun(faces[rows], looks[rows], self._time or 0.0)
        share = np.maximum(1 / (old.detections + 1), 1 - MEMORY).astype(np.float32)
        seen = replace(
            seen,
            number=old.number,
            detections=old.detections + 1,
            looks=unit(old.looks + share[:, None] * (seen.looks - old.looks)),
            motion=old.motion.corrected(faces.boxes[rows]),
        )
        places = np.arange(len(self._tracks))
        places[mine] = len(places) + np.arange(len(mine))
        self._tracks = self._tracks.joined(seen)[places]

    def _confirm(self) -> None:
        """Number the tracks that were seen often enough."""
        number = self._tracks.number.copy()
        now = np.flatnonzero((number == 0) & (self._tracks.detections >= self.settings.confirm))
        number[now] = self._numbered + 1 + np.arange(len(now))
        self._numbered += len(now)
        self.confirmed_now = number[now].tolist()
        self._tracks = replace(self._tracks, number=number)


def _usable(faces: Faces) -> NDArray[np.bool_]:
    """Which boxes (n,) have an area and are not at the end of the world."""
    boxes = np.nan_to_num(faces.boxes.astype(np.float64), nan=np.inf)
    near = (np.abs(boxes) < FARTHEST).all(axis=1)
    return np.asarray(near & (boxes[:, 2:] > boxes[:, :2]).all(axis=1), np.bool_)


def _begun(faces: Faces, looks: FloatArray, time_s: float) -> _Tracks:
    """Tracks of faces that are seen for the first time."""
    count = len(faces)
    points = np.full((count, 5, 2), 0.5, np.float32)
    if faces.landmarks is not None:
        corner, sides = (
            faces.boxes[:, None, :2],
            faces.boxes[:, None, 2:] - faces.boxes[:, None, :2],
        )
        points = np.nan_to_num((faces.landmarks - corner) / np.maximum(sides, 1e-3), nan=0.5)
    return _Tracks(
        number=np.zeros(count, np.int64),
        detections=np.ones(count, np.int64),
        seen=np.full(count, time_s),
        score=np.asarray(faces.detection_score),
        points=points,
        looks=looks,
        motion=Motion.begin(faces.boxes),
    )
