"""The layers of an ONNX graph that hold weights, in an order that does not depend on its file.

Order: from the output backwards, inputs of a join one after the other, and of a sum the longer way
first, each layer after all that feed it. That is the order in which a network written in torch runs
its layers, so two networks of one structure can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError

Array = NDArray[Any]

NOTHING = -1
"""Number of the layer before the first."""
RESHAPES = ("Reshape", "Flatten", "Squeeze", "Dropout", "Identity")
"""Nodes that hand values on as they are."""
SUMS = ("Add", "Sum")


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer with weights.

    kind: "conv", "dense", "norm" or "prelu". arrays: by name, float32; conv: weight (out, in /
    groups, h, w), bias (out,); dense: weight (out, in), bias (out,); norm: weight, bias,
    running_mean, running_var (c,), epsilon (); prelu: weight (c,). window: of a conv, strides, pads
    (top, left, bottom, right) and groups. after: number of the layer whose values it gets as they
    are, or -1. scale: what its values are multiplied with next.
    """

    kind: str
    arrays: Mapping[str, Array]
    window: tuple[int, ...] = ()
    after: int = NOTHING
    scale: float = 1.0


def read_layers(data: bytes) -> list[Layer]:
    """The layers of an ONNX file of one output, in the order above.

    Raises ModelFileError for a file that is no ONNX, and for a layer whose weights are computed.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_from_string(data).graph
    except DecodeError as error:
        raise ModelFileError(
            "The model should be an ONNX file; it cannot be read as one."
        ) from error
    return _Graph(graph).layers()


class _Graph:
    """A graph with its constants and who makes what."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self.output = graph.output[0].name
        self.constants: dict[str, Array] = {
            one.name: numpy_helper.to_array(one) for one in graph.initializer
        }
        self.nodes: list[Any] = []
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
            else:
                self.nodes.append(node)
        self.maker = {name: k for k, node in enumerate(self.nodes) for name in node.output}
        self.users: dict[str, list[int]] = {}
        for number, node in enumerate(self.nodes):
            for name in node.input:
                self.users.setdefault(name, []).append(number)

    def layers(self) -> list[Layer]:
        """See `read_layers`."""
        found: list[Layer] = []
        places: dict[int, int] = {}  # node -> its layer
        for number in self._ordered():
            node = self.nodes[number]
            made = _READERS[node.op_type](self, node) if node.op_type in _READERS else None
            if made is not None:
                kind, arrays, window = made
                before = places.get(self._direct(node.input[0]), NOTHING)
                places[number] = len(found)
                found.append(Layer(kind, arrays, window, before, self._scale(node)))
        return found

    def weights(self, node: Any, *places: int) -> list[Array]:
        """Constant inputs of a node, float32. Raises ModelFileError where one is computed."""
        names = [node.input[place] for place in places]
        if not all(name in self.constants for name in names):
            raise ModelFileError(
                f"A layer {node.op_type} of the model should have constant weights; those of "
                f"{node.name[:80]!r} are computed. Use the network that it was exported from."
            )
        return [np.asarray(self.constants[name], np.float32) for name in names]

    def next_constant(self, node: Any, operator: str) -> Array | None:
        """The constant that the values of a node meet next, in an `operator` of their only user."""
        users = self.users.get(node.output[0], [])
        if len(users) != 1 or self.nodes[users[0]].op_type != operator:
            return None
        others = [name for name in self.nodes[users[0]].input if name in self.constants]
        return self.constants[others[0]] if len(others) == 1 else None

    def _scale(self, node: Any) -> float:
        factor = self.next_constant(node, "Mul")
        return float(factor.ravel()[0]) if factor is not None and factor.size == 1 else 1.0

    def _direct(self, name: str) -> int:
        """The node whose values arrive under that name, only reshaped; -1 for the picture."""
        number = self.maker.get(name, NOTHING)
        while number != NOTHING and self._hands_on(self.nodes[number]):
            variable = [one for one in self.nodes[number].input if one not in self.constants]
            number = self.maker.get(variable[0], NOTHING)
        return number

    def _hands_on(self, node: Any) -> bool:
        """Whether a node only reshapes, or adds the bias of a product."""
        if node.op_type == "Add" and any(name in self.constants for name in node.input):
            return any(
                self.nodes[self.maker[name]].op_type == "MatMul"
                for name in node.input
                if name in self.maker
            )
        return node.op_type in RESHAPES

    def _ordered(self) -> Iterator[int]:
        """Numbers of the nodes, each after those that feed it (see the module)."""
        depth: dict[int, int] = {}
        for number in range(len(self.nodes)):
            depth[number] = 1 + max((depth[k] for k in self._feeders(number)), default=0)
        pending = [(self.maker.get(self.output, NOTHING), False)]
        seen: set[int] = set()
        while pending:
            number, ready = pending.pop()
            if ready:
                yield number
            elif number not in seen and number != NOTHING:
                seen.add(number)
                pending.append((number, True))
                feeders = self._feeders(number)
                if self.nodes[number].op_type in SUMS:
                    feeders.sort(key=lambda k: -depth[k])
                pending += [(k, False) for k in reversed(feeders)]

    def _feeders(self, number: int) -> list[int]:
        """Nodes before a node; a file in a wrong order is refused where it is run."""
        names = self.nodes[number].input
        return [k for k in (self.maker.get(name, number) for name in names) if k < number]


Read = tuple[str, dict[str, Array], tuple[int, ...]] | None


def _conv(graph: _Graph, node: Any) -> Read:
    values = graph.weights(node, *_given(node))
    weight = values[0]
    bias = values[1] if len(values) > 1 else np.zeros(len(weight), np.float32)
    said = _attributes(node)
    strides = said.get("strides", [1, 1])
    pads = said.get("pads", [0, 0, 0, 0])
    if said.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        pads = [NOTHING] * 4  # fits nothing
    window = (*strides, *pads, said.get("group", 1))
    return "conv", {"weight": weight, "bias": bias}, window


def _gemm(graph: _Graph, node: Any) -> Read:
    values = graph.weights(node, *_given(node))
    said = _attributes(node)
    weight = values[0] if said.get("transB") else values[0].T
    weight = weight * np.float32(said.get("alpha", 1.0))
    bias = values[1].ravel() * np.float32(said.get("beta", 1.0)) if len(values) > 1 else 0.0
    return "dense", {"weight": weight, "bias": _wide(bias, weight)}, ()


def _matmul(graph: _Graph, node: Any) -> Read:
    if node.input[1] not in graph.constants:
        return None
    weight = graph.weights(node, 1)[0].T
    bias = graph.next_constant(node, "Add")
    return "dense", {"weight": weight, "bias": _wide(0.0 if bias is None else bias, weight)}, ()


def _norm(graph: _Graph, node: Any) -> Read:
    gain, offset, mean, variance = graph.weights(node, 1, 2, 3, 4)
    epsilon = np.asarray(_attributes(node).get("epsilon", 1e-5), np.float32)
    names = ("weight", "bias", "running_mean", "running_var", "epsilon")
    return "norm", dict(zip(names, (gain, offset, mean, variance, epsilon), strict=True)), ()


def _prelu(graph: _Graph, node: Any) -> Read:
    return "prelu", {"weight": graph.weights(node, 1)[0].ravel()}, ()


_READERS = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _norm,
    "PRelu": _prelu,
}
"""Operator -> what reads a node of it."""


def _given(node: Any) -> list[int]:
    """Places of the inputs after the first that are there: an optional one may have no name."""
    return [place for place in range(1, len(node.input)) if node.input[place]]


def _attributes(node: Any) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {one.name: get_attribute_value(one) for one in node.attribute}


def _wide(bias: Any, weight: Array) -> Array:
    """A bias for each row of a weight (out, in)."""
    return np.broadcast_to(np.asarray(bias, np.float32).ravel(), (len(weight),)).copy()
