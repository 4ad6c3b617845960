"""What a model said of a picture, remembered by the picture's content: evaluation runs twice fast.

One SQLite file per contract (model, preprocessing, detector, options, runtime) in
FACENET_HOME/cache. A picture is known by the SHA-256 of its bytes, so moved and renamed files are
found again and changed ones are not. The files hold face vectors: they are biometric data, are
readable by their owner alone, and `facenet evaluate forget` removes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import StorageError
from facenet.models.home import environment
from facenet.types import FloatArray

SCHEMA = "CREATE TABLE IF NOT EXISTS seen (digest BLOB PRIMARY KEY, row BLOB NOT NULL) STRICT"


def cache_folder() -> Path:
    """Where the remembered vectors lie."""
    return environment().home / "cache"


class VectorCache:
    """Rows of float32 by the SHA-256 of a picture; an empty row says that no face was found.

    terms: everything the rows depend on, as plain values. folder: None remembers nothing.
    Raises StorageError for a file that cannot be opened, read or written.
    """

    def __init__(self, terms: Mapping[str, Any], folder: Path | None) -> None:
        name = hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:24]
        self.path = folder / f"{name}.sqlite" if folder else None
        if folder:
            with self._mapped():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)

    def find(self, digests: Sequence[bytes]) -> dict[bytes, FloatArray]:
        """The rows that are known, by digest; writable copies, float32 (n,).

        One that is no row of numbers is not known.
        """
        if not self.path or not self.path.exists():
            return {}
        marks = ",".join("?" * len(digests))
        with self._open() as file:
            rows = file.execute(f"SELECT digest, row FROM seen WHERE digest IN ({marks})", digests)
            whole = [(digest, row) for digest, row in rows if len(row) % 4 == 0]
        return {digest: np.frombuffer(row, "<f4").copy() for digest, row in whole}

    def keep(self, rows: Mapping[bytes, FloatArray]) -> None:
        """Remember rows, float32 (n,) each, all or none of them."""
        if not self.path or not rows:
            return
        values = [(digest, row.astype("<f4").tobytes()) for digest, row in rows.items()]
        with self._open() as file, file:
            file.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", values)

    def connect(self) -> sqlite3.Connection:
        """A connection to the file, which waits up to a minute for other writers."""
        return sqlite3.connect(str(self.path), timeout=60)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._mapped(), closing(self.connect()) as file:
            os.chmod(str(self.path), 0o600)
            file.execute(SCHEMA)
            yield file

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"Cannot use the remembered vectors in {self.path}: {error}. Free some space, or "
                "remove the file, or pass --no-cache."
            ) from error


def forget() -> tuple[int, int]:
    """Remove all remembered vectors; the number of files and their bytes.

    Raises StorageError for a file that cannot be removed.
    """
    files = sorted(cache_folder().glob("*.sqlite*"))
    size = 0
    for path in files:
        try:
            size += path.stat().st_size
            os.unlink(path)
        except OSError as error:
            raise StorageError(f"Cannot remove {path}: {error.strerror}. Remove it.") from error
    return len(files), size
