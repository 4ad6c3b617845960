"""Tiny ONNX models with the formula they compute, and cards for them."""

from dataclasses import replace
from functools import cache
from hashlib import sha256

import numpy as np
from fakes import toy_card
from onnx import TensorProto, helper, numpy_helper

from facenet.models.card import Golden, ModelFile, Source
from facenet.models.engine import golden_input

SIDE, DIMENSION = 16, 8
HUGE = 1e4


@cache
def weights(side=SIDE, dimension=DIMENSION, seed=0):
    shape = (3 * side * side, dimension)
    return (np.random.RandomState(seed).standard_normal(shape) / side).astype(np.float32)


def declare(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(nodes, inputs, outputs, constants=(), *, domains=(), functions=()):
    """An ONNX model as a message; constants: name -> array."""
    tensors = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)


def linear(side=SIDE, dimension=DIMENSION, *, batch="batch", seed=0):
    """image (batch, 3, side, side) -> embedding: the flattened image times `weights`."""
    return model(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ],
        [declare("image", batch, 3, side, side)],
        [declare("embedding", batch, dimension)],
        {"weights": weights(side, dimension, seed)},
    )


def formula(images, side=SIDE, dimension=DIMENSION, seed=0):
    """What `linear` computes, in NumPy and double precision."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    return flat @ weights(side, dimension, seed).astype(np.float64)


def golden(side=SIDE, dimension=DIMENSION, seed=0):
    shape = (1, 3, side, side)
    values = formula(golden_input(shape), side, dimension, seed)[0]
    return Golden(shape, {"embedding": tuple(float(v) for v in values)})


def linear_card(data, name="toy", **source):
    """A card for the bytes of `linear()`; source: fields of `Source` (by default a file's)."""
    digest = sha256(data).hexdigest()
    card = toy_card(
        name=name,
        source=Source(**({"type": "file", "sha256": digest, "bytes": len(data)} | source)),
        files=(ModelFile(f"{name}.onnx", digest, len(data)),),
        dimension=DIMENSION,
    )
    return replace(card, golden={name: golden()})


def convolved(*, harmed=(), activation="Relu", batch="batch", seed=0):
    """image (batch, 3, 16, 16) -> embedding (batch, 8): four layers with 8 channels between them.

    A convolution over the whole picture, one of single channels (3 x 3 on one pixel, so that only
    its middle counts), one of all channels, and a product. harmed: of "depthwise", "inner" and
    "last" those with a weight that is huge and multiplies nothing but zeros: the formula does not
    change, and 8 bits leave nothing of the other weights. activation: "Relu" or "PRelu".
    """
    random = np.random.RandomState(seed)
    first = random.standard_normal((8, 3, SIDE, SIDE)).astype(np.float32) / SIDE
    depthwise = random.uniform(0.5, 2, (8, 1, 3, 3)).astype(np.float32)
    inner = random.standard_normal((8, 8, 1, 1)).astype(np.float32)
    last = random.standard_normal((8, DIMENSION)).astype(np.float32)
    if "depthwise" in harmed:
        depthwise[:, :, 0, 0] = HUGE
    if "inner" in harmed:
        depthwise[0], inner[:, 0] = 0, HUGE
    if "last" in harmed:
        inner[0], last[0] = 0, HUGE
    slope = {"slope": np.full((8, 1, 1), 0.25, np.float32)} if activation == "PRelu" else {}
    return model(
        [
            helper.make_node("Conv", ["image", "first"], ["a"], strides=[SIDE, SIDE]),
            helper.make_node(activation, ["a", *slope], ["b"]),
            helper.make_node("Conv", ["b", "depthwise"], ["c"], group=8, pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["c", "inner"], ["d"]),
            helper.make_node("Relu", ["d"], ["e"]),
            helper.make_node("Flatten", ["e"], ["f"], axis=1),
            helper.make_node("Gemm", ["f", "last"], ["embedding"]),
        ],
        [declare("image", batch, 3, SIDE, SIDE)],
        [declare("embedding", batch, DIMENSION)],
        {"first": first, "depthwise": depthwise, "inner": inner, "last": last, **slope},
    )


def convolved_formula(message, images):
    """What `convolved` computes, in NumPy and double precision."""
    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in message.graph.initializer}
    a = np.einsum("nchw,kchw->nk", images.astype(np.float64), w["first"])
    b = np.where(a > 0, a, 0.25 * a if "slope" in w else 0)
    d = (b * w["depthwise"][:, 0, 1, 1]) @ w["inner"][:, :, 0, 0].T
    return np.maximum(d, 0) @ w["last"]
