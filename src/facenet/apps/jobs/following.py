"""Clips that were looked at once are followed at several strides, and scored against the truth.

The tracker is told of every frame, of every second, fourth and eighth, with and without embeddings.
Between these frames it says itself where the faces are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from facenet.apps.jobs.visitscoring import There, table_lines
from facenet.evaluate.tracking import Labelled, TrackScore, score_tracks, sum_scores
from facenet.faces.track import Tracker, TrackSettings
from facenet.recognizer import Recognizer
from facenet.types import Faces, ImageArray

STRIDES = (1, 2, 4, 8)
"""Every so many frames is detected."""


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """A clip as the models saw it: truth and faces of each frame, and seconds of work. names: of
    the people. truth: with the numbers by which tracks are judged."""

    names: tuple[str, ...]
    there: list[There] = field(default_factory=list)
    truth: list[Labelled] = field(default_factory=list)
    faces: list[Faces] = field(default_factory=list)
    detecting: list[float] = field(default_factory=list)
    embedding: list[float] = field(default_factory=list)

    def look(self, image: ImageArray, recognizer: Recognizer) -> None:
        """Detect and embed the next frame, uint8 (H, W, 3) RGB."""
        start = perf_counter()
        faces = recognizer.detector.detect([image])[0]
        middle = perf_counter()
        self.faces.append(recognizer.embedder.embed([image], [faces])[0])
        self.detecting.append(middle - start)
        self.embedding.append(perf_counter() - middle)


def follow_rows(looked: Sequence[Looked], settings: TrackSettings) -> list[dict[str, Any]]:
    """A row for each stride, over all clips, without embeddings and as the settings have it."""
    return [
        _row(looked, stride, replace(settings, appearance=weight))
        for weight in dict.fromkeys((0.0, settings.appearance))
        for stride in STRIDES
    ]


def follow_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as a table for a person."""
    return table_lines(_COLUMNS, rows)


def score_values(score: TrackScore) -> dict[str, Any]:
    """What was counted, and the measures that come of it."""
    names = ("frames", "faces", "boxes", "tracks", "mota", "idf1", "idp", "idr", "overlap")
    counts = ("switches", "fragmentations", "misses", "false_positives")
    return {name: getattr(score, name) for name in (*names, *counts)}


SCORES = {
    "mota": "MOTA", "idf1": "IDF1", "switches": "switches", "fragmentations": "fragments",
    "misses": "misses", "false_positives": "false",
}  # fmt: skip
"""Those of `score_values` that a person reads, with their titles."""
_COLUMNS = {
    "stride": "stride", "embeddings": "embeddings", "clips": "clips", "people": "people", **SCORES,
    "frames_per_second": "frames/s",
}  # fmt: skip


def _row(looked: Sequence[Looked], stride: int, settings: TrackSettings) -> dict[str, Any]:
    """What comes of a stride, over all clips."""
    spent, scores, people = 0.0, [], 0
    for clip in looked:
        start = perf_counter()
        found = _followed(clip, stride, settings)
        spent += perf_counter() - start + sum(clip.detecting[::stride])
        spent += sum(clip.embedding[::stride]) if settings.appearance else 0.0
        scores.append(score_tracks(clip.truth, found))
        people += len(clip.names)
    total = sum_scores(scores)
    return {
        "stride": stride,
        "embeddings": settings.appearance > 0,
        "clips": len(looked),
        "people": people,
        "visits": total.people,
        **score_values(total),
        "frames_per_second": total.frames / max(spent, 1e-9),
    }


def _followed(clip: Looked, stride: int, settings: TrackSettings) -> list[Labelled]:
    """The tracks of each frame, as soon as they can be told."""
    tracker, found = Tracker(settings), []
    for number, (there, faces) in enumerate(zip(clip.there, clip.faces, strict=True)):
        if number % stride:
            shown = tracker.predict(there.time_s)
        else:
            shown = tracker.update(faces if settings.appearance else _plain(faces), there.time_s)
        found.append(tracks_of(shown))
    return found


def tracks_of(faces: Faces) -> Labelled:
    """The faces of a frame that belong to tracks."""
    there = faces.tracks > 0
    return Labelled(faces.boxes[there], faces.tracks[there])


def _plain(faces: Faces) -> Faces:
    """Faces without their embeddings."""
    return faces.with_(embedding=None, contract=None)
