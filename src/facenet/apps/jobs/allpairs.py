"""Every picture against every other: the work behind `facenet evaluate all-pairs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from facenet.apps.jobs.evaluation import gather_pictures, model_facts
from facenet.apps.jobs.gather import Done, Gathered, Gathering
from facenet.data.folders import class_pictures
from facenet.data.pairset import Picture
from facenet.evaluate.allpairs import all_pairs_report
from facenet.evaluate.sweep import Labelled, labelled, sweep
from facenet.faces.embed import FLIPPED
from facenet.files import written
from facenet.models.card import load_card
from facenet.recognizer import Recognizer


@dataclass(frozen=True, slots=True, eq=False)
class Folder:
    """A class folder as a model sees it: its name, pictures, what was seen, and vectors of a
    contract."""

    dataset: str
    contract: str
    pictures: tuple[Picture, ...]
    gathered: Gathered
    faces: Labelled
    facts: Mapping[str, Any]


def look_at_folder(
    folder: Path, recognizer: Recognizer, how: Gathering, *, dataset: str | None, done: Done
) -> Folder:
    """Embed a data set, a folder per person. dataset: its name, else that of the folder."""
    pictures = class_pictures(folder)
    gathered = gather_pictures(recognizer, pictures, how, done=done)
    names = np.array([picture.person for picture in pictures])
    person = np.unique(names, return_inverse=True)[1]
    return Folder(
        dataset or folder.resolve().name,
        recognizer.embedder.card.contract + (FLIPPED if how.mirrors else ""),
        pictures,
        gathered,
        labelled(gathered.vectors(), person, gathered.views.found),
        model_facts(recognizer, gathered, aligned=how.aligned, select=how.select),
    )


def compare_all(seen: Folder, *, replicates: int, seed: int, done: Done) -> dict[str, Any]:
    """The error rates over every pair, with intervals, and what they rest on."""
    start = perf_counter()
    swept = sweep(seen.faces, done=done)
    values = all_pairs_report(swept, dataset=seen.dataset, replicates=replicates, seed=seed)
    seconds = {**seen.facts["seconds"], "score": perf_counter() - start}
    cropping = seen.facts["cropping"]
    protocol = f"every picture against every other, cosine similarity; {cropping}"
    facts = {key: value for key, value in seen.facts.items() if key != "cropping"}
    return {
        **facts,
        "seconds": seconds,
        "dataset": seen.dataset,
        "protocol": protocol,
        "failures": len(seen.gathered.problems),
        **values,
    }


def require_card(path: Path | None) -> None:
    """Raises ModelFileError unless there is a card at `path`; None: none is wanted."""
    if path is not None:
        load_card(path)


def write_table(path: Path, table: Mapping[str, Any]) -> None:
    """Put a table of false matches into the card at `path`; the rest of it stays as it is."""
    require_card(path)
    data = json.loads(path.read_text("utf-8")) | {"fmr": dict(table)}
    with written(path) as file:
        file.write((json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def all_pairs_text(values: Mapping[str, Any]) -> str:
    """The rates for a person."""
    lines = [
        f"{values['model']} ({values['precision']}): {values['pairs']:,} pairs of different "
        f"people, {values['mated']:,} of one person; {values['people']:,} people in "
        f"{values['pictures']:,} pictures of {values['dataset']}, {values['failures']} without a "
        "usable face"
    ]
    for name, point in values["tar_at_far"].items():
        interval = point["ci"]
        ends = f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
        lines.append(
            f"FMR {name}  similarity {point['threshold']:.3f}  TAR {point['tar']:.4f}{ends}  "
            f"{point['false_matches']:,} false matches"
        )
    lines += [f"not printed: {why}" for why in list(values["refused"].values())[:1]]
    return "\n".join(lines)
