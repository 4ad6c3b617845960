"""Damaged files: a gallery refuses with an error of ours, and never tells a wrong identity.

1,200 files: flipped bits, cut files, zeroed, swapped, doubled and outdated pages, garbage, and the
same done to the log. The negative control reads the same files without the seals.
"""

import collections
import hashlib
import shutil

import numpy as np
import pytest

from facenet.errors import DamagedGalleryError, FacenetError, GalleryError
from facenet.gallery.records import EnrolledFace, Person, Ruling, Setting, Space
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.verifying import verify

WIDTH, PAGE = 192, 16_384
PEOPLE, FACES = 24, 160
CASES = 1_200


def unit(rng, count):
    rows = rng.standard_normal((count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def contents(view):
    """Everything a view tells, as comparable values."""
    block = view.vectors("c")
    return {
        "people": {row.id: row for row in view.find(Person)},
        "faces": {row.id: row for row in view.find(EnrolledFace)},
        "vectors": {
            face: (person, row.tobytes())
            for face, person, row in zip(block.ids.tolist(), block.people, block.rows, strict=True)
        },
        "revision": view.revision,
    }


class History:
    """A gallery that grew in steps. files: its bytes after each commit (file, log). truths: what
    it held then; the last is the present."""

    def __init__(self, folder):
        rng = np.random.default_rng(20)
        self.files, self.truths = [], []
        path = folder / "G.db"
        store = SqliteStore(path, create=True)
        with store.write() as draft:
            draft.put(Space("c", "m", WIDTH, "active", 1.0))
            for number in range(PEOPLE):
                draft.put(Person(f"id{number:03}", f"Name {number}", 1.0, f"x{number}"))
        for _ in range(0, FACES, 40):
            with store.write() as draft:
                ids = [draft.next_id(EnrolledFace) for _ in range(40)]
                for face in ids:
                    person = f"id{rng.integers(PEOPLE):03}"
                    draft.put(EnrolledFace(face, person, 1.0, f"{face:064}", f"/p/{face}.jpg"))
                draft.put_vectors("c", dict(zip(ids, unit(rng, 40), strict=True)))
            self.keep(store, path)
        store.close()
        self.keep(store := SqliteStore(path), path)
        with store.read():  # so that the log is not emptied, and holds the commits of every step
            for step in range(3):
                self.change(store, path, rng, step)
            with store.write() as draft:
                draft.put(Person("new", "New", 3.0))
            self.keep(store, path)
        self.log = self.files[-1][1]
        store.close()
        self.keep(SqliteStore(path), path)

    def change(self, store, path, rng, step):
        with store.write() as draft:
            draft.put(Person(f"id{step:03}", f"Changed {step}", 2.0))
            draft.put(EnrolledFace(step + 1, "id009", 2.0, "", "/moved"))
            draft.put_vectors("c", dict(zip(range(20, 23), unit(rng, 3), strict=True)))
            draft.put(Ruling(step + 1, "id001", False, 2.0))
        self.keep(store, path)
        with store.write() as draft:
            draft.put(Setting("s", "t" * 5_000))
        self.keep(store, path)

    def keep(self, store, path):
        log = path.with_name("G.db-wal")
        with store.read() as view:
            self.truths.append(contents(view))
        self.files.append((path.read_bytes(), log.read_bytes() if log.exists() else b""))


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return History(tmp_path_factory.mktemp("history"))


def flip(data, rng, _):
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= 1 << int(rng.integers(8))


def flip_content(data, rng, _):
    """Flips where there is something: most of a small gallery's pages is empty."""
    full = np.flatnonzero(np.frombuffer(bytes(data), np.uint8))
    for place in rng.choice(full, 4):
        data[place] ^= 1 << int(rng.integers(8))


def cut(data, rng, _):
    del data[int(rng.integers(len(data))) :]


def zero(data, rng, _):
    size = int(rng.choice([512, 4096, PAGE]))
    start = int(rng.integers(max(len(data) // size, 1))) * size
    data[start : start + size] = bytes(len(data[start : start + size]))


def garbage(data, rng, _):
    start, size = int(rng.integers(len(data))), int(rng.integers(1, 3000))
    data[start : start + size] = rng.bytes(len(data[start : start + size]))


def swap(data, rng, _):
    pages = len(data) // PAGE
    if pages >= 3:
        one, two = (int(page) * PAGE for page in rng.choice(np.arange(1, pages), 2, False))
        data[one : one + PAGE], data[two : two + PAGE] = (
            data[two : two + PAGE],
            data[one : one + PAGE],
        )


def double(data, rng, _):
    pages = len(data) // PAGE
    if pages >= 3:
        one, two = (int(page) * PAGE for page in rng.choice(np.arange(1, pages), 2, False))
        data[one : one + PAGE] = data[two : two + PAGE]


def outdate(data, rng, older):
    """Writes that never reached the disk: pages of an older day."""
    pages = min(len(data), len(older)) // PAGE
    for page in rng.choice(np.arange(pages), min(pages, int(rng.integers(1, 4))), False):
        start = int(page) * PAGE
        data[start : start + PAGE] = older[start : start + PAGE]


DAMAGES = (flip, flip_content, cut, zero, garbage, swap, double, outdate)


def damaged(history, case, path):
    """Write a damaged file; every third time it is the log that is damaged."""
    rng = np.random.default_rng(case)
    damage = DAMAGES[case % len(DAMAGES)]
    in_log = case % 3 == 0
    file, log = history.files[-2] if in_log else history.files[-1]
    parts = [bytearray(file), bytearray(log)]
    older = history.files[int(rng.integers(len(history.files) - 2))]
    damage(parts[in_log], rng, older[in_log] or older[0])
    path.write_bytes(parts[0])
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    path.with_name(path.name + "-wal").write_bytes(parts[1])
    if not parts[1]:
        path.with_name(path.name + "-wal").unlink()
    return damage.__name__, (parts[0], parts[1]) != (file, log)


def answers(path, **options):
    """What the gallery answers: whole readings, and single questions."""
    store = SqliteStore(path, **options)
    told = {}
    try:
        with store.read() as view:
            for name, ask in questions().items():
                try:
                    told[name] = ask(view)
                except FacenetError as error:
                    told[name] = error
    finally:
        store.close()
    return told


def questions():
    single = {
        f"person id{n:03}": lambda view, n=n: view.get(Person, f"id{n:03}") for n in range(0, 24, 5)
    }
    single |= {f"face {n}": lambda view, n=n: view.get(EnrolledFace, n) for n in (1, 2, 3, 77, 160)}
    return single | {
        "revision": lambda view: view.revision,
        "all": contents,
        "chosen": lambda view: view.vectors("c", ids=[1, 21, 80, 150]),
        "named": lambda view: view.find(Person, name="Name 7"),
        "theirs": lambda view: view.find(EnrolledFace, person="id009"),
    }


def wrong(history, told):
    """Which answers are not those of the revision the gallery says it has. Vectors of chosen faces
    may be of any day: who asks for them knows their stamps."""
    truth = next((one for one in history.truths if one["revision"] == told["revision"]), None)
    vectors = {item for truth in history.truths for item in truth["vectors"].items()}
    faults = []
    for name, answer in told.items():
        if isinstance(answer, FacenetError) or name == "revision":
            continue
        kind, _, key = name.partition(" ")
        if name == "chosen":
            rows = zip(answer.ids.tolist(), answer.people, answer.rows, strict=True)
            good = all((face, (person, row.tobytes())) in vectors for face, person, row in rows)
        elif truth is None:
            good = False
        elif name == "all":
            good = answer == truth
        elif name == "named":
            good = answer == [row for row in truth["people"].values() if row.name == "Name 7"]
        elif name == "theirs":
            good = answer == [row for row in truth["faces"].values() if row.person == "id009"]
        elif kind == "person":
            good = answer == truth["people"].get(key)
        else:
            good = answer == truth["faces"].get(int(key))
        if not good:
            faults.append(name)
    return faults


def test_the_undamaged_files_are_read(history, tmp_path):
    path = tmp_path / "G.db"
    path.write_bytes(history.files[-2][0])
    path.with_name("G.db-wal").write_bytes(history.log)
    told = answers(path)
    assert told["all"] == history.truths[-1]
    assert wrong(history, told) == []
    assert len(history.log) > 30 * PAGE


def test_no_damage_makes_a_wrong_answer(history, tmp_path):
    path, seen = tmp_path / "G.db", collections.Counter()
    for case in range(CASES):
        name, changed = damaged(history, case, path)
        try:
            told = answers(path)
        except FacenetError as error:
            seen["refused"] += 1
            assert isinstance(error, GalleryError), (case, error)
            continue
        assert wrong(history, told) == [], (case, name)
        errors = [a for a in told.values() if isinstance(a, FacenetError)]
        assert all(isinstance(error, DamagedGalleryError) for error in errors), (case, errors)
        seen["partly" if errors else "whole"] += 1
        assert changed or not errors, (case, errors)
    assert seen["refused"] > CASES / 20
    assert seen["partly"] > CASES / 20
    assert seen["whole"] > CASES / 20


def test_without_seals_the_same_files_lie(history, tmp_path):
    """The negative control: it is the seals that keep wrong answers away."""
    path, lies = tmp_path / "G.db", collections.Counter()
    for case in range(0, CASES, 4):
        name, _ = damaged(history, case, path)
        try:
            lies.update(wrong(history, answers(path, checked=False)))
        except FacenetError:
            continue
    assert lies["all"] >= 5


def rows_on_disk(history, rng):
    """Where an identity lies in the file: (start, size) of vectors, faces and people, and how they
    are asked for."""
    file, truth = history.files[-1][0], history.truths[-1]
    for face in rng.choice(np.arange(30, FACES), 25, False).tolist():
        person, data = truth["vectors"][face]
        yield file.index(data), len(data), lambda view, face=face: view.vectors("c", ids=[face])
        row = f"{person}{face:064}/p/{face}.jpg".encode()
        yield file.index(row), len(row), lambda view, face=face: view.vectors("c", ids=[face])
        yield file.index(row), len(row), lambda view, face=face: view.get(EnrolledFace, face)
    for number in range(5, PEOPLE):
        row = f"id{number:03}Name {number}x{number}".encode()
        key = f"id{number:03}"
        # A flip in the key makes another key of it, and the row cannot be found.
        yield file.index(row) + 5, len(row) - 5, lambda view, key=key: view.get(Person, key)


def test_every_bit_of_a_vector_a_face_and_a_person_is_sealed(history, tmp_path):
    """100 % of the flips in the bytes that make an identity are seen by whoever reads the row."""
    path, rng, count = tmp_path / "G.db", np.random.default_rng(1), 0
    for start, size, ask in rows_on_disk(history, rng):
        data = bytearray(history.files[-1][0])
        data[start + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        store = SqliteStore(path)
        with store.read() as view:
            with pytest.raises(DamagedGalleryError, match="facenet gallery restore"):
                ask(view)
            with pytest.raises(DamagedGalleryError):
                contents(view)
        store.close()
        assert any("rows of the kind" in problem for problem in verify(path).problems)
        count += 1
    assert count == 3 * 25 + PEOPLE - 5


def test_verify_finds_what_reading_found(history, tmp_path):
    """Whatever a reading refuses, `verify` names; what `verify` passes, reads as it was."""
    path, seen = tmp_path / "G.db", collections.Counter()
    for case in range(CASES, CASES + 120):
        damaged(history, case, path)
        digest = hashlib.sha256(path.read_bytes()).digest()
        try:
            report = verify(path)
        except GalleryError as error:
            assert not isinstance(error, DamagedGalleryError)
            seen["no gallery"] += 1
            continue
        if case % 3:
            assert hashlib.sha256(path.read_bytes()).digest() == digest
        if report.ok:
            assert answers(path)["all"] in history.truths
        seen[report.ok] += 1
    assert seen[True] > 10 and seen[False] > 10


def test_a_copy_that_is_not_damaged_is_whole(history, tmp_path):
    path = tmp_path / "G.db"
    path.write_bytes(history.files[-1][0])
    report = verify(path)
    assert report.to_dict() == {
        "place": str(path),
        "ok": True,
        "revision": history.truths[-1]["revision"],
        "people": PEOPLE + 1,
        "faces": FACES,
        "vectors": {"c": FACES},
        "problems": [],
        "erasure_owed": False,
    }
    shutil.copy(path, tmp_path / "H.db")
    assert verify(tmp_path / "H.db").ok
