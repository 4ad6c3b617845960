"""The table of false matches of a model: the work behind `facenet evaluate fmr`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.vectors_of import Done, collect_vectors
from facenet.data.folders import read_class_folders
from facenet.errors import DataError
from facenet.evaluate.falsematch import false_match_table
from facenet.files import written
from facenet.gallery.calibrate import lowest_fmr, similarity_at
from facenet.models.card import FmrTable, load_card
from facenet.recognizer import Recognizer

RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def measure_table(
    images: Path,
    recognizer: Recognizer,
    *,
    dataset: str,
    select: str,
    done: Done,
) -> tuple[FmrTable, list[str]]:
    """Embed a data set and count its false matches; also the pictures that gave no face."""
    samples = read_class_folders(images)
    collected = collect_vectors(
        [sample.path for sample in samples], recognizer, select=select, done=done
    )
    found = [sample for sample in samples if sample.path in collected.vectors]
    if not found:
        raise DataError(f"No face was found in any picture of {images}.")
    rows = np.stack([collected.vectors[sample.path] for sample in found])
    table = false_match_table(rows, [s.person for s in found], dataset=dataset)
    return table, list(collected.failed.values())


def require_card(path: Path | None) -> None:
    """Raises ModelFileError unless there is a card at `path`; None: none is wanted."""
    if path is not None:
        load_card(path)


def write_table(path: Path, table: FmrTable) -> None:
    """Put a table into the card at `path`; the rest of the file stays as it is."""
    require_card(path)
    data = json.loads(path.read_text("utf-8")) | {"fmr": asdict(table)}
    with written(path) as file:
        file.write((json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def table_text(table: FmrTable) -> dict[str, Any]:
    """The table as plain values, with thresholds at round rates and a text for a person."""
    thresholds = {
        f"{rate:g}": round(similarity_at(table, rate), 4)
        for rate in RATES
        if lowest_fmr(table) <= rate
    }
    lines = [
        f"{table.pairs:,} pairs of different people, {table.people:,} people in "
        f"{table.images:,} pictures of {table.dataset}",
        *(f"FMR {rate:>6}  similarity {value:.3f}" for rate, value in thresholds.items()),
    ]
    return {**asdict(table), "thresholds": thresholds, "text": "\n".join(lines)}
