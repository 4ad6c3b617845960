"""Four processes write to one gallery, while it is read and backed up: every history is serial.

This file is also the program that they run. Each enrols people with two faces in one draft, gives
them other names and deletes them, and says in the order of its commits what it did.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facenet.gallery.backup import backup, verify
from facenet.gallery.records import EnrolledFace, Person, Space
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.store import Store, View

PROCESSES, BACKUPS, LEAST, MOST = 4, 20, 80, 3000
"""Writers run until there are so many backups and at least so many changes."""
WIDTH, CONTRACT = 16, "toy"


def work(path: Path, seed: int, changes: int, locked: bool) -> None:
    """What each process does, until it has made its changes or is told to stop."""
    if not locked:
        unlock()
    random = np.random.default_rng(seed)
    store, mine = SqliteStore(path), []
    for number in range(changes):
        if path.with_name("stop").exists():
            break
        choice = random.random()
        if choice < 0.6 or not mine:
            mine.append(enrol(store, f"{seed} enrolled {number}", random))
            said = [mine[-1].id, mine[-1].name]
        elif choice < 0.8:
            place = int(random.integers(len(mine)))
            mine[place] = replace(mine[place], name=f"{seed} renamed {number}")
            with store.write() as draft:
                draft.put(mine[place])
            said = [mine[place].id, mine[place].name]
        else:
            gone = mine.pop(int(random.integers(len(mine))))
            with store.write() as draft:
                draft.delete(Person, gone.id)
            said = [gone.id, None]
        print(json.dumps(said), flush=True)
    store.close()


def enrol(store: Store, name: str, random: np.random.Generator) -> Person:
    """Somebody with two faces."""
    person = Person(secrets.token_hex(8), name, 1.0)
    with store.write() as draft:
        draft.put(person)
        for _ in range(2):
            face = draft.next_id(EnrolledFace)
            row = random.standard_normal(WIDTH)
            draft.put(EnrolledFace(face, person.id, 1.0))
            draft.put_vectors(CONTRACT, {face: (row / np.linalg.norm(row)).astype(np.float32)})
    return person


def unlock() -> None:
    """Take transactions out of SQLite: what each statement does is there at once for everybody."""
    genuine = sqlite3.connect

    class Unlocked(sqlite3.Connection):
        in_transaction = True

        def execute(self, statement: str, *more: Any) -> Any:
            if statement.split()[:1] and statement.split()[0] in ("BEGIN", "COMMIT", "ROLLBACK"):
                statement = "SELECT 0"
            return super().execute(statement, *more)

    sqlite3.connect = lambda *given, **named: genuine(*given, factory=Unlocked, **named)


def started(path: Path, changes: int, *, locked: bool) -> list[subprocess.Popen[str]]:
    lock = "locked" if locked else "unlocked"
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(path), str(seed), str(changes), lock],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(PROCESSES)
    ]


def alive(processes: Sequence[subprocess.Popen[str]]) -> bool:
    return all(process.poll() is None for process in processes)


def ended(processes: Sequence[subprocess.Popen[str]]) -> tuple[list[list[Any]], list[str]]:
    """What each process said, and what went wrong."""
    answers = [process.communicate() for process in processes]
    histories = [[json.loads(line) for line in said.splitlines()] for said, _ in answers]
    wrong = [complaint[-400:] for _, complaint in answers if complaint]
    wrong += ["one did not end well" for process in processes if process.returncode]
    return histories, wrong


def names_after(history: Sequence[Any]) -> dict[str, str]:
    """The people of one process after some of its changes."""
    names: dict[str, str] = {}
    for person, name in history:
        names[person] = name
        if name is None:
            del names[person]
    return names


def broken_pairs(view: View) -> list[str]:
    """People who have not two faces with a vector each: half of a draft."""
    vectors = view.vectors(CONTRACT)
    owners = sorted(vectors.people)
    expected = sorted(2 * [person.id for person in view.find(Person)])
    faces = sorted(face.person for face in view.find(EnrolledFace))
    return [] if owners == faces == expected else [f"at revision {view.revision}"]


def is_prefix(view: View, histories: Sequence[Sequence[Any]]) -> bool:
    """Whether a gallery holds the beginning of each history, and as many changes as it says."""
    there = {person.id: person.name for person in view.find(Person)}
    lengths = []
    for seed, history in enumerate(histories):
        mine = {person: name for person, name in there.items() if name.startswith(f"{seed} ")}
        fits = {n for n in range(len(history) + 1) if names_after(history[:n]) == mine}
        lengths.append(fits)
    sums = {0}
    for fits in lengths:
        sums = {total + n for total in sums for n in fits}
    return view.revision - 1 in sums and not broken_pairs(view)


def created(folder: Path) -> Path:
    path = folder / "gallery.db"
    store = SqliteStore(path, create=True)
    with store.write() as draft:
        draft.put(Space(CONTRACT, "toy", WIDTH, "active", 0.0))
    store.close()
    return path


def test_every_change_of_four_writers_is_there_and_readers_and_backups_see_whole_drafts(
    tmp_path: Path,
) -> None:
    path = created(tmp_path)
    store = SqliteStore(path)
    processes = started(path, MOST, locked=True)
    halves: list[str] = []
    revisions, copies = [0], []
    while (len(copies) < BACKUPS or revisions[-1] < LEAST) and alive(processes):
        with store.read() as view:
            halves += broken_pairs(view)
            revisions.append(view.revision)
        if len(copies) < BACKUPS and revisions[-1] > 2 * len(copies):
            copies.append(tmp_path / f"backup-{len(copies)}.db")
            backup(store, copies[-1])
    (tmp_path / "stop").touch()
    histories, wrong = ended(processes)
    assert wrong == []
    assert halves == []
    assert revisions == sorted(revisions)
    with store.read() as view:
        assert view.revision == 1 + sum(len(history) for history in histories) > LEAST
        there = {person.id: person.name for person in view.find(Person)}
        ids = [face.id for face in view.find(EnrolledFace)]
    store.close()
    expected: dict[str, str] = {}
    for history in histories:
        assert len(history) > 0
        expected |= names_after(history)
    assert there == expected
    assert len(set(ids)) == len(ids) == 2 * len(there)
    assert verify(path).problems == ()
    assert len(copies) == BACKUPS
    for copy in copies:
        assert verify(copy).problems == ()
        restored = SqliteStore(copy)
        with restored.read() as view:
            assert is_prefix(view, histories)
        restored.close()


def test_without_the_lock_it_is_found_out(tmp_path: Path) -> None:
    path = created(tmp_path)
    processes = started(path, 20, locked=False)
    histories, wrong = ended(processes)
    problems = [*wrong, *verify(path).problems]
    assert len(problems) > 0
    assert any(len(history) > 0 for history in histories)


def test_a_gallery_that_lacks_a_change_is_no_prefix(tmp_path: Path) -> None:
    """The check of backups finds a change that is missing in the middle of a history."""
    path = created(tmp_path)
    store = SqliteStore(path)
    random = np.random.default_rng(0)
    people = [enrol(store, f"0 enrolled {number}", random) for number in range(3)]
    history = [[person.id, person.name] for person in people]
    with store.read() as view:
        assert is_prefix(view, [history])
        assert is_prefix(view, [[*history, ["later", "0 enrolled later"]]])
        assert not is_prefix(view, [[history[0], ["lost", "0 enrolled lost"], *history[1:]]])
        assert not is_prefix(view, [history[:2]])
    store.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "locked")
