"""What facenet does with a video while it is measured: the whole job, a stage of it, or no end.

The rows are made in `filming`; `ours` opens these jobs in a process of their own.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.filming.sinks import FilmPlan, FilmSink
from facenet.apps.jobs.filming.whole import Outputs, Telling, film_video
from facenet.apps.jobs.peers.worker import Job, memory
from facenet.errors import InputError
from facenet.faces.draw import draw_tracks
from facenet.faces.embed import Embedder
from facenet.gallery.compare import People
from facenet.images import Frame, open_source, read_video, video_facts
from facenet.images.filming import film
from facenet.recognizer import Recognizer
from facenet.types import Faces, ImageArray
from facenet.vectors import unit
from facenet.video.events import Moment
from facenet.video.settings import WatchSettings
from facenet.video.watch import watch

Task = Mapping[str, Any]

HELD = 32
"""Frames that are held for measuring a stage."""
RATE = 25.0
LOOK = 5
"""Every so many frames of the long run memory is looked at."""


def strangers(embedder: Embedder, count: int) -> People:
    """People who do not exist: random unit vectors."""
    shape = (count, int(embedder.card.dimension or 0))
    rows = unit(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return People(tuple(f"person {n}" for n in range(count)), rows, embedder.contract)


def filmed(recognizer: Recognizer, task: Task) -> tuple[Job, Mapping[str, Any]]:
    """The whole job: from a file to a file with names drawn into it, and its sound."""
    people, settings = strangers(recognizer.embedder, task["people"]), _settings(task)
    video, outputs = task["video"], Outputs(draw=Path(task["film"]))

    def job(part: Any) -> Mapping[str, Any]:
        faces = Counter[str]()
        telling = Telling(moment=lambda moment: faces.update(faces=len(moment.faces)))
        watching = watch(video, known=people, recognizer=recognizer, settings=settings)
        done = film_video(video, watching, outputs, telling)
        if done["problems"]:
            raise InputError(done["problems"][0])
        return {"items": done["frames"], **faces}

    facts = {"stride": settings.stride, "detector": task["detector"], "model": task["model"]}
    return job, facts


class Endless:
    """One job that goes on from run to run, over a video again and again; a part is how many
    frames further. What it holds is the median over the part, for frames come and go. The film is
    never finished, and is gone when this is."""

    def __init__(self, recognizer: Recognizer, task: Task) -> None:
        people, settings = strangers(recognizer.embedder, task["people"]), _settings(task)
        self._watching = watch(
            again(task["video"]), known=people, recognizer=recognizer, settings=settings,
            on_track=lambda track: None,
        )  # fmt: skip
        self._film = FilmSink(FilmPlan(Path(task["film"]), _rate(task)))
        weakref.finalize(self, self._film.abandon)

    def __call__(self, part: int) -> Mapping[str, Any]:
        """Go on for so many frames."""
        held = []
        for number, moment in enumerate(islice(self._watching, part)):
            self._film.take(moment)
            if number % LOOK == 0:
                held.append(memory())
        told = [facts["held"] for facts in held if facts]
        return {"items": part, **({"held": float(np.median(told))} if told else {})}


def endless(recognizer: Recognizer, task: Task) -> tuple[Job, Mapping[str, Any]]:
    """See `Endless`."""
    return Endless(recognizer, task), {}


def stage(recognizer: Recognizer, task: Task) -> tuple[Job, Mapping[str, Any]]:
    """One stage of the job by itself, over frames that are held, one after the other.

    Raises InputError for a video without a face, which says nothing of a job with some.
    """
    if task["stage"] == "decode":
        return (lambda part: {"items": _decoded(task["video"])}), {}
    frames = list(islice(read_video(task["video"]), HELD))
    stages: Mapping[str, Callable[[], Callable[[], object]]] = {
        "detect": lambda: partial(_detected, recognizer, frames),
        "follow": lambda: _following(recognizer, frames, task),
        "draw": lambda: _drawing(recognizer, frames),
        "encode": lambda: partial(_encoded, task["film"], _rate(task), frames),
    }
    run = stages[task["stage"]]()

    def job(part: Any) -> Mapping[str, Any]:
        run()
        return {"items": len(frames)}

    return job, {}


def again(video: str) -> Iterator[Frame]:
    """The frames of a video over and over, as one without an end."""
    number, begin = 0, 0.0
    while True:
        step, last = 1 / RATE, 0.0
        for frame in read_video(video):
            step, last = (frame.time_s - last) or step, frame.time_s
            yield replace(frame, number=number, time_s=begin + frame.time_s)
            number += 1
        begin += last + step


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """A detector that found its faces before: it gives those of one frame after the other."""

    coming: Iterator[Faces]

    def detect(self, images: Iterable[ImageArray]) -> list[Faces]:
        """The next faces, one `Faces` per picture, uint8 (H, W, 3) RGB."""
        return [next(self.coming) for _ in images]


def _settings(task: Task) -> WatchSettings:
    """Those of the job by default, but for a stride that is asked for."""
    return WatchSettings(**{name: task[name] for name in ("stride",) if name in task})


def _rate(task: Task) -> float:
    return video_facts(task["video"]).rate or RATE


def _labels(moment: Moment) -> dict[int, str | None]:
    return {track: who.person for track, who in moment.people.items()}


def _decoded(video: str) -> int:
    with open_source(video) as source:
        return sum(1 for _ in source)


def _detected(recognizer: Recognizer, frames: Iterable[Frame]) -> list[Faces]:
    return [recognizer.detector.detect([frame.image])[0] for frame in frames]


def _following(recognizer: Recognizer, frames: list[Frame], task: Task) -> Callable[[], object]:
    """Embed, follow and name the faces of every frame, which are known already."""
    people, found = strangers(recognizer.embedder, task["people"]), _found(recognizer, frames)

    def run() -> int:
        replayed = Recognizer.from_parts(Replayed(iter(found)), recognizer.embedder)
        settings = WatchSettings(stride=1)
        return sum(1 for _ in watch(frames, known=people, recognizer=replayed, settings=settings))

    return run


def _drawing(recognizer: Recognizer, frames: list[Frame]) -> Callable[[], object]:
    moments = list(watch(frames, recognizer=recognizer, settings=WatchSettings(stride=1)))
    return lambda: [draw_tracks(m.frame.image, m.faces, _labels(m)) for m in moments]


def _found(recognizer: Recognizer, frames: list[Frame]) -> list[Faces]:
    found = _detected(recognizer, frames)
    if not any(map(len, found)):
        raise InputError("A video to measure with should show a face; none was found in it.")
    return found


def _encoded(place: str, rate: float, frames: Iterable[Frame]) -> None:
    with film(place, rate=rate) as target:
        for frame in frames:
            target.add(frame.image, frame.time_s)
