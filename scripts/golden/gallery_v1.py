"""Write tests/golden/gallery_v1.db.gz: a gallery of schema version 1, which every later facenet
must open. It is written once; a later schema gets a script and a file of its own.

    python scripts/golden/gallery_v1.py
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np

from facenet.gallery.migrations import MIGRATIONS
from facenet.gallery.records import (
    Apart,
    Crop,
    EnrolledFace,
    Entry,
    Person,
    Ruling,
    Setting,
    Space,
)
from facenet.gallery.sqlite import SqliteStore

TARGET = Path(__file__).resolve().parents[2] / "tests" / "golden" / "gallery_v1.db.gz"

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "G.db"
    store = SqliteStore(path, create=True, migrations=MIGRATIONS[:1])
    with store.write() as draft:
        draft.put(Space("contract:1", "tiny", 4, "active", 1.0))
        draft.put(Space("contract:2", "next", 2, "building", 2.0, "int8"))
        draft.put(Person("00", "Anna Müller", 3.0, "E-1", {"team": ["blue", 7], "on": None}))
        draft.put(Person("01", "Anna Müller", 4.0, automatic=True))
        draft.put(Person("02", "Gone", 5.0))
        box = (1.0, 2.0, 3.5, 4.25)
        draft.put(EnrolledFace(1, "00", 6.0, "ab" * 32, "/ä/1.jpg", box, 0.5, {"blur": 0.1}))
        draft.put(EnrolledFace(2, "01", 7.0))
        draft.put(EnrolledFace(3, "02", 8.0))
        draft.put(Crop(1, bytes(range(256))))
        draft.put(Ruling(1, "01", False, 9.0))
        draft.put(Apart("00", "01", 10.0))
        draft.put(Entry(1, 11.0, "rename", ("00",), {"name": "Anna"}, True))
        draft.put(Setting("gallery", "an id"))
        rows = np.array([[0.6, 0, 0, 0.8], [0, -1, 0, 0], [0.5, 0.5, 0.5, 0.5]], np.float32)
        draft.put_vectors("contract:1", dict(enumerate(rows, 1)))
        draft.put_vectors("contract:2", {2: np.array([0.28, -0.96], np.float32)})
    with store.write() as draft:
        draft.delete(Person, "02")
    store.close()
    TARGET.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
print(TARGET, TARGET.stat().st_size)
