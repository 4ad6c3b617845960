"""Names, times and faces of a video: files for their owner alone, events for one address alone."""

from __future__ import annotations

import json
import socket
import stat

import numpy as np
import pytest
from clips import write_clip
from receiver import Receiver
from shell import opened, run
from visitors import track

from facenet.apps.jobs.filming.portraits import write_portraits
from facenet.apps.jobs.filming.subtitles import write_subtitles
from facenet.apps.jobs.filming.timeline import Period, write_timeline
from facenet.apps.jobs.filming.trackfile import BoxLog, write_tracks


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def passing(examples, tmp_path):
    """Six frames in which two people of a group stand still."""
    group = np.asarray(opened(examples / "photos/group.jpg").convert("RGB").resize((640, 224)))
    return write_clip(tmp_path / "in.mp4", [np.ascontiguousarray(group[:, 280:480])] * 6)


def test_all_that_tells_of_people_is_for_its_owner(tmp_path):
    folder = tmp_path / "out"
    for expected in (0o600, 0o640):
        with BoxLog(tmp_path) as boxes:
            for name in ("tracks.json", "tracks.txt"):
                write_tracks(folder / name, [track(1, "Ann")], {}, boxes)
        for name in ("who.vtt", "who.srt"):
            write_subtitles(folder / name, [track(1, "Ann")])
        write_timeline(folder / "page.html", [track(1, "Ann")], Period("in.mp4", 0.0, 9.0, ()))
        assert write_portraits(folder / "faces", [track(1, "Ann")]) == 1
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) == 7
        assert {path.name: oct(mode(path)) for path in files} == dict.fromkeys(
            (path.name for path in files), oct(expected)
        )
        for path in files:  # those that may be read by a group go on so
            path.chmod(0o640)


def test_a_run_sends_events_to_its_own_address_alone(passing, tmp_path, monkeypatch):
    """Without --events all runs in a folder wait under one name, but for the address."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/hush"
    first = run("video", passing, "--webhook", nobody)
    (box,) = tmp_path.glob("facenet-events.jsonl.*.outbox")
    before = box.read_bytes()
    waiting = [json.loads(line)["id"] for line in before.splitlines()]
    assert (mode(box), b"hush" in before) == (0o600, False)
    with Receiver() as receiver:
        second = run("video", passing, "--webhook", receiver.url)
        sent = [one.json["id"] for one in receiver.got]
    assert (first.code, second.code) == (0, 0)
    assert len(sent) == len(waiting) > 0
    assert not {*sent} & {*waiting}
    assert box.read_bytes() == before
