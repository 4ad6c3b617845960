"""`facenet bench pipeline`: from files to vectors, as `Recognizer` does it, and what it holds.

The files are cut into parts, one for each run: facenet takes one, then each peer takes the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.benching.material import files, spread
from facenet.apps.jobs.benching.rows import Row
from facenet.apps.jobs.benching.runs import LONG_PARTS, Plan, growth_rows, memory_rows
from facenet.apps.jobs.benching.session import FASTEST, Session
from facenet.models.catalog import DEFAULT_DETECTOR
from facenet.models.home import cpu_threads

PART = 500
"""Files of a part at most."""
LEAST_PART = 8
"""Files of a part at least; fewer than five of these are taken whole in each run."""
QUICK_FILES = 400
STAGES = {"read": "photos/s", "detect": "photos/s", "embed": "faces/s"}
STAGE_FILES = 32
PEERS = ("facenet-pytorch", "insightface")


def photos(session: Session) -> tuple[str, list[Path]]:
    """The name of the set, as part of a row's, and its files."""
    name, paths = files(session.settings.video, session.settings.images, session.folder)
    plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()) or "photos"
    return plain, paths


def pipeline(session: Session) -> Iterator[Row]:
    """Rows of the whole way, of its stages and of its memory."""
    name, everything = photos(session)
    paths = spread(everything, QUICK_FILES) if session.settings.quick else everything
    for number, (network, model) in enumerate(session.networks().items()):
        label = f"pipeline/{name}" + (f"/{network}" if number else "")
        task = {
            "job": "pipeline", "detector": DEFAULT_DETECTOR, "model": model,
            "precision": FASTEST, **session.running,
        }  # fmt: skip
        parts = parts_of(paths, session.settings.runs)
        peers = {} if number else session.peers(dict.fromkeys(PEERS, task))
        plans = [Plan(label, "photos/s", task, peers, parts)]
        outcomes = list(session.runs(cpu_threads()).measure(plans))
        for outcome in outcomes:
            how = f"{DEFAULT_DETECTOR} and {model} in {outcome.facts.get('precision')}"
            session.note(f"{label} was measured with {how}.")
            yield from outcome.rows()
        yield from memory_rows(label, outcomes)
        yield from _stages(session, label, task, paths)
        yield from _long(session, label, task, everything)


def parts_of(paths: Sequence[Path], runs: int) -> list[list[str]]:
    """The files of each run: parts of the whole, or the whole each time where it is small."""
    files = [str(path) for path in paths]
    if len(files) < runs * LEAST_PART:
        return [files] * runs
    count = max(runs, ceil(len(files) / PART))
    return [list(part) for part in np.array_split(np.array(files, object), count)]


def _long(
    session: Session, label: str, task: dict[str, Any], paths: Sequence[Path]
) -> Iterator[Row]:
    """The files over and over, as a set without an end: the pace, and the memory."""
    count = session.settings.long_pipeline
    if not count:
        return
    files = cycle(map(str, paths))
    parts = [list(islice(files, -(-count // LONG_PARTS))) for _ in range(LONG_PARTS)]
    for outcome in session.runs(cpu_threads()).measure(
        [Plan(f"{label}/long", "photos/s", task, parts=parts)]
    ):
        yield from outcome.rows()
        yield from growth_rows(label, "photos", outcome, session.note)


def _stages(
    session: Session, label: str, task: dict[str, Any], paths: Sequence[Path]
) -> Iterator[Row]:
    """Each stage by itself, one photo at a time: where the time goes."""
    some = [str(path) for path in spread(paths, STAGE_FILES)]
    parts = (None,) * session.settings.runs
    plans = [
        Plan(f"{label}/{stage}", unit, {**task, "job": "stage", "stage": stage, "photos": some}, {},
             parts)
        for stage, unit in STAGES.items()
    ]  # fmt: skip
    for outcome in session.runs(cpu_threads()).measure(plans):
        yield from outcome.rows()
