"""PReLU as layers that ONNX Runtime is fast at.

ONNX Runtime has no PReLU in the blocked layout of its convolutions: around each one it moves the
whole tensor to another layout and back. The same values come from layers that it keeps in that
layout, relu(x) - slope * relu(-x), where the products are convolutions of each channel by itself.
For every x one of the two terms is zero, so that nothing is rounded otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import EngineError

MARK = b"PRelu"
"""Stands in every graph that has one: without it, a graph need not be parsed."""
PICTURES = ("Conv", "BatchNormalization")
"""Layers whose output, where a slope per channel fits it, has four sides."""


def without_prelu(graph: Path | bytes) -> bytes | None:
    """An ONNX file that computes the same without PReLU; None where there is nothing to change.

    graph: an ONNX file, or its bytes. Raises EngineError when it cannot be read.
    """
    data = graph if isinstance(graph, bytes) else _read(graph)
    return _rewritten(data) if MARK in data else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"ONNX Runtime could not load {path}: {error.strerror or error}. Fetch or import the "
            "model again."
        ) from error


def _rewritten(data: bytes) -> bytes | None:
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:  # ONNX Runtime says what is wrong with it
        return None
    slopes = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = list(model.graph.node)
    pictures = {node.output[0] for node in nodes if node.op_type in PICTURES}
    made = [
        list(_layers(node, slopes)) if node.op_type == "PRelu" and node.input[0] in pictures else []
        for node in nodes
    ]
    if not any(made):
        return None
    del model.graph.node[:]
    for node, layers in zip(nodes, made, strict=True):
        model.graph.node.extend([part for part in layers if not _is_tensor(part)] or [node])
        model.graph.initializer.extend(filter(_is_tensor, layers))
    return bytes(model.SerializeToString())


def _is_tensor(part: Any) -> bool:
    return hasattr(part, "data_type")


def _layers(node: Any, slopes: dict[str, Any]) -> Iterator[Any]:
    """Nodes and weights in place of a PReLU with a slope per channel of a picture; else nothing."""
    from onnx import helper, numpy_helper

    (x, name), (y,) = node.input, node.output
    if name not in slopes or len(slopes[name].dims) < 3:
        return
    slope = numpy_helper.to_array(slopes[name])
    if slope.dtype != np.float32 or slope.shape[-2:] != (1, 1) or slope.size != slope.shape[-3]:
        return
    kernel = {"group": slope.size, "kernel_shape": [1, 1]}
    minus = -np.ones((slope.size, 1, 1, 1), np.float32)
    yield numpy_helper.from_array(minus, f"{y}/minus")
    yield numpy_helper.from_array(-slope.reshape(-1, 1, 1, 1), f"{y}/slope")
    yield helper.make_node("Relu", [x], [f"{y}/above"])
    yield helper.make_node("Conv", [x, f"{y}/minus"], [f"{y}/mirrored"], **kernel)
    yield helper.make_node("Relu", [f"{y}/mirrored"], [f"{y}/below"])
    yield helper.make_node("Conv", [f"{y}/below", f"{y}/slope"], [f"{y}/scaled"], **kernel)
    yield helper.make_node("Add", [f"{y}/scaled", f"{y}/above"], [y])
