"""Live streams that change the size of their frames in the middle, or come back with another."""

from __future__ import annotations

from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest
from clips import noise, write_clip
from servers import h264, http_server, live, pushed, rtsp_camera

from facenet.errors import ImageError, InputError
from facenet.images import ImageLimits, SourceSettings, open_source

SIZES = ((64, 48), (96, 64), (48, 64))
EACH = 20
ALL = SourceSettings(live=False, reconnect=0, timeout_s=2.0)


def smooth(count, size):
    """Pictures that encode well, brighter from one to the next."""
    y, x = np.mgrid[: size[1], : size[0]]
    slope = np.stack([x, y, x + y], axis=2)
    return [(slope + 4 * number).astype(np.uint8) for number in range(count)]


def transport(folder):
    """MPEG-TS, each size with its own parameter sets and a clock that goes on."""
    data = b""
    for place, size in enumerate(SIZES):
        times = [place * EACH + number for number in range(EACH)]
        clip = folder / f"{place}.ts"
        write_clip(clip, smooth(EACH, size), times=times, base=Fraction(1, 25))
        data += clip.read_bytes()
    (folder / "all.ts").write_bytes(data)
    return live(folder / "all.ts")


def bare(folder):
    """H.264 as it is, a new parameter set before each size."""
    frames = [frame for size in SIZES for frame in h264(smooth(EACH, size))]
    data = b"".join(b"\0\0\0\1" + unit for frame in frames for unit in frame)
    (folder / "a.h264").write_bytes(data)
    return live(folder / "a.h264")


def jpegs(folder):
    return pushed(lambda visit, over: (p for size in SIZES for p in smooth(EACH, size)))


@contextmanager
def served(kind, folder):
    """The address of a stream of `EACH` frames of each size."""
    if kind == "rtsp":
        with rtsp_camera([unit for size in SIZES for unit in h264(smooth(EACH, size))]) as host:
            yield f"rtsp://{host}/live"
        return
    with http_server({"/a": {"ts": transport, "h264": bare, "jpeg": jpegs}[kind](folder)}) as found:
        yield f"http://{found[0]}/a"


def frames_of(source):
    """The frames until the stream is lost, and the sentence of that."""
    frames = []
    with source, pytest.raises(InputError) as caught:
        frames += source
    return frames, str(caught.value)


@pytest.mark.parametrize("kind", ["ts", "h264", "jpeg", "rtsp"])
def test_a_live_stream_that_changes_size_gives_all_of_its_frames(kind, tmp_path):
    with served(kind, tmp_path) as url:
        source = open_source(url, ALL)
        assert source.facts.frames is None  # nobody says where it ends
        frames, _ = frames_of(source)
    held = 2 if kind == "rtsp" else 0  # the decoder waits for more while the camera is silent
    counts = [sum(f.image.shape[1::-1] == size for f in frames) for size in SIZES]
    assert counts == [EACH, EACH, EACH - held]
    assert [frame.number for frame in frames] == list(range(3 * EACH - held))
    times = [frame.time_s for frame in frames]
    assert np.diff(times).min() > 0
    assert times[-1] == pytest.approx((3 * EACH - held - 1) / 25, abs=0.1)
    for frame, number in ((frames[0], 0), (frames[EACH], 0), (frames[2 * EACH + 5], 5)):
        true = smooth(number + 1, frame.image.shape[1::-1])[number].astype(int)
        assert np.abs(frame.image - true)[2:-2, 2:-2, 1].mean() < 12
    changes = [(SIZES[n], SIZES[n + 1], frames[(n + 1) * EACH].time_s) for n in range(2)]
    assert source.notices == [
        f"The frames of {source.name} changed from {a[0]}x{a[1]} to {b[0]}x{b[1]} pixels at "
        f"{time:.2f} s."
        for a, b, time in changes
    ]


def test_a_stream_that_stalls_and_comes_back_with_another_size_goes_on():
    """On the first visit small pictures and then silence; on the second large ones."""

    def pieces(visit, over):
        if visit < 2:
            yield from noise(40, SIZES[visit], seed=visit)
        if visit == 0:
            over.wait()

    answers = {"/a": pushed(pieces)}
    with http_server(answers) as (host, asked):
        settings = SourceSettings(live=False, reconnect=1, timeout_s=1.2)
        frames, problem = frames_of(source := open_source(f"http://{host}/a", settings))
        assert len(asked) == 3
    sizes = [frame.image.shape[1::-1] for frame in frames]
    small, large = sizes.count(SIZES[0]), sizes.count(SIZES[1])
    assert sizes == [SIZES[0]] * small + [SIZES[1]] * large
    assert (small > 30, large) == (True, 40)
    assert [frame.number for frame in frames] == list(range(len(frames)))
    times = [frame.time_s for frame in frames]
    assert np.diff(times).min() > 0
    assert times[small] - times[small - 1] > 2.2  # the silence, and a second before the next try
    lost, changed = source.notices[:2]
    assert (
        f"was lost at {times[small - 1]:.2f} s because it gave no frame for 1.2 s; it was" in lost
    )
    assert changed.endswith(f"changed from 64x48 to 96x64 pixels at {times[small]:.2f} s.")
    assert "was lost after " in problem


def test_a_size_above_the_limits_in_the_middle_ends_the_stream_with_a_sentence():
    def pieces(visit, over):
        yield from noise(5, SIZES[0])
        yield from noise(5, SIZES[1])

    with http_server({"/a": pushed(pieces)}) as (host, _):
        limits = ImageLimits(max_pixels=64 * 48)
        with open_source(f"http://{host}/a", ALL, limits=limits) as source:
            frames = []
            with pytest.raises(ImageError, match=r"is 96x64 = 6,144 pixels; the limit is 3,072\."):
                frames += source
        assert len(frames) == 5
