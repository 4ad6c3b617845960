"""One visit while it lasts: what was seen of a person, and when."""

from __future__ import annotations

from bisect import bisect_right

from facenet.faces.boxes import overlap
from facenet.faces.strided import PAIRED
from facenet.images import Frame
from facenet.types import Faces, FloatArray
from facenet.video.between import spread
from facenet.video.events import Track, VideoEvent
from facenet.video.identity import Asked, Identity
from facenet.video.portraits import Portraits
from facenet.video.settings import WatchSettings
from facenet.video.template import Look, Template

SPAN_S = 1.0
"""Seconds out of sight from which a span ends."""
LOOK_S = 0.4
"""Seconds from one look to the next at least: faces of one moment are much alike, and each look has
its share of the rate."""
GLIMPSE_S, NEAR_S = 0.75, 1.0
"""Who is seen for less than the one, at most the other from where and when somebody else was seen,
is the edge of their face, as a rule."""
MOMENT_S, SAME = 0.4, 0.4
"""Seconds and overlap (IoU): a face that is where one was a moment ago is the same one."""
SPANS = 256
"""Spans that are kept of a visit."""

Span = tuple[float, float]
"""Seconds of the first and the last sighting."""

Sighting = tuple[float, int, FloatArray]
"""Seconds, number of the frame, and the box (4,) of the face in it."""


class Visit:
    """What is known of a person who is here, or was until a moment ago.

    first: the first sighting. agree: see `Template`. number: of the track, 0 before it is shown.
    visible: seen in the last frame that was looked at. absence: the last one, however short: the
    sightings before and after it; None before the first. back: in sight again at another place, and
    no face yet that is like the template.
    """

    def __init__(self, first: Sighting, settings: WatchSettings, agree: float) -> None:
        self.first, self.last = first, first
        self.spans = [(first[0], first[0])]
        self.number, self.detections, self.looks, self.next_look = 0, 0, 0, 1
        self.looked_s: float | None = None
        self.visible = self.arrived = False
        self._before, self.back = True, False
        self.absence: tuple[Sighting, Sighting] | None = None
        self.stranger: int | None = None
        self.identity = Identity()
        self.heard_s = first[0]
        self.template = Template(agree)
        self.portraits = Portraits(settings.portraits)
        self._least = settings.min_quality
        self._sure, self._doubtful = first, first

    def next_frame(self) -> None:
        """Another frame is looked at."""
        self._before, self.visible = self.visible, False

    def saw(self, frame: Frame, faces: Faces, row: int, quality: float) -> list[Look] | None:
        """Take in a face of a frame. Gives the last faces where they are somebody else's."""
        here = (frame.time_s, frame.number, faces.boxes[row])
        if not self._before:
            self._return(here)
        self.visible = True
        self.detections += 1
        self._in_sight(here)
        if quality < self._least:
            return None
        others, before = None, self.template.doubting
        if faces.embedding is not None:
            others = self.template.add(Look(faces.embedding[row], quality), back=self.back)
            self.back = self.back and not self.template.liked
        if self.back:
            return others
        if others is None and not self.template.doubting:
            self._sure = here
            self.portraits.offer(frame, faces, row, quality)
        elif not before:
            self._doubtful = here
        return others

    def _return(self, here: Sighting) -> None:
        """Be in sight again; elsewhere than before, and it may be somebody else."""
        self.absence = (self.last, here)
        if not (self.back or self.template.vector is None or _went_on(self.last, here)):
            self.back, self._sure, self._doubtful = True, self.last, here

    @property
    def lately(self) -> bool:
        """Whether seen in the last frame that was looked at or in that before it."""
        return self.visible or self._before

    @property
    def doubtful(self) -> bool:
        """Whether the last face may be somebody else's."""
        return self.back or self.template.doubting

    def cut(self) -> Sighting:
        """Take back what was seen of somebody else. Gives the first sighting of them."""
        self.visible = self.back = False
        self.last, self.absence = self._sure, None
        spans = [(start, min(end, self.last[0])) for start, end in self.spans]
        self.spans = [span for span in spans if span[0] <= span[1]] or [(self.first[0],) * 2]
        return self._doubtful

    def over(self) -> None:
        """Take back a glimpse at the end that was not found to be of this person."""
        if self.back and self.last[0] - self._doubtful[0] < GLIMPSE_S:
            self.cut()

    def sighted(self, at: Sighting) -> None:
        """Be in sight until then: when and where, box (4,)."""
        self.visible, self._sure = True, at
        self._in_sight(at)

    def absorb(self, other: Visit) -> None:
        """Go on as another visit of the same person too, who was not beside this one."""
        if not self.arrived:
            self.first = min(self.first, other.first, key=_when)
        self.last = max(self.last, other.last, key=_when)
        self._sure = max(self._sure, other._sure, key=_when)
        self.visible = self.visible or other.visible
        self.detections += other.detections
        self.looks += other.looks
        spans, self.spans = sorted([*self.spans, *other.spans]), []
        for start, end in spans:
            self._extend(start, end)
        self.template.absorb(other.template)
        self.portraits.absorb(other.portraits)

    def due(self) -> bool:
        """Whether it is time to decide who this is: at 1, 2, 4, 8, ... faces, and not before the
        person has been looked at anew for a while."""
        waits = self.looked_s is not None and self.last[0] - self.looked_s < LOOK_S
        if self.template.faces < self.next_look or waits:
            return False
        self.looked_s = self.last[0]
        while self.next_look <= self.template.faces:
            self.next_look *= 2
        return True

    def beside(self, other: Visit) -> bool:
        """Whether both were in sight at one time, so that they are two people."""
        mine, theirs = sorted((self._stays(), other._stays()), key=len)
        starts = [start for start, _ in theirs]
        for start, end in mine:
            before = bisect_right(starts, end)
            if before and theirs[before - 1][1] >= start:
                return True
        return False

    def nearness(self, other: Visit, *, glimpse: bool) -> float:
        """How much the places overlap where one of the two ended and the other began, or came back
        into sight, a moment later; 0: there is none. A glimpse may be a little farther off."""
        ends = [(other.last, self.first), (self.last, other.first)]
        if other.absence is not None:
            ends += [(other.absence[0], self.first), (self.last, other.absence[1])]
        if not glimpse:
            return float(any(_went_on(*pair) for pair in ends))
        near = [(a[2][None], b[2][None]) for a, b in ends if 0 < b[0] - a[0] <= NEAR_S]
        shared = [float(overlap(spread(a), spread(b))[0, 0]) for a, b in near]
        return max((value for value in shared if value >= PAIRED), default=0.0)

    def asked(self, vector: FloatArray) -> Asked:
        """The template (d,) with its best portrait."""
        best = next(iter(self.portraits.of(self.template)), None)
        return Asked(vector, best.jpeg, best.face) if best else Asked(vector)

    def event(
        self, kind: str, at: Sighting, now: float, *, before: str | None = None
    ) -> VideoEvent:
        """Something that happened with this person. at: when and where, box (4,)."""
        visit_s = self.last[0] - self.first[0] if kind == "left" else None
        return VideoEvent(
            kind, at[0], at[1], now, self.number, self.identity, at[2], before, visit_s
        )

    def record(self, contract: str | None, *, over: bool) -> Track:
        """The visit as it stands."""
        vector = self.template.vector
        return Track(
            id=self.number,
            identity=self.identity,
            first_s=self.first[0],
            last_s=self.last[0],
            spans=tuple(self.spans),
            detections=self.detections,
            template=vector,
            contract=None if vector is None else contract,
            portraits=self.portraits.of(self.template),
            over=over,
        )

    def _in_sight(self, at: Sighting) -> None:
        self.last = at
        self._extend(at[0], at[0])

    def _extend(self, start: float, end: float) -> None:
        """Add a span that begins after the last one did."""
        if self.spans and start - self.spans[-1][1] <= SPAN_S:
            first, last = self.spans[-1]
            self.spans[-1] = (first, max(last, end))
        else:
            self.spans.append((start, end))
        if len(self.spans) > SPANS:
            gaps = [b[0] - a[1] for a, b in zip(self.spans, self.spans[1:], strict=False)]
            row = gaps.index(min(gaps))
            self.spans[row : row + 2] = [(self.spans[row][0], self.spans[row + 1][1])]

    def _stays(self) -> list[Span]:
        """The spans, the last one without the last absence."""
        start, end = self.spans[-1]
        gone, back = (at[0] for at in self.absence or (self.first, self.first))
        if not start <= gone < back <= end:
            return self.spans
        return [*self.spans[:-1], (start, gone), (back, end)]


def _went_on(before: Sighting, after: Sighting) -> bool:
    """Whether two sightings, one a moment after the other, are of one face by their place."""
    if not 0 < after[0] - before[0] <= MOMENT_S:
        return False
    return bool(overlap(before[2][None], after[2][None])[0, 0] >= SAME)


def _when(at: Sighting) -> float:
    return at[0]
