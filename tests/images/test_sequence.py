"""Sequences of pictures: a folder in natural order, or a pattern of numbers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facenet.errors import ImageError, InputError
from facenet.images import ImageLimits, SourceSettings, open_source
from facenet.images.limits import LIMITS
from facenet.images.sequence import Sequence, is_sequence, natural


def write(folder, *names, size=(8, 6)):
    """A PNG per name, whose red is its place among the names."""
    for place, name in enumerate(names):
        picture = np.full((size[1], size[0], 3), (0, 0, place), np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


def seen(place, **settings):
    with open_source(place, SourceSettings(**settings)) as source:
        return [(frame.number, frame.time_s, frame.image[0, 0, 0]) for frame in source]


def test_a_folder_is_read_in_natural_order_at_a_rate(tmp_path):
    write(tmp_path, "frame1.png", "Frame2.PNG", "frame10.png", "frame010.png.jpg", "z.png")
    write(tmp_path, ".hidden.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "below.png").mkdir()
    assert seen(tmp_path) == [(n, n / 25, place) for n, place in enumerate([0, 1, 2, 3, 4])][:5]
    assert [time for _, time, _ in seen(str(tmp_path), rate=30)] == [n / 30 for n in range(5)]
    with open_source(tmp_path, SourceSettings(rate=10)) as source:
        assert (source.kind, source.live, source.facts.duration_s) == ("sequence", False, 0.5)
        assert (source.facts.width, source.facts.height, source.facts.frames) == (8, 6, 5)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b", "a10", "a9", "A1"], ["A1", "a9", "a10", "b"]),
        (["2", "10", "1x", "x1"], ["1x", "2", "10", "x1"]),
        (["a01", "a1", "a001"], ["a001", "a01", "a1"]),
        (["x²1", "x9" * 200], ["x9" * 200, "x²1"]),
    ],
)
def test_names_sort_as_people_count(names, expected):
    assert sorted(names, key=natural) == expected


def test_a_pattern_takes_its_numbers_and_leaves_gaps_in_time(tmp_path):
    write(
        tmp_path, "f_0007.png", "f_0008.png", "f_0011.png", "f_12.png", "f_00013.png", "g_0009.png"
    )
    assert seen(tmp_path / "f_%04d.png") == [(0, 0.0, 0), (1, 0.04, 1), (4, 0.16, 2)]
    assert seen(tmp_path / "f_%d.png") == [(0, 0.0, 3)]
    write(tmp_path, "100%d.png")
    assert not is_sequence(tmp_path / "100%d.png")
    with pytest.raises(InputError, match=r"A pattern of pictures should have one number"):
        open_source(tmp_path / "%d_%d.png")
    with pytest.raises(InputError, match=r"such as frame_0001.png; there are none"):
        open_source(tmp_path / "h_%04d.png")
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        open_source(tmp_path / "nowhere" / "h_%04d.png")


def test_start_and_stop_choose_pictures(tmp_path):
    write(tmp_path, *(f"{n}.png" for n in range(10)))
    assert [n for n, _, _ in seen(tmp_path, start=0.2, stop=0.32)] == [5, 6, 7]
    assert [n for n, _, _ in seen(tmp_path, start=0.33)] == [9]
    with pytest.raises(InputError, match=r"ends at 0.40 s; start should be before that; got 0.4\."):
        open_source(tmp_path, SourceSettings(start=0.4))


def test_broken_pictures_are_told_after_the_others(tmp_path):
    write(tmp_path, *(f"{n}.png" for n in range(6)))
    for name in ("0.png", "3.png"):
        (tmp_path / name).write_bytes(b"no picture at all")
    numbers = []
    with (
        open_source(tmp_path) as source,
        pytest.raises(InputError, match=r"has 2 pictures that cannot be read; the first: .*0\.png"),
    ):
        numbers += [frame.number for frame in source]
        numbers += [frame.number for frame in source]
    for place in tmp_path.iterdir():
        place.write_bytes(b"no picture at all")
    with pytest.raises(InputError, match="None of the pictures of"):
        open_source(tmp_path)


def test_the_limits_and_another_size_count_for_every_picture(tmp_path):
    write(tmp_path, "0.png")
    write(tmp_path, "1.png", size=(16, 9))
    with open_source(tmp_path) as source:
        assert [frame.image.shape for frame in source] == [(6, 8, 3), (9, 16, 3)]
        assert len(source.notices) == 1
        assert source.notices[0].endswith("changed from 8x6 to 16x9 pixels at 0.04 s.")
    with open_source(tmp_path, limits=ImageLimits(max_pixels=50)) as source:
        assert next(iter(source)).number == 0
        with pytest.raises(InputError, match="has 1 pictures that cannot be read"):
            next(iter(source))
    (tmp_path / "0.png").unlink()
    with pytest.raises(InputError, match="None of the pictures"):
        open_source(tmp_path, limits=ImageLimits(max_pixels=50))
    assert issubclass(ImageError, InputError)


def test_a_live_sequence_keeps_its_pace(tmp_path):
    write(tmp_path, *(f"{n}.png" for n in range(6)))
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    settings = SourceSettings(live=True, rate=10)
    sequence = Sequence(tmp_path, settings, LIMITS, clock=lambda: now[0], sleep=sleep)
    numbers = []
    for frame in sequence.frames():
        numbers.append(frame.number)
        now[0] += 0.25
    assert numbers == [0, 2, 5]
    assert sequence.skipped == 3


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(InputError, match=r"should hold or name pictures such as frame_0001.png;"):
        open_source(tmp_path)
