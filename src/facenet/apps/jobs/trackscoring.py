"""How well faces are followed: clips with known truth, made of a folder of people.

The clips are made by `data.movingfaces`. Every frame of them is looked at once, and then followed
as `following` has it. Faces of which less than half can be seen may be found or not. A person who
is away for longer than a track may be lost counts as somebody new. Whether each visit is reported
once, and by the right name, is judged by `visitscoring`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.following import Looked, follow_lines, follow_rows
from facenet.apps.jobs.gather import Done
from facenet.apps.jobs.visitscoring import (
    SEEN,
    There,
    fitting_gone_s,
    visit_rows,
    visits_text,
    watch_clip,
)
from facenet.data.folders import read_people
from facenet.data.movingfaces import KINDS, ClipSettings, MovingClip, Portrait, moving_clip
from facenet.errors import DataError, ImageError, SettingsError
from facenet.evaluate.tracking import Labelled
from facenet.faces.detect import select_faces
from facenet.faces.track import TrackSettings
from facenet.gallery.compare import People
from facenet.images import load_image
from facenet.recognizer import Recognizer
from facenet.types import Faces, ImageArray
from facenet.video.identity import rates_of

PICTURES = 2
"""Pictures of a person that are shown; the next one, where there is one, makes them known."""
LOOKS = (((1.0, 5.0), 0.0, 0.0), ((1.0, 3.0), 4.0, 0.8), ((3.0, 9.0), 0.0, 0.8))
"""Speeds in face widths a second, noise and blur of one clip after the other."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """clips: how many are made, of all kinds in turn. people: drawn from the folder, at the most.
    min_images: people with fewer pictures are left out. together: people in a clip, at the most.
    seconds: length of a clip. seed: of all draws. Raises SettingsError."""

    clips: int = 12
    people: int = 24
    min_images: int = 1
    together: int = 5
    seconds: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"clips": 1, "people": 2, "min_images": 1, "together": 2, "seconds": 0.5, "seed": 0}
        for name, low in least.items():
            if not low <= (value := getattr(self, name)) <= 10000:
                raise SettingsError(f"{name} should be {low} to 10000; got {value}.")


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
    people, problems = _drawn(folder, how), list[str]()
    portraits = _portraits(folder, people, recognizer, problems)
    shown = list(dict.fromkeys(portrait.person for portrait in portraits))
    known, unseen = _known(shown, people, recognizer, problems)
    looked, visits = [], []
    for number, clip in enumerate(_clips(portraits, how)):
        seen = _look(clip, recognizer, settings.lost_s)
        looked.append(seen)
        visits.append(
            watch_clip(clip, seen.there, seen.faces, recognizer, known=known, track=settings)
        )
        done(number + 1, how.clips)
    named = len(known.names) if known else 0
    return {
        "dataset": folder.resolve().name,
        "model": recognizer.embedder.card.name,
        "people": len(shown),
        "kinds": list(KINDS[: how.clips]),
        "rows": follow_rows(looked, settings),
        "visits": {
            "known": named,
            "unseen": unseen,
            "strangers": len(shown) - named,
            "gone_s": [fitting_gone_s(seen.there) for seen in looked],
            "rows": visit_rows(visits),
        },
        "problems": problems,
    }


def tracking_text(found: dict[str, Any]) -> str:
    """The rows as tables for a person: of tracks, then of visits."""
    return "\n".join([*follow_lines(found["rows"]), "", visits_text(found["visits"])])


def _drawn(folder: Path, how: Scoring) -> dict[str, list[Path]]:
    """People drawn by lot with their pictures."""
    people = {
        name: paths for name, paths in read_people(folder).items() if len(paths) >= how.min_images
    }
    names = sorted(people)
    if len(names) > how.people:
        chosen = np.random.default_rng(how.seed).permutation(len(names))[: how.people]
        names = [names[number] for number in sorted(chosen)]
    return {name: people[name] for name in names}


def _portraits(
    folder: Path, people: Mapping[str, list[Path]], recognizer: Recognizer, problems: list[str]
) -> list[Portrait]:
    """The face in each of the first pictures of people."""
    portraits = []
    for name, paths in people.items():
        for path in paths[:PICTURES]:
            if (found := _face(path, recognizer, problems)) is not None:
                portraits.append(Portrait(name, found[0], found[1].boxes[0]))
    if len({portrait.person for portrait in portraits}) < 2:
        raise DataError(
            f"{folder} should hold pictures of two people or more with a face in each, and as many "
            f"of each as are asked for; {len(problems)} pictures could not be used. Add people."
        )
    return portraits


def _face(
    path: Path, recognizer: Recognizer, problems: list[str]
) -> tuple[ImageArray, Faces] | None:
    """A picture and the one face in it that counts, or one problem more."""
    try:
        image = load_image(path)
    except ImageError as error:
        problems.append(str(error))
        return None
    found = recognizer.detector.detect([image])[0]
    face = select_faces(found, "center_weighted_size", (image.shape[1], image.shape[0]))
    if not len(face):
        problems.append(f"No face was found in {path}.")
        return None
    return image, face


def _known(
    shown: Sequence[str],
    people: Mapping[str, list[Path]],
    recognizer: Recognizer,
    problems: list[str],
) -> tuple[People | None, int]:
    """Half of the people who are shown, and how many of them by a picture that is not.

    Those with another picture come first. Nobody where the errors of the model are not known.
    """
    try:
        rates_of(recognizer).search(1)
    except SettingsError as error:
        problems.append(f"Names are not judged. {error}")
        return None, 0
    rows, unseen = {}, 0
    wanted = sorted(shown, key=lambda name: (len(people[name]) <= PICTURES, name))
    for name in wanted[: len(shown) // 2]:
        for path in (*people[name][PICTURES : PICTURES + 1], *people[name][:PICTURES]):
            if (found := _face(path, recognizer, [])) is not None:
                rows[name] = [recognizer.embedder.embed([found[0]], [found[1]])[0][0]]
                unseen += path not in people[name][:PICTURES]
                break
    return People.from_faces(rows), unseen


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


def _look(clip: MovingClip, recognizer: Recognizer, lost_s: float) -> Looked:
    """Detect and embed every frame of a clip. Who comes again has a number of their own."""
    begun = _beginnings(clip, lost_s)
    looked = Looked(clip.names)
    for frame in clip:
        looked.look(frame.image, recognizer)
        ids = [
            person * len(clip) + max(0, sum(start <= frame.time_s for start in begun[person]) - 1)
            for person in frame.people.tolist()
        ]
        size = (clip.settings.width, clip.settings.height)
        looked.there.append(There(frame.time_s, size, frame.boxes, frame.people, frame.shown))
        looked.truth.append(Labelled(frame.boxes, np.array(ids), frame.shown >= SEEN))
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
