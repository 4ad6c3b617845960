"""facenet's networks at full size against TensorFlow, from checkpoints and from frozen graphs.

Weights are drawn by the recipe of scripts/golden/tensorflow_checkpoints.py; only names, shapes
and TensorFlow's results are stored.
"""

import lzma
from pathlib import Path

import checkpoint_maker as maker
import numpy as np
import onnx
import pytest
from checkpoint_maker import seeded
from graph_maker import FLOAT, const, graph, node, picture
from small_nets import flatten, nchw, run

from facenet.errors import ModelFileError
from facenet.models.convert.crc32c import crc32c
from facenet.models.convert.facenet_checkpoint import (
    Contents,
    build,
    convert_checkpoint,
    inspect_checkpoint,
    layer_names,
)
from facenet.models.convert.tensorflow import convert_frozen_graph

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NETWORKS = ("inception_resnet_v1", "inception_resnet_v2", "squeezenet")


IMAGES = np.random.default_rng(5).standard_normal((2, 160, 160, 3), np.float32)
with np.load(GOLDEN / "tensorflow_networks.npz") as _file:
    STORED = {name: _file[name] for name in _file.files}


def shapes(network):
    """Variable -> shape, as TensorFlow built the network; with the class layer."""
    sizes = (tuple(map(int, text.split())) for text in STORED[f"{network}_shapes"])
    return dict(zip(STORED[f"{network}_names"].tolist(), sizes, strict=True))


def variables(network, *, classes=True):
    return {
        name: seeded(name, shape)
        for name, shape in shapes(network).items()
        if classes or not name.startswith("Logits")
    }


def check(model, expected):
    """The vectors of both pictures are TensorFlow's, and differ from each other."""
    got = run(model, nchw(IMAGES))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * scale)
    assert np.abs(expected[0] - expected[1]).max() > 100 * 1e-5 * scale


# From checkpoints


@pytest.mark.parametrize("network", NETWORKS[:2])
def test_a_network_from_its_variables_is_tensorflows(network):
    values = variables(network)
    names = layer_names(values, network)
    assert set(values) - set(names) == {"Logits/weights", "Logits/biases"}
    model = build(network, {layer: values[name] for name, layer in names.items()})
    check(model, STORED[f"{network}_prelogits"])


BESIDE = {
    "global_step": np.int64(7),
    "centers": np.ones((7, 128), np.float32),
    "beta1_power": np.float32(0.9),
    "Logits/weights/Adam": np.ones((128, 7), np.float32),
    "squeezenet/conv1/weights/Adam": np.ones((7, 7, 3, 96), np.float32),
    "squeezenet/conv1/weights/Adam_1": np.ones((7, 7, 3, 96), np.float32),
    "squeezenet/conv1/weights/ExponentialMovingAverage": np.ones((7, 7, 3, 96), np.float32),
    "squeezenet/conv1/BatchNorm/moving_mean/biased": np.ones(96, np.float32),
    "squeezenet/conv1/BatchNorm/squeezenet/conv1/BatchNorm/moving_mean/local_step": np.float32(1),
}
"""What trainers of facenet kept beside the weights; none of it changes an embedding."""


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory):
    """SqueezeNet as a folder of a facenet model."""
    folder = tmp_path_factory.mktemp("model")
    values = variables("squeezenet") | BESIDE
    maker.write(folder, "model-20170901-000000.ckpt-90", values, crc=crc32c)
    return folder


def test_a_whole_checkpoint_is_converted_with_and_without_its_class_layer(squeezed, tmp_path):
    found = inspect_checkpoint(squeezed)
    prefix = squeezed / "model-20170901-000000.ckpt-90"
    assert found == Contents(prefix, "squeezenet", 128, 7)
    model = convert_checkpoint(squeezed)
    check(model, STORED["squeezenet_prelogits"])
    bare = maker.write(tmp_path, "bare", variables("squeezenet", classes=False), crc=crc32c)
    assert inspect_checkpoint(bare) == Contents(bare, "squeezenet", 128, None)
    assert convert_checkpoint(bare) == model


def test_the_bottleneck_may_stand_beside_the_network_as_in_early_2017(squeezed, tmp_path):
    values = {
        name.replace("squeezenet/Bottleneck", "Bottleneck"): value
        for name, value in variables("squeezenet").items()
    }
    prefix = maker.write(tmp_path, "old", values, crc=crc32c)
    assert inspect_checkpoint(prefix).dimension == 128
    assert convert_checkpoint(prefix) == convert_checkpoint(squeezed)


def test_other_sizes_of_the_picture(squeezed):
    model = onnx.load_from_string(convert_checkpoint(squeezed, size=161))
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides[1:] == [3, 161, 161]
    pads = next(
        list(item.ints)
        for step in model.graph.node
        if step.op_type == "Conv"
        for item in step.attribute
        if item.name == "pads"
    )
    assert pads == [3, 3, 3, 3]  # 160 is even: TensorFlow puts the odd cell behind
    for size, message in [(16, "large enough for a SqueezeNet .* came 16 x 16"), (0, "from 1 to")]:
        with pytest.raises(ModelFileError, match=message):
            convert_checkpoint(squeezed, size=size)


@pytest.mark.parametrize(("network", "number"), [("inception_resnet_v1", 6), ("squeezenet", None)])
def test_names_of_layers(network, number):
    layers = set(layer_names(shapes(network), network).values())
    assert len(layers) == len(shapes(network)) - 2
    if number:
        assert f"Block8_{number}_Branch_1_Conv2d_0b_1x3_BatchNorm/moving_mean" in layers
        assert "Block17_10_Conv2d_1x1/bias" in layers
        assert "Mixed_7a_Branch_2_Conv2d_1a_3x3/kernel" in layers
    else:
        assert {"fire9_expand_3x3/kernel", "conv10/bias", "conv1_BatchNorm/beta"} < layers


SMALL = {
    "squeezenet/conv1/weights": np.ones((7, 7, 3, 96), np.float32),
    "squeezenet/Bottleneck/weights": np.ones((4, 8), np.float32),
    "Logits/weights": np.ones((8, 3), np.float32),
    "Logits/biases": np.ones(3, np.float32),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "'conv1_BatchNorm/beta' is missing; the file is damaged or of another network"),
        ({"Logits/biases": np.ones(4, np.float32)}, r"\(8, 3\) and its biases \(4,\); .* mixed"),
        ({"Logits/weights": np.ones((9, 3), np.float32)}, "embeddings of 8 values, but its wei"),
        ({"Logits/biases": np.float32(1)}, "a class layer for embeddings of 8 values"),
        ({"squeezenet/Bottleneck/weights": None}, "dense layer 'Bottleneck' .* but it has none"),
        ({"squeezenet/Bottleneck/weights": np.ones(3, np.float32)}, r"it has the shape \(3,\)"),
        ({"squeezenet/conv1/weights": np.ones((7, 7, 3, 96), np.int32)}, "is of the type int32"),
        ({"squeezenet/conv1/weights": np.ones((5, 5, 3, 96), np.float32)}, "of the shape .7, 7, 3"),
        ({"squeezenet/extra/weight": np.ones(1, np.float32)}, "also 'squeezenet/extra/weight'"),
        ({"squeezenet/a/b/weights": SMALL["Logits/biases"]}
         | {"squeezenet/a_b/weights": SMALL["Logits/biases"]}, "two variables have one name"),
        ({"InceptionResnetV1/a/weights": np.ones(1, np.float32)}, "InceptionResnetV1 and squeeze"),
        (dict.fromkeys(SMALL) | {"vgg/weights": np.ones(1, np.float32)},
         "one network of facenet .*, but 'x' has those of none .its first is 'vgg/weights'."),
    ],
)  # fmt: skip
def test_a_checkpoint_of_something_else_is_refused_in_one_sentence(tmp_path, change, message):
    values = {name: value for name, value in (SMALL | change).items() if value is not None}
    with pytest.raises(ModelFileError, match=message) as raised:
        convert_checkpoint(maker.write(tmp_path, "x", values, crc=crc32c))
    assert len(str(raised.value)) < 500


# From frozen graphs


@pytest.mark.parametrize(
    ("network", "form"),
    [
        ("inception_resnet_v1", "2017"),
        ("inception_resnet_v1", "2018"),
        ("inception_resnet_v2", "2018"),
        ("squeezenet", "2017"),
        ("squeezenet", "2018"),
    ],
)
def test_a_graph_frozen_by_facenet_is_tensorflows(network, form):
    """Batch normalisation written out (2017) or fused, phase_train, a queue, nothing folded."""
    with np.load(GOLDEN / "tensorflow_frozen.npz") as file:
        stripped = lzma.decompress(file[f"{network}_{form}_graph"].tobytes())
        expected = file[f"{network}_{form}_embeddings"]
    constants = (const(name, value) for name, value in variables(network, classes=False).items())
    model = convert_frozen_graph(stripped + b"".join(constants))
    check(model, expected)
    convolutions = sum(step.op_type == "Conv" for step in onnx.load_from_string(model).graph.node)
    kernels = [name for name, shape in shapes(network).items() if len(shape) == 4]
    assert convolutions == len(kernels)


def test_a_graph_frozen_without_its_weights_says_where_they_are():
    weights = node("squeezenet/conv1/weights", "VariableV2", dtype=FLOAT)
    nodes = weights + node("c", "Conv2D", "input", "squeezenet/conv1/weights", padding=b"SAME")
    with pytest.raises(ModelFileError, match=r"'squeezenet/conv1/weights' are not in it: facenet"):
        convert_frozen_graph(graph(picture(), nodes, flatten("c", 8)))
