"""MTCNN against a plain box-by-box cascade, and by the properties it promises."""

import cv2
import numpy as np
import pytest
from naive_mtcnn import detect as naive_detect
from naive_mtcnn import toy_nets

from facenet.errors import SettingsError
from facenet.faces.boxes import overlap
from facenet.faces.exactness import EXACTNESS
from facenet.faces.mtcnn import LEVELS, PIXELS, Mtcnn, MtcnnSettings
from facenet.faces.networks import CHUNKS
from facenet.images import load_image
from facenet.models.engine import EngineSettings
from facenet.models.loader import load_model
from facenet.types import Faces

MODES = pytest.mark.parametrize("mode", list(EXACTNESS))
LOOSE = (0.6, 0.6, 0.6)


def blotches(height, width, *, seed):
    """A smooth colourful picture, so that resampling matters and rounding does not."""
    coarse = np.random.RandomState(seed).randint(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for face, (box, score, landmarks) in zip(found, expected, strict=True):
        np.testing.assert_allclose(face.box, box, atol=2e-4)
        np.testing.assert_allclose(face.landmarks, landmarks, atol=2e-4)
        assert face.detection_score == pytest.approx(score, abs=1e-6)


# ---- the arithmetic of the cascade, with toy nets


@MODES
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("steps", [None, 40])
def test_the_cascade_is_the_plain_one(mode, seed, steps):
    """steps: scores are rounded to that many, so that ties are everywhere."""
    image = blotches(71, 97 + 7 * seed, seed=seed)
    settings = MtcnnSettings(exactness=mode, thresholds=LOOSE)
    nets = toy_nets(steps)
    found = Mtcnn(nets, settings).detect([image])[0]
    assert len(found) > 3
    assert_same(found, naive_detect(image, toy_nets(steps), settings=settings))
    # Every stage threw out some boxes, and some crops lay over the border.
    assert nets["rnet"].shapes[0][0] > nets["onet"].shapes[0][0] > len(found)


@MODES
def test_pictures_of_one_size_go_through_together_and_are_each_the_plain_one(mode):
    """Also the offsets of a picture's only cell, which facenet reads from the wrong column."""
    settings = MtcnnSettings(exactness=mode, thresholds=(0.9, 0.3, 0.3), min_face_size=24)
    images = [blotches(71, 97, seed=seed) for seed in range(5)]
    images[2:2] = [blotches(40, 44, seed=7), blotches(71, 90, seed=8)]
    nets = toy_nets()
    found = Mtcnn(nets, settings).detect(images)
    assert [shape[0] for shape in nets["pnet"].shapes].count(5) == 4
    assert sum(map(len, found)) > 5
    for image, faces in zip(images, found, strict=True):
        assert_same(faces, naive_detect(image, toy_nets(), settings=settings))


def test_levels_that_go_through_together_have_a_bounded_number_of_pixels():
    nets = canned_nets(lambda height, width: [])
    images = [np.zeros((800, 1000, 3), np.uint8)] * 5
    Mtcnn(nets, MtcnnSettings(min_face_size=24, factor=0.5)).detect(images)
    shapes = nets["pnet"].shapes
    assert [shape[0] for shape in shapes] == [1] * 5 + [5] * (len(shapes) - 5)
    assert 200_000 < shapes[0][1] * shapes[0][2] < LEVELS
    assert LEVELS - 20_000 < 5 * shapes[5][1] * shapes[5][2] < LEVELS


@MODES
@pytest.mark.parametrize(
    "options",
    [
        {"min_face_size": 37},
        {"min_face_size": 12},
        {"min_face_size": 9},  # the picture is enlarged
        {"factor": 0.5},
        {"factor": 0.85, "min_face_size": 26},
        {"thresholds": (0.999, 0.6, 0.6)},
        {"thresholds": (0.6, 0.99, 0.6)},
        {"thresholds": (0.6, 0.6, 0.95)},
        {"thresholds": (0.0, 0.5, 0.99)},
    ],
)
def test_the_cascade_follows_its_options(mode, options):
    image = blotches(60, 64, seed=11)
    settings = MtcnnSettings(**{"exactness": mode, "thresholds": LOOSE} | options)
    found = Mtcnn(toy_nets(), settings).detect([image])[0]
    expected = naive_detect(image, toy_nets(), settings=settings)
    assert_same(found, expected)
    assert (
        found
        != Mtcnn(toy_nets(), MtcnnSettings(exactness=mode, thresholds=LOOSE)).detect([image])[0]
    )


def test_both_ways_differ():
    image = blotches(71, 97, seed=0)
    boxes = [
        Mtcnn(toy_nets(), MtcnnSettings(exactness=mode, thresholds=LOOSE)).detect([image])[0].boxes
        for mode in EXACTNESS
    ]
    assert not np.array_equal(*boxes)


class Canned:
    """An engine that gives the same answer for every crop, or cells it was told for P-net.

    cells: (height, width) of a level -> rows (row, column, score, four offsets).
    """

    def __init__(self, answer=None, *, cells=None):
        self.answer, self.cells, self.shapes = answer, cells, []

    def run(self, feeds):
        count, _, height, width = feeds["image"].shape
        self.shapes.append((count, height, width))
        if self.cells is None:
            return {k: np.repeat(np.float32([v]), count, axis=0) for k, v in self.answer.items()}
        rows, columns = (-(-(side - 2) // 2) - 4 for side in (height, width))
        score = np.zeros((count, rows, columns), np.float32)
        offset = np.zeros((count, 4, rows, columns), np.float32)
        for row, column, value, *moves in self.cells(height, width):
            score[:, row, column] = value
            offset[:, :, row, column] = moves
        return {"score": score, "offset": offset}


def canned_nets(cells, *, offset=(0, 0, 0, 0)):
    judged = {"score": 0.99, "offset": [0, 0, 0, 0]}
    last = {"score": 0.9, "offset": offset, "landmark": [0.25] * 5 + [0.75] * 5}
    return {"pnet": Canned(cells=cells), "rnet": Canned(judged), "onet": Canned(last)}


@MODES
def test_one_cell_through_all_stages_by_hand(mode):
    # At the scale 0.5 (min_face_size 24) cell (10, 20) covers x 82 to 104, y 42 to 64.
    def cells(height, width):
        return [(10, 20, 0.8, 0.5, -0.5, 0.25, 0)] if width >= 100 else []

    settings = MtcnnSettings(min_face_size=24, exactness=mode)
    found = Mtcnn(canned_nets(cells, offset=[-0.1, 0.2, 0.1, 0]), settings).detect(
        [np.zeros((160, 200, 3), np.uint8)]
    )[0]
    if mode == "facenet":  # a lone cell: its offsets are read from the mirrored column, all zero
        x1, y1, side = 82, 42, 22
    else:  # moved to 93, 31, 109.5, 64; squared about its centre to the height of 33
        x1, y1, side = 84.75, 31, 33
    if mode == "facenet":
        x1, y1 = int(x1), int(y1)
    size = side + 1  # R-net and O-net count both ends
    expected = [x1 - 0.1 * size, y1 + 0.2 * size, x1 + side + 0.1 * size, y1 + side]
    assert found.boxes.tolist() == [pytest.approx(expected, abs=1e-4)]
    point = [x1 + 0.25 * size - 1, y1 + 0.75 * size - 1]
    assert found.landmarks.tolist() == [[pytest.approx(point, abs=1e-4)] * 5]
    assert found.detection_score.tolist() == [pytest.approx(0.9)]


def test_two_cells_are_not_mirrored_in_facenet_s_way():
    def cells(height, width):
        return (
            [(10, 20, 0.8, 0.5, 0, 0.5, 0), (10, 30, 0.9, 0.5, 0, 0.5, 0)] if width >= 100 else []
        )

    settings = MtcnnSettings(min_face_size=24, exactness="facenet")
    found = Mtcnn(canned_nets(cells), settings).detect([np.zeros((160, 200, 3), np.uint8)])[0]
    assert sorted(found.boxes[:, 0].tolist()) == [82 + 11, 122 + 11]


@pytest.mark.parametrize(("mode", "winner"), [("facenet-pytorch", 0), ("facenet", 1)])
def test_the_winner_among_equal_cells(mode, winner):
    # Two cells of equal score: (row 11, column 10) and (row 10, column 11). Along the rows the
    # second comes first, down the columns the first. facenet-pytorch takes the first along the
    # rows, facenet the last down the columns: both times (10, 11); (11, 10) wins neither time.
    def cells(height, width):
        pair = [(11, 10, 0.8, 0, 0, 0, 0), (10, 11, 0.8, 0, 0, 0, 0)]
        rows = [(10, 10, 0.8, 0, 0, 0, 0), (10, 11, 0.8, 0, 0, 0, 0)]
        return {100: pair, 70: rows}.get(width, [])

    settings = MtcnnSettings(min_face_size=24, exactness=mode)
    nets = canned_nets(cells)
    nets["pnet"].cells = lambda height, width: cells(height, 100) if width >= 100 else []
    found = Mtcnn(nets, settings).detect([np.zeros((160, 200, 3), np.uint8)])[0]
    assert found.boxes[0, :2].tolist() == [46, 42]
    nets["pnet"].cells = lambda height, width: cells(height, 70) if width >= 100 else []
    found = Mtcnn(nets, settings).detect([np.zeros((160, 200, 3), np.uint8)])[0]
    assert found.boxes[0, :2].tolist() == [[42, 42], [46, 42]][winner]


@pytest.mark.parametrize(("mode", "sides"), [("facenet-pytorch", 295), ("facenet", 294)])
def test_levels_have_the_sizes_of_the_two_systems(mode, sides):
    # 1000 * 0.6 * 0.7 * 0.7 is 294: one adds a pixel, the other rounds up what is exact.
    nets = canned_nets(lambda height, width: [])
    Mtcnn(nets, MtcnnSettings(exactness=mode, factor=0.7)).detect(
        [np.zeros((1000, 1000, 3), np.uint8)]
    )
    heights = [height for _, height, _ in nets["pnet"].shapes]
    assert heights[:3] == [
        601 if mode != "facenet" else 600,
        421 if mode != "facenet" else 420,
        sides,
    ]
    # The last level is at least a cell, the next would not be.
    assert heights[-1] >= 12 > 1000 * 0.6 * 0.7 ** len(heights)


def test_more_candidates_than_a_chunk_are_judged_in_chunks():
    image = blotches(220, 260, seed=5)
    settings = MtcnnSettings(thresholds=(0.3, 0.05, 0.6), min_face_size=16, exactness="facenet")
    nets, lone = toy_nets(), toy_nets()
    found = Mtcnn(nets, settings).detect([image])[0]
    counts = [shape[0] for shape in nets["rnet"].shapes]
    assert len(counts) >= 2
    chunk = CHUNKS["rnet"]
    assert counts[:-1] == [chunk] * (len(counts) - 1) and 0 < counts[-1] <= chunk
    expected = naive_detect(image, lone, settings=settings)
    judged = len(lone["rnet"].shapes)
    assert sum(counts[:-1]) < judged <= sum(counts)  # the last chunk is filled up
    assert_same(found, expected)


def test_one_crop_is_judged_as_two_and_counted_once():
    nets = canned_nets(lambda height, width: [(10, 20, 0.8, 0, 0, 0, 0)] if width >= 100 else [])
    found = Mtcnn(nets, MtcnnSettings(min_face_size=24)).detect([np.zeros((160, 200, 3), np.uint8)])
    assert len(found[0]) == 1
    assert nets["rnet"].shapes == [(2, 24, 24)] and nets["onet"].shapes == [(2, 48, 48)]


def test_pictures_are_worked_on_together_up_to_a_number_of_pixels():
    def run(sizes):
        nets = canned_nets(
            lambda height, width: [(3, 4, 0.8, 0, 0, 0, 0), (20, 20, 0.8, 0, 0, 0, 0)]
        )
        settings = MtcnnSettings(min_face_size=400, factor=0.01)
        images = [np.zeros((*size, 3), np.uint8) for size in sizes]
        found = Mtcnn(nets, settings).detect(images)
        assert [len(faces) for faces in found] == [2] * len(sizes)
        return [count for count, _, _ in nets["rnet"].shapes]

    side = int(PIXELS**0.5)
    assert run([(1900, 1900)] * 3) == [4, 2]
    assert run([(side, side)] * 2) == [2, 2]
    assert run([(side + 100, side), (1700, 1700), (1700, 1700), (side, side)]) == [2, 4, 2]


@MODES
def test_a_face_moved_out_of_the_picture_is_dropped(mode):
    def cells(height, width):
        return [(0, 0, 0.8, 0, 0, 0, 0)] if width >= 100 else []

    settings = MtcnnSettings(min_face_size=24, exactness=mode)
    image = np.zeros((160, 200, 3), np.uint8)
    for left, kept in ((-0.5, True), (-1.2, False)):
        nets = canned_nets(cells, offset=[left, 0, left, 0])
        assert len(Mtcnn(nets, settings).detect([image])[0]) == kept


@MODES
def test_nothing_in_nothing_out(mode):
    nets = canned_nets(lambda height, width: [])
    detector = Mtcnn(nets, MtcnnSettings(exactness=mode))
    assert detector.detect([]) == []
    sizes = [(1, 1), (19, 500), (500, 19), (19, 19), (20, 20)]
    found = detector.detect([np.zeros((*size, 3), np.uint8) for size in sizes])
    assert found == [Faces.empty()] * 5
    # Only the last picture is as large as a face.
    assert [shape[1:] for shape in nets["pnet"].shapes] == [
        (13, 13) if mode != "facenet" else (12, 12)
    ]
    assert nets["rnet"].shapes == nets["onet"].shapes == []


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_face_size": 0}, "min_face_size should be a number of pixels"),
        ({"min_face_size": float("nan")}, "min_face_size"),
        ({"min_face_size": float("inf")}, "min_face_size"),
        ({"thresholds": (0.6, 0.7)}, "three numbers from 0 to below 1"),
        ({"thresholds": 0.7}, "three numbers"),
        ({"thresholds": (0.6, 0.7, 1.0)}, "three numbers"),
        ({"thresholds": (-0.1, 0.7, 0.7)}, "three numbers"),
        ({"thresholds": (float("nan"), 0.7, 0.7)}, "three numbers"),
        ({"factor": 1.0}, "factor should be between 0 and 1"),
        ({"factor": 0.0}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"exactness": "caffe"}, "one of facenet-pytorch, facenet; got 'caffe'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        MtcnnSettings(**options)


def test_settings_read_from_a_file_equal_those_in_python():
    assert MtcnnSettings(thresholds=[0.6, 0.7, 0.7]) == MtcnnSettings()
    assert hash(MtcnnSettings(thresholds=[0.6, 0.7, 0.7])) == hash(MtcnnSettings())


# ---- the real networks on photos


@pytest.fixture(scope="module")
def engines(session_home):
    return load_model("mtcnn").engines


@pytest.fixture(scope="module")
def photos(examples):
    """Photos of different sizes, with several faces, one and none."""
    group = load_image(examples / "photos/group.jpg")
    speech = load_image(examples / "photos/obama-speech-2009.jpg")
    portrait = load_image(examples / "known/Eileen Collins.jpg")
    return [
        group,
        np.zeros((90, 70, 3), np.uint8),
        cv2.resize(speech, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA),
        np.full((15, 300, 3), 255, np.uint8),
        cv2.resize(portrait, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA),
        group[:, : group.shape[1] // 2],
    ]


@MODES
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_faces_do_not_depend_on_the_other_pictures(photos, mode, engine):
    model = load_model("mtcnn", settings=EngineSettings(engine=engine))
    detector = Mtcnn(model.engines, MtcnnSettings(exactness=mode))
    alone = [detector.detect([photo])[0] for photo in photos]
    assert [len(faces) > 0 for faces in alone] == [True, False, True, False, True, True]
    assert len(alone[0]) >= 2
    assert detector.detect(photos) == alone
    assert detector.detect(photos[::-1]) == alone[::-1]
    assert detector.detect(photos[1:4]) == alone[1:4]
    assert detector.detect([photos[4]] * 3) == [alone[4]] * 3


@pytest.mark.parametrize(("mode", "least"), [("facenet-pytorch", 0.5), ("facenet", 0.75)])
def test_a_face_at_the_border_is_found_where_it_is(engines, photos, mode, least):
    """facenet-pytorch stretches what is left of a crop, which makes boxes at borders larger."""
    detector = Mtcnn(engines, MtcnnSettings(exactness=mode))
    portrait = photos[4]
    box = detector.detect([portrait])[0].boxes[0]
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    height, width = portrait.shape[:2]
    # Cut the photo so that the face touches a border, or a little of it is cut away.
    for by in (0, 1):
        cuts = [
            (x1 + by, 0, width, height),
            (0, y1 + by, width, height),
            (0, 0, x2 - by, height),
            (0, 0, width, y2 - by),
        ]
        for left, top, right, bottom in cuts:
            found = detector.detect([portrait[top:bottom, left:right]])[0]
            assert len(found) == 1
            back = found.boxes + np.float32([left, top, left, top])
            assert overlap(back, box[None])[0, 0] > least


@MODES
def test_a_grey_picture_has_the_same_faces(engines, photos, mode):
    detector = Mtcnn(engines, MtcnnSettings(exactness=mode))
    grey = np.repeat(photos[0].mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    color_faces, grey_faces = detector.detect([photos[0], grey])
    best = overlap(color_faces.boxes, grey_faces.boxes).max(axis=1)
    assert np.all(best[color_faces.detection_score > 0.99] > 0.8)


def test_a_huge_blank_picture_has_no_face(engines):
    for value in (0, 255):
        found = Mtcnn(engines).detect([np.full((3000, 4000, 3), value, np.uint8)])
        assert found == [Faces.empty()]


def test_landmarks_lie_in_their_faces_in_their_order(engines, photos):
    found = Mtcnn(engines).detect([photos[0]])[0]
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks.transpose(1, 0, 2)
    assert np.all(left_eye[:, 0] < right_eye[:, 0]) and np.all(left_mouth[:, 0] < right_mouth[:, 0])
    assert np.all(left_eye[:, 1] < left_mouth[:, 1]) and np.all(nose[:, 1] > right_eye[:, 1])
    corners = found.boxes[:, None, :2], found.boxes[:, None, 2:]
    assert np.all(found.landmarks > corners[0]) and np.all(found.landmarks < corners[1])
    assert np.all(np.diff(found.areas) <= 0)


@MODES
def test_a_stricter_last_threshold_keeps_just_the_surer_faces(engines, photos, mode):
    """O-net's threshold only filters: suppression looks from the best face down."""
    loose = Mtcnn(engines, MtcnnSettings(exactness=mode, thresholds=(0.5, 0.5, 0.1)))
    strict = Mtcnn(engines, MtcnnSettings(exactness=mode, thresholds=(0.5, 0.5, 0.9)))
    many, few = loose.detect([photos[0]])[0], strict.detect([photos[0]])[0]
    assert 0 < len(few) < len(many)
    assert few == many[many.detection_score > 0.9]


def test_a_larger_smallest_face_leaves_the_large_faces(engines, photos):
    found = Mtcnn(engines, MtcnnSettings()).detect([photos[0]])[0]
    height = float(found.boxes[0, 3] - found.boxes[0, 1])
    large = Mtcnn(engines, MtcnnSettings(min_face_size=int(height / 2))).detect([photos[0]])[0]
    assert overlap(large.boxes, found.boxes[:1]).max() > 0.8
    none = Mtcnn(engines, MtcnnSettings(min_face_size=int(height * 3))).detect([photos[0]])[0]
    assert len(none) == 0
