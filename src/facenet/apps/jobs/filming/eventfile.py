"""Events as they happen, as JSON Lines (jsonlines.org) or CSV, a line per event."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from facenet.apps.jobs.filming.cells import csv_line, json_line, plain
from facenet.apps.jobs.filming.closing import Closing
from facenet.apps.jobs.filming.linefile import Kind, LineFile
from facenet.errors import SettingsError, StorageError
from facenet.video.events import ARRIVED, LEFT, NAMED, SEEN, VideoEvent

STDOUT = "-"
LINES, TABLE = (".jsonl", ".ndjson"), (".csv",)
COLUMNS = (
    "type", "time_s", "track", "person", "similarity", "stranger", "visit_s", "frame", "person_id",
    "threshold", "fmr", "fpir", "best_candidate", "reason", "looks", "faces", "before", "box",
    "reported_s", "source", "at",
)  # fmt: skip
"""Columns of CSV: the fields of an event, and what `event_row` adds."""
KINDS = {
    "jsonl": Kind(
        "a file of events",
        tuple(f'{{"type": "{kind}", "time_s": '.encode() for kind in (ARRIVED, NAMED, SEEN, LEFT)),
    ),
    "csv": Kind("a table of events", (csv_line(COLUMNS).encode(),)),
}
"""How files of events are known."""


def event_row(
    event: VideoEvent, *, source: str | None = None, began: datetime | None = None
) -> dict[str, Any]:
    """An event as plain values: what `VideoEvent.to_dict` gives, and more where it is known.

    source: what was watched. began: when its second 0 was, with a time zone; "at" is then the
    time of the event by the clock, in ISO 8601.
    """
    row: dict[str, Any] = plain(event.to_dict())
    if source is not None:
        row["source"] = source
    if began is not None:
        row["at"] = (began + timedelta(seconds=event.time_s)).isoformat(timespec="milliseconds")
    return row


class EventFile(Closing):
    """A file of events, open for more, to be used in a `with` block.

    place: a file whose name ends with .jsonl or .ndjson (JSON Lines) or .csv, or "-" for JSON
    Lines on stdout. append: add to the file that is there; otherwise it is replaced at once. out:
    what stands for stdout.
    Raises SettingsError for another ending; StorageError when the file cannot be written, is to
    be added to and is no file of events, or another run writes to it.
    """

    def __init__(
        self, place: str | Path, *, append: bool = False, out: IO[str] | None = None
    ) -> None:
        self._out = (out or sys.stdout) if str(place) == STDOUT else None
        self._file: LineFile | None = None
        kind = event_kind(place)
        self.table = kind == "csv"
        if self._out is None:
            with ExitStack() as stack:
                keep = KINDS[kind] if append else None
                self._file = stack.enter_context(LineFile(Path(place), keep=keep))
                if self.table and not self._file.size:
                    self._file.add(csv_line(COLUMNS))
                stack.pop_all()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write an event, as `event_row` gives it, so that it is readable at once.

        Raises StorageError when it cannot be written; what was written before stays as it is.
        """
        if self._out is not None:  # in ASCII, which every terminal and pipe takes
            try:
                self._out.write(json.dumps(plain(row), allow_nan=False) + "\n")
                self._out.flush()
            except OSError as error:
                raise StorageError(
                    f"Cannot write events to stdout: {error.strerror or error}. Name a file with "
                    "--events, or let the reader of stdout go on."
                ) from error
        elif self._file is not None:
            self._file.add(self._line(row))

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._file is not None:
            self._file.close()

    def _line(self, row: Mapping[str, Any]) -> str:
        if self.table:
            return csv_line(row.get(column) for column in COLUMNS)
        return json_line(row)


def event_kind(place: str | Path) -> str:
    """How events are written there: "jsonl" or "csv". Raises SettingsError for another ending."""
    ending = Path(place).suffix.lower()
    if str(place) == STDOUT or ending in LINES:
        return "jsonl"
    if ending in TABLE:
        return "csv"
    raise SettingsError(
        "The name of a file of events should end with .jsonl, .ndjson or .csv, or be - for "
        f"stdout; got {str(place)[:300]}."
    )
