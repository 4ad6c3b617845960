import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "src/facenet/models/weights"
GOLDEN = ROOT / "tests/golden"
SHAPES = {
    "pnet": {
        "image": ["batch", 3, "height", "width"],
        "score": ["batch", "rows", "columns"],
        "offset": ["batch", 4, "rows", "columns"],
    },
    "rnet": {"image": ["batch", 3, 24, 24], "score": ["batch"], "offset": ["batch", 4]},
    "onet": {
        "image": ["batch", 3, 48, 48],
        "score": ["batch"],
        "offset": ["batch", 4],
        "landmark": ["batch", 10],
    },
    "mobilefacenet": {"image": ["batch", 3, 112, 112], "embedding": ["batch", 192]},
}


def run_ort(name, image):
    session = onnxruntime.InferenceSession(str(WEIGHTS / f"{name}.onnx"))
    outputs = [output.name for output in session.get_outputs()]
    return dict(zip(outputs, session.run(None, {"image": image}), strict=True))


def run_openvino(name, image):
    model = openvino.Core().read_model(WEIGHTS / f"{name}.onnx")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled(image)
    return {part: answer[part] for part in SHAPES[name] if part != "image"}


RUNTIMES = pytest.mark.parametrize("runtime", [run_ort, run_openvino])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def noise(*sizes, seed=0):
    return np.random.RandomState(seed).uniform(-1, 1, sizes).astype(np.float32)


@RUNTIMES
@pytest.mark.parametrize("case", ["pnet_batch", "pnet_cell", "rnet", "onet"])
def test_mtcnn_networks_answer_like_facenet_pytorch(runtime, case):
    golden = np.load(GOLDEN / "facenet_pytorch_nets.npz")
    got = runtime(case.partition("_")[0], golden[f"{case}_input"])
    expected = {
        "score": golden[f"{case}_probabilities"][:, 1],
        "offset": golden[f"{case}_regression"],
    }
    if case == "onet":
        expected["landmark"] = golden["onet_points"]
    assert sorted(got) == sorted(expected)
    for part, values in expected.items():
        assert got[part].shape == values.shape
        np.testing.assert_allclose(got[part], values, rtol=0, atol=1e-5)


@RUNTIMES
def test_mobilefacenet_answers_like_tensorflow_lite(runtime):
    golden = np.load(GOLDEN / "tensorflow_graphs.npz")
    images = golden["mobilefacenet_images"].astype(np.float32).transpose(0, 3, 1, 2)
    got = runtime("mobilefacenet", (images - np.float32(127.5)) / np.float32(128))["embedding"]
    expected = golden["mobilefacenet_embeddings"]
    assert got.shape == (4, 192)
    np.testing.assert_allclose(unit(got), unit(expected), rtol=0, atol=1e-5)
    lengths = np.linalg.norm(expected, axis=1)  # not normalised in the graph
    assert lengths.min() > 10
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), lengths, rtol=1e-5)


@pytest.mark.parametrize("height", range(12, 21))
@pytest.mark.parametrize("width", [12, 15, 40, 57])
def test_pnet_rounds_its_pool_up_at_every_size(height, width):
    image = noise(2, 3, height, width, seed=height)
    one, other = run_ort("pnet", image), run_openvino("pnet", image)
    rows, columns = -(-(height - 2) // 2) - 4, -(-(width - 2) // 2) - 4
    assert one["score"].shape == (2, rows, columns)
    for part in ("score", "offset"):
        np.testing.assert_allclose(one[part], other[part], rtol=0, atol=1e-5)


@RUNTIMES
@pytest.mark.parametrize(("name", "side"), [("rnet", 24), ("onet", 48), ("mobilefacenet", 112)])
def test_rows_do_not_depend_on_the_batch(runtime, name, side):
    images = noise(3, 3, side, side)
    whole, last = runtime(name, images), runtime(name, images[2:])
    for part in whole:
        scale = np.abs(whole[part]).max()
        np.testing.assert_allclose(whole[part][2:], last[part], rtol=0, atol=1e-6 * max(scale, 1))


@pytest.mark.parametrize(("name", "side"), [("rnet", 24), ("onet", 48)])
def test_no_crops_give_no_rows(name, side):
    assert all(len(values) == 0 for values in run_ort(name, noise(0, 3, side, side)).values())


@pytest.mark.parametrize("name", SHAPES)
def test_files_declare_what_the_cards_rely_on(name):
    model = onnx.load(WEIGHTS / f"{name}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.ir_version) == ("facenet", 8)
    assert [item.version for item in model.opset_import] == [17]
    found = {
        item.name: [d.dim_param or d.dim_value for d in item.type.tensor_type.shape.dim]
        for item in [*model.graph.input, *model.graph.output]
    }
    assert found == SHAPES[name]
    assert "Transpose" not in {item.op_type for item in model.graph.node}
    floats = {item.data_type for item in model.graph.initializer}
    assert floats <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


@pytest.fixture
def scripts(monkeypatch):
    """The modules of scripts/, which import each other by plain name."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    before = set(sys.modules)
    import build_models

    yield build_models
    for name in set(sys.modules) - before:
        if name in ("build_models", "tflite_to_onnx"):
            del sys.modules[name]


def test_mobilefacenet_is_rebuilt_byte_for_byte(scripts, data):
    built = scripts.build_mobilefacenet(data / "models" / scripts.TFLITE_NAME)["mobilefacenet.onnx"]
    stored = (WEIGHTS / "mobilefacenet.onnx").read_bytes()
    assert hashlib.sha256(built).hexdigest() == hashlib.sha256(stored).hexdigest()
    assert scripts.same("mobilefacenet.onnx", built)


def test_a_source_with_another_digest_is_refused(scripts, tmp_path, capsys):
    wrong = tmp_path / "MobileFaceNet.tflite"
    wrong.write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"expected SHA-256 d8ba40c0\w+, came [0-9a-f]{64}"):
        scripts.build_mobilefacenet(wrong)
    assert not scripts.same("mobilefacenet.onnx", b"other")
    assert "differs" in capsys.readouterr().err
