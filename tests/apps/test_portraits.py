"""The best picture of each track in a folder, under names that every system takes."""

from __future__ import annotations

import csv
import os

import pytest
from visitors import little_disk, portrait, track

from facenet.apps.jobs.filming.portraits import portrait_name, write_portraits
from facenet.errors import InputError, StorageError


def index(folder):
    return list(csv.DictReader((folder / "index.csv").read_text("utf-8").splitlines(), strict=True))


def test_the_best_picture_of_each_track_and_a_table(tmp_path):
    folder = tmp_path / "new" / "portraits"
    best = portrait(2.0, 0.9, colour=(10, 200, 30))
    tracks = [
        track(12, None, stranger="unknown 3"),
        track(2, "Zoë Åström", (1.0, 3.25), portraits=(best, portrait(1.0, 0.4))),
        track(3, "Ann", portraits=()),
    ]
    assert write_portraits(folder, tracks) == 2
    names = ["Zoë Åström-track-2.jpg", "unknown-3-track-12.jpg"]
    assert sorted(os.listdir(folder)) == sorted([*names, "index.csv"])
    assert (folder / names[0]).read_bytes() == best.jpeg
    zoe, ann, stranger = index(folder)
    assert zoe == {
        "file": names[0], "track": "2", "person": "Zoë Åström", "stranger": "",
        "similarity": "0.62", "first_s": "1.0", "last_s": "3.25", "time_s": "2.0", "frame": "50",
        "quality": "0.9", "box": "10.0 20.0 60.5 80.0",
    }  # fmt: skip
    assert (ann["file"], ann["person"], ann["time_s"]) == ("", "Ann", "")
    assert (stranger["file"], stranger["person"], stranger["stranger"]) == (
        names[1],
        "",
        "unknown 3",
    )


HOSTILE = ["../../etc/passwd", "a/b\\c", "CON", "nul.", 'x:y*?"<>|', ".hidden", " . ", "\x00\n",
           "=cmd()", "-rf", "李" * 200, "e\u0301" * 100, "\udcff", "\u202egpj.exe",
           "x" * 5000]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_would_be_no_file(name, tmp_path):
    for one in (track(7, name), track(7, None, stranger=name)):
        found = portrait_name(one)
        assert found.endswith("-track-7.jpg")
        assert not set(found) & set('<>:"/\\|?*\x00\n\u202e')
        assert not found.startswith((".", "=", "+", "-", "@", " "))
        assert len(found.encode()) <= 150
        assert write_portraits(tmp_path / found, [one]) == 1
        assert sorted(os.listdir(tmp_path / found)) == sorted([found, "index.csv"])
        (row,) = index(tmp_path / found)
        assert row["file"] == found
    assert all("-track-7" in path for path in os.listdir(tmp_path))


def test_two_of_one_name_and_names_that_differ_by_case(tmp_path):
    tracks = [track(1, "Ann"), track(2, "ann"), track(3, "Ann"), track(11, "Ann")]
    assert write_portraits(tmp_path / "p", tracks) == 4
    assert len({name.casefold() for name in os.listdir(tmp_path / "p")}) == 5


def test_letters_have_one_form():
    assert portrait_name(track(1, "Zoe\u0308")) == portrait_name(track(1, "Zo\u00eb"))


def test_a_second_run_replaces_what_the_first_wrote_and_nothing_else(tmp_path):
    write_portraits(tmp_path, [track(1, "Ann"), track(2, "Bob")])
    (tmp_path / "Ann-track-1.jpg").rename(tmp_path / "Ann, kept.jpg")
    (tmp_path / "Mine-track-9.jpg").write_bytes(b"mine")
    with (tmp_path / "index.csv").open("a") as file:
        file.write("notes.txt\n../outside-track-1.jpg\n")
    (tmp_path / "notes.txt").write_text("mine")
    write_portraits(tmp_path, [track(3, "Cid")])
    assert sorted(os.listdir(tmp_path)) == [
        "Ann, kept.jpg", "Cid-track-3.jpg", "Mine-track-9.jpg", "index.csv", "notes.txt",
    ]  # fmt: skip
    assert [row["file"] for row in index(tmp_path)] == ["Cid-track-3.jpg"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_bytes(b"mine")
    for text in (None, "file,amount\n", b"\xff\xfe"):
        if text is not None:
            (photos / "index.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError, match="Portraits should go into a"):
            write_portraits(photos, [track()])
    assert sorted(os.listdir(photos)) == ["holiday.jpg", "index.csv"]
    with pytest.raises(InputError, match="cannot be read as one"):
        write_portraits(photos / "holiday.jpg", [track()])


def test_a_full_disk_is_one_sentence(tmp_path):
    with little_disk(100), pytest.raises(StorageError, match=r"Cannot write .*Ann-track-1\.jpg"):
        write_portraits(tmp_path / "p", [track(1, "Ann")])
    assert list((tmp_path / "p").iterdir()) == []
