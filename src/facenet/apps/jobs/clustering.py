"""Whose faces are in these photos? The work behind `facenet cluster`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.everyface import Seen, see
from facenet.apps.jobs.photos import Done, Photo, find_photos
from facenet.apps.jobs.vectorcache import cache_folder
from facenet.errors import SettingsError
from facenet.gallery.calibrate import Threshold, lowest_fmr
from facenet.gallery.cluster.constraints import Links, apart_in_photos, link
from facenet.gallery.cluster.methods import (
    DEFAULT_FMR,
    DEFAULT_METHOD,
    FACENET,
    ClusterSettings,
    cluster_faces,
    require_method,
)
from facenet.recognizer import Recognizer
from facenet.types import Face, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Clustering:
    """What a user asked for. fmr, threshold: one of them, or neither. collages: faces of one photo
    may be one person. samples, seed: see `ClusterSettings`. remember: what was seen, for a run that
    is interrupted, and without an album for the next one."""

    method: str = DEFAULT_METHOD
    fmr: float | None = None
    threshold: float | None = None
    collages: bool = False
    samples: int = 1
    seed: int = 0
    remember: bool = True

    def __post_init__(self) -> None:
        require_method(self.method)


@dataclass(frozen=True, slots=True)
class Levels:
    """settings: method and threshold. fmr: of pairs at the threshold, None when not known.
    twice_at: similarity from which two faces of one photo may be one person."""

    settings: ClusterSettings
    fmr: float | None
    twice_at: float


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """Faces of photos, one after the other. photo: int64 (n,), place of each face's photo in
    `seen`. vectors: float32 (n, d)."""

    seen: tuple[Seen, ...]
    faces: tuple[Face, ...]
    photo: IntArray
    vectors: FloatArray

    @property
    def faceless(self) -> list[Path]:
        """Photos without a face."""
        return [
            seen.photo.path
            for seen in self.seen
            if not seen.sighting.problem and len(seen.sighting.faces) == 0
        ]

    @property
    def problems(self) -> list[str]:
        """Why photos could not be used, a sentence each."""
        return [seen.sighting.problem for seen in self.seen if seen.sighting.problem]


@dataclass(frozen=True, slots=True)
class ClusteredPhotos:
    """rows: a plain record per face, photo by photo. faceless: photos without a face. problems:
    why others could not be used. notes: what else a reader should know."""

    rows: list[dict[str, Any]]
    faceless: list[Path]
    problems: list[str]
    notes: list[str] = field(default_factory=list)


def photos_in(place: Path) -> list[Photo]:
    """The photos of a folder, or one photo. Raises InputError when there is none."""
    return find_photos([place])


def cluster_photos(
    photos: Sequence[Photo], recognizer: Recognizer, how: Clustering, *, done: Done
) -> ClusteredPhotos:
    """Look at every face and cluster them; nothing is written but the cache.

    A row has photo, box, detection_score, cluster (0 is the biggest) and size. Raises
    SettingsError before the work where the threshold is not known.
    """
    levels = levels_of(recognizer, how)
    memory = cache_folder() if how.remember else None
    crowd = gather_faces(photos, recognizer, memory, done=done)
    links = same_photo_links(crowd, levels, how)
    found = cluster_faces(crowd.vectors, levels.settings, links)
    sizes = np.bincount(found.labels, minlength=1)
    rows = [
        face_row(crowd, number) | {"cluster": int(label), "size": int(sizes[label])}
        for number, label in enumerate(found.labels)
    ]
    return ClusteredPhotos(rows, crowd.faceless, crowd.problems, [found.note] if found.note else [])


def gather_faces(
    photos: Sequence[Photo], recognizer: Recognizer, memory: Path | None, *, done: Done
) -> Crowd:
    """Every face of the photos. memory: as `see` takes it."""
    return crowd_of(tuple(see(photos, recognizer, memory=memory, done=done)), recognizer)


def crowd_of(seen: tuple[Seen, ...], recognizer: Recognizer) -> Crowd:
    """The faces of photos that were looked at, as one array of vectors."""
    faces = [(row, face) for row, one in enumerate(seen) for face in one.sighting.faces]
    width = int(recognizer.embedder.card.dimension or 0)
    vectors = np.zeros((len(faces), width), np.float32)
    for number, (_, face) in enumerate(faces):
        vectors[number] = face.embedding
    photo = np.array([row for row, _ in faces], np.int64)
    return Crowd(seen, tuple(face for _, face in faces), photo, vectors)


def face_row(crowd: Crowd, number: int) -> dict[str, Any]:
    """Where a face is: photo, box, detection_score."""
    face = crowd.faces[number].to_dict()
    path = crowd.seen[int(crowd.photo[number])].photo.path
    return {
        "photo": str(path),
        "box": face["box"],
        "detection_score": face["detection_score"],
    }


def same_photo_links(crowd: Crowd, levels: Levels, how: Clustering) -> Links:
    """The constraints that two faces of one photo are two people, unless collages are meant."""
    if how.collages or levels.settings.family == "hdbscan":
        return link(len(crowd.vectors))
    pairs = apart_in_photos(crowd.vectors, crowd.photo, twice_at=levels.twice_at)
    return link(len(crowd.vectors), apart=pairs)


def levels_of(recognizer: Recognizer, how: Clustering) -> Levels:
    """The method with its threshold, by rate, by similarity, or facenet's own.

    Without either the rate is `DEFAULT_FMR`, or the lowest that the table knows. Raises
    SettingsError where a rate is asked for that the table does not know, or there is none.
    """
    settings = ClusterSettings(how.method, samples=how.samples, seed=how.seed)
    if how.method in FACENET and (how.fmr is not None or how.threshold is not None):
        raise SettingsError(
            f"{how.method} has facenet's own threshold. Leave --fmr and --threshold out, or take "
            f"the method {settings.family}."
        )
    if settings.family == "hdbscan":
        return Levels(settings, None, 1.0)
    own = settings.threshold if how.method in FACENET else how.threshold
    fmr = how.fmr
    if own is None and fmr is None:
        fmr = _default_rate(recognizer)
    level = recognizer.threshold(fmr=fmr, threshold=own)
    settings = replace(settings, threshold=level.similarity)
    return Levels(settings, level.fmr, _twice_at(recognizer, level))


def _default_rate(recognizer: Recognizer) -> float:
    table = recognizer.calibration.fmr if recognizer.calibration else recognizer.embedder.card.fmr
    return max(DEFAULT_FMR, lowest_fmr(table)) if table else DEFAULT_FMR


def _twice_at(recognizer: Recognizer, level: Threshold) -> float:
    """The similarity at a tenth of the rate, where that is known; else half-way from the
    threshold to one."""
    middle = (1 + level.similarity) / 2
    if level.fmr is None:
        return middle
    try:
        stricter = recognizer.threshold(fmr=level.fmr / 10).similarity
    except SettingsError:  # rarer than the table knows
        return middle
    return max(stricter, level.similarity)
