"""Every face of many photos: the work behind `facenet detect`, `embed` and `identify`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facenet.errors import InputError
from facenet.faces.draw import draw_faces, save_image
from facenet.faces.flow import Stream
from facenet.faces.pipeline import Seen
from facenet.images import SUFFIXES, find_images
from facenet.types import Faces, ImageArray

DRAWN_AS_IS = (".jpg", ".jpeg", ".png", ".webp")

Done = Callable[[int, int], None]
"""Called with photos done and photos in all."""

Stage = Callable[..., Stream[Seen]]
"""What is seen in each of many photos: `Recognizer.stream`, or a part of it."""

Describe = Callable[[Faces], Sequence[tuple[dict[str, Any], str | None]]]
"""A plain dictionary and a caption for each face of a photo (None: a face nobody knows)."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture file, and its path below the folder it was found in: no two have the same."""

    path: Path
    relative: Path


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came of one photo: faces, and pixels where they were asked for, or the reason why it
    could not be used."""

    photo: Photo
    image: ImageArray | None
    faces: Faces
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FaceRows:
    """rows: a plain dictionary per face. faceless: photos without a face. problems: why the
    others could not be used, a sentence each."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    faceless: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_photos(places: Iterable[str | os.PathLike[str]]) -> list[Photo]:
    """Photos among files and folders. Raises InputError when there is none."""
    given = [Path(place) for place in places]
    found = [Photo(path, _below(path, place)) for place in given for path in find_images([place])]
    if not found:
        names = ", ".join(map(str, given)) or "nothing"
        raise InputError(f"No photo was found in {names}: expected files {', '.join(SUFFIXES)}.")
    files = {os.path.abspath(photo.path) for photo in found}
    if len({photo.relative for photo in found}) == len(files):
        return found
    root = os.path.commonpath(files)
    return [Photo(p.path, Path(os.path.relpath(p.path, root))) for p in found]


def look(
    photos: Sequence[Photo], stage: Stage, done: Done, *, pixels: bool = False
) -> Iterator[Answer]:
    """What is seen in each photo, in order; pixels: with them.

    A photo that cannot be used gives an answer with a problem; the work goes on.
    """
    with stage([photo.path for photo in photos], pixels=pixels) as stream:
        for number, (photo, seen) in enumerate(zip(photos, stream, strict=True), 1):
            yield Answer(photo, seen.image, seen.faces, seen.problem)
            done(number, len(photos))


def face_rows(
    photos: Sequence[Photo],
    stage: Stage,
    describe: Describe,
    *,
    draw: Path | None = None,
    done: Done,
) -> FaceRows:
    """Describe every face of every photo, and write annotated copies below `draw`.

    Raises InputError, before anything is written, where a copy would replace one of the photos.
    """
    if draw:
        spare_photos(photos, draw)
    answers = look(photos, stage, done, pixels=draw is not None)
    return rows_of(answers, describe, draw=draw)


def rows_of(answers: Iterable[Answer], describe: Describe, *, draw: Path | None) -> FaceRows:
    """Describe every face of what was seen, and write annotated copies below `draw`."""
    found = FaceRows()
    for answer in answers:
        if answer.problem:
            found.problems.append(answer.problem)
            continue
        if not answer.faces:
            found.faceless.append(answer.photo.path)
        described = describe(answer.faces)
        found.rows.extend({"photo": str(answer.photo.path), **row} for row, _ in described)
        if draw and answer.image is not None:
            copy = draw_faces(answer.image, answer.faces, [caption for _, caption in described])
            save_image(copy, drawn(answer.photo, draw))
    return found


def drawn(photo: Photo, folder: Path) -> Path:
    """Where the annotated copy of a photo goes; formats that are not written become PNG."""
    relative = photo.relative
    as_is = relative.suffix.lower() in DRAWN_AS_IS
    return folder / (relative if as_is else relative.with_name(f"{relative.name}.png"))


def spare_photos(photos: Sequence[Photo], folder: Path) -> None:
    """Raise InputError where an annotated copy below a folder would replace one of the photos."""
    originals = {os.path.realpath(photo.path) for photo in photos}
    for photo in photos:
        target = drawn(photo, folder)
        if os.path.realpath(target) in originals:
            raise InputError(
                f"The annotated copy would replace the photo {target}. Draw into another folder."
            )


def _below(path: Path, place: Path) -> Path:
    return Path(path.name) if path == place else path.relative_to(place)
