"""Static quantisation of an embedder's graph after training, by ONNX Runtime's own tool.

Weights become 8-bit per output channel, activations 8-bit with one range each: the mean of those of
batches of faces, since what one face in a thousand reaches is not worth the bits. QuantizeLinear
and DequantizeLinear say where, and both runtimes compute what lies between in integers. See Jacob
et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, and the guide of onnxruntime.quantization.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError
from facenet.runtime import failures, runtime

LAYERS = ("Conv", "Gemm", "MatMul")
"""What is worth the while: the layers that multiply."""
BETWEEN = ("MaxPool", "Add", "Concat", "Relu")
"""What lies between them and would otherwise cost a way to float and back."""
SIGNED = ("PRelu", "LeakyRelu", "Elu", "Selu", "HardSwish")
"""Layers after which values below zero matter: signed ranges around zero then let the runtimes
join such a layer with the convolution before it, and ranges from zero let them join a Relu."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A choice of what stays in float: in words, and the names of the nodes."""

    kept: str
    nodes: tuple[str, ...]


class Quantiser:
    """Quantises one graph in several ways after one look at the crops; a context manager.

    graph: an ONNX file with one input. Its ranges and intermediate files lie in a temporary
    folder, which goes at the end. Raises EngineError for a graph that the tool cannot read.
    """

    def __init__(self, graph: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="facenet-int8-")
        self._plain = Path(self._folder.name) / "plain.onnx"
        self._ranges = Path(self._folder.name) / "ranges.json"
        try:
            self._model = _prepared(graph, self._plain)
        except EngineError:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Quantiser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    @property
    def output(self) -> str:
        """Name of the graph's first output."""
        return str(self._model.graph.output[0].name)

    def plans(self) -> list[Plan]:
        """What to try, in this order, until one is close enough; each keeps more in float.

        Depthwise convolutions have few weights and channels of very different ranges, and the
        layers at the ends see pixels and make the vector: these lose most by 8 bits.
        """
        layers = [node for node in self._model.graph.node if node.op_type in LAYERS]
        depthwise = tuple(node.name for node in layers if _groups(node) > 1)
        ends = tuple(dict.fromkeys(node.name for node in (*layers[:1], *layers[-1:])))
        plans = [
            Plan("nothing", ()),
            Plan("the convolutions of single channels", depthwise),
            Plan("the first and the last layer", ends),
            Plan(
                "the convolutions of single channels, the first and the last layer",
                tuple(dict.fromkeys((*depthwise, *ends))),
            ),
        ]
        distinct = {frozenset(plan.nodes): plan for plan in reversed(plans)}
        return [
            plan
            for plan in plans
            if distinct[frozenset(plan.nodes)] is plan and len(plan.nodes) < len(layers)
        ]

    def quantise(self, plan: Plan, batches: Iterable[NDArray[np.float32]]) -> bytes:
        """The graph with 8-bit layers, as ONNX bytes.

        batches: network inputs, float32 (n, 3, H, W) each, from which the ranges are taken; only
        the first call looks at them. Raises EngineError when the tool cannot do it.
        """
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        signed = any(node.op_type in SIGNED for node in self._model.graph.node)
        made = self._plain.with_name("int8.onnx")
        with _quiet(), _mapped():
            quantize_static(
                self._plain,
                made,
                _Reader(self._model.graph.input[0].name, batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*LAYERS, *BETWEEN],
                per_channel=True,
                activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(plan.nodes),
                extra_options={"ActivationSymmetric": signed, "CalibMovingAverage": True},
                calibration_cache_path=self._ranges,
            )
            return _with_exact_end(made)


def tool() -> str:
    """What quantises, with its version."""
    return f"onnxruntime.quantization {version('onnxruntime')}"


class _Reader:
    """Hands batches to the tool, which asks for one after the other until there is none."""

    def __init__(self, name: str, batches: Iterable[NDArray[np.float32]]) -> None:
        self._name, self._batches = name, iter(batches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch by the name of the input, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _prepared(graph: Path, path: Path) -> Any:
    """The graph with constants and normalisations folded in, every node named, written to path."""
    runtime()
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _quiet(), _mapped():
        quant_pre_process(str(graph), str(path), skip_symbolic_shape=True)
        model = onnx.load(str(path))
        if not model.graph.input:
            raise ValueError("it holds no graph with an input")
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}.{number}"
        onnx.save(model, str(path))
    return model


def _with_exact_end(path: Path) -> bytes:
    """A quantised graph without rounding behind its last 8-bit layer, where nothing gains by it:
    the values of the vector keep all their bits."""
    import onnx

    model = onnx.load(str(path))
    nodes = list(model.graph.node)
    made_by = {name: node for node in nodes for name in node.output}
    needed = _before_layers(nodes)
    ends = {entry.name for entry in model.graph.output}
    for after in [node for node in nodes if node.op_type == "DequantizeLinear"]:
        before = made_by.get(after.input[0])
        if before is None or after.output[0] in needed:
            continue
        plain, rounded = before.input[0], after.output[0]
        old, new = (plain, rounded) if rounded in ends else (rounded, plain)
        for node in (before, after):
            model.graph.node.remove(node)
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    return bytes(model.SerializeToString())


def _before_layers(nodes: Sequence[Any]) -> set[str]:
    """Names of the values that some layer of `LAYERS` still depends on."""
    needed: set[str] = set()
    for node in reversed(nodes):  # a graph is in order
        if node.op_type in LAYERS or needed.intersection(node.output):
            needed.update(node.input)
    return needed


def _groups(node: Any) -> int:
    return next((int(each.i) for each in node.attribute if each.name == "group"), 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """The tool gives advice on the root logger, to people who write calls of it, and prints what it
    raises too."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _mapped() -> Iterator[None]:
    """Everything that the tool raises under one name."""
    from google.protobuf.message import DecodeError

    known: tuple[type[Exception], ...] = (
        *failures(),
        DecodeError,
        KeyError,
        TypeError,
        AttributeError,
        AssertionError,
    )
    try:
        yield
    except known as error:
        raise EngineError(
            f"The graph cannot be made 8-bit: {str(error)[:300].rstrip('.')}. Use the precision "
            "fp32 or bf16 with it."
        ) from error
