"""`facenet models import` of any ONNX file: what is asked for, assumed, told and corrected."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detector_graphs import convolving, packed, port
from onnx import TensorProto, helper, numpy_helper
from shell import refused, run
from test_recognising import arcface

import facenet
from facenet.faces.embed import standardise
from facenet.models.card import Preprocess
from facenet.models.engine import EngineSettings
from facenet.models.loader import load_model

CPU = EngineSettings(engine="onnxruntime", device="cpu")
ORT = ("--engine", "onnxruntime")
TOLD = ("--name", "own", "--crop", "margin_original", "--standardise", "per_image")
FORMS = (
    "Known are MTCNN as three files, YuNet as OpenCV has it, with 12 outputs, and SCRFD or "
    "RetinaFace as InsightFace exports them"
)


@pytest.fixture
def photo(examples):
    return examples / "photos/hopper-rendition.jpg"


def averaging(path, sides, *, dimension=6, outputs=1):
    """An embedder of averages of the picture's channels; sides: of its input."""
    weights = np.random.default_rng(0).standard_normal((3, dimension)).astype(np.float32)
    axes = [1, 2] if sides[-1] == 3 else [2, 3]
    names = ["vector", "again"][:outputs]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["face"], ["mean"], axes=axes, keepdims=0),
            *(helper.make_node("MatMul", ["mean", "weights"], [name]) for name in names),
        ],
        "own",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", *sides])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", dimension])
            for name in names
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path, weights


def vectors(photo, model, tmp_path):
    path = tmp_path / "vectors.npz"
    assert run("embed", photo, "--model", model, "--out", path, *ORT).code == 0
    return np.load(path)["embeddings"]


def expected(photo, preprocess, weights):
    """What the embedder of averages says of the face in a photo."""
    image, faces = facenet.load_image(photo), facenet.detect(photo)
    values = standardise(facenet.crop_faces(image, faces, preprocess), preprocess)
    got = values.astype(np.float64).mean(axis=(2, 3)) @ weights
    return got / np.linalg.norm(got, axis=1, keepdims=True)


# Embedders


def test_what_cannot_be_known_is_asked_for_with_its_choices(home, tmp_path):
    path, _ = averaging(tmp_path / "any.onnx", [3, "h", "w"])
    said = refused("models", "import", path)
    assert "It is a graph with the input face (any x 3 x any x any) and the output vect" in said
    assert said.endswith(
        "Say it with --name NAME, --size PIXELS, --crop similarity|margin_original|margin_output, "
        "--standardise fixed|per_image|insightface|none. Where it is so, add --color bgr and "
        "--margin PIXELS."
    )
    assert "Say it with --size PIXELS. Where" in refused("models", "import", path, *TOLD)
    assert run("models", "import", path, *TOLD, "--size", "40x48").code == 0
    assert facenet.find_card("own").preprocess == Preprocess(40, 48, "margin_original", "per_image")
    wide, _ = averaging(tmp_path / "wide.onnx", [3, 48, 40])
    assert run("models", "import", wide, *TOLD, "--overwrite").code == 0
    assert facenet.find_card("own").preprocess.width == 40


def test_what_is_assumed_is_told_and_on_the_card(home, tmp_path):
    path, _ = averaging(tmp_path / "any.onnx", [3, 64, 64])
    ran = run("models", "import", path, *TOLD)
    assert ran.err == (
        "facenet: own: assumed --margin 0 --color rgb, as is usual for such a file, which does "
        "not say it. Where that is wrong, import it again with the right flags and --overwrite.\n"
    )
    notes = facenet.find_card("own").notes
    assert "Told at the import: crop margin_original, standardise per_image." in notes
    assert notes.endswith("Assumed at the import: margin 0, color rgb.")
    ran = run("models", "import", path, *TOLD, "--margin", 8, "--color", "bgr", "--overwrite")
    assert ran.err == ""
    card = facenet.find_card("own")
    assert (card.preprocess.margin, card.preprocess.color) == (8, "bgr")
    assert "Assumed" not in card.notes


def test_channels_last_are_found_and_used(home, tmp_path, photo):
    told = ("--crop", "margin_output", "--standardise", "fixed", "--color", "bgr")
    path, weights = averaging(tmp_path / "last.onnx", [72, 64, 3])
    assert run("models", "import", path, "--name", "last", "--kind", "embedder", *told).code == 0
    preprocess = facenet.find_card("last").preprocess
    assert (preprocess.width, preprocess.height, preprocess.color) == (64, 72, "bgr")
    got = vectors(photo, "last", tmp_path)
    np.testing.assert_allclose(got, expected(photo, preprocess, weights), atol=1e-5)
    path, _ = averaging(tmp_path / "first.onnx", [3, 72, 64])
    run("models", "import", path, "--name", "first", *told)
    np.testing.assert_allclose(got, vectors(photo, "first", tmp_path), atol=1e-6)


def test_an_arcface_says_what_was_assumed_and_takes_corrections(home, tmp_path, photo):
    path = tmp_path / "face.onnx"
    path.write_bytes(arcface())
    ran = run("models", "import", path)
    flags = "--crop similarity --standardise insightface --color rgb"
    assert ran.err.startswith(f"facenet: face: assumed {flags}, as is usual")
    assert ran.err.count("\n") == 1
    first = facenet.find_card("face")
    assert "Assumed at the import: crop similarity, standardise insightface" in first.notes
    before = vectors(photo, "face", tmp_path)
    ran = run("models", "import", path, "--standardise", "per_image", "--overwrite")
    assert "assumed --crop similarity --color rgb, as" in ran.err
    second = facenet.find_card("face")
    assert second.preprocess.standardise == "per_image"
    assert "Told at the import: standardise per_image." in second.notes
    assert second.contract != first.contract
    assert np.abs(vectors(photo, "face", tmp_path) - before).max() > 1e-3
    (tmp_path / "inside.onnx").write_bytes(arcface(inside=True))
    assert (
        "assumed --crop similarity --color rgb"
        in run("models", "import", tmp_path / "inside.onnx").err
    )


def test_a_card_may_be_corrected_by_hand(home, tmp_path, photo):
    path = tmp_path / "face.onnx"
    path.write_bytes(arcface())
    run("models", "import", path)
    run("models", "import", path, "--name", "right", "--standardise", "none")
    card = home / "models/face/card.json"
    values = json.loads(card.read_text())
    values["preprocess"]["standardise"] = "none"
    card.write_text(json.dumps(values))
    np.testing.assert_array_equal(
        vectors(photo, "face", tmp_path), vectors(photo, "right", tmp_path)
    )
    assert run("models", "show", "face", "--json").json["preprocess"]["standardise"] == "none"
    assert run("models", "check", "face").code == 0


def test_flags_that_do_not_fit_an_embedder(home, tmp_path):
    path, _ = averaging(tmp_path / "any.onnx", [3, 64, 64])
    said = refused("models", "import", path, *TOLD, "--mean", "0", "--scale", "1")
    assert said.startswith("--mean and --scale is for detectors, and any.onnx is an embedder. Say")
    assert "kind should be one of detector, embedder; got 'both'" in refused(
        "models", "import", path, *TOLD, "--kind", "both"
    )
    assert "mean should be one number or three" in refused("models", "import", path, "--mean", "x")
    (tmp_path / "face.onnx").write_bytes(arcface())
    said = refused("models", "import", tmp_path / "face.onnx", "--kind", "detector")
    assert "kind detector, as --kind says; it is of the kind embedder: recogniser, 128 val" in said
    assert not (home / "models").exists()


# Detectors


def test_a_detector_is_fed_as_it_is_told(home, tmp_path, photo):
    """Two graphs that look alike, one trained on BGR less three means: both find the same."""
    (tmp_path / "plain.onnx").write_bytes(convolving(9))
    kernels = turned(convolving(9))
    (tmp_path / "other.onnx").write_bytes(kernels)
    assert run("models", "import", tmp_path / "plain.onnx", "--kind", "detector").err == ""
    told = ("--color", "bgr", "--mean", "104,117,123", "--scale", "1")
    assert run("models", "import", tmp_path / "other.onnx", *told).code == 0
    assert facenet.find_card("other").notes == (
        "Detector, 3 strides, with landmarks. Told at the import: color bgr, mean 104,117,123, "
        "scale 1. Fed as BGR, mean 104,117,123, scale 1."
    )
    assert run("models", "check", "other").code == 0
    asked = ("detect", photo, "--min-face-size", 3, *ORT, "--json", "--detector")
    first, second = (run(*asked, name).json for name in ("plain", "other"))
    assert len(first) == len(second) > 0
    for one, two in zip(first, second, strict=True):
        np.testing.assert_allclose(one["box"], two["box"], atol=0.2)
    run("models", "import", tmp_path / "other.onnx", "--overwrite")
    assert facenet.find_card("other").notes.endswith("Fed as RGB, mean 127.5, scale 128.")
    assert len(run(*asked, "other").json) != len(first)  # the wrong feeding is no detail


def turned(data):
    """The same detector for BGR - (104, 117, 123): a front that undoes it, at its beginning."""
    import onnx

    model = onnx.load_from_string(data)
    for node in model.graph.node:
        node.input[:] = ["usual" if name == "input.1" else name for name in node.input]
    shift = np.array([104 - 127.5, 117 - 127.5, 123 - 127.5], np.float32).reshape(3, 1, 1)
    constants = {"shift": shift, "part": np.float32(1 / 128), "order": np.array([2, 1, 0])}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()
    )
    front = [
        helper.make_node("Add", ["input.1", "shift"], ["back"], name="front_a"),
        helper.make_node("Gather", ["back", "order"], ["rgb"], axis=1, name="front_b"),
        helper.make_node("Mul", ["rgb", "part"], ["usual"], name="front_c"),
    ]
    own = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*front, *own])
    return model.SerializeToString()


def test_a_detector_that_standardises_itself_gets_plain_values(home, tmp_path):
    """As InsightFace's RetinaFace does: a subtraction and a multiplication at the beginning."""
    import onnx

    model = onnx.load_from_string(convolving(15))
    for node in model.graph.node:
        node.input[:] = ["small" if name == "input.1" else name for name in node.input]
    constants = {"half": np.float32(127.5), "part": np.float32(1 / 128)}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()
    )
    model.graph.node.insert(0, helper.make_node("Sub", ["input.1", "half"], ["less"]))
    model.graph.node.insert(1, helper.make_node("Mul", ["less", "part"], ["small"]))
    (tmp_path / "retina.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "plain.onnx").write_bytes(convolving(15))
    for name in ("retina", "plain"):
        assert run("models", "import", tmp_path / f"{name}.onnx").code == 0
    assert facenet.find_card("retina").notes.endswith("Fed as RGB, mean 0, scale 1.")
    values = np.random.default_rng(0).uniform(-1, 1, (1, 3, 128, 128)).astype(np.float32)
    got, wanted = (load_model(name, settings=CPU).engine for name in ("retina", "plain"))
    for one, two in zip(
        got.run({next(iter(got.inputs)): values}).values(),
        wanted.run({"input.1": values}).values(),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, atol=1e-3)


def test_the_size_and_the_usual_standardisations_of_a_detector(home, tmp_path, photo):
    (tmp_path / "d.onnx").write_bytes(convolving(6))
    told = ("--size", "320x256", "--standardise", "insightface")
    assert run("models", "import", tmp_path / "d.onnx", *told).code == 0
    card = facenet.find_card("d")
    assert card.notes.endswith("Fed as RGB, mean 127.5, scale 127.5, pictures of 320x256.")
    assert card.golden["d"].shape == (1, 3, 256, 320)
    assert run("detect", photo, "--detector", "d", *ORT).code == 0
    again = ("models", "import", tmp_path / "d.onnx", "--overwrite")
    for flags, message in [
        (("--standardise", "per_image"), "--standardise fixed|insightface|none, or else with --me"),
        (("--standardise", "none", "--mean", "1"), "or else with --mean and --scale. Give one"),
        (("--crop", "similarity", "--size", "32"), "--crop says nothing of d.onnx, which is dete"),
        (("--color", "grey"), "color should be one of rgb, bgr; got 'grey'"),
        (("--mean", "1,2"), "mean should be one number or three"),
        (("--scale", "0"), "scale should be above 0"),
        (("--size", "100"), "d.onnx is not supported: for a picture of 100x100 it gives"),
        (("--kind", "embedder"), "kind embedder, as --kind says; it is of the kind detector: d"),
    ]:
        assert message in refused(*again, *flags)
    assert facenet.find_card("d") == card
    (tmp_path / "fixed.onnx").write_bytes(convolving(6, size=(640, 640)))
    said = refused("models", "import", tmp_path / "fixed.onnx", "--size", "320")
    assert said == (
        "fixed.onnx takes pictures of 640x640, as its graph says, and not of 320x320. Leave --size "
        "out."
    )


def test_a_graph_that_no_decoder_fits_is_refused_with_the_known_forms(home, tmp_path):
    path, _ = averaging(tmp_path / "any.onnx", [3, 64, 64])
    said = refused("models", "import", path, "--kind", "detector", "--name", "x")
    assert said.startswith("any.onnx is not supported as a detector: it is a graph with the input")
    assert FORMS in said
    two, _ = averaging(tmp_path / "two.onnx", [3, 64, 64], outputs=2)
    said = refused("models", "import", two)
    assert "should have one input and one output; it has face and vector, again. As a det" in said
    assert FORMS.replace("Known", "known") in said
    assert FORMS in refused("models", "import", two, "--kind", "detector", "--name", "x")
    nodes = [helper.make_node("Identity", ["input"], [f"o{k}"]) for k in range(9)]
    outputs = [port(f"o{k}", ["a", "b", "c", ["d", 4, 10][k // 3]]) for k in range(9)]
    (tmp_path / "odd.onnx").write_bytes(
        packed(nodes, [port("input", [1, 3, "h", "w"])], outputs, {})
    )
    said = refused("models", "import", tmp_path / "odd.onnx", "--kind", "detector")
    assert "odd.onnx is not supported" in said
    assert FORMS in said
    assert not (home / "models/odd/card.json").exists()
