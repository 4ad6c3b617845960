"""8-bit graphs: how close they are to the formula, and what is put back into float in which order.

The networks are so small that the formula is written out in NumPy (`toy_models.convolved`), and
harmed where 8 bits are too few, at a known layer.
"""

import collections

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from toy_models import convolved, convolved_formula, declare, linear, model

from facenet.errors import EngineError
from facenet.models.engine import EngineSettings, golden_input, open_engine
from facenet.models.prelu import without_prelu
from facenet.models.quantize import Plan, Quantiser, tool

ENGINES = ("onnxruntime", "openvino")
NOTHING = Plan("nothing", ())


def noise(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 16, 16)).astype(np.float32)


def batches(seed=0, count=4):
    return (noise(16, seed + number) for number in range(count))


def opened(tmp_path, message, name="toy.onnx"):
    path = tmp_path / name
    path.write_bytes(message.SerializeToString())
    return Quantiser(path)


def cosines(data, message, engine, precision="int8"):
    """Of the answers of a graph to those of the formula, on pictures of another seed."""
    images = noise(32, seed=99)
    running = open_engine(data, EngineSettings(engine, "cpu", precision))
    got = running.run({"image": images})["embedding"].astype(np.float64)
    right = convolved_formula(message, images)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(right, axis=1)
    return np.sum(got * right, axis=1) / np.maximum(lengths, 1e-12)


def kinds(data):
    return collections.Counter(node.op_type for node in onnx.load_from_string(data).graph.node)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", ["Relu", "PRelu"])
def test_an_8_bit_graph_is_close_to_the_formula_and_not_equal(tmp_path, engine, activation):
    message = convolved(activation=activation)
    exact = cosines(message.SerializeToString(), message, engine, "fp32")
    assert exact.min() > 1 - 1e-9  # the formula is right
    with opened(tmp_path, message) as quantiser:
        data = quantiser.quantise(NOTHING, batches())
    got = cosines(data, message, engine)
    assert np.median(got) > 0.99
    assert got.max() < 1 - 1e-7


def test_the_weights_really_are_8_bit_and_have_a_scale_per_channel(tmp_path):
    message = convolved()
    with opened(tmp_path, message) as quantiser:
        data = quantiser.quantise(NOTHING, batches())
    tensors = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(data).graph.initializer
    }
    weights = {
        name: value for name, value in tensors.items() if value.dtype == np.int8 and value.size > 8
    }
    assert len(weights) == 4
    floats = {t.name: numpy_helper.to_array(t) for t in message.graph.initializer}
    for name, rounded in weights.items():
        (whole,) = [value for key, value in floats.items() if name.startswith(key)]
        scale = tensors[name.replace("quantized", "scale")]
        axis = 1 if rounded.ndim == 2 else 0  # of a product the columns are the channels
        shape = [-1 if side == axis else 1 for side in range(rounded.ndim)]
        np.testing.assert_allclose(
            rounded * scale.reshape(shape), whole, atol=scale.max() / 2 + 1e-7
        )
        assert scale.size == 8


def test_nothing_is_rounded_behind_the_last_layer(tmp_path):
    """The vector has all its values: no 8-bit step shows in them."""
    message = convolved()
    with opened(tmp_path, message) as quantiser:
        data = quantiser.quantise(NOTHING, batches())
    running = open_engine(data, EngineSettings("onnxruntime", "cpu", "int8"))
    values = running.run({"image": noise(64)})["embedding"]
    assert len(np.unique(values)) > 300  # of 512; an 8-bit tensor has at most 256
    last = onnx.load_from_string(data).graph.node[-1]
    assert (last.op_type, list(last.output)) == ("Gemm", ["embedding"])


def test_a_rounded_output_of_the_graph_keeps_its_name(tmp_path):
    """A graph that ends with the last layer and nothing behind it."""
    kernel = {"kernel": noise(8)}
    message = model(
        [helper.make_node("Conv", ["image", "kernel"], ["embedding"], strides=[16, 16])],
        [declare("image", "n", 3, 16, 16)],
        [declare("embedding", "n", 8, 1, 1)],
        kernel,
    )
    with opened(tmp_path, message) as quantiser:
        assert quantiser.output == "embedding"
        data = quantiser.quantise(NOTHING, batches())
    images = noise(5, seed=3)
    for engine in ENGINES:
        got = open_engine(data, EngineSettings(engine, "cpu", "int8")).run({"image": images})
        right = np.einsum("nchw,kchw->nk", images, kernel["kernel"])
        np.testing.assert_allclose(got["embedding"][:, :, 0, 0], right, atol=0.5)


def test_the_plans_keep_more_and_more_in_float(tmp_path):
    with opened(tmp_path, convolved()) as quantiser:
        plans = {plan.kept: plan.nodes for plan in quantiser.plans()}
        layers = [n.name for n in quantiser._model.graph.node if n.op_type in ("Conv", "Gemm")]
    first, depthwise, inner, last = layers
    assert list(plans.values()) == [(), (depthwise,), (first, last), (depthwise, first, last)]
    assert inner not in {name for nodes in plans.values() for name in nodes}
    with opened(tmp_path, linear()) as quantiser:
        assert [plan.kept for plan in quantiser.plans()] == ["nothing"]  # the rest is all of it


@pytest.mark.parametrize(
    ("harmed", "rescued"),
    [
        (("depthwise",), [False, True, False, True]),
        (("last",), [False, False, True, True]),
        (("depthwise", "last"), [False, False, False, True]),
        (("inner",), [False, False, False, False]),
        ((), [True, True, True, True]),
    ],
)
def test_what_8_bits_harm_is_rescued_by_the_plan_that_keeps_it(tmp_path, harmed, rescued):
    message = convolved(harmed=harmed)
    with opened(tmp_path, message) as quantiser:
        made = [quantiser.quantise(plan, batches()) for plan in quantiser.plans()]
    close = [bool(np.median(cosines(data, message, "onnxruntime")) > 0.99) for data in made]
    assert close == rescued


def test_the_crops_are_looked_at_once(tmp_path):
    def never():
        raise AssertionError("the ranges are known")
        yield

    with opened(tmp_path, convolved()) as quantiser:
        first = quantiser.quantise(NOTHING, batches())
        assert quantiser.quantise(NOTHING, never()) == first
        folder = quantiser._plain.parent
        assert folder.is_dir()
    assert not folder.exists()


def test_ranges_are_the_mean_of_those_of_the_batches(tmp_path):
    """Of two batches, one of them three times as wide: the step of the input is in the middle."""
    wide = [noise(16), 3 * noise(16, seed=1)]
    with opened(tmp_path, convolved()) as quantiser:
        data = quantiser.quantise(NOTHING, iter(wide))
    tensors = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(data).graph.initializer
    }
    low = np.mean([batch.min() for batch in wide])
    high = np.mean([batch.max() for batch in wide])
    assert tensors["image_scale"] == pytest.approx((high - low) / 255, rel=1e-5)


def test_a_graph_with_prelu_has_ranges_around_zero(tmp_path):
    for activation, signed in (("Relu", False), ("PRelu", True)):
        with opened(tmp_path, convolved(activation=activation)) as quantiser:
            data = quantiser.quantise(NOTHING, batches())
        points = [
            numpy_helper.to_array(tensor)
            for tensor in onnx.load_from_string(data).graph.initializer
            if tensor.name.endswith("_zero_point") and "weight" not in tensor.name
        ]
        kinds = {point.dtype for point in points if point.size == 1}
        assert (np.dtype(np.uint8) in kinds) is not signed
        if signed:
            assert all(not np.any(point) for point in points)


def test_a_file_that_cannot_be_made_8_bit_is_an_error(tmp_path, capfd):
    path = tmp_path / "broken.onnx"
    for data in (b"", b"no model", convolved().SerializeToString()[:-200]):
        path.write_bytes(data)
        with (
            pytest.raises(EngineError, match="The graph cannot be made 8-bit: .* precision"),
            Quantiser(path) as quantiser,
        ):
            quantiser.quantise(NOTHING, batches())


def test_the_tool_says_its_version():
    import onnxruntime

    assert tool() == f"onnxruntime.quantization {onnxruntime.__version__}"


# PReLU in ONNX Runtime


def prelu_graph(slope, kernel, *, op="Conv"):
    return model(
        [
            helper.make_node(op, ["image", "kernel"], ["a"]),
            helper.make_node("PRelu", ["a", "slope"], ["embedding"]),
        ],
        [declare("image", "n", 3, 16, 16)],
        [declare("embedding", "n", *[None] * 3)],
        {"slope": slope, "kernel": kernel},
    )


def test_prelu_as_convolutions_gives_the_same_bits(tmp_path):
    """Against ONNX Runtime's own PReLU, which runs where the graph is not rewritten."""
    import onnxruntime

    random = np.random.RandomState(0)
    slope = random.uniform(-0.5, 1.5, (8, 1, 1)).astype(np.float32)
    slope[:2, 0, 0] = 0, 1
    message = prelu_graph(slope, random.standard_normal((8, 3, 3, 3)).astype(np.float32))
    data = message.SerializeToString()
    changed = without_prelu(data)
    assert "PRelu" not in kinds(changed)
    (tmp_path / "toy.onnx").write_bytes(data)
    assert without_prelu(tmp_path / "toy.onnx") == changed
    images = noise(7)
    own = onnxruntime.InferenceSession(data).run(None, {"image": images})[0]
    got = open_engine(data, EngineSettings("onnxruntime", "cpu")).run({"image": images})
    assert np.array_equal(got["embedding"], own)
    assert np.any(own < -0.1)


@pytest.mark.parametrize("name", ["mobilefacenet", "rnet", "onet"])
def test_the_built_in_networks_answer_the_same_without_prelu(name):
    import onnxruntime

    from facenet.models.catalog import package_folder

    path = package_folder() / "weights" / f"{name}.onnx"
    own = onnxruntime.InferenceSession(path)
    entry = own.get_inputs()[0]
    feed = {entry.name: golden_input((3, *entry.shape[1:]))}
    got = open_engine(path, EngineSettings("onnxruntime", "cpu")).run(feed)
    for output, values in zip(own.get_outputs(), own.run(None, feed), strict=True):
        scale = float(np.abs(values).max())
        np.testing.assert_allclose(got[output.name], values, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize(
    ("slope", "op"),
    [(np.full((8, 1, 1), 0.5), "Conv"), (np.full((1, 1, 1), 0.5, np.float32), "Conv"),
     (np.full((14,), 0.5, np.float32), "Conv"), (np.full((3, 1, 1), 0.5, np.float32), "Mul")],
)  # fmt: skip
def test_another_prelu_stays_as_it_is(slope, op):
    kernel = np.ones((8, 3, 3, 3) if op == "Conv" else (1,), np.float32)
    data = prelu_graph(slope, kernel, op=op).SerializeToString()
    assert without_prelu(data) is None or slope.size == 1


def test_a_file_without_prelu_is_not_even_parsed(tmp_path):
    assert without_prelu(b"no model") is None
    assert without_prelu(b"no model, but PRelu in it") is None
    with pytest.raises(EngineError, match="could not load .*none.onnx: No such file"):
        without_prelu(tmp_path / "none.onnx")
