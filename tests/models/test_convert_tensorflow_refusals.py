import random

import numpy as np
import pytest
from graph_maker import FLOAT, const, graph, node, number, picture, raw_node
from small_nets import (
    CONV,
    KERNEL,
    SAME,
    STATISTICS,
    VALID,
    conv_nodes,
    flatten,
    noise,
    shape_2017,
    written_out,
)

from facenet.errors import ModelFileError
from facenet.models.convert.tensorflow import convert_frozen_graph

# What is refused

END = flatten("x", 75)
STRIDES = {"strides": (1, 1, 1, 1), "padding": SAME}


def flow(condition):
    return node("s", "Switch", "input", condition) + node("x", "Relu", "s") + END


def reshaped(sizes):
    return const("s", sizes, "<i4") + node("x", "Reshape", "input", "s") + END


REFUSED = {
    "unknown operator": (node("x", "Softplus9", "input") + END, "'x' is a Softplus9"),
    "loop": (node("a", "Relu", "x") + node("x", "Add", "a", "input") + END, "without loops"),
    "missing node": (node("x", "Add", "input", "ghost") + END, "'ghost'"),
    "missing output": (node("x", "Relu", "input"), "'embeddings'"),
    "odd reference": (node("x", "Relu", "input:b") + END, "'input:b'"),
    "second output": (node("a", "Relu", "input") + node("x", "Relu", "a:1") + END, "first"),
    "too few inputs": (node("x", "Add", "input") + END, "2 inputs"),
    "picture not used": (const("embeddings", [[1, 2]]), "depend on 'input'"),
    "switch on a tensor": (flow("input"), "'s' to hang on phase_train"),
    "dead output": (const("t", True, "|b1") + flow("t"), "'embeddings' is off"),
    "two live branches": (node("x", "Merge", "input", "input") + END, "one live input of 'x'"),
    "training statistics": (
        CONV
        + STATISTICS
        + node("x", "FusedBatchNorm", "conv", "gamma", "beta", "mean", "variance", is_training=True)
        + END,
        "is_training false",
    ),
    "variance below zero": (
        CONV
        + STATISTICS
        + const("n", [-1] * 4)
        + node("x", "FusedBatchNorm", "conv", "gamma", "beta", "mean", "n", is_training=False)
        + END,
        "variances",
    ),
    "other axis order": (
        const("w", KERNEL)
        + node("x", "Conv2D", "input", "w", data_format=b"NCHW", **STRIDES)
        + END,
        "NHWC",
    ),
    "explicit padding": (
        const("w", KERNEL)
        + node("x", "Conv2D", "input", "w", strides=(1, 1, 1, 1), padding=b"EXPLICIT")
        + END,
        "SAME or VALID",
    ),
    "padding of another type": (
        const("w", KERNEL) + node("x", "Conv2D", "input", "w", padding=3) + END,
        "padding like",
    ),
    "strides over the batch": (
        const("w", KERNEL)
        + node("x", "Conv2D", "input", "w", strides=(2, 1, 1, 1), padding=SAME)
        + END,
        "strides over height",
    ),
    "no strides": (
        const("w", KERNEL)
        + node("x", "Conv2D", "input", "w", strides=(1, 0, 0, 1), padding=SAME)
        + END,
        "strides over height",
    ),
    "kernel of other channels": (conv_nodes("x", "input", noise(3, 3, 5, 4)) + END, "x 3 x O"),
    "empty kernel": (conv_nodes("x", "input", np.zeros((0, 3, 3, 4))) + END, "x 3 x O"),
    "kernel that is computed": (node("x", "Conv2D", "input", "input", **STRIDES) + END, "constant"),
    "picture too small": (
        conv_nodes("x", "input", noise(7, 7, 3, 4), padding=VALID) + END,
        "picture is too small",
    ),
    "batch as an axis": (
        const("hw", [0, 1], "<i4") + node("x", "Mean", "input", "hw") + END,
        "axes",
    ),
    "axis that is no number": (
        const("hw", [np.nan]) + node("x", "Mean", "input", "hw") + END,
        "whole numbers",
    ),
    "sum over height alone": (
        const("hw", [1], "<i4") + node("x", "Sum", "input", "hw") + END,
        "height and width",
    ),
    "batch changed": (reshaped([3, 25]), "batch"),
    "elements lost": (reshaped([-1, 74]), "batch"),
    "two free axes": (reshaped([-1, -1]), "batch"),
    "squeezed width": (node("x", "Squeeze", "input", squeeze_dims=(1,)) + END, "axes of length 1"),
    "shapes that do not fit": (
        const("c", noise(4)) + node("x", "Mul", "input", "c") + END,
        "shapes that fit",
    ),
    "constants that do not fit": (
        const("a", noise(4))
        + const("b", noise(3))
        + node("c", "Add", "a", "b")
        + node("x", "Mul", "input", "c")
        + END,
        "constants that fit",
    ),
    "constants that explode": (
        const("a", np.zeros((1 << 13, 1)))
        + const("b", np.zeros((1, 1 << 13)))
        + node("c", "Add", "a", "b")
        + node("x", "Mul", "input", "c")
        + END,
        "too large",
    ),
    "text as a constant": (
        raw_node("c", "Const", attrs={"value": b"\x42" + bytes([4]) + number(1, 7) + b"\x12\x00"})
        + node("x", "Mul", "input", "c")
        + END,
        "numbers",
    ),
    "output that is a picture": (node("embeddings", "Relu", "input"), "N x D"),
    "relu of a constant": (
        const("c", 1) + node("r", "Relu", "c") + node("x", "Mul", "input", "r") + END,
        "constant",
    ),
    "concat of unlike parts": (
        CONV + const("axis", 2, "<i4") + node("x", "ConcatV2", "conv", "input", "axis") + END,
        "parts like",
    ),
}


@pytest.mark.parametrize(("nodes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_graphs_this_converter_cannot_write_are_refused_by_name(nodes, words):
    with pytest.raises(ModelFileError, match=words):
        convert_frozen_graph(graph(picture(), nodes), size=5)


@pytest.mark.parametrize("size", [0, -5, 1 << 20])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ModelFileError, match="picture size"):
        convert_frozen_graph(graph(picture()), size=size)


def test_graphs_with_no_or_two_pictures_are_refused():
    for starts in (
        b"",
        node("a", "Placeholder", dtype=FLOAT) + node("b", "Placeholder", dtype=FLOAT),
    ):
        with pytest.raises(ModelFileError, match="one picture input"):
            convert_frozen_graph(graph(starts, node("embeddings", "Relu", "a")))


def test_damaged_graphs_never_raise_anything_else():
    chance = random.Random(9)
    nodes = CONV + STATISTICS + written_out("bn", "conv") + node("on", "Relu", "bn")
    pool = node("p", "MaxPool", "on", ksize=(1, 2, 2, 1), strides=(1, 2, 2, 1), padding=SAME)
    head = shape_2017("p") + const("w", noise(36, 2)) + node("d", "MatMul", "flat", "w")
    end = const("ax", [1], "<i4") + node("embeddings", "Mean", "d", "ax", keep_dims=True)
    whole = graph(picture(), nodes, pool, head, end)
    assert convert_frozen_graph(whole, size=5)
    for _ in range(4000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            convert_frozen_graph(bytes(damaged), size=5)
        except ModelFileError:
            continue


def test_bytes_that_are_no_graph_are_refused():
    with pytest.raises(ModelFileError, match="frozen TensorFlow graph"):
        convert_frozen_graph(b"\x00" * 64)
