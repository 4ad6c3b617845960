"""One visit while it lasts: what was seen of a person, and when."""

from __future__ import annotations

from facenet.images import Frame
from facenet.types import Faces, FloatArray
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
SPANS = 256
"""Spans that are kept of a visit."""

Sighting = tuple[float, int, FloatArray]
"""Seconds, number of the frame, and the box (4,) of the face in it."""


class Visit:
    """What is known of a person who is here, or was until a moment ago.

    first: the first sighting. agree: see `Template`. number: of the track, 0 before it is shown.
    visible: seen in the last frame that was looked at.
    """

    def __init__(self, first: Sighting, settings: WatchSettings, agree: float) -> None:
        self.first, self.last = first, first
        self.spans = [(first[0], first[0])]
        self.number, self.detections, self.looks, self.next_look = 0, 0, 0, 1
        self.looked_s: float | None = None
        self.visible = self.arrived = False
        self.stranger: int | None = None
        self.identity = Identity()
        self.heard_s = first[0]
        self.template = Template(agree)
        self.portraits = Portraits(settings.portraits)
        self._least = settings.min_quality
        self._sure, self._doubtful = first, first

    def saw(self, frame: Frame, faces: Faces, row: int, quality: float) -> list[Look] | None:
        """Take in a face of a frame. Gives the last faces where they are somebody else's."""
        self.visible = True
        self.detections += 1
        here = (frame.time_s, frame.number, faces.boxes[row])
        self._in_sight(here)
        if quality < self._least:
            return None
        others, before = None, self.template.doubting
        if faces.embedding is not None:
            others = self.template.add(Look(faces.embedding[row], quality))
        if others is None and not self.template.doubting:
            self._sure = here
            self.portraits.offer(frame, faces, row, quality)
        elif not before:
            self._doubtful = here
        return others

    def cut(self) -> Sighting:
        """Take back what was seen of somebody else. Gives the first sighting of them."""
        self.visible = False
        self.last = self._sure
        start, end = self.spans[-1]
        self.spans[-1] = (start, max(start, min(end, self._sure[0])))
        return self._doubtful

    def sighted(self, at: Sighting) -> None:
        """Be in sight until then: when and where, box (4,)."""
        self.visible, self._sure = True, at
        self._in_sight(at)

    def absorb(self, other: Visit) -> None:
        """Go on as another visit of the same person, which began after this one was last seen."""
        self.visible = other.visible
        self.detections += other.detections
        self.looks += other.looks
        for start, end in other.spans:
            self._in_sight((start, *other.last[1:]))
            self._in_sight((end, *other.last[1:]))
        self.last, self._sure = other.last, other.last
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
        """Whether both were there at one time, so that they are two people."""
        return self.first[0] <= other.last[0] and other.first[0] <= self.last[0]

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
        start, end = self.spans[-1]
        if at[0] - end <= SPAN_S:
            self.spans[-1] = (start, at[0])
        else:
            self.spans.append((at[0], at[0]))
        if len(self.spans) > SPANS:
            gaps = [b[0] - a[1] for a, b in zip(self.spans, self.spans[1:], strict=False)]
            row = gaps.index(min(gaps))
            self.spans[row : row + 2] = [(self.spans[row][0], self.spans[row + 1][1])]
