"""Where a video begins: times count from the first frame, whatever the header or the sound says."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import noise, write_clip
from soundclips import onsets, samples_of, still, tone, write_talkie

from facenet.images import SourceSettings, open_source, read_video
from facenet.images.filming import film

STARTS = (0.0, 0.39, 1.0, 1.61, 2.3)
CODECS = {".webm": "libvpx-vp9", ".avi": "mpeg4"}
SOUNDS = {".webm": "libopus", ".avi": "libmp3lame"}


def truth(path):
    """Number and time of each frame by PyAV itself, the first one at 0."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    first = frames[0].pts * frames[0].time_base
    return [(number, float(f.pts * f.time_base - first)) for number, f in enumerate(frames)]


def require_starts(path):
    """Every way of reading gives the frames from a start on, and those only."""
    whole = truth(path)
    assert [time for _, time in whole] == pytest.approx([n / 25 for n in range(60)], abs=0.0011)
    for start in STARTS:
        true = [(number, pytest.approx(time)) for number, time in whole if time >= start]
        settings = SourceSettings(apart=False, start=start)
        with open_source(path, settings) as source:
            assert [(frame.number, frame.time_s) for frame in source] == true
        assert [(frame.number, frame.time_s) for frame in read_video(path, start=start)] == true


CLOCKS = [(first, name) for first in (0, 10) for name in (".mp4", ".mov", ".mkv", ".webm", ".ts")]
CLOCKS += [(-1, ".mkv"), (-1, ".webm"), (-1, ".ts"), (0, ".avi")]
"""Seconds, and where they can be: MP4 shows nothing before 0, and AVI fills what lies after it."""


@pytest.mark.parametrize(("first", "suffix"), CLOCKS)
def test_a_start_counts_from_the_first_frame_wherever_the_clock_begins(first, suffix, tmp_path):
    base = Fraction(1, 25) if suffix == ".avi" else Fraction(1, 1000)
    step = int(Fraction(1, 25) / base)
    times = [int(first / base) + step * number for number in range(60)]
    path = tmp_path / f"a{suffix}"
    codec = CODECS.get(suffix, "libx264")
    write_clip(path, noise(60, (32, 32)), codec=codec, times=times, base=base)
    require_starts(path)


def test_h264_in_avi_whose_header_is_silent_begins_at_0(tmp_path):
    """Its frames are shown later than they are kept; FFmpeg says that they begin at 0."""
    times = [40 * number for number in range(60)]
    path = write_clip(tmp_path / "a.avi", noise(60, (32, 32)), times=times)
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time < next(container.decode(video=0)).pts
    assert next(iter(read_video(path))).time_s == 0.0


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".ts"])
@pytest.mark.parametrize("early", [0.5, 8])
def test_sound_before_the_first_picture_moves_no_time(early, suffix, tmp_path):
    """early: seconds of sound. FFmpeg looks at five and takes its beginning for the pictures'."""
    times = [round((early + number / 25) * 90_000) for number in range(60)]
    path = write_talkie(
        tmp_path / f"a{suffix}",
        still(60, (32, 32)),
        tone(early + 2.4),
        times=times,
        codec=SOUNDS.get(suffix, "aac"),
        video=CODECS.get(suffix, "libx264"),
    )
    if suffix in (".mkv", ".webm") and early > 5:
        with av.open(str(path)) as container:
            pictures = container.streams.video[0]
            assert pictures.start_time * pictures.time_base < early - 1  # told wrongly
    require_starts(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("codec", "dropped"), [("libx264", 3), ("libx264", 13), ("libx265", 10)])
def test_a_recording_that_begins_in_the_middle_keeps_its_numbers(codec, dropped, suffix, tmp_path):
    """Cut off before a keyframe, and before frames that are shown before one (H.265)."""
    options = {"x265-params": "keyint=10:open-gop=1:log-level=none"} if codec == "libx265" else {}
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 10
        for picture in still(60, (64, 48)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(whole)) as before, av.open(str(cut), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in [packet for packet in before.demux(video=0) if packet.size][dropped:]:
            packet.stream = stream
            after.mux(packet)
    frames = [(frame.number, frame.time_s) for frame in read_video(cut)]
    assert 25 < len(frames) < 60
    assert frames[0] == (0, 0.0)
    for start in (0.3, 0.7, 1.0):
        with open_source(cut, SourceSettings(apart=False, start=start)) as source:
            found = [(frame.number, frame.time_s) for frame in source]
        assert found == [frame for frame in frames if frame[1] >= start]


def test_the_first_frames_of_a_clock_without_times_go_before_the_others(tmp_path):
    """Matroska cannot hold times so far before 0: the first frame has none."""
    path = write_clip(
        tmp_path / "a.mkv",
        noise(60, (32, 32)),
        times=[40 * number - 500 for number in range(60)],
        avoid_negative_ts="disabled",
    )
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).pts is None
    times = [frame.time_s for frame in read_video(path)]
    assert times[0] == 0.0
    assert np.diff(times).min() > 0
    for start in STARTS:
        with open_source(path, SourceSettings(apart=False, start=start)) as source:
            assert [frame.time_s for frame in source] == [t for t in times if t >= start]


@pytest.mark.parametrize("target", ["o.mp4", "o.webm"])
def test_a_film_with_sound_that_began_long_before_the_pictures_is_in_step(target, tmp_path):
    early, beeps = 8, (8.4, 9.0)
    times = [round((early + number / 25) * 90_000) for number in range(50)]
    sound = tone(early + 2, beeps=beeps)
    source = write_talkie(tmp_path / "a.mkv", still(50, (16, 16)), sound, times=times)
    with film(tmp_path / target, audio=source) as out:
        for frame in read_video(source):
            out.add(frame.image, frame.time_s)
    assert onsets(samples_of(tmp_path / target)) == pytest.approx([0.4, 1.0], abs=0.002)
