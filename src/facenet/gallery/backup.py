"""Backups of a gallery: taken while it is in use, checked before they count, brought back.

A restore never needs the gallery it replaces to be whole. People and faces that were deleted since
the backup was taken do not come back: their ids (no names) are kept in the gallery's list of
erasures, which is read from the file that is replaced, and carried on. Where that file cannot be
read, the report says so, and the deletions since have to be made again by hand.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from facenet.errors import DamagedGalleryError, GalleryError, InputError, StorageError
from facenet.gallery.records import EnrolledFace, Person
from facenet.gallery.seals import ADVICE
from facenet.gallery.sqlite import SqliteStore, open_here
from facenet.gallery.sqlitedraft import SqliteDraft
from facenet.gallery.sqlitefile import (
    named,
    part_beside,
    require_no_log,
    sqlite_errors,
    sync,
    sync_name,
)
from facenet.gallery.sqliterows import SqliteView
from facenet.gallery.store import Store
from facenet.gallery.verifying import VerifyReport, open_as_it_is, verify

GAP = 1_000_000
"""By how much the counters go on after a restore without the old file, whose last ids nobody
knows: no id should be given out twice."""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What `restore` did. aside: where the file that was there is now, None when there was none or
    it was overwritten. erased: people and faces of the backup that were taken out again. known:
    whether the list of erasures could be read whole (True when there was no file)."""

    place: str
    aside: str | None
    erased: int
    known: bool
    report: VerifyReport


@dataclass(frozen=True, slots=True)
class _Past:
    """What must outlive a restore: ids of erased people and faces; where the faces of erased people
    are now; the revision and the counters, None when they cannot be read."""

    people: frozenset[str]
    faces: frozenset[int]
    moved: dict[int, Person]
    revision: int | None
    counters: dict[str, int]
    known: bool


def backup(source: Store | str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Copy a gallery into one file, at one revision, while others go on reading and writing.

    The copy is checked, brought to the disk, and takes its name at the end. overwrite: replace a
    file of that name. Raises GalleryError when there is one, DamagedGalleryError when the gallery
    is damaged, StorageError when the disk is full.
    """
    if not isinstance(source, SqliteStore | str | Path):
        raise InputError(
            f"A backup is of a gallery in a file; {source.place:.200} is none. Export it instead."
        )
    goal = Path(os.path.abspath(target))
    store = source if isinstance(source, SqliteStore) else SqliteStore(source)
    try:
        _require_free(goal, overwrite=overwrite)
        with part_beside(goal) as part:
            store.copy_to(part)
            _require_whole(part, store.place, "The gallery")
            SqliteStore(part).close()  # pays the erasure that the gallery may owe
            with sqlite_errors(named(goal)):
                require_no_log(part, named(goal))
                sync(part)
                there = goal.exists()
                os.replace(part, goal)
                sync(goal.parent) if there else sync_name(goal)
    finally:
        if store is not source:
            store.close()


def restore(saved: str | Path, place: str | Path, *, overwrite: bool = False) -> RestoreReport:
    """Put a backup where a gallery is or should be; that gallery may be damaged or missing.

    The backup is checked first, and stays. A file at `place` is kept beside it under another name,
    which the report gives, unless overwrite is set. Whoever reads an index of the gallery will read
    everything again. Raises GalleryError when a program has the gallery open, DamagedGalleryError
    when the backup is damaged; then nothing was changed.
    """
    origin, goal = Path(os.path.abspath(saved)), Path(os.path.abspath(place))
    _require_whole(origin, named(origin), "The backup")
    if goal.is_dir() or (goal.exists() and origin.samefile(goal)):
        raise GalleryError(
            "A backup should be restored to another file than itself or a folder; got "
            f"{named(goal)}. Name the file of the gallery."
        )
    _require_unused(goal)
    past = _past(goal)
    with part_beside(goal) as part:
        store = open_as_it_is(origin, checked=True)
        try:
            store.copy_to(part)
        finally:
            store.close()
        erased = _settle(part, past)
        report = verify(part)
        aside = _take_place(part, goal, overwrite=overwrite)
    return RestoreReport(named(goal), aside, erased, past.known, report)


def _past(goal: Path) -> _Past:
    """What the file that is to be replaced still tells."""
    nothing = _Past(frozenset(), frozenset(), {}, None, {}, known=not goal.exists())
    for checked in (True, False):
        with suppress(StorageError):
            store = open_as_it_is(goal, checked=checked)
            try:
                with store.read() as view:
                    return _told(view, known=checked)
            finally:
                store.close()
    return nothing


def _told(view: SqliteView, *, known: bool) -> _Past:
    erased = view.erased()
    faces = frozenset(int(face) for face in erased["face"] if face.isdecimal())
    people, moved = frozenset(erased["person"]), {}
    if people:
        owners = {person.id: person for person in view.find(Person)}
        for face in view.find(EnrolledFace):
            if face.person in owners:
                moved[face.id] = owners[face.person]
    counters = {kind: view.tally(kind).last for kind in ("face", "entry", "space")}
    return _Past(people, faces, moved, view.revision, counters, known)


def _settle(part: Path, past: _Past) -> int:
    """Make a copy of a backup the successor of what was there; how many rows were taken out."""
    store = SqliteStore(part)
    try:
        with store.write() as draft:
            erased = sum(draft.delete(EnrolledFace, face) for face in sorted(past.faces))
            for person in sorted(past.people):
                _rehome(draft, person, past)
                erased += draft.delete(Person, person)
            draft.remember_erased("face", past.faces)
            draft.remember_erased("person", past.people)
            gap = GAP if past.revision is None and not past.known else 0
            for kind in ("face", "entry", "space"):
                draft.raise_counter(kind, past.counters.get(kind, 0), gap)
            last = max(draft.revision, past.revision or 0)
            draft.forget_changes(last + 1 + secrets.randbelow(1 << 40))
    finally:
        store.close()
    return erased


def _rehome(draft: SqliteDraft, person: str, past: _Past) -> None:
    """Faces of a person who is gone but not theirs go to whom they belonged at last."""
    for face in draft.find(EnrolledFace, person=person):
        owner = past.moved.get(face.id)
        if owner is not None:
            if draft.get(Person, owner.id) is None:
                draft.put(owner)
            draft.put(replace(face, person=owner.id))


def _require_whole(path: Path, place: str, what: str) -> None:
    report = verify(path)
    if not report.ok:
        raise DamagedGalleryError(
            f"{what} {place} is damaged: {' '.join(report.problems)[:300]} "
            f"{ADVICE if what == 'The gallery' else 'Take an older one.'}"
        )


def _require_free(goal: Path, *, overwrite: bool) -> None:
    if goal.is_dir() or (goal.exists() and not overwrite):
        raise GalleryError(
            f"There is something already at {named(goal)}. Choose another name, or say to "
            "overwrite it."
        )
    if goal.exists() and (open_here(goal) or Path(f"{goal}-wal").exists()):
        raise GalleryError(
            f"{named(goal)} is a gallery in use, and no place for a backup. Choose another name."
        )


def _require_unused(goal: Path) -> None:
    """Raise GalleryError when a program has the gallery open. On Windows the system does that."""
    if not goal.exists():
        return
    used = open_here(goal)
    if not used and sys.platform != "win32":
        with sqlite_errors(named(goal)):
            used = _locked(goal)
    if used:
        raise GalleryError(
            f"The gallery {named(goal)} is open in a program. End it, then restore again."
        )


def _locked(path: Path) -> bool:
    """Whether a process holds one of SQLite's locks (the bytes from 2**30 on), even if the file is
    too damaged for SQLite to ask."""
    import fcntl

    with path.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 512, 1 << 30)
        except BlockingIOError:
            return True
    return False


def _take_place(part: Path, goal: Path, *, overwrite: bool) -> str | None:
    """Let the new file take its place. At no time is there neither; a log of the old one is put
    away first, for SQLite would play it into the new one. What fails is taken back."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = goal.with_name(f"{goal.name}.replaced-{stamp}-{secrets.token_hex(2)}")
    kept = goal.exists() and not overwrite
    with sqlite_errors(named(goal)):
        require_no_log(part, named(goal))
        sync(part)
        done = False
        try:
            if kept:
                os.link(goal, aside)
                _move_log(goal, aside)
            for end in ("-wal", "-shm"):
                Path(f"{goal}{end}").unlink(missing_ok=True)
            there = goal.exists()
            os.replace(part, goal)
            sync(goal.parent) if there else sync_name(goal)
            done = True
        finally:
            if kept and not done:
                _put_back(aside, goal)
    return named(aside) if kept else None


def _move_log(old: Path, new: Path) -> None:
    with suppress(FileNotFoundError):
        os.replace(f"{old}-wal", f"{new}-wal")


def _put_back(aside: Path, goal: Path) -> None:
    with suppress(OSError):
        if aside.exists():
            os.replace(aside, goal)
            aside.unlink(missing_ok=True)  # two names of one file stay two
            _move_log(aside, goal)
