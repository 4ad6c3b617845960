"""A verification set: pictures, and which of them are compared.

Every reader of pair sets gives a `PairSet`, so that one piece of evaluation serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError
from facenet.types import IntArray


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a data set.

    name: as reports show it, unique within the set. source: its file, or its encoded bytes, or
    None when it is missing. person: who it shows, "" when the set does not say. landmarks: x y of
    five points in pixels, where the set gives them: then no face is looked for.
    """

    name: str
    source: Path | bytes | None
    person: str = ""
    landmarks: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PairSet:
    """Pairs of pictures with the truth.

    dataset: its name. pictures: all that are compared. a, b: int64 (n,), rows of `pictures`.
    same: bool (n,), one person or two. fold: int64 (n,), 0 and up. aligned: the pictures are
    crops made by others, in which no face is looked for. digests: SHA-256 of the files that were
    read, by name. notes: what the reader wants to be said in a report, a sentence each.
    Raises DataError for arrays that do not fit each other.
    """

    dataset: str
    pictures: tuple[Picture, ...]
    a: IntArray
    b: IntArray
    same: NDArray[np.bool_]
    fold: IntArray
    aligned: bool = False
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kinds: dict[str, Any] = {"a": np.int64, "b": np.int64, "same": np.bool_, "fold": np.int64}
        for name, kind in kinds.items():
            column = np.array(getattr(self, name), kind)
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        shapes = {getattr(self, name).shape for name in kinds}
        if shapes != {(len(self.a),)} or len(self.a) == 0:
            raise DataError(
                f"{self.dataset} should hold one pair or more, each with its truth and fold; the "
                f"columns have the shapes {sorted(shapes)}."
            )
        rows = np.concatenate([self.a, self.b])
        if rows.min() < 0 or rows.max() >= len(self.pictures):
            raise DataError(
                f"The pairs of {self.dataset} should be of its {len(self.pictures)} pictures; "
                f"they name picture {rows.max() if rows.min() >= 0 else rows.min()}."
            )

    def __len__(self) -> int:
        return len(self.a)

    def subjects(self) -> IntArray:
        """A number per picture, the same for pictures of one person: int64 (pictures,).

        Pictures without a name are of one person when pairs of the same person link them, or
        when they are equal byte for byte; that is all such a set tells.
        """
        root = list(range(len(self.pictures)))

        def find(row: int) -> int:
            while root[row] != row:
                root[row] = root[root[row]]
                row = root[row]
            return row

        first: dict[str | bytes, int] = {}
        for row, picture in enumerate(self.pictures):
            key = picture.person or picture.source
            if isinstance(key, str | bytes):
                root[row] = find(first.setdefault(key, row))
        for i, j in zip(self.a[self.same].tolist(), self.b[self.same].tolist(), strict=True):
            root[find(i)] = find(j)
        return np.unique([find(row) for row in range(len(root))], return_inverse=True)[1]
