"""A generated gallery: vectors of people who do not exist, for measuring a search.

Each person has four faces: a random direction and, on it, as much random change as makes two faces
of one person about 0.5 similar, as real ones are. One face in a hundred is a copy of another
person's: half of these are equal to the bit, half differ in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from facenet.gallery.index import IDENTITY
from facenet.gallery.records import EnrolledFace, Person, Setting, Space, VectorBlock
from facenet.gallery.store import Draft, Store, open_store
from facenet.types import FloatArray, IntArray
from facenet.vectors import unit

CONTRACT = "generated"
FACES = 4
"""Of a person."""
COPIES = 100
"""One face in so many is a copy."""
AT_ONCE = 10_000
"""Rows that are generated, and committed, at a time."""


def fill(
    place: Path, rows: int, dimension: int, seed: int, progress: Callable[[int, int], None]
) -> Store:
    """A new gallery of `rows` faces in a file. progress: (rows written, rows)."""
    store = open_store(place, create=True)
    with store.write() as draft:
        draft.put(Setting(IDENTITY, f"generated {seed}"))
        draft.put(Space(CONTRACT, "generated", dimension, "active", 0.0))
    for start in range(0, rows, AT_ONCE):
        count = min(AT_ONCE, rows - start)
        with store.write() as draft:
            _write(draft, start + 1, vectors(start, count, dimension, seed))
        progress(start + count, rows)
    return store


def vectors(start: int, count: int, dimension: int, seed: int) -> FloatArray:
    """Unit vectors float32 (count, d) of the faces from number start + 1 on."""
    rng = np.random.default_rng([seed, start])
    scale = 1 / np.sqrt(dimension)
    people = np.repeat(rng.standard_normal((-(-count // FACES), dimension)), FACES, axis=0)[:count]
    rows = (people + rng.standard_normal((count, dimension))) * scale
    copies = np.arange(COPIES - 1, count, COPIES)
    rows[copies] = rows[copies - COPIES // 2]
    near = copies[1::2]
    rows[near] += 1e-7 * rng.standard_normal((len(near), dimension)) * scale
    return unit(rows)


def copied(rows: int, count: int) -> IntArray:
    """Ids of faces that are copies of another, int64 (count,), again from the first."""
    copies = np.arange(COPIES, rows + 1, COPIES)
    return np.resize(copies, count)


def blocks(store: Store) -> Iterator[VectorBlock]:
    """Every vector of a generated gallery, in blocks by face."""
    with store.read() as view:
        after = 0
        while len(block := view.vectors(CONTRACT, after=after, limit=AT_ONCE)):
            after = int(block.ids[-1])
            yield block


def _write(draft: Draft, first: int, rows: FloatArray) -> None:
    for face in range(first, first + len(rows)):
        person = f"{(face - 1) // FACES:016x}"
        if (face - 1) % FACES == 0:
            draft.put(Person(person, f"person {person}", 0.0))
        draft.put(EnrolledFace(face, person, 0.0))
    draft.put_vectors(CONTRACT, {first + number: row for number, row in enumerate(rows)})
