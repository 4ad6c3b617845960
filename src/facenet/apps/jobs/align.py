"""Aligning a data set of class folders, as facenet's `align_dataset_mtcnn` did, but resumable.

The output mirrors the folders of the input. `bounding_boxes.txt` has a line per crop, `path x1 y1
x2 y2` in whole pixels of the photo (the box with its margin), or the path alone for a photo
without a face. `align.json` keeps the settings, so that a resumed run cannot mix two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from facenet.apps.jobs.align_one import AlignSettings, Outcome, Task, Worker, numbered
from facenet.apps.jobs.align_pool import outcomes_of
from facenet.apps.jobs.align_target import BoxList, claimed
from facenet.errors import DataError, SettingsError
from facenet.images import find_images
from facenet.models.home import cpu_threads

Done = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""


@dataclass(frozen=True, slots=True)
class AlignSummary:
    """pictures: found. aligned: with a crop now, skipped: done in an earlier run. faces: crops
    written now. without_face, unreadable: what gave none. ignored: files that are no pictures."""

    pictures: int
    aligned: int
    faces: int
    skipped: int
    without_face: tuple[str, ...]
    unreadable: tuple[str, ...]
    ignored: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """The summary for a person."""
        return (
            f"{self.pictures} pictures: {self.aligned} aligned ({self.faces} crops), "
            f"{self.skipped} done before, {len(self.without_face)} without a face, "
            f"{len(self.unreadable)} unreadable, {self.ignored} other files ignored"
        )


def align_folder(
    source: Path,
    target: Path,
    settings: AlignSettings,
    *,
    workers: int = 0,
    only: Collection[Path] | None = None,
    done: Done,
) -> AlignSummary:
    """Align every picture below `source` into `target`; what is there already is skipped.

    workers: processes; 0 = as many as the CPU quota allows. only: these pictures of it, None: all.
    Interrupted, it goes on where it stopped when it is run again. Raises DataError without
    pictures, SettingsError when `target` was made with other settings or another run is writing
    there, StorageError when it cannot be written.
    """
    if workers < 0:
        raise SettingsError(f"workers should be 0 or more; got {workers}.")
    tasks, ignored = plan(source, target, settings)
    tasks = [task for task in tasks if only is None or task.source in only]
    worker = Worker.open(settings, target)
    with claimed(target, settings.lasting()):
        boxes = BoxList.mended(target)
        waiting = [task for task in tasks if not _is_done(task, boxes, settings)]
        skipped = len(tasks) - len(waiting)
        done(skipped, len(tasks))
        outcomes: list[Outcome] = []
        with closing(outcomes_of(waiting, worker, workers or cpu_threads())) as coming:
            for outcome in coming:
                outcomes.append(outcome)
                done(skipped + len(outcomes), len(tasks))
        BoxList.mended(target)
    return _summary(outcomes, pictures=len(tasks), ignored=ignored)


def plan(source: Path, target: Path, settings: AlignSettings) -> tuple[list[Task], int]:
    """The pictures with their targets, sorted, and the number of other files.

    Two pictures of a folder that differ only in their ending keep it in the target's name.
    Raises DataError when there is no picture, or `target` lies in `source`.
    """
    pictures = find_images([source])
    if not source.is_dir():
        raise DataError(f"{source} should be a folder of pictures; it is a file.")
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"The crops should go outside of {source}; {target} lies in it.")
    if not pictures:
        raise DataError(f"{source} should hold folders of pictures; no picture was found.")
    stems = Counter(path.with_suffix("") for path in pictures)
    whole = set(pictures)
    tasks = []
    for path in pictures:
        alone = stems[path.with_suffix("")] == 1 and path.with_suffix("") not in whole
        stem = path.stem if alone else path.name
        relative = path.relative_to(source).with_name(f"{stem}.{settings.format}")
        tasks.append(Task(path, target / relative))
    files = sum(path.is_file() for path in source.rglob("*"))
    return tasks, files - len(pictures)


def _is_done(task: Task, boxes: BoxList, settings: AlignSettings) -> bool:
    """Whether every crop of a picture is there, or it is known to have no face."""
    if boxes.faceless(task.target):
        return True
    if settings.select != "all":
        return task.target.is_file()
    there = [path.is_file() for path in takewhile(boxes.lists, numbered(task.target))]
    return bool(there) and all(there)


def _summary(outcomes: Sequence[Outcome], *, pictures: int, ignored: int) -> AlignSummary:
    """The summary in the order of the pictures, whichever worker was first."""
    outcomes = sorted(outcomes, key=lambda outcome: outcome.task.source)
    faceless = [o.task.source for o in outcomes if not o.crops and not o.unreadable]
    return AlignSummary(
        pictures=pictures,
        aligned=sum(bool(outcome.crops) for outcome in outcomes),
        faces=sum(len(outcome.crops) for outcome in outcomes),
        skipped=pictures - len(outcomes),
        without_face=tuple(map(str, faceless)),
        unreadable=tuple(o.unreadable for o in outcomes if o.unreadable),
        ignored=ignored,
    )
