"""Naming the faces of many photos: the work behind `facenet identify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from facenet.apps.jobs.photos import Done, FaceRows, Photo, face_rows
from facenet.gallery.calibrate import Threshold
from facenet.gallery.compare import Identification, People, identify
from facenet.recognizer import Recognizer


def name_photos(
    photos: Sequence[Photo],
    people: People,
    recognizer: Recognizer,
    *,
    threshold: Threshold,
    draw: Path | None,
    done: Done,
) -> FaceRows:
    """Identify every face of every photo, and write annotated copies below `draw`."""
    return face_rows(
        photos,
        recognizer.faces,
        lambda faces: [(a.to_dict(), caption(a)) for a in identify(people, faces, threshold)],
        draw=draw,
        done=done,
    )


def caption(answer: Identification) -> str | None:
    """The caption of a face: name and similarity, None for a face nobody knows."""
    return f"{answer.person} {answer.similarity:.2f}" if answer.person else None
