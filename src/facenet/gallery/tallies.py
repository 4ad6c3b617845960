"""Tallies: per kind of row and per space, how many rows there are and the sum of their seals.

They are as incremental hashes of sets do (Bellare and Micciancio, 1997): a row more or fewer is one
addition, and whoever has read all rows knows whether these are the rows there should be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from facenet.gallery.seals import SIZE, Value


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of a kind: how many, the sum of their seals as two numbers of 64 bits, and the last
    number that was given out."""

    count: int = 0
    low: int = 0
    high: int = 0
    last: int = 0

    def with_seals(self, seals: Iterable[bytes], sign: int = 1) -> Tally:
        """The tally with rows more, or fewer where sign is -1."""
        joined = b"".join(seals)
        low, high = np.frombuffer(joined, "<u8").reshape(-1, 2).sum(axis=0, dtype=np.uint64)
        return Tally(
            self.count + sign * (len(joined) // SIZE),
            (self.low + sign * int(low)) & 0xFFFFFFFFFFFFFFFF,
            (self.high + sign * int(high)) & 0xFFFFFFFFFFFFFFFF,
            self.last,
        )

    def with_seal(self, one: bytes, sign: int = 1) -> Tally:
        """The tally with one row more or fewer; the same as `with_seals` of one, and quicker."""
        low = int.from_bytes(one[:8], "little")
        high = int.from_bytes(one[8:], "little")
        return Tally(
            self.count + sign,
            (self.low + sign * low) & 0xFFFFFFFFFFFFFFFF,
            (self.high + sign * high) & 0xFFFFFFFFFFFFFFFF,
            self.last,
        )

    def values(self, name: str) -> list[Value]:
        """The columns of its row."""
        total = self.low.to_bytes(8, "little") + self.high.to_bytes(8, "little")
        return [name.encode(), self.count, total, self.last]

    @property
    def rows(self) -> tuple[int, int, int]:
        """What says that all rows are there."""
        return self.count, self.low, self.high


def tally_of(values: Sequence[Value]) -> Tally:
    """The tally in a row."""
    total = cast(bytes, values[2])
    return Tally(
        cast(int, values[1]),
        int.from_bytes(total[:8], "little"),
        int.from_bytes(total[8:], "little"),
        cast(int, values[3]),
    )


def vector_tally(number: int) -> str:
    """Name of the tally of a space's vectors."""
    return f"vector:{number}"


def stamps_of(seals: Sequence[bytes]) -> NDArray[np.uint64]:
    """The first half of each seal, uint64 (n,): what `Tally.low` is the sum of."""
    return np.frombuffer(b"".join(seals), "<u8").reshape(-1, 2)[:, 0].astype(np.uint64)
