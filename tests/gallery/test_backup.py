"""Backups taken in use, brought back over damaged galleries, without the people who were erased."""

import os
import re
import signal
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from facenet.errors import DamagedGalleryError, GalleryError, InputError
from facenet.gallery.backup import backup, restore
from facenet.gallery.memory import MemoryStore
from facenet.gallery.records import EnrolledFace, Person, Setting, Space
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.verifying import verify

WIDTH = 16


def vector(seed):
    row = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return row / np.linalg.norm(row)


def begin(place):
    store = SqliteStore(place, create=True)
    with store.write() as draft:
        draft.put(Space("c", "m", WIDTH, "active", 1.0))
    return store


def enrol(store, person, name, faces=1):
    """A person with faces; the ids of the faces."""
    with store.write() as draft:
        draft.put(Person(person, name, 1.0))
        ids = [draft.next_id(EnrolledFace) for _ in range(faces)]
        for face in ids:
            draft.put(EnrolledFace(face, person, 1.0, source=f"{name}.jpg"))
        draft.put_vectors("c", {face: vector(face) for face in ids})
    return ids


def told(place):
    """person id -> name, face id -> person, and whether every vector is its own."""
    store = SqliteStore(place)
    with store.read() as view:
        people = {row.id: row.name for row in view.find(Person)}
        faces = {row.id: row.person for row in view.find(EnrolledFace)}
        block = view.vectors("c")
        assert dict(zip(block.ids.tolist(), block.people, strict=True)) == faces
        for face, row in zip(block.ids.tolist(), block.rows, strict=True):
            assert np.array_equal(row, vector(face))
    store.close()
    return people, faces


def damage(place):
    data = bytearray(place.read_bytes())
    data[16_384 * 2 : 16_384 * 9] = bytes(16_384 * 7)
    place.write_bytes(data)


def test_a_backup_under_load_restores_to_a_prefix(tmp_path):
    """Forty backups while a thread enrols; before every other restore the gallery is damaged."""
    place, ledger, stop = tmp_path / "G.db", [], threading.Event()
    store = begin(place)

    def write():
        number = 0
        while not stop.is_set():
            enrol(store, f"p{number:05}", f"Name {number}")
            ledger.append(number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    bounds = []
    try:
        for number in range(40):
            before = len(ledger)
            backup(store, tmp_path / f"{number}.backup")
            bounds.append((before, len(ledger) + 1))
    finally:
        stop.set()
        writer.join()
    store.close()
    assert bounds[-1][0] > 40
    for number, (low, high) in enumerate(bounds):
        if number % 2:
            damage(place)
        report = restore(tmp_path / f"{number}.backup", place, overwrite=True)
        assert report.report.ok
        people, faces = told(place)
        count = len(people)
        assert low <= count <= high
        assert people == {f"p{n:05}": f"Name {n}" for n in range(count)}
        assert faces == {n + 1: f"p{n:05}" for n in range(count)}


def test_a_backup_is_private_and_whole_and_leaves_nothing_beside(tmp_path):
    store = begin(tmp_path / "G.db")
    enrol(store, "a", "Anna")
    target = tmp_path / "deep" / "er" / "ü#?.backup"
    backup(store, target)
    store.close()
    assert [path.name for path in target.parent.iterdir()] == ["ü#?.backup"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert verify(target).ok
    assert told(target) == ({"a": "Anna"}, {1: "a"})


def test_a_damaged_gallery_makes_no_backup(tmp_path):
    place, target = tmp_path / "G.db", tmp_path / "B"
    store = begin(place)
    ids = enrol(store, "a", "Anna", faces=3)
    store.close()
    backup(place, target)
    good = target.read_bytes()
    data = bytearray(place.read_bytes())
    data[data.index(vector(ids[1]).tobytes())] ^= 1
    place.write_bytes(data)
    with pytest.raises(DamagedGalleryError, match="1 rows of the kind vector .*: 2"):
        backup(place, target, overwrite=True)
    assert target.read_bytes() == good
    assert sorted(path.name for path in tmp_path.iterdir()) == ["B", "G.db"]


def test_restore_puts_the_damaged_file_aside_with_its_log(tmp_path):
    place, saved = tmp_path / "G.db", tmp_path / "B"
    enrol(store := begin(place), "a", "Anna")
    backup(store, saved)
    store.close()
    child = os.fork()
    if child == 0:
        enrol(SqliteStore(place), "b", "Ben")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    place.write_bytes(b"\x00" * 5_000)
    old, log = place.read_bytes(), Path(f"{place}-wal").read_bytes()
    report = restore(saved, place)
    assert not report.known
    assert report.aside is not None
    assert Path(report.aside).read_bytes() == old
    assert Path(f"{report.aside}-wal").read_bytes() == log
    assert told(place) == ({"a": "Anna"}, {1: "a"})
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    store = SqliteStore(place)
    with store.write() as draft:
        assert draft.next_id(EnrolledFace) == 1_000_002
    store.close()


def test_who_was_erased_since_does_not_come_back(tmp_path):
    place, saved = tmp_path / "G.db", tmp_path / "B"
    store = begin(place)
    enrol(store, "a", "Anna", faces=2)
    enrol(store, "z", "Zerubbabel", faces=2)
    backup(store, saved)
    with store.write() as draft:
        draft.delete(Person, "z")
        draft.delete(EnrolledFace, 2)
    with store.read() as view:
        last = view.revision
    store.close()
    report = restore(saved, place, overwrite=True)
    # Three faces and a person.
    assert (report.erased, report.known, report.aside) == (4, True, None)
    assert told(place) == ({"a": "Anna"}, {1: "a"})
    assert b"Zerubbabel" not in place.read_bytes()
    for face in (2, 3, 4):
        assert vector(face).tobytes() not in place.read_bytes()
    store = SqliteStore(place)
    with store.read() as view:
        assert view.revision > last
        assert all(view.changes(revision) is None for revision in range(last + 1))
        assert view.changes(view.revision) is not None
    with store.write() as draft:
        assert draft.next_id(EnrolledFace) == 5
    store.close()
    assert restore(saved, place).erased == 4
    assert told(place) == ({"a": "Anna"}, {1: "a"})


def test_faces_of_a_merged_person_stay_with_whom_they_were_merged(tmp_path):
    """To delete the name of a merged person is no wish to lose the faces."""
    place, saved = tmp_path / "G.db", tmp_path / "B"
    store = begin(place)
    enrol(store, "a", "Anna")
    enrol(store, "b", "Bnna", faces=3)
    backup(store, saved)
    with store.write() as draft:
        draft.put(Person("c", "Carl", 2.0))
        for face, person in ((2, "a"), (3, "c")):
            found = draft.get(EnrolledFace, face)
            assert found is not None
            draft.put(EnrolledFace(face, person, found.created, source=found.source))
        draft.delete(Person, "b")
    store.close()
    restore(saved, place)
    assert told(place) == ({"a": "Anna", "c": "Carl"}, {1: "a", 2: "a", 3: "c"})


def test_a_row_that_was_put_again_is_not_erased(tmp_path):
    place, saved = tmp_path / "G.db", tmp_path / "B"
    store = begin(place)
    enrol(store, "a", "Anna")
    backup(store, saved)
    with store.write() as draft:
        face = draft.get(EnrolledFace, 1)
        draft.delete(EnrolledFace, 1)
        draft.put(face)
    store.close()
    assert restore(saved, place).erased == 0
    assert told(place) == ({"a": "Anna"}, {1: "a"})


def test_a_restore_where_nothing_was(tmp_path):
    store = begin(tmp_path / "G.db")
    enrol(store, "a", "Anna")
    backup(store, tmp_path / "B")
    store.close()
    report = restore(tmp_path / "B", tmp_path / "new" / "G.db")
    assert (report.aside, report.erased, report.known) == (None, 0, True)
    assert told(tmp_path / "new" / "G.db") == ({"a": "Anna"}, {1: "a"})


def test_a_gallery_in_use_is_not_replaced(tmp_path):
    place, saved = tmp_path / "G.db", tmp_path / "B"
    store = begin(place)
    backup(store, saved)
    with pytest.raises(GalleryError, match="is open in a program"):
        restore(saved, place)
    store.close()
    ready, leave = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with SqliteStore(place).read():
            os.write(ready[1], b"x")
            os.read(leave[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    before = place.read_bytes()
    with pytest.raises(GalleryError, match="is open in a program"):
        restore(saved, place)
    assert place.read_bytes() == before
    os.write(leave[1], b"x")
    os.waitpid(child, 0)
    assert restore(saved, place).report.ok
    for number in (*ready, *leave):
        os.close(number)


def test_what_cannot_be_backed_up_or_restored(tmp_path):
    place, saved = tmp_path / "G.db", tmp_path / "B"
    store = begin(place)
    backup(store, saved)
    with pytest.raises(GalleryError, match="something already at"):
        backup(store, saved)
    with pytest.raises(GalleryError, match="something already at"):
        backup(store, tmp_path, overwrite=True)
    with pytest.raises(GalleryError, match="a gallery in use"):
        backup(store, place, overwrite=True)
    with pytest.raises(InputError, match="is none. Export it instead"):
        backup(MemoryStore("m"), tmp_path / "M")
    store.close()
    with pytest.raises(GalleryError, match="another file than itself or a folder"):
        restore(saved, saved)
    with pytest.raises(GalleryError, match="another file than itself or a folder"):
        restore(saved, tmp_path)
    with pytest.raises(GalleryError, match="no gallery at"):
        restore(tmp_path / "missing", place)
    damage(saved)
    before = place.read_bytes()
    with pytest.raises(DamagedGalleryError, match="The backup .* is damaged.*Take an older one"):
        restore(saved, place)
    assert place.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["B", "G.db"]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE person SET name = 'Eve' WHERE key = 'a'",
            "1 rows of the kind person are not as .*: a",
        ),
        ("UPDATE face SET person = 'b' WHERE key = 1", "rows of the kind face"),
        ("DELETE FROM vector WHERE key % 2 = 0", "There should be 2 rows of the kind vector"),
        ("DELETE FROM person WHERE key = 'b'", "rows speak of a person or a face"),
        ("UPDATE tally SET last = 0 WHERE name = 'face'", "counter of the kind face is behind"),
        ("UPDATE tally SET count = 9 WHERE name = 'face'", "1 rows of the kind tally .*: face"),
        ("UPDATE change SET gone = put", "rows of the kind change"),
        ("DELETE FROM space", "There should be 1 rows of the kind space"),
        ("UPDATE vector SET seal = 'x'", "2 rows of the kind vector"),
        ("INSERT INTO erased VALUES ('face', '9', x'00')", "rows of the kind erased"),
    ],
)
def test_verify_says_what_is_wrong(tmp_path, statement, problem):
    place = tmp_path / "G.db"
    store = begin(place)
    enrol(store, "a", "Anna", faces=2)
    with store.write() as draft:
        draft.put(Person("b", "Ben", 1.0))
        draft.put(EnrolledFace(7, "b", 1.0))
    assert verify(place).ok
    with store._connected() as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(statement)
        connection.execute("PRAGMA foreign_keys = ON")
    store.close()
    problems = verify(place).problems
    assert any(re.search(problem, text) for text in problems), problems
    assert all(text.endswith(".") for text in problems)


def test_verify_wants_one_active_space(tmp_path):
    store = begin(tmp_path / "G.db")
    with store.write() as draft:
        draft.put(Space("d", "m", WIDTH, "active", 1.0))
        draft.put(Setting("s", "t"))
    store.close()
    assert verify(tmp_path / "G.db").problems == ("One space of vectors should be active; 2 are.",)
