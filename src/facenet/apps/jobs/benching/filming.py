"""`facenet bench video`: frames per second of a whole video job, its stages, and its memory.

The job is that of `facenet video --draw`: decode, find faces, follow, embed and name people, draw,
encode with sound. The peer is facenet-pytorch's notebook of face tracking, which does less of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from facenet.apps.jobs.benching.detection import SIZES
from facenet.apps.jobs.benching.material import fitted, frames
from facenet.apps.jobs.benching.rows import Row
from facenet.apps.jobs.benching.runs import LONG_PARTS, Outcome, Plan, growth_rows, memory_rows
from facenet.apps.jobs.benching.session import FASTEST, Session
from facenet.images import read_video, video_facts
from facenet.images.filming import film
from facenet.models.catalog import DEFAULT_DETECTOR, DEFAULT_EMBEDDER
from facenet.models.home import cpu_threads
from facenet.types import ImageArray

CLIP, QUICK_CLIP = 120, 60
"""Frames of a clip at most."""
PICTURES = 12
"""Pictures that make a clip where there is no video: each stays for a tenth of a second or so."""
RATE = 25.0
PEER = "facenet-pytorch"
PEOPLE = 1000
"""People that a track is compared with."""
EVERY = "stride1"
"""The rows of detection in every frame, as the peer does it."""
STAGES = ("decode", "detect", "follow", "draw", "encode")
"""What the job consists of; "follow" is to embed, follow and name."""


def video(session: Session) -> Iterator[Row]:
    """Rows of every size, then of the long run at the smallest."""
    clips = clips_of(session, QUICK_CLIP if session.settings.quick else CLIP)
    for size, clip in clips.items():
        yield from _whole(session, size, clip)
        yield from _stages(session, size, clip)
    yield from long_run(session, *min(clips.items()))


# ---- what is filmed


def clips_of(session: Session, count: int) -> dict[tuple[int, int], Path]:
    """At most so many frames of the video, or of one made of pictures, as MP4 in three sizes.

    Raises InputError for what cannot be read, MissingExtraError without what reads videos.
    """
    source = session.settings.video
    rate = (RATE if source is None else video_facts(source).rate) or RATE
    pictures, origin = _pictures(session, count)
    places = {size: session.folder / f"film-{size[0]}x{size[1]}.mp4" for size in SIZES}
    made = 0
    with ExitStack() as stack:
        films = {
            size: stack.enter_context(film(place, rate=rate, audio=source))
            for size, place in places.items()
        }
        for made, image in enumerate(pictures, 1):
            for size, target in films.items():
                target.add(fitted(image, size, made / count), made / rate)
        for target in films.values():
            target.cut()
    session.note(f"Video jobs had {made} frames at {rate:g} a second: {origin}.")
    return places


def _pictures(session: Session, count: int) -> tuple[Iterator[ImageArray], str]:
    """At most so many pictures, one after the other, and where they come from."""
    source = session.settings.video
    if source is not None:
        shown = (frame.image for frame in islice(read_video(source), count))
        return shown, f"the start of {source.name}"
    found = frames(None, session.settings.images, PICTURES, tell=session.note)
    some = found.images
    return (some[place * len(some) // count] for place in range(count)), found.origin


# ---- what is measured


def _task(session: Session, job: str, clip: Path, **more: Any) -> dict[str, Any]:
    return {
        "job": job, "video": str(clip), "film": str(clip.with_name(f"{job}-{clip.name}")),
        "detector": DEFAULT_DETECTOR, "model": DEFAULT_EMBEDDER, "precision": FASTEST,
        "people": PEOPLE, **session.running, **more,
    }  # fmt: skip


def _whole(session: Session, size: tuple[int, int], clip: Path) -> Iterator[Row]:
    """The job as it is by default, and with detection in every frame; and what it holds."""
    name, outcomes = _name(size), list[Outcome]()
    theirs = {**_task(session, "film", clip), "film": str(clip.with_name(f"peer-{clip.name}"))}
    peers, parts = session.peers({PEER: theirs}), (None,) * session.settings.runs
    default = _task(session, "film", clip)
    plans = [
        Plan(name, "frames/s", default, peers, parts),
        Plan(f"{name}/{EVERY}", "frames/s", {**default, "stride": 1}, peers, parts),
    ]
    for outcome in session.runs(cpu_threads()).measure(plans):
        outcomes.append(outcome)
        facts = outcome.facts
        session.note(
            f"{outcome.plan.name} was measured with {facts.get('detector')} in every "
            f"{_ordinal(facts.get('stride'))} frame and {facts.get('model')}, --precision auto."
        )
        yield from outcome.rows()
    yield from memory_rows(name, outcomes)


def _stages(session: Session, size: tuple[int, int], clip: Path) -> Iterator[Row]:
    """Each stage by itself: where the time goes."""
    plans = [
        Plan(
            f"{_name(size)}/{stage}", "frames/s",
            _task(session, "film_stage", clip, stage=stage), parts=(None,) * session.settings.runs,
        )
        for stage in STAGES
    ]  # fmt: skip
    for outcome in session.runs(cpu_threads()).measure(plans):
        yield from outcome.rows()


def long_run(session: Session, size: tuple[int, int], clip: Path) -> Iterator[Row]:
    """One video without an end, made of the clip again and again: its pace and its memory."""
    count = session.settings.long_video
    if not count:
        return
    parts = (-(-count // LONG_PARTS),) * LONG_PARTS
    plan = Plan(f"{_name(size)}/long", "frames/s", _task(session, "film_long", clip), {}, parts)
    for outcome in session.runs(cpu_threads()).measure([plan]):
        yield from outcome.rows()
        yield from growth_rows("video", "frames", outcome, session.note)


def _name(size: tuple[int, int]) -> str:
    return f"video/{size[0]}x{size[1]}"


def _ordinal(stride: object) -> str:
    """1 is "single", so that a sentence goes on well."""
    return {"1": "single", "2": "second", "3": "third"}.get(str(stride), f"{stride}th")
