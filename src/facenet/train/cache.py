"""Decoded pictures kept in memory, up to a bound."""

from __future__ import annotations

import threading

from facenet.errors import SettingsError
from facenet.types import ImageArray


class PictureCache:
    """Pictures by their row, of so many megabytes (10**6 bytes) together; safe between threads.

    What came first stays: each pass over a training set has an order of its own, so that throwing
    out what was used least recently would throw out what comes next as often as not.
    """

    def __init__(self, megabytes: float) -> None:
        if not megabytes >= 0:
            raise SettingsError(
                f"cache_mb should be 0 (keep nothing) or more megabytes; got {megabytes:g}."
            )
        self.limit = int(megabytes * 1e6)
        self.bytes = 0
        self._pictures: dict[int, ImageArray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pictures)

    def get(self, row: int) -> ImageArray | None:
        """The picture of a row, uint8 (H, W, 3), which nobody may write to; None: not kept."""
        return self._pictures.get(row)

    def keep(self, row: int, picture: ImageArray) -> None:
        """Keep a picture, uint8 (H, W, 3), where there is room for it."""
        with self._lock:
            if row not in self._pictures and self.bytes + picture.nbytes <= self.limit:
                picture.setflags(write=False)
                self._pictures[row] = picture
                self.bytes += picture.nbytes
