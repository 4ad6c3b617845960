"""A gallery in one SQLite file: durable, for many readers and one writer at a time.

Write-ahead logging with `synchronous = FULL`, as SQLite's documents ask for where a commit must
survive a power cut; `secure_delete` and a truncated log so that what was deleted leaves the disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from facenet.errors import DamagedGalleryError, FacenetError, GalleryError, StorageError
from facenet.gallery.descriptors import Held
from facenet.gallery.erasing import erase
from facenet.gallery.migrations import MIGRATIONS, expected_schema, migrate, schema
from facenet.gallery.seals import ADVICE
from facenet.gallery.sqlitedraft import SqliteDraft
from facenet.gallery.sqlitefile import (
    connect,
    create_file,
    guard,
    held_gallery,
    identity,
    named,
    remove_file,
    size_of,
    sqlite_errors,
)
from facenet.gallery.sqliterows import SqliteView

SPARE = 8
"""Connections that are kept open for the next reader."""


class SqliteStore:
    """See `facenet.gallery.store.Store`.

    place: the file. create: make a new one. wait: seconds for another process that writes.
    migrations: see `gallery.migrations`; an older file is brought up to them when it is opened.
    checked: False reads damaged rows as they are, to save what can be saved; never for answers.

    Raises GalleryError for a missing or foreign file and for one of a newer facenet,
    DamagedGalleryError for a broken one, StorageError when the disk does not let it.
    """

    def __init__(
        self,
        place: str | Path,
        *,
        create: bool = False,
        wait: float = 30.0,
        migrations: Sequence[str] = MIGRATIONS,
        checked: bool = True,
    ) -> None:
        self.path = Path(os.path.abspath(place)) if "\0" not in str(place) else Path(str(place))
        self.place = named(self.path)
        self._wait, self._migrations, self._checked = wait, tuple(migrations), checked
        self._spare: list[sqlite3.Connection] = []
        self._guard, self._writer = threading.Lock(), threading.Lock()
        self._writing_thread: int | None = None
        self._open, self._erasing, self._old_log = True, False, False
        self._process = os.getpid()
        self._identity: tuple[int, int] | None = None
        self._options = "mode=rw"
        self._held: list[Held] = []
        self._connections = 0
        if create:
            create_file(self.path, self._migrations)
        try:
            self._first_look()
            _STORES.add(self)
        finally:
            if self not in _STORES:
                self.close()
                if create:
                    remove_file(self.path)

    @property
    def pending_erasure(self) -> bool:
        """Whether deleted bytes still lie in the file or its log, because somebody was reading it;
        cleared with the next write, or when the gallery is closed or opened."""
        return self._erasing

    @contextmanager
    def read(self) -> Iterator[SqliteView]:
        """What was last committed, the same from beginning to end of the block."""
        before = self._still()
        with self._connected() as connection, self._transaction(connection, "BEGIN"):
            view = SqliteView(connection, self.place, checked=self._checked)
            try:
                yield view
            finally:
                view.valid = False
        if before != self._still():
            raise GalleryError(
                f"The gallery {self.place} was changed while it was read from a folder that cannot "
                "be written. Try again."
            )

    @contextmanager
    def write(self) -> Iterator[SqliteDraft]:
        """A draft, on the disk when the block has been left without an error.

        Raises GalleryError when another process is writing for longer than `wait` seconds, or when
        this thread has a draft open; StorageError when the disk is full or cannot be written.
        """
        with self._alone(), self._connected() as connection:
            self._require_writable()
            with self._transaction(connection, "BEGIN IMMEDIATE"):
                draft = SqliteDraft(connection, self.place, checked=self._checked)
                try:
                    yield draft
                    draft.finish()
                    with sqlite_errors(self.place):
                        connection.execute("COMMIT")
                finally:
                    draft.valid = False
            self._erasing = self._erasing or draft.erases
            if self._erasing or self._old_log:
                self._clean(connection)

    def copy_to(self, target: Path) -> None:
        """Write what is committed now into a file that is there and empty, while others go on
        reading and writing. Raises StorageError when the disk is full."""
        with self._connected() as source, sqlite_errors(self.place):
            copy = connect(target)
            try:
                source.backup(copy)
            finally:
                copy.close()

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called."""
        return self._open

    def close(self) -> None:
        """Let go of the file; closing twice is harmless."""
        with self._guard:
            self._open = False
            spare, self._spare = self._spare, []
        for connection in spare:
            if self._erasing:
                self._clean(connection)
            self._shut(connection)
        self._let_go()

    def _first_look(self) -> None:
        """Is this a gallery, whole and of a version that is known here?"""
        self._held.append(held_gallery(self.path))
        with sqlite_errors(self.place):
            self._identity = identity(self.path)
            self._options = self._fitting_options()
        self._old_log = size_of(self.path, "-wal") > 0
        connection = self._connect()
        try:
            with sqlite_errors(self.place):
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version < len(self._migrations):
                    self._require_writable()
                    migrate(connection, self._migrations)
            with self._transaction(connection, "BEGIN"):
                with sqlite_errors(self.place):
                    found = schema(connection)
                if self._checked and found != expected_schema(self._migrations):
                    raise DamagedGalleryError(
                        f"The gallery {self.place} is damaged: its tables are not those of a "
                        f"gallery. {ADVICE}"
                    )
                owes = SqliteView(connection, self.place, checked=self._checked).owes
            if owes and self._checked and self._options == "mode=rw":
                self._erasing = True
                self._clean(connection)
        finally:
            self._give_back(connection)

    def _fitting_options(self) -> str:
        """How to open the file: to write; to read, with a log; or as one nobody can change."""
        if _writable(self.path) and _writable(self.path.parent):
            return "mode=rw"
        probe = connect(self.path, "mode=ro", self._wait)
        try:
            probe.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if size_of(self.path, "-wal"):
                raise StorageError(
                    f"The gallery {self.place} was not closed cleanly, and its folder cannot be "
                    "written, so that it cannot be read here. Open it once where it can be written."
                ) from error
            return "mode=ro&immutable=1"
        finally:
            probe.close()
        return "mode=ro"

    def _connect(self) -> sqlite3.Connection:
        with sqlite_errors(self.place):
            connection = connect(self.path, self._options, self._wait)
            done = False
            try:
                guard(connection, self.place, readonly=self._options != "mode=rw")
                done = True
            finally:
                if not done:
                    connection.close()
        with self._guard:
            self._connections += 1
        return connection

    def _shut(self, connection: sqlite3.Connection) -> None:
        connection.close()
        with self._guard:
            self._connections -= 1

    def _let_go(self) -> None:
        """Once the last connection is closed, and not before: see `gallery.descriptors`."""
        with self._guard:
            done = not self._open and not self._connections
            held, self._held = (self._held, []) if done else ([], self._held)
        for file in held:
            file.release()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._guard:
            self._require_open()
            with sqlite_errors(self.place):
                same = self.path.exists() and identity(self.path) == self._identity
            if same and self._spare:
                return self._spare.pop()
            stale, self._spare = self._spare, []
        for connection in stale:
            self._shut(connection)
        if not same:
            self._first_look()
            return self._take()
        return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._process != os.getpid():
            _INHERITED.append(connection)
            return
        with self._guard:
            immutable = "immutable" in self._options
            if self._open and len(self._spare) < SPARE and not immutable:
                self._spare.append(connection)
                return
        self._shut(connection)
        self._let_go()

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection, begin: str) -> Iterator[None]:
        """A transaction that is undone unless it was committed inside the block."""
        try:
            with sqlite_errors(self.place):
                connection.execute(begin)
                version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > len(self._migrations):
                raise GalleryError(
                    f"The gallery {self.place} was made by a newer facenet (schema {version}, here "
                    f"{len(self._migrations)}). Install that facenet."
                )
            yield
        finally:
            # Where the rollback fails too, the transaction has ended with its connection.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One draft at a time in this process; SQLite's lock is for the others."""
        own = threading.get_ident()
        if self._writing_thread == own:
            raise GalleryError(
                f"A draft of the gallery {self.place} is open in this thread already. Leave its "
                "`with` block first."
            )
        if not self._writer.acquire(timeout=self._wait):
            raise GalleryError(
                f"Another thread is writing to the gallery {self.place}, and did not end in "
                f"{self._wait:g} seconds. Nothing was changed; try again."
            )
        try:
            self._writing_thread = own
            yield
        finally:
            self._writing_thread = None
            self._writer.release()

    def _clean(self, connection: sqlite3.Connection) -> None:
        """Bring the log into the file, empty it, and clear what deleted rows left on their pages.
        What was committed stays so if that fails, and what is owed stays owed."""
        with suppress(sqlite3.Error, OSError, FacenetError):
            if erase(connection, self._fresh, self.path, self._held[-1]):
                self._erasing = self._old_log = False

    @contextmanager
    def _fresh(self) -> Iterator[sqlite3.Connection]:
        """A connection that has read nothing yet."""
        connection = self._connect()
        try:
            yield connection
        finally:
            self._shut(connection)

    def _still(self) -> object:
        """What would change if somebody wrote to a file that is read as unchangeable."""
        if "immutable" not in self._options:
            return None
        with sqlite_errors(self.place):
            now = os.stat(self.path)
        return now.st_ino, now.st_size, now.st_mtime_ns, size_of(self.path, "-wal")

    def _require_writable(self) -> None:
        if self._options != "mode=rw":
            raise StorageError(
                f"The gallery {self.place} can only be read: the file or its folder cannot be "
                "written. Give yourself that right, or copy the gallery to another folder."
            )

    def _require_open(self) -> None:
        if not self._open:
            raise GalleryError(f"The gallery {self.place} was closed. Open it again.")

    def _before_fork(self) -> None:
        """No connection may be in a forked process, or SQLite's locks there are wrong."""
        with self._guard:
            spare, self._spare = self._spare, []
        for connection in spare:
            self._shut(connection)

    def _after_fork(self) -> None:
        self._guard, self._writer = threading.Lock(), threading.Lock()
        self._writing_thread, self._process = None, os.getpid()


_STORES: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
"""The stores of this process, for a fork."""
_INHERITED: list[sqlite3.Connection] = []
"""Connections that came through a fork inside a block; to close them would harm the parent."""


def open_here(path: Path) -> bool:
    """Whether this process has the gallery at a path open."""
    return any(store.is_open and _same_file(store.path, path) for store in list(_STORES))


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _each_store(what: str) -> None:
    for store in list(_STORES):
        getattr(store, what)()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _each_store("_before_fork"),
        after_in_child=lambda: _each_store("_after_fork"),
    )


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
