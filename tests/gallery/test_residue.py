"""What was deleted leaves no byte behind: not in the file, its log, its saved index or elsewhere.

The scanner looks for a vector as floats of 32 and 16 bits, as bytes of the index, as base64 and as
text, and for names in two encodings. It is shown to find each of them where they are.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facenet.gallery import codes, corrections, scrubbing
from facenet.gallery.backup import backup, restore, verify
from facenet.gallery.descriptors import Held
from facenet.gallery.exchange import export_gallery
from facenet.gallery.index import IDENTITY, Index
from facenet.gallery.records import Crop, EnrolledFace, Person, Setting, Space, new_person_id
from facenet.gallery.register import Register
from facenet.gallery.snapshot import snapshot_path
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.store import Draft
from facenet.types import FloatArray

WIDTH, CONTRACT = 64, "toy"
WINDOW = 8
"""Values of a vector that are looked for together, wherever they begin."""


@dataclass(frozen=True, slots=True, eq=False)
class Canary:
    """Somebody whose every trace is known."""

    person: Person
    face: int
    vector: FloatArray
    photo: str
    source: str
    crop: bytes


def enrol(draft: Draft, random: np.random.Generator, *, longest: int = 1) -> Canary:
    """Somebody with one face. longest: how often the text in the metadata may be repeated."""
    tag = random.bytes(8).hex()
    metadata = {"badge": f"badge {tag} " * int(random.integers(1, longest + 1))}
    person = Person(new_person_id(), f"Näme {tag}", 1.0, f"external {tag}", metadata)
    draft.put(person)
    row = random.standard_normal(WIDTH)
    row = (row / np.linalg.norm(row)).astype(np.float32)
    face = draft.next_id(EnrolledFace)
    photo, crop = random.bytes(32).hex(), random.bytes(int(random.integers(200, 9000)))
    draft.put(EnrolledFace(face, person.id, 1.0, photo, f"/photos/{tag}.jpg"))
    draft.put_vectors(CONTRACT, {face: row})
    draft.put(Crop(face, crop))
    return Canary(person, face, row, photo, f"/photos/{tag}.jpg", crop)


def traces(canary: Canary, *, whole: bool = True) -> Iterator[tuple[str, bytes]]:
    """What of somebody could be left, and how it would look. whole: the person, not only a face."""
    vector = canary.vector
    coded = codes.encode(vector[None], codes.scale_of(WIDTH))[0][0].tobytes()
    for start in range(WIDTH - WINDOW + 1):
        part = vector[start : start + WINDOW]
        yield "fp32", part[: WINDOW // 2].tobytes()
        yield "fp16", part.astype(np.float16).tobytes()
        yield "index", coded[start : start + WINDOW]
        yield "int8", np.rint(part * 127).astype(np.int8).tobytes()
        yield "text", json.dumps([float(value) for value in part])[1:-1].encode()
        yield "text", json.dumps(part.tolist(), separators=(",", ":"))[1:-1].encode()
    for shift in range(3):
        text = base64.b64encode(vector.tobytes()[shift:])
        yield from (("base64", text[at : at + 24]) for at in range(0, len(text) - 28, 16))
    for start in range(0, len(canary.crop) - 16, 64):
        yield "crop", canary.crop[start : start + 16]
    texts = [canary.photo, canary.source]
    if whole:
        badge = canary.person.metadata["badge"][:22]
        texts += [canary.person.name, str(canary.person.external_id), badge]
    for text in texts:
        yield "name", text.encode()
        yield "name", text.encode("utf-16-le")
        yield "name", json.dumps(text)[1:-1].encode()


def residue(folder: Path, canaries: Sequence[Canary], *, whole: bool = True) -> Counter[str]:
    """Where in a folder something of somebody is: "file: form" -> how often."""
    found: Counter[str] = Counter()
    wanted = [trace for canary in canaries for trace in traces(canary, whole=whole)]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        found.update(f"{path.name}: {form}" for form, needle in wanted if needle in data)
    return found


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[SqliteStore]:
    """A gallery with a second model and 40 people who stay."""
    store = SqliteStore(tmp_path / "gallery.db", create=True)
    random = np.random.default_rng(11)
    with store.write() as draft:
        draft.put(Space(CONTRACT, "toy", WIDTH, "active", 0.0))
        for _ in range(40):
            enrol(draft, random)
    yield store
    store.close()


def enrolled(store: SqliteStore, seed: int, count: int = 1) -> list[Canary]:
    random = np.random.default_rng(seed)
    with store.write() as draft:
        return [enrol(draft, random) for _ in range(count)]


@pytest.mark.parametrize("form", ["fp32", "fp16", "index", "int8", "text", "base64", "name"])
def test_the_scanner_finds_every_form(tmp_path: Path, gallery: SqliteStore, form: str) -> None:
    (canary,) = enrolled(gallery, 1)
    needles = [needle for kind, needle in traces(canary) if kind == form]
    place = tmp_path / "elsewhere"
    place.mkdir()
    for number in {0, len(needles) // 2, len(needles) - 1}:
        (place / "left").write_bytes(b"\x00" * 77 + needles[number] + b"\x01" * 33)
        assert residue(place, [canary])[f"left: {form}"] >= 1


def test_a_deleted_person_is_gone_while_the_gallery_is_open_and_after(
    tmp_path: Path, gallery: SqliteStore
) -> None:
    (canary,) = enrolled(gallery, 2)
    assert {"fp32", "name", "crop"} <= {form.split()[1] for form in residue(tmp_path, [canary])}
    corrections.delete_person(gallery, canary.person.id)
    assert not gallery.pending_erasure
    assert residue(tmp_path, [canary]) == Counter()
    gallery.close()
    assert residue(tmp_path, [canary]) == Counter()


def test_a_deleted_face_is_gone_and_its_person_stays(tmp_path: Path, gallery: SqliteStore) -> None:
    (canary,) = enrolled(gallery, 3)
    corrections.delete_faces(gallery, canary.face)
    assert residue(tmp_path, [canary], whole=False) == Counter()
    assert residue(tmp_path, [canary])["gallery.db: name"] > 0


def test_a_dropped_space_takes_its_vectors_along(tmp_path: Path, gallery: SqliteStore) -> None:
    canaries = enrolled(gallery, 4, 5)
    with gallery.write() as draft:
        draft.delete(Space, CONTRACT)
    found = {form.split()[1] for form in residue(tmp_path, canaries)}
    assert found == {"name", "crop"}


def test_corrections_before_a_deletion_leave_nothing_in_the_journal(
    tmp_path: Path, gallery: SqliteStore
) -> None:
    kept, *gone = enrolled(gallery, 5, 5)
    first, second, third, fourth = (canary.person.id for canary in gone)
    corrections.rename(gallery, first, "Another Name Entirely")
    corrections.describe(gallery, first, {"badge": "another badge"})
    corrections.merge(gallery, second, [third])
    corrections.move(gallery, gone[3].face, first)
    corrections.confirm(gallery, gone[0].face, first)
    corrections.reject(gallery, gone[1].face, kept.person.id)
    corrections.apart(gallery, first, second)
    corrections.undo(gallery)
    for person in (first, second, fourth):
        corrections.delete_person(gallery, person)
    assert residue(tmp_path, gone) == Counter()
    assert b"Another Name" not in (tmp_path / "gallery.db").read_bytes()
    assert residue(tmp_path, [kept])["gallery.db: fp32"] > 0


def test_a_saved_index_goes_with_the_deleted(tmp_path: Path, gallery: SqliteStore) -> None:
    (canary,) = enrolled(gallery, 6)
    with gallery.write() as draft:
        draft.put(Setting(IDENTITY, "an id"))
    path = tmp_path / "gallery.db"
    index = Index(gallery, CONTRACT, snapshot=snapshot_path(path, CONTRACT))
    assert index.save()
    assert any(form.endswith("index") for form in residue(tmp_path, [canary]))
    Register(gallery).delete(canary.person.id)
    assert residue(tmp_path, [canary]) == Counter()
    assert index.save()
    assert residue(tmp_path, [canary]) == Counter()


def test_what_pages_keep_of_rows_that_moved_is_cleared_too(tmp_path: Path) -> None:
    """Rows of many sizes in random order: pages split and join, and rows move between them."""
    path = tmp_path / "gallery.db"
    store = SqliteStore(path, create=True)
    random = np.random.default_rng(12)
    with store.write() as draft:
        draft.put(Space(CONTRACT, "toy", WIDTH, "active", 0.0))
    people = []
    for _ in range(30):
        with store.write() as draft:
            people += [enrol(draft, random, longest=30) for _ in range(20)]
    order = random.permutation(len(people)).tolist()
    for start in range(0, 300, 30):
        with store.write() as draft:
            for number in order[start : start + 30]:
                draft.delete(Person, people[number].person.id)
    data = path.read_bytes()
    gone = [people[number] for number in order[:300]]
    assert [one for one in gone if one.person.name.encode() in data] == []
    assert [one for one in gone if one.vector[:4].tobytes() in data] == []
    assert [one for one in gone if one.vector[-4:].tobytes() in data] == []
    stayed = [people[number] for number in order[300:]]
    assert all(one.person.name.encode() in data for one in stayed)
    copies = Counter(re.findall("Näme [0-9a-f]{16}".encode(), data))
    assert set(copies.values()) == {2}  # the row and its index: no page keeps a third
    store.close()
    assert verify(path).problems == ()


def test_without_it_such_copies_are_there(tmp_path: Path) -> None:
    """What `scrub` finds to do in a file that SQLite alone has written."""
    path = tmp_path / "plain.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE person (key TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID")
    random = np.random.default_rng(0)
    rows = [
        ("key-" + random.bytes(8).hex(), "x" * int(random.integers(40, 1600))) for _ in range(4000)
    ]
    connection.executemany("INSERT INTO person VALUES (?, ?)", rows)
    for key, _ in rows[:2000]:
        connection.execute("DELETE FROM person WHERE key = ?", (key,))
    connection.commit()
    connection.close()
    gone = {key.encode() for key, _ in rows[:2000]}
    assert len(gone & set(re.findall(b"key-[0-9a-f]{16}", path.read_bytes()))) > 0
    file = Held(path)
    assert scrubbing.scrub(file) > 0
    assert scrubbing.scrub(file) == 0
    file.release()
    assert gone & set(re.findall(b"key-[0-9a-f]{16}", path.read_bytes())) == set()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sorted(connection.execute("SELECT * FROM person")) == sorted(rows[2000:])
    connection.close()


def test_somebody_who_reads_delays_the_erasure_and_no_longer(
    tmp_path: Path, gallery: SqliteStore
) -> None:
    (canary,) = enrolled(gallery, 7)
    with gallery.read() as view:
        corrections.delete_person(gallery, canary.person.id)
        assert gallery.pending_erasure
        assert view.get(Person, canary.person.id) == canary.person
    enrolled(gallery, 8)
    assert not gallery.pending_erasure
    assert residue(tmp_path, [canary]) == Counter()


def test_it_is_cleared_at_the_end_when_nobody_writes_any_more(
    tmp_path: Path, gallery: SqliteStore
) -> None:
    (canary,) = enrolled(gallery, 9)
    with gallery.read():
        corrections.delete_person(gallery, canary.person.id)
    assert gallery.pending_erasure
    gallery.close()
    assert residue(tmp_path, [canary]) == Counter()


def test_backups_restores_and_exports_hold_nothing_of_who_was_deleted_before(
    tmp_path: Path, gallery: SqliteStore
) -> None:
    early, late = enrolled(gallery, 10, 2)
    corrections.delete_person(gallery, early.person.id)
    saved = tmp_path / "backup"
    saved.mkdir()
    backup(gallery, saved / "copy.db")
    export_gallery(gallery, saved / "export", lambda done, total: None)
    assert residue(saved, [early]) == Counter()
    corrections.delete_person(gallery, late.person.id)
    gallery.close()
    report = restore(saved / "copy.db", tmp_path / "gallery.db", overwrite=True)
    assert report.erased >= 1
    for left in sorted(saved.rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    assert residue(tmp_path, [late]) == Counter()


def test_without_secure_delete_it_is_found(tmp_path: Path) -> None:
    """The negative control, in a process of its own: the pragma is taken out on the way."""
    code = f"""
import sqlite3, sys
genuine = sqlite3.connect
class Careless(sqlite3.Connection):
    def execute(self, statement, *more):
        if "secure_delete" in statement:
            super().execute("PRAGMA secure_delete = OFF")
            return super().execute("SELECT 1")
        return super().execute(statement, *more)
sqlite3.connect = lambda *given, **named: genuine(*given, factory=Careless, **named)
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_residue
test_residue.careless({str(tmp_path)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    (canary,) = _canaries()
    forms = {form.split()[1] for form in residue(tmp_path, [canary])}
    assert {"fp32", "name"} <= forms


def careless(folder: str) -> None:
    """What the negative control does."""
    store = SqliteStore(Path(folder) / "gallery.db", create=True)
    (canary,) = _canaries(store)
    corrections.delete_person(store, canary.person.id)
    store.close()


def _canaries(store: Any = None) -> list[Canary]:
    """Always the same somebody, among others; without a store only described."""
    random = np.random.default_rng(13)

    class Nowhere:
        def put(self, row: Any) -> None: ...
        def put_vectors(self, contract: str, rows: Any) -> None: ...
        def next_id(self, kind: type[Any]) -> int:
            return 1

    if store is None:
        return [enrol(Nowhere(), random)]  # type: ignore[arg-type]
    with store.write() as draft:
        draft.put(Space(CONTRACT, "toy", WIDTH, "active", 0.0))
        chosen = enrol(draft, random)
        for _ in range(40):
            enrol(draft, random)
    return [chosen]
