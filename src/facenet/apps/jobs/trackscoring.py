"""How well faces are followed: clips with known truth, made of a folder of people.

The clips are made by `data.movingfaces`; every frame of them is looked at once, and the tracker is
then told of every frame, of every second, fourth and eighth, with and without embeddings. Between
these frames it says itself where the faces are. Faces of which less than half can be seen may be
found or not. A person who is away for longer than a track may be lost counts as somebody new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from facenet.apps.jobs.gather import Done
from facenet.data.folders import read_people
from facenet.data.movingfaces import KINDS, ClipSettings, MovingClip, Portrait, moving_clip
from facenet.errors import DataError, ImageError, SettingsError
from facenet.evaluate.tracking import Labelled, TrackScore, score_tracks, sum_scores
from facenet.faces.detect import select_faces
from facenet.faces.track import Tracker, TrackSettings
from facenet.images import load_image
from facenet.recognizer import Recognizer
from facenet.types import Faces

STRIDES = (1, 2, 4, 8)
"""Every so many frames is detected."""
COUNTED = 0.5
"""Share of a face that can be seen from which it should be found."""
PICTURES = 2
"""Pictures of a person that are used."""
LOOKS = (((1.0, 5.0), 0.0, 0.0), ((1.0, 3.0), 4.0, 0.8), ((3.0, 9.0), 0.0, 0.8))
"""Speeds in face widths a second, noise and blur of one clip after the other."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """clips: how many are made, of all kinds in turn. people: drawn from the folder, at the most.
    together: people in a clip, at the most. seconds: length of a clip. seed: of all draws.
    Raises SettingsError."""

    clips: int = 12
    people: int = 24
    together: int = 5
    seconds: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"clips": 1, "people": 2, "together": 2, "seconds": 0.5, "seed": 0}
        for name, low in least.items():
            if not low <= (value := getattr(self, name)) <= 10000:
                raise SettingsError(f"{name} should be {low} to 10000; got {value}.")


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """A clip as the models saw it: truth, times and faces of each frame, and seconds of work."""

    names: tuple[str, ...]
    truth: list[Labelled]
    times: list[float]
    faces: list[Faces]
    detecting: list[float]
    embedding: list[float]


def evaluate_tracking(
    folder: Path,
    recognizer: Recognizer,
    how: Scoring,
    *,
    settings: TrackSettings = TrackSettings(),  # noqa: B008
    done: Done,
) -> dict[str, Any]:
    """Follow the people of a folder (see `data.folders.read_people`) through generated clips.

    done: called with clips done and clips in all. Returns a row for each stride with and without
    embeddings. Raises DataError for fewer than two people whose face is found.
    """
    portraits, problems = _portraits(folder, recognizer, how)
    looked = []
    for number, clip in enumerate(_clips(portraits, how)):
        looked.append(_look(clip, recognizer, settings.lost_s))
        done(number + 1, how.clips)
    rows = [
        _row(looked, stride, replace(settings, appearance=weight))
        for weight in dict.fromkeys((0.0, settings.appearance))
        for stride in STRIDES
    ]
    return {
        "dataset": folder.resolve().name,
        "model": recognizer.embedder.card.name,
        "people": len({portrait.person for portrait in portraits}),
        "kinds": list(KINDS[: how.clips]),
        "rows": rows,
        "problems": problems,
    }


def tracking_text(found: dict[str, Any]) -> str:
    """The rows as a table for a person."""
    columns = {
        "stride": "stride",
        "embeddings": "embeddings",
        "clips": "clips",
        "people": "people",
        "mota": "MOTA",
        "idf1": "IDF1",
        "switches": "switches",
        "fragmentations": "fragments",
        "misses": "misses",
        "false_positives": "false",
        "frames_per_second": "frames/s",
    }
    lines = ["".join(f"{title:>11}" for title in columns.values())]
    for row in found["rows"]:
        lines.append("".join(f"{_cell(row[name]):>11}" for name in columns))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if value <= 1 else f"{value:.1f}"


def _portraits(
    folder: Path, recognizer: Recognizer, how: Scoring
) -> tuple[list[Portrait], list[str]]:
    """People drawn by lot, with the face in each of their first pictures; and what went wrong."""
    people = read_people(folder)
    names = sorted(people)
    if len(names) > how.people:
        chosen = np.random.default_rng(how.seed).permutation(len(names))[: how.people]
        names = [names[number] for number in sorted(chosen)]
    portraits, problems = [], []
    for name in names:
        for path in people[name][:PICTURES]:
            try:
                image = load_image(path)
            except ImageError as error:
                problems.append(str(error))
                continue
            found = recognizer.detector.detect([image])[0]
            face = select_faces(found, "center_weighted_size", (image.shape[1], image.shape[0]))
            if len(face):
                portraits.append(Portrait(name, image, face.boxes[0]))
            else:
                problems.append(f"No face was found in {path}.")
    if len({portrait.person for portrait in portraits}) < 2:
        raise DataError(
            f"{folder} should hold pictures of two people or more with a face in each; "
            f"{len(problems)} pictures could not be used. Add people."
        )
    return portraits, problems


def _clips(portraits: Sequence[Portrait], how: Scoring) -> Iterator[MovingClip]:
    """The clips, each of another kind than the last."""
    there = len({portrait.person for portrait in portraits})
    for number in range(how.clips):
        speed, noise, blur = LOOKS[number // len(KINDS) % len(LOOKS)]
        settings = ClipSettings(
            seconds=how.seconds,
            people=min(how.together, there),
            speed=speed,
            noise=noise,
            blur=blur,
        )
        kind = KINDS[number % len(KINDS)]
        yield moving_clip(portraits, kind, settings=settings, seed=how.seed + number)


def _look(clip: MovingClip, recognizer: Recognizer, lost_s: float) -> _Looked:
    """Detect and embed every frame of a clip."""
    begun = _beginnings(clip, lost_s)
    looked = _Looked(clip.names, [], [], [], [], [])
    for frame in clip:
        start = perf_counter()
        faces = recognizer.detector.detect([frame.image])[0]
        middle = perf_counter()
        faces = recognizer.embedder.embed([frame.image], [faces])[0]
        looked.detecting.append(middle - start)
        looked.embedding.append(perf_counter() - middle)
        ids = [
            person * len(clip) + max(0, sum(start <= frame.time_s for start in begun[person]) - 1)
            for person in frame.people.tolist()
        ]
        looked.truth.append(Labelled(frame.boxes, np.array(ids), frame.shown >= COUNTED))
        looked.times.append(frame.time_s)
        looked.faces.append(faces)
    return looked


def _beginnings(clip: MovingClip, lost_s: float) -> list[list[float]]:
    """When each person came, for the first time or after an absence of more than `lost_s`."""
    begun: list[list[float]] = [[] for _ in clip.names]
    last: dict[int, float] = {}
    for visit in clip.visits:
        if visit.person not in last or visit.from_s - last[visit.person] > lost_s:
            begun[visit.person].append(visit.from_s)
        last[visit.person] = visit.to_s
    return begun


def _row(looked: Sequence[_Looked], stride: int, settings: TrackSettings) -> dict[str, Any]:
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
        **_values(total),
        "frames_per_second": total.frames / max(spent, 1e-9),
    }


def _values(score: TrackScore) -> dict[str, Any]:
    names = ("frames", "faces", "boxes", "tracks", "mota", "idf1", "idp", "idr", "overlap")
    counts = ("switches", "fragmentations", "misses", "false_positives")
    return {name: getattr(score, name) for name in (*names, *counts)}


def _followed(clip: _Looked, stride: int, settings: TrackSettings) -> list[Labelled]:
    """The tracks of each frame, as soon as they can be told."""
    tracker, found = Tracker(settings), []
    for number, (time_s, faces) in enumerate(zip(clip.times, clip.faces, strict=True)):
        if number % stride:
            shown = tracker.predict(time_s)
        else:
            shown = tracker.update(faces if settings.appearance else _plain(faces), time_s)
        ids = np.zeros(0, np.int64) if shown.track_id is None else shown.track_id
        found.append(Labelled(shown.boxes[ids > 0], ids[ids > 0]))
    return found


def _plain(faces: Faces) -> Faces:
    """Faces without their embeddings."""
    return faces.with_(embedding=None, contract=None)
