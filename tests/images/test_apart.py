"""The child that decodes: whatever becomes of it, the parent lives and nothing is left behind."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from clips import noise, write_clip
from processes import children, state

from facenet.errors import ImageError, InputError
from facenet.images import ImageLimits, SourceSettings, open_source, read_video
from facenet.images.apart import PLACES, Child, _listen, _message


@pytest.fixture(autouse=True)
def nothing_left():
    """No child, no zombie, no open file, no thread and no shared memory beyond the test."""

    def left():
        shared = {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}
        return children(), len(os.listdir("/proc/self/fd")), shared  # semaphores are others'

    before, threads = left(), threading.active_count()
    yield
    gc.collect()
    assert left() == before
    assert threading.active_count() == threads


def child_of(source):
    return source._reading._child


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "was ended from outside (SIGKILL), perhaps for want of memory"),
        (signal.SIGSEGV, "crashed (SIGSEGV)"),
    ],
)
def test_a_child_that_dies_is_a_sentence_after_the_frames_that_came(number, words, tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(60))
    seen = []
    with open_source(path) as source, pytest.raises(InputError) as caught:
        for frame in source:
            seen.append(frame)
            if frame.number == 3:
                os.kill(child_of(source).pid, number)
    assert 4 <= len(seen) <= 4 + PLACES
    for frame, true in zip(seen, read_video(path), strict=False):
        assert np.array_equal(frame.image, true.image)
    assert str(caught.value) == (
        f"{path} could not be read to its end: the process that decodes it {words}, after "
        f"{len(seen)} frames, at {seen[-1].time_s:.2f} s. The video may be damaged or made to do "
        "harm; copy it again."
    )


def test_few_frames_are_decoded_ahead_and_an_unused_source_ends_with_its_last_reference(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(60))
    source = open_source(path)
    frames = iter(source)
    next(frames)
    child = child_of(source)
    waiting = child._messages
    for _ in range(200):
        if waiting.qsize() == PLACES:
            break
        time.sleep(0.01)
    time.sleep(0.1)
    assert waiting.qsize() == PLACES
    pid = child.pid
    del source, frames, child, waiting
    gc.collect()
    assert pid not in children()


def test_the_child_ends_when_its_parent_does_and_ctrl_c_does_not_reach_it(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(60))
    code = (
        "import sys, time\nfrom facenet.images import open_source\n"
        "source = open_source(sys.argv[1]); next(iter(source))\n"
        "print(source._reading._child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        pid = int(parent.stdout.readline())
        os.kill(pid, signal.SIGINT)
        assert os.getpgid(pid) != os.getpgid(parent.pid)
        assert state(pid) not in ("Z", None)
        parent.kill()
    for _ in range(500):
        if state(pid) in ("Z", None):
            break
        time.sleep(0.02)
    assert state(pid) in ("Z", None)


def test_the_child_may_write_no_file_and_has_bounded_memory(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(5))
    with open_source(path, limits=ImageLimits(max_pixels=100_000)) as source:
        limits = Path(f"/proc/{child_of(source).pid}/limits").read_text()
        open_files = Path(f"/proc/{child_of(source).pid}/fd")
        files = [os.readlink(place) for place in open_files.iterdir()]
    bounds = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert bounds["Max file size"] == bounds["Max core file size"] == "0"
    assert 4 << 30 < int(bounds["Max address space"]) < 5 << 30
    assert str(path) in files
    assert not any(name.startswith("socket:") for name in files)


def test_forty_damaged_clips_kill_no_parent(tmp_path):
    """Bytes changed, cut out and cut off; frames come, and one sentence at most."""
    generator = np.random.default_rng(8)
    good = [
        write_clip(tmp_path / name, noise(6, (64, 48)), codec=codec).read_bytes()
        for name, codec in [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")]
    ]
    clips = []
    for turn in range(40):
        data = bytearray(good[turn % len(good)])
        for place in generator.integers(0, len(data), 1 + generator.integers(30)):
            data[place] = generator.integers(256)
        if turn % 5 == 0:
            del data[generator.integers(len(data)) :]
        clips.append(tmp_path / f"{turn}.mp4")
        clips[-1].write_bytes(data)

    def read(clip):
        frames = []
        try:
            with open_source(clip, limits=ImageLimits(max_pixels=100_000)) as source:
                frames += source
        except InputError as error:
            assert str(error).endswith(".")
            assert len(str(error)) < 600
            return len(frames), True
        return len(frames), False

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(read, clips))
    assert sum(told for _, told in answers) > 10
    assert sum(frames for frames, _ in answers) > 60


LISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{address}'\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation id='1' bandwidth='1'><BaseURL>{address}</BaseURL>"
    "</Representation></AdaptationSet></Period></MPD>",
    "list.avs": 'DirectShowSource("{address}")',
    "list.txt": "{address}\n",
}


def test_a_file_that_names_others_opens_none_of_them(tmp_path):
    """Playlists, and an MP4 whose samples lie in another file: nobody is asked for anything."""
    secret = write_clip(tmp_path / "secret.mp4", noise(5))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        port = server.getsockname()[1]
        for name, text in LISTS.items():
            for address in (f"http://127.0.0.1:{port}/a.ts", str(secret)):
                (tmp_path / name).write_text(text.format(address=address, port=port))
                with pytest.raises(InputError, match="should be a video"):
                    open_source(tmp_path / name, SourceSettings(apart=name == "list.m3u8"))
        outside = tmp_path / "outside.mp4"
        outside.write_bytes(with_reference(secret))
        with pytest.raises(InputError):
            list(open_source(outside))
        with pytest.raises(TimeoutError):
            server.accept()


def with_reference(clip):
    """An MP4 whose samples are said to be in a file beside it, through an alias."""
    data = clip.read_bytes()
    moov = data.index(b"moov") - 4
    place = data.index(b"dref") - 4
    name = b"secret.mp4"
    alias = bytearray(150)
    alias[50 : 51 + len(name)] = bytes([len(name)]) + name
    path = str(clip).encode()
    alias += (2).to_bytes(2, "big") + len(path).to_bytes(2, "big") + path
    alias += bytes(len(path) % 2) + b"\xff\xff\x00\x00"
    entry = (12 + len(alias)).to_bytes(4, "big") + b"alis" + bytes(4) + bytes(alias)
    box = (16 + len(entry)).to_bytes(4, "big") + b"dref" + bytes(4) + b"\0\0\0\1" + entry
    old = int.from_bytes(data[place : place + 4], "big")
    out = bytearray(data[:place] + box + data[place + old :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = out.index(name) - 4
        size = int.from_bytes(out[at : at + 4], "big") + len(box) - old
        out[at : at + 4] = size.to_bytes(4, "big")
    return bytes(out[moov:])  # without the samples


def test_a_limit_on_the_size_of_files_is_told_before_anything_starts(tmp_path):
    """Shared memory counts as a file there; and none is left open."""
    path = write_clip(tmp_path / "a.mp4", noise(5))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(InputError) as caught:
            open_source(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == (
        "The 1,440,006,144 bytes for frames cannot be shared with the process that decodes: File "
        "too large. Raise the limits of this process (ulimit -f, ulimit -v), or pass ImageLimits "
        "with fewer max_pixels."
    )


HOSTILE = [
    b"no json\n",
    b"[1, 2]\n",
    b"[" * 5000 + b"\n",
    b'{"frame": [9, 0, 0.0, 1, 1]}\n',
    b'{"frame": [0, -1, 0.0, 1, 1, 0]}\n',
    b'{"frame": [0, 0, NaN, 1, 1, 0]}\n',
    b'{"frame": [0, 0, 1e999, 1, 1, 0]}\n',
    b'{"frame": [0, 0, "1", 1, 1, 0]}\n',
    b'{"facts": {"width": 1}}\n',
    b'{"problem": ["SystemExit", "x"]}\n',
    b'{"exec": "x"}\n',
    b'{"end": "", "frame": 1}\n',
]


@pytest.mark.parametrize("line", HOSTILE)
def test_what_no_honest_child_says_ends_it(line):
    assert _message(line) is None
    talk = f"import sys, time; sys.stdout.buffer.write({line!r}); sys.stdout.flush(); "
    with subprocess.Popen(
        [sys.executable, "-S", "-c", talk + "time.sleep(60)"], stdout=subprocess.PIPE
    ) as process:
        messages = SimpleQueue()
        _listen(process, messages)
    assert [messages.get().kind for _ in range(messages.qsize())] == ["gone"]


def test_frames_outside_the_memory_are_refused_and_errors_keep_their_kind(tmp_path):
    limits = ImageLimits(max_pixels=5000)
    child = Child({"name": "x", "address": None, "hardware": "off"}, limits)
    try:
        for told in ([PLACES, 0, 0.0, 1, 1, 0], [0, 0, 0.0, 9999, 1, 0], [0, 0, 0.0, 0, 5, 0]):
            message = _message(json.dumps({"frame": told}).encode())
            with pytest.raises(InputError, match="sent a frame that does not fit"):
                child.pixels(message.value)
    finally:
        child.close()
    problem = _message(b'{"problem": ["ImageError", "Too large."]}').value
    assert type(problem) is ImageError
    assert str(problem) == "Too large."
