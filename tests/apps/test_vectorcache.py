"""What evaluations remember: found by content and contract, whole or not at all, and removable."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading

import numpy as np
import pytest

from facenet.apps.jobs.vectorcache import VectorCache, cache_folder, forget
from facenet.errors import StorageError

ROWS = {b"a" * 32: np.arange(5, dtype=np.float32), b"b" * 32: np.zeros(0, np.float32)}


def test_rows_come_back_bit_by_bit(tmp_path):
    rows = {**ROWS, b"c" * 32: np.array([np.nan, -0.0, 1e-38], np.float32)}
    VectorCache({"model": "m"}, tmp_path).keep(rows)
    found = VectorCache({"model": "m"}, tmp_path).find([*rows, b"d" * 32])
    assert {key: row.tobytes() for key, row in found.items()} == {
        key: row.tobytes() for key, row in rows.items()
    }
    found[b"a" * 32][0] = 7  # a copy


def test_terms_keep_models_apart(tmp_path):
    VectorCache({"model": "m", "select": "largest"}, tmp_path).keep(ROWS)
    assert VectorCache({"select": "largest", "model": "m"}, tmp_path).find(list(ROWS))
    assert not VectorCache({"model": "m", "select": "probability"}, tmp_path).find(list(ROWS))


def test_nothing_is_remembered_without_a_folder():
    cache = VectorCache({}, None)
    cache.keep(ROWS)
    assert cache.find(list(ROWS)) == {}


def test_rows_are_replaced_by_fuller_ones(tmp_path):
    cache = VectorCache({}, tmp_path)
    cache.keep(ROWS)
    cache.keep({b"a" * 32: np.ones(9, np.float32)})
    assert cache.find([b"a" * 32])[b"a" * 32].tolist() == [1] * 9


def test_the_folder_is_its_owners_alone(tmp_path):
    VectorCache({}, tmp_path / "cache").keep(ROWS)
    cache = VectorCache({}, tmp_path / "cache")
    assert stat.S_IMODE(os.stat(tmp_path / "cache").st_mode) == 0o700
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600
    (tmp_path / "cache").chmod(0o755)
    VectorCache({}, tmp_path / "cache")
    assert stat.S_IMODE(os.stat(tmp_path / "cache").st_mode) == 0o700


def test_several_writers_lose_nothing(tmp_path):
    def write(worker):
        cache = VectorCache({}, tmp_path)
        for number in range(20):
            cache.keep({bytes([worker, number] * 16): np.full(3, worker, np.float32)})

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [bytes([worker, number] * 16) for worker in range(4) for number in range(20)]
    assert len(VectorCache({}, tmp_path).find(keys)) == 80


def test_a_damaged_file_is_named_with_the_way_out(tmp_path):
    cache = VectorCache({}, tmp_path)
    cache.keep(ROWS)
    cache.path.write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match=r"\.sqlite: .*--no-cache"):
        cache.find(list(ROWS))
    with pytest.raises(StorageError, match="--no-cache"):
        cache.keep(ROWS)


def test_a_row_that_is_none_is_not_known(tmp_path):
    cache = VectorCache({}, tmp_path)
    cache.keep(ROWS)
    with sqlite3.connect(cache.path) as file:
        file.execute("UPDATE seen SET row = x'00' WHERE digest = ?", [b"a" * 32])
    assert set(cache.find(list(ROWS))) == {b"b" * 32}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--no-cache"):
        VectorCache({}, tmp_path / "file" / "cache")


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """SQLite's own limit on pages stands for the full disk."""
    cache = VectorCache({}, tmp_path)
    cache.keep(ROWS)
    size = cache.path.stat().st_size
    with sqlite3.connect(cache.path) as file:
        pages = file.execute("PRAGMA page_count").fetchone()[0]
    limited = LimitedCache({}, tmp_path, pages=pages)
    with pytest.raises(StorageError, match=r"full.*Free some space"):
        limited.keep({bytes([n] * 32): np.ones(4000, np.float32) for n in range(50)})
    assert cache.path.stat().st_size == size
    assert set(VectorCache({}, tmp_path).find([*ROWS, bytes([1] * 32)])) == set(ROWS)


class LimitedCache(VectorCache):
    """A cache on a disk with room for so many pages."""

    def __init__(self, terms, folder, *, pages):
        super().__init__(terms, folder)
        self.pages = pages

    def connect(self):
        file = super().connect()
        file.execute(f"PRAGMA max_page_count = {self.pages}")
        return file


def test_forget_removes_all_files(home):
    assert forget() == (0, 0)
    VectorCache({"a": 1}, cache_folder()).keep(ROWS)
    VectorCache({"a": 2}, cache_folder()).keep(ROWS)
    files, size = forget()
    assert files == 2
    assert size > 0
    assert list(cache_folder().iterdir()) == []
