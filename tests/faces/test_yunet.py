"""YuNet on generated graphs: decoded again in loops and by OpenCV, and told what to see."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnxruntime
import pytest
from yunet_graphs import FIVE, STRIDES, Seer, Told, blank, looking, write_face

from facenet.errors import EngineError, ModelFileError, SettingsError
from facenet.faces.onestage import Canvas
from facenet.faces.yunet import CANDIDATES, Yunet, YunetSettings
from facenet.models.engine import EngineSettings, open_engine

ENGINES = ("onnxruntime", "openvino")
ALL = {"min_face_size": 20, "nms_threshold": 1.0}
"""Nothing is scaled, and nothing suppressed."""


@pytest.fixture
def opened(tmp_path):
    """Bytes of a graph -> a running engine."""

    def _open(graph, engine="onnxruntime"):
        file = tmp_path / "detector.onnx"
        file.write_bytes(graph)
        return open_engine(file, EngineSettings(engine=engine, device="cpu"))

    return _open


def blotches(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def padded(image):
    """OpenCV's own way to the network: BGR, black below and at the right."""
    height, width = image.shape[:2]
    more = -height % 32, -width % 32
    bgr = np.ascontiguousarray(image[..., ::-1])
    return cv2.copyMakeBorder(bgr, 0, more[0], 0, more[1], cv2.BORDER_CONSTANT)


# Decoded again


def decoded(graph, image, threshold):
    """Every face above the threshold, cell by cell: (score, box, landmarks)."""
    picture = padded(image)
    blob = np.array([picture[..., channel] for channel in range(3)], np.float32)[None]
    session = onnxruntime.InferenceSession(graph)
    names = [output.name for output in session.get_outputs()]
    tables = dict(zip(names, session.run(names, {"input": blob}), strict=True))
    faces = []
    for stride in STRIDES:
        cells = [tables[f"{part}_{stride}"][0] for part in ("cls", "obj", "bbox", "kps")]
        place = 0
        for row in range(picture.shape[0] // stride):
            for column in range(picture.shape[1] // stride):
                sure, there, box, points = (table[place] for table in cells)
                score = float(sure[0] * there[0]) ** 0.5
                if score >= threshold:
                    x, y = (column + box[0]) * stride, (row + box[1]) * stride
                    wide, high = np.exp(box[2]) * stride, np.exp(box[3]) * stride
                    marks = [
                        ((column + points[2 * k]) * stride, (row + points[2 * k + 1]) * stride)
                        for k in range(5)
                    ]
                    edges = np.array([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])
                    faces.append((score, edges, np.array(marks)))
                place += 1
    return faces


def thinned(faces, threshold):
    kept = []
    for face in sorted(faces, key=lambda face: -face[0]):
        x1, y1, x2, y2 = face[1]
        for _, other, _ in kept:
            wide = max(min(x2, other[2]) - max(x1, other[0]), 0)
            high = max(min(y2, other[3]) - max(y1, other[1]), 0)
            both = (x2 - x1) * (y2 - y1) + (other[2] - other[0]) * (other[3] - other[1])
            if wide * high / (both - wide * high) > threshold:
                break
        else:
            kept.append(face)
    return kept


def wanted(faces, image):
    """Those of 20 pixels or more that touch the picture."""
    height, width = image.shape[:2]
    return [
        (score, box, points)
        for score, box, points in faces
        if max(box[2] - box[0], box[3] - box[1]) >= 20
        and box[2] > 0
        and box[3] > 0
        and box[0] < width
        and box[1] < height
    ]


def assert_same(found, expected):
    """One to one; the order of equal areas is open."""
    assert len(found) == len(expected)
    assert np.all(np.diff(found.areas) <= 0)
    boxes = np.array([box for _, box, _ in expected])
    nearest = np.abs(boxes[:, None] - found.boxes[None]).max(axis=2).argmin(axis=1)
    assert sorted(nearest) == list(range(len(found)))
    for number, (score, box, points) in zip(nearest, expected, strict=True):
        np.testing.assert_allclose(found.boxes[number], box, rtol=2e-5, atol=2e-3)
        np.testing.assert_allclose(found.landmarks[number], points, rtol=2e-5, atol=2e-3)
        assert found.detection_score[number] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_are_decoded_as_cell_by_cell(opened, engine):
    graph = looking(seed=3)
    detector = Yunet(opened(graph, engine))
    images = [blotches(97, 211), blotches(301, 120, seed=1), blotches(64, 64, seed=2)]
    for image, found in zip(images, detector.detect(images), strict=True):
        faces = decoded(graph, image, 0.7)
        expected = wanted(thinned(faces, 0.3), image)
        assert len(faces) > len(expected) > 1
        assert_same(found, expected)


def test_opencv_decodes_the_same(opened, tmp_path):
    graph = looking(seed=3)
    engine = opened(graph)
    for number, shape in enumerate(((97, 211), (241, 320), (64, 64), (33, 250))):
        image = blotches(*shape, seed=number)
        size = (shape[1], shape[0])
        file = str(tmp_path / "detector.onnx")
        theirs = cv2.FaceDetectorYN.create(file, "", size, 0.6, 1.0, 10**6)
        rows = theirs.detect(np.ascontiguousarray(image[..., ::-1]))[1]
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        faces = zip(rows[:, 14], boxes, rows[:, 4:14].reshape(-1, 5, 2), strict=True)
        (found,) = Yunet(engine, YunetSettings(0.6, **ALL)).detect([image])
        assert len(found) > 10
        assert_same(found, wanted(faces, image))


@pytest.mark.parametrize(
    "options",
    [{"names": "o{stride}{part}"}, {"size": (128, 96)}, {"declared": False}],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_how_the_graph_was_exported_changes_nothing(opened, options, engine):
    image = blotches(90, 120)
    (plain,) = Yunet(opened(looking(seed=1))).detect([image])
    (other,) = Yunet(opened(looking(seed=1, **options), engine)).detect([image])
    assert len(plain) > 1
    np.testing.assert_allclose(other.boxes, plain.boxes, atol=1e-3)
    np.testing.assert_allclose(other.landmarks, plain.landmarks, atol=1e-3)


def test_the_network_gets_what_opencv_gives_it():
    """Also after a larger picture, whose memory is used again."""
    engine = Told(blank((32, 32)))
    detector = Yunet(engine)
    for shape in ((700, 500), (31, 33), (1, 1), (64, 96), (250, 250), (5, 700)):
        image = blotches(*shape)
        for view in (image, np.flipud(image), np.asfortranarray(image)):
            engine.tables = blank((-(-shape[1] // 32) * 32, -(-shape[0] // 32) * 32))
            detector.detect([view])
            np.testing.assert_array_equal(
                engine.seen.pop(), cv2.dnn.blobFromImage(padded(np.ascontiguousarray(view)))
            )


# Told what to see


def picture(height, width, *boxes):
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image


def assert_found(found, boxes, *, within):
    """These faces and no other, the largest first."""
    boxes = sorted(boxes, key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))
    assert len(found) == len(boxes)
    for face, box in zip(found, np.array(boxes, float), strict=True):
        np.testing.assert_allclose(face.box, box, atol=within)
        points = box[:2] + FIVE * (box[2:] - box[:2])
        np.testing.assert_allclose(face.landmarks, points, atol=within)
        assert face.detection_score == pytest.approx(0.9)


SIZES = {
    "odd": (479, 641),
    "upright": (1001, 333),
    "large": (1200, 1800),
    "panorama": (101, 6001),
    "tower": (3001, 77),
}


@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("least", [20, 33, 60])
def test_faces_of_the_wanted_size_come_back_from_pictures_of_any_shape(shape, least):
    height, width = shape
    boxes = [
        (3, 2, 3 + 66, 2 + 63),
        (width - 75, height - 70, width - 9, height - 3),
        (width // 2 - 38, height // 2, width // 2 + 38, height // 2 + 30),
    ]
    settings = YunetSettings(min_face_size=least)
    (found,) = Yunet(Seer(), settings).detect([picture(*shape, *boxes)])
    assert_found(found, boxes, within=1.5 * least / 20)


def test_small_middle_and_huge_faces_are_found_together():
    """The network sees none above 500 pixels: the second look does, and none is found twice."""
    boxes = [
        (10, 10, 32, 30),
        (60, 50, 360, 340),
        (500, 40, 950, 480),
        (20, 600, 500, 1090),
        (1000, 100, 2100, 1400),
    ]
    engine = Seer()
    (found,) = Yunet(engine).detect([picture(1500, 2200, *boxes)])
    assert engine.shapes == [(2208, 1504), (576, 384)]
    assert_found(found, boxes, within=4)
    engine = Seer()
    small = picture(720, 1280, boxes[0], boxes[1])
    assert len(Yunet(engine).detect([small])[0]) == 2
    assert engine.shapes == [(1280, 736)]


def test_a_larger_smallest_face_makes_less_work_and_leaves_smaller_ones_out():
    boxes = [(30, 40, 52, 64), (200, 100, 245, 141), (400, 300, 500, 380)]
    image = picture(640, 960, *boxes)
    for least, count, shape in ((20, 3, (960, 640)), (40, 2, (480, 320)), (80, 1, (256, 160))):
        engine = Seer()
        (found,) = Yunet(engine, YunetSettings(min_face_size=least)).detect([image])
        assert engine.shapes == [shape]
        assert_found(found, boxes[3 - count :], within=0.06 * least)


def test_a_smaller_one_enlarges_the_picture():
    boxes = [(30, 40, 42, 51), (100, 100, 130, 141)]
    engine = Seer()
    (found,) = Yunet(engine, YunetSettings(min_face_size=10)).detect([picture(200, 300, *boxes)])
    assert engine.shapes == [(608, 416)]
    assert_found(found, boxes, within=0.6)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 900), (900, 1), (20, 40_000), (2000, 20_000), (3000, 4000)]
)
def test_no_picture_is_too_small_or_too_large(height, width):
    engine = Seer()
    detector = Yunet(engine, YunetSettings(max_megapixels=1.5))
    box = (width // 2, 0, width // 2 + height // 2, height)
    (found,) = detector.detect([picture(height, width, box)])
    assert all(side % 32 == 0 for shape in engine.shapes for side in shape)
    most = max(wide * high for wide, high in engine.shapes)
    assert most <= 1.5e6 + 32 * sum(engine.shapes[0]) + 1024
    if min(height, width) > 30:
        assert_found(found, [box], within=0.01 * height)


def test_even_a_line_is_bounded():
    engine = Seer()
    image = np.zeros((1, 500_000, 3), np.uint8)
    Yunet(engine, YunetSettings(max_megapixels=2)).detect([image])
    assert engine.shapes == [(62_528, 32)]


def test_500_faces_are_500_faces():
    boxes = [(x, y, x + 24, y + 26) for x in range(5, 25 * 40, 40) for y in range(5, 20 * 40, 40)]
    image = picture(800, 1000, *boxes)
    (found,) = Yunet(Seer()).detect([image])
    assert len(found) == 500
    assert {tuple(box) for box in found.boxes.round().astype(int).tolist()} == set(boxes)
    (few,) = Yunet(Seer(), YunetSettings(max_faces=7)).detect([image])
    assert len(few) == 7


def test_a_network_that_sees_faces_everywhere_is_bounded():
    tables = {name: np.ones_like(table) for name, table in blank((2400, 704)).items()}
    (found,) = Yunet(Told(tables), YunetSettings(**ALL)).detect([picture(704, 2400)])
    assert 2400 * 704 // 64 > CANDIDATES >= len(found) > CANDIDATES - 9


def test_pictures_together_are_as_pictures_alone():
    images = [picture(90 + 7 * k, 300, (10 + k, 9, 60, 70)) for k in range(5)]
    together = Yunet(Seer()).detect(images)
    detector = Yunet(Seer())
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda image: detector.detect([image])[0], images * 6))
    for number, image in enumerate(images):
        (alone,) = Yunet(Seer()).detect([image])
        for found in (together[number], *at_once[number :: len(images)]):
            np.testing.assert_array_equal(found.boxes, alone.boxes)
    assert detector.detect([]) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_side_by_side_is_as_one_by_one(engine):
    """To the bit and in order, with a stream for each of two threads and with one network for
    both; the engine for it is made when several pictures come, once."""
    graph, made = looking(seed=3), []

    def open_with(streams):
        made.append(streams)
        running = EngineSettings(engine=engine, device="cpu", threads=2, streams=streams)
        return open_engine(graph, running)

    alone = Yunet(open_with(1))
    images = [blotches(60 + 31 * k, 330 - 17 * k, seed=k) for k in range(9)]
    images.append(blotches(770, 810))  # this one is looked at twice
    wanted = [alone.detect([image])[0] for image in images]
    beside = Yunet(open_with(1), beside=lambda: open_with(2), threads=2)
    assert len(beside.detect(images[:1])) == 1 and made == [1, 1]
    for detector in (beside, beside, Yunet(open_with(2), threads=3)):
        for found, right in zip(detector.detect(images), wanted, strict=True):
            assert len(found) > 1
            for name in ("boxes", "landmarks", "detection_score"):
                assert np.array_equal(getattr(found, name), getattr(right, name))
    assert made == [1, 1, 2, 2]


def test_side_by_side_an_error_is_told_and_no_more_pictures_are_begun():
    tables = blank((64, 64))
    tables["cls_8"][0, 0] = np.nan
    engine = Told(tables)
    detector = Yunet(engine, threads=2)
    with pytest.raises(EngineError, match="finite"):
        detector.detect([picture(64, 64)] * 500)
    assert len(engine.seen) < 500


@pytest.mark.parametrize("shape", [(700, 500), (31, 33), (1, 1), (64, 96), (5, 700)])
def test_bytes_for_the_network_are_what_its_float32_are(shape):
    """Also of views that lie otherwise in memory, and in memory that is used again."""
    canvas, image = Canvas(), blotches(*shape)
    for height, width in ((736, 704), (shape[0], 700)):
        with canvas.copied(np.full((height, width, 3), 9, np.uint8), width, height):
            pass
        for view in (image, np.flipud(image), image[..., ::-1], np.asfortranarray(image)):
            with (
                canvas.copied(view, width, height) as picture,
                canvas.drawn(view, width, height, color="bgr") as blob,
            ):
                assert np.array_equal(picture.transpose(0, 3, 1, 2), blob)


def test_a_graph_of_one_size_gets_every_picture_brought_to_it():
    boxes = [(100, 200, 200, 310), (600, 900, 700, 1000)]
    engine = Seer((1, 3, 320, 640))
    (found,) = Yunet(engine).detect([picture(1280, 1280, *boxes)])
    assert engine.shapes == [(640, 320)]
    assert_found(found, boxes, within=4)


# Scores


def one_face(score=0.9, box=(10, 10, 50, 50)):
    tables = blank((64, 64))
    write_face(tables, (64, 64), 8, box, score=score)
    return tables


def test_the_score_is_the_root_of_both_cut_to_0_and_1():
    for both, expected in (((0.9, 0.4), 0.6), ((1.7, 0.25), 0.5), ((3, 3), 1), ((-3, -3), None)):
        tables = one_face()
        cell = tables["cls_8"].argmax()
        tables["cls_8"][0, cell], tables["obj_8"][0, cell] = both
        detector = Yunet(Told(tables), YunetSettings(score_threshold=0.5))
        (found,) = detector.detect([picture(64, 64)])
        assert found.detection_score.tolist() == (
            [] if expected is None else [pytest.approx(expected)]
        )


def test_threshold_and_overlap_are_kept_to():
    tables = one_face(0.8)
    write_face(tables, (64, 64), 16, (20, 10, 60, 50), score=0.75)
    overlap = 30 * 40 / (2 * 40 * 40 - 30 * 40)
    for options, expected in (
        ({}, 1),
        ({"score_threshold": 0.81}, 0),
        ({"nms_threshold": overlap + 1e-3}, 2),
        ({"nms_threshold": overlap - 1e-3}, 1),
        ({"nms_threshold": overlap + 1e-3, "score_threshold": 0.78}, 1),
        ({"nms_threshold": 1, "max_faces": 1}, 1),
    ):
        (found,) = Yunet(Told(tables), YunetSettings(**options)).detect([picture(64, 64)])
        assert len(found) == expected


def test_boxes_may_reach_beyond_the_picture_but_not_lie_beside_it():
    tables = one_face(box=(-20, -10, 30, 90))
    write_face(tables, (64, 64), 16, (41, 5, 63, 40))
    (found,) = Yunet(Told(tables)).detect([picture(40, 40)])
    np.testing.assert_allclose(found.boxes, [[-20, -10, 30, 90]], atol=1e-4)


# What is refused


@pytest.mark.parametrize(
    "options",
    [
        {"score_threshold": 1.5},
        {"nms_threshold": -0.1},
        {"min_face_size": 0},
        {"min_face_size": float("nan")},
        {"min_face_size": float("inf")},
        {"max_megapixels": 0},
        {"max_megapixels": 1e9},
        {"max_megapixels": float("nan")},
        {"max_faces": -1},
        {"arithmetic": "int8"},
    ],
)
def test_settings_out_of_range_are_told(options):
    with pytest.raises(SettingsError, match=f"^{next(iter(options))} should be"):
        YunetSettings(**options)


@pytest.mark.parametrize("shape", [None, (1, 3), (2, 3, 640, 640), (1, 640, 640, 3)])
def test_a_graph_that_takes_no_picture_is_told(shape):
    with pytest.raises(ModelFileError, match="of YuNet's kind should take one picture, 1 x 3 x H"):
        Yunet(Told({}, shape))


def test_outputs_that_are_none_of_yunet_are_told():
    good = blank((64, 64))
    less = {name: table for name, table in good.items() if name != "obj_16"}
    more = {**good, "again": good["kps_8"].copy()}
    other = {**good, "kps_32": good["kps_32"][:, :3]}
    batch = {name: table.repeat(2, axis=0) for name, table in good.items()}
    for tables in (less, more, other, batch, {}, {"x": np.float32(1)}):
        with pytest.raises(ModelFileError, match="YuNet should give for each .* of 64x64 pixels"):
            Yunet(Told(tables)).detect([picture(64, 64)])
    with pytest.raises(ModelFileError, match="70x64 pixels"):
        Yunet(Told(good, (1, 3, 64, 70))).detect([picture(64, 64)])


@pytest.mark.parametrize(
    ("table", "value"),
    [("cls_8", np.nan), ("obj_32", np.nan), ("bbox_8", np.nan), ("kps_8", np.inf), ("bbox_8", 99)],
)
def test_numbers_that_are_none_are_told(table, value):
    tables = one_face()
    tables[table][...] = value
    with pytest.raises(EngineError, match="finite numbers; it gave NaN or infinity"):
        Yunet(Told(tables)).detect([picture(64, 64)])
