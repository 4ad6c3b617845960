"""MobileFaceNet.tflite as an ONNX graph, in NCHW and for any batch size.

Reads the float TensorFlow Lite operators that file uses, through the development-only
package ``tflite`` (the generated FlatBuffers accessors). Three exact rewrites make the
graph smaller: ``relu(x) + c * (x - |x|)`` is PReLU with slope 2c, SAME padding becomes
numbers, and a 1 x 1 convolution that feeds only another 1 x 1 convolution is multiplied
into it.
Sources: the TensorFlow Lite schema; Chen et al., "MobileFaceNets" (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.models.convert.onnxgraph import GraphWriter

_OPTIONS = {
    "CONV_2D": tflite.Conv2DOptions,
    "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
    "ADD": tflite.AddOptions,
    "SUB": tflite.SubOptions,
    "MUL": tflite.MulOptions,
}
_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if name.isupper()}


@dataclass(frozen=True)
class Operator:
    """One TensorFlow Lite operator: tensor numbers in and out, and its options."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    options: Any


@dataclass
class Convolution:
    """A convolution that may still be merged: kernel O x I x H x W, NCHW padding."""

    source: int
    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]
    groups: int
    stride: int
    pads: list[int]

    def pointwise(self) -> bool:
        """Whether this is a dense 1 x 1 convolution of stride 1."""
        return self.kernel.shape[2:] == (1, 1) and self.groups == 1 and self.stride == 1


@dataclass
class Lite:
    """The only subgraph of a float model: operators in order, shapes and constants."""

    operators: list[Operator]
    shapes: list[tuple[int, ...]]
    constants: dict[int, NDArray[Any]]
    source: int
    sink: int
    users: dict[int, list[Operator]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operator in self.operators:
            for number in operator.inputs:
                self.users.setdefault(number, []).append(operator)


def mobilefacenet(data: bytes) -> bytes:
    """The ONNX bytes: ``image`` N x 3 x 112 x 112 -> ``embedding`` N x 192, float32.

    The picture is RGB, (x - 127.5) / 128; the embedding is not normalised.
    Raises ModelFileError for an operator or option this file does not use.
    """
    lite = read(data)
    writer = _Writer(lite)
    for operator in lite.operators:
        rule = _RULES.get(operator.kind)
        if rule is None:
            raise ModelFileError(f"expected the operators of MobileFaceNet, came {operator.kind}")
        rule(writer, operator)
    _, height, width, channels = lite.shapes[lite.source]
    return writer.graph.to_bytes(
        {"image": ("batch", channels, height, width)},
        {"embedding": ("batch", lite.shapes[lite.sink][-1])},
    )


def read(data: bytes) -> Lite:
    """Parse a TensorFlow Lite file with one subgraph, one input and one output."""
    model = tflite.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    tensors = [graph.Tensors(number) for number in range(graph.TensorsLength())]
    shapes = [
        tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
        for tensor in tensors
    ]
    constants = {}
    for number, tensor in enumerate(tensors):
        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength() and tensor.Type() == tflite.TensorType.FLOAT32:
            constants[number] = buffer.DataAsNumpy().view("<f4").reshape(shapes[number])
    operators = [_operator(model, graph.Operators(n)) for n in range(graph.OperatorsLength())]
    (source,), (sink,) = graph.InputsAsNumpy(), graph.OutputsAsNumpy()
    return Lite(operators, shapes, constants, int(source), int(sink))


def _operator(model: tflite.Model, raw: tflite.Operator) -> Operator:
    code = model.OperatorCodes(raw.OpcodeIndex())
    kind = _NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    options = None
    if kind in _OPTIONS:
        options = _OPTIONS[kind]()
        options.Init(raw.BuiltinOptions().Bytes, raw.BuiltinOptions().Pos)
        if options.FusedActivationFunction() != tflite.ActivationFunctionType.NONE:
            raise ModelFileError(f"expected no fused activation, but a {kind} has one")
    (output,) = raw.OutputsAsNumpy()
    return Operator(
        kind, tuple(int(number) for number in raw.InputsAsNumpy()), int(output), options
    )


class _Writer:
    """Turns operators into ONNX nodes; ``tensors`` maps numbers to ONNX names."""

    def __init__(self, lite: Lite) -> None:
        self.lite = lite
        self.graph = GraphWriter("mobilefacenet")
        self.tensors = {lite.source: "image"}
        self.waiting: dict[int, Convolution] = {}

    def name(self, number: int, kind: str) -> str:
        """A new name for the result of a tensor's operator, recorded for its users."""
        name = "embedding" if number == self.lite.sink else f"{kind}{number}"
        self.tensors[number] = name
        return name

    def convolution(self, operator: Operator) -> None:
        """CONV_2D and DEPTHWISE_CONV_2D, merged or written at once."""
        layer = _convolution(self.lite, operator)
        before = self.waiting.pop(layer.source, None)
        if before is not None:
            layer = _merged(before, layer)
        users = self.lite.users[operator.output]
        if layer.pointwise() and [user.kind for user in users] == ["CONV_2D"]:
            after = _convolution(self.lite, users[0])
            if after.pointwise():
                self.waiting[operator.output] = layer
                return
        self.write(layer, operator.output)

    def write(self, layer: Convolution, number: int) -> None:
        """Append a Conv node."""
        source = self.tensors[layer.source]
        name = self.name(number, "conv")
        self.graph.node(
            "Conv",
            [
                source,
                self.graph.constant(f"conv{number}.weight", layer.kernel),
                self.graph.constant(f"conv{number}.bias", layer.bias),
            ],
            outputs=name,
            kernel_shape=list(layer.kernel.shape[2:]),
            strides=[layer.stride, layer.stride],
            pads=layer.pads,
            group=layer.groups,
        )

    def add(self, operator: Operator) -> None:
        """ADD: a residual sum, or the last step of a PReLU."""
        found = _prelu(self.lite, operator)
        if found is None:
            left, right = (self.tensors[number] for number in operator.inputs)
            self.graph.node("Add", [left, right], outputs=self.name(operator.output, "add"))
            return
        source, factor = found
        slope = self.graph.constant(f"prelu{operator.output}.slope", 2 * factor.reshape(-1, 1, 1))
        inputs = [self.tensors[source], slope]
        self.graph.node("PRelu", inputs, outputs=self.name(operator.output, "prelu"))

    def reshape(self, operator: Operator) -> None:
        """RESHAPE of N x 1 x 1 x C to N x C."""
        before = self.lite.shapes[operator.inputs[0]]
        if before[1:3] != (1, 1) or self.lite.shapes[operator.output] != (before[0], before[3]):
            raise ModelFileError("expected a reshape of N x 1 x 1 x C to N x C, came another one")
        source = self.tensors[operator.inputs[0]]
        self.graph.node("Flatten", [source], outputs=self.name(operator.output, "flat"), axis=1)

    def skip(self, operator: Operator) -> None:
        """RELU, ABS, SUB and MUL, which must be parts of a PReLU."""
        users = [operator]
        while users[0].kind != "ADD":
            users = self.lite.users.get(users[0].output, [])
            if len(users) != 1:
                raise ModelFileError(f"expected {operator.kind} inside a PReLU, came a lone one")
        if _prelu(self.lite, users[0]) is None:
            raise ModelFileError(f"expected {operator.kind} inside a PReLU, came another use")


def _convolution(lite: Lite, operator: Operator) -> Convolution:
    source, kernel_number, bias_number = operator.inputs
    options, kernel = operator.options, lite.constants[kernel_number].astype(np.float64)
    depthwise = operator.kind == "DEPTHWISE_CONV_2D"
    kernel = kernel.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
    steps = {options.StrideH(), options.StrideW()}
    dilations = {options.DilationHFactor(), options.DilationWFactor()}
    if len(steps) != 1 or dilations != {1} or (depthwise and options.DepthMultiplier() != 1):
        raise ModelFileError("expected square strides and no dilation, came another convolution")
    pads = [0, 0, 0, 0]
    if options.Padding() == tflite.Padding.SAME:
        before, after = lite.shapes[source][1:3], lite.shapes[operator.output][1:3]
        total = [
            max((out - 1) * options.StrideH() + side - size, 0)
            for size, out, side in zip(before, after, kernel.shape[2:], strict=True)
        ]
        pads = [n // 2 for n in total] + [n - n // 2 for n in total]
    bias = lite.constants[bias_number].astype(np.float64)
    groups = len(kernel) if depthwise else 1
    return Convolution(source, kernel, bias, groups, steps.pop(), pads)


def _merged(first: Convolution, second: Convolution) -> Convolution:
    """Two 1 x 1 convolutions as one: W2 (W1 x + b1) + b2.

    Summed term by term: a matrix product may round differently on another processor.
    """
    left = second.kernel[:, :, 0, 0]
    right = np.column_stack([first.kernel[:, :, 0, 0], first.bias])
    product = np.zeros((len(left), right.shape[1]))
    for column, row in zip(left.T, right, strict=True):
        product += column[:, None] * row
    kernel, bias = product[:, :-1, None, None], product[:, -1] + second.bias
    return Convolution(first.source, kernel, bias, 1, 1, [0, 0, 0, 0])


def _prelu(lite: Lite, add: Operator) -> tuple[int, NDArray[Any]] | None:
    """(x, c) where ``add`` is relu(x) + c * (x - |x|), else None."""
    made = {operator.output: operator for operator in lite.operators}
    relu, mul = (made.get(number) for number in add.inputs)
    if relu is None or mul is None or (relu.kind, mul.kind) != ("RELU", "MUL"):
        return None
    factor, sub = lite.constants.get(mul.inputs[0]), made.get(mul.inputs[1])
    if factor is None or sub is None or sub.kind != "SUB":
        return None
    magnitude = made.get(sub.inputs[1])
    whole = (sub.inputs[0],)
    if magnitude is None or magnitude.kind != "ABS" or not magnitude.inputs == relu.inputs == whole:
        return None
    return sub.inputs[0], factor


_RULES: dict[str, Callable[[_Writer, Operator], None]] = {
    "CONV_2D": _Writer.convolution,
    "DEPTHWISE_CONV_2D": _Writer.convolution,
    "ADD": _Writer.add,
    "RESHAPE": _Writer.reshape,
    **dict.fromkeys(("RELU", "ABS", "SUB", "MUL"), _Writer.skip),
}
