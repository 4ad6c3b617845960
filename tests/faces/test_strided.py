"""FastMTCNN: every n-th frame detected, the others reused or interpolated, and what that loses."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import ToyDetector, toy_faces

from facenet.errors import InputError, SettingsError
from facenet.faces.strided import Strided, paired, recall_against
from facenet.images import Frame
from facenet.types import Faces

BLANK = np.zeros((60, 80, 3), np.uint8)


def scene(count, *boxes_at, score=0.9):
    """What a detector finds in each of so many frames: boxes_at are functions of the number."""
    return [toy_faces(*(box(n) for box in boxes_at), score=score) for n in range(count)]


def runner(speed, x=10.0, side=20.0):
    """A face that moves to the right by so many pixels a frame."""
    return lambda n: (x + speed * n, 10.0, x + speed * n + side, 10.0 + side)


def numbered(count, size=(60, 80)):
    """Pictures that carry their number in the first pixel."""
    pictures = [np.zeros((*size, 3), np.uint8) for _ in range(count)]
    for number, picture in enumerate(pictures):
        picture[0, 0, 0] = number
    return pictures


def seen(truth):
    """A detector that finds in a numbered picture what the truth holds for it."""
    return ToyDetector(lambda image: truth[image[0, 0, 0]])


def random_faces(count, generator, *, side=400):
    corner = generator.uniform(0, side, (count, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(20, 80, (count, 2))], axis=1)
    return boxes.astype(np.float32)


def naive_overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / max(whole, np.float32(1e-9))


def tripled(boxes):
    """Boxes three times as wide and high about the same centres."""
    wide, tall = (boxes[:, 2:] - boxes[:, :2]).T
    x1, y1, x2, y2 = boxes.T
    return np.stack([x1 - wide, y1 - tall, x2 + wide, y2 + tall], axis=1)


def naive_pairs(a, b, least):
    """The best pair of all that are left, again and again."""
    left = {(i, j): naive_overlap(x, y) for i, x in enumerate(a) for j, y in enumerate(b)}
    pairs = []
    while left:
        best = max(left, key=lambda pair: (left[pair], -pair[0], -pair[1]))
        if left[best] < least:
            break
        pairs.append(best)
        left = {p: v for p, v in left.items() if p[0] != best[0] and p[1] != best[1]}
    return pairs


# ---- detected frames


@pytest.mark.parametrize("between", ["interpolate", "reuse"])
def test_stride_one_is_plain_detection(between):
    truth = scene(7, runner(3), runner(-1, 50))
    given = list(Strided(seen(truth), stride=1, between=between).frames(numbered(7)))
    assert all(faces is expected for faces, expected in zip(given, truth, strict=True))


@pytest.mark.parametrize("between", ["interpolate", "reuse"])
@pytest.mark.parametrize(("count", "stride"), [(0, 3), (1, 3), (3, 3), (4, 3), (17, 4), (5, 100)])
def test_every_nth_frame_is_looked_at_and_every_frame_is_answered(between, count, stride):
    truth = scene(count, runner(1))
    detector = seen(truth)
    given = list(Strided(detector, stride=stride, between=between).frames(numbered(count)))
    assert len(given) == count
    assert len(detector.sizes) == -(-count // stride)
    for number in range(0, count, stride):
        assert given[number] is truth[number]


def test_reuse_is_what_fast_mtcnn_did():
    """Its loop: boxes = detect(frames[::stride]); frame i has boxes[int(i / stride)]."""
    truth = scene(23, runner(2), runner(-1, 60))
    for stride in (2, 4, 7):
        given = list(Strided(seen(truth), stride=stride, between="reuse").frames(numbered(23)))
        boxes = truth[::stride]
        assert given == [boxes[int(i / stride)] for i in range(23)]


# ---- frames between


def test_a_face_at_an_even_pace_is_interpolated_to_where_it_is():
    truth = scene(13, runner(1.5), runner(-0.5, 60, 18.0), score=0.8)
    given = list(Strided(seen(truth), stride=4).frames(numbered(13)))
    for faces, expected in zip(given, truth, strict=True):
        assert faces.boxes == pytest.approx(expected.boxes, abs=1e-4)
        assert faces.landmarks == pytest.approx(expected.landmarks, abs=1e-4)
        assert faces.detection_score == pytest.approx(0.8, abs=1e-6)


def test_frames_after_the_last_detected_one_reuse_it():
    truth = scene(11, runner(2))
    given = list(Strided(seen(truth), stride=4).frames(numbered(11)))
    assert given[9] == given[10] == truth[8]


def test_interpolation_against_loops():
    """Random faces in two frames, some near each other: paired, moved and kept as said."""
    generator = np.random.default_rng(5)
    for stride in (2, 3, 5):
        first, last = random_faces(9, generator), random_faces(7, generator)
        last[:5] = first[2:7] + generator.normal(0, 4, (5, 4)).astype(np.float32)
        ends = [toy_faces(*first, score=0.6), toy_faces(*last, score=0.9)]
        truth = {0: ends[0], stride: ends[1]}
        given = list(Strided(seen(truth), stride=stride).frames(numbered(stride + 1)))
        pairs = naive_pairs(tripled(first), tripled(last), 0.2)
        assert len(pairs) >= 5
        for step in range(1, stride):
            share = step / stride
            rows = [
                (first[i] * (1 - share) + last[j] * share, 0.6 * (1 - share) + 0.9 * share)
                for i, j in pairs
            ]
            if share <= 0.5:
                rows += [(first[i], 0.6) for i in range(9) if i not in dict(pairs)]
            else:
                used = {j for _, j in pairs}
                rows += [(last[j], 0.9) for j in range(7) if j not in used]
            rows.sort(key=lambda row: -(row[0][2] - row[0][0]) * (row[0][3] - row[0][1]))
            faces = given[step]
            assert faces.boxes == pytest.approx(np.array([box for box, _ in rows]), abs=1e-3)
            assert faces.detection_score == pytest.approx([s for _, s in rows], abs=1e-5)
            spots = toy_faces(*faces.boxes).landmarks  # they lie in the box as before
            assert faces.landmarks == pytest.approx(spots, abs=1e-2)
            assert np.all(np.diff(faces.areas) <= 0)


def test_a_face_that_comes_or_goes_is_kept_for_the_nearer_half():
    nobody, somebody = Faces.empty(), toy_faces()
    truth = {0: nobody, 4: somebody, 8: nobody}
    given = [len(faces) for faces in Strided(seen(truth), stride=4).frames(numbered(9))]
    assert given == [0, 0, 0, 1, 1, 1, 1, 0, 0]


def test_frames_without_a_face_are_frames_without_a_face():
    given = list(Strided(ToyDetector(Faces.empty()), stride=3).frames(numbered(8)))
    assert [len(faces) for faces in given] == [0] * 8
    assert all(faces.boxes.shape == (0, 4) for faces in given)


@pytest.mark.parametrize("none", [Faces.empty(landmarks=False), Faces.empty()])
def test_detectors_without_landmarks(none):
    bare = [toy_faces(runner(2)(n)).with_(landmarks=None) for n in range(5)]
    given = list(Strided(seen(bare), stride=2).frames(numbered(5)))
    assert [faces.landmarks for faces in given] == [None] * 5
    assert given[1].boxes == pytest.approx(bare[1].boxes)
    for pair in ([none, bare[0]], [bare[0], none]):
        given = list(Strided(ToyDetector(pair), stride=4).frames(numbered(5)))
        assert sum(map(len, given)) in (2, 3)
        assert all(faces.landmarks is None for faces in given if len(faces))


def test_the_times_of_the_frames_count():
    """A face at an even pace in frames that are not evenly spaced, some at the same time."""
    times = [0.0, 0.1, 0.8, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    truth = [toy_faces(runner(10)(time)) for time in times]
    frames = [Frame(5 + i, t, p) for i, (t, p) in enumerate(zip(times, numbered(9), strict=True))]
    given = list(Strided(seen(truth), stride=4).watch(frames))
    assert [frame for frame, _ in given] == frames
    for (_, faces), expected in zip(given, truth, strict=True):
        assert faces.boxes == pytest.approx(expected.boxes, abs=1e-4)


@pytest.mark.parametrize("between", ["interpolate", "reuse"])
def test_a_frame_of_another_size_is_looked_at(between):
    """Nothing is carried from a frame to one of another size."""
    sizes = [(60, 80)] * 3 + [(80, 60)] * 2 + [(60, 80)] * 6
    frames = [np.zeros((*size, 3), np.uint8) for size in sizes]
    detector = ToyDetector(lambda image: toy_faces((0, 0, image.shape[1], image.shape[0])))
    given = list(Strided(detector, stride=4, between=between).frames(frames))
    assert detector.sizes == [(60, 80), (80, 60), (60, 80), (60, 80)]
    assert [(f.boxes[0, 3], f.boxes[0, 2]) for f in given] == sizes


def test_frames_are_read_ahead_by_the_stride_at_most():
    def counted():
        for number, picture in enumerate(numbered(40)):
            read.append(number)
            yield picture

    for stride in (1, 4, 9):
        for between, ahead in (("interpolate", stride), ("reuse", 0)):
            read = []
            strided = Strided(ToyDetector(toy_faces()), stride=stride, between=between)
            for number, _ in enumerate(strided.frames(counted())):
                assert read[-1] <= number + ahead


@pytest.mark.parametrize("between", ["interpolate", "reuse"])
def test_of_a_video_cut_short_every_frame_is_answered_before_the_error(between):
    def cut():
        yield from numbered(7)
        raise InputError("cut short")

    given = []
    with pytest.raises(InputError, match="cut short"):
        for faces in Strided(seen(scene(7, runner(1))), stride=4, between=between).frames(cut()):
            given.append(faces)
    assert [faces.boxes[0, 0] for faces in given[4:]] == [14, 14, 14]


# ---- shrunk frames


def test_shrunk_frames_are_looked_at_and_boxes_are_of_the_frame():
    picture = np.zeros((359, 641, 3), np.uint8)
    picture[80:160, 200:360] = 255

    def bright(image):
        rows, columns = (np.flatnonzero(image[:, :, 0].max(axis=a) > 127) for a in (1, 0))
        return toy_faces((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))

    detector = ToyDetector(bright)
    (faces,) = Strided(detector, resize=0.5).frames([picture])
    assert detector.sizes == [(179, 320)]
    assert faces.boxes == pytest.approx(np.array([[200, 80, 360, 160]]), abs=2)
    assert faces.landmarks == pytest.approx(toy_faces(*faces.boxes).landmarks, abs=1e-3)
    (bare,) = Strided(ToyDetector(toy_faces().with_(landmarks=None)), resize=0.5).frames([picture])
    assert bare.landmarks is None


def test_a_panorama_and_a_sliver_are_frames_like_others():
    detector = ToyDetector(toy_faces((10, 10, 50, 60)))
    for shape in ((300, 20_000, 3), (1, 3, 3)):
        strided = Strided(detector, stride=2, resize=0.1)
        given = list(strided.frames(np.zeros(shape, np.uint8) for _ in range(3)))
        assert len(given) == 3
    assert detector.sizes == [(30, 2000), (30, 2000), (1, 1), (1, 1)]
    assert given[0].boxes.tolist() == [[30, 10, 150, 60]]


# ---- pairs and recall


@pytest.mark.parametrize("least", [0.05, 0.3, 0.7])
def test_pairs_against_loops(least):
    generator = np.random.default_rng(3)
    for _ in range(20):
        a, b = (random_faces(generator.integers(0, 12), generator, side=100) for _ in "ab")
        rows, columns = paired(a, b, least)
        pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
        assert pairs == naive_pairs(a, b, least)


def test_equal_overlaps_are_paired_in_order():
    same = np.tile(np.array([[0, 0, 10, 10]], np.float32), (4, 1))
    rows, columns = paired(same, same[:3], 0.5)
    assert (rows.tolist(), columns.tolist()) == ([0, 1, 2], [0, 1, 2])


def test_five_hundred_faces_in_a_frame():
    """A crowd on a grid, and one where everybody stands in the same place."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(25) * 40.0, np.arange(20) * 40.0))
    crowd = np.stack([x, y, x + 30, y + 30], axis=1)
    shuffled = np.random.default_rng(0).permutation(500)
    truth = {0: toy_faces(*crowd), 2: toy_faces(*(crowd + 8)[shuffled])}
    _, between, _ = Strided(seen(truth), stride=2).frames(numbered(3))
    order = np.lexsort((between.boxes[:, 0], between.boxes[:, 1]))
    assert between.boxes[order] == pytest.approx(crowd + 4)
    same = toy_faces(*[(0, 0, 30, 30)] * 500)
    _, between, _ = Strided(ToyDetector(same), stride=2).frames(numbered(3))
    assert between.boxes.tolist() == same.boxes.tolist()


def test_recall_against_loops():
    generator = np.random.default_rng(8)
    found, expected = [], []
    for _ in range(12):
        true = random_faces(generator.integers(0, 8), generator, side=200)
        near = true[generator.random(len(true)) < 0.8]
        near = near + generator.normal(0, 6, near.shape).astype(np.float32)
        strangers = random_faces(generator.integers(0, 3), generator, side=200)
        found.append(toy_faces(*near, *strangers) if len(near) else Faces.empty())
        expected.append(toy_faces(*true) if len(true) else Faces.empty())
    for overlap in (0.5, 0.8):
        answer = recall_against(found, expected, overlap=overlap)
        hits = sum(
            len(naive_pairs(a.boxes, b.boxes, overlap))
            for a, b in zip(found, expected, strict=True)
        )
        total = sum(len(faces) for faces in expected)
        assert 0 < hits < total
        assert answer.share == pytest.approx(hits / total)
        assert (answer.lost, answer.faces) == (total - hits, total)
        assert answer.extra == sum(len(faces) for faces in found) - hits


def test_recall_of_the_same_and_of_nothing():
    truth = scene(5, runner(1), runner(2, 60))
    whole = recall_against(truth, truth)
    assert (whole.share, whole.lost, whole.faces, whole.extra) == (1.0, 0, 10, 0)
    nothing = recall_against([Faces.empty()] * 5, truth)
    assert (nothing.share, nothing.lost, nothing.faces, nothing.extra) == (0.0, 10, 10, 0)
    ghosts = recall_against(truth, [Faces.empty()] * 5)
    assert (ghosts.share, ghosts.lost, ghosts.faces, ghosts.extra) == (1.0, 0, 0, 10)
    assert recall_against([], []).share == 1.0


def test_a_faster_face_loses_more_when_reused_than_when_interpolated():
    shares = {}
    for between in ("reuse", "interpolate"):
        truth = scene(33, runner(4, side=24))
        given = list(Strided(seen(truth), stride=4, between=between).frames(numbered(33)))
        shares[between] = recall_against(given, truth).share
    # 4 and 8 pixels of 24 still overlap by half, 12 do not: a quarter of the frames but the last
    assert shares == {"reuse": pytest.approx(25 / 33), "interpolate": 1.0}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stride": 0}, "stride should be a whole number of frames, 1 or more; got 0."),
        ({"stride": 2.0}, "stride should be a whole number of frames, 1 or more; got 2.0."),
        ({"between": "guess"}, "between should be one of interpolate, reuse; got 'guess'."),
        ({"resize": 0}, "resize should be above 0 and at most 1; got 0."),
        ({"resize": 2.0}, "resize should be above 0 and at most 1; got 2.0."),
    ],
)
def test_options_that_do_not_exist_are_refused(options, sentence):
    with pytest.raises(SettingsError) as caught:
        Strided(ToyDetector(toy_faces()), **options)
    assert str(caught.value) == sentence


def test_recall_of_other_frames_is_refused():
    with pytest.raises(InputError, match="as many frames found as expected; got 1 and 2"):
        recall_against([toy_faces()], [toy_faces()] * 2)
    with pytest.raises(SettingsError, match="overlap should be above 0 and at most 1; got 0"):
        recall_against([], [], overlap=0)
