"""Kills that are aimed: each falls on a statement to SQLite that follows the commit of a deletion.

Random kills seldom come between a deletion and the clearing of the pages, and in a small gallery
there is seldom anything to clear. Here a gallery is made in which there is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from crashing.erasures import WINDOW, Claims, claimed
from crashing.ledger import contents
from crashing.operations import opened, put_faces, put_person
from facenet.errors import DamagedGalleryError
from facenet.gallery import corrections
from facenet.gallery.backup import verify
from facenet.gallery.erasing import OWED
from facenet.gallery.records import EnrolledFace, Person
from facenet.gallery.sqlite import SqliteStore

STATEMENTS = 30
"""Statements to SQLite after the commit of a deletion that a kill is aimed at."""
DRAFTS, AT_ONCE = 10, 20
"""Drafts between two looks for bytes that rows have left, and new people in each."""


class Range:
    """A gallery in which rows were moved between pages, to aim kills at. Its people who are hit
    have bytes where no row of theirs lies, which only the clearing of pages takes away."""

    def __init__(self, path: Path, random: np.random.Generator) -> None:
        self.path, self._random = path, random
        SqliteStore(path, create=True).close()
        while not (marks := [who for who in _strewn(path) if _leaves(path, who)]):
            _crowd(path, random)
        self.marks, self.data = marks, path.read_bytes()
        with opened(path) as view:
            self.before = contents(view)

    def hit(self, *, forgetful: bool) -> tuple[int, list[str]]:
        """Kill a program after the commit of its deletion: 1 if it was made, and what was left.

        forgetful: the note that an erasure is owed is struck out. Raises FacenetError for a gallery
        that is not sound afterwards.
        """
        for old in self.path.parent.glob(f"{self.path.name}*"):
            old.unlink()
        self.path.write_bytes(self.data)
        who = self.marks[int(self._random.integers(len(self.marks)))]
        claims = Claims()
        with opened(self.path) as view:
            told = claimed(view, [who], [])
        claims.read([json.dumps(told).encode() + b"\n"])
        at = int(self._random.integers(1, STATEMENTS + 1))
        child = os.fork()
        if not child:
            delete(self.path, who, at)
        os.waitpid(child, 0)
        if forgetful:
            strike_out(self.path)
        with opened(self.path) as view:
            actual = contents(view)
        problems = verify(self.path).problems
        numbers = {row.partition(":")[2] for row in told["erase"]}
        gone = {name for name in self.before if name not in actual}
        if problems or any(name.rpartition(":")[2] not in numbers for name in gone):
            raise DamagedGalleryError(f"after a kill that was aimed: {problems}, {sorted(gone)}")
        return claims.left(self.path, actual)


def _crowd(path: Path, random: np.random.Generator) -> None:
    """More people, draft by draft: pages split, and rows move between them."""
    store = SqliteStore(path)
    for _ in range(DRAFTS):
        with store.write() as draft:
            for _ in range(AT_ONCE):
                put_faces(draft, random, put_person(draft, random).id, 1)
    store.close()


def _strewn(path: Path) -> list[str]:
    """People of whom a file has more than their rows."""
    found, data = [], path.read_bytes()
    with opened(path) as view:
        for person in view.find(Person):
            (face,) = view.find(EnrolledFace, person=person.id)
            once = [row.tobytes()[:WINDOW] for row in view.vectors("space-0", ids=[face.id]).rows]
            twice = [text.encode() for text in (person.name, face.photo, face.source)]
            if any(data.count(one) > 1 for one in once) or any(data.count(t) > 2 for t in twice):
                found.append(person.id)
    return found


def _leaves(path: Path, who: str) -> bool:
    """Whether a plain deletion of somebody leaves bytes of them in a copy of the file."""
    copy = path.with_name(f"{path.name}-copy")
    shutil.copyfile(path, copy)
    claims = Claims()
    with opened(copy) as view:
        claims.read([json.dumps(claimed(view, [who], [])).encode() + b"\n"])
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        faces = "IN (SELECT key FROM face WHERE person = ?)"
        for where in (f"vector WHERE face {faces}", f"crop WHERE key {faces}"):
            connection.execute(f"DELETE FROM {where}", (who,))
        for where in ("face WHERE person = ?", "person WHERE key = ?"):
            connection.execute(f"DELETE FROM {where}", (who,))
    found = claims.left(copy, {})[1]
    copy.unlink()
    return bool(found)


def delete(path: Path, who: str, at: int) -> None:
    """The life of a program that is killed after a deletion; it does not come back."""
    try:
        with opened(path):  # what a process does once is not in the way then
            aim(at)
        store = SqliteStore(path)
        corrections.delete_person(store, who)
    finally:
        os._exit(0)


def aim(at: int) -> None:
    """From now on this program kills itself at so-manieth a statement after the next commit."""
    genuine, left = sqlite3.connect, [-1]

    class Aimed(sqlite3.Connection):
        def execute(self, statement: str, *more: Any) -> Any:
            left[0] -= left[0] > 0
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = super().execute(statement, *more)
            if statement == "COMMIT" and left[0] < 0:
                left[0] = at
            return answer

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        return genuine(*given, factory=Aimed, **named)

    sqlite3.connect = connect  # type: ignore[assignment]


def strike_out(path: Path) -> None:
    """Take out the note that an erasure is owed, for a negative control."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM tally WHERE name = ?", (OWED,))
