"""The best picture of each track as a JPEG in a folder, with index.csv: from here people are
enrolled."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.apps.jobs.albumfolders import folder_name
from facenet.apps.jobs.filming.cells import FORMULA, csv_line
from facenet.apps.jobs.filming.whose import called
from facenet.errors import InputError
from facenet.files import written

if TYPE_CHECKING:
    from facenet.video.events import Portrait, Track

INDEX = "index.csv"
COLUMNS = (
    "file", "track", "person", "stranger", "similarity", "first_s", "last_s", "time_s", "frame",
    "quality", "box",
)  # fmt: skip
OURS = re.compile(r"[^/\\\x00]+-track-\d+\.jpg")
"""Names of portraits."""
LONGEST = 120
"""Bytes of a person's name in the name of a file; file systems take 255 for all of it."""


def write_portraits(folder: Path, tracks: Iterable[Track]) -> int:
    """Write portraits and index.csv; how many there are.

    A folder that has an index.csv loses the portraits that are named there; it is otherwise new
    or empty. Tracks without a portrait have a row without a file.
    Raises InputError for a folder with other files, StorageError.
    """
    old = require_portrait_folder(folder)
    ordered = sorted(tracks, key=lambda track: track.id)
    made = {track.id: (portrait_name(track), _best(track)) for track in ordered}
    for name, portrait in made.values():
        if portrait is not None:
            with written(folder / name, private=True) as file:
                file.write(portrait.jpeg)
    lines = [csv_line(COLUMNS)]
    lines += [csv_line(_row(track, *made[track.id])) for track in ordered]
    with written(folder / INDEX, private=True) as file:
        file.write("".join(lines).encode())
    kept = {name for name, portrait in made.values() if portrait is not None}
    for name in old - kept:
        with suppress(OSError):
            (folder / name).unlink()
    return len(kept)


def require_portrait_folder(folder: Path) -> set[str]:
    """Find out before the work whether portraits can go there; the names of old ones.

    Raises InputError for a folder that has other files and no index.csv of portraits.
    """
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if not names:
            return set()
        text = (folder / INDEX).read_text("utf-8") if INDEX in names else ""
    except (OSError, ValueError) as error:
        raise InputError(
            f"Portraits should go into a folder; {str(folder)[:300]} cannot be read as one. "
            "Choose another."
        ) from error
    lines = text.splitlines()
    if not lines or lines[0] + "\n" != csv_line(COLUMNS):
        raise InputError(
            f"Portraits should go into a new or empty folder, or one with their index.csv; "
            f"{str(folder)[:300]} has other files. Choose another."
        )
    listed = {row[0] for row in csv.reader(lines[1:]) if row}
    return {name for name in names & listed if OURS.fullmatch(name)}


def portrait_name(track: Track) -> str:
    """A file name for every system, which keeps the letters of other scripts: PERSON-track-12.jpg,
    or unknown-3-track-12.jpg."""
    name = unicodedata.normalize("NFC", called(track))
    if track.person is None:
        name = name.replace(" ", "-")
    plain_name = folder_name(name).encode("utf-8")[:LONGEST].decode("utf-8", "ignore").strip(" .")
    if not plain_name or plain_name.startswith(FORMULA):  # index.csv names it as it is
        plain_name = f"_{plain_name}"
    return f"{plain_name}-track-{track.id}.jpg"


def _best(track: Track) -> Portrait | None:
    return track.portraits[0] if track.portraits else None


def _row(track: Track, name: str, portrait: Portrait | None) -> list[Any]:
    who = [track.person, track.stranger, track.identity.similarity]
    when = [round(track.first_s, 3), round(track.last_s, 3)]
    taken: dict[str, Any] = portrait.to_dict() if portrait else {}
    picture = [taken.get(column) for column in ("time_s", "frame", "quality", "box")]
    return [name if portrait else None, track.id, *who, *when, *picture]
