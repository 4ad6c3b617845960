"""What was deleted has to leave no byte, whenever the program that deletes is killed.

Before a program deletes somebody it says which rows will go and how their bytes look: vectors,
names, metadata, crops. Once the gallery has been opened again after the kill, either the rows are
there, or none of those bytes may be in any of its files.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crashing.ledger import State
from facenet.gallery.records import Crop, EnrolledFace, Person, Space
from facenet.gallery.store import View

WINDOW = 16
"""Bytes of a vector or a crop that are looked for together."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A deletion that was begun. rows: names that go, in the ledger. traces: bytes that go."""

    rows: tuple[str, ...]
    traces: tuple[bytes, ...]


@dataclass(slots=True)
class Claims:
    """Deletions that nobody has looked after yet."""

    open: list[Claim] = field(default_factory=list)

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in what a program said, its last words perhaps cut off."""
        for line in lines:
            told = json.loads(line) if line.endswith(b"\n") else {}
            if "erase" in told:
                traces = tuple(bytes.fromhex(trace) for trace in told["traces"])
                self.open.append(Claim(tuple(told["erase"]), traces))

    def left(self, path: Path, actual: State) -> tuple[int, list[str]]:
        """How many deletions were made, and for each that left bytes a word about them.

        path: the gallery; its files are those whose names begin with its own. actual: what it
        holds.
        """
        made = [claim for claim in self.open if not any(row in actual for row in claim.rows)]
        files = {file.name: file.read_bytes() for file in path.parent.glob(f"{path.name}*")}
        found = []
        for claim in made if files else []:
            places = {
                name: sum(trace in data for trace in claim.traces) for name, data in files.items()
            }
            if any(places.values()):
                found.append(f"{claim.rows[0]} left bytes: {places}")
        return len(made), found


def claimed(view: View, people: Collection[str], faces: Collection[int]) -> dict[str, Any]:
    """What a program says before it deletes people, or some faces."""
    gone = {face for face in faces if view.get(EnrolledFace, face)}
    gone |= {face.id for who in people for face in view.find(EnrolledFace, person=who)}
    rows = [*(f"person:{who}" for who in people), *(f"face:{face}" for face in sorted(gone))]
    traces = [trace for who in people for trace in _of_person(view, who)]
    traces += [trace for face in sorted(gone) for trace in _of_face(view, face)]
    return {"erase": rows, "traces": [trace.hex() for trace in traces]}


def _of_person(view: View, who: str) -> Iterator[bytes]:
    person = view.get(Person, who)
    if person:
        texts = (person.name, person.external_id, *person.metadata.values())
        yield from (text.encode() for text in texts if text)


def _of_face(view: View, number: int) -> Iterator[bytes]:
    face, crop = view.get(EnrolledFace, number), view.get(Crop, number)
    if face:
        yield face.photo.encode()
        yield face.source.encode()
    for space in view.find(Space):
        for row in view.vectors(space.contract, ids=[number]).rows:
            yield row.tobytes()[:WINDOW]
            yield row.tobytes()[-WINDOW:]
    if crop:
        yield crop.data[:WINDOW]
        yield crop.data[-WINDOW:]
