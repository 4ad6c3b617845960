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
