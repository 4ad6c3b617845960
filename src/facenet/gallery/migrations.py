"""The tables of a gallery file, as numbered scripts that are only ever appended to.

Script n brings a file from schema version n - 1 to n, in one transaction together with SQLite's
`user_version`; a program that is killed meanwhile leaves the file at the version it had. No copy
of the file is made before: a copy would bring erased people back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache

FIRST = """
CREATE TABLE tally (
    name TEXT PRIMARY KEY, count INTEGER NOT NULL, total BLOB NOT NULL, last INTEGER NOT NULL,
    seal BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE change (
    revision INTEGER PRIMARY KEY, put BLOB NOT NULL, gone BLOB NOT NULL, seal BLOB NOT NULL
);
CREATE TABLE erased (
    kind TEXT NOT NULL, key TEXT NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE person (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, external_id TEXT, body BLOB NOT NULL,
    seal BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX person_name ON person (name);
CREATE UNIQUE INDEX person_external_id ON person (external_id);
CREATE TABLE face (
    key INTEGER PRIMARY KEY, person TEXT NOT NULL REFERENCES person (key), photo TEXT NOT NULL,
    source TEXT NOT NULL, body BLOB NOT NULL, seal BLOB NOT NULL
);
CREATE INDEX face_person ON face (person);
CREATE INDEX face_photo ON face (photo);
CREATE INDEX face_source ON face (source);
CREATE TABLE crop (
    key INTEGER PRIMARY KEY REFERENCES face (key), body BLOB NOT NULL, seal BLOB NOT NULL
);
CREATE TABLE ruling (
    key TEXT PRIMARY KEY, face INTEGER NOT NULL REFERENCES face (key),
    person TEXT NOT NULL REFERENCES person (key), body BLOB NOT NULL, seal BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX ruling_face ON ruling (face);
CREATE INDEX ruling_person ON ruling (person);
CREATE TABLE apart (
    key TEXT PRIMARY KEY, first TEXT NOT NULL REFERENCES person (key),
    second TEXT NOT NULL REFERENCES person (key), body BLOB NOT NULL, seal BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX apart_first ON apart (first);
CREATE INDEX apart_second ON apart (second);
CREATE TABLE space (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, body BLOB NOT NULL, seal BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE vector (
    key INTEGER PRIMARY KEY, face INTEGER NOT NULL REFERENCES face (key), data BLOB NOT NULL,
    seal BLOB NOT NULL
);
CREATE INDEX vector_face ON vector (face);
CREATE TABLE entry (key INTEGER PRIMARY KEY, body BLOB NOT NULL, seal BLOB NOT NULL);
CREATE TABLE setting (key TEXT PRIMARY KEY, body BLOB NOT NULL, seal BLOB NOT NULL) WITHOUT ROWID;
"""
"""tally: per kind and per space the number of rows, the sum of their seals and the last number
given out; the revision is one too, and so is the note that an erasure is owed. change: the faces a
revision put and removed, int64. erased: ids that were deleted, for restore. vector.key is the
number of the space times 2**40 plus the face.
"""

MIGRATIONS: tuple[str, ...] = (FIRST,)
"""Script n - 1 leads to schema version n."""


def statements(script: str) -> Iterator[str]:
    """The statements of a script one by one (`executescript` would commit in between)."""
    lines: list[str] = []
    for line in script.splitlines():
        lines.append(line)
        text = "\n".join(lines).strip()
        if text and sqlite3.complete_statement(text):
            yield text
            lines = []


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> int:
    """Bring a file to the newest schema; how many scripts were run. Raises sqlite3.Error."""
    done = 0
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version >= len(migrations):
                return done
            for statement in statements(migrations[version]):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
            done += 1
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def schema(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """What a file says its tables are."""
    return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


@cache
def expected_schema(migrations: tuple[str, ...] = MIGRATIONS) -> list[tuple[object, ...]]:
    """What `schema` gives for a sound file."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.text_factory = bytes
        migrate(connection, migrations)
        return schema(connection)
    finally:
        connection.close()
