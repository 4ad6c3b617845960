"""Every face of every frame of videos: the work behind `facenet detect CLIP.mp4`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from facenet.apps.jobs.photos import Done, Photo, Stage, look, rows_of, spare_photos
from facenet.errors import InputError
from facenet.faces.draw import draw_faces, save_image
from facenet.faces.strided import Strided
from facenet.images import Frame, SourceFacts, SourceSettings, is_video_name, open_source
from facenet.types import Faces

NAMES = "{:06}.jpg"
"""Names of annotated frames: their numbers."""


@dataclass(frozen=True, slots=True)
class Watching:
    """How videos are watched.

    strided: the detector and its stride. source: how files are read. draw: folder for annotated
    frames, or None.
    """

    strided: Strided
    source: SourceSettings = SourceSettings()
    draw: Path | None = None


@dataclass(frozen=True, slots=True)
class Remarks:
    """Filled while the rows come. faceless: places without a face. problems: why others could not
    be used, or only in part, a sentence each. lengths: frames of each video that was opened, about.
    """

    faceless: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def face_row(faces: Faces) -> list[tuple[dict[str, Any], str | None]]:
    """The row of each face of a picture, and an empty caption."""
    return [(face.to_dict(), "") for face in faces]


def watched_rows(
    places: Sequence[Photo],
    stage: Stage,
    watching: Watching,
    *,
    remarks: Remarks,
    done: Done,
) -> Iterator[dict[str, Any]]:
    """A row for each face of photos and videos, in their order, when it is found.

    A row has "photo", the file; in a video "frame", its number, and "time_s". stage: what sees
    photos. done: called with the frames and photos done, and those there are in all, about; a
    video that is not opened yet counts for one.
    Raises InputError where an annotated copy would replace one of the places.
    """
    if watching.draw:
        spare_photos([place for place in places if not is_video_name(place.path)], watching.draw)
        _spare_frames(places, watching.draw)
    for seen, rows in enumerate(_steps(places, stage, watching, remarks), 1):
        yield from rows
        expected = len(places) - len(remarks.lengths) + sum(remarks.lengths)
        done(seen, max(seen, expected))


def drawn_frames(video: Photo, folder: Path) -> Path:
    """The folder of the annotated frames of a video."""
    return folder / video.relative.with_name(f"{video.relative.name}.frames")


def _steps(
    places: Sequence[Photo], stage: Stage, watching: Watching, remarks: Remarks
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each photo and of each frame, in order."""
    for moving, group in groupby(places, lambda place: is_video_name(place.path)):
        if moving:
            yield from _videos(group, watching, remarks)
        else:
            yield from _photos([*group], stage, watching.draw, remarks)


def _photos(
    photos: Sequence[Photo], stage: Stage, draw: Path | None, remarks: Remarks
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each photo."""
    for answer in look(photos, stage, lambda done, total: None, pixels=draw is not None):
        found = rows_of([answer], face_row, draw=draw)
        remarks.faceless.extend(found.faceless)
        remarks.problems.extend(found.problems)
        yield found.rows


def _videos(
    videos: Iterable[Photo], watching: Watching, remarks: Remarks
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each frame of each video; what goes wrong becomes a remark."""
    for video in videos:
        frames = faces_seen = 0
        try:
            with open_source(video.path, watching.source) as source:
                remarks.lengths.append(_length(source.facts, watching.source))
                for frame, faces in watching.strided.watch(source):
                    frames, faces_seen = frames + 1, faces_seen + len(faces)
                    yield _frame_rows(video, frame, faces, watching.draw)
        except InputError as error:
            remarks.problems.append(str(error))
        if frames and not faces_seen:
            remarks.faceless.append(video.path)


def _frame_rows(
    video: Photo, frame: Frame, faces: Faces, draw: Path | None
) -> list[dict[str, Any]]:
    where = {"photo": str(video.path), "frame": frame.number, "time_s": round(frame.time_s, 6)}
    described = face_row(faces)
    if draw:
        copy = draw_faces(frame.image, faces, [caption for _, caption in described])
        save_image(copy, drawn_frames(video, draw) / NAMES.format(frame.number))
    return [{**where, **row} for row, _ in described]


def _length(facts: SourceFacts, settings: SourceSettings) -> int:
    """How many frames a video gives, about, for the progress bar."""
    end = min(facts.duration_s or 0.0, settings.end)
    return max(0, round((end - settings.start) * (facts.rate or 0.0)))


def _spare_frames(places: Sequence[Photo], folder: Path) -> None:
    """Raise InputError where an annotated frame would replace one of the places."""
    for video in places:
        target = os.path.realpath(drawn_frames(video, folder))
        for place in places if is_video_name(video.path) else ():
            if os.path.dirname(os.path.realpath(place.path)) == target:
                raise InputError(
                    f"An annotated frame would replace {place.path}. Draw into another folder."
                )
