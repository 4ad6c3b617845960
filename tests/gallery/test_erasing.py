"""An erasure that is owed is remembered in the file, and paid by whoever opens it next."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crashing.aimed import STATEMENTS, Range, strike_out
from crashing.erasures import Claims, claimed
from crashing.ledger import contents
from crashing.operations import opened
from shell import run

from facenet.apps.jobs.galleryfacts import report_text
from facenet.gallery import corrections
from facenet.gallery.backup import backup, verify
from facenet.gallery.records import Person
from facenet.gallery.snapshot import snapshot_path
from facenet.gallery.sqlite import SqliteStore

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
forked = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@pytest.fixture(scope="module")
def strewn(tmp_path_factory):
    """A gallery in which rows were moved between pages."""
    return Range(tmp_path_factory.mktemp("strewn") / "G.db", np.random.default_rng(5))


@pytest.fixture
def gallery(tmp_path, strewn):
    """A copy of it, somebody of whom bytes lie about, and what would be left of them."""
    path = tmp_path / "G.db"
    path.write_bytes(strewn.data)
    claims, who = Claims(), strewn.marks[0]
    with opened(path) as view:
        claims.read([json.dumps(claimed(view, [who], [])).encode() + b"\n"])
    return path, who, claims


def left(path, claims):
    """Of how many deletions that were made something is left in the files as they lie there; the
    gallery is read in a copy, for reading it would change it."""
    copy = path.parent / "copy" / path.name
    copy.parent.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, copy.parent / file.name)
    with opened(copy) as view:
        actual = contents(view)
    shutil.rmtree(copy.parent)
    made, found = claims.left(path, actual)
    assert made == 1
    return len(found)


def killed(path, who, at):
    """Delete somebody in another process, which dies at a statement after the commit."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from crashing.aimed import delete; "
        "delete(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
    )
    arguments = [str(SCRIPTS), str(path), who, str(at)]
    return subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode


@forked
@pytest.mark.parametrize("at", [1, 3, 6, 23, 24, 25, 26, 28])
def test_a_kill_after_the_commit_leaves_no_byte_once_the_gallery_is_opened(gallery, at):
    path, who, claims = gallery
    assert killed(path, who, at) < 0
    assert left(path, claims) == (1 if at <= 23 else 0)
    with opened(path) as view:
        assert view.get(Person, who) is None
        revision = view.revision
    assert left(path, claims) == 0
    assert verify(path).ok
    with opened(path) as view:
        assert view.revision == revision
        assert not view.owes


@forked
def test_without_the_note_the_bytes_stay(gallery):
    """The negative control."""
    path, who, claims = gallery
    assert killed(path, who, 6) < 0
    strike_out(path)
    with opened(path) as view:
        assert view.get(Person, who) is None
    assert left(path, claims) == 1
    assert killed(path, "nobody", STATEMENTS) == 0


def owing(path, who):
    """Delete somebody while another program reads, so that the erasure cannot be made."""
    store, other = SqliteStore(path), SqliteStore(path)
    with other.read():
        corrections.delete_person(store, who)
        assert store.pending_erasure
        store.close()
    other.close()


def test_who_opens_or_writes_next_pays(gallery):
    path, who, claims = gallery
    waiting = SqliteStore(path)
    snapshot = snapshot_path(path, "toy")
    owing(path, who)
    snapshot.write_bytes(b"an index that somebody saved meanwhile")
    assert left(path, claims) == 1
    with waiting.write() as draft:
        assert draft.owes
        draft.put(Person("later", "Later", 1.0))
    assert not waiting.pending_erasure
    assert left(path, claims) == 0
    assert not snapshot.exists()
    waiting.close()


def test_verifying_changes_nothing_and_a_backup_owes_nothing(gallery, tmp_path):
    path, who, claims = gallery
    store = SqliteStore(path)
    with store.read():
        owing(path, who)
        backup(store, tmp_path / "backup.db")
    assert claims.left(tmp_path / "backup.db", {}) == (1, [])
    with opened(tmp_path / "backup.db") as view:
        assert not view.owes
    before = path.read_bytes()
    report = verify(path)
    assert (report.ok, report.to_dict()["erasure_owed"]) == (True, True)
    assert "may lie in it still" in report_text(report)
    assert path.read_bytes() == before
    assert not verify(tmp_path / "backup.db").owes
    store.close()


def test_who_deletes_is_told_that_bytes_are_left(gallery):
    path, who, _ = gallery
    other = SqliteStore(path)
    with other.read():
        ran = run("gallery", "delete", path, "--person", who)
    assert ran.out == "delete; 1 face is gone for good\n"
    assert "Another program is reading the gallery, so that bytes of what was deleted" in ran.err
    other.close()
    with opened(path) as view:
        (name, *_) = [person.id for person in view.find(Person)]
    assert run("gallery", "delete", path, "--person", name).err == ""
