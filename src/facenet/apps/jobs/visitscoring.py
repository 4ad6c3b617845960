"""How well a video says who was there: events of `facenet.watch` against the truth of a clip.

A visit begins when at least half of a face can be seen and lasts until it cannot for longer than
`gone_s`. Each event belongs to the person whose true box its own box overlaps best in its frame,
and there to the visit that is nearest in time; so an arrival belongs to one visit or to nobody.
A visit should have one arrival; one in which the face can be seen for a moment only may have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from facenet.apps.jobs.rewatching import rewatch
from facenet.data.movingfaces import MovingClip
from facenet.evaluate.tracking import box_overlap
from facenet.faces.track import TrackSettings
from facenet.gallery.compare import People
from facenet.images import Frame
from facenet.recognizer import Recognizer
from facenet.types import Faces, FloatArray, IntArray
from facenet.video.events import ARRIVED, LEFT, NAMED, VideoEvent
from facenet.video.settings import WatchSettings

VISIT_STRIDES = (1, 3, 8)
"""Every so many frames is looked at."""
SEEN, HARDLY = 0.5, 0.25
"""Share of a face from which it can be seen, and below which it hardly can; between, it may be."""
OVERLAP = 0.3
"""Intersection over union from which the box of an event shows a person."""
MOMENT_S = 0.75
"""Seconds; whose face can be seen for less in a visit may be reported or not."""
USUAL_S, CLEAR_S = 2.0, 1.0
"""Seconds of absence that end a visit, where no absence of the clip is about as long: so much."""
GONE_S = tuple(step / 10 for step in range(10, 41))
"""Seconds from which these are chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class There:
    """The truth about a frame. time_s: seconds. size: width and height. boxes: float32 (n, 4), also
    beyond the edges. people: int64 (n,). shown: float32 (n,), share of each face to be seen."""

    time_s: float
    size: tuple[int, int]
    boxes: FloatArray
    people: IntArray
    shown: FloatArray


@dataclass(frozen=True, slots=True)
class Stay:
    """A visit as it was: seconds of the first and the last frame in which the face of a person can
    be seen, and for how many seconds it can."""

    person: int
    from_s: float
    to_s: float
    seen_s: float

    def away(self, time_s: float) -> float:
        """Seconds from a time to this visit, 0 within it."""
        return max(self.from_s - time_s, time_s - self.to_s, 0.0)


@dataclass(frozen=True, slots=True)
class VisitScore:
    """What was counted. visits: of more than a moment. arrived: events. once, missed: visits with
    one arrival, with none. excess: arrivals beyond the first of a visit, or of nobody. left: errors
    of the times of those who left, seconds. right, wrong, unknown: reported visits of known people
    by their names; wrong when any event has another one, right when the last has theirs.
    strangers, named: reported visits of others, and those in which any event has a name."""

    visits: int = 0
    arrived: int = 0
    once: int = 0
    missed: int = 0
    excess: int = 0
    left: tuple[float, ...] = ()
    right: int = 0
    wrong: int = 0
    unknown: int = 0
    strangers: int = 0
    named: int = 0

    def __add__(self, other: VisitScore) -> VisitScore:
        names = [one.name for one in fields(self)]
        return VisitScore(*(getattr(self, name) + getattr(other, name) for name in names))


def stays(there: Sequence[There], gone_s: float) -> list[Stay]:
    """The visits of a clip, person by person; an absence of at most `gone_s` ends none."""
    step = there[-1].time_s / max(1, len(there) - 1)
    found = []
    for person, times in _seen(there, SEEN).items():
        ends = np.flatnonzero(np.diff(times) > gone_s + 1e-9) + 1
        for start, end in pairwise([0, *ends.tolist(), len(times)]):
            found.append(Stay(person, times[start], times[end - 1], (end - start) * step))
    return found


def fitting_gone_s(there: Sequence[There]) -> float:
    """Seconds of absence after which somebody is gone, such that no absence is nearly as long.

    Of those that are `CLEAR_S` off every absence the nearest to `USUAL_S`; where there is none,
    the one that is farthest off.
    """
    gaps = _absences(there)

    def off(gone_s: float) -> float:
        return min((max(least - gone_s, gone_s - most) for least, most in gaps), default=CLEAR_S)

    return max(GONE_S, key=lambda one: (min(round(off(one), 6), CLEAR_S), -abs(one - USUAL_S)))


def score_visits(
    there: Sequence[There],
    visits: Sequence[Stay],
    events: Iterable[VideoEvent],
    names: Sequence[str],
    *,
    known: Iterable[str] | None = None,
) -> VisitScore:
    """Judge the events of a clip. there: the truth about each frame, from number 0. names: of the
    people. known: who might be named; None: names are not judged."""
    tally = _tally(there, visits, events)
    score = tally.score(visits)
    return score if known is None else score + _named(visits, tally.events, names, set(known))


def count_arrivals(
    there: Sequence[There], visits: Sequence[Stay], events: Iterable[VideoEvent]
) -> list[int]:
    """How many arrivals each visit has. there: the truth about each frame, from number 0."""
    return _tally(there, visits, events).arrivals()


def lasting(visit: Stay) -> bool:
    """Whether a face can be seen for more than a moment."""
    return visit.seen_s >= MOMENT_S - 1e-9


def watch_clip(
    clip: MovingClip,
    there: Sequence[There],
    looked: Sequence[Faces],
    recognizer: Recognizer,
    *,
    known: People | None,
    track: TrackSettings,
) -> dict[tuple[bool, int], VisitScore]:
    """Watch a clip at every stride, without names and with them. there: its truth. looked: the
    faces of each frame with embeddings, as the recognizer sees them; it is not asked again.

    Returns a score for (with names, stride). Frames are drawn once for all and few are held.
    """
    gone_s = fitting_gone_s(there)
    ways = [
        (who, WatchSettings(stride=stride, gone_s=gone_s, portraits=0, track=track))
        for who in dict.fromkeys((None, known))
        for stride in VISIT_STRIDES
    ]
    events: list[list[VideoEvent]] = [[] for _ in ways]
    for moments in rewatch(_frames(clip), looked, recognizer, ways):
        for list_, moment in zip(events, moments, strict=True):
            list_ += moment.events
    visits = stays(there, gone_s)
    return {
        (who is not None, how.stride): score_visits(
            there, visits, found, clip.names, known=None if who is None else who.names
        )
        for (who, how), found in zip(ways, events, strict=True)
    }


def visit_rows(scores: Sequence[dict[tuple[bool, int], VisitScore]]) -> list[dict[str, Any]]:
    """A row for each way of watching, over all clips; without names those figures are None."""
    rows = []
    for named, stride in scores[0]:
        total = sum((score[named, stride] for score in scores), VisitScore())
        row = {one.name: getattr(total, one.name) for one in fields(total) if one.name != "left"}
        if not named:
            row |= dict.fromkeys(_NAMES)
        row["left_median_s"] = median(total.left) if total.left else None
        row["left_max_s"] = max(total.left, default=None)
        rows.append({"known": named, "stride": stride, **row})
    return rows


def visits_text(found: dict[str, Any]) -> str:
    """The rows as a table for a person, with what was done."""
    told = [f"Visits; somebody is gone after {_span(found['gone_s'])} s."]
    if found["known"]:
        told.append(
            f"Known are {found['known']} people, {found['unseen']} by a picture that is not shown; "
            f"{found['strangers']} are strangers."
        )
    return "\n".join([" ".join(told), *table_lines(_COLUMNS, found["rows"])])


def table_lines(columns: dict[str, str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows below titles. columns: field -> title."""
    lines = ["".join(f"{title:>11}" for title in columns.values())]
    return lines + ["".join(f"{_cell(row[name]):>11}" for name in columns) for row in rows]


_NAMES = ("right", "wrong", "unknown", "strangers", "named")
COUNTS = {
    "stride": "stride", "visits": "visits", "arrived": "arrived", "once": "once",
    "missed": "missed", "excess": "too many", "left_median_s": "left +-s", "left_max_s": "at most",
}  # fmt: skip
"""Columns of a table of visits, without names."""
_COLUMNS = {"known": "known", **COUNTS, **{name: name for name in _NAMES}}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if value <= 1 else f"{value:.1f}"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g} (by clip)"


def _frames(clip: MovingClip) -> Iterator[Frame]:
    return (Frame(frame.number, frame.time_s, frame.image) for frame in clip)


class _Tally:
    """events: those of each visit, in order. nobody: arrivals of nobody. unseen: arrivals of people
    of whom never half a face can be seen; they may be reported or not."""

    def __init__(self, visits: int) -> None:
        self.events: list[list[VideoEvent]] = [[] for _ in range(visits)]
        self.left: list[float] = []
        self.nobody = self.unseen = 0

    def add(self, event: VideoEvent, person: int | None, visits: Sequence[Stay]) -> None:
        """Count an event of a person, None for nobody."""
        mine = [row for row, visit in enumerate(visits) if visit.person == person]
        if mine:
            row = min(mine, key=lambda one: visits[one].away(event.time_s))
            self.events[row].append(event)
            if event.type == LEFT:
                self.left.append(abs(event.time_s - visits[row].to_s))
        elif event.type == ARRIVED:
            self.nobody += person is None
            self.unseen += person is not None

    def arrivals(self) -> list[int]:
        """Of each visit."""
        return [sum(event.type == ARRIVED for event in mine) for mine in self.events]

    def score(self, visits: Sequence[Stay]) -> VisitScore:
        """What was counted, without names."""
        counts = self.arrivals()
        long = [count for count, visit in zip(counts, visits, strict=True) if lasting(visit)]
        return VisitScore(
            visits=len(long),
            arrived=sum(counts) + self.nobody + self.unseen,
            once=long.count(1),
            missed=long.count(0),
            excess=sum(max(0, count - 1) for count in counts) + self.nobody,
            left=tuple(self.left),
        )


def _tally(there: Sequence[There], visits: Sequence[Stay], events: Iterable[VideoEvent]) -> _Tally:
    tally = _Tally(len(visits))
    for event in events:
        if event.type in (ARRIVED, NAMED, LEFT):
            tally.add(event, _person(event, there[event.frame]), visits)
    return tally


def _person(event: VideoEvent, there: There) -> int | None:
    """Whom an event shows, by what is inside the frame. Who hardly can be seen is it only where
    nobody else is."""
    far = np.array(there.size * 2, np.float64)
    shared = box_overlap(np.clip(event.box[None], 0, far), np.clip(there.boxes, 0, far))[0]
    shared = np.where(shared >= OVERLAP, shared, 0.0)
    plain = np.where(there.shown >= HARDLY, shared, 0.0)
    best = plain if plain.any() else shared
    return int(there.people[np.argmax(best)]) if best.any() else None


def _named(
    visits: Sequence[Stay],
    events: Sequence[Sequence[VideoEvent]],
    names: Sequence[str],
    known: set[str],
) -> VisitScore:
    """How the visits that were reported were named."""
    total = VisitScore()
    for visit, mine in zip(visits, events, strict=True):
        own, said = names[visit.person], [event.person for event in mine]
        if not any(event.type == ARRIVED for event in mine):
            continue
        if own not in known:
            total += VisitScore(strangers=1, named=int(any(said)))
        elif any(name not in (None, own) for name in said):
            total += VisitScore(wrong=1)
        else:
            right = said[-1] == own
            total += VisitScore(right=int(right), unknown=int(not right))
    return total


def _seen(there: Sequence[There], share: float) -> dict[int, list[float]]:
    """Seconds of the frames in which so much of a face can be seen, of each person."""
    times: dict[int, list[float]] = {}
    for frame in there:
        for person in frame.people[frame.shown >= share].tolist():
            times.setdefault(person, []).append(frame.time_s)
    return times


def _absences(there: Sequence[There]) -> list[tuple[float, float]]:
    """How long people were out of sight between two sightings, at least and at most: until they
    hardly can be seen, and until they can."""
    glimpses = _seen(there, HARDLY)
    found = []
    for person, times in _seen(there, SEEN).items():
        for start, end in pairwise(times):
            between = [time_s for time_s in glimpses[person] if start <= time_s <= end]
            found.append((max(b - a for a, b in pairwise(between)), end - start))
    return found
