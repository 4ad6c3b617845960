"""Unit vectors as bytes, each with a proven bound on what the bytes leave out.

A row x of d values is kept as c = round(x * S), cut off at 127, and spread >= |x - c / S|, the
length of what is lost, the cut-off included. S depends on d alone, so one row is coded the same in
every gallery. Bytes are c + 128, as `facenet.products` takes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from facenet.types import FloatArray, IntArray

ZERO = 128
"""The byte of a component that is 0."""
LARGEST = 127
"""Of a code."""
REACH = 4.3
"""Standard deviations of a component of a random unit vector, 1 / sqrt(d), below the cut-off. A
wider reach makes every spread larger, a narrower one those of a few rows: 736 at d = 512 reaches
3.9 and cuts 5 % of random rows, 668 cuts 1 %."""
CHUNK_BYTES = 1 << 25
"""Bytes of codes that are allocated at a time, so that growing copies nothing."""
COLUMNS = 16
"""Values of each row that are copied at a time when rows are put in another order."""
CODED_AT_ONCE = 1024
"""Rows that are held as fp64 at a time."""

Bytes = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)


def scale_of(dimension: int) -> float:
    """S for rows of `dimension` values: 127 * sqrt(d) / 4.3, and 127 where that would be less."""
    return LARGEST * max(1.0, math.sqrt(dimension) / REACH)


def encode(rows: FloatArray, scale: float) -> tuple[Bytes, FloatArray, float]:
    """Rows float32 (n, d) -> bytes (n, d), spreads float32 (n,), and a length none exceeds.

    Computed in fp64, whose rounding is below d * 2**-52 of the values here; a millionth is added
    for it, and the step to float32 goes up.
    """
    bytes_ = np.empty(rows.shape, np.uint8)
    spread = np.empty(len(rows), np.float32)
    longest = 0.0
    for start in range(0, len(rows), CODED_AT_ONCE):
        part = slice(start, start + CODED_AT_ONCE)
        exact = rows[part].astype(np.float64)
        code = np.clip(np.rint(exact * scale), -LARGEST, LARGEST)
        bytes_[part] = code + ZERO
        code /= scale
        code -= exact
        lost = np.sqrt(np.einsum("ij,ij->i", code, code)) * (1 + 1e-6) + 1e-9
        spread[part] = np.nextafter(lost.astype(np.float32), np.float32(np.inf))
        length = np.sqrt(np.einsum("ij,ij->i", exact, exact))
        longest = max(longest, float(length.max(initial=0.0)) * (1 + 1e-6))
    return bytes_, spread, longest


class Table:
    """Coded rows, each with a key and an owner. One thread at a time may change it.

    keys: int64 > 0, 0 where a row was removed. owners: int32 numbers, -1 where removed. spreads:
    float32. stamps: uint64, see `VectorBlock`. All of them (n,) over n slots; codes come in chunks
    of `chunk` slots, (chunk, d). A removed row is overwritten at once and its slot used again, but
    for slots below `fixed`, whose order was asked for with `arrange`: what is put there anew comes
    after them.
    """

    def __init__(self, dimension: int, *, chunk: int | None = None) -> None:
        self.dimension = dimension
        self.scale = scale_of(dimension)
        self.chunk = chunk or max(1024, CHUNK_BYTES // dimension)
        self.clear()

    def clear(self) -> None:
        """Forget every row."""
        self.chunks: list[Bytes] = []
        self.longest = 1.0
        self.fixed = 0
        self._used = 0
        self._keys = np.zeros(0, np.int64)
        self._owners = np.zeros(0, np.int32)
        self._spreads = np.zeros(0, np.float32)
        self._stamps = np.zeros(0, np.uint64)
        self._changed()

    def _changed(self) -> None:
        self._order: IntArray | None = None
        self._cut: float | None = None
        self._distinct: int | None = None

    def __len__(self) -> int:
        """Rows that are there."""
        return int(np.count_nonzero(self.keys))

    @property
    def keys(self) -> NDArray[np.int64]:
        """Of every slot."""
        return self._keys[: self._used]

    @property
    def owners(self) -> NDArray[np.int32]:
        """Of every slot."""
        return self._owners[: self._used]

    @property
    def spreads(self) -> FloatArray:
        """Of every slot, 0 where a row was removed."""
        return self._spreads[: self._used]

    @property
    def stamps(self) -> NDArray[np.uint64]:
        """Of every slot, 0 where a row was removed or has none."""
        return self._stamps[: self._used]

    @property
    def bytes_held(self) -> int:
        """Bytes of all arrays."""
        arrays = (self._keys, self._owners, self._spreads, self._stamps)
        small: int = sum(array.nbytes for array in arrays)
        return small + sum(chunk.nbytes for chunk in self.chunks)

    @property
    def cut(self) -> float:
        """A spread that 99 % of the rows do not exceed; those that do are looked at one by one."""
        if self._cut is None:
            spread = self.spreads
            last = max(0, math.ceil(0.99 * len(spread)) - 1)
            self._cut = float(np.partition(spread, last)[last]) if len(spread) else 0.0
        return self._cut

    @property
    def distinct(self) -> int:
        """Owners that have a row."""
        if self._distinct is None:
            owners = self.owners
            self._distinct = int(np.count_nonzero(np.bincount(owners[owners >= 0])))
        return self._distinct

    def find(self, keys: IntArray) -> IntArray:
        """Slots of keys (n,) -> int64 (n,), -1 for one that is not there."""
        held = self.keys
        if not len(held):
            return np.full(len(keys), -1, np.int64)
        if self._order is None:
            self._order = np.argsort(held, kind="stable")
        place = np.minimum(np.searchsorted(held, keys, sorter=self._order), len(held) - 1)
        slots = self._order[place]
        return np.where((held[slots] == keys) & (keys > 0), slots, -1)

    def put(
        self,
        keys: IntArray,
        owners: IntArray,
        rows: FloatArray,
        stamps: NDArray[np.uint64] | None = None,
    ) -> None:
        """Rows float32 (n, d) under distinct keys (n,), in place of those that are there."""
        codes, spreads, longest = encode(rows, self.scale)
        slots = self.find(keys)
        fixed = (slots >= 0) & (slots < self.fixed)
        self._erase(slots[fixed])
        slots[fixed] = -1
        new = np.flatnonzero(slots < 0)
        slots[new] = self._free(len(new))
        self._keys[slots], self._owners[slots], self._spreads[slots] = keys, owners, spreads
        self._stamps[slots] = 0 if stamps is None else stamps
        self._write(slots, codes)
        self.longest = max(self.longest, longest)
        self._changed()

    def drop(self, keys: IntArray) -> None:
        """Overwrite rows by key (n,) with zeros; a key that is not there is left out."""
        slots = self.find(keys)
        self._erase(slots[slots >= 0])
        self._changed()

    def arrange(self, slots: IntArray) -> None:
        """Put the rows of these slots (n,), all that are there, into this order from slot 0 on,
        for good. In place: a few columns are copied at a time."""
        count, used = len(slots), self._used
        for start in range(0, self.dimension, COLUMNS):
            columns = slice(start, start + COLUMNS)
            part = np.concatenate([chunk[:, columns] for chunk in self.chunks])[:used][slots]
            for number, chunk in enumerate(self.chunks):
                here = part[number * self.chunk : (number + 1) * self.chunk]
                chunk[: len(here), columns] = here
                chunk[len(here) :, columns] = ZERO
        for array in (self._keys, self._owners, self._spreads, self._stamps):
            array[:count] = array[:used][slots]
            array[count:] = 0
        del self.chunks[-(-count // self.chunk) :]
        self._used = self.fixed = count
        self._changed()

    def codes(self, slots: IntArray) -> Bytes:
        """A copy of the codes of slots (n,) -> uint8 (n, d)."""
        out = np.empty((len(slots), self.dimension), np.uint8)
        which = slots // self.chunk
        for number in np.unique(which):
            here = np.flatnonzero(which == number)
            out[here] = self.chunks[number][slots[here] - number * self.chunk]
        return out

    def adopt(
        self,
        keys: IntArray,
        owners: IntArray,
        spreads: FloatArray,
        stamps: NDArray[np.uint64],
        *,
        longest: float,
    ) -> None:
        """Take over what a snapshot held, (n,) each; the chunks for n rows are made for its codes.

        Codes are written into `chunks` by the caller.
        """
        self.clear()
        self._free(len(keys))
        self._keys[: len(keys)], self._owners[: len(keys)] = keys, owners
        self._spreads[: len(keys)], self._stamps[: len(keys)] = spreads, stamps
        self.longest = longest

    def _erase(self, slots: IntArray) -> None:
        self._keys[slots], self._owners[slots], self._spreads[slots] = 0, -1, 0
        self._stamps[slots] = 0
        self._write(slots, np.full((1, self.dimension), ZERO, np.uint8))

    def _write(self, slots: IntArray, codes: Bytes) -> None:
        """codes (n, d), or (1, d) for all."""
        which = slots // self.chunk
        for number in np.unique(which):
            here = np.flatnonzero(which == number)
            part = codes if len(codes) == 1 else codes[here]
            self.chunks[number][slots[here] - number * self.chunk] = part

    def _free(self, count: int) -> IntArray:
        """Slots for new rows: removed ones first, then at the end."""
        gone = np.flatnonzero(self.keys[self.fixed :] == 0)[:count] + self.fixed
        first, self._used = self._used, self._used + count - len(gone)
        while self._used > len(self.chunks) * self.chunk:
            self.chunks.append(np.empty((self.chunk, self.dimension), np.uint8))
        if self._used > len(self._keys):
            self._keys = _longer(self._keys, self._used)
            self._owners = _longer(self._owners, self._used)
            self._spreads = _longer(self._spreads, self._used)
            self._stamps = _longer(self._stamps, self._used)
        return np.concatenate([gone, np.arange(first, self._used)]).astype(np.int64)


def _longer(array: NDArray[Number], used: int) -> NDArray[Number]:
    """A copy with room for `used` and a quarter more."""
    longer = np.zeros(used + used // 4, array.dtype)
    longer[: len(array)] = array
    return longer


def groups(which: Sequence[int] | IntArray) -> IntArray:
    """Where runs of equal values begin in a sorted array (n,), and n at the end."""
    array = np.asarray(which)
    return np.flatnonzero(np.r_[True, array[1:] != array[:-1], True])
