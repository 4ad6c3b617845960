"""Files that are written whole or not at all: the one way in which facenet writes results."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from facenet.errors import StorageError


@contextmanager
def written(path: Path, *, private: bool = False) -> Iterator[IO[bytes]]:
    """A new file beside `path` that takes its place when all is written.

    Its folder is made. private: it can be read by its owner alone, or by whoever could read the
    file whose place it takes. Raises StorageError for a path that cannot be written.
    """
    part = path.parent / f"{path.name}.{os.getpid()}.part"
    try:
        if not path.name or path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            if private:
                part.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600)
            yield file
        os.replace(part, path)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. Choose another place or free some "
            "space."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def require_writable(path: Path) -> None:
    """Find out before the work whether a file can be written; its folder is made.

    Raises StorageError.
    """
    probe = path.parent / f".{os.getpid()}.probe"
    try:
        if not path.name or path.is_dir():
            raise IsADirectoryError(0, "there is a folder of that name")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise StorageError(
            f"Cannot write {str(path)[:300]}: {error.strerror}. Choose another place."
        ) from error
    finally:
        with suppress(OSError):
            probe.unlink()
