"""Aligning a data set of class folders, as facenet's `align_dataset_mtcnn` did, but resumable.

The output mirrors the folders of the input. `bounding_boxes.txt` has a line per crop, `path x1 y1
x2 y2` in whole pixels of the photo (the box with its margin), or the path alone for a photo
without a face. `align.json` keeps the settings, so that a resumed run cannot mix two.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from facenet.apps.jobs import align_one
from facenet.apps.jobs.align_one import BOXES, AlignSettings, Outcome, Task, Worker, numbered
from facenet.errors import DataError, SettingsError
from facenet.images import is_image_name
from facenet.models.home import cpu_threads
from facenet.models.store import write_text

SETTINGS = "align.json"
AHEAD = 8
"""Pictures waiting per worker."""

Done = Callable[[int, int], None]


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
    source: Path, target: Path, settings: AlignSettings, *, workers: int = 0, done: Done
) -> AlignSummary:
    """Align every picture below `source` into `target`; what is there already is skipped.

    workers: processes; 0 = as many as the CPU quota allows. Interrupted, it goes on where it
    stopped when it is run again. Raises DataError without pictures, SettingsError when `target`
    was made with other settings, StorageError when it cannot be written.
    """
    tasks, ignored = plan(source, target, settings)
    _claim(target, settings)
    lines = _read_lines(target / BOXES)
    waiting = [task for task in tasks if not _is_done(task, target, lines, settings)]
    outcomes: list[Outcome] = []
    skipped = len(tasks) - len(waiting)
    done(skipped, len(tasks))
    for outcome in _run(waiting, settings, target, workers or cpu_threads()):
        outcomes.append(outcome)
        done(skipped + len(outcomes), len(tasks))
    _tidy(target / BOXES)
    return AlignSummary(
        pictures=len(tasks),
        aligned=sum(bool(outcome.crops) for outcome in outcomes),
        faces=sum(len(outcome.crops) for outcome in outcomes),
        skipped=skipped,
        without_face=tuple(
            str(o.task.source) for o in outcomes if not o.crops and not o.unreadable
        ),
        unreadable=tuple(o.unreadable for o in outcomes if o.unreadable),
        ignored=ignored,
    )


def plan(source: Path, target: Path, settings: AlignSettings) -> tuple[list[Task], int]:
    """The pictures with their targets, sorted, and the number of other files.

    Two pictures of a folder that differ only in their ending keep it in the target's name.
    """
    if not source.is_dir():
        raise DataError(f"{source} should be a folder of pictures; there is none.")
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"The crops should go outside of {source}; {target} lies in it.")
    files = sorted(path for path in source.rglob("*") if path.is_file())
    pictures = [path for path in files if is_image_name(path)]
    if not pictures:
        raise DataError(f"{source} should hold folders of pictures; no picture was found.")
    stems = Counter(path.with_suffix("") for path in pictures)
    tasks = []
    for path in pictures:
        stem = path.stem if stems[path.with_suffix("")] == 1 else path.name
        relative = path.relative_to(source).with_name(f"{stem}.{settings.format}")
        tasks.append(Task(path, target / relative))
    return tasks, len(files) - len(pictures)


def _run(
    tasks: list[Task], settings: AlignSettings, target: Path, workers: int
) -> Iterator[Outcome]:
    """Outcomes in the order in which they come."""
    if not tasks:
        return
    if workers == 1 or len(tasks) == 1:
        worker = Worker.open(settings, target, threads=workers)
        yield from map(worker.align, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=align_one.start, initargs=(settings, target)
    ) as pool:
        queue = iter(tasks)
        running: set[Future[Outcome]] = set()
        try:
            while True:
                free = workers * AHEAD - len(running)
                running |= {pool.submit(align_one.run, task) for task in islice(queue, free)}
                if not running:
                    return
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _claim(target: Path, settings: AlignSettings) -> None:
    """Write the settings beside the crops, or check that they are the same as before."""
    path = target / SETTINGS
    wanted = asdict(settings)
    for place in ("engine", "device"):
        wanted.pop(place)
    wanted = json.loads(json.dumps(wanted))
    if path.exists():
        try:
            before = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} should hold the settings of {target}; {error}.") from error
        if before != wanted:
            changed = sorted(key for key in wanted if before.get(key) != wanted[key])
            raise SettingsError(
                f"{target} was made with another {', '.join(changed)}. Choose another folder, or "
                f"remove {target} to begin anew."
            )
    else:
        write_text(path, json.dumps(wanted, indent=1))


def _is_done(task: Task, target: Path, lines: dict[str, str], settings: AlignSettings) -> bool:
    """Whether every crop of a picture is there, or it is known to have no face."""
    if lines.get(_key(task.target, target)) == "":
        return True
    if settings.select != "all":
        return task.target.is_file()
    crops = takewhile(lambda path: _key(path, target) in lines, numbered(task.target))
    there = [path.is_file() for path in crops]
    return bool(there) and all(there)


def _key(path: Path, target: Path) -> str:
    return path.relative_to(target).as_posix()


def _read_lines(path: Path) -> dict[str, str]:
    """Crop path -> box text ("" without a face) of an earlier run; half a line is dropped."""
    if not path.exists():
        return {}
    text = path.read_text("utf-8", errors="surrogateescape")
    whole = text[: text.rfind("\n") + 1]
    return dict(_split(line) for line in whole.splitlines() if line)


def _split(line: str) -> tuple[str, str]:
    parts = line.rsplit(" ", 4)
    if len(parts) == 5 and all(part.lstrip("-").isdigit() for part in parts[1:]):
        return parts[0], " ".join(parts[1:])
    return line, ""


def _tidy(path: Path) -> None:
    """Sort the list and keep the last line of each crop."""
    lines = sorted(_read_lines(path).items())
    write_text(path, "".join(f"{name} {box}".rstrip() + "\n" for name, box in lines))
