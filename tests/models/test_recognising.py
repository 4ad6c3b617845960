"""Models that are recognised by what is in them, through `facenet models import`."""

import hashlib

import checkpoint_maker as maker
import numpy as np
import pytest
from detector_graphs import convolving
from graph_maker import graph, picture
from onnx import TensorProto, helper, numpy_helper
from shell import refused, run
from small_nets import flatten
from test_convert_facenet_pytorch import GOLDEN, draw, saved
from test_convert_mtcnn import NETS, stored
from test_convert_mxnet import GOLDEN as MXNET
from test_convert_mxnet import saved as saved_params
from test_convert_networks import variables

import facenet
from facenet.faces.embed import standardise
from facenet.faces.scrfd import Scrfd
from facenet.models.convert.crc32c import crc32c
from facenet.models.convert.facenet_checkpoint import convert_checkpoint
from facenet.models.convert.facenet_pytorch import convert_state_dict
from facenet.models.convert.mxnet import convert_mxnet
from facenet.models.convert.mxnetfile import read_params
from facenet.models.convert.tensorflow import convert_frozen_graph
from facenet.models.engine import EngineSettings
from facenet.models.loader import load_model

STEP = "model-20170901-000000.ckpt-90"
CPU = EngineSettings(engine="onnxruntime", device="cpu")
TOLD = ("--crop", "margin_original", "--standardise", "per_image")


ORT = ("--engine", "onnxruntime")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


def vectors(photo, model, tmp_path):
    path = tmp_path / "vectors.npz"
    assert run("embed", photo, "--model", model, "--out", path).code == 0
    return np.load(path)["embeddings"]


@pytest.fixture
def photo(examples):
    return examples / "photos/hopper-rendition.jpg"


def arcface(*, inside=False, dimension=128):
    """A small recogniser with ArcFace's input and output; inside: it standardises itself."""
    weights = np.random.default_rng(2).standard_normal((147, dimension)).astype(np.float32)
    constants = {"w": weights, "half": np.float32(127.5), "part": np.float32(1 / 127.5)}
    nodes = [
        helper.make_node("Sub", ["data", "half"], ["less"]),
        helper.make_node("Mul", ["less", "part"], ["small"]),
    ]
    nodes = nodes if inside else []
    start = "small" if inside else "data"
    nodes += [
        helper.make_node("AveragePool", [start], ["p"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Flatten", ["p"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["fc1"]),
    ]
    made = helper.make_graph(
        nodes,
        "arcface",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, ["n", dimension])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


# Embedders


def test_a_checkpoint_is_imported_by_prefix_and_by_folder(home, tmp_path, photo):
    folder = tmp_path / "20170901"
    folder.mkdir()
    prefix = maker.write(folder, STEP, variables("squeezenet"), crc=crc32c)
    said = refused("models", "import", prefix)
    assert "TensorFlow checkpoint of squeezenet, 128 values, a class layer of 7" in said
    assert "Say it with --name NAME, --crop similarity|margin_original|margin_output, --st" in said
    made = run("models", "import", prefix, "--name", "squeezed", *TOLD, "--margin", 32, "--json")
    assert (made.json["dimension"], made.json["kind"]) == (128, "embedder")
    card = facenet.find_card("squeezed")
    assert card.source.sha256 == sha256((folder / f"{STEP}.index").read_bytes())
    assert card.preprocess == facenet.Preprocess(160, 160, "margin_original", "per_image", 32)
    file = home / "models/squeezed/squeezed.onnx"
    assert file.read_bytes() == convert_checkpoint(prefix)
    again = ("models", "import", folder, "--name", "squeezed", *TOLD, "--margin", 32)
    assert run(*again, "--overwrite", "--json").json == made.json
    assert run("models", "check", "squeezed").code == 0
    found = vectors(photo, "squeezed", tmp_path)
    assert found.shape == (1, 128)
    np.testing.assert_allclose(found, facenet.embed(photo, model="squeezed"), atol=1e-5)


def test_checkpoints_that_cannot_be_taken(home, tmp_path):
    for name in ("m.ckpt-1", "m.ckpt-2"):
        maker.write(tmp_path, name, {"a/weights": np.ones((2, 3), np.float32)})
    assert "2 are there" in refused("models", "import", tmp_path / "m.ckpt", "--name", "x", *TOLD)
    said = refused("models", "import", tmp_path / "m.ckpt-1", "--name", "x", *TOLD)
    assert "this is another network" in said
    assert "no such file" in refused("models", "import", tmp_path / "n.ckpt")
    assert not (home / "models/x").exists()


def test_a_frozen_graph_is_imported(home, tmp_path):
    data = graph(picture(), flatten("input", 768))
    file = tmp_path / "own.pb"
    file.write_bytes(data)
    assert "It is a frozen graph of TensorFlow. Say it with" in refused("models", "import", file)
    asked = ("models", "import", file, "--name", "frozen", *TOLD)
    assert run(*asked, "--size", 16, "--json").json["dimension"] == 768
    assert (home / "models/frozen/frozen.onnx").read_bytes() == convert_frozen_graph(data, size=16)
    file.write_bytes(data[:-9])
    assert refused(*asked, "--overwrite", "--size", 16).startswith("own.pb: ")


def test_facenet_pytorch_tells_its_own_preprocessing(home, tmp_path, photo):
    golden = np.load(GOLDEN)
    names = [str(name) for name in golden["names"]]
    shapes = [tuple(side for side in shape if side) for shape in golden["shapes"]]
    state = {n: draw(3, n, s, row) for row, (n, s) in enumerate(zip(names, shapes, strict=True))}
    data = saved(state)
    file = tmp_path / "20180402-vggface2.pt"
    file.write_bytes(data)
    made = run("models", "import", file)
    assert made.out.startswith("20180402-vggface2: imported, 512 values, contract 20180402-")
    card = facenet.find_card("20180402-vggface2")
    assert card.preprocess == facenet.Preprocess(160, 160, "margin_output", "fixed", 0)
    assert "class layer of 7 left out" in card.notes
    assert (home / f"models/{card.name}/{card.name}.onnx").read_bytes() == convert_state_dict(data)
    run("models", "import", file, "--name", "wide", "--crop", "margin_original", "--margin", 32)
    preprocess = facenet.find_card("wide").preprocess
    assert (preprocess.crop, preprocess.margin) == ("margin_original", 32)
    assert vectors(photo, "wide", tmp_path).shape == (1, 512)
    file.write_bytes(saved({"fc.weight": np.ones((2, 2), np.float32)}))
    assert "its first tensor is 'fc.weight'" in refused("models", "import", file, "--name", "b")


def test_arcface_is_known_whether_it_standardises_itself_or_not(home, tmp_path, photo):
    (tmp_path / "plain.onnx").write_bytes(arcface())
    (tmp_path / "inside.onnx").write_bytes(arcface(inside=True))
    for name, how in (("plain", "insightface"), ("inside", "none")):
        assert run("models", "import", tmp_path / f"{name}.onnx").code == 0
        assert facenet.find_card(name).preprocess == facenet.Preprocess(112, 112, "similarity", how)
    first, second = (vectors(photo, name, tmp_path) for name in ("plain", "inside"))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert facenet.find_card("plain").contract != facenet.find_card("inside").contract
    told = ("--name", "own", "--standardise", "fixed", "--color", "bgr")
    assert run("models", "import", tmp_path / "plain.onnx", *told).code == 0
    preprocess = facenet.find_card("own").preprocess
    assert (preprocess.standardise, preprocess.color) == ("fixed", "bgr")
    crops = np.arange(2 * 16 * 16 * 3).reshape(2, 16, 16, 3).astype(np.uint8)
    values = standardise(crops, facenet.Preprocess(16, 16, "similarity", "none"))
    np.testing.assert_array_equal(values, crops.transpose(0, 3, 1, 2).astype(np.float32))


def test_a_network_of_mxnet_is_imported_from_either_file(home, tmp_path, photo):
    golden = np.load(MXNET)
    symbol, params = (golden[f"lresnet_{part}"].tobytes() for part in ("symbol", "params"))
    (tmp_path / "model-symbol.json").write_bytes(symbol)
    (tmp_path / "model-0000.params").write_bytes(params)
    asked = "--crop", "similarity", "--standardise", "none", "--overwrite", "--name", "lres"
    cards = []
    for given in (tmp_path, tmp_path / "model-symbol.json", tmp_path / "model-0000.params"):
        assert run("models", "import", given, *asked).code == 0
        cards.append(facenet.find_card("lres"))
    assert cards[0] == cards[1] == cards[2]
    assert cards[0].source.sha256 == sha256(symbol, params)
    file = home / "models/lres/lres.onnx"
    assert file.read_bytes() == convert_mxnet(symbol, params)
    symbol, weights = golden["mobile_symbol"].tobytes(), golden["mobile_params"].tobytes()
    weights = read_params(weights)
    weights["fc1_weight"] = np.tile(weights["fc1_weight"], (8, 1))
    (tmp_path / "model-symbol.json").write_bytes(symbol)
    (tmp_path / "model-0000.params").write_bytes(saved_params(weights))
    assert run("models", "import", tmp_path, "--json").json["name"] == "model-0000"
    card = facenet.find_card("model-0000")
    assert card.preprocess == facenet.Preprocess(112, 112, "similarity", "none")
    assert card.dimension == 160
    assert vectors(photo, "model-0000", tmp_path).shape == (1, 160)
    (tmp_path / "model-symbol.json").unlink()
    assert "half a network of MXNet" in refused("models", "import", tmp_path / "model-0000.params")


# Detectors


@pytest.mark.parametrize("size", [None, (640, 640)])
def test_a_detector_of_insightface_is_imported_and_detects(home, tmp_path, photo, size):
    (tmp_path / "det_small.onnx").write_bytes(convolving(9, size=size))
    made = run("models", "import", tmp_path / "det_small.onnx", "--json").json
    assert (made["name"], made["kind"], made["dimension"]) == ("det_small", "detector", None)
    assert run("models", "check", "det_small").code == 0
    sides = (128, 128) if size is None else size
    (golden,) = facenet.find_card("det_small").golden.values()
    assert golden.shape == (1, 3, *sides)
    ran = run("detect", photo, "--detector", "det_small", "--min-face-size", 3, *ORT, "--json")
    engine = load_model("det_small", settings=CPU).engine
    settings = facenet.ScrfdSettings(min_face_size=3)
    (expected,) = Scrfd(engine, settings).detect([facenet.load_image(photo)])
    assert len(ran.json) == len(expected) > 0
    boxes = [row["box"] for row in ran.json]
    np.testing.assert_allclose(boxes, expected.boxes, atol=0.1)
    said = refused("detect", photo, "--detector", "det_small", "--factor", 0.5)
    assert "--factor is for MTCNN only, and the detector det_small is none" in said
    recognizer = facenet.Recognizer(detector="det_small")
    assert '"score_threshold": 0.5' in recognizer.detection
    with pytest.raises(facenet.SettingsError, match="takes ScrfdSettings; got MtcnnSettings"):
        facenet.Recognizer(detector="det_small", detection=facenet.MtcnnSettings())


def test_the_parts_of_mtcnn_become_one_detector(home, tmp_path, photo):
    folder = tmp_path / "weights"
    folder.mkdir()
    for net in NETS:
        (folder / f"{net}.pt").write_bytes(saved(stored(net)))
    said = refused("models", "import", folder)
    assert said.endswith("Say it with --name NAME.")
    assert run("models", "import", folder, "--name", "cascade").out.startswith(
        "cascade: imported, detector, contract cascade:"
    )
    parts = [(folder / f"{net}.pt").read_bytes() for net in NETS]
    assert facenet.find_card("cascade").source.sha256 == sha256(*parts)
    assert run("models", "check", "cascade").code == 0
    built_in, imported = (
        run("detect", photo, "--detector", name, "--factor", 0.6, "--json").json
        for name in ("mtcnn", "cascade")
    )
    assert built_in == imported != []
    lonely = refused("models", "import", folder / "rnet.pt", "--name", "x")
    assert "rnet.pt is one part of MTCNN, its R-net. Put the files" in lonely
    (folder / "onet.pt").write_bytes(parts[0])
    assert "it holds two of pnet" in refused("models", "import", folder, "--name", "x")


# Packs


def test_a_pack_gives_its_detector_and_its_recogniser(home, tmp_path, photo):
    pack = tmp_path / "buffalo_x"
    pack.mkdir()
    (pack / "det.onnx").write_bytes(convolving(6))
    (pack / "rec.onnx").write_bytes(arcface(dimension=256))
    (pack / "odd.onnx").write_bytes(b"nothing")
    ran = run("models", "import", pack, "--json")
    assert [(row["name"], row["dimension"]) for row in ran.json] == [
        ("buffalo_x-detector", None),
        ("buffalo_x-recogniser", 256),
    ]
    for line in (
        "det.onnx: detector, 3 strides",
        "rec.onnx: recogniser, 256",
        "odd.onnx: expected",
    ):
        assert line in ran.err
    run("models", "import", pack, "--name", "mine")
    assert {"mine-detector", "mine-recogniser"} <= set(facenet.models.catalog.catalog())
    (pack / "rec.onnx").unlink()
    (pack / "det.onnx").unlink()
    assert "should hold a detector or a recogniser" in refused("models", "import", pack)


def test_a_graph_that_is_unknown_says_what_it_takes(home, tmp_path):
    (tmp_path / "odd.onnx").write_bytes(arcface(dimension=7))
    said = refused("models", "import", tmp_path / "odd.onnx", "--name", "odd")
    assert "a graph with the input data (any x 3 x 112 x 112) and the output fc1 (any x 7)" in said
