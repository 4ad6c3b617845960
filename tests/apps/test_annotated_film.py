"""The annotated film, frame by frame: its size, count, times, sound, boxes and hidden faces."""

from __future__ import annotations

import os
import struct

import av
import numpy as np
import pytest
from fakes import toy_faces
from soundclips import RATE, decoded, onsets, packets_of, samples_of, tone, write_talkie

from facenet.apps.jobs.filming.annotated import AnnotatedFilm, FilmLook, annotated_film, to_hide
from facenet.errors import InputError, SettingsError
from facenet.faces.blur import blur_faces
from facenet.faces.draw import draw_tracks
from facenet.images import Frame, read_video
from facenet.images.filming import FilmSettings
from facenet.types import Faces

BEEPS = (0.2, 0.6, 1.0)
GOOD = FilmSettings(quality=8)
PLAIN = FilmLook(linger_s=0)


def backdrop(count, size=(128, 96)):
    """Smooth colours that differ from picture to picture."""
    y, x = np.mgrid[: size[1], : size[0]]
    pictures = []
    for number in range(count):
        waves = [60 + 40 * np.sin((x + 7 * number) / 23), 150 * y / size[1], 80 + 0 * x + number]
        pictures.append(np.stack(waves, axis=2).astype(np.uint8))
    return pictures


def found(number):
    """Two people who walk, one of them without a track at first."""
    at = 4 + number
    boxes = (at, 20, at + 24, 50), (90, 60 - number // 2, 110, 86 - number // 2)
    return toy_faces(*boxes).with_(track_id=[1, 2 if number > 2 else 0])


LABELS = {1: "Ada", 2: None}


def annotate(source, target, *, whom=None, look=PLAIN, start=0.0, stop=None):
    """Annotate a file, and give the frames as they should be, with the film."""
    wanted = []
    with annotated_film(target, audio=source, stop=stop, look=look, settings=GOOD) as out:
        for frame in read_video(source, start=start, stop=stop):
            faces = found(frame.number)
            hide = None if whom is None else to_hide(faces, LABELS, whom)
            out.add(frame, faces, LABELS, hide)
            image = frame.image if hide is None else blur_faces(frame.image, faces.boxes[hide])
            wanted.append((frame.time_s, draw_tracks(image, faces, LABELS)))
    return wanted, out.film


def away(one, other):
    return np.abs(one.astype(int) - other).mean()


def check(target, wanted, film, *, base=90_000):
    """Frame by frame: count, size, time to the tick, and the picture itself."""
    frames = decoded(target)
    assert len(frames) == len(wanted) == film.frames
    ticks = [round((time - wanted[0][0]) * base) for time, _ in wanted]
    assert [round(time * base) for time, _ in frames] == ticks
    for number, ((_, frame), (_, image)) in enumerate(zip(frames, wanted, strict=True)):
        assert frame.shape == (film.size[1], film.size[0], 3)
        own = away(frame[: image.shape[0], : image.shape[1]], image)
        others = [away(frame[: other.shape[0], : other.shape[1]], other)
                  for n, (_, other) in enumerate(wanted) if n != number]  # fmt: skip
        assert own < 5 and own < min(others)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert film.duration_s == pytest.approx(ticks[-1] / base + 0.04)
        if stream.duration:
            seconds = float(stream.duration * stream.time_base)
            assert seconds == pytest.approx(film.duration_s, abs=0.0015)


@pytest.mark.parametrize("whom", [None, "all", "unknown"])
def test_every_frame_is_drawn_at_its_time_with_the_sound_beside_it(whom, tmp_path):
    source = write_talkie(tmp_path / "s.mp4", backdrop(30), tone(1.2, beeps=BEEPS))
    wanted, film = annotate(source, tmp_path / "o.mp4", whom=whom)
    assert (len(wanted), film.size, film.notices) == (30, (128, 96), [])
    check(tmp_path / "o.mp4", wanted, film)
    assert packets_of(tmp_path / "o.mp4") == packets_of(source)
    assert sorted(os.listdir(tmp_path)) == ["o.mp4", "s.mp4"]


@pytest.mark.parametrize(("name", "base"), [("o.mp4", 90_000), ("o.mkv", 1000), ("o.webm", 1000)])
def test_a_part_of_a_source_of_variable_rate(name, base, tmp_path):
    """From 0.3 s until before 0.9 s: the first frame is at 0.35 s."""
    times = [0, 90, 350, 351, 600, 700, 890, 900, 1100]
    source = write_talkie(
        tmp_path / "s.mp4", backdrop(9), tone(1.2, beeps=BEEPS), times=[90 * t for t in times]
    )
    wanted, film = annotate(source, tmp_path / name, start=0.3, stop=0.9)
    assert [round(time * 1000) for time, _ in wanted] == times[2:7]
    check(tmp_path / name, wanted, film, base=base)
    heard = samples_of(tmp_path / name)
    assert onsets(heard) == pytest.approx([0.6 - 0.35], abs=0.002)
    assert len(heard) / RATE == pytest.approx(0.9 - 0.35, abs=0.025)


def test_a_turned_source_of_odd_size(tmp_path):
    source = write_talkie(tmp_path / "s.mkv", backdrop(4, (97, 128)), tone(0.2), video="ffv1")
    upright = next(iter(read_video(source))).image
    assert upright.shape == (128, 97, 3)
    wanted, film = annotate(source, tmp_path / "odd.mp4")
    assert film.size == (98, 128)
    check(tmp_path / "odd.mp4", wanted, film)
    plain = write_talkie(tmp_path / "t.mp4", backdrop(4, (96, 128)), tone(0.2))
    data = bytearray(plain.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    plain.write_bytes(data)
    wanted, film = annotate(plain, tmp_path / "turned.mp4")
    assert film.size == (128, 96)
    check(tmp_path / "turned.mp4", wanted, film)
    with av.open(str(tmp_path / "turned.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.side_data.get("DISPLAYMATRIX") is None


# ---- whom and how long


def test_all_or_only_those_without_a_name_are_hidden():
    faces = toy_faces(*[(9, 9, 20, 20)] * 4).with_(track_id=[1, 2, 3, 0])
    labels = {1: "Ada", 2: None}
    assert to_hide(faces, labels, "all").tolist() == [True] * 4
    assert to_hide(faces, labels, "unknown").tolist() == [False, True, True, True]
    assert to_hide(toy_faces(), {0: "Ada"}, "unknown").tolist() == [True]
    assert to_hide(Faces.empty(), {}, "all").shape == (0,)
    with pytest.raises(SettingsError, match="^blur should be one of all, unknown; got 'known'.$"):
        to_hide(faces, labels, "known")


class Tape:
    """In the place of a `Film`: keeps what is added."""

    def __init__(self):
        self.pictures = []

    def add(self, image, time_s):
        self.pictures.append(image)


def taped(look, steps):
    """The pictures of (time, faces, hide) on noise; and the noise."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    tape = Tape()
    film = AnnotatedFilm(tape, look)
    for number, (time, faces, hide) in enumerate(steps):
        film.add(Frame(number, time, noise), faces, {}, np.array(hide, bool))
    return tape.pictures, noise


ONE = toy_faces((40, 30, 60, 60)).with_(track_id=[5])
MOVED = toy_faces((80, 30, 100, 60)).with_(track_id=[5])
NOBODY = Faces.empty()


def test_a_hidden_track_stays_hidden_for_a_moment_where_it_was_last():
    look = FilmLook(draw=False, linger_s=0.5)
    steps = [(0, ONE, [1]), (0.3, MOVED, [1]), (0.8, NOBODY, []), (0.81, NOBODY, [])]
    pictures, noise = taped(look, steps)
    here, there = blur_faces(noise, ONE.boxes), blur_faces(noise, MOVED.boxes)
    for picture, wanted in zip(pictures, (here, there, there, noise), strict=True):
        assert np.array_equal(picture, wanted)
    shown, noise = taped(look, [(0, ONE, [1]), (0.1, ONE, [0]), (0.2, NOBODY, [])])
    assert [np.array_equal(picture, noise) for picture in shown] == [False, True, True]


def test_a_hidden_face_of_no_track_stays_hidden_by_its_place():
    """Until another face is there or the time is over; a face elsewhere changes nothing."""
    untracked, shifted = ONE.with_(track_id=[0]), toy_faces((44, 32, 64, 62)).with_(track_id=[7])
    look, first = FilmLook(draw=False), (0, untracked, [1])
    steps = [first, (0.1, NOBODY, []), (0.2, MOVED, [0]), (0.5, NOBODY, []), (0.52, NOBODY, [])]
    pictures, noise = taped(look, steps)
    hidden = blur_faces(noise, ONE.boxes)
    assert [np.array_equal(picture, hidden) for picture in pictures] == [True] * 4 + [False]
    assert np.array_equal(pictures[4], noise)
    (_, named, after), noise = taped(look, [first, (0.1, shifted, [0]), (0.2, NOBODY, [])])
    assert np.array_equal(named, noise)
    assert np.array_equal(after, noise)
    large = np.repeat(np.repeat(noise, 2, axis=1), 3, axis=0)
    tape = Tape()
    film = AnnotatedFilm(tape, look)
    film.add(Frame(0, 0.0, noise), untracked, {}, np.array([True]))
    film.add(Frame(1, 0.1, large), NOBODY, {})
    assert np.array_equal(tape.pictures[1], blur_faces(large, grown(ONE).boxes))


def test_faces_stay_hidden_for_half_a_second_unless_another_time_is_said():
    (_, held, gone), noise = taped(
        FilmLook(), [(0, ONE, [1]), (0.5, NOBODY, []), (0.6, NOBODY, [])]
    )
    assert np.array_equal(held, blur_faces(noise, ONE.boxes))
    assert np.array_equal(gone, noise)


def test_in_a_frame_of_another_size_what_was_before_is_where_it_is_now():
    """A lingering box and a trail, in a frame twice as wide and three times as high."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    large = np.repeat(np.repeat(noise, 2, axis=1), 3, axis=0)
    tape = Tape()
    film = AnnotatedFilm(tape, FilmLook(trail_s=1.0))
    film.add(Frame(0, 0.0, noise), ONE, {}, np.array([True]))
    film.add(Frame(1, 0.1, large), NOBODY, {})
    film.add(Frame(2, 0.2, large), grown(MOVED), {})
    hidden = blur_faces(large, grown(ONE).boxes)
    assert np.array_equal(tape.pictures[1], draw_tracks(hidden, NOBODY, {}, trails={}))
    way = {5: [(50.0 * 2, 45.0 * 3), (90.0 * 2, 45.0 * 3)]}
    assert np.array_equal(tape.pictures[2], draw_tracks(large, grown(MOVED), {}, trails=way))


def grown(faces):
    across = np.array([2, 3], np.float32)
    return faces.with_(boxes=faces.boxes * np.tile(across, 2), landmarks=faces.landmarks * across)


@pytest.mark.parametrize("how", ["blur", "pixelate", "fill"])
def test_faces_are_hidden_under_the_boxes_that_are_drawn(how):
    (picture,), noise = taped(FilmLook(how=how), [(0, ONE, [1])])
    hidden = blur_faces(noise, ONE.boxes, how=how)
    assert np.array_equal(picture, draw_tracks(hidden, ONE, {}))


def test_trails_are_as_long_as_asked_for():
    steps = [(0.1 * n, toy_faces((n, 40, n + 20, 60)).with_(track_id=[3]), [0]) for n in range(9)]
    pictures, noise = taped(FilmLook(trail_s=0.35), [*steps, (5.0, NOBODY, [])])
    way = [(n + 10.0, 50.0) for n in range(5, 9)]
    assert np.array_equal(pictures[8], draw_tracks(noise, steps[8][1], {}, trails={3: way}))
    assert np.array_equal(pictures[9], noise)
    short, _ = taped(FilmLook(), steps)
    assert np.array_equal(short[8], draw_tracks(noise, steps[8][1], {}))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"how": "smear"}, "how should be one of blur, pixelate, fill; got 'smear'."),
        ({"trail_s": -1}, "trail_s should be seconds, 0 to 60; got -1."),
        ({"linger_s": float("nan")}, "linger_s should be seconds, 0 to 60; got nan."),
    ],
)
def test_a_look_is_checked(options, sentence):
    with pytest.raises(SettingsError) as caught:
        FilmLook(**options)
    assert str(caught.value) == sentence


def test_a_mask_of_another_length_is_refused_and_no_film_is_left(tmp_path):
    frame = Frame(0, 0.0, backdrop(1)[0])
    with (
        pytest.raises(InputError, match=r"one value per face, \(2,\); got \(3,\)\."),
        annotated_film(tmp_path / "o.mp4") as out,
    ):
        out.add(frame, found(9), LABELS)
        out.add(frame, found(9), LABELS, np.ones(3, bool))
    with (
        pytest.raises(InputError, match="at least one picture"),
        annotated_film(tmp_path / "o.mp4"),
    ):
        pass
    assert os.listdir(tmp_path) == []
