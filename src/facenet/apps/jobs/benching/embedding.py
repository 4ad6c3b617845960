"""`facenet bench embed`: each network in each arithmetic, one crop at a time and in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from facenet.apps.jobs.benching.material import frames
from facenet.apps.jobs.benching.rows import Row
from facenet.apps.jobs.benching.runs import Plan, memory_rows
from facenet.apps.jobs.benching.session import INCEPTION, Session
from facenet.errors import InputError
from facenet.faces.align import crop_faces
from facenet.faces.detectors import open_detector
from facenet.models.card import ModelCard
from facenet.models.catalog import DEFAULT_DETECTOR, DEFAULT_EMBEDDER, find_card
from facenet.models.engine import PRECISIONS, EngineSettings
from facenet.models.home import cpu_threads
from facenet.types import ImageArray

BATCHES = (1, 16, 32)
CROPS, QUICK_CROPS = 64, 32
"""Crops of a run; a multiple of each batch."""
LOOKED_AT = 16
"""Pictures whose faces are taken."""
PEERS = {INCEPTION: ("facenet-pytorch",), DEFAULT_EMBEDDER: ()}
"""Networks with the peers that have the same one."""


def embed(session: Session) -> Iterator[Row]:
    """Rows of every network that is here."""
    for network, model in session.networks().items():
        session.note(f"{network} was measured as {model}.")
        outcomes = []
        for outcome in session.runs(cpu_threads()).measure(_plans(session, network, model)):
            outcomes.append(outcome)
            yield from outcome.rows()
        yield from memory_rows(network, outcomes)


def _plans(session: Session, network: str, model: str) -> list[Plan]:
    card = find_card(model, kind="embedder", home=session.store.home)
    place = session.folder / f"crops-{network}.npy"
    np.save(place, _crops(session, card, QUICK_CROPS if session.settings.quick else CROPS))
    plans = []
    for precision in PRECISIONS:
        for batch in BATCHES[:2] if session.settings.quick else BATCHES:
            task: dict[str, Any] = {
                "job": "embed", "model": model, "precision": precision, "batch": batch,
                "crops": str(place), **session.running,
            }  # fmt: skip
            peers = session.peers(dict.fromkeys(PEERS[network], task))
            parts = (None,) * session.settings.runs
            called = f"{network}/{precision}"
            name = f"{called}/batch{batch}"
            plans.append(Plan(name, "faces/s", task, peers, parts, called=called))
    return plans


def _crops(session: Session, card: ModelCard, count: int) -> ImageArray:
    """Faces of the user's own, again from the first where there are few; else noise, since a time
    does not depend on what is seen. Raises InputError when there is no face."""
    preprocess, settings = card.preprocess, session.settings
    assert preprocess is not None  # of every embedder
    shape = (count, preprocess.height, preprocess.width, 3)
    if settings.video is None and settings.images is None:
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pictures = frames(settings.video, settings.images, LOOKED_AT, tell=session.note).images
    detector = open_detector(DEFAULT_DETECTOR, EngineSettings(**session.running))
    found = detector.detect(pictures)
    crops = [crop_faces(i, f, preprocess) for i, f in zip(pictures, found, strict=True)]
    rows = np.concatenate(crops)
    if not len(rows):
        raise InputError("Pictures to measure with should show a face; none was found in them.")
    return np.resize(rows, shape)
