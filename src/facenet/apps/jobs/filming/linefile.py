"""Files that grow by whole lines and survive a kill, a full disk and a second run.

Each line is handed to the system at once, so that `tail -f` sees it and nothing waits in this
process. Where a line cannot be written whole, what came of it is taken away again. A torn last
line, left by a kill or a power cut, is removed when the file is opened, but only from a file of
ours: what its first line says is looked at before anything is cut.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from facenet.apps.jobs.filming.closing import Closing
from facenet.errors import StorageError

if sys.platform != "win32":
    import fcntl

BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Kind:
    """How files of one sort are known. name: for messages. begins: what one of them begins with."""

    name: str
    begins: tuple[bytes, ...]

    def fits(self, start: bytes) -> bool:
        """Whether a file that starts so, perhaps torn within its first words, is of this sort."""
        return any(start.startswith(mark) or mark.startswith(start) for mark in self.begins)


class LineFile(Closing):
    """A file that is open for lines, to be used in a `with` block.

    keep: of which kind the lines are that may be there, to add to them; None: what is there is
    removed. Its folder is made. On POSIX systems the file belongs to one process at a time. A new
    file can be read by its owner alone, since the lines hold names and times.
    Raises StorageError when it cannot be opened, is of another kind, or another process writes to
    it.
    """

    def __init__(self, path: Path, *, keep: Kind | None = None) -> None:
        self.path = path
        self._handle = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = _alone(path)
            self._regular = stat.S_ISREG(os.fstat(self._handle).st_mode)
            if self._regular:
                os.ftruncate(self._handle, self._ours(keep) if keep else 0)
        except OSError as error:
            self.close()
            raise self._problem(error) from error
        except StorageError:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes in the file; 0 for a pipe."""
        return os.fstat(self._handle).st_size if self._regular else 0

    def add(self, line: str) -> None:
        """Add a line, which ends with a line feed and has no other.

        Raises StorageError, with the file as it was before, when it cannot be written whole.
        """
        data = line.encode()
        before = self.size
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError as error:
            self.cut(before)
            raise self._problem(error) from error

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes only, as well as the disk lets us."""
        if self._regular:
            with suppress(OSError):
                os.ftruncate(self._handle, size)

    def read(self, offset: int, limit: int = BLOCK) -> bytes:
        """At most `limit` bytes from `offset` on. Raises OSError."""
        os.lseek(self._handle, offset, os.SEEK_SET)
        return os.read(self._handle, limit)

    def remove(self) -> None:
        """Close the file and delete it."""
        if self._handle >= 0:
            with suppress(OSError):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with suppress(OSError):
                os.close(handle)

    def _ours(self, kind: Kind) -> int:
        """Bytes up to the end of the last whole line. Raises StorageError for another kind."""
        if not kind.fits(self.read(0)):
            raise StorageError(
                f"{str(self.path)[:300]} should be {kind.name}, and begins otherwise; it was left "
                "as it is. Name another file."
            )
        return _whole(self._handle)

    def _problem(self, error: OSError) -> StorageError:
        return StorageError(
            f"Cannot write {str(self.path)[:300]}: {error.strerror or error}. What was written "
            "before is kept; choose another place or free some space."
        )


def _alone(path: Path) -> int:
    """A handle on a file that no other process has in the same way.

    Raises OSError; StorageError where another process has it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    while True:
        handle = os.open(path, flags, 0o600)
        try:
            if sys.platform == "win32" or not stat.S_ISREG(os.fstat(handle).st_mode):
                return handle
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except BlockingIOError as error:
            os.close(handle)
            raise StorageError(
                f"Another run writes to {str(path)[:300]}. Wait until it ends, or name another "
                "file."
            ) from error
        except FileNotFoundError:  # it was deleted between opening and locking
            pass
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _whole(handle: int) -> int:
    """Bytes up to the end of the last whole line."""
    end = os.fstat(handle).st_size
    while end:
        start = max(0, end - BLOCK)
        os.lseek(handle, start, os.SEEK_SET)
        found = os.read(handle, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
