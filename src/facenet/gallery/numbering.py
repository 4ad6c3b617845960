"""Ids of people as small numbers, a million of them in 25 MB."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from facenet.types import IntArray

END = "\x01"
"""Closes an id, since NumPy takes zero bytes off the end of a text."""


class Numbers:
    """Ids in the order in which they came; their place is their number.

    ids: bytes (n,), UTF-8 with `END`. order: int64 (n,), what sorts them.
    """

    def __init__(self) -> None:
        self.ids: NDArray[np.bytes_] = np.zeros(0, "S1")
        self.order: IntArray = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, people: Collection[str]) -> IntArray:
        """Numbers of ids: int64 (n,), -1 for an id that has none."""
        if not people:
            return np.zeros(0, np.int64)
        unique, back = np.unique(_encoded(people), return_inverse=True)
        return self._numbers(unique)[back.reshape(-1)]

    def add(self, people: Collection[str]) -> IntArray:
        """Numbers of ids, int64 (n,); an unknown id gets the next one."""
        if not people:
            return np.zeros(0, np.int64)
        unique, back = np.unique(_encoded(people), return_inverse=True)
        numbers = self._numbers(unique)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            numbers[new] = np.arange(len(self.ids), len(self.ids) + len(new))
            place = np.searchsorted(self.ids, unique[new], sorter=self.order)
            self.order = np.insert(self.order, place, numbers[new])
            self.ids = np.concatenate([self.ids, unique[new]])
        return numbers[back.reshape(-1)]

    def name(self, number: int) -> str:
        """The id with a number."""
        return bytes(self.ids[number]).decode("utf-8", "surrogatepass").removesuffix(END)

    def only(self, used: NDArray[np.bool_]) -> tuple[Numbers, IntArray]:
        """The ids where used (n,) holds, numbered anew, and the new number of each old one."""
        fresh = np.where(used, np.cumsum(used) - 1, -1)
        kept = Numbers()
        kept.ids, kept.order = self.ids[used], fresh[self.order[used[self.order]]]
        return kept, fresh

    def _numbers(self, ids: NDArray[np.bytes_]) -> IntArray:
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        place = np.searchsorted(self.ids, ids, sorter=self.order)
        found = self.order[np.minimum(place, len(self.ids) - 1)]
        return np.where(self.ids[found] == ids, found, -1)


def _encoded(people: Collection[str]) -> NDArray[np.bytes_]:
    return np.array([f"{person}{END}".encode("utf-8", "surrogatepass") for person in people])
