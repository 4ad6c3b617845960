"""Events that wait until a webhook has taken them: a file, so that a kill or a cable loses none.

A line for each event, {"id": ..., "event": {...}}, and one for each that was delivered, {"done":
id}. Events leave in the order in which they came, so the n-th delivery is of the n-th event. The
file is emptied when nothing waits, and deleted at the end.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.apps.jobs.filming.cells import json_line
from facenet.apps.jobs.filming.linefile import BLOCK, Kind, LineFile
from facenet.errors import StorageError

KIND = Kind("a file of events that wait for a webhook", (b'{"id": "',))
SPARE = 1000
"""Events that are kept in memory where the disk is full."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """An event on its way. key: the same in every try, also of a later run."""

    key: str
    event: Mapping[str, Any]


class Outbox:
    """Parcels in the order in which they leave; for several threads.

    path: the file; what waits in it from an earlier run comes first. It is of use to its owner
    alone, since it holds names. spare: how many events are kept in memory where the disk is full.
    Memory does not grow with what waits in the file.
    Raises StorageError when it cannot be opened or is no file.
    """

    def __init__(self, path: Path, *, spare: int = SPARE) -> None:
        if path.exists() and not path.is_file():
            raise StorageError(
                f"Events should wait for the webhook in a file; {str(path)[:300]} is none. Move it "
                "away, or write the events elsewhere."
            )
        self.path = path
        self.lost = 0
        self._file: LineFile | None = LineFile(path, keep=KIND)
        self._lock = threading.Lock()
        self._spare, self._room = deque[Parcel](), spare
        self._offset, self._kept = self._found(self._file)
        self._after = self._offset

    @property
    def waiting(self) -> int:
        """How many parcels have not been delivered."""
        return self._kept + len(self._spare)

    def put(self, parcel: Parcel) -> None:
        """Keep a parcel. Where neither the disk nor the memory takes it, `lost` counts it."""
        with self._lock:
            if not self._spare and self._written(parcel):
                return
            if len(self._spare) < self._room:
                self._spare.append(parcel)
            else:
                self.lost += 1

    def first(self) -> Parcel | None:
        """The parcel that leaves next, or None. Raises OSError when the file cannot be read."""
        with self._lock:
            if self._file is None:
                return None
            self._after = self._offset
            while self._kept:
                line, self._after = _line(self._file, self._after)
                if line is None:  # somebody else has cut the file
                    self._kept = 0
                elif parcel := _parcel(line):
                    return parcel
            return self._spare[0] if self._spare else None

    def done(self, parcel: Parcel) -> None:
        """The first parcel was delivered."""
        with self._lock:
            if self._file is None:
                return
            if not self._kept:
                self._spare.popleft()
                return
            self._kept, self._offset = self._kept - 1, self._after
            if self._kept:
                with suppress(StorageError):  # it is sent again then, with the same key
                    self._file.add(json_line({"done": parcel.key}))
            else:
                self._file.cut(0)
                self._offset = self._file.size

    def close(self) -> None:
        """Write down what is only in memory, and close the file, or delete it when it is empty.

        What the disk does not take counts as lost.
        """
        with self._lock:
            if self._file is None:
                return
            while self._spare and self._written(self._spare[0]):
                self._spare.popleft()
            self.lost += len(self._spare)
            self._spare.clear()
            if self._kept:
                self._file.close()
            else:
                self._file.remove()
            self._file = None

    def _written(self, parcel: Parcel) -> bool:
        """Add a parcel to the file."""
        if self._file is None:
            return False
        try:
            self._file.add(json_line({"id": parcel.key, "event": parcel.event}))
        except StorageError:
            return False
        self._kept += 1
        return True

    def _found(self, file: LineFile) -> tuple[int, int]:
        """Where the first parcel begins that was not delivered, and how many there are."""
        starts: deque[int] = deque()
        offset = 0
        while True:
            line, after = _line(file, offset)
            if line is None:
                return (starts[0] if starts else offset), len(starts)
            if _parcel(line):
                starts.append(offset)
            elif starts and b'"done"' in line[:10]:
                starts.popleft()
            offset = after


def _line(file: LineFile, offset: int) -> tuple[bytes | None, int]:
    """The line at an offset, and where the next one begins; None at the end.

    A line that is longer than ours are comes in pieces, which are no parcels.
    """
    data = file.read(offset, BLOCK)
    end = data.find(b"\n")
    if end < 0:
        return data or None, offset + len(data)
    return data[:end], offset + end + 1


def _parcel(line: bytes) -> Parcel | None:
    """A parcel, or None for any other line."""
    try:
        data = json.loads(line)
        key, event = data["id"], data["event"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return Parcel(key, event) if isinstance(key, str) and isinstance(event, dict) else None
