"""From tracks of faces to visits of people: who came, who is here, who has gone.

A tracker numbers faces as long as they are in sight. A visit outlasts it: a person who comes back
within `gone_s` is the same track and the same visit, known by the template or by the name. An
arrival is reported when it is known who it is, or after a few faces of somebody unknown, with the
time of the first sighting. A tracker that goes over from one person to another is noticed by faces
that disagree, and the visit is cut there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from facenet import vectors
from facenet.faces.boxes import overlap
from facenet.faces.strided import PAIRED
from facenet.images import Frame
from facenet.types import Faces, IntArray
from facenet.video.between import spread
from facenet.video.events import ARRIVED, LEFT, NAMED, SEEN, Track, VideoEvent
from facenet.video.identity import Identity
from facenet.video.naming import Naming
from facenet.video.presence import Sighting, Visit
from facenet.video.settings import WatchSettings
from facenet.video.strangers import Strangers
from facenet.video.template import Look

WAIT_S = 2.0
"""Seconds after which an arrival is reported, however few faces were good enough to count."""

GLIMPSE_S, NEAR_S = 0.75, 1.0
"""Somebody unknown who is seen for less than the one, at most the other after somebody vanished at
that very place, is not reported as another person: the edge of a face, as a rule."""

OnTrack = Callable[[Track], None]


@dataclass(frozen=True, slots=True)
class Likeness:
    """Similarities of a model. same: from which two templates are of one person, None when not
    known. agree: below which two faces are of two. contract: of the vectors."""

    same: float | None
    agree: float
    contract: str | None = None


class Visits:
    """Everybody of one video, frame by frame.

    naming: who names people. on_track: called with each finished track, which is then forgotten;
    None: the last `settings.tracks` are kept in `finished`.
    """

    def __init__(
        self,
        naming: Naming,
        settings: WatchSettings,
        likeness: Likeness,
        on_track: OnTrack | None = None,
    ) -> None:
        self._naming, self._settings, self._likeness = naming, settings, likeness
        self._on_track = on_track
        self.finished: deque[Track] = deque(maxlen=settings.tracks)
        self.forgotten = 0
        self._numbers = self._joined = 0
        self.moved: dict[int, int] = {}
        self._strangers = Strangers(likeness.same, settings.strangers)
        self._open: list[Visit] = []
        self._bound: dict[int, Visit] = {}
        self._early: deque[Sighting] = deque(maxlen=settings.track.confirm - 1)
        self._events: list[VideoEvent] = []

    @property
    def count(self) -> int:
        """How many tracks there were; one that was found to go on with another does not count."""
        return self._numbers - self._joined

    def update(
        self, frame: Frame, faces: Faces, quality: Sequence[float], ended: Sequence[int] = ()
    ) -> list[VideoEvent]:
        """Take in a frame that was looked at, and give what happened.

        faces: with the `track_id` of the tracker. quality: one per face. ended: tracks that the
        tracker has given up. `moved` says which numbers were found to be those of others.
        """
        now = frame.time_s
        self._events, self.moved = [], {}
        for visit in self._open:
            visit.visible = False
        self._see(frame, faces, quality)
        for number in ended:
            self._bound.pop(number, None)
        for visit in [v for v in self._open if v.visible and v.due()]:
            if not self._rejoined(visit):
                self._name(visit, now)
        for visit in [v for v in self._open if not v.arrived and self._settled(v, now)]:
            self._arrive(visit, now)
        self._leave(now, self._settings.gone_s)
        self._beat(now)
        for visit in self._open:
            self._show(visit)
        return self._events

    def finish(self, now: float) -> list[VideoEvent]:
        """The end of the video, at a time: everybody leaves."""
        self._events, self.moved = [], {}
        for visit in self._open:
            visit.visible = False
        self._leave(now, -1.0)
        return self._events

    def numbers(self, track_id: IntArray) -> IntArray:
        """Numbers of the visits of tracks of the tracker: (n,) -> int64 (n,); 0 stays 0."""
        found = [self._bound[t].number if t in self._bound else 0 for t in track_id.tolist()]
        return np.array(found, np.int64)

    def identities(self, numbers: IntArray) -> dict[int, Identity]:
        """Who the visits of some numbers, (n,), are; those that are over are left out."""
        wanted = set(numbers.tolist())
        return {v.number: v.identity for v in self._open if v.number and v.number in wanted}

    def settled(self, numbers: IntArray) -> bool:
        """Whether it is known who the visits of some numbers, (n,), are."""
        wanted = set(numbers.tolist())
        mine = [visit for visit in self._open if visit.number in wanted]
        enough = self._settings.settle
        if not all(visit.visible for visit in self._bound.values()):  # who may come back any frame
            return False
        return len(mine) == len(wanted) and all(
            visit.arrived and visit.template.faces >= enough and not visit.template.doubting
            for visit in mine
        )

    def tracks(self) -> tuple[Track, ...]:
        """Finished tracks that are kept, then those that run, each by their number."""
        contract = self._likeness.contract
        running = [v.record(contract, over=False) for v in self._open if v.number]
        return (*sorted(self.finished, key=_number), *sorted(running, key=_number))

    # ---- inside

    def _see(self, frame: Frame, faces: Faces, quality: Sequence[float]) -> None:
        """Hand every face of a track to its visit."""
        ids = [0] * len(faces) if faces.track_id is None else faces.track_id.tolist()
        changed: list[tuple[int, list[Look]]] = []
        for row, track in enumerate(ids):
            if track <= 0:
                continue
            here = (frame.time_s, frame.number, faces.boxes[row])
            visit = self._bound.get(track) or self._begin(track, self._first(here))
            others = visit.saw(frame, faces, row, quality[row])
            if others:
                changed.append((track, others))
        for track, others in changed:
            self._cut(track, frame, others)
        free = np.array([track <= 0 for track in ids], bool)
        self._early.append((frame.time_s, frame.number, faces.boxes[free]))

    def _cut(self, track: int, frame: Frame, others: list[Look]) -> None:
        """The tracker went over to somebody else: they begin a visit of their own."""
        before = self._bound[track]
        last = before.last
        visit = self._begin(track, before.cut())
        visit.sighted(last)
        visit.detections = len(others)
        visit.template.keep(others)

    def _begin(self, track: int, first: Sighting) -> Visit:
        visit = Visit(first, self._settings, self._likeness.agree)
        self._bound[track] = visit
        self._open.append(visit)
        return visit

    def _first(self, here: Sighting) -> Sighting:
        """The first sighting of a face that the tracker numbers now: in frames before, as a face
        of no track."""
        for time_s, number, boxes in reversed(self._early):
            shared = overlap(spread(here[2][None]), spread(boxes))[0]
            if not shared.size or shared.max() < PAIRED:
                break
            here = (time_s, number, boxes[int(np.argmax(shared))])
        return here

    def _rejoined(self, visit: Visit) -> bool:
        """Go on with the visit of somebody who was out of sight, if this is them."""
        mine, level = visit.template.vector, self._likeness.same
        if visit.arrived or mine is None or level is None:
            return False
        away = [(v, v.template.vector) for v in self._away(visit)]
        known = [(v, float(vectors.similarity(mine, his))) for v, his in away if his is not None]
        best = max(known, key=lambda pair: pair[1], default=None)
        if best is None or best[1] < level:
            return False
        self._join(best[0], visit)
        return True

    def _away(self, visit: Visit) -> list[Visit]:
        """Visits of people who were never there together with this one."""
        return [v for v in self._open if v is not visit and not v.beside(visit) and not v.visible]

    def _join(self, older: Visit, newer: Visit) -> None:
        older.absorb(newer)
        for track, visit in list(self._bound.items()):
            if visit is older:
                del self._bound[track]
            elif visit is newer:
                self._bound[track] = older
        self._open = [visit for visit in self._open if visit is not newer]
        if newer.number:
            self._show(older)
            self.moved[newer.number] = older.number
            self._joined += 1

    def _name(self, visit: Visit, now: float) -> None:
        """Decide who a visit is, and report what changes."""
        before = _called(visit)
        others = [other for other in self._open if other is not visit]
        losing = {id(v): _called(v) for v in others}
        changed = self._naming.look(visit, others)
        person = visit.identity.person_id
        same = [v for v in self._away(visit) if person and v.identity.person_id == person]
        if same and not visit.arrived:
            self._join(same[-1], visit)
        else:
            self._report(visit, before, now)
        for loser in changed:
            self._report(loser, losing[id(loser)], now)

    def _report(self, visit: Visit, before: str | None, now: float) -> None:
        if not visit.arrived:
            return
        self._label(visit)
        if _called(visit) != before:
            self._events.append(visit.event(NAMED, visit.last, now, before=before))

    def _settled(self, visit: Visit, now: float) -> bool:
        settings = self._settings
        return (
            visit.identity.person is not None
            or not settings.embed
            or visit.template.faces >= settings.settle
            or now - visit.first[0] >= WAIT_S
        )

    def _arrive(self, visit: Visit, now: float) -> None:
        """Report an arrival, unless it is the return of a stranger who has not left yet."""
        self._label(visit)
        same = [v for v in self._away(visit) if v.stranger and v.stranger == visit.stranger]
        same = same or self._vanished(visit)
        if same and visit.identity.person is None:
            self._join(same[-1], visit)
            return
        self._show(visit)
        visit.arrived = True
        self._events.append(visit.event(ARRIVED, visit.first, now))

    def _vanished(self, visit: Visit) -> list[Visit]:
        """Who was last seen a moment before a glimpse of somebody, at the same place."""
        if visit.visible or visit.last[0] - visit.first[0] >= GLIMPSE_S:
            return []
        near = [v for v in self._away(visit) if 0 < visit.first[0] - v.last[0] <= NEAR_S]
        here = spread(visit.first[2][None])
        return [v for v in near if overlap(here, spread(v.last[2][None]))[0, 0] >= PAIRED]

    def _label(self, visit: Visit) -> None:
        """Number a stranger who may be known again; a person has a name instead."""
        vector = visit.template.vector
        if visit.identity.person is not None:
            visit.identity = replace(visit.identity, stranger=None)
            return
        if visit.stranger is None and vector is not None:
            here = {v.stranger for v in self._open if v.stranger and v.beside(visit)}
            known = self._strangers.recognise(vector, here)
            visit.stranger = known or self._strangers.enter(vector, visit.template.faces)
        if visit.stranger is not None:
            label = f"unknown {visit.stranger}"
            visit.identity = replace(visit.identity, stranger=label, faces=visit.template.faces)

    def _leave(self, now: float, gone_s: float) -> None:
        """Finish the visits of those who were not seen for so long."""
        for visit in [v for v in self._gone(now, gone_s) if not v.arrived]:
            self._arrive(visit, now)
        for visit in self._gone(now, gone_s):
            self._events.append(visit.event(LEFT, visit.last, now))
            self._open.remove(visit)
            self._bound = {t: v for t, v in self._bound.items() if v is not visit}
            self._keep(visit)

    def _gone(self, now: float, gone_s: float) -> list[Visit]:
        out = [v for v in self._open if not v.visible and now - v.last[0] > gone_s]
        return sorted(out, key=lambda visit: visit.last[0])

    def _keep(self, visit: Visit) -> None:
        vector = visit.template.vector
        if visit.stranger is not None and vector is not None:
            self._strangers.remember(visit.stranger, vector, visit.template.faces)
        track = visit.record(self._likeness.contract, over=True)
        if self._on_track is not None:
            self._on_track(track)
            return
        self.forgotten += len(self.finished) == self.finished.maxlen
        self.finished.append(track)

    def _beat(self, now: float) -> None:
        every = self._settings.seen_s
        here = [visit for visit in self._open if visit.arrived and visit.visible]
        for visit in here if every is not None else ():
            if now - visit.heard_s >= (every or 0.0):
                visit.heard_s = now
                self._events.append(visit.event(SEEN, visit.last, now))

    def _show(self, visit: Visit) -> None:
        """Give a visit its number, the first time that it is needed."""
        if not visit.number:
            self._numbers += 1
            visit.number = self._numbers


def _called(visit: Visit) -> str | None:
    """The name by which a visit goes, or "unknown 3"."""
    return visit.identity.person or visit.identity.stranger


def _number(track: Track) -> int:
    return track.id
