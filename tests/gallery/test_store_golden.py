"""A file of every schema that was ever released opens, with all that is in it."""

import gzip
from pathlib import Path

import numpy as np

from facenet.gallery.backup import backup
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
from facenet.gallery.verifying import verify

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
LATER = "CREATE TABLE later (key TEXT PRIMARY KEY);"


def unpack(folder):
    path = folder / "G.db"
    path.write_bytes(gzip.decompress((GOLDEN / "gallery_v1.db.gz").read_bytes()))
    return path


def require_content(store):
    """What scripts/golden/gallery_v1.py put, written out again."""
    with store.read() as view:
        assert view.revision == 2
        assert view.find(Person) == [
            Person("00", "Anna Müller", 3.0, "E-1", {"team": ["blue", 7], "on": None}),
            Person("01", "Anna Müller", 4.0, None, {}, True),
        ]
        assert view.find(EnrolledFace) == [
            EnrolledFace(
                1, "00", 6.0, "ab" * 32, "/ä/1.jpg", (1.0, 2.0, 3.5, 4.25), 0.5, {"blur": 0.1}
            ),
            EnrolledFace(2, "01", 7.0, "", "", None, None, {}),
        ]
        assert view.find(Space) == [
            Space("contract:1", "tiny", 4, "active", 1.0, "fp32"),
            Space("contract:2", "next", 2, "building", 2.0, "int8"),
        ]
        assert view.get(Crop, 1) == Crop(1, bytes(range(256)))
        assert view.find(Ruling) == [Ruling(1, "01", False, 9.0)]
        assert view.find(Apart) == [Apart("00", "01", 10.0)]
        assert view.find(Entry) == [Entry(1, 11.0, "rename", ("00",), {"name": "Anna"}, True)]
        assert view.find(Setting) == [Setting("gallery", "an id")]
        block = view.vectors("contract:1")
        assert block.people == ("00", "01")
        assert np.array_equal(block.rows, np.array([[0.6, 0, 0, 0.8], [0, -1, 0, 0]], np.float32))
        assert view.vectors("contract:2").rows.tolist() == [
            [np.float32(0.28).item(), np.float32(-0.96).item()]
        ]
        changes = view.changes(0)
        assert changes is not None and (changes.put, changes.gone) == ((1, 2), (3,))
        assert view.erased() == {"person": {"02"}, "face": {"3"}}


def test_a_gallery_of_schema_1_opens_as_it_was(tmp_path):
    path = unpack(tmp_path)
    assert verify(path).problems == ()
    store = SqliteStore(path)
    require_content(store)
    with store.write() as draft:
        assert draft.next_id(EnrolledFace) == 4
        assert draft.next_id(Entry) == 2
    store.close()


def test_it_is_brought_to_later_schemas_and_keeps_all(tmp_path):
    path = unpack(tmp_path)
    store = SqliteStore(path, migrations=(*MIGRATIONS, LATER))
    require_content(store)
    with store.write() as draft:
        draft.put(Person("03", "Later", 1.0))
    store.close()


def test_a_backup_of_schema_1_is_verified_without_being_changed(tmp_path):
    path = unpack(tmp_path)
    data = path.read_bytes()
    assert verify(path).ok
    assert path.read_bytes() == data
    backup(path, tmp_path / "B")
    require_content(SqliteStore(tmp_path / "B"))
