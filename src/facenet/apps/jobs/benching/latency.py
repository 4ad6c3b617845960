"""`facenet bench latency`: one photo, from its bytes to names, with one thread and with all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facenet.apps.jobs.benching.material import faces_on_canvas, files, one_face
from facenet.apps.jobs.benching.rows import Row
from facenet.apps.jobs.benching.runs import Plan
from facenet.apps.jobs.benching.session import FASTEST, Session
from facenet.faces.detectors import open_detector
from facenet.models.catalog import DEFAULT_DETECTOR
from facenet.models.engine import EngineSettings
from facenet.models.home import cpu_threads

FACES = (1, 5, 20)
PEOPLE = 1000
"""People that a face is compared with."""
PHOTOS, QUICK_PHOTOS = 50, 10
"""Runs: a run is one photo."""
LOOKED_AT = 20
"""Photos in which a face is looked for."""
PEERS = ("facenet-pytorch", "insightface")


def latency(session: Session) -> Iterator[Row]:
    """Rows of photos with 1, 5 and 20 faces, each with one thread and with as many as there are."""
    places = _photos(session)
    for number, (network, model) in enumerate(session.networks().items()):
        for threads in dict.fromkeys((1, min(2, cpu_threads()))):
            plans = [
                _plan(session, (number, network, model), threads, count=count, place=place)
                for count, place in places.items()
            ]
            for outcome in session.runs(threads).measure(plans):
                yield from outcome.rows()


def _plan(
    session: Session, which: tuple[int, str, str], threads: int, *, count: int, place: Path
) -> Plan:
    number, network, model = which
    task: dict[str, Any] = {
        "job": "latency", "detector": DEFAULT_DETECTOR, "model": model, "people": PEOPLE,
        "precision": FASTEST, "photo": str(place), **session.running,
    }  # fmt: skip
    some = QUICK_PHOTOS if session.settings.quick else PHOTOS
    name = f"latency/{count}face{'s'[: count > 1]}/{threads}thread{'s'[: threads > 1]}"
    peers = {} if number else session.peers(dict.fromkeys(PEERS, task))
    full = name + (f"/{network}" if number else "")
    return Plan(full, "ms", task, peers, (None,) * some, faces=count)


def _photos(session: Session) -> dict[int, Path]:
    """A photo for each number of faces, all of one size."""
    _, paths = files(session.settings.video, session.settings.images, session.folder)
    detector = open_detector(DEFAULT_DETECTOR, EngineSettings(**session.running))
    face = one_face(paths[:LOOKED_AT], detector, tell=session.note)
    places = {count: session.folder / f"{count}.jpg" for count in FACES}
    for count, place in places.items():
        place.write_bytes(faces_on_canvas(face, count))
    return places
