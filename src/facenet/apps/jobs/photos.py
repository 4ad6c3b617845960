"""Every face of many photos, named: the work behind `facenet detect`, `embed` and `identify`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.errors import ImageError, InputError
from facenet.faces.draw import draw_faces, save_image
from facenet.images import SUFFIXES, find_images, load_image
from facenet.types import Faces, ImageArray

DRAWN_AS_IS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture file, and its path below the folder it was found in."""

    path: Path
    relative: Path


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came of one photo: pixels and faces, or the reason why it could not be read."""

    photo: Photo
    image: ImageArray | None
    faces: Faces
    problem: str | None = None


def find_photos(places: Iterable[str | os.PathLike[str]]) -> list[Photo]:
    """Photos among files and folders. Raises InputError when there is none."""
    found: list[Photo] = []
    given = [Path(place) for place in places]
    for place in given:
        for path in find_images([place]):
            relative = path.relative_to(place) if place.is_dir() else Path(path.name)
            found.append(Photo(path, relative))
    if not found:
        names = ", ".join(map(str, given)) or "nothing"
        raise InputError(f"No photo was found in {names}: expected files {', '.join(SUFFIXES)}.")
    return found


def look(
    photos: Sequence[Photo],
    stage: Callable[[Any], Faces],
    done: Callable[[int, int], None],
) -> Iterator[Answer]:
    """Apply a stage (`Recognizer.detect` or `.faces`) to each photo, in order.

    A photo that cannot be read gives an answer with a problem; the work goes on.
    """
    for number, photo in enumerate(photos, 1):
        try:
            image = load_image(photo.path)
        except ImageError as error:
            yield Answer(photo, None, Faces.empty(), str(error))
        else:
            yield Answer(photo, image, stage(image))
        done(number, len(photos))


def draw_answer(answer: Answer, labels: Sequence[str | None], folder: Path) -> Path:
    """Write an annotated copy of a photo below a folder; returns its path.

    Raises InputError where the copy would replace the photo itself.
    """
    relative = answer.photo.relative
    if relative.suffix.lower() not in DRAWN_AS_IS:
        relative = relative.with_name(relative.name + ".png")
    target = folder / relative
    if target.resolve() == answer.photo.path.resolve():
        raise InputError(
            f"The annotated copy would replace the photo {target}. Draw into another folder."
        )
    assert answer.image is not None
    save_image(draw_faces(answer.image, answer.faces, labels), target)
    return target
