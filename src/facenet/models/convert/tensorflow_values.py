"""The values that flow through a TensorFlow graph while it is rewritten as ONNX.

TensorFlow counts axes as N, H, W, C; the ONNX tensors written here lie as N, C, H, W. A
``Value`` keeps TensorFlow's shape and knows how its ONNX tensor lies. Convolutions and
dense layers stay open (``Linear``) while only factors and offsets per channel follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.models.convert.graphdef import MAX_RANK
from facenet.models.convert.liveness import LiveGraph, LiveNode
from facenet.models.convert.onnxgraph import GraphWriter

MAX_FOLD_ELEMENTS: Final = 1 << 24
"""Largest constant that may be computed from others, in elements."""

BATCH: Final = -(1 << 40)
"""The batch as a number in a constant shape; -1 stays TensorFlow's "whatever is left"."""

Size = int | None
"""Length of an axis; None is the batch."""
Sizes = tuple[Size, ...]
_T = TypeVar("_T")
Fold = Callable[[LiveNode, list[NDArray[Any]]], NDArray[Any]]


@dataclass
class Linear:
    """A convolution or dense layer that is not written yet.

    ``kernel`` is float64, output channels first; ``attrs`` are the ONNX attributes.
    """

    op: str
    source: str
    kernel: NDArray[np.float64]
    attrs: dict[str, Any]
    bias: NDArray[np.float64] | None = None
    written: str = ""

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return len(self.kernel)

    def scale(self, factor: NDArray[np.float64]) -> None:
        """Multiply every output channel by its factor."""
        self.kernel = self.kernel * factor.reshape(-1, *[1] * (self.kernel.ndim - 1))
        self.bias = None if self.bias is None else self.bias * factor

    def shift(self, offset: NDArray[np.float64]) -> None:
        """Add to every output channel its offset."""
        self.bias = offset if self.bias is None else self.bias + offset


@dataclass(frozen=True)
class Value:
    """The result of a node: a constant (``array``) or an ONNX tensor (``name``).

    ``shape`` is TensorFlow's. A rank-4 tensor lies as N x C x H x W, except when ``flat``:
    then a shape N x 1 x 1 x C lies as N x C.
    """

    name: str
    shape: Sizes
    array: NDArray[Any] | None = None
    flat: bool = False
    linear: Linear | None = None

    @property
    def open_layer(self) -> Linear | None:
        """The layer behind this value while it may still change, channels last in ``shape``."""
        layer = self.linear
        if layer is None or layer.written or self.shape[-1] != layer.channels:
            return None
        return layer


@dataclass(frozen=True)
class Step:
    """One node to write, with the values of its inputs."""

    node: LiveNode
    values: tuple[Value, ...]

    def refusal(self, expected: str, came: object) -> ModelFileError:
        """The error for a node that is used in a way no facenet network does."""
        return ModelFileError(
            f"expected {expected} at the {self.node.op} {self.node.name!r}, came {came}; "
            "this graph needs another converter"
        )

    def attribute(self, key: str, default: _T) -> _T:
        """An attribute of the default's type, or the default where it is absent."""
        value = self.node.attrs.get(key, default)
        if not isinstance(value, type(default)):
            raise self.refusal(f"{key} like {default!r}", type(value).__name__)
        return value

    def take(self, count: int) -> tuple[Value, ...]:
        """The first ``count`` inputs; ModelFileError where there are fewer."""
        if len(self.values) < count:
            raise self.refusal(f"{count} inputs", len(self.values))
        return self.values[:count]

    def constant(self, value: Value) -> NDArray[Any]:
        """The array of an input that must be a constant."""
        if value.array is None:
            raise self.refusal("a constant input", "a tensor")
        return value.array

    def integers(self, value: Value) -> list[int]:
        """The numbers of an input that must be a small whole-number constant."""
        array = self.constant(value)
        if array.dtype.kind not in "iu" or array.size > MAX_RANK:
            raise self.refusal("a few whole numbers", f"{array.size} of {array.dtype}")
        return [int(number) for number in array.reshape(-1)]

    def sizes(self, value: Value, rank: int) -> tuple[int, ...]:
        """The sizes behind the batch of an input that must be a tensor of this rank."""
        rest = [size for size in value.shape[1:] if size is not None]
        if value.array is not None or len(value.shape) != rank or len(rest) != rank - 1:
            raise self.refusal(f"a tensor of rank {rank}", value.shape)
        return tuple(rest)


@dataclass
class Builder:
    """Writes ONNX nodes for a live graph; ``image`` and ``embedding`` name its two ends.

    ``batch`` is the fixed batch the graph was frozen with, or None; reshapes may name it.
    """

    live: LiveGraph
    image: str
    embedding: str
    batch: Size
    graph: GraphWriter = field(default_factory=lambda: GraphWriter("facenet"))
    uses: Counter[str] = field(default_factory=Counter)
    _spatial: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.uses.update(name for node in self.live.nodes for name, _ in node.inputs)
        self.uses[self.live.output[0]] += 1

    def onnx_name(self, node: LiveNode) -> str:
        """TensorFlow's name, except for the output and names that are taken."""
        if node.name == self.live.output[0]:
            return self.embedding
        return node.name + ":0" if node.name in (self.image, self.embedding) else node.name

    def folded(self, step: Step, fold: Fold) -> Value:
        """The constant value of a node with constant inputs."""
        arrays = [step.constant(value) for value in step.values]
        if sum(array.size for array in arrays) > MAX_FOLD_ELEMENTS:
            raise step.refusal("small constants", "large ones")
        try:
            array = np.asarray(fold(step.node, arrays))
        except (ValueError, IndexError, TypeError, OverflowError) as error:
            raise step.refusal("constants that fit", error) from error
        return Value("", array.shape, array)

    def shared(self, name: str, value: Value) -> Value:
        """The value of node ``name``; an open layer that several nodes use is written."""
        if value.linear is not None and self.uses[name] > 1:
            self.tensor(value)
        return value

    def tensor(self, value: Value) -> str:
        """The ONNX tensor of a value that is no constant; an open layer is written now."""
        if value.array is not None:
            raise ModelFileError(
                "expected a tensor where the graph has a constant; freeze it again"
            )
        layer = value.linear
        if layer is None:
            return value.name
        if not layer.written:
            inputs = [layer.source, self.graph.constant(f"{value.name}:kernel", layer.kernel)]
            if layer.bias is not None:
                inputs.append(self.graph.constant(f"{value.name}:bias", layer.bias))
            layer.written = self.graph.node(layer.op, inputs, outputs=value.name, **layer.attrs)
            layer.kernel = np.zeros(0)  # the memory is needed no more
        return layer.written

    def spatial(self, value: Value) -> str:
        """The ONNX tensor of a rank-4 value as N x C x H x W."""
        name = self.tensor(value)
        if not value.flat:
            return name
        if name not in self._spatial:
            target = [0, int(value.shape[3] or 0), 1, 1]
            self._spatial[name] = self.reshape(name, target, output=f"{name}:spatial")
        return self._spatial[name]

    def reshape(self, name: str, target: Sequence[int], *, output: str) -> str:
        """A Reshape node; 0 in ``target`` keeps the batch."""
        shape = self.graph.constant(f"{output}:shape", list(target), dtype="<i8")
        return self.graph.node("Reshape", [name, shape], outputs=output)

    def finish(self, result: Value) -> int:
        """End the graph at ``result`` and return its width D."""
        if result.array is not None or len(result.shape) != 2 or result.shape[1] is None:
            raise ModelFileError(
                f"expected an output of shape N x D, but {self.live.output[0]!r} is {result.shape}"
            )
        name = self.tensor(result)
        if name != self.embedding:
            self.graph.node("Identity", [name], outputs=self.embedding)
        return result.shape[1]
