"""Sources of frames: a file through the child process is the file, to the last bit and tick."""

from __future__ import annotations

import struct
import threading
from contextlib import ExitStack
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from clips import LOSSLESS, noise, write_clip

from facenet.errors import ImageError, InputError, SettingsError
from facenet.images import ImageLimits, SourceSettings, open_source, read_video
from facenet.images.limits import LIMITS
from facenet.images.reading import newest, paced
from facenet.images.source import FileHere

HERE = SourceSettings(apart=False)


def read(place, settings=HERE, **more):
    """All frames, the sentence at the end or None, and the closed source."""
    frames, problem = [], None
    with open_source(place, settings, **more) as source:
        try:
            frames += source
        except InputError as error:
            problem = str(error)
    return frames, problem, source


def assert_same(frames, others):
    assert [(f.number, f.time_s) for f in frames] == [(f.number, f.time_s) for f in others]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, others, strict=True))


def turned_clip(path):
    """A clip of a variable rate that a telephone held upright: turned by 90 degrees."""
    write_clip(path, noise(6), times=[0, 3003, 6006, 6007, 90000, 90013], base=Fraction(1, 90000))
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("apart", [True, False])
def test_a_file_gives_the_frames_of_read_video_turned_and_timed(apart, tmp_path):
    path = turned_clip(tmp_path / "a.mp4")
    frames, problem, source = read(path, SourceSettings(apart=apart))
    assert problem is None
    assert_same(frames, list(read_video(path)))
    assert [frame.time_s for frame in frames][3:] == [6007 / 90000, 1.0, 90013 / 90000]
    assert frames[0].image.shape == (48, 32, 3)
    assert (source.facts.width, source.facts.height) == (32, 48)
    assert (source.kind, source.live, source.skipped, source.notices) == ("file", False, 0, [])
    assert source.name == str(path)


def test_frames_of_the_child_are_copies_and_odd_sizes_are_whole(tmp_path):
    path = write_clip(tmp_path / "a.mkv", pictures := noise(12, (61, 37)), **LOSSLESS)
    frames, problem, _ = read(path, SourceSettings())
    assert problem is None
    assert all(np.array_equal(f.image, p) for f, p in zip(frames, pictures, strict=True))
    assert all(f.image.flags.c_contiguous and f.image.flags.writeable for f in frames)


MANY = [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4")]
MANY += [("open.mp4", "libx265"), ("a.webm", "libvpx"), ("pieces.mp4", "libx264")]


@pytest.mark.parametrize(("name", "codec"), MANY)
def test_a_start_gives_the_same_numbers_times_and_pixels_as_decoding_it_all(name, codec, tmp_path):
    """With several keyframes, and frames that are shown in another order than they are kept."""
    path = tmp_path / name
    movflags = {"movflags": "frag_keyframe+empty_moov"} if name == "pieces.mp4" else {}
    write_groups(path, codec, movflags)
    whole = list(read_video(path))
    assert len(whole) == 60
    for start in (0.0, 0.39, 0.4, 1.2, 1.61, 2.36):
        frames, problem, _ = read(path, SourceSettings(apart=False, start=start, stop=start + 0.3))
        assert problem is None
        assert_same(frames, [f for f in whole if start <= f.time_s < start + 0.3])


def write_groups(path, codec, options):
    """60 frames, a keyframe every 10 frames."""
    y, x = np.mgrid[:48, :64]
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 10
        if codec == "libx265":
            stream.options = {"x265-params": "keyint=10:open-gop=1:log-level=none"}
        for number in range(60):
            picture = np.stack([x * 4, y * 5, (x + y + 4 * number) % 256], 2).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_what_lies_before_the_keyframe_is_not_decoded(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        write_groups(tmp_path / name, "libx264", {})
        data = bytearray((tmp_path / name).read_bytes())
        with av.open(str(tmp_path / name)) as container:
            places = [p.pos + p.size // 2 for p in container.demux(video=0) if p.size][:40]
        for place in places:
            data[place : place + 8] = bytes(8)
        (tmp_path / name).write_bytes(data)
        frames, problem, _ = read(tmp_path / name, SourceSettings(apart=False, start=1.9))
        assert [frame.number for frame in frames] == list(range(48, 60))
        assert problem is None


@pytest.mark.parametrize("apart", [True, False])
def test_problems_come_after_the_frames_or_at_once(apart, tmp_path):
    settings = SourceSettings(apart=apart)
    path = write_clip(tmp_path / "a.mkv", noise(40, (64, 48)))
    with pytest.raises(InputError, match=r"ends at 1.60 s; start should be before that; got 9"):
        open_source(path, SourceSettings(apart=apart, start=9))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames, problem, _ = read(path, settings)
    assert_same(frames, list(first_frames(path)))
    assert problem.startswith(f"{path} is damaged or cut short: {len(frames)} frames could be read")
    with pytest.raises(ImageError, match="is 64x48 = 3,072 pixels; the limit is 3,071"):
        open_source(path, settings, limits=ImageLimits(max_pixels=3071))
    (tmp_path / "text.mp4").write_text("no video " * 100)
    with pytest.raises(InputError, match=r"text.mp4 should be a video such as MP4, .*MP4\.$"):
        open_source(tmp_path / "text.mp4", settings)


def first_frames(path):
    try:
        yield from read_video(path)
    except InputError:
        return


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("nowhere.mp4", "Cannot read the video 'nowhere.mp4': No such file"),
        (3, "A video should be the path of a file; got int."),
        ("file:///etc/passwd", "An address should begin with one of rtsp://, rtsps://, http://"),
        ("concat:a.mp4|b.mp4", "Cannot read the video 'concat:a.mp4|b.mp4'"),
        ("/dev/zero", "/dev/zero is no file; a video should be a file on the disk."),
    ],
)
def test_places_that_are_none(place, sentence):
    with pytest.raises(InputError) as caught:
        open_source(place)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"start": 2, "stop": 2}, "start and stop should be seconds, 0 <= start < stop; got 2 and"),
        ({"hardware": ""}, 'hardware should be "off", "auto" or the name of a kind of device; go'),
        ({"rate": 0}, "rate should be frames a second, above 0; got 0."),
        ({"size": (0, 4)}, "size should be (width, height) in pixels; got (0, 4)."),
        ({"reconnect": -1}, "reconnect should be a whole number of tries, 0 or more; got -1."),
        ({"timeout_s": 0}, "timeout_s should be seconds, above 0 and at most a day; got 0."),
        ({"threads": 0}, "threads should be a whole number, 1 or more; got 0."),
    ],
)
def test_settings_are_checked(option, sentence):
    with pytest.raises(SettingsError) as caught:
        SourceSettings(**option)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("apart", [True, False])
def test_stop_ends_after_the_current_frame_also_from_another_thread(apart, tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(30))
    with open_source(path, SourceSettings(apart=apart)) as source:
        seen = []
        for frame in source:
            seen.append(frame.number)
            if frame.number == 2:
                other = threading.Thread(target=source.stop)
                other.start()
                other.join()
        assert seen == [0, 1, 2]
    source.close()
    assert list(source) == []


def test_frames_of_another_size_come_with_one_notice(tmp_path):
    sizes = [(64, 48)] * 3 + [(80, 60)] * 3 + [(32, 24)] * 2
    pictures = [cv2.imencode(".jpg", np.zeros((h, w, 3), np.uint8))[1].tobytes() for w, h in sizes]
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(pictures))
    frames, problem, source = read(path, SourceSettings())
    assert [frame.image.shape[1::-1] for frame in frames] == sizes
    assert problem is None
    assert source.notices == [
        f"The frames of {path} changed from 64x48 to 80x60 pixels at 0.12 s.",
        f"The frames of {path} changed from 80x60 to 32x24 pixels at 0.24 s.",
    ]


class Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(round(seconds, 6))
        self.now += seconds


def test_a_live_file_gives_each_frame_when_it_is_due_and_skips_those_that_are_late(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(20))
    clock = Clock()
    with ExitStack() as closing:
        settings = SourceSettings(apart=False, live=True)
        file = FileHere(path, settings, LIMITS, closing, clock=clock, sleep=clock.sleep)
        seen = []
        for frame in file.frames():
            seen.append(frame.number)
            assert frame.time_s <= clock.now - 100 + 1e-6 < frame.time_s + 0.04
            clock.now += 0.095 if frame.number < 10 else 0.011  # slow, then fast work
    assert seen == [0, 2, 4, 7, 9, *range(11, 20)]
    assert file.skipped == 20 - len(seen)
    assert clock.slept == [0.023] + [0.029] * 6


def test_a_live_file_apart_counts_what_it_skips(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(20))
    frames, _, source = read(path, SourceSettings(live=True))
    assert source.live
    numbers = [frame.number for frame in frames]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + source.skipped == numbers[-1] + 1 == 20


def test_what_is_always_late_gives_a_frame_now_and_then():
    clock, skipped = Clock(), []

    def slow():
        for number in range(100):
            clock.now += 0.1  # 2.5 times slower than real time
            yield number, number / 25, None

    given = [frame[0] for frame in paced(slow(), clock, clock.sleep, lambda: skipped.append(1))]
    assert 10 < len(given) < 25
    assert len(given) + len(skipped) == 100


def test_of_frames_that_come_unasked_the_newest_is_given_and_problems_are_passed_on():
    gate, skipped = threading.Semaphore(0), []
    passed = threading.Event()

    def frames():
        for number in range(10):
            if number == 6:
                passed.set()
                gate.acquire()
            yield number, float(number), None
        raise InputError("It broke.")

    given = newest(frames(), lambda: skipped.append(1))
    first = next(given)[0]
    passed.wait()
    assert first == 5 or next(given)[0] == 5
    gate.release()
    last = []
    with pytest.raises(InputError, match="It broke"):
        last += [frame[0] for frame in given]
    assert len(skipped) >= 4 - first
