"""Films: every picture at its time, to the tick, upright, whole or not there."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from clips import write_clip
from soundclips import picture_times, tone, write_talkie

from facenet.errors import InputError, SettingsError, StorageError
from facenet.images import read_video, video_facts
from facenet.images.filming import FILM_SUFFIXES, FilmSettings, film

GOOD = FilmSettings(quality=10)


def scenes(count, size=(48, 32)):
    """Smooth pictures, each of other colours, with a brighter left half."""
    y, x = np.mgrid[: size[1], : size[0]]
    pictures = []
    for number in range(count):
        shade = 40 + 150 * number / max(1, count - 1)
        left = 40 * (x < size[0] // 2)
        pictures.append(np.stack([shade + 0 * x, 60 + 100 * y / size[1], 90 + left], axis=2))
    return [picture.astype(np.uint8) for picture in pictures]


def make(path, pictures, times=None, **options):
    """Write a film and give the `Film`."""
    with film(path, **options) as out:
        for number, picture in enumerate(pictures):
            out.add(picture, number / 25 if times is None else times[number])
    return out


def away(one, other):
    return np.abs(one.astype(int) - other).mean()


@pytest.mark.parametrize("suffix", FILM_SUFFIXES)
def test_a_film_is_what_was_added_frame_by_frame(suffix, tmp_path):
    pictures = scenes(10)
    path = tmp_path / f"a{suffix}"
    out = make(path, pictures, settings=GOOD)
    frames = list(read_video(path))
    assert len(frames) == out.frames == 10
    for number, (frame, picture) in enumerate(zip(frames, pictures, strict=True)):
        assert frame.time_s == pytest.approx(number / 25, abs=1e-9)
        assert frame.image.shape == picture.shape
        assert away(frame.image, picture) < 3
        assert away(frame.image, picture) < away(frame.image, pictures[number - 1])
    assert out.duration_s == pytest.approx(0.4)
    assert (out.size, out.notices) == ((48, 32), [])
    assert os.listdir(tmp_path) == [path.name]
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(400_000, abs=1000)
        (stream,) = container.streams
        assert stream.codec_context.name == ("vp9" if suffix == ".webm" else "h264")
        assert stream.codec_context.pix_fmt == "yuv420p"


def test_colours_are_marked_and_come_back(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 90), (255, 255, 255), (0, 0, 0)]
    make(tmp_path / "a.mp4", [np.full((32, 48, 3), c, np.uint8) for c in colours], settings=GOOD)
    for frame, colour in zip(read_video(tmp_path / "a.mp4"), colours, strict=True):
        assert np.abs(frame.image.astype(int) - colour).max() <= 4
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        marks = context.colorspace, context.color_primaries, context.color_trc
        assert [int(mark) for mark in (*marks, context.color_range)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "base", "ticks"),
    [
        ("a.mp4", 90_000, [0, 1, 3003, 6006, 6007, 90_000, 900_013]),
        ("a.mov", 90_000, [0, 2, 3, 5, 8, 1_000_001, 1_000_002]),
        ("a.mkv", 1000, [0, 1, 2, 40, 73, 5000, 5001]),
        ("a.webm", 1000, [0, 7, 8, 40, 73, 5000, 5001]),
    ],
)
def test_times_are_kept_to_the_tick_at_a_variable_rate(name, base, ticks, tmp_path):
    out = make(tmp_path / name, scenes(7), [tick / base for tick in ticks], rate=10)
    assert picture_times(tmp_path / name, Fraction(1, base)) == ticks
    assert out.duration_s == pytest.approx(ticks[-1] / base + 0.1)
    with av.open(str(tmp_path / name)) as container:
        assert container.duration / 1e6 == pytest.approx(out.duration_s, abs=0.0011)


def test_the_frames_of_a_source_keep_their_times(tmp_path):
    """Also when they begin later, and of 24,000/1001 a second, which 1/90,000 only comes near."""
    ticks = [0, 1001, 2002, 2099, 9009, 24024]
    source = write_clip(tmp_path / "s.mp4", scenes(6), times=ticks, base=Fraction(1, 24_000))
    with film(tmp_path / "o.mp4") as out:
        for frame in read_video(source, start=0.05):
            out.add(frame.image, frame.time_s)
    wanted = [round(Fraction(t - 2002, 24_000) * 90_000) for t in ticks[2:]]
    assert picture_times(tmp_path / "o.mp4") == wanted


def test_times_nearer_than_a_tick_stay_apart(tmp_path):
    make(tmp_path / "a.mkv", scenes(3), [5, 5.0001, 5.0002])
    assert picture_times(tmp_path / "a.mkv", Fraction(1, 1000)) == [0, 1, 2]


def test_a_turned_source_becomes_an_upright_film(tmp_path):
    plain = write_clip(tmp_path / "s.mp4", scenes(3))
    data = bytearray(plain.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    plain.write_bytes(data)
    upright = list(read_video(plain))
    assert upright[0].image.shape == (48, 32, 3)
    out = make(tmp_path / "o.mp4", [frame.image for frame in upright], settings=GOOD)
    assert out.size == (32, 48)
    facts = video_facts(tmp_path / "o.mp4")
    assert (facts.width, facts.height) == (32, 48)
    with av.open(str(tmp_path / "o.mp4")) as container:
        for frame, before in zip(container.decode(video=0), upright, strict=True):
            assert frame.side_data.get("DISPLAYMATRIX") is None
            assert away(frame.to_ndarray(format="rgb24"), before.image) < 4


@pytest.mark.parametrize("size", [(33, 21), (1, 1), (16, 3), (64, 33)])
def test_odd_sizes_are_made_even_by_repeating_the_edge(size, tmp_path):
    pictures = scenes(2, size)
    out = make(tmp_path / "a.mp4", pictures, settings=GOOD)
    width, height = out.size
    assert (width, height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    for frame, picture in zip(read_video(tmp_path / "a.mp4"), pictures, strict=True):
        assert frame.image.shape == (height, width, 3)
        assert away(frame.image[: size[1], : size[0]], picture) < 8
        assert away(frame.image[: size[1], -1], picture[:, -1]) < 12
        assert away(frame.image[-1, : size[0]], picture[-1]) < 12


def test_a_picture_of_another_size_is_fitted_in_and_told_once(tmp_path):
    white = [np.full((h, w, 3), 255, np.uint8) for h, w in ((40, 60), (80, 60), (20, 60), (10, 15))]
    out = make(tmp_path / "a.mp4", white, settings=GOOD)
    bright = [frame.image[:, :, 1] > 128 for frame in read_video(tmp_path / "a.mp4")]
    assert [frame.shape for frame in bright] == [(40, 60)] * 4
    boxes = [cv2.boundingRect(frame.astype(np.uint8)) for frame in bright]
    assert boxes == [(0, 0, 60, 40), (15, 0, 30, 40), (0, 10, 60, 20), (0, 0, 60, 40)]
    assert out.notices == [
        "Some pictures have another size than the first, 60 x 40 pixels (the first of them "
        "60 x 80, number 1): they are fitted in."
    ]


def test_quality_and_preset_do_what_they_say(tmp_path):
    pictures = [cv2.GaussianBlur(p, (0, 0), 1.0) for p in np.random.default_rng(0).integers(
        0, 256, (6, 96, 128, 3), dtype=np.uint8)]  # fmt: skip
    size, error = {}, {}
    for name in ("a.mp4", "a.webm"):
        for quality in (10, 23, 40):
            path = tmp_path / f"{quality}-{name}"
            make(path, pictures, settings=FilmSettings(quality=quality))
            size[quality] = path.stat().st_size
            coming = zip(read_video(path), pictures, strict=True)
            error[quality] = np.mean([away(frame.image, p) for frame, p in coming])
        assert size[10] > size[23] > size[40]
        assert error[10] < error[23] < error[40]
    slow = make(tmp_path / "slow.mp4", pictures, settings=FilmSettings(preset="medium", threads=1))
    assert slow.frames == 6


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"quality": 52}, "quality should be a whole number from 0 (best) to 51; got 52."),
        ({"quality": 2.5}, "quality should be a whole number from 0 (best) to 51; got 2.5."),
        ({"preset": "slowest"}, "preset should be one of ultrafast, superfast, veryfast"),
        ({"threads": 0}, "threads should be a whole number, 1 or more; got 0."),
    ],
)
def test_settings_are_checked(settings, sentence):
    with pytest.raises(SettingsError) as caught:
        FilmSettings(**settings)
    assert str(caught.value).startswith(sentence)


# ---- what goes wrong


def trouble(path, pictures=None, times=None, *, kind=StorageError, **options):
    with pytest.raises(kind) as caught:
        make(path, scenes(3) if pictures is None else pictures, times, **options)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 700
    return sentence


def test_a_film_without_a_picture_leaves_nothing_and_an_older_file_alone(tmp_path):
    sentence = trouble(tmp_path / "a.mp4", [], kind=InputError)
    assert sentence.startswith(f"A film needs at least one picture; {tmp_path / 'a.mp4'} got none")
    assert os.listdir(tmp_path) == []
    (tmp_path / "a.mp4").write_bytes(b"older")
    trouble(tmp_path / "a.mp4", [], kind=InputError)
    trouble(tmp_path / "a.mp4", times=[0, 1, 1], kind=InputError)
    assert (tmp_path / "a.mp4").read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["a.mp4"]
    make(tmp_path / "a.mp4", scenes(2))
    assert len(list(read_video(tmp_path / "a.mp4"))) == 2


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.avi", "a.mp4.part"])
def test_another_ending_is_refused_before_anything_is_made(name, tmp_path):
    sentence = trouble(tmp_path / "new" / name, kind=SettingsError)
    assert sentence == f"A film should end in .mp4, .m4v, .mov, .mkv, .webm; got {name!r}."
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("rate", [0, -25, float("nan"), float("inf"), 5000, "25"])
def test_a_rate_is_checked(rate, tmp_path):
    sentence = trouble(tmp_path / "a.mp4", rate=rate, kind=SettingsError)
    assert sentence == f"rate should be pictures a second, from 0.01 to 1000; got {rate}."


def test_places_that_cannot_be_written(tmp_path):
    make(tmp_path / "made" / "for it" / "a.mp4", scenes(1))
    assert os.listdir(tmp_path / "made" / "for it") == ["a.mp4"]
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "folder.mp4").mkdir()
    for path in (
        tmp_path / "file" / "a.mp4",
        tmp_path / "folder.mp4",
        tmp_path / f"{'a' * 300}.mp4",
    ):
        assert trouble(path).startswith("Cannot write ")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.mp4", "made"]
    assert (tmp_path / "file").read_bytes() == b"mine"


PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (PIXELS[:, :, 0], "uint8 (4, 4)"),
        (PIXELS.astype(np.float32), "float32 (4, 4, 3)"),
        (PIXELS[:0], "uint8 (0, 4, 3)"),
        (np.zeros((4, 4, 4), np.uint8), "uint8 (4, 4, 4)"),
        ("a.png", "<class 'str'>"),
    ],
)
def test_what_is_no_picture_is_refused(picture, got, tmp_path):
    sentence = trouble(tmp_path / "a.mp4", [PIXELS, picture], kind=InputError)
    assert sentence == f"A picture of a film should be uint8 (H, W, 3) RGB; got {got}."
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("times", [[1, 1], [1, 0.5], [0, float("nan")], [float("inf"), 1]])
def test_times_that_do_not_grow_are_refused(times, tmp_path):
    sentence = trouble(tmp_path / "a.mp4", times=[*times, 9], kind=InputError)
    assert sentence.startswith("The time of a picture should be seconds, later than that of the")
    assert os.listdir(tmp_path) == []


def test_a_picture_too_large_for_the_encoder(tmp_path):
    sentence = trouble(tmp_path / "a.mp4", [np.zeros((4, 20_000, 3), np.uint8)])
    assert sentence.startswith(f"Cannot write {tmp_path / 'a.mp4'}: ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(5, "mine"), KeyboardInterrupt(), ValueError("mine")])
def test_an_error_of_the_block_stays_what_it_is(error, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"older")
    with pytest.raises(type(error)) as caught, film(tmp_path / "a.mp4") as out:
        out.add(PIXELS, 0)
        raise error
    assert caught.value is error
    assert (tmp_path / "a.mp4").read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_the_source_is_never_replaced(tmp_path):
    path = write_talkie(tmp_path / "a.mp4", scenes(3), tone(0.1))
    before = path.read_bytes()
    os.link(path, tmp_path / "same.mp4")
    for name in ("a.mp4", "same.mp4"):
        sentence = trouble(tmp_path / name, audio=path, kind=InputError)
        assert sentence.endswith(
            "is the source; a film of that name would replace it. Choose another name."
        )
    assert path.read_bytes() == before


FULL = """
import os, resource, sys
import numpy as np
from facenet.errors import StorageError
from facenet.images.filming import film
limit, count, name, caught = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], len(sys.argv) > 4
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(0).integers(0, 256, (count, 96, 128, 3), dtype=np.uint8)
try:
    with film(name) as out:
        for number, picture in enumerate(noise):
            try:
                out.add(picture, number / 25)
            except StorageError:
                if not caught:
                    raise
except StorageError as error:
    print(error)
print(sorted(os.listdir(".")), open(name, "rb").read())
"""


@pytest.mark.parametrize(
    ("name", "limit", "count", "caught"),
    [("a.mp4", 60_000, 40, ""), ("a.mkv", 60_000, 40, "caught"), ("a.mp4", 100, 1, "")],
)
def test_a_full_disk_leaves_the_older_file_and_one_sentence(name, limit, count, caught, tmp_path):
    """No byte beyond the limit can be written: while pictures come, or at the end."""
    (tmp_path / name).write_bytes(b"older")
    arguments = [sys.executable, "-c", FULL, str(limit), str(count), name, *caught.split()]
    answer = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stderr == ""
    sentence, left = answer.stdout.splitlines()
    assert sentence in (
        f"Cannot write {name}: File too large. Choose another place, free some space, or choose "
        "another ending.",
        f"Cannot write {name}: File too large. Choose another place or free some space.",
    )
    assert left == f"['{name}'] b'older'"
