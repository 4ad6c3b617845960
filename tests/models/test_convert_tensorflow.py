import collections
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from graph_maker import const, graph, node, picture
from small_nets import (
    CONV,
    IMAGES,
    NORMAL,
    PLAIN,
    SAME,
    STATISTICS,
    VALID,
    conv,
    conv_nodes,
    converted,
    flatten,
    fused,
    nchw,
    noise,
    run,
    windows,
    written_out,
)

from facenet.errors import ModelFileError
from facenet.models.convert.onnxgraph import GraphWriter
from facenet.models.convert.tensorflow import convert_frozen_graph

GOLDEN = Path(__file__).resolve().parents[1] / "golden/tensorflow_graphs.npz"
PRELOGITS = "InceptionResnetV1/Bottleneck/BatchNorm/Reshape_1"


def run_openvino(model, image):
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return compiled(image)["embedding"]


# The CASIA graph against TensorFlow itself


@pytest.fixture(scope="module")
def casia(casia_graph):
    return convert_frozen_graph(casia_graph.read_bytes())


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


def standardised(images):
    return nchw((images.astype(np.float32) - np.float32(127.5)) / np.float32(128))


@pytest.mark.parametrize("runtime", [run, run_openvino])
def test_casia_embeddings_are_tensorflows(casia, golden, runtime):
    got = runtime(casia, standardised(golden["casia_images"]))
    assert got.shape == (4, 512)
    np.testing.assert_allclose(got, golden["casia_embeddings"], rtol=0, atol=1e-5)


def test_casia_prelogits_are_tensorflows(casia_graph, golden):
    model = convert_frozen_graph(casia_graph.read_bytes(), output=PRELOGITS)
    got = run(model, standardised(golden["casia_images"]))
    np.testing.assert_allclose(got, golden["casia_prelogits"], rtol=0, atol=1e-5)


def test_casia_rows_do_not_depend_on_the_batch(casia, golden):
    images = standardised(golden["casia_images"])
    alone = np.concatenate([run(casia, images[k : k + 1]) for k in range(2)])
    np.testing.assert_allclose(run(casia, images)[:2], alone, rtol=0, atol=1e-6)


def test_casia_file_is_plain_and_reproducible(casia, casia_graph):
    assert convert_frozen_graph(casia_graph.read_bytes()) == casia
    model = onnx.load_from_string(casia)
    assert (model.producer_name, model.producer_version, model.ir_version) == ("facenet", "", 8)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    ((image,), (embedding,)) = model.graph.input, model.graph.output
    assert (image.name, embedding.name) == ("image", "embedding")
    dims = image.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, 160, 160]
    dims = embedding.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 512]
    counts = collections.Counter(item.op_type for item in model.graph.node)
    assert counts["Conv"] == 132
    assert counts["Mul"] == 2  # x * x and x * rsqrt: scales and biases are in the kernels
    assert not {"Transpose", "BatchNormalization", "Identity"} & set(counts)


def test_casia_refuses_another_size(casia_graph):
    with pytest.raises(ModelFileError, match="182 x 182"):
        convert_frozen_graph(casia_graph.read_bytes(), size=182)


# Windows, against NumPy cell by cell


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("size", "side", "stride"), [(5, 3, 2), (6, 3, 2), (8, 3, 3), (7, 2, 2)])
def test_convolutions_pad_like_tensorflow(size, side, stride, padding):
    kernel, images = noise(side, side, 3, 4, seed=1), noise(2, size, size, 3)
    expected = conv(images, kernel, stride, padding)
    nodes = conv_nodes("conv", "input:0", kernel, stride=stride, padding=padding)
    end = flatten("conv", expected[0].size)
    got = converted(picture(), nodes, end, size=size, images=images)
    np.testing.assert_allclose(got, expected.reshape(2, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("size", "side", "stride"), [(6, 3, 2), (7, 3, 2), (5, 2, 1), (3, 3, 1)])
@pytest.mark.parametrize("op", ["MaxPool", "AvgPool"])
def test_pools_leave_padding_out(op, size, side, stride, padding):
    images = noise(2, size, size, 3)
    found = windows(images, side, stride, padding, np.nan)
    reduced = (np.nanmax if op == "MaxPool" else np.nanmean)(found, axis=(3, 4))
    attrs = {"ksize": (1, side, side, 1), "strides": (1, stride, stride, 1), "padding": padding}
    end = flatten("pool", reduced[0].size)
    got = converted(picture(), node("pool", op, "input", **attrs), end, size=size, images=images)
    np.testing.assert_allclose(got, reduced.reshape(2, -1), rtol=0, atol=1e-6)


def test_rectangular_and_dilated_kernels():
    kernel, images = noise(1, 3, 3, 2, seed=2), noise(1, 9, 9, 3)
    attrs = {"strides": (1, 1, 1, 1), "dilations": (1, 1, 2, 1), "padding": SAME}
    nodes = const("w", kernel) + node("c", "Conv2D", "input", "w", **attrs)
    padded = np.pad(images, [(0, 0), (0, 0), (2, 2), (0, 0)])
    expected = sum(padded[:, :, 2 * k : 2 * k + 9] @ kernel[0, k] for k in range(3))
    got = converted(picture(), nodes, flatten("c", 162), size=9, images=images)
    np.testing.assert_allclose(got, expected.reshape(1, -1), rtol=0, atol=1e-5)


# What melts into a layer and what must not


@pytest.mark.parametrize("norm", [fused, written_out])
def test_batch_normalisation_melts_into_the_convolution(norm):
    nodes = (picture(), CONV, STATISTICS, norm("bn", "conv"), flatten("bn", 100))
    model = convert_frozen_graph(graph(*nodes), size=5)
    kinds = [item.op_type for item in onnx.load_from_string(model).graph.node]
    assert kinds == ["Conv", "Transpose", "Reshape"]
    got = run(model, nchw(IMAGES))
    np.testing.assert_allclose(got, NORMAL.reshape(2, -1), rtol=0, atol=1e-5)


def test_a_convolution_with_two_users_keeps_its_own_value():
    nodes = CONV + STATISTICS + fused("bn", "conv", "FusedBatchNormV3")
    nodes += node("sum", "Add", "bn", "conv") + flatten("sum", 100)
    got = converted(picture(), nodes, size=5, images=IMAGES)
    np.testing.assert_allclose(got, (NORMAL + PLAIN).reshape(2, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "left", "right", "expected"),
    [
        ("Mul", "conv", "c", lambda x, c: x * c),
        ("Mul", "c", "conv", lambda x, c: x * c),
        ("Sub", "conv", "c", lambda x, c: x - c),
        ("Sub", "c", "conv", lambda x, c: c - x),
        ("RealDiv", "conv", "c", lambda x, c: x / c),
        ("Maximum", "c", "conv", np.maximum),
        ("BiasAdd", "conv", "c", lambda x, c: x + c),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("sizes", [(), (4,), (1, 1, 1, 4), (1, 5, 1, 1)])
def test_constants_on_either_side(op, left, right, expected, shared, sizes):
    if op == "BiasAdd" and sizes != (4,):
        sizes = (4,)
    constant = noise(*sizes, seed=9) + 2
    nodes = CONV + const("c", constant) + node("y", op, left, right)
    answer = expected(PLAIN, constant.astype(np.float64))
    last = "y"
    if shared:
        nodes += node("both", "Add", "y", "conv")
        answer, last = answer + PLAIN, "both"
    got = converted(picture(), nodes, flatten(last, 100), size=5, images=IMAGES)
    np.testing.assert_allclose(got, answer.reshape(2, -1), rtol=0, atol=1e-5)


def test_a_residual_block_with_branches():
    first, second = noise(1, 1, 3, 2, seed=1), noise(3, 3, 3, 5, seed=2)
    up, scale = noise(1, 1, 7, 3, seed=3), const("scale", 0.17)
    nodes = conv_nodes("a", "input", first) + node("ar", "Relu", "a")
    nodes += conv_nodes("b", "input", second) + const("axis", -1, "<i4")
    nodes += node("cat", "ConcatV2", "ar", "b", "axis") + conv_nodes("up", "cat", up)
    nodes += scale + node("mul", "Mul", "scale", "up") + node("add", "Add", "input", "mul")
    nodes += node("relu", "Relu", "add") + flatten("relu", 75)
    joined = np.concatenate(
        [np.maximum(conv(IMAGES, first, 1, SAME), 0), conv(IMAGES, second, 1, SAME)], axis=3
    )
    expected = np.maximum(IMAGES + np.float32(0.17) * conv(joined, up, 1, SAME), 0)
    got = converted(picture(), nodes, size=5, images=IMAGES)
    np.testing.assert_allclose(got, expected.reshape(2, -1), rtol=0, atol=1e-5)


# The writer underneath


def test_the_writer_refuses_one_name_for_two_tensors_and_broken_graphs():
    writer = GraphWriter("net")
    writer.constant("a", [1.0, 2.0])
    with pytest.raises(ModelFileError, match="'a' came twice"):
        writer.node("Relu", ["image"], outputs="a")
    writer.node("NoSuchOperator", ["image"], outputs="y")
    with pytest.raises(ModelFileError, match="valid ONNX graph"):
        writer.to_bytes({"image": ("batch", 3)}, {"y": ("batch", 3)})
