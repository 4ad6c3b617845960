"""A list of the pictures of a folder that are worth learning from, by distance to their centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.evaluation import gather_pictures
from facenet.apps.jobs.gather import Done, Gathered, Gathering
from facenet.data.filtering import (
    Filtered,
    centre_distances,
    filter_by_distance,
    write_filtered,
)
from facenet.data.folders import class_pictures
from facenet.data.pairset import Picture
from facenet.errors import DataError
from facenet.files import require_writable
from facenet.recognizer import Recognizer

SHOWN = 20
"""Pictures left out that the answer lists."""


@dataclass(frozen=True, slots=True)
class Filtering:
    """percentile: so many in a hundred stay, the nearest to the mean of their person. min_images:
    people with fewer left go. histogram: find the limit as facenet did, on 100 bins."""

    percentile: float = 95.0
    min_images: int = 1
    histogram: bool = False


def filter_folder(
    folder: Path,
    out: Path,
    recognizer: Recognizer,
    how: Gathering,
    *,
    filtering: Filtering,
    done: Done,
) -> dict[str, Any]:
    """Write the list of kept pictures, see `data.filtering`; gives a summary.

    Pictures without a face are not kept. Raises DataError when nothing would be, StorageError when
    the list cannot be written.
    """
    require_writable(out)
    pictures = class_pictures(folder)
    gathered = gather_pictures(recognizer, pictures, how, done=done)
    filtered = _filtered(folder, pictures, gathered, filtering)
    write_filtered(filtered, out)
    left = [
        {"picture": name, "reason": reason}
        for name, kept, reason in zip(
            filtered.pictures, filtered.keep.tolist(), filtered.reasons, strict=True
        )
        if not kept
    ]
    return {
        "dataset": folder.resolve().name,
        "model": recognizer.embedder.card.name,
        "list": str(out),
        "pictures": len(pictures),
        "kept": int(filtered.keep.sum()),
        "without_a_face": len(gathered.problems),
        "left_out": left,
        "problems": list(gathered.problems.values()),
    }


def filter_text(values: dict[str, Any]) -> str:
    """The summary for a person."""
    lines = [
        f"{values['kept']} of {values['pictures']} pictures are kept; {values['without_a_face']} "
        f"show no face. The list: {values['list']}"
    ]
    lines += [f"  {one['picture']}  {one['reason']}" for one in values["left_out"][:SHOWN]]
    if (more := len(values["left_out"]) - SHOWN) > 0:
        lines.append(f"  and {more} more")
    return "\n".join(lines)


def _filtered(
    folder: Path, pictures: Sequence[Picture], gathered: Gathered, filtering: Filtering
) -> Filtered:
    """The decision for every picture, those without a face too."""
    seen = [row for row in range(len(pictures)) if gathered.views.found[row]]
    if not seen:
        raise DataError(
            f"{folder} should hold pictures with faces; none was found. Check the folder."
        )
    labels = np.unique([pictures[row].person for row in seen], return_inverse=True)[1]
    judged = filter_by_distance(
        [pictures[row].name for row in seen],
        labels,
        centre_distances(gathered.vectors()[seen], labels),
        percentile=filtering.percentile,
        min_images=filtering.min_images,
        exact=not filtering.histogram,
    )
    keep = np.zeros(len(pictures), np.bool_)
    keep[seen] = judged.keep
    reasons = ["no face was found"] * len(pictures)
    for row, reason in zip(seen, judged.reasons, strict=True):
        reasons[row] = reason
    return Filtered([picture.name for picture in pictures], keep, reasons)
