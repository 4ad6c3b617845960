"""What watching a video gives: moments, events, tracks and their portraits, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facenet.images import Frame
from facenet.types import Faces, FloatArray
from facenet.video.identity import Identity

ARRIVED, NAMED, SEEN, LEFT = "arrived", "named", "seen", "left"
"""Types of events: somebody came; somebody who came was found to be another than was said; a
heartbeat; somebody is gone."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoEvent:
    """Something that happened with a person.

    type: "arrived" (once for each visit), "named" (who a track is became known or was corrected),
    "seen" or "left". time_s, frame: when it happened: of the first sighting of an arrival, which is
    reported a little later, when it is known who it is; of the last sighting of who left.
    reported_s: time of the frame at which it was reported. track: number of the track. person,
    person_id, similarity, threshold, fmr, fpir, stranger: see `Identity`. before: whom a "named"
    track was said to be, None for unknown. visit_s: of who left, seconds from the first sighting
    to the last, else None. box: float32 (4,), of the face then, pixels.
    """

    type: str
    time_s: float
    frame: int
    reported_s: float
    track: int
    identity: Identity
    box: FloatArray
    before: str | None = None
    visit_s: float | None = None

    @property
    def person(self) -> str | None:
        """Name of the person, None for unknown."""
        return self.identity.person

    @property
    def person_id(self) -> str | None:
        """Id of the person, None for unknown."""
        return self.identity.person_id

    @property
    def stranger(self) -> str | None:
        """Such as "unknown 3", None for a person who is known."""
        return self.identity.stranger

    @property
    def similarity(self) -> float | None:
        """Of the track to the person or the best candidate, None when there was nobody."""
        return self.identity.similarity

    @property
    def threshold(self) -> float | None:
        """Similarity that was needed."""
        return self.identity.threshold

    @property
    def fmr(self) -> float | None:
        """See `Identity`."""
        return self.identity.fmr

    @property
    def fpir(self) -> float | None:
        """See `Identity`."""
        return self.identity.fpir

    def to_dict(self) -> dict[str, Any]:
        """Plain values, times to the millisecond."""
        who = self.identity.to_dict()
        return {
            "type": self.type,
            "time_s": round(self.time_s, 3),
            "frame": self.frame,
            "track": self.track,
            **{name: who[name] for name in _OF_IDENTITY},
            "before": self.before,
            "visit_s": None if self.visit_s is None else round(self.visit_s, 3),
            "box": plain_box(self.box),
            "reported_s": round(self.reported_s, 3),
        }


_OF_IDENTITY = (
    "person", "person_id", "stranger", "similarity", "threshold", "fmr", "fpir", "best_candidate",
    "reason", "looks", "faces",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A frame of a video and who is in it.

    faces: in pixels of the frame, with `track_id`; 0 is a face of no track. In a frame that was
    looked at they have what the detector and the embedder said. detected: whether it was. people:
    number of each track in `faces` -> who it is, as far as is known. events: what was reported
    with this frame, in the order in which it was.
    """

    frame: Frame
    faces: Faces
    detected: bool
    people: Mapping[int, Identity]
    events: tuple[VideoEvent, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A picture of a face of a track. time_s, frame: when it is of. jpeg: the face with its
    surroundings, at most 512 pixels a side. quality: 0 to 1. box: float32 (4,), of the face in the
    frame. face: float32 (4,), in the picture."""

    time_s: float
    frame: int
    jpeg: bytes
    quality: float
    box: FloatArray
    face: FloatArray

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the picture."""
        return {
            "time_s": round(self.time_s, 3),
            "frame": self.frame,
            "quality": round(self.quality, 4),
            "box": plain_box(self.box),
            "bytes": len(self.jpeg),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One visit of one person.

    id: its number in the video, from 1. identity: who it is. first_s, last_s: first and last
    sighting, seconds. spans: when the person was in sight, one (first, last) after the other; at
    most 256, then the shortest gaps are closed. detections: frames in which the face was found.
    template: unit vector float32 (d,) of its faces, of `contract`; None without embeddings.
    portraits: the best pictures by falling quality. over: whether the visit has ended.
    """

    id: int
    identity: Identity
    first_s: float
    last_s: float
    spans: tuple[tuple[float, float], ...]
    detections: int
    template: FloatArray | None
    contract: str | None
    portraits: tuple[Portrait, ...]
    over: bool

    @property
    def person(self) -> str | None:
        """Name of the person, None for unknown."""
        return self.identity.person

    @property
    def stranger(self) -> str | None:
        """Such as "unknown 3", None for a person who is known."""
        return self.identity.stranger

    def to_dict(self, *, vectors: bool = False) -> dict[str, Any]:
        """Plain values, without the pictures. vectors: with the template."""
        return {
            "track": self.id,
            **self.identity.to_dict(),
            "first_s": round(self.first_s, 3),
            "last_s": round(self.last_s, 3),
            "spans": [[round(start, 3), round(end, 3)] for start, end in self.spans],
            "detections": self.detections,
            "portraits": [portrait.to_dict() for portrait in self.portraits],
            "over": self.over,
            "contract": self.contract,
            **({"template": self._plain_template()} if vectors else {}),
        }

    def _plain_template(self) -> list[float] | None:
        return None if self.template is None else [float(value) for value in self.template]


def plain_box(box: FloatArray) -> list[float]:
    """A box (4,) as numbers to a hundredth of a pixel."""
    return [round(float(value), 2) for value in box]
