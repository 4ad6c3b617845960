"""Are the faces in memory all those of the gallery, as they are now?

A disk that loses writes gives old pages back, and every row on them bears a good seal. Each face in
memory has a stamp, made of the seals of its vector and of its row; the gallery keeps the sums of
all seals. If the sums are equal, no face is missing and none is one of another day.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from facenet.errors import DamagedGalleryError
from facenet.gallery.codes import Table
from facenet.gallery.records import Census
from facenet.gallery.seals import ADVICE


def agrees(census: Census, rows: Table, bare: Mapping[int, int]) -> bool:
    """Whether rows with a vector and faces without one (id -> stamp) are what a census counted."""
    stamps = int(rows.stamps.sum(dtype=np.uint64)) + sum(bare.values())
    counted = len(rows), len(rows) + len(bare)
    same = (stamps - census.total) % (1 << 64) == 0
    return same and counted == (census.vectors, census.faces)


def old_faces(place: str) -> DamagedGalleryError:
    """The error that says that faces are not as they should be now."""
    return DamagedGalleryError(
        f"The gallery {place:.200} is damaged: some of its faces are missing, or are older ones "
        f"that had been replaced. {ADVICE}"
    )
