"""Networks of MXNet, `NAME-symbol.json` with `NAME-0000.params`, as ONNX graphs.

Written for InsightFace's recognisers of 2018 to 2020 (LResNet-IR, with and without squeeze and
excitation, and MobileFaceNet). They standardise inside the graph, so their input is 0 to 255.
Source: the operators of Apache MXNet 1.9.1; `fc1_output` is what InsightFace takes as the vector.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError, StorageError
from facenet.models.convert.mxnetfile import read_params
from facenet.models.convert.onnxgraph import GraphWriter

IMAGE: Final = "image"
"""Name of the ONNX input: float32, N x 3 x H x W, RGB, values as the network takes them."""
EMBEDDING: Final = "embedding"
"""Name of the ONNX output: float32, N x D."""
VECTOR: Final = "fc1"
"""Name of the node that InsightFace takes the vector from."""
MAX_SYMBOL_BYTES: Final = 16 << 20
"""Largest symbol file that is read, in bytes; that of LResNet100-IR has 0.3 MB."""
MAX_NODES: Final = 20_000
"""Most nodes of a network."""

_NUMBERS: Final = re.compile(r"[(\[] *(\d{1,6})L?, *(\d{1,6})L? *[)\]]|(\d{1,6})")


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the network. sources: numbers of the nodes it takes, in order."""

    op: str
    name: str
    attrs: Mapping[str, str]
    sources: tuple[int, ...]


def find_pair(file: Path) -> tuple[Path, Path] | None:
    """The symbol and the parameters of a network, given one of both or their folder; else None.

    Of several parameter files the one of the last epoch is taken. Raises ModelFileError when the
    other file is missing, or a folder holds several networks; StorageError when it is unreadable.
    """
    if file.is_dir():
        symbols = sorted(file.glob("*-symbol.json"))
        if not symbols:
            return None
        if len(symbols) > 1:
            raise ModelFileError(
                f"{str(file)[:200]} should hold one network of MXNet, but it holds {len(symbols)}; "
                "give one of the files -symbol.json."
            )
        file = symbols[0]
    if file.suffix == ".params":
        symbol = file.with_name(f"{re.sub(r'-[0-9]{4}$', '', file.stem)}-symbol.json")
        pair = symbol, file
    elif file.name.endswith("-symbol.json"):
        prefix = file.name.removesuffix("-symbol.json")
        pair = file, _last_epoch(file.parent, prefix)
    else:
        return None
    missing = next((path for path in pair if not path.is_file()), None)
    if missing is not None:
        raise ModelFileError(
            f"{file.name[:100]} is half a network of MXNet; {missing.name[:100]} should be beside "
            "it. Put both files into one folder."
        )
    return pair


def convert_mxnet(symbol: bytes, params: bytes, *, side: int = 112) -> bytes:
    """The ONNX bytes of a network of MXNet: `image` (N, 3, side, side) to `embedding` (N, D).

    symbol, params: both files, whole. side: of the picture, in pixels. The vector is that of the
    node `fc1`, or of the one output where there is no such node.
    Raises ModelFileError for damaged files and for operators of other networks.
    """
    nodes, heads = _network(symbol)
    named = [number for number, node in enumerate(nodes) if node.name == VECTOR]
    if len(named or heads) != 1:
        raise _refusal(f"{len(heads)} outputs and none named {VECTOR}")
    net = _Net(nodes, read_params(params))
    with np.errstate(all="ignore"):  # strange numbers are refused where they are stored
        return net.write((named or heads)[0], side)


def _last_epoch(folder: Path, prefix: str) -> Path:
    """The newest PREFIX-0000.params of a folder, or where one should be."""
    pattern = re.compile(re.escape(prefix) + r"-[0-9]{4}\.params")
    try:
        names = sorted(path.name for path in folder.iterdir() if pattern.fullmatch(path.name))
    except OSError as error:
        raise StorageError(
            f"Cannot read the folder {str(folder)[:200]}: {error.strerror or error}."
        ) from error
    return folder / (names[-1] if names else f"{prefix}-0000.params")


def _network(symbol: bytes) -> tuple[list[_Node], list[int]]:
    """The nodes, each behind those it takes, and the numbers of the outputs."""
    if len(symbol) > MAX_SYMBOL_BYTES:
        raise _refusal(f"{len(symbol):,} bytes of nodes, more than {MAX_SYMBOL_BYTES:,}")
    try:
        tree = json.loads(symbol)
        nodes = [
            _node(entry, number) for number, entry in enumerate(tree["nodes"][: MAX_NODES + 1])
        ]
        heads = [int(head[0]) for head in tree["heads"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _refusal("damaged nodes") from error
    if len(nodes) > MAX_NODES or not all(0 <= head < len(nodes) for head in heads):
        raise _refusal(f"more than {MAX_NODES:,} nodes, or outputs of none")
    return nodes, heads


def _node(entry: Mapping[str, Any], number: int) -> _Node:
    attrs: dict[str, str] = {}
    for key in ("param", "attr", "attrs"):  # before 0.9, before 1.0, since
        attrs |= {str(k): str(v)[:200] for k, v in (entry.get(key) or {}).items()}
    sources = []
    for source, output, *_ in entry["inputs"]:
        if type(source) is not int or not 0 <= source < number or output != 0:
            raise _refusal("nodes in a circle, or one that takes another's second output")
        sources.append(source)
    return _Node(str(entry["op"]), str(entry["name"])[:200], attrs, tuple(sources))


class _Net:
    """The graph while it is written. Values are known by the number of the node they come from."""

    def __init__(self, nodes: list[_Node], weights: Mapping[str, NDArray[Any]]) -> None:
        self._nodes, self._weights = nodes, weights
        self._graph = GraphWriter("mxnet")
        self._names: dict[int, str] = {}
        self._ranks: dict[int, int] = {}
        self._number = self._written = self._width = 0

    def write(self, target: int, side: int) -> bytes:
        """The ONNX bytes of everything the target needs."""
        needed = {target}
        for number in range(target, -1, -1):
            if number in needed:
                needed.update(self._nodes[number].sources)
        for number in sorted(needed):
            if self._nodes[number].op != "null":
                self._write(number)
            elif self._nodes[number].name not in self._weights:
                self._input(number)
        if IMAGE not in self._names.values() or self._ranks.get(target) != 2 or not self._width:
            raise _refusal("no picture that becomes a vector")
        self._graph.node("Identity", [self._names[target]], outputs=EMBEDDING)
        sizes = ("batch", 3, side, side)
        return self._graph.to_bytes({IMAGE: sizes}, {EMBEDDING: ("batch", self._width)})

    def _input(self, number: int) -> None:
        if IMAGE in self._names.values():
            raise _refusal(f"no weights for {self._nodes[number].name[:80]!r}")
        self._names[number], self._ranks[number] = IMAGE, 4

    def _write(self, number: int) -> None:
        node = self._nodes[number]
        writer = _OPERATORS.get(node.op)
        if writer is None:
            raise _refusal(f"the operator {node.op[:60]!r}, which no recogniser of InsightFace has")
        self._number = number
        self._ranks[number] = self._ranks.get(node.sources[0], 0) if node.sources else 0
        if self._ranks[number] not in (2, 4):
            raise _refusal(f"{node.name[:80]!r} without a picture or a vector to work on")
        self._names[number] = writer(self, node)

    # ---- what the writers of operators use

    def add(self, op: str, inputs: list[str], **attrs: Any) -> str:
        """Write a node of ONNX, and return the name of what it gives."""
        self._written += 1
        return self._graph.node(op, inputs, outputs=f"{op}_{self._number}_{self._written}", **attrs)

    def top(self, node: _Node, place: int = 0) -> str:
        """The name of a value that is computed, not stored."""
        name = self._names.get(node.sources[place]) if place < len(node.sources) else None
        if name is None:
            raise _refusal(f"{node.name[:80]!r} without its input {place}")
        return name

    def stored(self, node: _Node, place: int, rank: int) -> NDArray[Any]:
        """A weight of a node, in float64."""
        name = self._nodes[node.sources[place]].name if place < len(node.sources) else "?"
        values = self._weights.get(name)
        if values is None or values.dtype.kind != "f" or values.ndim != rank:
            came = "none" if values is None else f"{values.dtype} of {values.shape}"
            raise _refusal(f"{came} as {name[:80]!r}, where real numbers along {rank} axes belong")
        return values.astype(np.float64)

    def constant(self, values: NDArray[Any]) -> str:
        """Store values as float32."""
        numbers = values.astype(np.float32)
        if not np.all(np.isfinite(numbers)):
            raise _refusal("weights that are not finite")
        self._written += 1
        return self._graph.constant(f"weight_{self._number}_{self._written}", numbers)

    def rank(self) -> int:
        """Axes of what the node takes, 4 or 2."""
        return self._ranks[self._number]

    def flattened(self, width: int) -> None:
        """The node gives vectors of this length."""
        self._ranks[self._number], self._width = 2, width


def _convolution(net: _Net, node: _Node) -> str:
    kernel = net.stored(node, 1, 4)
    inputs = [net.top(node), net.constant(kernel)]
    if not _flag(node, "no_bias", default=False):
        inputs.append(net.constant(net.stored(node, 2, 1)))
    pad = _pair(node, "pad", 0)
    return net.add(
        "Conv",
        inputs,
        kernel_shape=list(kernel.shape[2:]),
        strides=_pair(node, "stride", 1),
        dilations=_pair(node, "dilate", 1),
        pads=pad * 2,
        group=_pair(node, "num_group", 1)[0],
    )


def _normalisation(net: _Net, node: _Node) -> str:
    """Batch normalisation; a gamma that is fixed is one, whatever is stored."""
    gamma, beta, mean, variance = (net.stored(node, place, 1) for place in range(1, 5))
    if _flag(node, "fix_gamma", default=True):
        gamma = np.ones_like(gamma)
    scale = gamma / np.sqrt(variance + _real(node, "eps", 1e-3))
    shape = (-1, 1, 1) if net.rank() == 4 else (-1,)
    parts = [net.constant(v.reshape(shape)) for v in (scale, beta - mean * scale)]
    return net.add("Add", [net.add("Mul", [net.top(node), parts[0]]), parts[1]])


def _leaky(net: _Net, node: _Node) -> str:
    kind = node.attrs.get("act_type", "leaky")
    if kind == "leaky":
        return net.add("LeakyRelu", [net.top(node)], alpha=_real(node, "slope", 0.25))
    if kind != "prelu":
        raise _refusal(f"the activation {kind[:40]!r}")
    slope = net.stored(node, 1, 1)
    shape = (-1, 1, 1) if net.rank() == 4 else (-1,)
    return net.add("PRelu", [net.top(node), net.constant(slope.reshape(shape))])


def _activation(net: _Net, node: _Node) -> str:
    kinds = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    kind = node.attrs.get("act_type", "")
    if kind not in kinds:
        raise _refusal(f"the activation {kind[:40]!r}")
    return net.add(kinds[kind], [net.top(node)])


def _pooling(net: _Net, node: _Node) -> str:
    kind = node.attrs.get("pool_type", "max")
    kinds = {"max": "Max", "avg": "Average"}
    if kind not in kinds or node.attrs.get("pooling_convention", "valid") != "valid":
        raise _refusal("a pool of an unusual kind")
    if _flag(node, "global_pool", default=False):
        return net.add(f"Global{kinds[kind]}Pool", [net.top(node)])
    attrs: dict[str, Any] = {"kernel_shape": _pair(node, "kernel", 0)}
    attrs |= {"strides": _pair(node, "stride", 1), "pads": _pair(node, "pad", 0) * 2}
    if kind == "avg":
        attrs["count_include_pad"] = int(_flag(node, "count_include_pad", default=True))
    return net.add(f"{kinds[kind]}Pool", [net.top(node)], **attrs)


def _dense(net: _Net, node: _Node) -> str:
    kernel = net.stored(node, 1, 2)
    inputs = [net.add("Flatten", [net.top(node)], axis=1), net.constant(kernel)]
    if not _flag(node, "no_bias", default=False):
        inputs.append(net.constant(net.stored(node, 2, 1)))
    net.flattened(len(kernel))
    return net.add("Gemm", inputs, transB=1)


def _flatten(net: _Net, node: _Node) -> str:
    net.flattened(0)
    return net.add("Flatten", [net.top(node)], axis=1)


def _same(net: _Net, node: _Node) -> str:
    """What does nothing where nothing is trained."""
    return net.top(node)


def _both(op: str) -> Callable[[_Net, _Node], str]:
    return lambda net, node: net.add(op, [net.top(node), net.top(node, 1)])


def _with_number(op: str) -> Callable[[_Net, _Node], str]:
    def write(net: _Net, node: _Node) -> str:
        number = net.constant(np.array(_real(node, "scalar", 0.0)))
        return net.add(op, [net.top(node), number])

    return write


_OPERATORS: Final[dict[str, Callable[[_Net, _Node], str]]] = {
    "Convolution": _convolution,
    "BatchNorm": _normalisation,
    "LeakyReLU": _leaky,
    "Activation": _activation,
    "Pooling": _pooling,
    "FullyConnected": _dense,
    "Flatten": _flatten,
    **dict.fromkeys(("Dropout", "identity", "_copy", "BlockGrad"), _same),
    **dict.fromkeys(("elemwise_add", "_plus", "_Plus", "broadcast_add"), _both("Add")),
    **dict.fromkeys(("elemwise_mul", "_mul", "_Mul", "broadcast_mul"), _both("Mul")),
    **dict.fromkeys(("_minus_scalar", "_MinusScalar"), _with_number("Sub")),
    **dict.fromkeys(("_mul_scalar", "_MulScalar"), _with_number("Mul")),
}
"""Operators of MXNet -> what writes them; all others are refused."""


def _flag(node: _Node, name: str, *, default: bool) -> bool:
    return node.attrs.get(name, str(default)).lower() in ("true", "1")


def _real(node: _Node, name: str, default: float) -> float:
    try:
        return float(node.attrs.get(name, default))
    except ValueError as error:
        raise _refusal(f"no number as {name} of {node.name[:80]!r}") from error


def _pair(node: _Node, name: str, default: int) -> list[int]:
    """Height and width of "(3, 3)", twice the number of "3"; nothing or "()" is the default."""
    text = node.attrs.get(name, "()").strip()
    if text in ("()", "[]"):
        return [default, default]
    found = _NUMBERS.fullmatch(text)
    if found is None:
        raise _refusal(f"no height and width as {name} of {node.name[:80]!r}")
    first, second = found.group(1) or found.group(3), found.group(2) or found.group(3)
    return [int(first), int(second)]


def _refusal(came: str) -> ModelFileError:
    return ModelFileError(
        f"expected a recogniser of MXNet (-symbol.json and .params), but it holds {came}; take the "
        "ONNX file of the network from InsightFace's model zoo, or get both files again"
    )
