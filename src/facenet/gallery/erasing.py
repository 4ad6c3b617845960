"""Erasures that are owed: what a deletion leaves to be done once it is committed.

A commit takes rows out of a gallery. Their bytes still lie in the log, and where rows were moved,
on pages they once lay on (`facenet.gallery.scrubbing`). So the deletion writes with its rows, in
the same transaction, that an erasure is owed. That note goes in the commit which follows the
clearing, when the cleared pages are on the disk. Whoever opens or changes the gallery after a
program was killed in between finds the note and does the work.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from facenet.gallery.descriptors import Held
from facenet.gallery.scrubbing import scrub
from facenet.gallery.snapshot import drop_snapshots
from facenet.gallery.sqlitefile import size_of

OWED = "owed"
"""Name of the tally that says an erasure is owed; it counts nothing."""
PATIENCE = 0.2
"""Seconds for which an erasure waits for readers; else it is done later."""

Fresh = Callable[[], AbstractContextManager[sqlite3.Connection]]


def erase(connection: sqlite3.Connection, fresh: Fresh, path: Path, file: Held) -> bool:
    """Empty the log, and clear the pages where that is owed; whether nothing is left to be done.

    fresh: gives a connection that has read nothing yet, for a copy of a page in memory might be
    written again. file: the gallery's. Raises sqlite3.Error, OSError, FacenetError; what was
    committed stays so then, and so does the note.
    """
    if not _emptied(connection):
        return False
    if not owes(connection):
        return True
    with fresh() as other:
        paid = _paid(other, path, file)
    return paid and _emptied(connection)


def owes(connection: sqlite3.Connection) -> bool:
    """Whether an erasure is owed."""
    question = "SELECT count(*) FROM tally WHERE name = ?"
    return bool(connection.execute(question, (OWED,)).fetchone()[0])


def _emptied(connection: sqlite3.Connection) -> bool:
    """Whether the log could be brought into the file: nobody reads from it any more."""
    wait = _patient(connection)
    try:
        return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        connection.execute(f"PRAGMA busy_timeout = {wait}")


def _paid(connection: sqlite3.Connection, path: Path, file: Held) -> bool:
    """Whether the pages could be cleared and the note taken out. Its commit makes everybody read
    the pages anew."""
    _patient(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if size_of(path, "-wal"):
            return False
        scrub(file)
        drop_snapshots(path)
        connection.execute("DELETE FROM tally WHERE name = ?", (OWED,))
        connection.execute("COMMIT")
        return True
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _patient(connection: sqlite3.Connection) -> int:
    """Wait no longer than `PATIENCE`; the milliseconds of before."""
    before = int(connection.execute("PRAGMA busy_timeout").fetchone()[0])
    connection.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
    return before
