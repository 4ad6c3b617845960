"""Truth in the form of MOTChallenge: what is read, and every line that is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facenet.data import motchallenge
from facenet.data.motchallenge import COLUMNS, read_motchallenge
from facenet.errors import DataError

STREET = Path(__file__).parents[1] / "golden/faces-1080p.gt.txt"
GOOD = "1,7,10,20,30,40,1,1,0.9"


@pytest.fixture
def written(tmp_path):
    """Writes lines into a file and gives its path."""

    def write(*lines, end="\n"):
        path = tmp_path / "gt.txt"
        path.write_bytes("".join(line + end for line in lines).encode())
        return path

    return write


def test_a_line_is_a_face_in_a_frame(written):
    truth = read_motchallenge(
        written(GOOD, "", "3,7,-5.5,20,30,40,0,1,0.25", " 3, 2, 0, 1, 2, 3, 1, 7, 1 ", end="\r\n")
    )
    assert truth.people == [2, 7]
    first, nobody, third, last = truth.of_video(4)
    assert first.boxes.tolist() == [[10, 20, 40, 60]] and first.boxes.dtype == np.float32
    assert (first.people.tolist(), first.counted.tolist()) == ([7], [True])
    assert first.shown == pytest.approx([0.9])
    assert third.boxes.tolist() == [[-5.5, 20, 24.5, 60], [0, 1, 2, 4]]
    assert third.people.tolist() == [7, 2] and third.people.dtype == np.int64
    assert (third.counted.tolist(), third.shown.tolist()) == ([False, True], [0.25, 1.0])
    for empty in (nobody, last):
        assert (empty.boxes.shape, empty.people.shape) == ((0, 4), (0,))
        assert (empty.counted.shape, empty.shown.shape) == ((0,), (0,))


def test_what_a_tracker_wrote_can_be_read(written):
    path = written("2,1,10.50,20.00,30.25,40.00,0.9876,-1,-1,-1", "2,2,1,1,5,5,0,-1,-1,-1")
    _, frame = read_motchallenge(path).of_video(2)
    assert frame.boxes.tolist() == [[10.5, 20, 40.75, 60], [1, 1, 6, 6]]
    assert (frame.counted.tolist(), frame.shown.tolist()) == ([True, False], [1, 1])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1,8,10,20,30,40,1,1", COLUMNS),
        ("1,8,10,20,30,40,1,1,1,1,1", COLUMNS),
        ("1 8 10 20 30 40 1 1 1", COLUMNS),
        ("1,8,ten,20,30,40,1,1,1", "numbers between commas"),
        ("1,8,,20,30,40,1,1,1", "numbers between commas"),
        ("0,8,10,20,30,40,1,1,1", "frame and id as whole numbers from 1 up"),
        ("-1,8,10,20,30,40,1,1,1", "frame and id as whole numbers from 1 up"),
        ("1.5,8,10,20,30,40,1,1,1", "frame and id as whole numbers from 1 up"),
        ("1,-1,10,20,30,40,1,-1,-1,-1", "frame and id as whole numbers from 1 up"),
        (f"1,{'9' * 19},10,20,30,40,1,1,1", "frame and id as whole numbers from 1 up"),
        ("1,8,10,20,0,40,1,1,1", "a box in pixels, wider and higher than 0"),
        ("1,8,10,20,30,-4,1,1,1", "a box in pixels, wider and higher than 0"),
        ("1,8,nan,20,30,40,1,1,1", "a box in pixels, wider and higher than 0"),
        ("1,8,10,20,30,inf,1,1,1", "a box in pixels, wider and higher than 0"),
        ("1,8,1e7,20,30,40,1,1,1", "a box in pixels, wider and higher than 0"),
        ("1,8,10,20,30,40,nan,1,1", "consider as a number and visibility from 0 to 1"),
        ("1,8,10,20,30,40,1,1,1.1", "consider as a number and visibility from 0 to 1"),
        ("1,8,10,20,30,40,1,1,-1", "consider as a number and visibility from 0 to 1"),
        ("1,7,50,60,30,40,1,1,1", "each id once in frame 1"),
    ],
)
def test_a_bad_line_is_named(written, line, expected):
    path = written(GOOD, "2,7,10,20,30,40,1,1,1", line)
    with pytest.raises(DataError) as refused:
        read_motchallenge(path)
    said = str(refused.value)
    assert said.startswith(f"{path}, line 3: expected {expected}; got {line[:80]!r}")


def test_a_file_with_nobody_or_of_another_kind_is_refused(written, tmp_path, monkeypatch):
    for path in (written(), written("", "  ")):
        with pytest.raises(DataError, match="a line for each face in each frame; it has none"):
            read_motchallenge(path)
    (tmp_path / "gt.bin").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="line 1: expected UTF-8 text"):
        read_motchallenge(tmp_path / "gt.bin")
    with pytest.raises(DataError, match="a file of true boxes at .*; there is none"):
        read_motchallenge(tmp_path / "none.txt")
    monkeypatch.setattr(motchallenge, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="at most 10 bytes"):
        read_motchallenge(written(GOOD))


def test_a_frame_beyond_the_video_is_refused(written):
    truth = read_motchallenge(written(GOOD, "6,7,10,20,30,40,1,1,1"))
    assert len(truth.of_video(6)) == 6
    with pytest.raises(DataError, match="a video of 5 frames; it names frame 6. Give the file"):
        truth.of_video(5)


def test_the_truth_of_the_street_is_whole():
    truth = read_motchallenge(STREET)
    frames = truth.of_video(105)
    assert truth.people == list(range(1, 12))
    for frame in frames:
        sides = frame.boxes[:, 2:] - frame.boxes[:, :2]
        assert (sides >= 18).all() and (frame.boxes >= 0).all()
        assert (frame.boxes <= [1920, 1080, 1920, 1080]).all()
        assert ((frame.shown >= 0.5) == frame.counted).all()
    places = {}
    for number, frame in enumerate(frames):
        for who, box in zip(frame.people.tolist(), frame.boxes, strict=True):
            places.setdefault(who, {})[number] = box
    for who, boxes in places.items():
        numbers = sorted(boxes)
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), who
        for one, two in zip(numbers, numbers[1:], strict=False):
            moved = np.abs(boxes[two] - boxes[one]).max()
            assert moved <= 0.75 * max(boxes[one][2:] - boxes[one][:2]), (who, two)
