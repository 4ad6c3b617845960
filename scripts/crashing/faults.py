"""A disk that is full or fails, at every call that can (reliability.md A3).

For each operation the k-th call that writes, syncs or names a file fails, for every k until none
is left. Then the error has to be a StorageError that does not speak of damage, reading has to go
on, nothing may be half done, and the same open store has to do the operation once there is space.
SQLite tests itself in this way (sqlite.org/testing.html, 3.2).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crashing.disk import build_shim, environment
from crashing.kills import PiecemealStore
from crashing.ledger import State, contents
from crashing.operations import (
    LATER,
    Program,
    Voice,
    digest_of,
    make_templates,
    opened,
    put_faces,
    put_person,
)
from facenet.errors import DamagedGalleryError, FacenetError, StorageError
from facenet.gallery import corrections
from facenet.gallery.backup import backup, restore, verify
from facenet.gallery.migrations import MIGRATIONS
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.store import Store

GROWS, SYNCS, SHRINKS, NAMES = 1, 2, 4, 8
MODES = {
    "full": (errno.ENOSPC, True, GROWS | SYNCS),
    "fails once": (errno.EIO, False, GROWS | SYNCS | SHRINKS | NAMES),
    "fails on": (errno.EIO, True, GROWS | SYNCS | SHRINKS | NAMES),
}
"""How a disk is bad -> errno, whether every later call fails too, and which calls."""
CALLS = 3000
"""More calls than any operation makes."""


@dataclass(frozen=True, slots=True)
class Case:
    """An operation. target: file that it makes or replaces, beside the gallery. schema: that its
    file is opened with. inside: it is done on an open store, and is one draft. like: a file with
    the rows that the target then has, none for a new gallery."""

    act: Callable[[Path, Store | None], Any]
    target: str = "gallery.db"
    schema: tuple[str, ...] = MIGRATIONS
    inside: bool = False
    like: str = "gallery.db"


def enrol(path: Path, store: Store | None) -> None:
    _add(store, 1, 1)


def many(path: Path, store: Store | None) -> None:
    _add(store, 6, 5)


def _add(store: Store | None, people: int, faces: int) -> None:
    assert store is not None
    with store.write() as draft:
        random = np.random.default_rng(1000 + draft.revision)
        for _ in range(people):
            put_faces(draft, random, put_person(draft, random).id, faces)


def delete(path: Path, store: Store | None) -> None:
    assert store is not None
    corrections.delete_person(store, Program(path, store, Voice(_silent), 1).people(1)[0])


def merge(path: Path, store: Store | None) -> None:
    assert store is not None
    into, other = Program(path, store, Voice(_silent), 2).people(2)
    corrections.merge(store, into, [other])


def _silent(what: Mapping[str, Any]) -> None:
    pass


CASES: Mapping[str, Case] = {
    "create": Case(
        lambda path, _: SqliteStore(path.with_name("new.db"), create=True), "new.db", like=""
    ),
    "enrol": Case(enrol, inside=True),
    "import": Case(many, inside=True),
    "delete": Case(delete, inside=True),
    "merge": Case(merge, inside=True),
    "backup": Case(lambda path, store: backup(store or path, path.with_name("copy.db")), "copy.db"),
    "migrate": Case(lambda path, _: SqliteStore(path, migrations=LATER), schema=LATER),
    "restore": Case(lambda path, _: restore(path.with_name("saved.db"), path), like="saved.db"),
}


class Trial:
    """One operation with one failing call, in a folder of its own."""

    def __init__(
        self, name: str, mode: str, at: int, origin: Path, folder: Path, *, broken: bool
    ) -> None:
        self.case, self.mode, self.at = CASES[name], mode, at
        for kept in origin.iterdir():
            shutil.copyfile(kept, folder / kept.name)
        self.path, self.target = folder / "gallery.db", folder / self.case.target
        self.problems: list[str] = []
        self.store: Store | None = None
        if name == "backup" or self.case.inside:
            self.store = SqliteStore(self.path)
            if broken:
                self.store = PiecemealStore(self.store)
            with self.store.read() as view:
                self.before = contents(view)
        else:
            self.before = self.there()
        self.finished = digest_of({})
        if self.case.like:
            with opened(folder / self.case.like) as view:
                self.finished = digest_of(contents(view))

    def run(self) -> bool:
        """Do it; whether a call failed."""
        names = set(os.listdir(self.path.parent))
        code, forever, kinds = MODES[self.mode]
        failed = None
        shim().disk_arm(ctypes.c_long(self.at), code, int(forever), kinds)
        try:
            self.act()
        except FacenetError as error:
            failed = error
            self.still_readable()
        finally:
            count = shim().disk_disarm()
        self.expect(failed is None or is_proper(failed), f"a wrong error: {failed!r}")
        if failed is not None:
            self.unchanged(names)
            self.again()
        self.whole()
        return bool(count >= self.at)

    def act(self) -> None:
        """The operation itself."""
        made = self.case.act(self.path, self.store)
        if isinstance(made, SqliteStore):
            made.close()

    def still_readable(self) -> None:
        """While the disk is bad, reading goes on."""
        if self.store is None:
            return
        try:
            with self.store.read() as view:
                found = contents(view)
        except FacenetError as error:
            self.expect(False, f"cannot be read: {error}")
            return
        self.expect(found == self.before, "the change that failed can be seen")

    def unchanged(self, names: set[str]) -> None:
        """Nothing is half done: the target is as it was, and no other file is left."""
        before = self.before if self.target == self.path else {}
        there = self.there()
        if self.mode == "fails on" and there != before:  # it could not be taken back: is it whole?
            self.expect(digest_of(there) == self.finished, "it failed and left a part")
            if self.target != self.path:
                self.target.unlink()
        else:
            self.expect(there == before, "it failed and changed something")
        left = {
            name for name in os.listdir(self.path.parent) if not name.endswith(("-wal", "-shm"))
        }
        if self.mode != "fails on":  # then nothing can be removed either
            self.expect(left <= names, f"files are left: {left - names}")

    def again(self) -> None:
        """With space again the same open store does it."""
        try:
            self.act()
        except FacenetError as error:
            self.expect(False, f"cannot be done afterwards: {error}")

    def whole(self) -> None:
        """At the end it is done, and every file is sound."""
        if self.store is not None:
            with self.store.read() as view:
                seen = contents(view)
            self.store.close()
            with opened(self.path) as view:
                self.expect(contents(view) == seen, "opened anew it holds something else")
            self.expect((seen != self.before) == self.case.inside, "the operation did nothing")
        for path in {self.path, self.target}:
            problems = verify_as(path, self.case.schema)
            self.expect(not problems, f"{path.name} is not sound: {problems}")

    def there(self) -> State:
        """What the target holds; a copy is opened, for a look would bring it to a newer schema."""
        if not self.target.exists():
            return {}
        if self.store is not None and self.target == self.path:
            with self.store.read() as view:
                return contents(view)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            for end in ("", "-wal"):
                with suppress(FileNotFoundError):
                    shutil.copyfile(f"{self.target}{end}", f"{copy}{end}")
            try:
                with opened(copy, self.case.schema) as view:
                    return contents(view)
            except StorageError as error:
                return {"error": str(error)}

    def expect(self, good: bool, problem: str) -> None:
        """Keep what is not as it should be."""
        if not good:
            self.problems.append(problem[:300])


def is_proper(error: FacenetError) -> bool:
    """A disk that fails is no damage, and no fault of the caller."""
    return isinstance(error, StorageError) and not isinstance(error, DamagedGalleryError)


def verify_as(path: Path, schema: tuple[str, ...]) -> tuple[str, ...]:
    """The problems of a file; one of a newer schema than the present is only read."""
    try:
        if schema == MIGRATIONS:
            return verify(path).problems
        with opened(path, schema) as view:
            contents(view)
    except FacenetError as error:
        return (str(error),)
    return ()


def shim() -> Any:
    """The functions of shim.c, which is loaded already."""
    return ctypes.CDLL(None)


def run(name: str, mode: str, disk: Path, *, every: int, broken: bool) -> tuple[int, list[str]]:
    """Fail the calls of an operation one after the other: how many, and what was wrong.

    every: of the calls from the fourth on only each so-manieth, for a quick look.
    """
    problems: list[str] = []
    at, trials = 1, 0
    while at < CALLS:
        with tempfile.TemporaryDirectory(dir=disk) as folder:
            trial = Trial(name, mode, at, disk / "origin", Path(folder), broken=broken)
            reached = trial.run()
        problems += [f"{name}, {mode}, call {at}: {problem}" for problem in trial.problems]
        if not reached:
            return trials, problems
        trials += 1
        at += 1 if at < 4 else every
    return trials, [*problems, f"{name}, {mode}: it never ends without a failing call"]


def prepare(folder: Path) -> None:
    """A small gallery in use for a while, and a backup of it, as every trial begins with."""
    path = folder / "gallery.db"
    make_templates(path, 3)
    os.replace(folder / "template", path)
    shutil.copyfile(path, folder / "saved.db")
    store = SqliteStore(path)
    program = Program(path, store, Voice(_silent), 4)
    for _ in range(3):
        many(path, store)
    corrections.rename(store, program.people(1)[0], "Somebody Else")
    store.close()
    for left in folder.iterdir():
        if left.suffix != ".db":
            left.unlink()


def collect(every: int = 1, *, broken: bool = False) -> list[dict[str, Any]]:
    """Run all of it over the shim, in another process: a row per operation and kind of failure.

    broken: with a store whose drafts are kept piece by piece, for a negative control.
    """
    with tempfile.TemporaryDirectory(prefix="facenet-faults-") as scratch:
        disk = Path(scratch) / "disk"
        disk.mkdir()
        library = build_shim(Path(scratch))
        command = [sys.executable, "-m", "crashing.faults", str(disk), str(every), str(int(broken))]
        paths = os.pathsep.join(path for path in sys.path if path)
        home = environment(library, disk) | {"PYTHONPATH": paths}
        answer = subprocess.run(command, check=True, env=home, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in answer.stdout.splitlines()]


def report(*, broken: bool) -> int:
    """Print a line per operation, and one at the end; 1 when anything was wrong."""
    rows = collect(10 if broken else 1, broken=broken)
    for row in rows:
        print(f"{row['name']}, {row['mode']}: {row['calls']} calls, {len(row['problems'])} wrong")
        for problem in row["problems"][:5]:
            print(f"  {problem}")
    calls, wrong = sum(row["calls"] for row in rows), sum(len(row["problems"]) for row in rows)
    print(f"{calls} failing calls: {wrong} wrong")
    return 1 if wrong else 0


def _main(disk: Path, every: int, broken: bool) -> None:
    (disk / "origin").mkdir()
    prepare(disk / "origin")
    for name, case in CASES.items():
        for mode in MODES:
            if broken and (mode != "full" or not case.inside):
                continue
            calls, problems = run(name, mode, disk, every=every, broken=broken)
            row = {"name": name, "mode": mode, "calls": calls, "problems": problems}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1")
