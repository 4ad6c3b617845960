"""The file of a video: a path of this machine, opened when it is a file with something in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from facenet.errors import InputError


def require_local(path: str | os.PathLike[str]) -> str:
    """The name of a file for messages. Raises InputError for what is no path of a file."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"A video should be the path of a file; got {type(path).__name__}.")
    text = os.fsdecode(path)
    if not text:
        raise InputError("A video should be the path of a file; got an empty name.")
    name = text if len(text) <= 300 else f"{text[:150]}...{text[-50:]}"
    if "://" in text:
        raise InputError(
            f"{name} is an address; facenet fetches nothing here. Download it first, or read it "
            "with open_source."
        )
    return name


@contextmanager
def open_file(path: str | os.PathLike[str], name: str) -> Iterator[IO[bytes]]:
    """The file, open for reading, when it is one and not empty."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{name} is no file; a video should be a file on the disk.")
        if facts.st_size == 0:
            raise InputError(f"{name} is empty (0 bytes): expected a video. Copy it again.")
        opened = open(path, "rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"Cannot read the video {name!r}: {reason}. Check the path and who may read it."
        ) from error
    with opened as file:
        yield file
