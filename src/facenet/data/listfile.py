"""Text lists of data sets, line by line: bounded, decoded, each wrong line named by its number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from facenet.errors import DataError

MAX_LINE = 8192
"""Bytes of a line; lists of pictures and points have far less than 300."""
MAX_NAME = 1024
SHOWN = 80


def checked_file(path: str | os.PathLike[str], what: str, max_bytes: int) -> Path:
    """A list that is there, is a file and is not too large. Raises DataError.

    what: as a message calls it, such as "the list of pairs".
    """
    file = Path(path)
    try:
        if not file.is_file():
            came = "there is something that is no file" if file.exists() else "there is none"
            raise DataError(f"Expected {what} at {str(file)[:300]}; {came}. Put the file there.")
        size = file.stat().st_size
    except (OSError, ValueError) as error:
        raise _unreadable(file, what, error) from error
    if size > max_bytes:
        raise DataError(
            f"{file} should be {what}, of at most {max_bytes:,} bytes; it has {size:,}. Check that "
            "it is the right file."
        )
    return file


def numbered_lines(
    path: str | os.PathLike[str], what: str, *, max_bytes: int
) -> Iterator[tuple[int, str]]:
    """Number, from 1 up, and text of each line that is not blank, without white space around it.

    Raises DataError for a file that cannot be read, is too large or is no UTF-8 text, and for a
    line of more than `MAX_LINE` bytes.
    """
    file = checked_file(path, what, max_bytes)
    try:
        with file.open("rb") as stream:
            number = 0
            while raw := stream.readline(MAX_LINE + 1):
                number += 1
                if len(raw) > MAX_LINE:
                    raise wrong_line(file, number, f"at most {MAX_LINE} bytes", raw.decode("latin"))
                text = _decoded(file, number, raw).strip()
                if text:
                    yield number, text
    except OSError as error:
        raise _unreadable(file, what, error) from error


def _decoded(file: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise wrong_line(file, number, "UTF-8 text", raw.decode("latin")) from error


def wrong_line(file: Path, number: int, expected: str, came: str) -> DataError:
    """What is wrong with a line, as an error to raise."""
    text = came.strip()
    shown = f"{text[:SHOWN]!r}{' ...' if len(text) > SHOWN else ''}"
    return DataError(
        f"{str(file)[:300]}, line {number}: expected {expected}; got {shown}. Correct the line or "
        "fetch the file again."
    )


def stays_inside(name: str) -> bool:
    """Whether a name of a list is a plain relative path that cannot leave its folder."""
    parts = name.split("/")
    plain = 0 < len(name) <= MAX_NAME and name.isprintable() and not set(name) & set("\\:")
    return plain and not any(part in ("", ".", "..") for part in parts)


def whole_number(text: str) -> int | None:
    """A whole number of at most 18 ASCII digits, so that it is an int64; else None."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _unreadable(file: Path, what: str, error: OSError | ValueError) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else error
    return DataError(
        f"Cannot read {what} at {str(file)[:300]}: {reason}. Check the path and who may read it."
    )
