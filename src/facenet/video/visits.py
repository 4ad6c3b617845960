"""From tracks of faces to visits of people: who came, who is here, who has gone.

A tracker numbers faces as long as they are in sight. A visit outlasts it: a person who comes back
within `gone_s` is the same track and the same visit, known by the template or by the name. An
arrival is reported when it is known who it is, or after a few faces of somebody unknown, with the
time of the first sighting; while somebody is out of sight who it may be, it waits, and so does that
person's leaving. What was reported stays: two visits that were both reported are not made one. A
tracker that goes over from one person to another is noticed by faces that disagree, and the visit
is cut there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from facenet import vectors
from facenet.images import Frame
from facenet.types import Faces, IntArray
from facenet.video.beginnings import Beginnings
from facenet.video.events import ARRIVED, LEFT, NAMED, SEEN, Track, VideoEvent
from facenet.video.identity import Identity
from facenet.video.naming import Naming
from facenet.video.presence import GLIMPSE_S, Sighting, Visit
from facenet.video.settings import WatchSettings
from facenet.video.strangers import Strangers
from facenet.video.template import Look

WAIT_S = 2.0
"""Seconds after which an arrival is reported, however few faces were good enough to count."""

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
        self.begun: list[tuple[int, Sighting]] = []
        self._strangers = Strangers(likeness.same, settings.strangers)
        self._open: list[Visit] = []
        self._bound: dict[int, Visit] = {}
        self._beginnings = Beginnings(settings.track.confirm - 1)
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
        tracker has given up. `moved` says which numbers were found to be those of others, or
        of nobody: 0; `begun` which tracks of the tracker are new, and where each was first seen.
        """
        now = frame.time_s
        self._events, self.moved, self.begun = [], {}, []
        for visit in self._open:
            visit.next_frame()
        self._see(frame, faces, quality)
        for number in ended:
            self._bound.pop(number, None)
        for visit in [v for v in self._open if v.visible and v.due()]:
            if visit in self._open and not self._rejoined(visit):
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
            visit.next_frame()
        for visit in [v for v in self._open if not v.arrived]:
            self._arrive(visit, now)
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
            visit.arrived and visit.template.faces >= enough and not visit.doubtful
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
        ids = faces.tracks.tolist()
        changed: list[tuple[int, list[Look]]] = []
        for row, track in enumerate(ids):
            if track <= 0:
                continue
            here = (frame.time_s, frame.number, faces.boxes[row])
            visit = self._bound.get(track)
            if visit is None:
                vector = None if faces.embedding is None else faces.embedding[row]
                first = self._beginnings.first(here, vector)
                self.begun.append((track, first))
                visit = self._begin(track, first)
            others = visit.saw(frame, faces, row, quality[row])
            if others and not (visit.arrived or visit.back):  # it began with the edge of the face
                visit.template.keep(others)
            elif others:
                changed.append((track, others))
        for track, others in changed:
            self._cut(track, others)
        self._beginnings.note(frame, faces)

    def _cut(self, track: int, others: list[Look]) -> None:
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

    def _rejoined(self, visit: Visit) -> bool:
        """Go on with another visit of the same person, where this one was not reported."""
        mine, level = visit.template.vector, self._likeness.same
        if visit.arrived or mine is None or level is None:
            return False
        others = [(v, v.template.vector) for v in self._apart(visit)]
        known = [(v, float(vectors.similarity(mine, his))) for v, his in others if his is not None]
        best = max(known, key=lambda pair: pair[1], default=None)
        if best is None or best[1] < level:
            return False
        self._join(best[0], visit)
        return True

    def _apart(self, visit: Visit) -> list[Visit]:
        """Visits that may be of the same person as this one, by when they were."""
        return [v for v in self._open if self._maybe(v, visit)]

    def _maybe(self, one: Visit, other: Visit) -> bool:
        """Whether two visits were never in sight together, and not too far apart."""
        gap = max(one.first[0] - other.last[0], other.first[0] - one.last[0])
        return one is not other and gap <= self._settings.gone_s and not one.beside(other)

    def _away(self, visit: Visit) -> list[Visit]:
        """Those of them who are out of sight."""
        return [v for v in self._apart(visit) if not v.visible]

    def _join(self, one: Visit, other: Visit) -> None:
        """Two visits are of one person. That which was reported goes on, else the earlier one."""
        kept, joined = sorted((one, other), key=lambda v: (not v.arrived, v.first[0]))
        lost = min(one, other, key=lambda v: v.last[0])
        self._bound = {
            track: kept if visit is joined else visit
            for track, visit in self._bound.items()
            if visit is not lost
        }
        kept.absorb(joined)
        self._open = [visit for visit in self._open if visit is not joined]
        if joined.number:
            self._show(kept)
            self.moved[joined.number] = kept.number
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
        """Whether it is time to report an arrival: at once of a person who is known; of others
        after a few faces, later while somebody is out of sight who they may be."""
        settings = self._settings
        if visit.identity.person is not None or not settings.embed:
            return True
        if now - visit.first[0] >= (WAIT_S if visit.visible else min(WAIT_S, settings.gone_s)):
            return True
        return visit.template.faces >= settings.settle and not self._away(visit)

    def _arrive(self, visit: Visit, now: float) -> None:
        """Report an arrival, unless it is of somebody who has not left yet, or of nobody."""
        if visit not in self._open or self._rejoined(visit):
            return
        if visit.identity.person is None:
            same = self._neighbour(visit)
            nobody = self._glimpsed(visit) and not (visit.lately or visit.template.fit)
            if same is None and nobody:
                self._forget(visit)
                return
            self._label(visit)
            same = same or self._alike(visit)
            if same is not None:
                self._join(same, visit)
                return
        self._label(visit)
        self._show(visit)
        visit.arrived = True
        self._events.append(visit.event(ARRIVED, visit.first, now))

    def _neighbour(self, visit: Visit) -> Visit | None:
        """Who vanished where somebody was seen who is out of sight again, or came there then."""
        if visit.visible:
            return None
        glimpse = self._glimpsed(visit)
        near = [(v, visit.nearness(v, glimpse=glimpse)) for v in self._apart(visit)]
        best = max(near, key=lambda pair: pair[1], default=None)
        return best[0] if best and best[1] else None

    def _glimpsed(self, visit: Visit) -> bool:
        """Whether somebody is out of sight again who was seen for a moment only."""
        return not visit.visible and visit.last[0] - visit.first[0] < GLIMPSE_S

    def _alike(self, visit: Visit) -> Visit | None:
        """The stranger of the same number who is out of sight."""
        mine = visit.stranger
        return next((v for v in self._away(visit) if v.stranger and v.stranger == mine), None)

    def _forget(self, visit: Visit) -> None:
        self._bound = {track: v for track, v in self._bound.items() if v is not visit}
        self._open.remove(visit)
        if visit.number:
            self.moved[visit.number] = 0
            self._joined += 1

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
        gone = self._gone(now, gone_s)
        for visit in gone:
            visit.over()
        for visit in sorted(gone, key=lambda one: one.last[0]):
            self._events.append(visit.event(LEFT, visit.last, now))
            self._open.remove(visit)
            self._bound = {t: v for t, v in self._bound.items() if v is not visit}
            self._keep(visit)

    def _gone(self, now: float, gone_s: float) -> list[Visit]:
        """Who was not seen for so long, but for those who may be a newcomer who is not reported."""
        out = [v for v in self._open if not v.visible and now - v.last[0] > gone_s]
        news = [v for v in self._open if not v.arrived]
        return [v for v in out if not any(self._maybe(one, v) for one in news)]

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
