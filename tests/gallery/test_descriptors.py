"""Looking at a gallery's file beside SQLite takes no lock away from those who have it open."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facenet.errors import GalleryError
from facenet.gallery.backup import backup, verify
from facenet.gallery.descriptors import Held
from facenet.gallery.records import Person, new_person_id
from facenet.gallery.sqlite import SqliteStore

ANOTHER = """
import sys
from facenet.gallery.records import Person, new_person_id
from facenet.gallery.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
if len(sys.argv) > 2:
    with store.write() as draft:
        draft.put(Person(new_person_id(), sys.argv[2], 1.0))
with store.read() as view:
    print(*sorted(person.name for person in view.find(Person)))
store.close()
"""


def another_process(path: Path, *name: str) -> list[str]:
    """Everybody it sees; it adds somebody first if a name is given."""
    command = [sys.executable, "-c", ANOTHER, str(path), *name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def add(store: SqliteStore, name: str) -> None:
    with store.write() as draft:
        draft.put(Person(new_person_id(), name, 1.0))


def test_a_commit_after_a_look_at_the_file_is_not_lost(tmp_path: Path) -> None:
    """A look used to drop SQLite's locks, and the next process to close deleted the log in use."""
    path = tmp_path / "gallery.db"
    store = SqliteStore(path, create=True)
    add(store, "A")
    assert verify(path).ok
    SqliteStore(path).close()
    backup(path, tmp_path / "copy.db")
    with pytest.raises(GalleryError, match="already"):
        SqliteStore(path, create=True)
    assert another_process(path, "B") == ["A", "B"]
    assert Path(f"{path}-wal").exists()
    add(store, "C")
    assert another_process(path) == ["A", "B", "C"]
    store.close()
    assert not Path(f"{path}-wal").exists()
    assert another_process(path) == ["A", "B", "C"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_one_descriptor_is_shared_and_closed_with_the_last_store(tmp_path: Path) -> None:
    path = tmp_path / "gallery.db"

    def opened() -> int:
        links = Path("/proc/self/fd").iterdir()
        return sum(os.path.realpath(link) == str(path) for link in links)

    first = SqliteStore(path, create=True)
    alone = opened()
    second = SqliteStore(path)
    assert opened() == alone + 1  # a connection, and no other descriptor
    with second.read():
        second.close()  # while it is read
        assert opened() == alone + 1
    assert opened() <= alone + 1  # SQLite keeps descriptors while a file is locked
    first.close()
    assert opened() == 0
    (tmp_path / "none.db").write_bytes(b"no gallery, but long enough to have a head" * 9)
    with pytest.raises(GalleryError):
        SqliteStore(tmp_path / "none.db")
    path = tmp_path / "none.db"
    assert opened() == 0


def test_reading_and_writing_at_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    file, same = Held(path), Held(path)
    file.write(3, b"abc")
    assert same.read(2, 5) == b"2abc6"
    assert same.read(8, 100) == b"89"
    file.sync()
    file.release()
    file.release()
    assert same.read(0, 2) == b"01"
    same.release()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        Held(path)


def test_what_a_killed_program_left_unfinished_goes_after_an_hour(tmp_path: Path) -> None:
    old, new = tmp_path / ".facenet-0123.part", tmp_path / ".facenet-4567.part"
    other = tmp_path / ".other.part"
    for path in (old, new, other):
        path.write_bytes(b"biometric data")
    hours_ago = time.time() - 2 * 3600
    for path in (old, other):
        os.utime(path, (hours_ago, hours_ago))
    SqliteStore(tmp_path / "gallery.db", create=True).close()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"gallery.db", new.name, other.name}
