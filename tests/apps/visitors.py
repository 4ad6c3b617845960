"""People who come and go, as the records that watching a video gives; for tests of its outputs."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from facenet.video.events import Portrait, Track, VideoEvent
from facenet.video.identity import Identity

BOX = np.array([10, 20, 60.5, 80], np.float32)


def identity(person=None, stranger=None, **changes):
    known = {"person": person, "person_id": person and f"id of {person}", "similarity": 0.62}
    unknown = {"similarity": 0.21, "best_candidate": "Ann", "reason": "below_threshold"}
    rates = {"threshold": 0.42, "fmr": 1e-5, "fpir": 1e-3, "looks": 3, "faces": 7}
    return Identity(**{**(known if person else unknown), **rates, "stranger": stranger, **changes})


def event(kind="arrived", person=None, *, time_s=1.5, track=1, stranger=None, **changes):
    who = identity(person, stranger if person else stranger or "unknown 1", **changes)
    visit = 4.25 if kind == "left" else None
    return VideoEvent(kind, time_s, round(25 * time_s), time_s + 0.2, track, who, BOX, None, visit)


def portrait(time_s=1.0, quality=0.8, *, colour=(200, 60, 30), box=BOX):
    """A JPEG of 100 x 100 pixels of one colour (RGB)."""
    image = np.full((100, 100, 3), colour[::-1], np.uint8)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    face = np.array([25, 25, 75, 75], np.float32)
    return Portrait(time_s, round(25 * time_s), jpeg, quality, box, face)


def track(number=1, person=None, *spans, stranger=None, portraits=None, **changes):
    """A track that is visible in `spans`, by default from 1.0 to 3.5 s."""
    spans = spans or ((1.0, 3.5),)
    who = identity(person, stranger or (None if person else f"unknown {number}"), **changes)
    pictures = (portrait(spans[0][0]),) if portraits is None else portraits
    seen = round(25 * sum(end - start for start, end in spans))
    start, end = spans[0][0], spans[-1][1]
    return Track(number, who, start, end, spans, seen, None, None, pictures, over=True)


@contextmanager
def little_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: what fits of a write is written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
