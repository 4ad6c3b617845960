"""Simulated power cuts (reliability.md A2).

A kill leaves what was written to the system's memory; a power cut does not. A program runs over
shim.c, which records everything that goes to the disk, what the program says among it. Then the
disk is put together as it may be after a cut at random points of the record, and the gallery on it
is opened and compared with what had been said up to there.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crashing.disk import Disk, Event, build_shim, environment, events
from crashing.erasures import Claims
from crashing.kills import Tally
from crashing.ledger import Ledger, State
from crashing.operations import Program, Voice, make_templates, present
from facenet.errors import FacenetError
from facenet.gallery.sqlite import SqliteStore

STEPS = 120
"""Operations of one program."""
CUTS = 100
"""Cuts of one record."""
SAID = "said"


def run(cuts: int, seed: int, *, weak: str | None = None) -> Tally:
    """Cut the power so many times. weak: a value of `synchronous` that the store did not ask for,
    for a negative control."""
    total = Tally()
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="facenet-cuts-") as scratch:
        library = build_shim(Path(scratch))
        while total.kills < cuts:
            number = min(CUTS, cuts - total.kills)
            record = recorded(Path(scratch), library, int(random.integers(1 << 31)), weak)
            total.add(replay(record, number, random))
    return total


def recorded(scratch: Path, library: Path, seed: int, weak: str | None) -> Path:
    """The record of one program, from the creation of its gallery on."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        record = scratch / f"record-{seed}"
        make_templates(Path(folder) / "gallery.db", seed)
        command = [sys.executable, "-m", "crashing.cuts", folder, str(seed), str(weak or "")]
        paths = os.pathsep.join(path for path in sys.path if path)
        home = environment(library, Path(folder), record) | {"PYTHONPATH": paths}
        subprocess.run(command, check=True, env=home)
        return record


def replay(record: Path, cuts: int, random: np.random.Generator) -> Tally:
    """Cut at random points of a record, and compare."""
    story = list(events(record))
    record.unlink()
    said = said_inode(story)
    points = sorted(random.integers(len(story) + 1, size=cuts).tolist())
    disk, ledger, tally, done = Disk(), Ledger([{}]), Tally(), 0
    claims, doing = Claims(), "create"
    for point in points:
        for event in story[done:point]:
            if event.inode == said and event.kind == "w":
                told = json.loads(event.data)
                doing = told.get("doing", doing)
                tally.acks += ledger.read([event.data])
                claims.read([event.data])
            elif event.inode != said:
                disk.take(event)
        done = point
        tally.kills += 1
        tally.during[doing] += 1
        _look(disk, ledger, claims, tally, random)
    return tally


def said_inode(story: list[Event]) -> int:
    """The file in which the program speaks."""
    return next(one.inode for one in story if one.kind == "c" and one.data == SAID.encode())


def _look(
    disk: Disk, ledger: Ledger, claims: Claims, tally: Tally, random: np.random.Generator
) -> None:
    """Cut the power now, open what is left, and compare."""
    with tempfile.TemporaryDirectory(prefix="facenet-cut-") as folder:
        disk.cut(Path(folder), random)
        try:
            actual = after_cut(Path(folder))
        except FacenetError as error:
            tally.repairs += 1
            tally.told.append(f"cut {tally.kills}: repair: {error}")
            return
        told = tally.looked_after(*claims.left(Path(folder) / "gallery.db", actual))
        tally.told += [f"cut {tally.kills}: {word}" for word in told if len(tally.told) < 10]
    verdict = ledger.judge(actual)
    tally.lost += len(verdict.lost)
    tally.phantom += len(verdict.phantom)
    if len(verdict) and len(tally.told) < 10:
        lists = f"lost {verdict.lost[:5]}, phantom {verdict.phantom[:5]}"
        tally.told.append(f"cut {tally.kills}: {lists}")


def after_cut(folder: Path) -> State:
    """What is there; nothing before the gallery was made."""
    path = folder / "gallery.db"
    return present(path) if path.exists() else {}


def _speak(folder: Path, seed: int, weak: str) -> None:
    """The program that is recorded."""
    descriptor = os.open(folder / SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(what: Mapping[str, Any]) -> None:
        os.write(descriptor, json.dumps(what).encode() + b"\n")

    if weak:
        weaken(weak)
    voice = Voice(say)
    path = folder / "gallery.db"
    with voice.change({"revision": "0"}):
        store = SqliteStore(path, create=True)
    program = Program(path, store, voice, seed)
    for _ in range(STEPS):
        program.step()
    store.close()


def weaken(synchronous: str) -> None:
    """From now on every connection of this program has another `synchronous` than it asked for,
    and says it had not."""
    genuine = sqlite3.connect

    class Weak(sqlite3.Connection):
        def execute(self, statement: str, *more: Any) -> Any:
            if "synchronous" in statement:
                super().execute(f"PRAGMA synchronous = {synchronous}")
                return super().execute("SELECT 2")
            return super().execute(statement, *more)

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        return genuine(*given, factory=Weak, **named)

    sqlite3.connect = connect  # type: ignore[assignment]


if __name__ == "__main__":
    _speak(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
