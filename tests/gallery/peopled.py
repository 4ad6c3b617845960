"""Galleries in memory for tests of decisions: vectors in, no model, no photo."""

import numpy as np

from facenet.gallery.memory import MemoryStore
from facenet.gallery.records import Apart, EnrolledFace, Entry, Person, Ruling, Space
from facenet.types import Faces
from facenet.vectors import unit

SPACE = Space("toy:1", "toy", 8, "active", 1.0)


def peopled(people, *, metadata=None):
    """A store with people: name -> vectors (n, 8) of any length; their ids by name.

    Ids are person-0, person-1, ... in the given order; each face has a photo of its own, "p1", ...
    and the box 10 20 50 80. metadata: name -> metadata.
    """
    store, ids = MemoryStore("toy"), {}
    with store.write() as draft:
        draft.put(SPACE)
        for number, (name, rows) in enumerate(people.items()):
            ids[name] = f"person-{number}"
            told = (metadata or {}).get(name, {})
            draft.put(Person(ids[name], name, 1.0, metadata=told))
            for row in unit(np.atleast_2d(rows)) if len(rows) else []:
                face = draft.next_id(EnrolledFace)
                box = (10.0, 20.0, 50.0, 80.0)
                draft.put(EnrolledFace(face, ids[name], 1.0, f"p{face}", f"/{face}.jpg", box))
                draft.put_vectors(SPACE.contract, {face: row})
    return store, ids


def faces_of(rows, *, boxes=None, contract=SPACE.contract):
    """`Faces` of one photo with these embeddings (n, 8)."""
    count = len(rows)
    given = [(10, 20, 50, 80)] * count if boxes is None else boxes
    score = np.full(count, 0.99, np.float32)
    return Faces(np.array(given, np.float32), None, score, unit(np.array(rows)), contract=contract)


def axis(number, lean=0.0, towards=7):
    """A unit vector along an axis, leaning towards another."""
    row = np.zeros(8, np.float32)
    row[number], row[towards] = np.sqrt(1 - lean**2), lean
    return row


def contents(store):
    """Everything of a gallery but its journal, as plain sets and vectors."""
    with store.read() as view:
        rows = [row for kind in (Person, EnrolledFace, Ruling, Apart) for row in view.find(kind)]
        block = view.vectors(SPACE.contract)
        return sorted(map(repr, rows)), block.ids.tolist(), block.rows.tolist()


def entries_of(store):
    with store.read() as view:
        return view.find(Entry)


def owner(store, face):
    with store.read() as view:
        found = view.get(EnrolledFace, face)
        return found and found.person
