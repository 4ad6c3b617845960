"""Naming the faces of many photos: the work behind `facenet identify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from facenet.apps.jobs.photos import Answer, Done, FaceRows, Photo, face_rows, rows_of, spare_photos
from facenet.galleries import Gallery
from facenet.gallery.answers import GalleryIdentification, Question
from facenet.gallery.calibrate import Threshold
from facenet.gallery.compare import Identification, People, identify
from facenet.images import load_image
from facenet.recognizer import Recognizer
from facenet.types import Faces


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
        recognizer.stream,
        lambda faces: [(a.to_dict(), caption(a)) for a in identify(people, faces, threshold)],
        draw=draw,
        done=done,
    )


def name_enrolled(
    photos: Sequence[Photo],
    gallery: Gallery,
    question: Question,
    *,
    draw: Path | None,
    done: Done,
) -> FaceRows:
    """Identify every face of every photo among the people of a gallery.

    What a user decided about a face is known by the photo's content. Raises as `face_rows`.
    """
    digest = [""]

    def seen() -> Iterator[Answer]:
        for number, photo in enumerate(photos, 1):
            (sighting,) = gallery.look([photo.path])
            digest[0] = sighting.photo
            image = load_image(photo.path) if draw and not sighting.problem else None
            yield Answer(photo, image, sighting.faces, sighting.problem or None)
            done(number, len(photos))

    def describe(faces: Faces) -> list[tuple[dict[str, Any], str | None]]:
        answers = gallery.answer(faces, question, photo=digest[0])
        return [(answer.to_dict(), caption(answer)) for answer in answers]

    if draw:
        spare_photos(photos, draw)
    return rows_of(seen(), describe, draw=draw)


def caption(answer: Identification | GalleryIdentification) -> str | None:
    """The caption of a face: name and similarity, None for a face nobody knows."""
    return f"{answer.person} {answer.similarity:.2f}" if answer.person else None
