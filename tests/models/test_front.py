"""What is put in front of a graph, against the same arithmetic in NumPy."""

import numpy as np
import onnx
import onnxruntime
import pytest
from detector_graphs import convolving
from onnx import helper, numpy_helper
from toy_models import declare, formula, linear, model

from facenet.errors import ModelFileError, SettingsError
from facenet.models.convert.front import Feeding, channels_first, fed
from facenet.models.convert.insightface import fits_form
from facenet.models.plainonnx import check_graph, check_ports, picture_size

PIXELS = np.random.default_rng(4).integers(0, 256, (1, 3, 128, 128)).astype(np.float32)
FEED = (PIXELS - 127.5) / 128
"""RGB as facenet feeds detectors."""


def answers(data, values):
    session = onnxruntime.InferenceSession(data)
    return session.run(None, {session.get_inputs()[0].name: values})


def last(batch="n", height=16, width=16):
    """A graph of N x H x W x 3 whose answer is that of `linear` for the turned picture."""
    graph = linear()
    turn = helper.make_node("Transpose", ["picture"], ["image"], perm=[0, 3, 1, 2])
    graph.graph.node.insert(0, turn)
    graph.graph.input[0].CopyFrom(declare("picture", batch, height, width, 3))
    return graph.SerializeToString()


@pytest.mark.parametrize("batch", ["n", 2])
def test_channels_last_are_turned(batch):
    data = channels_first(last(batch))
    check_graph(data, "turned")
    images = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(answers(data, images)[0], formula(images), atol=1e-4)
    sides = onnxruntime.InferenceSession(data).get_inputs()[0].shape
    assert sides == [batch, 3, 16, 16]
    assert channels_first(data) == data  # nothing is left to turn


def test_the_size_of_a_picture_is_seen_in_either_layout():
    assert picture_size(last(height=24, width=16)) == (16, 24)
    assert picture_size(linear(16).SerializeToString()) == (16, 16)
    assert picture_size(last(height="h")) is None
    mean = model(
        [helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0)],
        [declare("x", "n", 3, "h", "w")],
        [declare("m", "n")],
    )
    assert picture_size(mean.SerializeToString()) is None
    assert check_ports(mean.SerializeToString(), "m").name == "x"
    assert channels_first(mean.SerializeToString()) == mean.SerializeToString()


FEEDINGS = [
    (Feeding((0.0,), (1.0,)), lambda x: x),
    (Feeding((104.0, 117.0, 123.0), (1.0,), "bgr"), lambda x: x[:, ::-1] - THREE),
    (Feeding((127.5,), (127.5,)), lambda x: (x - 127.5) / 127.5),
    (Feeding((104.0, 117.0, 123.0), (57.0, 58.0, 59.0)), lambda x: (x - THREE) / TWO),
]
THREE = np.array([104, 117, 123], np.float32).reshape(3, 1, 1)
TWO = np.array([57, 58, 59], np.float32).reshape(3, 1, 1)


@pytest.mark.parametrize(("feeding", "formula_"), FEEDINGS)
@pytest.mark.parametrize("count", [6, 15])
def test_a_detector_gets_what_it_was_trained_with(feeding, formula_, count):
    """facenet feeds (x - 127.5) / 128; the network must see the other formula's values."""
    plain = convolving(count)
    wrapped = fed(plain, feeding, "d")
    check_graph(wrapped, "d")
    for got, expected in zip(
        answers(wrapped, FEED.astype(np.float32)),
        answers(plain, np.ascontiguousarray(formula_(PIXELS), np.float32)),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, atol=2e-3 * max(1, np.abs(expected).max()))


def test_what_is_fed_so_anyway_stays_as_it_is():
    plain = convolving(9)
    assert fed(plain, Feeding(), "d") == plain
    assert fed(plain, Feeding((127.5,) * 3, (128.0,)), "d") == plain
    fixed = convolving(9, size=(640, 640))
    assert fed(fixed, Feeding(size=(640, 640)), "d") == fixed


def test_a_size_can_be_fixed_and_not_changed():
    wrapped = fed(convolving(9), Feeding(size=(320, 256)), "d")
    session = onnxruntime.InferenceSession(wrapped)
    assert session.get_inputs()[0].shape == [1, 3, 256, 320]
    with pytest.raises(ModelFileError, match="d takes pictures of 640x640, .* not of 320x320"):
        fed(convolving(9, size=(640, 640)), Feeding(size=(320, 320)), "d")


def test_names_of_the_graph_are_not_taken_twice():
    graph = onnx.load_from_string(convolving(6))
    for node in graph.graph.node:
        node.input[:] = ["picture" if name == "input.1" else name for name in node.input]
        node.output[:] = [f"picture_{n}" if n.startswith("c") else n for n in node.output]
        node.input[:] = [f"picture_{n}" if n.startswith("c") else n for n in node.input]
    graph.graph.input[0].name = "picture"
    wrapped = fed(graph.SerializeToString(), Feeding((0.0,), (1.0,)), "d")
    for got, expected in zip(
        answers(wrapped, FEED.astype(np.float32)), answers(convolving(6), PIXELS), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=0.1)


def test_weights_among_the_inputs_and_an_old_operator_set():
    graph = onnx.load_from_string(convolving(6))
    weights = graph.graph.initializer[0]
    port = helper.make_tensor_value_info(weights.name, 1, list(weights.dims))
    graph.graph.input.insert(0, port)
    wrapped = onnx.load_from_string(fed(graph.SerializeToString(), Feeding((0.0,)), "d"))
    assert [value.name for value in wrapped.graph.input] == [weights.name, "picture"]
    graph.opset_import[0].version = 6
    with pytest.raises(ModelFileError, match="d is written with an operator set before 7"):
        fed(graph.SerializeToString(), Feeding((0.0,)), "d")
    sparse = onnx.load_from_string(linear().SerializeToString()).graph
    sparse.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "image"))
    assert picture_size(helper.make_model(sparse).SerializeToString()) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (1.0, 2.0)}, "mean should be one number or three"),
        ({"mean": (float("nan"),)}, "mean should be one number or three"),
        ({"scale": ()}, "scale should be one number or three"),
        ({"scale": (1.0, 0.0, 1.0)}, "scale should be above 0"),
    ],
)
def test_a_feeding_that_is_none(values, message):
    with pytest.raises(SettingsError, match=message):
        Feeding(**values)


def test_a_feeding_in_words():
    feeding = Feeding((104.0, 117.0, 123.0), (1.0,), "bgr", (640, 480))
    assert str(feeding) == "BGR, mean 104,117,123, scale 1, pictures of 640x480"


@pytest.mark.parametrize("count", [6, 9, 10, 15])
def test_outputs_that_can_be_read(count):
    outputs = [values.shape for values in answers(convolving(count, size=(256, 128)), zeros())]
    assert fits_form(outputs, (256, 128))
    assert fits_form([(1, *shape) for shape in outputs][::-1], (256, 128))
    assert not fits_form(outputs, (128, 128))
    assert not fits_form(outputs[1:], (256, 128))
    assert not fits_form([*outputs[1:], (7, 7)], (256, 128))
    assert not fits_form([(2, *shape) for shape in outputs], (256, 128))


def zeros():
    return np.zeros((1, 3, 128, 256), np.float32)
