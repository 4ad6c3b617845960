"""Clips in which known faces move, made from pictures, with the truth about every frame.

Heads are cut out of pictures and move over a background as people do before a camera: they walk by,
cross, meet and turn back, stand behind others, leave and come back, come nearer. Where each face
is, whose it is and how much of it can be seen is known, so that tracking can be measured without
anybody's annotation. The same seed makes the same clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from facenet.data.cutouts import Head, Portrait, shown_share
from facenet.data.movingways import KINDS, ClipSettings, Way, plan
from facenet.errors import InputError, SettingsError
from facenet.types import FloatArray, ImageArray, IntArray

__all__ = ["KINDS", "ClipSettings", "MovingClip", "MovingFrame", "Portrait", "Visit", "moving_clip"]

MOST = 200
"""People in a clip at the most."""


@dataclass(frozen=True, slots=True, eq=False)
class MovingFrame:
    """A frame and the truth about it; people whose face is wholly outside are not in it.

    number: from 0. time_s: seconds. image: uint8 (H, W, 3) RGB. boxes: float32 (n, 4), x1 y1 x2
    y2, also beyond the edges. people: int64 (n,), numbers in `MovingClip.names`. shown: float32
    (n,), share of the face, 0 to 1, that is in the frame and not behind somebody.
    """

    number: int
    time_s: float
    image: ImageArray
    boxes: FloatArray
    people: IntArray
    shown: FloatArray


@dataclass(frozen=True, slots=True)
class Visit:
    """A person was in the picture, hidden or not: seconds of the first and the last frame."""

    person: int
    from_s: float
    to_s: float


@dataclass(frozen=True, eq=False)
class MovingClip:
    """A clip: iterate for its `len(clip)` frames, which are drawn anew each time.

    kind: of `KINDS`. names: of the people in it, by number. heads: what is drawn on each way.
    """

    kind: str
    names: tuple[str, ...]
    settings: ClipSettings
    seed: int
    background: ImageArray = field(repr=False)
    ways: tuple[Way, ...] = field(repr=False)
    heads: tuple[Head, ...] = field(repr=False)

    def __len__(self) -> int:
        return self.settings.frames

    def __iter__(self) -> Iterator[MovingFrame]:
        return (self._frame(number) for number in range(len(self)))

    @cached_property
    def visits(self) -> tuple[Visit, ...]:
        """When the middle of whose face was in the picture, by their beginnings."""
        open_: dict[int, tuple[int, int]] = {}
        visits = []
        for number in range(len(self)):
            for person in self._inside(number):
                first, last = open_.get(person, (number, number))
                if last < number - 1:
                    visits.append((first, last, person))
                    first = number
                open_[person] = (first, number)
        visits += [(first, last, person) for person, (first, last) in open_.items()]
        rate = self.settings.rate
        return tuple(
            Visit(person, first / rate, last / rate)
            for first, last, person in sorted(visits, key=lambda visit: (visit[0], visit[2]))
        )

    def _inside(self, number: int) -> list[int]:
        """People whose face's middle is in a frame."""
        time_s, inside = number / self.settings.rate, set()
        for way in self.ways:
            place = way.at(time_s)
            if place is not None and (
                0 <= place[0] < self.settings.width and 0 <= place[1] < self.settings.height
            ):
                inside.add(way.person)
        return sorted(inside)

    def _frame(self, number: int) -> MovingFrame:
        settings, time_s = self.settings, number / self.settings.rate
        canvas = self.background.astype(np.float32)
        owner = np.zeros(canvas.shape[:2], np.uint8)
        boxes, people = [], []
        for way, head in zip(self.ways, self.heads, strict=True):
            place = way.at(time_s)
            if place is not None:
                people.append(way.person)
                boxes.append(head.box(place))
                turn = way.turn(time_s)
                head.draw(canvas, owner, place, turn=turn, number=len(people))
        sides = np.array(boxes, np.float32).reshape(-1, 4)
        size = np.array([settings.width, settings.height], np.float32)
        kept = ((sides[:, 2:] > 0) & (sides[:, :2] < size)).all(axis=1)
        shown = [shown_share(owner, sides[i], i + 1) for i in np.flatnonzero(kept).tolist()]
        return MovingFrame(
            number,
            time_s,
            self._filmed(canvas, number),
            sides[kept],
            np.array(people, np.int64)[kept],
            np.array(shown, np.float32),
        )

    def _filmed(self, canvas: FloatArray, number: int) -> ImageArray:
        """What a camera makes of it: blur and noise."""
        if self.settings.blur:
            canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), self.settings.blur), np.float32)
        if self.settings.noise:
            random = np.random.default_rng((self.seed, number))
            canvas = canvas + random.normal(0, self.settings.noise, canvas.shape).astype(np.float32)
        return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def moving_clip(
    portraits: Sequence[Portrait],
    kind: str,
    *,
    settings: ClipSettings = ClipSettings(),  # noqa: B008
    seed: int = 0,
    background: ImageArray | None = None,
) -> MovingClip:
    """A clip of people drawn by lot from those of the portraits.

    kind: "walk", straight on; "cross", pairs that pass each other, one in front; "meet", pairs that
    meet and turn back; "stop", some stand while others walk by; "return", they leave and come back,
    within a second or after several; "nearer", their size changes threefold. Each visit takes
    another portrait of the person where there is one. background: uint8 (H, W, 3) RGB of any size;
    one of soft colours is drawn without. Raises SettingsError for a kind that does not exist or
    more than `MOST` people, InputError for fewer people than the clip needs.
    """
    if kind not in KINDS:
        raise SettingsError(f"kind should be one of {', '.join(KINDS)}; got {kind!r:.40}.")
    if settings.people > MOST:
        raise SettingsError(f"people should be {MOST} or fewer; got {settings.people}.")
    people: dict[str, list[Portrait]] = {}
    for portrait in portraits:
        people.setdefault(portrait.person, []).append(portrait)
    if len(people) < settings.people:
        raise InputError(
            f"A clip of {settings.people} people needs portraits of as many; got {len(people)}. "
            "Add people, or ask for fewer."
        )
    random = np.random.default_rng((seed, KINDS.index(kind)))
    names = tuple(random.permutation(sorted(people))[: settings.people].tolist())
    ways = tuple(plan(kind, settings, random))
    theirs = [people[names[way.person]] for way in ways]
    heads = tuple(
        Head(some[way.picture % len(some)]) for way, some in zip(ways, theirs, strict=True)
    )
    size = (settings.width, settings.height)
    scene = _scene(size, random) if background is None else _fitted(background, size)
    return MovingClip(kind, names, settings, seed, scene, ways, heads)


def _scene(size: tuple[int, int], random: np.random.Generator) -> ImageArray:
    """Soft spots of colour with a few rectangles on them: uint8 (H, W, 3)."""
    coarse = random.uniform(60, 190, (5, 8, 3)).astype(np.float32)
    scene = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.float32)
    for _ in range(12):
        x, y = random.uniform(0, 1, 2) * size
        wide, high = random.uniform(0.05, 0.3, 2) * size
        shade = random.normal(0, 25, 3).astype(np.float32)
        scene[int(y) : int(y + high), int(x) : int(x + wide)] += shade
    grain = random.normal(0, 4, scene.shape)
    return np.clip(np.rint(scene + grain), 0, 255).astype(np.uint8)


def _fitted(background: ImageArray, size: tuple[int, int]) -> ImageArray:
    """A background of the size of the frames."""
    if background.ndim != 3 or background.shape[2] != 3 or background.dtype != np.uint8:
        raise InputError(
            f"background should be uint8 (H, W, 3) RGB; got {background.dtype} {background.shape}."
        )
    return np.asarray(cv2.resize(background, size, interpolation=cv2.INTER_AREA), np.uint8)
