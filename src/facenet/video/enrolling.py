"""Enrolling somebody who was seen in a video: the track's portraits, by the gallery's own rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from facenet.errors import InputError
from facenet.galleries import Gallery
from facenet.gallery.enrolment import Enrolled
from facenet.video.events import Track


def enroll_track(
    gallery: Gallery,
    track: Track,
    person: str,
    *,
    external_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
) -> list[Enrolled]:
    """Enrol the portraits of a track as photos of a person, new or not; an answer for each.

    They are judged as any photo is: one that is too small, blurred or of somebody else is refused
    with the reason. Arguments and errors as in `Gallery.enroll`; InputError for a track without
    portraits.
    """
    if not track.portraits:
        raise InputError(
            f"Track {track.id} should have portraits to be enrolled; it has none. Its faces were "
            "too poor, or WatchSettings.portraits was 0."
        )
    photos = [portrait.jpeg for portrait in track.portraits]
    return gallery.enroll(person, photos, external_id=external_id, metadata=metadata, allow=allow)
