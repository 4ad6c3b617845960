"""Videos: every frame as it was written, its exact time, and what there is of a damaged one."""

from __future__ import annotations

import gc
import os
import struct
import sys
import weakref
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from clips import LOSSLESS, noise, write_clip, write_sound
from soundclips import tone, write_talkie

from facenet.errors import ImageError, InputError, MissingExtraError, SettingsError
from facenet.images import ImageLimits, is_video_name, read_video, video_facts
from facenet.images.upright import SMALL


def read(path, **options):
    """All frames, and the sentence at the end of a damaged video or None."""
    frames = []
    try:
        for frame in read_video(path, **options):
            frames.append(frame)
    except InputError as error:
        return frames, str(error)
    return frames, None


def refusal(path, **options):
    frames, sentence = read(path, **options)
    assert frames == []
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("size", [(641, 359), (48, 32), (1, 1), (16, 3)])
def test_frames_are_what_was_written(size, tmp_path):
    pictures = noise(3, size)
    frames, problem = read(write_clip(tmp_path / "a.mkv", pictures, **LOSSLESS))
    assert problem is None
    assert [(frame.number, frame.time_s) for frame in frames] == [(0, 0.0), (1, 0.04), (2, 0.08)]
    for frame, picture in zip(frames, pictures, strict=True):
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert np.array_equal(frame.image, picture)


def test_colours_of_ordinary_video_are_those_opencv_reads(tmp_path):
    ramp = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
    path = write_clip(tmp_path / "a.mp4", [ramp, ramp[::-1], ramp[:, ::-1]])
    capture = cv2.VideoCapture(str(path))
    for frame in read_video(path):
        assert np.array_equal(frame.image, capture.read()[1][:, :, ::-1])
    assert not capture.read()[0]


@pytest.mark.parametrize("size", [(641, 359), (99, 51)])
def test_odd_sizes_with_shared_colours_keep_their_last_row_and_column(size, tmp_path):
    """JPEG frames of an odd size: half a colour sample is left over at the border."""
    y, x = np.mgrid[: size[1], : size[0]]
    picture = np.stack([x / 4, y / 4, (x + y) / 8], axis=2).astype(np.uint8)
    (frame,), _ = read(write_clip(tmp_path / "a.avi", [picture], codec="mjpeg", pixels="yuvj420p"))
    assert frame.image.shape == picture.shape
    away = np.abs(frame.image.astype(int) - picture)
    assert max(away.mean(), away[-1].mean(), away[:, -1].mean()) < 4


@pytest.mark.parametrize(
    ("name", "base", "times"),
    [
        ("a.mkv", Fraction(1, 1000), [0, 40, 45, 200, 1000, 3001]),
        ("a.mp4", Fraction(1, 90000), [0, 3003, 6006, 6007, 90000, 90013]),
        ("a.mp4", Fraction(1, 30000), [0, 1001, 2002, 3003, 9009, 10010]),
    ],
)
def test_times_are_exact_at_a_variable_frame_rate(name, base, times, tmp_path):
    path = write_clip(tmp_path / name, noise(6), times=times, base=base)
    frames, problem = read(path)
    assert problem is None
    assert [frame.time_s for frame in frames] == [float(time * base) for time in times]


@pytest.mark.parametrize("name", ["late.mkv", "late.ts", "late.mp4"])
def test_the_first_frame_is_at_zero_whenever_its_clock_began(name, tmp_path):
    path = write_clip(tmp_path / name, noise(4), times=[5000, 5040, 5120, 5160])
    times = [frame.time_s for frame in read_video(path)]
    assert times == pytest.approx([0, 0.04, 0.12, 0.16], abs=1e-9)


@pytest.mark.parametrize("name", ["a.h264", "a.mjpeg"])
def test_a_stream_without_a_clock_counts_by_its_rate(name, tmp_path):
    codec = {"codec": "mjpeg", "pixels": "yuvj420p"} if name == "a.mjpeg" else {}
    path = write_clip(tmp_path / name, noise(5), base=Fraction(1, 25), **codec)
    assert [frame.time_s for frame in read_video(path)] == [0, 0.04, 0.08, 0.12, 0.16]


TURNS = [(1, 0, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1)]
TURNS += [(0, 1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0), (0, -1, 1, 0)]


@pytest.mark.parametrize("matrix", TURNS)
def test_what_a_telephone_notes_about_its_rotation_is_applied(matrix, tmp_path):
    """The matrix in the header of the track sends each pixel where the ISO standard says."""
    plain = write_clip(tmp_path / "plain.mp4", noise(2, (48, 32)))
    data = bytearray(plain.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # version, times, id, duration, layer, volume
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data)
    for before, after in zip(read_video(plain), read_video(turned), strict=True):
        assert np.array_equal(after.image, moved(before.image, matrix))
    facts = video_facts(turned)
    assert (facts.width, facts.height) == (48, 32)


def moved(image, matrix):
    """Each pixel by itself: (x, y) goes to (a x + c y, b x + d y), shifted to begin at 0."""
    a, b, c, d = matrix
    height, width = image.shape[:2]
    places = {(a * x + c * y, b * x + d * y): (x, y) for x in range(width) for y in range(height)}
    left, top = (min(place[axis] for place in places) for axis in (0, 1))
    wide, tall = (max(p[axis] for p in places) - first + 1 for axis, first in ((0, left), (1, top)))
    out = np.zeros((tall, wide, 3), np.uint8)
    for (to_x, to_y), (x, y) in places.items():
        out[to_y - top, to_x - left] = image[y, x]
    return out


def test_stride_start_and_stop_choose_frames(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(20))
    chosen = [frame.number for frame in read_video(path, stride=4)]
    assert chosen == [0, 4, 8, 12, 16]
    assert [f.number for f in read_video(path, start=0.2, stop=0.4)] == [5, 6, 7, 8, 9]
    assert [f.number for f in read_video(path, start=0.21, stride=3)] == [6, 9, 12, 15, 18]
    assert [f.number for f in read_video(path, stop=0.01)] == [0]
    assert refusal(path, start=9).endswith("ends at 0.80 s; start should be before that; got 9.")
    all_, some = list(read_video(path)), list(read_video(path, start=0.4, stride=5))
    assert [np.array_equal(f.image, all_[f.number].image) for f in some] == [True, True]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"stride": 0}, "stride should be a whole number of frames, 1 or more; got 0."),
        ({"stride": 2.5}, "stride should be a whole number of frames, 1 or more; got 2.5."),
        ({"start": -1}, "start and stop should be seconds, 0 <= start < stop; got -1 and None."),
        ({"start": float("nan")}, "start and stop should be seconds, 0 <= start < stop; got nan"),
        ({"start": 2, "stop": 2}, "start and stop should be seconds, 0 <= start < stop; got 2 an"),
        ({"threads": 0}, "threads should be a whole number, 1 or more; got 0."),
    ],
)
def test_options_are_refused_before_the_file_is_opened(option, sentence):
    with pytest.raises(SettingsError) as caught:
        read_video("nowhere.mp4", **option)
    assert str(caught.value).startswith(sentence)


CUT = ["a.mkv", "a.avi", "a.ts", "a.webm", "a.flv", "a.h264", "fast.mp4", "pieces.mp4"]
CODECS = {"a.webm": "libvpx", "a.avi": "mpeg4", "a.flv": "flv"}
HEADS = {"fast.mp4": "faststart", "pieces.mp4": "frag_keyframe+empty_moov"}


@pytest.mark.parametrize("name", CUT)
def test_of_a_video_cut_short_come_the_frames_that_there_are_and_then_a_sentence(name, tmp_path):
    options = {"movflags": HEADS[name]} if name in HEADS else {}
    coarse = name in ("a.h264", "a.avi")  # that have a place for every tick
    codec, base = CODECS.get(name, "libx264"), Fraction(1, 25 if coarse else 1000)
    path = write_clip(tmp_path / name, noise(60, (64, 48)), codec=codec, base=base, **options)
    whole, problem = read(path)
    assert (len(whole), problem) == (60, None)

    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    left, problem = read(path)
    assert 10 < len(left) < 50
    assert problem.startswith(f"{path} is damaged or cut short: {len(left)} frames could be read, ")
    assert problem.endswith(" s. Copy or download it again.")
    for frame in left[:-2]:  # the decoder may guess at what is left of the last one
        assert np.array_equal(frame.image, whole[frame.number].image)
        assert frame.time_s == pytest.approx(whole[frame.number].time_s, abs=1e-9)
    assert [f.number for f in read_video(path, stop=0.1)] == [0, 1, 2]


def test_pixels_of_a_palette_can_be_read(tmp_path):
    """FFmpeg reads them and writes none."""
    path, numbers = tmp_path / "palette.mov", np.arange(64, dtype=np.uint8).reshape(8, 8)
    colours = np.arange(1024, dtype=np.uint8).reshape(256, 4)  # alpha, red, green, blue
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "pal8"
        for number in range(2):
            frame = av.VideoFrame.from_ndarray((numbers, colours), format="pal8")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found, problem = read(path)
    assert (len(found), problem) == (2, None)
    assert np.array_equal(found[1].image, colours[numbers][..., 1:])


@pytest.mark.parametrize("name", ["a.ts", "a.h264"])
def test_a_damaged_end_is_noticed_every_time(name, tmp_path):
    """Also when its last frame is decoded beside the one before: one run in twelve was not."""
    path = write_clip(tmp_path / name, noise(60, (64, 48)), base=Fraction(1, 25))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    told = [read(path)[1] for _ in range(40)]
    assert len(set(told)) == 1 and "is damaged or cut short: " in told[0]


def test_a_video_without_its_index_says_so(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(20))
    path.write_bytes(path.read_bytes()[:-400])
    assert refusal(path).startswith(f"{path} should be a video such as MP4, ")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_damaged_bytes_end_in_frames_and_one_sentence_at_most(name, tmp_path):
    good = write_clip(tmp_path / name, noise(8), codec=CODECS.get(name, "libx264")).read_bytes()
    generator = np.random.default_rng(1)
    broken = tmp_path / f"broken-{name}"
    told = 0
    for _ in range(60):
        data = bytearray(good)
        for place in generator.integers(0, len(data), 1 + generator.integers(20)):
            data[place] = generator.integers(256)
        broken.write_bytes(data)
        frames, problem = read(broken, limits=ImageLimits(max_pixels=100_000))
        assert all(frame.image.size <= 300_000 for frame in frames)
        told += problem is not None
        assert problem is None or (problem.endswith(".") and len(problem) < 500)
    assert told > 0


def test_what_is_no_video_is_refused_with_a_sentence(tmp_path):
    text, empty, picture = tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "picture.mp4"
    text.write_text("no video, whatever its name says. " * 40)
    empty.touch()
    cv2.imwrite(str(tmp_path / "p.jpg"), np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "p.jpg").rename(picture)
    for path in (text, picture):
        assert refusal(path).startswith(f"{path} should be a video such as MP4, MOV, MKV, ")
    assert refusal(empty) == f"{empty} is empty (0 bytes): expected a video. Copy it again."
    assert refusal(tmp_path) == f"{tmp_path} is no file; a video should be a file on the disk."
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    assert "is no file" in refusal(tmp_path / "pipe.mp4")
    assert refusal(tmp_path / "none.mp4").startswith("Cannot read the video ")
    assert refusal("a\0b").startswith("Cannot read the video ")
    assert refusal(7) == "A video should be the path of a file; got int."
    sound, song = tmp_path / "sound.mp4", tmp_path / "song.mp4"
    for path in (write_sound(sound), write_sound(song, cover=noise(1, (64, 64))[0])):
        assert refusal(path).startswith(f"{path} has no video that can be decoded, only sound")


@pytest.mark.parametrize(
    "address", ["http://example.org/a.mp4", "rtsp://camera/1", "file:///etc/passwd", "pipe://0"]
)
def test_an_address_is_refused(address):
    assert refusal(address).startswith(f"{address} is an address; facenet fetches nothing")


def test_nothing_but_the_file_itself_is_opened(tmp_path, monkeypatch):
    """Playlists name further files, and a name may look like a protocol of FFmpeg's."""
    clip = write_clip(tmp_path / "a.mp4", noise(3))
    stream = write_clip(tmp_path / "a.ts", noise(3))
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n"
    lists = {
        "list.ffconcat": f"ffconcat version 1.0\nfile {clip}\n",
        "list.m3u8": f"{head}file://{stream}\n#EXT-X-ENDLIST\n",
        "list.mp4": f"{head}{stream}\n#EXT-X-ENDLIST\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        assert refusal(tmp_path / name).startswith(f"{tmp_path / name} should be a video such as ")
    monkeypatch.chdir(tmp_path)
    clip.rename("concat:a.ts")
    assert len(list(read_video("concat:a.ts"))) == 3
    assert refusal("concat:a.ts|b.ts").startswith("Cannot read the video ")


def test_a_video_whose_frames_change_size_gives_each_as_it_is(tmp_path):
    sizes = [(160, 90)] * 3 + [(141, 101)] * 3 + [(160, 90)]
    pictures = [np.full((h, w, 3), 30 * i, np.uint8) for i, (w, h) in enumerate(sizes)]
    path = tmp_path / "a.mjpeg"
    encoded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    path.write_bytes(b"".join(encoded))
    frames, problem = read(path)
    assert problem is None
    assert [frame.image.shape[1::-1] for frame in frames] == sizes
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame.image.astype(int) - picture).max() <= 2


@pytest.mark.parametrize(
    ("size", "sentence"),
    [((160, 90), "is 160x90 = 14,400 pixels"), ((1600, 900), "3 frames could be read")],
)
def test_frames_that_grow_beyond_the_limit_end_the_video(size, sentence, tmp_path):
    """A little above it they are refused here, far above it by the decoder."""
    sizes = [(141, 101)] * 3 + [size]
    path = tmp_path / "a.mjpeg"
    pictures = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
    path.write_bytes(b"".join(cv2.imencode(".jpg", p)[1].tobytes() for p in pictures))
    frames, problem = read(path, limits=ImageLimits(max_pixels=141 * 101))
    assert [frame.image.shape for frame in frames] == [(101, 141, 3)] * 3
    assert sentence in problem


def test_frames_beyond_the_limit_are_refused_before_they_are_decoded(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(3, (320, 180)))
    with pytest.raises(ImageError, match="is 320x180 = 57,600 pixels; the limit is 57,599"):
        next(read_video(path, limits=ImageLimits(max_pixels=57_599)))
    assert len(read(path, limits=ImageLimits(max_pixels=57_600))[0]) == 3


def test_a_stream_without_a_frame_says_so(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(5), movflags="faststart")
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    assert "has a video stream without a frame that can be decoded" in refusal(path)


def test_frames_come_one_by_one_and_the_file_is_closed(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(40))
    alive = []
    for frame in read_video(path):
        alive.append(weakref.ref(frame.image))
        assert sum(image() is not None for image in alive) <= 2
    assert len(alive) == 40
    before = os.listdir("/proc/self/fd")
    frames = read_video(path)
    next(frames)
    assert len(os.listdir("/proc/self/fd")) > len(before)
    frames.close()
    assert os.listdir("/proc/self/fd") == before


def test_more_threads_decode_the_same(tmp_path):
    path = write_clip(tmp_path / "a.mp4", noise(30, (64, 48)))
    one, four = (list(read_video(path, threads=threads)) for threads in (1, 4))
    assert [(f.number, f.time_s) for f in one] == [(f.number, f.time_s) for f in four]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(one, four, strict=True))


def test_the_header_tells_how_much_there_is(tmp_path):
    facts = video_facts(write_clip(tmp_path / "a.mp4", noise(50, (64, 48))))
    assert (facts.width, facts.height, facts.duration_s, facts.rate) == (64, 48, 2.0, 25.0)
    assert facts.frames == 50
    bare = video_facts(write_clip(tmp_path / "a.h264", noise(2), base=Fraction(1, 25)))
    assert (bare.duration_s, bare.frames) == (None, None)


def test_without_pyav_a_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r'pip install "facenet\[video\]"'):
        next(read_video(tmp_path / "a.mp4"))


def test_names_of_videos():
    assert all(map(is_video_name, ["a.mp4", "folder/B.MOV", "c.webm", "d.h264"]))
    assert not any(map(is_video_name, ["a.jpg", ".hidden.mp4", "mp4", "a.mp4.txt"]))


def test_sound_that_begins_after_the_first_picture_takes_none_away(tmp_path):
    pictures = [np.full((64, 64, 3), 40 * n, np.uint8) for n in range(5)]
    path = write_talkie(tmp_path / "late.mkv", pictures, tone(0.3), begins=0.08)
    found = [(frame.number, round(frame.time_s, 3)) for frame in read_video(path)]
    assert found == [(n, round(0.04 * n, 3)) for n in range(5)]


def test_frames_that_were_given_do_not_wait_for_the_collector(tmp_path):
    path = write_clip(tmp_path / "many.mp4", noise(30, (64, 48)))
    gc.collect()
    gc.disable()
    try:
        read(path)
        waiting = [each.width for each in gc.get_objects() if type(each).__name__ == "VideoFrame"]
    finally:
        gc.enable()
    assert waiting in ([], [SMALL])  # the first is asked how it is to be shown
