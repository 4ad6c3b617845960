"""The child that reads sound: the parent opens no source, and lives whatever happens to it."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest
from processes import children, state
from soundclips import RATE, onsets, samples_of, still, tone, write_talkie

from facenet.errors import InputError, SettingsError
from facenet.images import read_video, soundapart
from facenet.images.filming import film
from facenet.images.sound import Cut
from facenet.images.soundapart import LARGEST, SoundApart, _message

SIZE = (16, 16)
SECONDS = 30
"""Of sound: far more than what may wait."""


@pytest.fixture(autouse=True)
def nothing_left():
    """No child, no open file and no thread beyond the test."""

    def left():
        return children(), len(os.listdir("/proc/self/fd"))

    before, threads = left(), threading.active_count()
    yield
    gc.collect()
    assert left() == before
    assert threading.active_count() == threads


@pytest.fixture
def talkie(tmp_path):
    """A second of pictures with much sound."""
    sound = tone(SECONDS, beeps=(0.4,))
    return write_talkie(tmp_path / "s.mkv", still(25, SIZE), sound, codec="pcm_s16le")


def child_of(out):
    return out._sound._child


def write(source, target, *, before=None, after=None):
    """A film of 25 pictures with the sound of a source, and what is done to it on the way."""
    with film(target, audio=source) as out:
        for number, picture in enumerate(still(25, SIZE)):
            if number == before:
                os.kill(child_of(out).pid, signal.SIGKILL)
            out.add(picture, number / 25)
            if number == after:
                os.kill(child_of(out).pid, signal.SIGKILL)
    return out


@pytest.mark.parametrize("target", ["o.mkv", "o.mp4"])
def test_the_parent_opens_no_source_and_decodes_nothing(target, talkie, tmp_path, monkeypatch):
    """Copied (MKV) and encoded anew (MP4): FFmpeg gets the film and a header of our own."""
    opened, really = [], av.open
    with monkeypatch.context() as patched:
        patched.setattr(
            av, "open", lambda file, *a, **k: opened.append(file) or really(file, *a, **k)
        )
        write(talkie, tmp_path / target)
    assert [type(file).__name__ for file in opened] == ["_Disk", "BytesIO"]
    with av.open(io.BytesIO(opened[1].getvalue())) as header:
        assert [stream.type for stream in header.streams] == ["audio"]
        assert [packet for packet in header.demux() if packet.size] == []
    assert len(samples_of(tmp_path / target)) / RATE == pytest.approx(SECONDS, abs=0.05)


def test_what_is_not_heard_of_the_last_packet_is_copied(tmp_path):
    """Opus has packets of 20 ms, and the sound ends within one."""
    source = write_talkie(tmp_path / "s.mkv", still(25, SIZE), tone(0.93), codec="libopus")
    write(source, tmp_path / "o.webm")
    assert len(samples_of(tmp_path / "o.webm")) == len(samples_of(source))
    assert len(samples_of(source)) % 960  # not the end of a packet


@pytest.mark.parametrize("target", ["o.mkv", "o.mp4"])
def test_a_child_that_dies_in_the_middle_leaves_the_film_whole(target, talkie, tmp_path):
    out = write(talkie, tmp_path / target, after=12)
    assert len(list(read_video(tmp_path / target))) == 25
    heard = samples_of(tmp_path / target)
    assert 0.4 < len(heard) / RATE < SECONDS / 2
    assert onsets(heard) == pytest.approx([0.4], abs=0.002)
    (notice,) = out.notices
    told, why = notice.split(" s of the film: ")
    start = f"The sound of {talkie} ends at "
    assert told.startswith(start)
    assert float(told.removeprefix(start)) == pytest.approx(len(heard) / RATE, abs=0.05)
    assert why == (
        "the process that reads it was ended from outside (SIGKILL), perhaps for want of memory."
    )


@pytest.mark.parametrize("target", ["o.mkv", "o.mp4", "o.webm"])
def test_a_child_that_dies_before_the_first_packet(target, talkie, tmp_path):
    out = write(talkie, tmp_path / target, before=0)
    assert len(list(read_video(tmp_path / target))) == 25
    (notice,) = out.notices
    assert notice.startswith(f"The sound of {talkie} ends at 0.00 s of the film: the process ")


HEADER = '{"header": {"size": 9, "layout": "mono", "bare": false, "tracks": 1}}'


@pytest.mark.parametrize(
    "code",
    [
        "os.abort()",
        "sys.exit(3)",
        "print('x' * 10**6, flush=True); sys.stdin.read()",
        f"print('{HEADER}' + '\\n123456789', flush=True); sys.stdin.read()",
        "print('{\"unusable\": true}', flush=True); sys.stdin.read()",
        "print('{\"packet\": {}}', flush=True); sys.stdin.read()",
        "sys.stdin.read()",
    ],
)
def test_a_child_that_never_gives_sound_makes_a_silent_film(code, talkie, tmp_path, monkeypatch):
    monkeypatch.setattr(soundapart, "COMMAND", (sys.executable, "-c", f"import os, sys; {code}"))
    monkeypatch.setattr(soundapart, "PATIENCE", 0.5)
    monkeypatch.setattr(soundapart, "STARTING", 0.5)
    out = write(talkie, tmp_path / "o.mp4")
    assert out.notices == [f"The sound of {talkie} cannot be used: the film is silent."]
    assert len(list(read_video(tmp_path / "o.mp4"))) == 25
    with av.open(str(tmp_path / "o.mp4")) as made:
        assert not made.streams.audio


def packet(**changed):
    told = {"size": 3, "pts": -7, "duration": 1, "base": [1, 1000], "key": True, "faults": 0}
    told |= {"unheard": ""} | changed
    return json.dumps({"packet": told}).encode()


def test_what_an_honest_child_says_is_understood():
    message = _message(packet(), io.BytesIO(b"abcd"))
    assert (message.kind, message.value[0]["pts"], message.value[1]) == ("packet", -7, b"abc")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no JSON",
        b'{"frame": 1}',
        b'{"end": -1}',
        b'{"end": 1, "none": true}',
        packet(size=LARGEST + 1),
        packet(size=0),
        packet(size=5),
        packet(pts=1 << 63),
        packet(pts="1"),
        packet(duration=-1),
        packet(base=[1, 0]),
        packet(base=[1 << 31, 1]),
        packet(unheard="00"),
        packet(unheard="x"),
        HEADER.replace("9", "5").encode(),
    ],
)
def test_what_no_honest_child_says_is_refused(line):
    assert _message(line, io.BytesIO(b"abcd")) is None


def test_sound_comes_as_it_is_needed_and_the_child_is_bounded(talkie, tmp_path):
    with film(tmp_path / "o.mkv", audio=talkie) as out:
        out.add(still(1, SIZE)[0], 0.0)
        child, seen = child_of(out), -1
        (place,) = [
            link
            for link in Path(f"/proc/{child.pid}/fd").iterdir()
            if os.readlink(link) == str(talkie)
        ]
        while seen != (seen := _position(child.pid, place.name)):  # until it waits
            time.sleep(0.2)
        assert 0 < seen < talkie.stat().st_size / 2
        limits = Path(f"/proc/{child.pid}/limits").read_text()
        out.cut()
    bounds = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert bounds["Max file size"] == bounds["Max core file size"] == "0"
    assert int(bounds["Max address space"]) <= 4 << 30


def _position(pid, number):
    return int(Path(f"/proc/{pid}/fdinfo/{number}").read_text().split()[1])


def test_the_child_ends_with_a_film_that_fails_and_with_its_parent(talkie, tmp_path):
    with pytest.raises(InputError), film(tmp_path / "o.mkv", audio=talkie) as out:
        pid = child_of(out).pid
        out.add(still(1, SIZE)[0], -float("inf"))
    assert pid not in children()
    code = (
        "import sys, time, numpy\nfrom facenet.images.filming import film\n"
        "with film(sys.argv[2], audio=sys.argv[1]) as out:\n"
        " out.add(numpy.zeros((16, 16, 3), numpy.uint8), 0.0)\n"
        " print(out._sound._child.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(talkie), str(tmp_path / "p.mkv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert state(pid) not in ("Z", None)
        parent.kill()
    while state(pid) not in ("Z", None):
        time.sleep(0.02)


def test_a_frozen_application_is_told(talkie, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with (
        pytest.raises(SettingsError, match="make the film without audio"),
        film(tmp_path / "o.mkv", audio=talkie),
    ):
        pass


class Honest:
    """A child that says what it was made with."""

    def __init__(self, *lines):
        self._messages = [_message(line, io.BytesIO(b"abcd")) for line in lines]

    def ask(self, cut):
        """Nothing is asked of it."""

    def take(self, patience):
        return self._messages.pop(0)


def test_parts_that_the_child_and_the_muxer_leave_out_are_counted_together():
    sound = SoundApart("a.mp4", Honest(packet(), packet(faults=2), b'{"end": 3}'), None)
    with av.open(io.BytesIO(), "w", format="matroska") as target:
        sound._out = target.add_stream("aac", rate=RATE)
        for _ in sound.packets(Cut(Fraction(0))):
            sound.refused()
    sound.close()
    assert sound.notices == [
        "The sound of a.mp4 is damaged: 5 parts of it are left out of the film, 2 are kept."
    ]
