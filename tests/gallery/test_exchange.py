"""A gallery goes out as files and comes back; files that are not whole or not true are refused."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import pytest

from facenet.errors import DataError, InputError, StorageError
from facenet.gallery.exchange import MANIFEST, Imported, export_gallery, import_gallery
from facenet.gallery.memory import MemoryStore
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
from facenet.vectors import unit

CONTRACT = "toy@1"
KINDS = (Space, Person, EnrolledFace, Ruling, Apart, Crop, Setting)


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def filled(seed: int = 0) -> MemoryStore:
    rng = np.random.default_rng(seed)
    store = MemoryStore()
    with store.write() as draft:
        draft.put(Space(CONTRACT, "toy", 4, "active", 1.0))
        draft.put(Person("a1", "Zoë Ångström", 1.0, "ext-1", {"team": "ä", "n": [1, 2]}))
        draft.put(Person("b2", "Bob", 2.0, automatic=True))
        for number in range(5):
            face = draft.next_id(EnrolledFace)
            box = (1.0, 2.0, 3.5, 4.25)
            who = "a1" if number < 3 else "b2"
            photo = hashlib.sha256(bytes([number])).hexdigest()
            measures = {"sharpness": 12.5}
            draft.put(EnrolledFace(face, who, 3.0, photo, f"{number}.jpg", box, 0.5, measures))
            draft.put_vectors(CONTRACT, {face: unit(rng.normal(size=4))})
        draft.put(Ruling(2, "b2", False, 4.0))
        draft.put(Apart("a1", "b2", 5.0))
        draft.put(Crop(1, b"\x00\xffpicture"))
        draft.put(Setting("rules", "{}"))
    return store


def content(store: MemoryStore) -> dict[str, object]:
    with store.read() as view:
        block = view.vectors(CONTRACT)
        rows = {kind.kind: view.find(kind) for kind in KINDS}
        return {**rows, "ids": block.ids.tolist(), "rows": block.rows.tobytes()}


def test_a_gallery_comes_back_as_it_was(tmp_path: Path) -> None:
    store, back = filled(), MemoryStore()
    manifest = export_gallery(store, tmp_path / "out", quiet)
    assert (manifest["people"], manifest["faces"]) == (2, 5)
    assert import_gallery(back, tmp_path / "out", quiet) == Imported(2, 5, 0)
    assert content(back) == content(store)


def test_the_files_are_plain_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    lines = (tmp_path / "out" / "person.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["Zoë Ångström", "Bob"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_the_same_export_twice_changes_nothing(tmp_path: Path) -> None:
    store = filled()
    export_gallery(store, tmp_path / "out", quiet)
    before = content(store)
    assert import_gallery(store, tmp_path / "out", quiet) == Imported(0, 0, 5)
    assert content(store) == before


def test_faces_join_a_gallery_under_new_numbers(tmp_path: Path) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    store = MemoryStore()
    with store.write() as draft:
        draft.put(Space(CONTRACT, "toy", 4, "active", 1.0))
        draft.put(Person("c3", "Carl", 1.0))
        face = draft.next_id(EnrolledFace)
        draft.put(EnrolledFace(face, "c3", 1.0))
        draft.put_vectors(CONTRACT, {face: np.array([1, 0, 0, 0], np.float32)})
    assert import_gallery(store, tmp_path / "out", quiet) == Imported(2, 5, 0)
    with store.read() as view:
        assert [face.id for face in view.find(EnrolledFace, person="a1")] == [2, 3, 4]
        assert [ruling.face for ruling in view.find(Ruling)] == [3]
        assert view.get(Crop, 2) == Crop(2, b"\x00\xffpicture")
        assert view.vectors(CONTRACT).people == ("c3", "a1", "a1", "a1", "b2", "b2")


def test_an_export_of_another_model_is_refused_and_nothing_comes_in(tmp_path: Path) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    store = MemoryStore()
    with store.write() as draft:
        draft.put(Space("other@2", "other", 8, "active", 1.0))
    with pytest.raises(InputError, match="is of toy@1"):
        import_gallery(store, tmp_path / "out", quiet)
    with store.read() as view:
        assert view.count(Person) == 0


@pytest.mark.parametrize("name", ["person.jsonl", "face.jsonl", "vectors-0-0.safetensors"])
def test_a_changed_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    path = tmp_path / "out" / name
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="not what was written"):
        import_gallery(MemoryStore(), tmp_path / "out", quiet)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        import_gallery(MemoryStore(), tmp_path / "out", quiet)


def rewritten(folder: Path, name: str, data: bytes) -> None:
    """Change a file and make the manifest agree, as somebody with bad intentions would."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("person.jsonl", b"{]\n", "Line 1 of"),
        ("person.jsonl", b'{"id": "a1", "name": "A", "created": 1, "spell": 2}\n', "Line 1 of"),
        ("face.jsonl", b'"text"\n', "Line 1 of"),
        ("face.jsonl", b'{"id": "7", "person": "a1", "created": 1}\n', "id that is str"),
        (
            "face.jsonl",
            b'{"id": 1, "person": "a1", "created": 1, "measures": []}\n',
            "measures that",
        ),
        ("crop.jsonl", b'{"face": 1, "data": "\xc3\xa9"}\n', "Line 1 of"),
        ("vectors-0-0.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", "should hold faces"),
        ("vectors-0-0.safetensors", b"", "should hold faces"),
    ],
)
def test_rows_that_are_none_are_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    rewritten(tmp_path / "out", name, data)
    store = MemoryStore()
    with pytest.raises(DataError, match=said):
        import_gallery(store, tmp_path / "out", quiet)
    with store.read() as view:
        assert view.revision == 0


def test_vectors_that_are_not_of_length_one_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save

    export_gallery(filled(), tmp_path / "out", quiet)
    tensors = {"face": np.array([1]), "vector": np.zeros((1, 4), np.float32)}
    rewritten(tmp_path / "out", "vectors-0-0.safetensors", save(tensors, {"contract": CONTRACT}))
    with pytest.raises(InputError, match="length one"):
        import_gallery(MemoryStore(), tmp_path / "out", quiet)


@pytest.mark.parametrize("name", ["../person.jsonl", "/etc/passwd", "x.txt"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    manifest["files"][name] = "0" * 64
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError):
        import_gallery(MemoryStore(), tmp_path / "out", quiet)


def test_an_unfinished_export_says_so(tmp_path: Path) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    (tmp_path / "out" / MANIFEST).unlink()
    with pytest.raises(DataError, match="interrupted"):
        import_gallery(MemoryStore(), tmp_path / "out", quiet)
    (tmp_path / "out" / MANIFEST).write_text("[]")
    with pytest.raises(DataError, match="facenet gallery 1"):
        import_gallery(MemoryStore(), tmp_path / "out", quiet)


def test_an_export_spares_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(StorageError, match="holds something"):
        export_gallery(filled(), tmp_path, quiet)
    with pytest.raises(StorageError, match="holds something"):
        export_gallery(filled(), tmp_path / "mine.txt", quiet)


def test_an_empty_gallery_goes_out_and_back(tmp_path: Path) -> None:
    export_gallery(MemoryStore(), tmp_path / "out", quiet)
    assert import_gallery(MemoryStore(), tmp_path / "out", quiet) == Imported(0, 0, 0)


def test_decisions_of_a_newer_export_come_in_and_those_that_contradict_are_counted(
    tmp_path: Path,
) -> None:
    store = filled()
    export_gallery(store, tmp_path / "old", quiet)
    back = MemoryStore()
    import_gallery(back, tmp_path / "old", quiet)
    with store.write() as draft:
        draft.put(Ruling(3, "a1", True, 6.0))
        draft.put(Ruling(4, "a1", False, 6.0))
        draft.put(Ruling(1, "b2", True, 6.0))  # cannot hold here, where face 1 is with a1
    export_gallery(store, tmp_path / "new", quiet)
    assert import_gallery(back, tmp_path / "new", quiet) == Imported(0, 0, 5, left_out=1)
    with back.read() as view:
        assert [r.key for r in view.find(Ruling)] == ["2:b2", "3:a1", "4:a1"]
        assert [entry.action for entry in view.find(Entry)] == ["import"]


def test_vectors_in_another_precision_are_not_mixed_in(tmp_path: Path) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    store = MemoryStore()
    with store.write() as draft:
        draft.put(Space(CONTRACT, "toy", 4, "active", 1.0, "bf16"))
    with pytest.raises(InputError, match="should be in bf16"):
        import_gallery(store, tmp_path / "out", quiet)


def test_two_faces_of_one_number_are_refused(tmp_path: Path) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    lines = (tmp_path / "out" / "face.jsonl").read_bytes()
    rewritten(tmp_path / "out", "face.jsonl", lines + lines.splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="1 came twice"):
        import_gallery(MemoryStore(), tmp_path / "out", quiet)


def test_names_come_in_as_they_are_looked_up(tmp_path: Path) -> None:
    export_gallery(filled(), tmp_path / "out", quiet)
    parted = b'{"id": "z9", "name": "Jose\\u0301", "created": 1, "external_id": "e\\u0301"}\n'
    rows = (tmp_path / "out" / "person.jsonl").read_bytes() + parted
    rewritten(tmp_path / "out", "person.jsonl", rows)
    store = MemoryStore()
    import_gallery(store, tmp_path / "out", quiet)
    with store.read() as view:
        person = view.get(Person, "z9")
    assert person is not None
    assert (person.name, person.external_id) == ("Jos\u00e9", "\u00e9")
