"""Events as they happen: whole lines at once, after a kill, on a full disk, with hostile names."""

from __future__ import annotations

import csv
import io
import json
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from visitors import event, little_disk

from facenet.apps.jobs.filming.eventfile import COLUMNS, EventFile, event_kind, event_row
from facenet.apps.jobs.filming.linefile import BLOCK
from facenet.errors import SettingsError, StorageError

NAMES = [
    "Zoë Åström", "李小龙", 'Ann "A", B', "=1+1", "+49", "-Bob", "@SUM(A1)", "\t=cmd", "＝1",
    "two\nlines\r\n", "esc \x1b[31m \x9b1m", "line\u2028separator\x85", "byte \udcff",
    "back\u202eward", "x" * 5000,
]  # fmt: skip


def rows(path):
    text = path.read_bytes().decode()
    assert text == "" or text.endswith("\n")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text), strict=True))
    return [json.loads(line) for line in text.splitlines()]  # also splits at U+2028 and the like


def test_an_event_can_be_read_as_soon_as_it_happened(tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    events = [event("arrived", "Ann"), event("left", "Ann", time_s=5.75), event("arrived")]
    with EventFile(path) as file:
        for count, one in enumerate(events, 1):
            file.add(event_row(one))
            assert rows(path) == [e.to_dict() for e in events[:count]]
    for row in rows(path):
        assert {"type", "time_s", "track", "person", "similarity"} <= set(row)
    assert [row["person"] for row in rows(path)] == ["Ann", "Ann", None]


def test_where_and_when_by_the_clock():
    began = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    row = event_row(event(time_s=1.5), source="camera 0", began=began)
    assert row["source"] == "camera 0"
    assert row["at"] == "2026-11-23T00:00:00.500+00:00"
    assert {"source", "at"}.isdisjoint(event_row(event()))


def test_csv_has_a_column_for_everything_in_an_event(tmp_path):
    row = event_row(event("left", "Ann"), source="a.mp4", began=datetime.now(UTC))
    assert set(row) == set(COLUMNS)
    with EventFile(tmp_path / "e.CSV") as file:
        file.add(row)
    (read,) = csv.DictReader((tmp_path / "e.CSV").read_text("utf-8").splitlines())
    shown = {name: "" if value is None else str(value) for name, value in row.items()}
    assert read == shown | {"box": "10.0 20.0 60.5 80.0"}


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_in_their_line_and_their_cell(name, tmp_path):
    lines, table = tmp_path / "e.ndjson", tmp_path / "e.csv"
    for path in (lines, table):
        with EventFile(path) as file:
            file.add(event_row(event(person=name, similarity=-0.125)))
            file.add(event_row(event(person="Next")))
    first, second = rows(lines)
    assert (first["person"], second["person"]) == (name, "Next")
    first, second = rows(table)
    assert len(table.read_text("utf-8").splitlines()) == 3
    assert not first["person"].startswith(tuple("=+-@＝＋－＠\t\r"))
    assert (first["similarity"], second["person"]) == ("-0.125", "Next")
    for path in (lines, table):
        assert path.read_text("utf-8").replace("\n", "").isprintable()


def test_plain_names_are_written_as_they_are(tmp_path):
    for path in (tmp_path / "e.jsonl", tmp_path / "e.csv"):
        with EventFile(path) as file:
            for name in NAMES[:2]:
                file.add(event_row(event(person=name)))
        assert all(name in path.read_text("utf-8") for name in NAMES[:2])
        assert [row["person"] for row in rows(path)] == NAMES[:2]


def test_what_is_no_number_is_null(tmp_path):
    for path in (tmp_path / "e.jsonl", tmp_path / "e.csv"):
        with EventFile(path) as file:
            file.add(event_row(event(similarity=float("nan"), fmr=float(np.float32("inf")))))
        assert rows(path)[0]["similarity"] in (None, "")
        assert rows(path)[0]["fmr"] in (None, "")


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_replaced_or_added_to(ending, tmp_path):
    path = tmp_path / f"e{ending}"
    for append, persons in ((True, ["1"]), (True, ["1", "2"]), (False, ["3"]), (True, ["3", "4"])):
        with EventFile(path, append=append) as file:
            file.add(event_row(event(person=persons[-1])))
        assert [row["person"] for row in rows(path)] == persons
    EventFile(path).close()
    assert rows(path) == []


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
@pytest.mark.parametrize("torn", ['{"type": "arr', "x" * (2 * BLOCK + 5), '"'])
def test_a_torn_last_line_goes_with_the_next_append(ending, torn, tmp_path):
    path = tmp_path / f"e{ending}"
    with EventFile(path) as file:
        file.add(event_row(event(person="Ann")))
    with path.open("a") as file:
        file.write(torn)
    with EventFile(path, append=True) as file:
        file.add(event_row(event(person="Bob")))
    assert [row["person"] for row in rows(path)] == ["Ann", "Bob"]


def test_a_file_that_is_one_torn_line(tmp_path):
    (tmp_path / "e.csv").write_text("type,ti")
    with EventFile(tmp_path / "e.csv", append=True) as file:
        file.add(event_row(event(person="Bob")))
    assert [row["person"] for row in rows(tmp_path / "e.csv")] == ["Bob"]


def test_a_killed_run_leaves_whole_lines(tmp_path):
    path = tmp_path / "e.jsonl"
    code = (
        "import os, sys; from facenet.apps.jobs.filming.eventfile import EventFile\n"
        "file = EventFile(sys.argv[1])\n"
        "for n in range(100): file.add({'type': 'seen', 'time_s': n})\n"
        "os.kill(os.getpid(), 9)"
    )
    child = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert child.returncode == -signal.SIGKILL
    assert [row["time_s"] for row in rows(path)] == list(range(100))
    with EventFile(path, append=True) as file:  # the dead process holds nothing
        file.add(event_row(event()))
    assert len(rows(path)) == 101


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_full_disk_is_one_sentence_and_keeps_what_there_is(ending, tmp_path):
    path = tmp_path / f"e{ending}"
    with EventFile(path) as file:
        file.add(event_row(event(person="Ann")))
        size = path.stat().st_size
        with little_disk(size + 40), pytest.raises(StorageError) as caught:
            file.add(event_row(event(person="Bob")))
        assert str(path) in str(caught.value)
        assert "kept" in str(caught.value)
        assert path.stat().st_size == size  # 40 bytes of Bob were written and taken back
        file.add(event_row(event(person="Cid")))
    assert [row["person"] for row in rows(path)] == ["Ann", "Cid"]


def test_the_columns_need_room_too(tmp_path):
    with little_disk(10), pytest.raises(StorageError, match=r"e\.csv"):
        EventFile(tmp_path / "e.csv")
    assert (tmp_path / "e.csv").read_bytes() == b""
    EventFile(tmp_path / "e.csv").close()  # the first left no lock behind


def test_two_runs_do_not_share_a_file(tmp_path):
    path = tmp_path / "e.jsonl"
    with EventFile(path) as file:
        file.add(event_row(event("seen", "Ann")))
        for append in (True, False):
            with pytest.raises(StorageError, match=r"Another run writes to .*e\.jsonl"):
                EventFile(path, append=append)
        assert rows(path) == [event("seen", "Ann").to_dict()]
    EventFile(path, append=True).close()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("budget.csv", b"name,amount\nrent,3\n"),
        ("budget.csv", b"name,amount\nrent,3"),
        ("budget.csv", b"name,amount"),
        ("budget.csv", b'{"type": "arrived", "time_s": 1.5}\n'),
        ("map.jsonl", b'{"type": "Feature", "geometry": null}\n{"type": "Fea'),
        ("map.jsonl", b"\x00" * 300),
        ("map.jsonl", b"\n"),
        ("map.jsonl", ",".join(COLUMNS).encode() + b"\n"),
    ],
)
def test_a_file_of_something_else_is_not_added_to_nor_cut(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(StorageError, match=rf"{name} should be a \w+ of events, and begins other"):
        EventFile(path, append=True)
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", ["e.jsonl", "e.csv"])
def test_events_are_for_their_owner_but_a_file_that_is_there_keeps_its_mode(name, tmp_path):
    path = tmp_path / name
    EventFile(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    for append in (True, False):
        EventFile(path, append=append).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_stdout():
    out = io.StringIO()
    with EventFile("-", out=out) as file:
        file.add(event_row(event(person="Zoë\n")))
        assert json.loads(out.getvalue())["person"] == "Zoë\n"
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().isascii()
    assert not out.closed


@pytest.mark.parametrize("place", ["clip.mp4", "events", "e.json", ".jsonl", "x" * 500])
def test_other_endings_are_refused(place, tmp_path):
    with pytest.raises(SettingsError, match=r"should end with .*got ") as caught:
        EventFile(tmp_path / place)
    assert len(str(caught.value)) < 600
    assert list(tmp_path.iterdir()) == []
    assert (event_kind("-"), event_kind("a.JSONL"), event_kind("a.csv")) == ("jsonl",) * 2 + (
        "csv",
    )


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "d.jsonl").mkdir()
    for place in (tmp_path / "file" / "e.jsonl", tmp_path / "d.jsonl"):
        with pytest.raises(StorageError, match="Cannot write"):
            EventFile(place)
