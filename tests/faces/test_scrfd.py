"""SCRFD on generated graphs: decoded again in loops, and told which faces to find."""

import cv2
import numpy as np
import onnxruntime
import pytest
from detector_graphs import ANCHORS, STRIDES, answering, blank, convolving, write_face

from facenet.errors import EngineError, ModelFileError, SettingsError
from facenet.faces.scrfd import Scrfd, ScrfdSettings, letterbox
from facenet.models.engine import EngineSettings, open_engine

ENGINES = ("onnxruntime", "openvino")
FORMS = (6, 9, 10, 15)


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


# Decoded again, cell by cell


def frame(image, width, height):
    """InsightFace's own way to the network: BGR, OpenCV's blob with its swap of channels."""
    bgr = image[..., ::-1]
    if image.shape[0] / image.shape[1] > height / width:
        inner = (int(height / (image.shape[0] / image.shape[1])), height)
    else:
        inner = (width, int(width * (image.shape[0] / image.shape[1])))
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: inner[1], : inner[0]] = cv2.resize(bgr, inner)
    blob = cv2.dnn.blobFromImage(canvas, 1 / 128, (width, height), (127.5,) * 3, swapRB=True)
    return blob, inner[0] / image.shape[1], inner[1] / image.shape[0]


def decoded(graph, count, image, size, threshold):
    """Every face above the threshold, one at a time: (score, box, landmarks)."""
    blob, scale_x, scale_y = frame(image, *size)
    outputs = onnxruntime.InferenceSession(graph).run(None, {"input.1": blob})
    levels, faces = len(STRIDES[count]), []
    for level, stride in enumerate(STRIDES[count]):
        tables = [outputs[part * levels + level] for part in range(len(outputs) // levels)]
        tables = [table[0] if table.ndim == 3 else table for table in tables]
        place = 0
        for row in range(size[1] // stride):
            for column in range(size[0] // stride):
                for _ in range(ANCHORS[count]):
                    score, edges = tables[0][place][0], tables[1][place] * stride
                    x, y = column * stride, row * stride
                    if score >= threshold:
                        box = [x - edges[0], y - edges[1], x + edges[2], y + edges[3]]
                        points = (
                            [
                                (
                                    (x + tables[2][place][2 * k] * stride) / scale_x,
                                    (y + tables[2][place][2 * k + 1] * stride) / scale_y,
                                )
                                for k in range(5)
                            ]
                            if len(tables) == 3
                            else None
                        )
                        scaled = np.array(box) / [scale_x, scale_y, scale_x, scale_y]
                        faces.append((float(score), scaled, points))
                    place += 1
    return faces


def thinned(faces, threshold):
    """InsightFace's suppression, with a pixel more on every side."""
    kept = []
    for face in sorted(faces, key=lambda face: -face[0]):
        x1, y1, x2, y2 = face[1]
        for _, other, _ in kept:
            wide = max(min(x2, other[2]) - max(x1, other[0]) + 1, 0)
            high = max(min(y2, other[3]) - max(y1, other[1]) + 1, 0)
            both = (x2 - x1 + 1) * (y2 - y1 + 1)
            both += (other[2] - other[0] + 1) * (other[3] - other[1] + 1)
            if wide * high / (both - wide * high) > threshold:
                break
        else:
            kept.append(face)
    return kept


def expected_faces(found, image):
    """Cut at the borders."""
    height, width = image.shape[:2]
    cut = [(s, np.clip(b, 0, [width, height, width, height]), p) for s, b, p in found]
    return [face for face in cut if face[1][2] > face[1][0] and face[1][3] > face[1][1]]


def matched(found, boxes):
    """The faces in the order of these boxes; many have the same area, so their order is open."""
    assert np.all(np.diff(found.areas) <= 0)
    apart = np.abs(np.asarray(boxes, np.float32)[:, None] - found.boxes[None]).max(axis=2)
    nearest = apart.argmin(axis=1)
    assert sorted(nearest) == list(range(len(found)))
    return found[nearest]


def assert_same(found, expected):
    assert len(found) == len(expected)
    found = matched(found, [box for _, box, _ in expected])
    for face, (score, box, points) in zip(found, expected, strict=True):
        np.testing.assert_allclose(face.box, box, atol=2e-3)
        assert face.detection_score == pytest.approx(score, abs=1e-5)
        assert (face.landmarks is None) == (points is None)
        if points is not None:
            np.testing.assert_allclose(face.landmarks, points, atol=2e-3)


@pytest.mark.parametrize("count", FORMS)
@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_are_decoded_as_cell_by_cell(opened, count, engine):
    graph = convolving(count, seed=count)
    detector = Scrfd(opened(graph, engine), ScrfdSettings(sizes=((256, 128),)))
    images = [blotches(97, 211), blotches(301, 120, seed=1)]
    for image, found in zip(images, detector.detect(images), strict=True):
        faces = decoded(graph, count, image, (256, 128), 0.5)
        expected = expected_faces(thinned(faces, 0.4), image)
        assert len(faces) > len(expected) > 3
        assert_same(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"batched": True},
        {"order": (8, 0, 4, 1, 7, 2, 3, 5, 6)},
        {"size": (128, 128)},
        {"declared": 640},
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_how_the_graph_was_exported_changes_nothing(opened, options, engine):
    image = blotches(90, 120)
    settings = ScrfdSettings(sizes=((128, 128),), score_threshold=0.4, nms_threshold=0.3)
    plain = Scrfd(opened(convolving(9)), settings).detect([image])[0]
    other = Scrfd(opened(convolving(9, **options), engine), settings).detect([image])[0]
    assert len(plain) > 3
    other = matched(other, plain.boxes)
    np.testing.assert_allclose(other.boxes, plain.boxes, atol=1e-3)
    np.testing.assert_allclose(other.landmarks, plain.landmarks, atol=1e-3)


def test_several_sizes_are_one_answer(opened):
    graph, image = convolving(9, seed=2), blotches(151, 233)
    sizes = ((256, 256), (128, 128))
    found = Scrfd(opened(graph), ScrfdSettings(sizes=sizes)).detect([image])[0]
    parts = [decoded(graph, 9, image, size, 0.5) for size in sizes]
    apart = [expected_faces(thinned(part, 0.4), image) for part in parts]
    expected = expected_faces(thinned(parts[0] + parts[1], 0.4), image)
    assert_same(found, expected)
    assert len(expected) < len(apart[0]) + len(apart[1])


# Told what to find


SIZE = (640, 640)
FIVE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
PICTURES = {
    "odd": (479, 641),
    "upright": (1001, 333),
    "square": (640, 640),
    "panorama": (101, 4001),
    "tower": (3001, 77),
    "tiny": (13, 9),
    "line": (1, 900),
}


def told(image, boxes, count=9):
    """The graph that answers with these boxes (in parts of the picture), and where they lie."""
    height, width = image.shape[:2]
    inner = letterbox(image, *SIZE)[1]
    tables, places = blank(count, SIZE), []
    for number, part in enumerate(boxes):
        box = np.array(part) * [width, height, width, height]
        points = box[:2] + FIVE * (box[2:] - box[:2])
        seen = box * [*inner, *inner]
        level = number % 3
        stride = STRIDES[count][level]
        column, row = ((seen[:2] + seen[2:]) / 2 // stride).astype(int)
        write_face(
            tables,
            count,
            SIZE,
            cell=(level, column, row, number % 2),
            score=0.9 - 0.1 * number,
            box=seen,
            landmarks=points * inner,
        )
        places.append((box, points))
    return answering(tables, size=SIZE), places


@pytest.mark.parametrize("shape", PICTURES.values(), ids=PICTURES)
def test_exactly_the_faces_it_is_told_come_back(opened, shape):
    image = np.zeros((*shape, 3), np.uint8)
    boxes = [(0.1, 0.2, 0.25, 0.7), (0.5, 0.1, 0.9, 0.9), (0.3, 0.3, 0.45, 0.6)]
    graph, places = told(image, boxes)
    (found,) = Scrfd(opened(graph)).detect([image])
    assert len(found) == 3
    scale = max(shape)
    for face, number in zip(found, (1, 0, 2), strict=True):
        box, points = places[number]
        np.testing.assert_allclose(face.box, box, atol=2e-6 * scale)
        np.testing.assert_allclose(face.landmarks, points, atol=2e-6 * scale)
        assert face.detection_score == pytest.approx(0.9 - 0.1 * number)


def test_boxes_are_cut_at_the_borders_and_those_outside_go(opened):
    image = np.zeros((640, 640, 3), np.uint8)
    tables = blank(9, SIZE)
    points = [(-5, 3)] * 5
    for column, box in ((0, (-20, -10, 60, 700)), (70, (650, 10, 700, 60))):
        write_face(
            tables,
            9,
            SIZE,
            cell=(0, column, 2, 0),
            score=0.8,
            box=box,
            landmarks=points,
        )
    (found,) = Scrfd(opened(answering(tables, size=SIZE))).detect([image])
    np.testing.assert_allclose(found.boxes, [[0, 0, 60, 640]], atol=1e-4)
    np.testing.assert_allclose(found.landmarks, [points], atol=1e-4)


def test_no_face_is_an_empty_answer(opened):
    for count, landmarks in ((9, True), (6, False)):
        detector = Scrfd(opened(answering(blank(count, SIZE), size=SIZE)))
        (found,) = detector.detect([blotches(50, 60)])
        assert len(found) == 0
        assert (found.landmarks is not None) == landmarks
        assert detector.detect([]) == []


def test_threshold_size_and_number_are_kept_to(opened):
    image = np.zeros((640, 640, 3), np.uint8)
    graph, _ = told(image, [(0.1, 0.1, 0.2, 0.3), (0.4, 0.1, 0.8, 0.6), (0.1, 0.7, 0.2, 0.8)])
    engine = opened(graph)

    def widths(**options):
        (found,) = Scrfd(engine, ScrfdSettings(**options)).detect([image])
        return [round(face.width) for face in found]

    assert widths() == [256, 64, 64]
    assert widths(max_faces=1) == [256]
    assert widths(max_faces=9) == [256, 64, 64]
    assert widths(min_face_size=65) == [256, 64]
    assert widths(min_face_size=129) == [256]
    assert widths(min_face_size=2000) == []
    assert widths(score_threshold=0.75) == [256, 64]
    assert widths(score_threshold=0.95) == []


def test_overlapping_faces_stay_or_go_by_the_threshold(opened):
    image = np.zeros((640, 640, 3), np.uint8)
    tables = blank(6, SIZE)
    for level, shift in ((0, 0), (1, 50)):
        write_face(
            tables,
            6,
            SIZE,
            cell=(level, 10, 10, 1),
            score=0.9 - shift / 500,
            box=(100 + shift, 100, 200 + shift, 200),
        )
    engine = opened(answering(tables, size=SIZE))
    overlap = 51 * 101 / (2 * 101 * 101 - 51 * 101)
    for threshold, left in ((overlap - 1e-3, [100]), (overlap + 1e-3, [100, 150])):
        (found,) = Scrfd(engine, ScrfdSettings(nms_threshold=threshold)).detect([image])
        assert sorted(found.boxes[:, 0].round().tolist()) == left


# What is refused


class Fake:
    """An engine of one input shape that gives these outputs."""

    def __init__(self, shape, *outputs):
        self.inputs = {"x": shape} if shape is not None else {}
        self.outputs = {str(k): values for k, values in enumerate(outputs)}

    def run(self, feeds):
        return self.outputs

    def describe(self):
        return {}


@pytest.mark.parametrize(
    "options",
    [
        {"score_threshold": 1.5},
        {"nms_threshold": -0.1},
        {"min_face_size": -1},
        {"min_face_size": float("nan")},
        {"max_faces": -1},
        {"sizes": ()},
        {"sizes": ((640, 641),)},
        {"sizes": ((640,),)},
        {"sizes": ((0, 640),)},
        {"sizes": ((64000, 640),)},
        {"sizes": (640, 640)},
    ],
)
def test_settings_out_of_range_are_told(options):
    with pytest.raises(SettingsError, match=f"^{next(iter(options))} should be"):
        ScrfdSettings(**options)


def test_a_graph_of_one_size_takes_no_other(opened):
    engine = opened(convolving(9, size=(128, 128)))
    assert Scrfd(engine).sizes == ((128, 128),)
    with pytest.raises(SettingsError, match="takes pictures of 128x128 only.*Leave sizes out"):
        Scrfd(engine, ScrfdSettings(sizes=((640, 640), (128, 128))))


@pytest.mark.parametrize("shape", [None, (1, 3), (2, 3, 640, 640), (1, 640, 640, 3)])
def test_a_graph_that_takes_no_picture_is_told(shape):
    with pytest.raises(ModelFileError, match="should take one picture, 1 x 3 x H x W; this graph"):
        Scrfd(Fake(shape))


def test_outputs_that_are_none_of_a_detector_are_told():
    picture = blotches(40, 40)
    good = blank(9, (64, 64))
    wrong = [good[:8], [good[0][:5], *good[1:]], [g[None].repeat(2, 0) for g in good], []]
    for outputs in wrong:
        detector = Scrfd(Fake((1, 3, 64, 64), *outputs))
        with pytest.raises(ModelFileError, match="should give 6, 9, 10 or 15 tables of .*64x64"):
            detector.detect([picture])
    five = Scrfd(Fake((1, 3, None, None), *blank(15, (64, 64))), ScrfdSettings(sizes=((64, 64),)))
    with pytest.raises(ModelFileError, match="another size"):
        five.detect([picture])


@pytest.mark.parametrize("table", [3, 6])
def test_numbers_that_are_none_are_told(table):
    tables = blank(9, (64, 64))
    tables[0][5], tables[table][5] = 0.9, np.nan
    with pytest.raises(EngineError, match="finite numbers; it gave NaN or infinity"):
        Scrfd(Fake((1, 3, 64, 64), *tables)).detect([blotches(40, 40)])
