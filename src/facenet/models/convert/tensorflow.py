"""A frozen facenet graph (TensorFlow ``.pb``) as an ONNX file, without TensorFlow.

The graph is read (``graphdef``), cut down to what a picture passes through
(``liveness``) and written operator by operator (``tensorflow_ops``), with static shapes
followed for one picture size. Convolutions are written for N x C x H x W directly, so the
result has no transpositions; biases, batch normalisations and constant factors behind a
convolution or a dense layer are multiplied into its weights.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from facenet.errors import ModelFileError
from facenet.models.convert.graphdef import Shape, read_graph_def
from facenet.models.convert.liveness import LiveGraph, LiveNode, live_graph
from facenet.models.convert.tensorflow_folds import FOLD
from facenet.models.convert.tensorflow_ops import EMIT
from facenet.models.convert.tensorflow_values import Builder, Step, Value

IMAGE: Final = "image"
"""Name of the ONNX input: float32, N x C x size x size, standardised like the original's."""
EMBEDDING: Final = "embedding"
"""Name of the ONNX output: float32, N x D."""
MAX_SIZE: Final = 2048
"""Largest picture side a graph is written for, in pixels."""
_CHANNELS: Final = 3
_VARIABLES: Final = ("Variable", "VariableV2", "VarHandleOp")


def convert_frozen_graph(data: bytes, *, output: str = "embeddings", size: int = 160) -> bytes:
    """The ONNX bytes of a frozen facenet network.

    ``data`` is the whole ``.pb`` file, ``output`` the name of the tensor to keep (N x D),
    ``size`` the picture's side in pixels. The result takes ``image``, float32, N x 3 x
    size x size with free N, in the colour order and standardisation the network was
    trained with (facenet: RGB; nothing is added here), and gives ``embedding``, float32,
    N x D, exactly what the graph computes (facenet: L2-normalised). The same bytes in give
    the same bytes out.
    Raises ModelFileError for a file that is no frozen graph, for an operator this package
    does not know (named with its node), and for a size the graph does not accept.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ModelFileError(f"expected a picture size from 1 to {MAX_SIZE} pixels, came {size}")
    graph = live_graph(read_graph_def(data), output)
    batch, channels = _picture(graph, size)
    builder = Builder(graph, IMAGE, EMBEDDING, batch)
    values = {graph.image: Value(IMAGE, (None, size, size, channels))}
    with np.errstate(all="ignore"):  # strange numbers in a file are the file's business
        for node in graph.nodes:
            if node.name != graph.image:
                values[node.name] = _emit(builder, _step(builder, values, node=node))
        width = builder.finish(values[graph.output[0]])
    return builder.graph.to_bytes(
        {IMAGE: ("batch", channels, size, size)}, {EMBEDDING: ("batch", width)}
    )


def _picture(graph: LiveGraph, size: int) -> tuple[int | None, int]:
    """(fixed batch or None, channels) of the picture, whose sides must be ``size``."""
    (node,) = (node for node in graph.nodes if node.name == graph.image)
    declared = node.attrs.get("shape")
    sizes = declared.sizes if isinstance(declared, Shape) else None
    if not sizes:
        sizes = (None, None, None, None)
    if len(sizes) != 4 or any(side not in (None, size) for side in sizes[1:3]):
        raise ModelFileError(
            f"expected a graph for pictures of {size} x {size} pixels, "
            f"but {graph.image!r} is declared as {sizes}; give its own size"
        )
    return sizes[0], sizes[3] or _CHANNELS


def _step(builder: Builder, values: dict[str, Value], *, node: LiveNode) -> Step:
    if any(number for _, number in node.inputs):
        raise ModelFileError(f"expected only first outputs in use, but {node.name!r} takes others")
    return Step(node, tuple(builder.shared(name, values[name]) for name, _ in node.inputs))


def _emit(builder: Builder, step: Step) -> Value:
    """The value of one node: folded where all inputs are constants, else written."""
    op = step.node.op
    if op in FOLD and step.values and all(value.array is not None for value in step.values):
        return builder.folded(step, FOLD[op])
    if op in _VARIABLES:
        raise ModelFileError(
            f"expected a frozen graph, but the values of {step.node.name!r} are not in it: "
            "facenet's freeze_graph leaves out those of every network but Inception-ResNet-v1; "
            "import the checkpoint instead"
        )
    if op not in EMIT:
        raise ModelFileError(
            f"expected the operators of a facenet network, but the node {step.node.name!r} is a "
            f"{op}; this graph needs another converter"
        )
    return EMIT[op](builder, step)
