"""Bytes of deleted rows that `secure_delete` leaves in a gallery file, overwritten with zeros.

SQLite clears a row where it deletes it. But when it splits or joins pages it moves rows, and what
a row leaves behind on its old page stays there, in the space between the pointers to the cells and
the cells (sqlite.org/fileformat2.html, 1.6), and outlives the row. That space is in no use, so it
can be cleared in place: a power cut in between leaves it half cleared, and nothing else changed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from facenet.gallery.descriptors import Held

AT_ONCE = 16 << 20
"""Bytes that are looked at together."""
HEADS = {2: 12, 5: 12, 10: 8, 13: 8}
"""Kind of a page of a b-tree -> bytes of its header."""
MOST_PAGES = 1 << 24
"""With more, the number that an overflow page begins with could look like the kind of a page."""


def scrub(file: Held) -> int:
    """Clear the unused space of every page but the first, which holds no rows; how many had any.

    The log has to be empty, and nobody may write meanwhile. About a second for two gigabytes.
    Raises OSError.
    """
    head = file.read(0, 100)
    size = int.from_bytes(head[16:18], "big")
    size = 65_536 if size == 1 else size
    usable = size - head[20]
    cleared, first = 0, 0
    while first < MOST_PAGES:
        data = file.read(first * size, AT_ONCE // size * size)
        pages = np.frombuffer(data, np.uint8, len(data) // size * size).reshape(-1, size)
        for place, low, high in _unused(pages, usable):
            page = pages[place]
            if (first or place) and page[low:high].any() and _sound(page, low, high):
                file.write((first + place) * size + low, bytes(high - low))
                cleared += 1
        first += len(pages)
        if len(data) < AT_ONCE // size * size:
            break
    if cleared:
        file.sync()
    return cleared


def _unused(pages: NDArray[np.uint8], usable: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of the unused space of each page of a b-tree among pages (n, size)."""
    heads = np.zeros(256, np.int64)
    heads[list(HEADS)] = list(HEADS.values())
    numbers = pages[:, :8].astype(np.int64)
    head = heads[numbers[:, 0]]
    low = head + 2 * (numbers[:, 3] << 8 | numbers[:, 4])
    high = numbers[:, 5] << 8 | numbers[:, 6]
    high[high == 0] = 65_536
    places = np.flatnonzero((head > 0) & (low < high) & (high <= usable))
    return zip(places.tolist(), low[places].tolist(), high[places].tolist(), strict=True)


def _sound(page: NDArray[np.uint8], low: int, high: int) -> bool:
    """Whether all cells of a page (size,) lie where its header says; a damaged one is left."""
    pointers = page[HEADS[int(page[0])] : low].view(">u2")
    return not pointers.size or int(pointers.min()) >= high
