"""The index on the disk: used when it is whole and of this gallery, and gone with the deleted."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
from test_index import CONTRACT, brute_force, enrolled
from test_scan import hard_rows

from facenet.errors import StorageError
from facenet.gallery import snapshot
from facenet.gallery.codes import Table, encode
from facenet.gallery.index import Index
from facenet.gallery.memory import MemoryStore
from facenet.gallery.numbering import Numbers
from facenet.gallery.records import EnrolledFace, Person, Setting, Space
from facenet.gallery.snapshot import drop_snapshots, snapshot_path
from facenet.vectors import unit

D = 40


@pytest.fixture
def place(tmp_path):
    return snapshot_path(tmp_path / "G.db", CONTRACT)


@pytest.fixture
def gallery():
    rows = hard_rows(90, D, 0)
    return enrolled(rows, [f"p{number % 30:02d}" for number in range(90)]), rows


def used(store, place):
    """Whether an index of this store starts from the snapshot that lies at a place."""
    with store.read() as view:
        index = Index(store, CONTRACT, snapshot=place)
        space = view.get(Space, CONTRACT)
        table = Table(space.dimension)
        identity = view.get(Setting, "id")
        facts = {"gallery": identity.value, "contract": CONTRACT, "space": space.created}
        return index, snapshot.read(place, facts, table)


def test_a_snapshot_brings_the_index_back(gallery, place):
    store, rows = gallery
    first = Index(store, CONTRACT, snapshot=place)
    assert not place.exists()
    assert first.save()
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o600
    assert os.listdir(place.parent) == [place.name]
    index, found = used(store, place)
    assert found is not None
    facts, numbers = found
    assert facts["revision"] == first.refresh() == 1
    assert [numbers.name(number) for number in range(30)] == sorted(f"p{n:02d}" for n in range(30))
    assert index.search(rows[:9], 5) == brute_force(store, rows[:9], 5)


def test_damage_never_changes_an_answer(gallery, place):
    store, rows = gallery
    Index(store, CONTRACT, snapshot=place).save()
    whole = place.read_bytes()
    wanted = brute_force(store, rows[::10], 5)
    rng = np.random.default_rng(0)
    damaged = [whole[: int(cut)] for cut in rng.integers(0, len(whole), 60)]
    damaged += [whole + b"\0", b"", whole[:20] + b"\xff" * 3000, whole[1:]]
    for place_of_bit in rng.integers(0, 8 * len(whole), 150):
        flipped = bytearray(whole)
        flipped[place_of_bit // 8] ^= 1 << int(place_of_bit % 8)
        damaged.append(bytes(flipped))
    for number, content in enumerate(damaged):
        place.write_bytes(content)
        assert used(store, place)[1] is None
        if number % 10 == 0:
            assert Index(store, CONTRACT, snapshot=place).search(rows[::10], 5) == wanted


def test_a_header_that_lies_about_sizes_is_not_believed(gallery, place):
    """Sizes are compared with the file before anything is allocated."""
    store, _ = gallery
    Index(store, CONTRACT, snapshot=place).save()
    whole = place.read_bytes()
    for old, new in ((b'"rows": 90', b'"rows": 9000000000000'), (b'"people": 30', b'"people": -1'),
                     (b'"width": 4', b'"width": 0'), (b'"rows": 90', b'"rows": null'),
                     (b'"gallery": "a gallery"', b'"gallery": []')):  # fmt: skip
        start = len(snapshot.MAGIC) + 4
        length = int.from_bytes(whole[start - 4 : start], "little")
        header = whole[start : start + length].replace(old, new)
        assert header != whole[start : start + length]
        size = len(header).to_bytes(4, "little")
        place.write_bytes(snapshot.MAGIC + size + header + whole[start + length :])
        assert used(store, place)[1] is None


def test_a_snapshot_of_something_else_is_not_used(gallery, place):
    store, rows = gallery
    Index(store, CONTRACT, snapshot=place).save()
    for change in (
        Setting("id", "another gallery"),
        Space(CONTRACT, "toy", D, "active", 9.0),
        Space(CONTRACT, "toy", D + 1, "active", 1.0),
    ):
        other = MemoryStore()
        with other.write() as draft:
            draft.put(Setting("id", "a gallery"))
            draft.put(Space(CONTRACT, "toy", D, "active", 1.0))
            draft.put(change)
        assert used(other, place)[1] is None
    nameless = MemoryStore()
    with nameless.write() as draft:
        draft.put(Space(CONTRACT, "toy", D, "active", 1.0))
    index = Index(nameless, CONTRACT, snapshot=place)
    assert index.search(rows[:2]) == [[], []]
    assert not index.save()


def test_an_older_snapshot_is_brought_forward_and_a_newer_one_is_not_used(gallery, place):
    store, rows = gallery
    Index(store, CONTRACT, snapshot=place).save()
    with store.write() as draft:
        draft.delete(Person, "p07")
        draft.put_vectors(CONTRACT, {1: rows[40]})
    index = Index(store, CONTRACT, snapshot=place)
    assert index.search(rows[:9], 5) == brute_force(store, rows[:9], 5)
    assert index.save()
    copy = enrolled(rows[:50], ["x"] * 50)
    assert Index(copy, CONTRACT, snapshot=place).search(rows[:9]) == brute_force(copy, rows[:9], 5)


def test_a_gallery_that_came_to_the_revision_another_way_is_read_anew(place):
    """A gallery put back from a copy, and enrolled into again, by file tools."""
    rows = unit(np.random.default_rng(2).standard_normal((40, D)))
    people = [f"p{number:02d}" for number in range(20)]
    for part in (rows[:20], rows[20:]):
        store = enrolled(part, people)
        with store.write() as draft:
            draft.put(EnrolledFace(20, people[0], float(np.abs(part).sum())))
        index = Index(store, CONTRACT, snapshot=place)
        assert index.search(rows, 2) == brute_force(store, rows, 2)
        assert index.save()


def test_what_is_deleted_is_in_no_snapshot(gallery, place):
    store, rows = gallery
    index = Index(store, CONTRACT, snapshot=place)
    index.save()
    codes = encode(rows, Table(D).scale)[0]
    gone = codes[5].tobytes()
    assert gone in place.read_bytes()
    assert b"p05\x01" in place.read_bytes()
    with store.write() as draft:
        draft.delete(Person, "p05")
    part = place.with_name(f"{place.name}.77.part")
    part.write_bytes(gone)
    drop_snapshots(place.parent / "G.db")
    assert os.listdir(place.parent) == []
    assert index.save()
    assert gone not in place.read_bytes()
    assert b"p05\x01" not in place.read_bytes()
    assert codes[6].tobytes() in place.read_bytes()


def test_other_galleries_keep_their_snapshots(tmp_path):
    mine, theirs = (snapshot_path(tmp_path / name, CONTRACT) for name in ("G[1].db", "G1.db"))
    mine.write_bytes(b"x")
    theirs.write_bytes(b"x")
    drop_snapshots(tmp_path / "G[1].db")
    assert os.listdir(tmp_path) == [theirs.name]
    assert snapshot_path(tmp_path / "G1.db", "other") != theirs


class Deleting(MemoryStore):
    """A store in which another program deletes somebody while an index is being saved."""

    reads = 0

    def read(self):
        self.reads += 1
        if self.reads == 2:
            with self.write() as draft:
                draft.delete(Person, "a")
        return super().read()


def test_a_snapshot_that_is_overtaken_by_a_deletion_does_not_stay(place):
    rows = hard_rows(20, D, 1)
    store = enrolled(rows, ["a", "b"] * 10, Deleting())
    index = Index(store, CONTRACT, snapshot=place)
    assert not index.save()
    assert os.listdir(place.parent) == []
    assert {hit.person for hit in index.search(rows[:1])[0]} == {"b"}
    assert index.save()


def test_a_place_that_cannot_be_written_is_an_error(gallery, tmp_path):
    store, _ = gallery
    index = Index(store, CONTRACT, snapshot=tmp_path / "no" / "folder")
    with pytest.raises(StorageError, match="Cannot write the index .*The gallery itself is whole"):
        index.save()
    (tmp_path / "G.db.index-0").mkdir()
    with pytest.raises(StorageError, match="Cannot remove the saved index"):
        drop_snapshots(tmp_path / "G.db")


def test_rows_come_back_chunk_by_chunk(tmp_path):
    rows = hard_rows(70, 6, 3)
    table, numbers = Table(6, chunk=16), Numbers()
    table.put(np.arange(1, 71), numbers.add([f"p{n % 9}" for n in range(70)]), rows)
    table.drop(np.array([1, 20, 21, 70]))
    snapshot.write(tmp_path / "S", {"of": "it"}, table, numbers)
    again = Table(6, chunk=32)
    found = snapshot.read(tmp_path / "S", {"of": "it"}, again)
    assert found is not None
    alive = np.flatnonzero(table.keys)
    assert np.array_equal(again.keys, table.keys[alive])
    assert np.array_equal(again.spreads, table.spreads[alive])
    assert np.array_equal(again.codes(np.arange(66)), table.codes(alive))
    assert again.longest == table.longest
    for slot, old in enumerate(alive):
        assert found[1].name(again.owners[slot]) == numbers.name(table.owners[old])
    assert snapshot.read(tmp_path / "S", {"of": "another"}, again) is None
    assert len(again) == 0
