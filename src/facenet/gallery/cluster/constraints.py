"""What a user ruled, as links: faces that are one person, and faces that are two people.

Must-links are taken first: faces linked so are one unit from the beginning and no method can
part them. Cannot-links are asked before each union, so that none is ever made that breaks one.
Both are kept by construction (COP clustering: Wagstaff and Cardie, 2000), none is repaired later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.gallery.cluster.labels import joined
from facenet.types import FloatArray, IntArray

Pairs = Iterable[tuple[int, int]] | NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Constraints on n faces, made by `link`.

    unit: int64 (n,), faces of one unit stay together; units are numbered from 0. apart: int64
    (k, 2), units that never come together. fixed: bool (units,), no two of which come together.
    """

    unit: IntArray
    apart: IntArray
    fixed: NDArray[np.bool_]

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.fixed)

    def binding(self) -> bool:
        """Whether anything may not come together."""
        return len(self.apart) > 0 or int(self.fixed.sum()) > 1


def link(
    count: int, *, together: Pairs = (), apart: Pairs = (), fixed: Iterable[int] = ()
) -> Links:
    """Links over `count` faces from pairs of rows.

    together, apart: pairs (k, 2) of rows. fixed: rows whose units stand for people who are told
    apart from one another already. Raises InputError for rows that are not there, and where two
    rulings contradict each other; it names the faces.
    """
    must, cannot = _pairs(together, count), _pairs(apart, count)
    unit = np.unique(joined(count, must[:, 0], must[:, 1]), return_inverse=True)[1]
    between = unit[cannot]
    torn = np.flatnonzero(between[:, 0] == between[:, 1])
    if len(torn):
        a, b = cannot[torn[0]]
        raise InputError(
            f"Rulings should not contradict each other; faces {a} and {b} are said to be one "
            "person and two. Take one of the rulings back."
        )
    marks = np.zeros(int(unit.max(initial=-1)) + 1, np.bool_)
    marks[unit[_rows(np.fromiter(fixed, np.int64), count)]] = True
    return Links(unit.astype(np.int64), np.unique(np.sort(between, axis=1), axis=0), marks)


def apart_in_photos(
    vectors: FloatArray, photo: IntArray, *, twice_at: float, since: int = 0
) -> IntArray:
    """Pairs of faces of one photo, who are two people: int64 (k, 2), rows of (n, d).

    Two faces of one photo are one person in a collage, in a mirror, or beside a picture of
    themselves. So it is no rule but a strong hint: a pair that reaches the similarity `twice_at`
    is left to the other evidence. photo: (n,), equal for faces of one photo. since: only photos
    with a face of this row or a later one.
    """
    order = np.argsort(photo, kind="stable")
    found = [np.zeros((0, 2), np.int64)]
    for rows in np.split(order, np.flatnonzero(np.diff(photo[order])) + 1):
        if len(rows) > 1 and rows[-1] >= since:
            i, j = np.nonzero(np.triu(vectors[rows] @ vectors[rows].T < twice_at, 1))
            found.append(np.stack([rows[i], rows[j]], axis=1))
    return np.concatenate(found)


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Which clusters may not come together, while units are united. Made by `bounds`."""

    fixed: NDArray[np.bool_]
    apart: dict[int, set[int]] = field(default_factory=dict)

    def allowed(self, cluster: int, others: IntArray) -> NDArray[np.bool_]:
        """Whether a cluster may be united with each of others: bool (m,) for (m,)."""
        free = np.ones(len(others), np.bool_)
        if self.fixed[cluster]:
            free &= ~self.fixed[others]
        if enemies := self.apart.get(cluster):
            free &= ~np.isin(others, np.fromiter(enemies, np.int64, len(enemies)))
        return free

    def may(self, a: int, b: int) -> bool:
        """Whether two clusters may be united."""
        return not (self.fixed[a] and self.fixed[b]) and b not in self.apart.get(a, ())

    def unite(self, kept: int, gone: int) -> None:
        """A cluster became part of another one, with all that it is apart from."""
        self.fixed[kept] |= self.fixed[gone]
        for other in self.apart.pop(gone, ()):
            self.apart[other].discard(gone)
            self.apart[other].add(kept)
            self.apart.setdefault(kept, set()).add(other)


def bounds(links: Links) -> Bounds:
    """The bounds of links before anything is united: every unit a cluster."""
    apart: dict[int, set[int]] = {}
    for a, b in links.apart.tolist():
        apart.setdefault(a, set()).add(b)
        apart.setdefault(b, set()).add(a)
    return Bounds(links.fixed.copy(), apart)


def _pairs(pairs: Pairs, count: int) -> IntArray:
    array = pairs if isinstance(pairs, np.ndarray) else np.array(list(pairs), np.int64)
    return _rows(array.astype(np.int64).reshape(-1, 2), count)


def _rows(rows: IntArray, count: int) -> IntArray:
    bad = rows[(rows < 0) | (rows >= count)]
    if len(bad):
        raise InputError(
            f"Links should name rows from 0 to {count - 1}; got {bad[0]}. Give the places of the "
            "faces among the vectors."
        )
    return rows
