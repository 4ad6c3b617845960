"""Files that are written whole or not at all, and checked by their SHA-256.

A temporary file beside the target is written, synchronised with the disk, and takes the target's
place in one step. Every error of the disk becomes a StorageError.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from facenet.errors import DigestError, StorageError

CHUNK = 1 << 20
"""Bytes that are copied at a time."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits. Raises StorageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error


def check_digest(path: Path, expected: str, advice: str) -> None:
    """Compare a file with its recorded SHA-256; raises DigestError naming both.

    advice: the next step, a sentence.
    """
    got = sha256_of(path)
    if got != expected:
        raise DigestError(
            f"{path} should have the SHA-256 {expected}; it has {got}. It is damaged or another "
            f"file, and is not used. {advice}"
        )


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises StorageError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    write_new(part, text.encode())
    replace(part, path)


def write_new(path: Path, data: bytes) -> None:
    """Write a temporary file, with its folder. Raises StorageError, and leaves nothing then."""
    make_folder(path.parent)
    try:
        with writing(path) as write:
            write(data)
    except StorageError:
        remove(path)
        raise


def replace(part: Path, target: Path) -> None:
    """Let a temporary file take its target's place. Raises StorageError, and removes it then."""
    try:
        with storage_errors(target):
            os.replace(part, target)
    except StorageError:
        remove(part)
        raise


def make_folder(path: Path) -> None:
    """Make a folder and its parents unless it is there. Raises StorageError."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a temporary file if it is there; errors do not matter."""
    with suppress(OSError):
        path.unlink()


@contextmanager
def writing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Gives a function that appends to a new file; at the end the file is on the disk."""
    with storage_errors(path):
        out = path.open("wb")

    def write(chunk: bytes) -> None:
        with storage_errors(path):
            out.write(chunk)

    try:
        yield write
        with storage_errors(path):
            out.flush()
            os.fsync(out.fileno())
    finally:
        with storage_errors(path):
            out.close()


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into one sentence."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. Free some space or set FACENET_HOME "
            "to a folder that can be written."
        ) from error
