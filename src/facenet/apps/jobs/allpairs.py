"""Every picture against every other: the work behind `facenet evaluate all-pairs`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from facenet.apps.jobs.evaluation import gather_pictures, model_facts
from facenet.apps.jobs.gather import Done, Gathered, Gathering
from facenet.data.folders import class_pictures
from facenet.data.pairset import Picture
from facenet.errors import ModelFileError
from facenet.evaluate.allpairs import all_pairs_report
from facenet.evaluate.pairreport import WORST
from facenet.evaluate.sweep import Labelled, Sweep, labelled, sweep
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
    """Embed a data set, a folder per person. dataset: its name, else that of the folder.

    Raises DataError without pictures, or without a face in any.
    """
    pictures = class_pictures(folder)
    gathered = gather_pictures(recognizer, pictures, how, done=done)
    names = np.array([picture.person for picture in pictures])
    person = np.unique(names, return_inverse=True)[1]
    facts = comparing(recognizer, gathered, how)
    return Folder(
        dataset or folder.resolve().name,
        str(facts["contract"]),
        pictures,
        gathered,
        labelled(gathered.vectors(), person, gathered.views.found),
        facts,
    )


def comparing(recognizer: Recognizer, gathered: Gathered, how: Gathering) -> dict[str, Any]:
    """`model_facts` where the vectors of single pictures are compared: with the mirror image
    summed in they are of another contract."""
    facts = model_facts(recognizer, gathered, aligned=how.aligned, select=how.select)
    if how.mirrors:
        facts["contract"] += FLIPPED
        facts["cropping"] = f"flips summed; {facts['cropping']}"
    return facts


def pictures_digest(pictures: Sequence[Picture]) -> str:
    """SHA-256 over the names and contents of pictures, in their order: 64 hex digits."""
    whole = hashlib.sha256()
    for picture in pictures:
        content = hashlib.sha256()
        with suppress(OSError):  # what cannot be read is among the problems, with the reason
            if isinstance(picture.source, Path) and picture.source.is_file():
                with picture.source.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256")
        whole.update(picture.name.encode("utf-8", "surrogateescape") + b"\0" + content.digest())
    return whole.hexdigest()


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
        "digests": {seen.dataset: pictures_digest(seen.pictures)},
        **values,
        "worst": {"closest": _closest(seen, swept)},
    }


def _closest(seen: Folder, swept: Sweep) -> list[dict[str, Any]]:
    """The most similar pictures of two people: wrong labels, or the hardest pairs."""
    rows = zip(swept.pool_a[:WORST], swept.pool_b[:WORST], swept.pool[:WORST], strict=True)
    return [
        {"a": seen.pictures[a].name, "b": seen.pictures[b].name, "similarity": float(score)}
        for a, b, score in rows
    ]


def require_card(path: Path | None, contract: str | None = None) -> None:
    """Raises ModelFileError unless there is a card at `path`, of this contract where one is given.

    path: None where no card is wanted.
    """
    if path is None:
        return
    card = load_card(path)
    if contract not in (None, card.contract):
        raise ModelFileError(
            f"{path} should be the card of the vectors that are compared, {contract}; it is that "
            f"of {card.contract}. Name the card of the model in use, and leave --flip out."
        )


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
