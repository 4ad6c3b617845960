"""What is measured with, what facenet does with it, and what is said of the machine."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import pytest
from clips import noise, write_clip
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from shell import blank

from facenet.apps.jobs.benching import machine
from facenet.apps.jobs.benching.floor import (
    Probe,
    pnet_work,
    probe_feed,
    probe_graph,
    probe_work,
)
from facenet.apps.jobs.benching.machine import Moment
from facenet.apps.jobs.benching.material import (
    GREY,
    faces_on_canvas,
    files,
    first_frames,
    fitted,
    frames,
    one_face,
    save_frames,
)
from facenet.apps.jobs.benching.ours import Ours, Parts
from facenet.errors import InputError
from facenet.faces.embed import Embedder
from facenet.faces.mtcnn import MtcnnSettings
from facenet.models.catalog import package_folder
from facenet.models.engine import EngineSettings, open_engine
from facenet.recognizer import Recognizer
from facenet.types import Faces

# ---- pictures


def test_a_picture_is_fitted_without_being_stretched():
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :, 0] = 200
    canvas = fitted(image, (100, 100), 1.0)
    assert canvas.shape == (100, 100, 3)
    assert (canvas[:50] == GREY).all()
    assert (canvas[50:] == (200, 0, 0)).all()
    assert (fitted(image, (100, 100), 0.0)[:50] == (200, 0, 0)).all()
    tall = fitted(np.zeros((400, 4, 3), np.uint8), (30, 30), 0.5)
    assert (tall[:, 14] == 0).all()
    assert (tall != GREY).any(axis=(0, 2)).sum() == 1
    same = noise(1, (30, 20))[0]
    assert np.array_equal(fitted(same, (30, 20), 0.3), same)


def test_frames_of_a_video_are_spread_or_follow_one_another(tmp_path):
    pictures = noise(20)
    clip = write_clip(tmp_path / "clip.mkv", pictures, codec="ffv1", pixels="bgr0")
    found = frames(clip, None, 4)
    assert found.origin == "4 frames of clip.mkv"
    for got, number in zip(found.images, (0, 5, 10, 15), strict=True):
        assert np.array_equal(got, pictures[number])
    following = first_frames(clip, 3)
    assert all(map(np.array_equal, following, pictures[:3]))
    save_frames(found.images, (24, 16), tmp_path / "f.npy")
    assert np.load(tmp_path / "f.npy").shape == (4, 16, 24, 3)
    name, paths = files(clip, None, tmp_path)
    assert (name, len(paths)) == ("clip", 20)
    assert cv2.imread(str(paths[7])).shape == (32, 48, 3)


def test_where_pictures_come_from_is_said(tmp_path, examples):
    for number in range(5):
        blank(tmp_path / "set" / f"{number}.png", (40 + number, 30))
    found = frames(None, tmp_path / "set", 3)
    assert [image.shape[1] for image in found.images] == [40, 42, 44]
    assert found.origin.startswith("3 pictures of ")
    blank(tmp_path / "large" / "a.png", (4000, 500))
    assert frames(None, tmp_path / "large", 3).images[0].shape == (240, 1920, 3)
    assert len(frames(None, None, 2).images) == 2
    away = frames(None, None, 2, roots=(tmp_path,))
    assert away.origin.startswith("2 generated pictures without faces")
    assert not np.array_equal(*away.images)
    with pytest.raises(InputError, match="give --images DIR"):
        files(None, None, tmp_path, roots=(tmp_path,))
    assert files(None, tmp_path / "set", tmp_path)[0] == "set"
    assert files(None, examples / "photos", tmp_path)[0] == "examples"


def test_one_face_is_put_into_as_many_places_as_asked(tmp_path):
    paths = [blank(tmp_path / f"{number}.png", (80, 90), (200, 0, 0)) for number in range(2)]
    none_first = ToyDetector([Faces.empty(), toy_faces((30, 30, 50, 50))])
    face = one_face(paths, none_first)
    assert face.shape == (40, 40, 3)  # half as much again on each side
    for count in (1, 5, 20):
        canvas = cv2.imdecode(np.frombuffer(faces_on_canvas(face, count), np.uint8), 1)
        assert canvas.shape == (720, 1280, 3)
        red = (canvas[:, :, 2].astype(int) - canvas[:, :, 1] > 60).astype(np.uint8)
        assert cv2.connectedComponents(red)[0] - 1 == count
    with pytest.raises(InputError, match="should show a face"):
        one_face(paths, ToyDetector(Faces.empty()))


# ---- what facenet does


@pytest.fixture
def ours():
    """Facenet of toys: a face in every picture, a random projection for a network."""
    toy = Embedder(toy_card(fmr=toy_fmr()), ToyEngine())
    detector = ToyDetector(toy_faces())
    return Ours(
        Parts(
            detector=lambda task: detector,
            embedder=lambda task: toy,
            recognizer=lambda task: Recognizer.from_parts(detector, toy),
            probe=lambda task: ToyEngine(shape=(256, 56, 56)),
        )
    )


def test_mixed_frames_are_of_no_two_sizes(tmp_path):
    widths = []

    def find(image):
        widths.append(image.shape[1])
        return Faces.empty()

    parts = Parts(*[lambda task: ToyDetector(find)] * 4)
    np.save(tmp_path / "frames.npy", np.zeros((4, 60, 70, 3), np.uint8))
    task = {"job": "detect", "frames": str(tmp_path / "frames.npy"), "together": True}
    for mixed in (False, True):
        job, _ = Ours(parts).open({**task, "mixed": mixed})
        assert job(None)["items"] == 4
    assert widths == [70] * 4 + [70, 69, 68, 67]


def test_every_job_does_what_it_counts(ours, tmp_path):
    pictures = tmp_path / "frames.npy"
    np.save(pictures, np.zeros((7, 60, 70, 3), np.uint8))
    for together in (False, True):
        job, _ = ours.open({"job": "detect", "frames": str(pictures), "together": together})
        assert job(None) == {"items": 7, "faces": 7}
    task = {"job": "detect", "frames": str(pictures), "together": False, "arithmetic": "bf16"}
    job, facts = ours.open(task)
    assert (job(None), facts) == ({"items": 7, "faces": 7}, {"recall": 1.0, "expected": 7})
    job, facts = ours.open({"job": "strided", "frames": str(pictures), "stride": 4})
    assert (job(None), facts) == ({"items": 7, "faces": 7}, {"recall": 1.0, "expected": 7})

    crops = tmp_path / "crops.npy"
    np.save(crops, np.zeros((10, 16, 16, 3), np.uint8))
    job, facts = ours.open({"job": "embed", "crops": str(crops), "batch": 4})
    assert (job(None), facts["engine"]) == ({"items": 10}, "toy")

    photos = [str(blank(tmp_path / f"{number}.png")) for number in range(3)]
    (tmp_path / "no.jpg").write_bytes(b"nothing")
    job, _ = ours.open({"job": "pipeline"})
    assert job([*photos, str(tmp_path / "no.jpg")]) == {"items": 4, "faces": 3}
    for stage in ("read", "detect", "embed"):
        some = [str(tmp_path / "no.jpg"), *photos]
        job, _ = ours.open({"job": "stage", "stage": stage, "photos": some})
        assert job(None) == {"items": 3}
    job, _ = ours.open({"job": "latency", "photo": photos[0], "people": 9})
    assert job(None) == {"items": 1, "faces": 1}


def test_a_stage_needs_a_face(tmp_path):
    toy = Embedder(toy_card(), ToyEngine())
    blind = Recognizer.from_parts(ToyDetector(Faces.empty()), toy)
    ours = Ours(Parts(lambda t: None, lambda t: toy, lambda t: blind, lambda t: None))
    task = {"job": "stage", "stage": "read", "photos": [str(blank(tmp_path / "a.png"))]}
    with pytest.raises(InputError, match="should show a face"):
        ours.open(task)


# ---- the floor


def work_of(model, size):
    """Operations of the convolutions of an ONNX graph on a picture, from the shapes inside it."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    for dim, value in zip(sides, (1, 3, size[1], size[0]), strict=True):
        dim.Clear()
        dim.dim_value = value
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in (*graph.value_info, *graph.output)}  # fmt: skip
    weights = {w.name: list(w.dims) for w in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += 2 * np.prod(shapes[node.output[0]]) * np.prod(weights[node.input[1]][1:])
    return int(total)


def test_the_work_of_pnet_is_that_of_its_graph_over_the_pyramid():
    path = package_folder() / "weights" / "pnet.onnx"
    for size, settings in (
        ((64, 48), MtcnnSettings(min_face_size=12, factor=0.709)),
        ((333, 201), MtcnnSettings(min_face_size=40, factor=0.5)),
    ):
        scale, expected = 12 / settings.min_face_size, 0
        while min(size) * scale >= 12:
            level = [int(side * scale + 1) for side in size]
            expected += work_of(onnx.load(path), level)
            scale *= settings.factor
        assert pnet_work(size, settings) == pytest.approx(expected, rel=1e-12)
    assert pnet_work((1920, 1080)) / 1e9 == pytest.approx(5.32, abs=0.01)  # "about 5.4 GFLOP"


def test_the_probe_is_a_convolution_of_known_work(tmp_path):
    probe = Probe(channels=3, side=5, repeats=1)
    path = tmp_path / "probe.onnx"
    path.write_bytes(probe_graph(probe))
    feed = probe_feed(probe)
    (answer,) = open_engine(path, EngineSettings(engine="onnxruntime")).run(feed).values()
    weights = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    padded = np.pad(feed["image"][0], [(0, 0), (1, 1), (1, 1)])
    count = 0
    for channel in range(3):
        for row in range(5):
            for column in range(5):
                window = padded[:, row : row + 3, column : column + 3]
                count += 2 * window.size
                expected = (window * weights[channel]).sum()
                assert answer[0, channel, row, column] == pytest.approx(expected, abs=1e-5)
    assert probe_work(probe) == count


# ---- the machine


def test_what_others_used_is_what_was_busy_less_our_own():
    before = Moment(at=100, load=0.5, busy=1000, own=10)
    after = Moment(at=110, load=2.5, busy=1018, own=23)
    assert machine.others(before, after) == pytest.approx(0.5)
    assert machine.others(before, Moment(110, 1, 1005, 20)) == 0
    assert machine.others(before, Moment(110, 1, None, 20)) is None
    facts = machine.describe(before, after)
    assert (facts["load"], facts["load_after"]) == (0.5, 2.5)
    assert facts["threads"] >= 1
    assert facts["numpy"] == np.__version__
    assert set(facts["features"]) <= set(facts["processor"].split())


@pytest.mark.parametrize(
    ("load", "others", "said"),
    [(0.3, 0.1, []), (2.5, 0.1, ["a load of 2.5 on 2"]), (0.3, 0.8, ["0.8 processors busy"]),
     (None, None, []), (9.0, 2.0, ["a load of 9.0", "2.0 processors"])],
)  # fmt: skip
def test_a_busy_machine_is_told(load, others, said):
    found = machine.warnings({"load": load, "others": others, "threads": 2})
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))


def test_this_moment_can_be_told():
    first, second = machine.now(), machine.now()
    assert second.at >= first.at
    assert second.own >= first.own
    assert first.busy is None or second.busy >= first.busy
