"""Naming the faces of many photos: the work behind `facenet identify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.apps.jobs.photos import Photo, draw_answer, look
from facenet.gallery.calibrate import Threshold
from facenet.gallery.compare import Identification, People, identify
from facenet.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """The answers for the faces of one photo, or the reason why it could not be read."""

    photo: Photo
    answers: tuple[Identification, ...]
    problem: str | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One plain dictionary per face."""
        return [{"photo": str(self.photo.path), **answer.to_dict()} for answer in self.answers]


def name_photos(
    photos: Sequence[Photo],
    people: People,
    recognizer: Recognizer,
    *,
    threshold: Threshold,
    draw: Path | None,
    done: Callable[[int, int], None],
) -> list[NamedPhoto]:
    """Identify every face of every photo, and write annotated copies below `draw`."""
    named = []
    for answer in look(photos, recognizer.faces, done):
        answers = identify(people, answer.faces, threshold)
        named.append(NamedPhoto(answer.photo, tuple(answers), answer.problem))
        if draw and answer.problem is None:
            draw_answer(answer, [label(a) for a in answers], draw)
    return named


def label(answer: Identification) -> str | None:
    """The caption of a face: name and similarity, None for a face nobody knows."""
    return f"{answer.person} {answer.similarity:.2f}" if answer.person else None
