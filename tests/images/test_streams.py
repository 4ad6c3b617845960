"""Cameras and streams: read apart, opened again when lost, and never more than was named."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from clips import noise, write_clip
from servers import h264, http_server, live, rtsp_camera, whole

from facenet.errors import InputError, SettingsError
from facenet.images import SourceSettings, open_source, read_video
from facenet.images.addresses import Address, find_address, public_name
from facenet.images.apart import Message, Told
from facenet.images.connection import Connection, _Times
from facenet.images.limits import LIMITS
from facenet.images.session import Session
from facenet.images.source import Source


class Clock:
    """Time that passes only when somebody sleeps or looks, by a second."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        self.now += 0.01
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def connected(url, clock, **settings):
    closing = ExitStack()
    reading = Connection(
        find_address(url), SourceSettings(**settings), LIMITS, clock=clock, sleep=clock.sleep
    )
    closing.callback(reading.close)
    return Source(reading, closing)


def test_a_recording_behind_an_address_is_read_as_a_file_is(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(12), movflags="faststart")
    with http_server({"/a.mp4": whole(path)}) as (host, _):
        with open_source(f"http://me:secret@{host}/a.mp4?key=secret") as source:
            frames = list(source)
            assert (source.kind, source.live, source.skipped) == ("stream", False, 0)
            assert source.name == f"http://{host}/a.mp4"
            assert source.facts.frames == 12
        with open_source(f"http://{host}/a.mp4", SourceSettings(start=0.3, stop=0.4)) as source:
            assert [frame.number for frame in source] == [8, 9]
    for frame, true in zip(frames, read_video(path), strict=True):
        assert (frame.number, frame.time_s) == (true.number, true.time_s)
        assert np.array_equal(frame.image, true.image)


def test_a_stream_that_is_lost_is_opened_again_with_longer_and_longer_waits(tmp_path):
    path = write_clip(tmp_path / "a.ts", noise(10))
    clock, frames = Clock(), []
    with http_server({"/a": live(path, visits=2)}) as (host, asked):
        source = connected(f"http://me:secret@{host}/a", clock, live=False, reconnect=6)
        with source, pytest.raises(InputError) as caught:
            frames += source
            frames += source
    assert [frame.number for frame in frames] == list(range(20))
    times = [frame.time_s for frame in frames]
    assert times[:10] == pytest.approx([n / 25 for n in range(10)], abs=1e-9)
    assert times[10] > times[9] + 1
    assert np.diff(times[10:]) == pytest.approx([0.04] * 9)
    assert clock.slept == [1, 1, 2, 4, 8, 16, 30]
    assert len(asked) == 8
    assert source.notices[0].startswith(f"http://{host}/a was lost at 0.36 s because ")
    assert str(caught.value).startswith(f"http://{host}/a was lost after 20 frames, at ")
    assert "; it was tried 6 times to open it again. The last try: " in str(caught.value)
    assert "secret" not in str(caught.value) + "".join(source.notices)


class Impatient(Clock):
    """One whose first sleep is ended by whoever waits."""

    def sleep(self, seconds):
        super().sleep(seconds)
        self.source.stop()


def test_waiting_for_a_lost_stream_can_be_stopped(tmp_path):
    path = write_clip(tmp_path / "a.ts", noise(5))
    clock = Impatient()
    with (
        http_server({"/a": live(path, visits=1)}) as (host, _),
        connected(f"http://{host}/a", clock, live=False) as clock.source,
    ):
        assert len(list(clock.source)) == 5
    assert clock.slept == [1]


def test_a_stalled_stream_is_told_or_stopped(tmp_path):
    path = write_clip(tmp_path / "a.ts", noise(40, (64, 48)))
    with http_server({"/a": live(path, stalls=True)}) as (host, _):
        settings = SourceSettings(live=False, reconnect=0, timeout_s=1.5)
        frames = []
        with (
            open_source(f"http://{host}/a", settings) as source,
            pytest.raises(
                InputError,
                match=r"gave no frame for 1.5 s; it was not opened again, as reconnect is 0\.",
            ),
        ):
            frames += source
            frames += source
        with open_source(f"http://{host}/a", SourceSettings(live=False)) as source:
            stopping = threading.Timer(0.5, source.stop)
            stopping.start()
            assert [frame.number for frame in source] == list(range(len(frames) or 36))[:40]
            stopping.join()


class Silent:
    """A child that never says a word, and how long it was listened to."""

    def __init__(self):
        self.waits = []

    def take(self, patience):
        self.waits.append(patience)
        return Message("silent")


def test_a_stream_that_never_begins_is_told_with_the_seconds_that_were_waited():
    """A process has 20 seconds to start, on top."""
    child = Silent()
    with pytest.raises(
        InputError, match=r"^a could not be decoded: it gave no frame for 21\.5 s\."
    ):
        Session(child, "a", 1.5)
    assert child.waits == [21.5]


def test_a_stream_whose_decoder_is_killed_is_opened_again(tmp_path):
    path = write_clip(tmp_path / "a.ts", noise(10))
    clock, numbers = Clock(), []
    with (
        http_server({"/a": live(path, visits=2)}) as (host, _),
        connected(f"http://{host}/a", clock, live=False, reconnect=1) as source,
    ):
        for frame in source:
            numbers.append(frame.number)
            if frame.number == 1:
                os.kill(source._reading._child.pid, signal.SIGKILL)
            if source.notices:
                break
    assert numbers == list(range(len(numbers)))
    assert (
        "because the process that decodes it was ended from outside (SIGKILL)" in source.notices[0]
    )


def test_an_rtsp_camera_gives_the_newest_frame_and_counts_the_others():
    with rtsp_camera(h264(noise(75, (64, 48)))) as host:
        settings = SourceSettings(reconnect=0, timeout_s=1.5)
        frames = []
        with open_source(f"rtsp://me:secret@{host}/live", settings) as source:
            assert (source.kind, source.live, source.name) == (
                "stream",
                True,
                f"rtsp://{host}/live",
            )
            assert (source.facts.width, source.facts.height) == (64, 48)
            with pytest.raises(InputError, match=r"gave no frame for 1.5 s"):
                for frame in source:
                    frames.append(frame.number)
                    time.sleep(0.2)  # five times as slow as the camera
    assert frames == sorted(set(frames))
    assert 70 <= frames[-1] <= 74  # the decoder holds the last ones while it waits for more
    assert source.skipped == frames[-1] + 1 - len(frames) > 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing", "404"), ("list.m3u8", "Invalid argument"), ("text", "Invalid data")],
)
def test_what_gives_no_video_is_told_at_once_and_nothing_else_is_asked(path, reason, tmp_path):
    clip = write_clip(tmp_path / "a.ts", noise(5))
    text, playlist = tmp_path / "text", tmp_path / "list"
    text.write_text("no video " * 1000)
    answers = {"/a.ts": whole(clip), "/list.m3u8": whole(playlist), "/text": whole(text)}
    with http_server(answers) as (host, asked):
        playlist.write_text(
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n"
            f"http://{host}/a.ts\n#EXTINF:9,\nfile://{clip}\n#EXT-X-ENDLIST\n"
        )
        with pytest.raises(InputError) as caught:
            open_source(f"http://me:secret@{host}/{path}")
        assert set(asked) == {f"/{path}"}
    assert str(caught.value).startswith(f"http://{host}/{path} cannot be opened: ")
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)


def test_nobody_there_no_such_protocol_and_no_camera():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for scheme in ("http", "rtsp", "tcp", "rtmp"):
        with pytest.raises(InputError, match=r"cannot be opened: .*refused"):
            open_source(f"{scheme}://127.0.0.1:{port}/x")
    with pytest.raises(InputError, match=r"/dev/video93; found .* Connect it, or name another\."):
        open_source("/dev/video93")
    with pytest.raises(SettingsError, match=r"always decoded in a process of their own"):
        open_source("rtsp://127.0.0.1/x", SourceSettings(apart=False))


def camera(path):
    """A device as FFmpeg is asked for it, whatever it is called."""
    return Address(f"camera {path}", "camera", str(path), "v4l2", {"protocol_whitelist": "none"})


@pytest.mark.skipif(sys.platform != "linux", reason="cameras have other readers elsewhere")
def test_a_device_that_is_no_camera_is_told(tmp_path):
    advice = (
        ". Check that it is a camera, that you may read it (on Linux as one of the group video) "
        "and that no other program uses it."
    )
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file or directory"),
        ("/dev/null", "Inappropriate ioctl for device"),
    ):
        with pytest.raises(InputError) as caught:
            Connection(camera(path), SourceSettings(), LIMITS)
        assert str(caught.value) == f"camera {path} cannot be opened: {reason}{advice}"


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="nothing here takes rights away")
def test_a_camera_that_only_root_may_read(tmp_path):
    """As root without the right to pass over the rights of files."""
    device = tmp_path / "device"
    device.touch(mode=0)
    code = (
        "import sys\nfrom facenet.images import SourceSettings\n"
        "from facenet.images.addresses import Address\n"
        "from facenet.images.connection import Connection\n"
        "from facenet.images.limits import LIMITS\n"
        "address = Address('camera x', 'camera', sys.argv[1], 'v4l2', {})\n"
        "Connection(address, SourceSettings(), LIMITS)"
    )
    bound = ["--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    ran = subprocess.run(
        ["setpriv", *bound, sys.executable, "-c", code, device], capture_output=True, text=True
    )
    assert "camera x cannot be opened: Permission denied. Check that it is a camera, " in ran.stderr


def test_hardware_that_is_not_there_is_told(tmp_path):
    path = write_clip(tmp_path / "a.mkv", noise(3), codec="ffv1", pixels="bgr0")
    for apart in (True, False):
        settings = SourceSettings(apart=apart, hardware="auto")
        with open_source(path, settings) as source:
            assert len(list(source)) == 3
            assert source.notices == [
                "The video is decoded without hardware: FFmpeg has none for its codec."
            ]
        with pytest.raises(SettingsError, match='The hardware "vdpau" cannot decode here: FFmpeg'):
            open_source(path, SourceSettings(apart=apart, hardware="vdpau"))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtsp://me:pa%40ss@cam:8554/live?token=1#x", "rtsp://cam:8554/live"),
        ("HTTP://me@[::1]:80/a", "http://[::1]:80/a"),
        ("http://h/" + "a" * 400, "http://h/" + "a" * 131 + "..." + "a" * 40),
        ("http://me:secret@[bad/x", "http://..."),
        ("http://me:secret@h:99999999/x", "http://..."),
        ("http://h/\x1b[31m", "http://h/?[31m"),
    ],
)
def test_names_of_addresses_tell_no_secret(url, name):
    assert public_name(url) == name


@pytest.mark.parametrize(
    "url", ["http://", "rtsp://:554/", "http://a b/", "tcp://h:x/", "udp://h\n"]
)
def test_addresses_that_are_none(url):
    with pytest.raises(InputError, match=r"The address "):
        find_address(url)


def test_paths_are_no_addresses_and_only_named_protocols_are_opened():
    for path in ("a.mp4", "./0", "a:b", "dir/http://x", "C:\\a.mp4"):
        assert find_address(path) is None
    for url in ("file:///x", "concat://x", "data://x", "ftp://x", "gopher://x", "hls+http://x"):
        with pytest.raises(InputError, match=r"^An address should begin with one of rtsp://"):
            find_address(url)
    allowed = {
        scheme: find_address(f"{scheme}://host/x").options["protocol_whitelist"].split(",")
        for scheme in ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp", "srt")
    }
    assert all(not {"file", "data", "crypto", "concat"} & set(names) for names in allowed.values())
    assert allowed["rtsp"] == ["rtsp", "tcp"]
    assert "http" not in allowed["https"]


def test_times_go_on_by_our_clock_after_a_break_and_a_jump():
    now = [0.0]
    times = _Times(lambda: now[0])

    def at(clock, time_s):
        now[0] = clock
        return times.placed(Told(0, 0, time_s, 1, 1, 0))

    assert [at(1, 50.0), at(1.1, 50.04), at(1.15, 50.08)] == pytest.approx([0, 0.04, 0.08])
    assert at(2.15, 3.0) == pytest.approx(1.08)  # its clock was set back
    assert at(2.2, 3.04) == pytest.approx(1.12)
    assert at(2.3, 9000.0) == pytest.approx(1.22)  # and far ahead
    times.begin_again()
    assert at(62.3, 0.0) == pytest.approx(61.22)
    assert at(62.3, 0.04) == pytest.approx(61.26)
