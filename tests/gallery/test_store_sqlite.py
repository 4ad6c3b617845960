"""The file of a gallery: its guards, its rights, its errors, and every bad thing it may meet."""

import contextlib
import dataclasses
import os
import resource
import signal
import sqlite3
import stat
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from facenet.errors import DamagedGalleryError, GalleryError, InputError, StorageError
from facenet.gallery import sqlitefile
from facenet.gallery.memory import MemoryStore
from facenet.gallery.migrations import FIRST, MIGRATIONS, migrate, statements
from facenet.gallery.records import EnrolledFace, Person, Ruling, Setting, Space
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.store import open_store

SECOND = "CREATE TABLE note (key TEXT PRIMARY KEY, text TEXT);\nINSERT INTO note VALUES ('a', 'b');"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "G.db"


def make(place, **options):
    """A gallery with one person, closed again."""
    store = SqliteStore(place, create=True, **options)
    with store.write() as draft:
        draft.put(Person("p1", "Anna", 1.0))
    store.close()
    return place


def names(store):
    with store.read() as view:
        return [person.name for person in view.find(Person)]


def add(store, number):
    with store.write() as draft:
        draft.put(Person(f"p{number}", f"Name {number}", 1.0))


@contextlib.contextmanager
def nobody():
    """Without the rights of root, where the tests have them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared():
    """A folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_pragmas_are_set_whatever_the_defaults(place):
    make(place)
    connection = sqlitefile.connect(place)
    for name in ("secure_delete", "foreign_keys", "cell_size_check"):
        connection.execute(f"PRAGMA {name} = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    sqlitefile.guard(connection, "G")
    asked = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in (
            *("journal_mode", "synchronous", "secure_delete", "foreign_keys", "trusted_schema"),
            *("cell_size_check", "temp_store", "mmap_size", "application_id", "user_version"),
            "page_size",
        )
    }
    connection.close()
    assert asked == {
        "journal_mode": b"wal",
        "synchronous": 2,
        "secure_delete": 1,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "temp_store": 2,
        "mmap_size": 0,
        "application_id": 0x46434E47,
        "user_version": len(MIGRATIONS),
        "page_size": 16_384,
    }


class Stubborn:
    """A connection that keeps one pragma at its own value."""

    def __init__(self, name, answer):
        self.name, self.answer = name, answer
        self.connection = sqlite3.connect(":memory:")

    def execute(self, statement):
        words = statement.split()
        if words[1] == self.name:
            return Rows([] if self.answer is None else [(self.answer,)])
        if words[1] == "journal_mode":
            return Rows([("wal",)])
        return self.connection.execute(statement)


class Rows(list):
    def fetchone(self):
        return self[0] if self else None


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("journal_mode", "delete", "Put the gallery on a local disk"),
        ("synchronous", 1, "did not set synchronous to FULL"),
        ("secure_delete", 2, "did not set secure_delete to ON"),
        ("trusted_schema", None, "did not set trusted_schema to OFF"),
        ("foreign_keys", 0, "did not set foreign_keys to ON"),
        ("mmap_size", 4096, "did not set mmap_size to 0"),
    ],
)
def test_a_pragma_that_does_not_take_is_an_error(name, answer, message):
    stubborn = Stubborn(name, answer)
    with pytest.raises(GalleryError, match=message):
        sqlitefile.guard(stubborn, "G")
    stubborn.connection.close()


def test_only_the_owner_may_read_the_files(place):
    before = os.umask(0)
    try:
        store = SqliteStore(place, create=True)
        add(store, 1)
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.parent.iterdir()}
    finally:
        os.umask(before)
    assert files == {"G.db": 0o600, "G.db-wal": 0o600, "G.db-shm": 0o600}
    store.close()
    assert [path.name for path in place.parent.iterdir()] == ["G.db"]


@pytest.mark.parametrize(
    "name",
    ["Gä 人.db", "a?mode=memory&x=#1.db", "100%41 %2e.db", "it's; DROP TABLE.db", "a:b.db", " .db"],
)
def test_any_name_will_do(tmp_path, name):
    path = make(tmp_path / "a folder#?%" / name)
    assert [found.name for found in path.parent.iterdir()] == [name]
    store = open_store(path)
    assert names(store) == ["Anna"]
    store.close()


def test_a_name_that_is_no_text_will_do(tmp_path):
    path = make(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.db")))
    store = SqliteStore(path)
    assert names(store) == ["Anna"]
    store.place.encode()
    store.close()


def test_addresses_name_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "G.db")
    for address in ("G.db", "sqlite:///G.db", f"sqlite:///{tmp_path}/G.db"):
        store = open_store(address)
        assert store.place == str(tmp_path / "G.db")
        store.close()
    with pytest.raises(InputError, match="Other stores are not supported yet"):
        open_store("milvus://somewhere")


def test_what_is_no_gallery_is_named(tmp_path):
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    (tmp_path / "text.db").write_text("a text of some length. " * 20)
    (tmp_path / "short.db").write_bytes(b"SQLite format 3\x00")
    (tmp_path / "empty.db").write_bytes(b"")
    (tmp_path / "folder.db").mkdir()
    long = tmp_path / ("x" * 300)
    cases = {
        tmp_path / "missing.db": (GalleryError, "There is no gallery at .*gallery create"),
        tmp_path / "text.db" / "below.db": (GalleryError, "There is no gallery at"),
        tmp_path / "foreign.db": (GalleryError, "of another program"),
        tmp_path / "folder.db": (GalleryError, "is a folder"),
        tmp_path / "text.db": (DamagedGalleryError, "no gallery, or its beginning is damaged"),
        tmp_path / "short.db": (DamagedGalleryError, "no gallery, or its beginning is damaged"),
        tmp_path / "empty.db": (DamagedGalleryError, "is empty, as if a copy"),
        long: (StorageError, "too long"),
        Path("nul\0.db"): (StorageError, "null"),
    }
    before = {path: path.stat().st_size for path in tmp_path.iterdir()}
    for path, (error, message) in cases.items():
        with pytest.raises(error, match=message):
            SqliteStore(path)
    with pytest.raises(GalleryError, match="There is a file already"):
        SqliteStore(tmp_path / "foreign.db", create=True)
    with pytest.raises(StorageError):
        SqliteStore(tmp_path / "text.db" / "below.db", create=True)
    assert {path: path.stat().st_size for path in tmp_path.iterdir()} == before


def test_a_gallery_is_not_made_twice(place):
    make(place)
    for path in (place, place.parent / "link.db"):
        if path != place:
            path.symlink_to(place)
        with pytest.raises(GalleryError, match="There is a file already"):
            SqliteStore(path, create=True)
    assert names(SqliteStore(place.parent / "link.db")) == ["Anna"]


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.95])
def test_a_half_copied_file_is_told(place, part):
    make(place)
    data = place.read_bytes()
    place.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DamagedGalleryError, match="facenet gallery restore"):
        SqliteStore(place)


def test_an_error_of_sqlite_that_is_no_text_is_damage(place):
    """SQLite quotes the damaged bytes, and Python cannot read its words."""
    make(place)
    place.write_bytes(
        place.read_bytes().replace(b"CREATE TABLE person", b"CREATE T\xcbBLE pers\xffn")
    )
    with pytest.raises(DamagedGalleryError, match="facenet gallery restore"):
        SqliteStore(place)


def test_a_newer_schema_is_refused(place):
    make(place, migrations=(*MIGRATIONS, SECOND))
    data = place.read_bytes()
    with pytest.raises(GalleryError, match="made by a newer facenet .schema 2, here 1"):
        SqliteStore(place)
    assert place.read_bytes() == data


def test_a_schema_that_became_newer_meanwhile_is_refused(place):
    make(place)
    store = SqliteStore(place)
    add(store, 2)
    SqliteStore(place, migrations=(*MIGRATIONS, SECOND)).close()
    with pytest.raises(GalleryError, match="made by a newer facenet"):
        add(store, 3)
    store.close()


def test_an_older_file_is_brought_up(place):
    make(place)
    store = SqliteStore(place, migrations=(*MIGRATIONS, SECOND))
    assert names(store) == ["Anna"]
    add(store, 2)
    store.close()
    connection = sqlite3.connect(place)
    assert connection.execute("SELECT * FROM note").fetchall() == [("a", "b")]
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_a_migration_that_fails_or_is_killed_leaves_the_file_as_it_was(place):
    make(place)
    data = place.read_bytes()
    with pytest.raises(DamagedGalleryError):
        SqliteStore(place, migrations=(*MIGRATIONS, SECOND + "\nINSERT INTO missing VALUES (1);"))
    child = os.fork()
    if child == 0:
        connection = sqlitefile.connect(place)
        connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
        migrate(connection, (*MIGRATIONS, SECOND + "\nINSERT INTO note SELECT die(), 1;"))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    store = SqliteStore(place)
    assert names(store) == ["Anna"]
    store.close()
    assert place.read_bytes() == data


def test_scripts_are_split_into_statements():
    assert list(statements(SECOND)) == SECOND.split("\n")
    assert len(list(statements(FIRST))) == FIRST.count(";")
    trigger = "CREATE TRIGGER t AFTER DELETE ON a BEGIN\n  DELETE FROM b;\n  DELETE FROM c;\nEND;"
    assert list(statements(trigger)) == [trigger]


def test_a_foreign_table_in_the_file_is_damage(place):
    make(place)
    connection = sqlite3.connect(place)
    connection.execute("CREATE TRIGGER spy AFTER INSERT ON face BEGIN DELETE FROM person; END")
    connection.commit()
    connection.close()
    with pytest.raises(DamagedGalleryError, match="its tables are not those of a gallery"):
        SqliteStore(place)


def test_a_writer_elsewhere_is_waited_for_and_then_named(place):
    make(place)
    other = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    store = SqliteStore(place, wait=0.3)
    with pytest.raises(GalleryError, match="Another process is writing") as caught, store.write():
        pass
    assert "locked" not in str(caught.value)
    assert names(store) == ["Anna"]
    timer = threading.Timer(0.1, lambda: other.execute("COMMIT"))
    timer.start()
    add(store, 2)
    timer.join()
    other.close()
    assert names(store) == ["Anna", "Name 2"]
    store.close()


def test_a_writer_in_another_thread_is_waited_for_and_then_named(place):
    make(place)
    store = SqliteStore(place, wait=0.2)
    begun, end = threading.Event(), threading.Event()

    def write():
        with store.write():
            begun.set()
            end.wait()

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait()
    with pytest.raises(GalleryError, match="Another thread is writing .* 0.2 seconds"):
        add(store, 2)
    end.set()
    thread.join()
    add(store, 2)
    store.close()


def test_two_stores_of_one_file_see_each_other(place):
    make(place)
    one, two = SqliteStore(place), SqliteStore(place)
    add(one, 2)
    assert names(two) == ["Anna", "Name 2"]
    with one.read() as view:
        add(two, 3)
        assert view.count(Person) == 2
    assert names(one) == ["Anna", "Name 2", "Name 3"]
    one.close()
    two.close()


def test_a_file_that_cannot_be_written_can_be_read(shared):
    place = make(shared / "G.db")
    place.chmod(0o444)
    shared.chmod(0o555)
    with nobody():
        store = SqliteStore(place)
        assert names(store) == ["Anna"]
        with pytest.raises(StorageError, match="can only be read"):
            add(store, 2)
        assert names(store) == ["Anna"]
        store.close()
        with pytest.raises(StorageError, match="Permission denied"):
            SqliteStore(shared / "new.db", create=True)
    assert [path.name for path in shared.iterdir()] == ["G.db"]


def test_a_file_that_changes_while_it_is_read_without_locks_is_told(shared):
    place = make(shared / "G.db")
    place.chmod(0o444)
    shared.chmod(0o555)
    with nobody():
        store = SqliteStore(place)
        with pytest.raises(GalleryError, match="was changed while it was read"), store.read():
            os.seteuid(os.getuid())
            os.utime(place, (1, 1))
    store.close()


def test_a_file_that_cannot_be_read_is_named(shared):
    place = make(shared / "G.db")
    place.chmod(0o000)
    with nobody(), pytest.raises(StorageError, match="Cannot read .* Permission denied"):
        SqliteStore(place)


def test_a_log_in_a_folder_that_cannot_be_written(shared):
    """Someone died with committed changes in the log: to leave them out would be wrong."""
    place = make(shared / "G.db")
    child = os.fork()
    if child == 0:
        add(SqliteStore(place), 2)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (shared / "G.db-shm").unlink()
    for path in shared.iterdir():
        path.chmod(0o444)
    shared.chmod(0o555)
    with nobody(), pytest.raises(StorageError, match="was not closed cleanly"):
        SqliteStore(place)
    shared.chmod(0o755)
    place.chmod(0o600)
    store = SqliteStore(place)
    assert names(store) == ["Anna", "Name 2"]
    store.close()


def test_a_full_disk_keeps_what_was_and_work_goes_on_with_space(place):
    """A limit on the size of files stands for a full disk; test_disk_full.py has a real one."""
    make(place)
    store = SqliteStore(place)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    add(store, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (place.stat().st_size, before[1]))
    try:
        for _ in range(2):
            with (
                pytest.raises(StorageError, match="is full or failed.*free some space"),
                store.write() as draft,
            ):
                for number in range(400):
                    draft.put(Setting(f"s{number}", "x" * 3_000))
            assert names(store) == ["Anna", "Name 2"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    add(store, 3)
    assert names(store) == ["Anna", "Name 2", "Name 3"]
    with store.read() as view:
        assert view.count(Setting) == 0
    store.close()


def test_a_swallowed_failure_is_not_committed(place):
    """A draft that could write only half of what it was told is not kept."""
    make(place)
    store = SqliteStore(place)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(GalleryError, match="failed half way"), store.write() as draft:
            draft.put(Person("p2", "half", 1.0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (place.stat().st_size, before[1]))
            with contextlib.suppress(StorageError):
                for number in range(2_000):
                    draft.put(Setting(f"s{number}", "x" * 3_000))
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(store) == ["Anna"]
    store.close()


def test_deleted_bytes_leave_the_log_as_soon_as_nobody_reads_it(place):
    make(place)
    store, log = SqliteStore(place), Path(f"{place}-wal")
    with store.write() as draft:
        draft.put(Person("p2", "Zerubbabel Quux", 1.0))
    assert b"Zerubbabel" in log.read_bytes()
    with store.read():
        with store.write() as draft:
            draft.delete(Person, "p2")
        assert store.pending_erasure
        assert b"Zerubbabel" in log.read_bytes()
    add(store, 3)
    assert not store.pending_erasure
    assert log.stat().st_size == 0
    assert b"Zerubbabel" not in place.read_bytes()
    store.close()


def test_only_what_tells_of_somebody_is_cleaned_away_at_once(place):
    """The log is emptied after a rename, and left for later after a move or a ruling."""
    store, log = SqliteStore(place, create=True), Path(f"{place}-wal")
    face = EnrolledFace(1, "p1", 1.0, source="/a.jpg")
    with store.write() as draft:
        draft.put(Person("p1", "Anna", 1.0))
        draft.put(Person("p2", "Ben", 1.0))
        draft.put(face)
        draft.put(Ruling(1, "p1", True, 1.0))
    for change, cleaned in (
        (lambda draft: draft.put(Person("p1", "Anna", 1.0)), False),
        (lambda draft: draft.put(dataclasses.replace(face, person="p2", quality=0.5)), False),
        (lambda draft: draft.delete(Ruling, "1:p1"), False),
        (lambda draft: draft.put(Person("p1", "Anne", 1.0)), True),
        (lambda draft: draft.put(dataclasses.replace(face, source="/b.jpg")), True),
        (lambda draft: draft.put(Setting("s", "t")), False),
        (lambda draft: draft.put(Setting("s", "u")), True),
        (lambda draft: draft.delete(Person, "p2"), True),
    ):
        with store.write() as draft:
            change(draft)
        assert (log.stat().st_size == 0) == cleaned
    store.close()


def test_a_store_can_go_through_a_fork(place):
    """SQLite's connections cannot: they are closed before, and opened anew on both sides."""
    make(place)
    store = SqliteStore(place)
    add(store, 2)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            for number in range(10, 20):
                add(store, number)
            status = 0
        os._exit(status)
    for number in range(20, 30):
        add(store, number)
    assert os.waitpid(child, 0)[1] == 0
    assert len(names(store)) == 22
    store.close()
    assert [path.name for path in place.parent.iterdir()] == ["G.db"]


def test_a_fork_inside_a_block_does_not_use_the_parents_view(place):
    make(place)
    store = SqliteStore(place)
    with store.write() as draft:
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(GalleryError):
                draft.put(Person("p5", "child", 1.0))
                status = 2
            os._exit(status)
        draft.put(Person("p6", "parent", 1.0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert names(store) == ["Anna", "parent"]
    store.close()


def test_a_file_that_was_replaced_or_removed_is_noticed(place):
    other = make(place.parent / "other.db")
    store = SqliteStore(other)
    add(store, 7)
    store.close()
    make(place)
    store = SqliteStore(place)
    assert names(store) == ["Anna"]
    os.replace(other, place)
    assert names(store) == ["Anna", "Name 7"]
    place.unlink()
    with pytest.raises(GalleryError, match="There is no gallery"):
        names(store)
    store.close()


@pytest.mark.parametrize(
    ("make_row", "message"),
    [
        (lambda: Person("p", "x" * 10_000_000, 1.0), "1 to 200 characters; got 10,000,000"),
        (lambda: Person("p", "a\nb", 1.0), "control characters"),
        (lambda: Person("p", "  ", 1.0), "1 to 200 characters"),
        (lambda: Person("p", "\udcff", 1.0), "printable text"),
        (lambda: Person("a:b", "x", 1.0), "no colon"),
        (lambda: Person("p", "x", float("nan")), "finite number"),
        (lambda: Person("p", "x", 1.0, None, {"a": object()}), "JSON object"),
        (lambda: Person("p", "x", 1.0, None, {"a": "y" * 20_000}), "at most 16,384 bytes"),
        (lambda: EnrolledFace(0, "p", 1.0), "whole number from 1 to"),
        (lambda: EnrolledFace(1 << 40, "p", 1.0), "whole number from 1 to"),
        (lambda: EnrolledFace(1, "p", 1.0, source="\udcff"), "Unicode text"),
        (lambda: EnrolledFace(1, "p", 1.0, box=(1, 2, 3)), "four numbers"),
        (lambda: EnrolledFace(1, "p", 1.0, quality=float("inf")), "finite number"),
        (lambda: EnrolledFace(1, "p", 1.0, measures={"a": "x"}), "finite number"),
    ],
)
def test_rows_that_no_store_should_see(make_row, message):
    with pytest.raises(InputError, match=message) as caught:
        make_row()
    assert len(str(caught.value)) < 400


def test_numbers_of_numpy_become_plain_ones(place):
    store = SqliteStore(place, create=True)
    box = np.array([1, 2, 3, 4], np.float32)
    row = EnrolledFace(
        1, "p", np.float64(1), box=box, quality=np.float32(0.5), measures={"a": box[0]}
    )
    for kept in (store, MemoryStore()):
        with kept.write() as draft:
            draft.put(Person("p", "P", 1))
            draft.put(row)
        with kept.read() as view:
            assert view.get(EnrolledFace, 1) == EnrolledFace(
                1, "p", 1.0, box=(1.0, 2.0, 3.0, 4.0), quality=0.5, measures={"a": 1.0}
            )
    store.close()


def test_blocks_make_up_the_whole(place):
    """Vectors in blocks, as an index reads them, against the array that was put."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((1_003, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store = SqliteStore(place, create=True)
    with store.write() as draft:
        draft.put(Space("c", "m", 32, "active", 1.0))
        draft.put(Person("p", "P", 1.0))
        for face in range(1, len(rows) + 1):
            draft.put(EnrolledFace(face, "p", 1.0))
        draft.put_vectors("c", {face + 1: row for face, row in enumerate(rows)})
    parts, after = [], 0
    with store.read() as view:
        while len(block := view.vectors("c", after=after, limit=100)):
            parts.append(block.rows)
            after = int(block.ids[-1])
        assert np.array_equal(np.concatenate(parts), rows)
        ids = rng.permutation(np.arange(1, 1_004))[:700]
        assert np.array_equal(view.vectors("c", ids=ids).rows, rows[np.sort(ids) - 1])
    store.close()
