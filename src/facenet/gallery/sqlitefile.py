"""A gallery's SQLite file: made in one step, told from other files, opened with every guard on.

Every pragma is set and read back, for other builds of SQLite have other defaults. Errors of SQLite
and of the disk become one sentence each, here and nowhere else.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from facenet.errors import DamagedGalleryError, FacenetError, GalleryError, StorageError
from facenet.gallery.descriptors import Held
from facenet.gallery.migrations import migrate
from facenet.gallery.seals import ADVICE

APPLICATION_ID = 0x46434E47
"""The letters FCNG, at byte 68 of the file."""
PAGE_SIZE = 16_384
"""Bytes; seven vectors of 512 floats fit in, where 4,096 would hold one."""

GUARDS: tuple[tuple[str, str, object], ...] = (
    ("synchronous", "FULL", 2),
    ("secure_delete", "ON", 1),
    ("foreign_keys", "ON", 1),
    ("trusted_schema", "OFF", 0),
    ("cell_size_check", "ON", 1),
    ("temp_store", "MEMORY", 2),
    ("mmap_size", "0", 0),
)
"""Pragma, what it is set to, what it then answers. No name reaches a temporary file, and a file
that shrinks while it is read is an error and no signal."""
MAC_GUARDS = (("fullfsync", "ON", 1), ("checkpoint_fullfsync", "ON", 1))
"""On macOS only these bring bytes to the disk."""

PART = ".facenet-"
"""What names of unfinished files begin with."""
LEFT_BEHIND = 3600.0
"""Seconds without a change after which an unfinished file is nobody's."""
HEADER = 100
"""Bytes of the header of an SQLite file."""


@contextmanager
def sqlite_errors(place: str) -> Iterator[None]:
    """Turn errors of SQLite and of the disk into the one sentence of each."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(place, error) from error
    except UnicodeDecodeError as error:
        # The words of SQLite's own error quote bytes of the file.
        raise DamagedGalleryError(f"The gallery {place} is damaged. {ADVICE}") from error
    except OSError as error:
        raise StorageError(
            f"Cannot use the gallery {place}: {error.strerror or error}. Check the path, its "
            "folder's rights and the disk."
        ) from error


def _translated(place: str, error: sqlite3.Error) -> FacenetError:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.ProgrammingError):
        return GalleryError(f"The gallery {place} was closed meanwhile. Open it again.")
    kind, text = (code or 1) & 0xFF, str(error)[:120]
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return GalleryError(
            f"Another process is writing to the gallery {place}, and did not end in time. Nothing "
            "was changed; try again when it is done."
        )
    if kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return StorageError(
            f"The disk of the gallery {place} is full or failed ({text}). This change was not "
            "kept, and nothing from before was lost; free some space, then try again."
        )
    if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StorageError(
            f"The gallery {place} cannot be written here ({text}). Give yourself the right to "
            "write the file and its folder, or copy both elsewhere."
        )
    return DamagedGalleryError(f"The gallery {place} is damaged ({text}). {ADVICE}")


def named(path: Path) -> str:
    """A path as messages give it: bounded, and printable whatever the bytes of its name."""
    return os.fsencode(path).decode("utf-8", "replace")[:300]


def held_gallery(path: Path) -> Held:
    """The file of a gallery, held open. Raises GalleryError for what is no gallery at all, before
    SQLite touches it."""
    place = named(path)
    try:
        if path.exists() and not path.is_file():
            raise GalleryError(f"A gallery is a file; {place} is a folder. Name the file in it.")
        file = Held(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GalleryError(
            f"There is no gallery at {place}. Make one with `facenet gallery create`."
        ) from error
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Cannot read the gallery {place}: {getattr(error, 'strerror', None) or error}. Check "
            "its path and your rights."
        ) from error
    sound = False
    try:
        with sqlite_errors(place):
            _require_head(place, file.read(0, HEADER))
        sound = True
    finally:
        if not sound:
            file.release()
    return file


def _require_head(place: str, head: bytes) -> None:
    if not head:
        raise DamagedGalleryError(
            f"The gallery {place} is empty, as if a copy had been broken off. {ADVICE}"
        )
    if not head.startswith(b"SQLite format 3\x00") or len(head) < HEADER:
        raise DamagedGalleryError(
            f"{place} is no gallery, or its beginning is damaged: it is not an SQLite file. Check "
            f"the path. {ADVICE}"
        )
    if int.from_bytes(head[68:72], "big") != APPLICATION_ID:
        raise GalleryError(
            f"{place} is an SQLite file of another program and no gallery. Check the path."
        )


def create_file(path: Path, migrations: Sequence[str]) -> None:
    """A new, empty gallery that is there whole or not at all, readable by its owner only.

    Raises GalleryError when there is a file already, StorageError when it cannot be made.
    """
    place = named(path)
    try:
        with sqlite_errors(place):
            if path.exists() or path.is_symlink():
                raise FileExistsError
        with part_beside(path) as part, sqlite_errors(place):
            with closing(connect(part)) as connection:
                connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
                guard(connection, place)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                migrate(connection, migrations)
            require_no_log(part, place)
            _publish(part, path)
    except (FileExistsError, StorageError) as error:
        if isinstance(error, FileExistsError) or isinstance(error.__cause__, FileExistsError):
            raise GalleryError(
                f"There is a file already at {place}. Open it, or choose another name."
            ) from error
        raise


@contextmanager
def part_beside(goal: Path) -> Iterator[Path]:
    """An empty, private file beside the goal, which is gone at the end, as are those that programs
    which were killed have left. Raises StorageError."""
    part = goal.parent / f"{PART}{secrets.token_hex(8)}.part"
    try:
        with sqlite_errors(named(goal)):
            goal.parent.mkdir(parents=True, exist_ok=True)
            remove_old_parts(goal.parent)
            private_file(part)
        yield part
    finally:
        remove_file(part)


def remove_file(path: Path) -> None:
    """Remove a file that is not wanted after all, and what SQLite laid beside it."""
    for end in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            Path(f"{path}{end}").unlink()


def remove_old_parts(folder: Path) -> None:
    """Remove what programs that were killed meant to finish: nobody wrote to it for an hour."""
    for left in folder.glob(f"{PART}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_BEHIND:
                left.unlink()


def require_no_log(part: Path, place: str) -> None:
    """Raise StorageError where closing could not bring the log of a new file into it: SQLite says
    nothing of it then, and leaves the log."""
    if size_of(part, "-wal"):
        raise StorageError(
            f"The disk of {place} is full or failed while its new file was written. Nothing was "
            "changed; free some space, then try again."
        )


def private_file(path: Path) -> None:
    """An empty file that only its owner may read and write; SQLite gives its -wal the same mode."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _publish(part: Path, path: Path) -> None:
    """Give a file its name unless that is taken. A link does it in one step where there are any."""
    sync(part)
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError from None
        os.replace(part, path)
    sync_name(path)


def sync_name(path: Path) -> None:
    """Bring the name of a new file to the disk; where that fails the file is not there."""
    done = False
    try:
        sync(path.parent)
        done = True
    finally:
        if not done:
            with suppress(OSError):
                path.unlink()


def sync(path: Path) -> None:
    """Bring a file or the names of a folder to the disk."""
    if path.is_dir() and os.name == "nt":
        return
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def identity(path: Path) -> tuple[int, int]:
    """What tells a file from another of its name. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def size_of(path: Path, end: str) -> int:
    """Bytes of the file whose name has this end too; none where there is no such file."""
    try:
        return os.stat(f"{path}{end}").st_size
    except OSError:
        return 0


def connect(path: Path, options: str = "mode=rw", wait: float = 30.0) -> sqlite3.Connection:
    """A connection for any thread, without implicit transactions, that never makes a file.

    Text comes as its UTF-8 bytes. wait: seconds for another process that writes.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=wait,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = bytes
    return connection


def guard(connection: sqlite3.Connection, place: str, *, readonly: bool = False) -> None:
    """Set every pragma and read it back. Raises GalleryError for one that did not take."""
    if not readonly:
        answer = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if answer not in (b"wal", "wal"):
            raise GalleryError(
                f"The gallery {place} needs SQLite's write-ahead log; this file system does not "
                "allow it. Put the gallery on a local disk."
            )
    for name, value, expected in GUARDS + (MAC_GUARDS if sys.platform == "darwin" else ()):
        connection.execute(f"PRAGMA {name} = {value}")
        row = connection.execute(f"PRAGMA {name}").fetchone()
        # An older or smaller build has no mmap and answers nothing, which is as good as none.
        if row is None and name == "mmap_size":
            continue
        if row is None or row[0] != expected:
            raise GalleryError(
                f"SQLite {sqlite3.sqlite_version} did not set {name} to {value}, which keeps a "
                "gallery safe. Use a Python with a newer SQLite."
            )
