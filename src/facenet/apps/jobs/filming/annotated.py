"""The film of `facenet video --draw OUT.mp4`: frames with boxes, names and hidden faces.

Faces are hidden first and boxes drawn over them, so that a label never hides a gap in the blur.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError, SettingsError
from facenet.faces.blur import STYLES, blur_faces
from facenet.faces.boxes import overlap
from facenet.faces.draw import draw_tracks
from facenet.images import Frame
from facenet.images.filming import Film, FilmSettings, film
from facenet.types import Faces, FloatArray, ImageArray

WHOM = ("all", "unknown")
SAME_PLACE = 0.3
"""Overlap (IoU) from which a face is there where one of no track was hidden a moment ago."""
TRAIL_POINTS = 500
"""The longest trail: older points are dropped, whatever their time."""


@dataclass(frozen=True, slots=True)
class FilmLook:
    """What is drawn on the frames of a film.

    draw: whether there are boxes and labels. trail_s: seconds of the way of each track that are
    drawn as a line; 0: none. how: how faces are hidden, see `blur_faces`. linger_s: seconds for
    which the last place of a hidden face stays hidden after its last box: a detector may lose a
    face that is still there.
    """

    draw: bool = True
    trail_s: float = 0.0
    how: str = "blur"
    linger_s: float = 0.5

    def __post_init__(self) -> None:
        if self.how not in STYLES:
            raise SettingsError(
                f"how should be one of {', '.join(STYLES)}; got {str(self.how)[:50]!r}."
            )
        for name in ("trail_s", "linger_s"):
            value = getattr(self, name)
            if not (isfinite(value) and 0 <= value <= 60):
                raise SettingsError(f"{name} should be seconds, 0 to 60; got {value}.")


class AnnotatedFilm:
    """Writes frames with what was found on them: see `annotated_film`.

    film: the `Film` under it, with its `size`, `frames`, `duration_s`, `notices` and `cut`.
    """

    def __init__(self, target: Film, look: FilmLook) -> None:
        self.film = target
        self._look = look
        self._size = (0, 0)  # width and height of the last frame
        self._trails: dict[int, deque[tuple[float, float, float]]] = {}
        self._hidden: dict[int, tuple[float, FloatArray]] = {}  # of a track: when, and its box
        self._loose: list[tuple[float, FloatArray]] = []  # the same of faces of no track

    def add(
        self,
        frame: Frame,
        faces: Faces,
        labels: Mapping[int, str | None],
        hide: NDArray[np.bool_] | None = None,
    ) -> None:
        """Write a frame.

        faces: with track_id, or without where there are no tracks. labels: names per track id,
        None for somebody nobody knows. hide: bool (n,), which faces are made unrecognisable; see
        `to_hide`. Raises as `Film.add` does, InputError for a mask of another length.
        """
        covered = np.zeros(len(faces), bool) if hide is None else np.asarray(hide, bool)
        if covered.shape != (len(faces),):
            raise InputError(
                f"hide should be one value per face, ({len(faces)},); got {covered.shape}."
            )
        self._fit(frame.image)
        image = self._covered(frame, faces, covered)
        self.film.add(self._drawn(image, frame.time_s, faces, labels), frame.time_s)

    def _fit(self, image: ImageArray) -> None:
        """Take what is known of earlier frames to the size of this one."""
        before, self._size = self._size, (image.shape[1], image.shape[0])
        if before in ((0, 0), self._size):
            return
        x, y = self._size[0] / before[0], self._size[1] / before[1]
        scale = np.array([x, y, x, y], np.float32)
        self._hidden = {t: (time, box * scale) for t, (time, box) in self._hidden.items()}
        self._loose = [(time, box * scale) for time, box in self._loose]
        for points in self._trails.values():
            moved = [(time, x * across, y * down) for time, across, down in points]
            points.clear()
            points.extend(moved)

    def _covered(self, frame: Frame, faces: Faces, hide: NDArray[np.bool_]) -> ImageArray:
        """The frame without the faces to hide, now or a moment ago."""
        now, linger = frame.time_s, self._look.linger_s
        self._loose = [
            (time, box)
            for time, box in self._loose
            if now - time <= linger and not np.any(overlap(faces.boxes, box[None]) >= SAME_PLACE)
        ]
        for track, box, covered in zip(faces.tracks.tolist(), faces.boxes, hide, strict=True):
            self._hidden.pop(track, None)
            if covered and track:
                self._hidden[track] = (now, box)
            elif covered:
                self._loose.append((now, box))
        self._hidden = {t: one for t, one in self._hidden.items() if now - one[0] <= linger}
        before = [box for time, box in (*self._hidden.values(), *self._loose) if time < now]
        boxes = [*faces.boxes[hide], *before]
        if not boxes:
            return frame.image
        return blur_faces(frame.image, np.stack(boxes), how=self._look.how)

    def _drawn(
        self, image: ImageArray, now: float, faces: Faces, labels: Mapping[int, str | None]
    ) -> ImageArray:
        if not self._look.draw:
            return image
        self._follow(now, faces)
        trails = {
            track: [(x, y) for _, x, y in points]
            for track, points in self._trails.items()
            if self._look.trail_s
        }
        return draw_tracks(image, faces, labels, trails=trails)

    def _follow(self, now: float, faces: Faces) -> None:
        """Note where the tracks are, and forget what is too long ago."""
        for track, box in zip(faces.tracks.tolist(), faces.boxes, strict=True):
            if track:
                x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
                self._trails.setdefault(track, deque(maxlen=TRAIL_POINTS)).append((now, x, y))
        for track, points in list(self._trails.items()):
            while points and now - points[0][0] > self._look.trail_s:
                points.popleft()
            if not points:
                del self._trails[track]


@contextmanager
def annotated_film(
    path: str | os.PathLike[str],
    *,
    rate: float = 25.0,
    audio: str | os.PathLike[str] | None = None,
    stop: float | None = None,
    look: FilmLook | None = None,
    settings: FilmSettings | None = None,
) -> Iterator[AnnotatedFilm]:
    """A film of annotated frames; whole when the block ends, nothing after an error.

    look: what is drawn. The rest, and what is raised, as in `film`.
    """
    with film(path, rate=rate, audio=audio, stop=stop, settings=settings) as target:
        yield AnnotatedFilm(target, look or FilmLook())


def to_hide(faces: Faces, labels: Mapping[int, str | None], whom: str) -> NDArray[np.bool_]:
    """Which faces are hidden, bool (n,): "all", or the "unknown": everybody without a name,
    also a face that is of no track yet. Raises SettingsError for another word."""
    require_whom(whom)
    unnamed = [not track or labels.get(track) is None for track in faces.tracks.tolist()]
    return np.array([whom == "all" or value for value in unnamed], bool)


def require_whom(whom: str) -> None:
    """Raises SettingsError for a word that says not whose faces are hidden."""
    if whom not in WHOM:
        raise SettingsError(f"blur should be one of {', '.join(WHOM)}; got {str(whom)[:50]!r}.")
