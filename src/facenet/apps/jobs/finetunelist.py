"""What becomes of each picture of a fine-tuning, as a list that one can read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from facenet.apps.jobs.align import plan
from facenet.apps.jobs.align_one import AlignSettings
from facenet.apps.jobs.align_target import BoxList
from facenet.data.classfolder import Skipped, usable_files
from facenet.data.filtering import Filtered, write_filtered
from facenet.data.trainingset import TrainingSet
from facenet.files import written
from facenet.train.finetuning import LEARNED, Roles

CROPS, PICTURES, KEPT = "crops", "pictures.csv", "learned.csv"

Note = Callable[[str], None]


def list_pictures(
    raw: Path | None, out: Path, whole: TrainingSet, roles: Roles, *, note: Note
) -> None:
    """Write pictures.csv and learned.csv into a run, and say in a sentence or two what is in them.

    raw: the folder before it was aligned into out/crops, None where the pictures are the crops.
    whole: the crops. Raises StorageError.
    """
    words = roles.words()
    learned = np.array([word == LEARNED for word in words])
    write_filtered(Filtered(list(whole.names), learned, words), out / KEPT)
    use = dict(zip(whole.names, words, strict=True))
    if raw is None:
        rows = [(name, word, "") for name, word in use.items()]
        unused = list(whole.skipped)
    else:
        rows, unused = _raw_pictures(raw, out, whole, use)
    with written(out / PICTURES) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("picture", "use", "reason"))
        table.writerows(sorted([*rows, *((one.name, "none", one.reason) for one in unused)]))
        text.flush()
        text.detach()
    _tell(whole, roles, unused, note)


def _raw_pictures(
    folder: Path, out: Path, whole: TrainingSet, use: Mapping[str, str]
) -> tuple[list[tuple[str, str, str]], list[Skipped]]:
    """Of the pictures before they were aligned: name and use, and what is not used."""
    people, skipped = usable_files(folder, check=True)
    tasks, _ = plan(folder, out / CROPS, AlignSettings())
    target = {task.source: task.target for task in tasks}
    boxes = BoxList.mended(out / CROPS)
    broken = {one.name: one.reason for one in whole.skipped}
    rows = []
    for person, pictures in people.items():
        if not pictures:
            skipped.append(Skipped(person, "its folder holds no picture"))
        for name, _ in pictures:
            crop = target.get(folder / name)
            place = "" if crop is None else crop.relative_to(out / CROPS).as_posix()
            if place in use:
                rows.append((name, use[place], ""))
            elif crop is not None and boxes.faceless(crop):
                skipped.append(Skipped(name, "no face was found in it"))
            else:
                reason = broken.get(place, "it cannot be read as a picture")
                skipped.append(Skipped(name, reason))
    return rows, skipped


def _tell(whole: TrainingSet, roles: Roles, unused: list[Skipped], note: Note) -> None:
    people = [
        len(np.unique(whole.labels[rows]))
        for rows in (roles.learned, roles.held_back, roles.judging)
    ]
    single = int(np.sum(np.bincount(whole.labels) == 1))
    note(
        f"{len(roles.learned)} pictures of {people[0]} people are learned, {len(roles.held_back)} "
        f"of {people[1]} of them are held back, {len(roles.judging)} of {people[2]} others judge."
    )
    if single:
        note(f"{single} people have one picture: they are learned, and nothing is judged by them.")
    if unused:
        note(
            f"{len(unused)} files or people are not used, the first of them {unused[0].name}: "
            f"{unused[0].reason.rstrip('.')}. {PICTURES} lists them all."
        )
