"""Where people go in generated clips: places and sizes over time, drawn by lot.

Distances are in widths of the face, so that near and far people behave alike. See `movingfaces`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from facenet.errors import SettingsError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """What a clip looks like.

    width, height: of the frames, in pixels. rate: frames a second. seconds: its length. people:
    how many are in it, 2 or more. speed: the slowest and the fastest, in widths of the face a
    second. face: width of the smallest and the largest face in pixels. noise: standard deviation
    of the noise of each value, 0 to 255. blur: standard deviation of a Gaussian, in pixels.
    Raises SettingsError.
    """

    width: int = 640
    height: int = 360
    rate: float = 25.0
    seconds: float = 6.0
    people: int = 4
    speed: tuple[float, float] = (1.0, 5.0)
    face: tuple[float, float] = (40.0, 80.0)
    noise: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        low = {"width": 32, "height": 32, "rate": 0.1, "seconds": 0.1, "people": 2}
        for name, least in {**low, "noise": 0, "blur": 0}.items():
            value = getattr(self, name)
            if not least <= value < 1e5:
                raise SettingsError(f"{name} should be {least} or more; got {value}.")
        for name, least in (("speed", 0.05), ("face", 8)):
            slow, fast = getattr(self, name)
            if not least <= slow <= fast < 1e4:
                raise SettingsError(
                    f"{name} should be the least and the most, {least} or more; got "
                    f"{slow} and {fast}."
                )

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return max(1, round(self.seconds * self.rate))


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """Someone on their way: at `times` (k,) at `places` (k, 3), x, y and width, evenly between.

    person: number. picture: which of their portraits, to be taken modulo how many there are.
    sway: degrees, seconds and phase of the head's rocking. near: the larger the nearer.
    """

    person: int
    picture: int
    times: Floats
    places: Floats
    sway: tuple[float, float, float]
    near: float

    def at(self, time_s: float) -> Floats | None:
        """x, y and width: (3,), or None when not there."""
        if not self.times[0] <= time_s <= self.times[-1]:
            return None
        return np.array([np.interp(time_s, self.times, column) for column in self.places.T])

    def turn(self, time_s: float) -> float:
        """Degrees that the head is turned."""
        degrees, period, phase = self.sway
        return float(degrees * np.sin(2 * np.pi * (time_s / period + phase)))


@dataclass(frozen=True, slots=True)
class _Walk:
    """A straight way: where and when its middle is, face width, pixels a second and direction."""

    when: float
    x: float
    y: float
    wide: float
    speed: float
    side: int
    slope: float

    def keys(self, marks: list[tuple[float, float]]) -> tuple[Floats, Floats]:
        """Times and places of marks: seconds after the middle, pixels along the way from it."""
        along = np.array(marks, np.float64)
        x = self.x + self.side * along[:, 1]
        y = self.y + self.slope * along[:, 1]
        return self.when + along[:, 0], np.stack([x, y, np.full(len(x), self.wide)], axis=1)


Keys = tuple[Floats, Floats]
Planner = Callable[[list[_Walk], ClipSettings, np.random.Generator], list[list[Keys]]]


def plan(kind: str, settings: ClipSettings, random: np.random.Generator) -> list[Way]:
    """The ways of all people of a clip, those in front last. kind: of `KINDS`."""
    walks = [_walk(settings, random) for _ in range(settings.people)]
    ways = []
    for person, visits in enumerate(PLANS[kind](walks, settings, random)):
        sway = (random.uniform(0, 6), random.uniform(1.5, 4), random.uniform(0, 1))
        near, first = random.uniform(0.8, 1.25), int(random.integers(1 << 16))
        for number, (times, places) in enumerate(visits):
            size = float(places[:, 2].mean()) * near
            ways.append(Way(person, first + number, times, places, sway, size))
    return sorted(ways, key=lambda way: way.near)


def _walk(settings: ClipSettings, random: np.random.Generator) -> _Walk:
    wide = random.uniform(*settings.face)
    room = min(wide, settings.height / 2)
    return _Walk(
        when=settings.seconds * random.uniform(0.25, 0.75),
        x=settings.width * random.uniform(0.25, 0.75),
        y=random.uniform(room, settings.height - room),
        wide=wide,
        speed=wide * random.uniform(*settings.speed),
        side=int(random.choice([-1, 1])),
        slope=random.uniform(-0.1, 0.1),
    )


def _far(walk: _Walk, settings: ClipSettings) -> tuple[float, float]:
    """Seconds and pixels until a walk is out of the picture, whatever the side."""
    pixels = settings.width + 2 * walk.wide
    return pixels / walk.speed, pixels


def _straight(walk: _Walk, settings: ClipSettings) -> Keys:
    seconds, pixels = _far(walk, settings)
    return walk.keys([(-seconds, -pixels), (seconds, pixels)])


def _walking(
    walks: list[_Walk], settings: ClipSettings, random: np.random.Generator
) -> list[list[Keys]]:
    """Each straight on."""
    return [[_straight(walk, settings)] for walk in walks]


def _paired(walks: list[_Walk], random: np.random.Generator) -> list[_Walk]:
    """The second of each two comes towards the first, at about its height and size."""
    found = list(walks)
    for one in range(0, len(walks) - 1, 2):
        first = walks[one]
        found[one + 1] = replace(
            walks[one + 1],
            when=first.when,
            x=first.x,
            y=first.y + first.wide * random.uniform(-0.25, 0.25),
            wide=first.wide * random.uniform(0.8, 1.25),
            side=-first.side,
            slope=random.uniform(-0.05, 0.05),
        )
    return found


def _crossing(
    walks: list[_Walk], settings: ClipSettings, random: np.random.Generator
) -> list[list[Keys]]:
    """Pairs pass each other."""
    return _walking(_paired(walks, random), settings, random)


def _meeting(
    walks: list[_Walk], settings: ClipSettings, random: np.random.Generator
) -> list[list[Keys]]:
    """Pairs walk up to each other until their faces touch or overlap, and turn back."""
    ways = []
    for walk in _paired(walks, random):
        seconds, pixels = _far(walk, settings)
        hold, apart = random.uniform(0.1, 0.6), walk.wide * random.uniform(0.05, 0.4)
        marks = [(-seconds, -pixels - apart), (0.0, -apart), (hold, -apart)]
        ways.append([walk.keys([*marks, (hold + seconds, -pixels - apart)])])
    return ways


def _stopping(
    walks: list[_Walk], settings: ClipSettings, random: np.random.Generator
) -> list[list[Keys]]:
    """Every other one stands still for a while, at the height at which the next one walks by."""
    ways = []
    for number, walk in enumerate(_paired(walks, random)):
        seconds, pixels = _far(walk, settings)
        if number % 2:
            ways.append([_straight(walk, settings)])
            continue
        hold = random.uniform(0.5, 2)
        marks = [(-seconds - hold / 2, -pixels), (-hold / 2, 0), (hold / 2, 0)]
        ways.append([walk.keys([*marks, (hold / 2 + seconds, pixels)])])
    return ways


def _returning(
    walks: list[_Walk], settings: ClipSettings, random: np.random.Generator
) -> list[list[Keys]]:
    """Out of the picture and in again: after a second at most, every other one after several."""
    ways = []
    for number, walk in enumerate(walks):
        away = random.uniform(2.5, 4) if number % 2 else random.uniform(0.3, 1.0)
        edge = settings.width if walk.side > 0 else 0
        gone = replace(walk, x=edge + walk.side * walk.wide, when=settings.seconds / 3)
        seconds, pixels = _far(walk, settings)
        back = replace(gone, when=gone.when + away, side=-walk.side, slope=-walk.slope)
        out, home = [(-seconds, -pixels), (0.0, 0.0)], [(0.0, 0.0), (seconds, pixels)]
        ways.append([gone.keys(out), back.keys(home)])
    return ways


def _approaching(
    walks: list[_Walk], settings: ClipSettings, random: np.random.Generator
) -> list[list[Keys]]:
    """Three times as large at the end as at the beginning, or the other way round."""
    ways = []
    for walk in walks:
        least = min(walk.wide, settings.height / 6)
        sizes = random.permutation([least, 3 * least])
        when = np.array([0.0, settings.seconds])
        x = walk.x + walk.side * np.array([-1, 1]) * settings.width / 4
        ways.append([(when, np.stack([x, np.full(2, walk.y), sizes], axis=1))])
    return ways


PLANS: dict[str, Planner] = {
    "walk": _walking,
    "cross": _crossing,
    "meet": _meeting,
    "stop": _stopping,
    "return": _returning,
    "nearer": _approaching,
}
KINDS = tuple(PLANS)
"""What happens in a clip, see `movingfaces.moving_clip`."""
