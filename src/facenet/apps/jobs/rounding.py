"""What bfloat16 does to an embedder, measured and recorded: `facenet models quantize`."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from facenet.apps.jobs.quantizing import (
    Quantising,
    Stage,
    decisions,
    gather_faces,
    quantise_model,
    quantised_text,
)
from facenet.errors import SettingsError
from facenet.faces.embed import Embedder
from facenet.models.home import cpu_name
from facenet.models.measured import BF16, Measured, save_measured
from facenet.models.quantised import Quantised
from facenet.models.store import ModelStore
from facenet.recognizer import Recognizer

INT8 = "int8"


def reduce_model(name: str, precision: str, how: Quantising, stage: Stage) -> Quantised | Measured:
    """Make and measure an embedder in int8, or measure it in bf16; the record is kept.

    Raises SettingsError for another precision, EngineError where this machine has no bf16; else as
    `quantise_model` does.
    """
    if precision not in (INT8, BF16):
        raise SettingsError(f"precision should be {INT8} or {BF16}; got {precision:.40}.")
    exact = Recognizer(model=name)
    if precision == INT8:
        return quantise_model(exact, how, stage)
    return measure_rounded(exact, Recognizer(model=name, precision=BF16).embedder, how, stage)


def measure_rounded(
    exact: Recognizer, embedder: Embedder, how: Quantising, stage: Stage
) -> Measured:
    """Compare vectors and decisions, and keep the record, which takes the place of an earlier one.

    exact: in fp32. embedder: the same network in bf16. Raises DataError for too few faces or pairs.
    """
    card, store, pairs = exact.embedder.card, ModelStore(), how.pair_set()
    with stage("faces") as done:
        faces = gather_faces(exact, pairs, how, done)
    crops = np.concatenate([faces.calibration, faces.held_out])
    cosines = np.sum(embedder.embed_crops(crops) * exact.embedder.embed_crops(crops), axis=1)
    running = embedder.engine
    record = Measured(
        model=card.name,
        source=store.digests(card),
        lowest=float(cosines.min()),
        median=float(np.median(cosines)),
        crops=len(cosines),
        effect=decisions(exact, embedder, pairs, stage),
        engine=f"{running['engine']} {running['version']} on {running['device']}",
        processor=cpu_name(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    save_measured(card, record, store)
    return record


def reduced_text(record: Quantised | Measured) -> str:
    """What came of it, for a person."""
    if isinstance(record, Quantised):
        return quantised_text(record)
    state = "may take" if record.offered else "does not take"
    return f"{record.model}: --precision auto {state} bf16. {record.reason}"
