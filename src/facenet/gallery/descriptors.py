"""One descriptor per gallery file and process, for whoever looks at its bytes beside SQLite.

POSIX drops all locks of a process on a file when it closes any descriptor of that file, SQLite's
too (sqlite.org/howtocorrupt.html, 2.2). Another process would then take itself for the last one
and delete the log of an open gallery, and what is committed afterwards would be lost. So a file is
opened once here, shared, and closed when the last store of it has closed its connections.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

BINARY = getattr(os, "O_BINARY", 0)


class Held:
    """A file held open. Raises OSError as `os.open` does. Let go of with `release`."""

    def __init__(self, path: Path) -> None:
        self._held = False
        with _LOCK:
            found = os.stat(path)
            self._identity = (found.st_dev, found.st_ino)
            if self._identity not in _FILES:
                _FILES[self._identity] = [_opened(path), 0]
            self._number = _FILES[self._identity][0]
            _FILES[self._identity][1] += 1
            self._held = True

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from an offset on, fewer at the end of the file."""
        with _LOCK:
            os.lseek(self._number, offset, os.SEEK_SET)
            parts = []
            while size > 0 and (part := os.read(self._number, size)):
                parts.append(part)
                size -= len(part)
            return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes at an offset."""
        with _LOCK:
            os.lseek(self._number, offset, os.SEEK_SET)
            while data:
                data = data[os.write(self._number, data) :]

    def sync(self) -> None:
        """Bring the file to the disk."""
        os.fsync(self._number)

    def release(self) -> None:
        """Let go of the file; twice is harmless. No connection of the holder may be open."""
        with _LOCK:
            if not self._held:
                return
            self._held = False
            _FILES[self._identity][1] -= 1
            if _FILES[self._identity][1] == 0:
                os.close(_FILES.pop(self._identity)[0])

    def __del__(self) -> None:
        self.release()


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | BINARY)
    except OSError:
        return os.open(path, os.O_RDONLY | BINARY)


_LOCK = threading.RLock()
_FILES: dict[tuple[int, int], list[int]] = {}
"""Device and inode -> the descriptor, and how many hold it."""


def _renew() -> None:
    """In a forked process, where another thread of the parent may have had the lock."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
