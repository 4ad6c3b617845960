"""Results are written whole or not at all, and a place is known to be of no use beforehand."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from facenet.errors import StorageError
from facenet.files import require_writable, written


@pytest.mark.parametrize("place", [".", "/", "", ".."])
@pytest.mark.parametrize("way", [require_writable, lambda path: written(path).__enter__()])
def test_a_folder_is_no_file(place, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="Cannot write"):
        way(Path(place))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    require_writable(tmp_path / "new" / "file.json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file.json").write_text("mine")
    require_writable(tmp_path / "file.json")
    assert (tmp_path / "file.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["x" * 300, "file/below"])
def test_names_that_no_disk_takes(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=f"Cannot write {tmp_path}/{name[:100]}"):
        require_writable(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_private_results_are_for_their_owner_or_keep_who_may_read_them(tmp_path):
    path = tmp_path / "file"
    for mode in (0o600, 0o644, 0o440):
        if path.exists():
            path.chmod(mode)
        with written(path, private=True) as file:
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode  # before it holds names
            file.write(b"names")
        assert stat.S_IMODE(path.stat().st_mode) == mode
