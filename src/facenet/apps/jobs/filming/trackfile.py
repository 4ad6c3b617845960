"""Tracks as a file: JSON with who, when and how sure, or boxes by frame for MOTChallenge tools.

The text form is that of motchallenge.net: frame, id, left, top, width, height, score, -1, -1, -1,
with frames counted from 1.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.apps.jobs.filming.cells import plain
from facenet.apps.jobs.filming.closing import Closing
from facenet.errors import SettingsError, StorageError
from facenet.files import written

if TYPE_CHECKING:
    from facenet.types import Faces
    from facenet.video.events import Track

FORMAT = "facenet-tracks-1"
BOX_COLUMNS = ("frame", "time_s", "track", "x1", "y1", "x2", "y2", "detection_score", "detected")
"""What stands in a row of "boxes"."""
TRACK = BOX_COLUMNS.index("track")


class BoxLog(Closing):
    """The boxes of tracks by frame, kept in a temporary file, so that memory does not grow.

    folder: where it lies, unseen, until the `with` block is left. Raises StorageError.
    """

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise self._problem(error) from error

    def add(self, frame: int, time_s: float, faces: Faces, *, detected: bool = True) -> None:
        """Keep the faces of a frame that belong to tracks. detected: not only moved along.

        Raises StorageError.
        """
        for face in faces:
            if not face.track_id:
                continue
            sides = [round(float(side), 2) for side in face.box]
            score = round(float(face.detection_score), 4)
            row = [frame, round(time_s, 6), face.track_id, *sides, score, int(detected)]
            try:
                self._file.write(json.dumps(row).encode() + b"\n")
            except OSError as error:
                raise self._problem(error) from error
            self.rows += 1

    def lines(self, joined: Mapping[int, int] | None = None) -> Iterator[bytes]:
        """A row for each box, as JSON without a line end, in the order in which they came.

        joined: numbers of tracks that were found to be others by now, see `Watching.joined`.
        Raises StorageError.
        """
        try:
            self._file.seek(0)
            for line in self._file:
                if row := _renumbered(line.rstrip(), joined or {}):
                    yield row
        except OSError as error:
            raise self._problem(error) from error

    def close(self) -> None:
        """Remove the temporary file; a second time does nothing."""
        with suppress(OSError):  # what could not be written is not wanted any more
            self._file.close()

    def _problem(self, error: OSError) -> StorageError:
        return StorageError(
            f"Cannot keep the boxes of tracks in {str(self._folder)[:300]}: "
            f"{error.strerror or error}. Choose another place or free some space."
        )


def _renumbered(line: bytes, joined: Mapping[int, int]) -> bytes | None:
    """A row with the number that its track has by now; None where it is nobody's."""
    if not joined:
        return line
    row = json.loads(line)
    row[TRACK] = joined.get(row[TRACK], row[TRACK])
    return json.dumps(row).encode() if row[TRACK] else None


def track_kind(path: Path) -> str:
    """The format of tracks, "json" or "mot". Raises SettingsError for another ending."""
    kinds = {".json": "json", ".txt": "mot"}
    try:
        return kinds[path.suffix.lower()]
    except KeyError:
        raise SettingsError(
            "The name of a file of tracks should end with .json, or with .txt for the form of "
            f"MOTChallenge; got {str(path)[:300]}."
        ) from None


def write_tracks(
    path: Path,
    tracks: Iterable[Track],
    facts: Mapping[str, Any],
    boxes: BoxLog | None = None,
    joined: Mapping[int, int] | None = None,
) -> None:
    """Write tracks in the format of the name's ending, whole or not at all.

    facts: of the whole run, such as source, frames and model; they stand before the tracks, and
    none of them has the name of what comes there. boxes: written too where they are given; the
    text form consists of them, and needs them. joined: see `BoxLog.lines`.
    Raises SettingsError, StorageError.
    """
    if track_kind(path) == "mot":
        if boxes is None:
            raise SettingsError(
                f"{str(path)[:300]} should hold the boxes of every frame, and none were kept. Keep "
                "them, or name a .json file."
            )
        with written(path, private=True) as file:
            file.writelines(_mot(line) for line in boxes.lines(joined))
        return
    head = {"format": FORMAT, **plain(facts)}
    rows = [track_row(track) for track in sorted(tracks, key=lambda track: track.id)]
    with written(path, private=True) as file:
        file.writelines(_json(head, rows, boxes.lines(joined) if boxes is not None else None))


def track_row(track: Track) -> dict[str, Any]:
    """A track as plain values: what `Track.to_dict` gives, with the best portrait alone.

    Its template, which is biometric, is not among them.
    """
    row = track.to_dict()
    portraits = row.pop("portraits")
    return {name: plain(value) for name, value in row.items()} | {
        "portrait": plain(portraits[0]) if portraits else None
    }


def _json(
    head: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], boxes: Iterable[bytes] | None
) -> Iterator[bytes]:
    """One object; the tracks and the boxes on a line each."""
    text = json.dumps(head, allow_nan=False)
    yield f'{text[:-1]},\n"tracks": ['.encode()
    yield from _items(json.dumps(row, allow_nan=False).encode() for row in rows)
    if boxes is not None:
        yield f'],\n"box_columns": {json.dumps(BOX_COLUMNS)},\n"boxes": ['.encode()
        yield from _items(boxes)
    yield b"]}\n"


def _items(items: Iterable[bytes]) -> Iterator[bytes]:
    opening = b"\n"
    for item in items:
        yield opening + item
        opening = b",\n"


def _mot(line: bytes) -> bytes:
    frame, _, track, x1, y1, x2, y2, score, _ = json.loads(line)
    text = f"{frame + 1},{track},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1"
    return text.encode() + b"\n"
