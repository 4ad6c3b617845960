"""Every face of many photos, looked at once and remembered by content: work can be resumed.

The rows lie in a file as `vectorcache` makes them, one per model and detector, readable by its
owner alone: in the cache, which `facenet evaluate forget` empties, or in an unfinished album.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet import __version__
from facenet.apps.jobs.photos import Done, Photo
from facenet.apps.jobs.vectorcache import VectorCache
from facenet.gallery.judgement import Sighting
from facenet.recognizer import GROUP, Recognizer
from facenet.sightings import look, whereabouts
from facenet.types import Faces, FloatArray

REVISION = 1
"""Raised whenever this version sees photos otherwise than the last one did."""
MEASURES = ("face_size", "sharpness", "pose", "yaw", "pitch")
"""Of a face, in the order in which they are remembered; `detection_score` is in the head."""
HEAD = 15 + len(MEASURES)
"""Values of a remembered face before its vector: score, box, landmarks, measures."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A photo and what was seen in it: all of its faces, or the problem that it has."""

    photo: Photo
    sighting: Sighting


def see(
    photos: Sequence[Photo], recognizer: Recognizer, *, memory: Path | None, done: Done
) -> Iterator[Seen]:
    """Every face of each photo, in order; one that is broken has a problem and stops nothing.

    memory: folder of what is remembered, None for nothing. Raises StorageError when it cannot be
    used.
    """
    folder = memory if recognizer.detection else None
    cache, width = VectorCache(_terms(recognizer), folder), recognizer.embedder.card.dimension or 0
    count = 0
    for start in range(0, len(photos), GROUP):
        group = photos[start : start + GROUP]
        digests = [digest_of(photo) for photo in group]
        known = cache.find([digest for digest in digests if digest])
        told = {
            row: _told(known[digest], width, recognizer.embedder.contract)
            for row, digest in enumerate(digests)
            if digest in known and len(known[digest]) % (HEAD + width) == 0
        }
        fresh = [row for row in range(len(group)) if row not in told]
        looked = dict(zip(fresh, look(recognizer, [group[row].path for row in fresh]), strict=True))
        cache.keep({bytes.fromhex(s.photo): _row(s) for s in looked.values() if s.photo})
        for row, photo in enumerate(group):
            yield Seen(photo, looked.get(row) or _named(told[row], photo, digests[row]))
        count += len(group)
        done(count, len(photos))


def digest_of(photo: Photo) -> bytes:
    """SHA-256 of a photo's bytes; empty when they cannot be read."""
    try:
        if photo.path.is_file():
            with photo.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
    except OSError:  # reading it for its pixels will say why
        pass
    return b""


def _named(told: tuple[Faces, list[dict[str, float]]], photo: Photo, digest: bytes) -> Sighting:
    return Sighting(told[0], told[1], digest.hex(), whereabouts(photo.path))


def _terms(recognizer: Recognizer) -> Mapping[str, Any]:
    """Everything that what is seen depends on, but the photo."""
    embedder = recognizer.embedder
    engine = embedder.engine
    return {
        "faces": f"{__version__}/{REVISION}",
        "engine": f"{engine['engine']} {engine['version']} {engine['device']}",
        "detection": recognizer.detection,
        "embedder": embedder.contract,
        "precision": embedder.arithmetic,
    }


def _row(sighting: Sighting) -> FloatArray:
    """What is remembered of a photo: its faces one after the other, float32 (faces * width,)."""
    faces = sighting.faces
    if faces.embedding is None or len(faces) == 0:
        return np.zeros(0, np.float32)
    points = np.full((len(faces), 10), np.nan, np.float32)
    if faces.landmarks is not None:
        points = faces.landmarks.reshape(-1, 10)
    told = [[one.get(name, np.nan) for name in MEASURES] for one in sighting.measures]
    measures = np.array(told, np.float32)
    parts = [faces.detection_score[:, None], faces.boxes, points, measures, faces.embedding]
    return np.concatenate(parts, axis=1, dtype=np.float32).ravel()


def _told(row: FloatArray, width: int, contract: str) -> tuple[Faces, list[dict[str, float]]]:
    """The faces that `_row` wrote down, and their measures."""
    if len(row) == 0:
        return Faces.empty(), []
    table = row.reshape(-1, HEAD + width)
    points = table[:, 5:15].reshape(-1, 5, 2)
    landmarks = points if np.isfinite(points).all() else None
    faces = Faces(table[:, 1:5], landmarks, table[:, 0], table[:, HEAD:], contract=contract)
    measures = [
        {"detection_score": float(one[0])}
        | {
            name: float(value)
            for name, value in zip(MEASURES, one[15:HEAD], strict=True)
            if np.isfinite(value)
        }
        for one in table
    ]
    return faces, measures
