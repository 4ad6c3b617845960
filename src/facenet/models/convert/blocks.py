"""What facenet's networks are made of, as ONNX nodes: convolution units, residual blocks, the head.

Source: `models/inception_resnet_v1.py`, `inception_resnet_v2.py` and `squeezenet.py` of
davidsandberg/facenet (2017 and 2018) and the layers of TensorFlow's `slim` they call. Every
convolution has batch normalisation without gamma, then ReLU; the few others have a bias instead.
Graphs are written for inference: normalisations and the scales of the residual blocks are
multiplied into kernels and biases, dropout is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.models.convert.onnxgraph import GraphWriter

IMAGE: Final = "image"
"""Name of the ONNX input: float32, N x 3 x size x size, RGB, standardised as in training."""
EMBEDDING: Final = "embedding"
"""Name of the ONNX output: float32, N x D, before the scaling to unit length."""
SIZE: Final = 160
"""Sides of the picture, in pixels, where nothing else is asked for."""
MAX_SIZE: Final = 2048
"""Largest sides of the picture, in pixels."""
EPSILON: Final = 0.001
"""Added to each variance, in every normalisation of these networks."""
MAX_DIMENSION: Final = 4096
"""Most values of an embedding; facenet published 128 and 512."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Unit:
    """Convolution, normalisation, ReLU.

    width: output channels. same: padded as TensorFlow's SAME does, so that stride 1 keeps the
    size. side: height and width of the kernel; 0 where the name ends with HEIGHTxWIDTH.
    """

    name: str
    width: int
    stride: int = 1
    same: bool = True
    side: int = 0

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        if self.side:
            return self.side, self.side
        height, width = self.name.rsplit("_", 1)[1].split("x")
        return int(height), int(width)


Branches = tuple[tuple[Unit, ...], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block that comes `repeats` times: branches, joined, widened, scaled, added."""

    name: str
    repeats: int
    scale: float
    branches: Branches


class Net:
    """The graph while it is written, the shapes of its tensors and the weights not used yet.

    title: the network in words, for messages. size: sides of the picture, in pixels.
    """

    def __init__(
        self, name: str, weights: Mapping[str, Array], *, title: str, size: int = SIZE
    ) -> None:
        if not 1 <= size <= MAX_SIZE:
            raise ModelFileError(
                f"expected a picture size from 1 to {MAX_SIZE} pixels, came {size}"
            )
        self.title = title
        self.size = size
        self._graph = GraphWriter(name)
        self._left = dict(weights)
        self._channels = {IMAGE: 3}
        self._cells = {IMAGE: (size, size)}

    def chain(self, units: tuple[Unit, ...], source: str, *, prefix: str = "") -> str:
        """One unit after the other."""
        for unit in units:
            source = self._unit(unit, source, prefix + unit.name)
        return source

    def pool(self, name: str, source: str, *, side: int = 3) -> str:
        """The largest of side x side, stride 2, unpadded."""
        window, cells = self._window(source, (side, side), stride=2, same=False)
        window = {key: value for key, value in window.items() if key != "pads"}
        self._shape(name, self._channels[source], cells)
        return self._graph.node("MaxPool", [source], outputs=name, **window)

    def average(self, name: str, source: str) -> str:
        """The mean of 3 x 3, stride 1; cells of the padding do not count."""
        window, cells = self._window(source, (3, 3), stride=1, same=True)
        self._shape(name, self._channels[source], cells)
        return self._graph.node("AveragePool", [source], outputs=name, **window)

    def joined(self, name: str, ends: list[str]) -> str:
        """Tensors of one size, channel behind channel."""
        self._shape(name, sum(self._channels[end] for end in ends), self._cells[ends[0]])
        return self._graph.node("Concat", ends, outputs=name, axis=1)

    def reduced(self, name: str, branches: Branches, source: str) -> str:
        """A reduction: branches of stride 2 and a pool, joined."""
        ends = [self.chain(units, source, prefix=f"{name}_") for units in branches]
        ends.append(self.pool(f"{name}_Branch_{len(branches)}_MaxPool_1a_3x3", source))
        return self.joined(name, ends)

    def repeated(self, block: Block, source: str) -> str:
        """A residual block several times, each with ReLU behind it."""
        for number in range(1, block.repeats + 1):
            name = f"{block.name}_{number}"
            total = self.residual(name, block.branches, source, scale=block.scale)
            source = self._relu(name, total)
        return source

    def residual(self, name: str, branches: Branches, source: str, *, scale: float) -> str:
        """source + scale * (branches, joined and widened to the channels of source)."""
        ends = [self.chain(units, source, prefix=f"{name}_") for units in branches]
        joined = self.joined(f"{name}_Concatenate", ends)
        width = self._channels[source]
        wide = self.biased(f"{name}_Conv2d_1x1", joined, width, scale=scale)
        self._shape(f"{name}_ScaleSum", width, self._cells[source])
        return self._graph.node("Add", [source, wide], outputs=f"{name}_ScaleSum")

    def biased(self, name: str, source: str, width: int, *, scale: float = 1.0) -> str:
        """scale * (a convolution of one cell with a bias); neither normalisation nor ReLU."""
        kernel = self._take(f"{name}/kernel", (1, 1, self._channels[source], width))
        bias = self._take(f"{name}/bias", (width,))
        return self._convolved(name, source, kernel * scale, bias * scale)

    def embedding(self, source: str) -> bytes:
        """The finished file: mean over the picture, dense layer, normalisation.

        Raises ModelFileError unless every array was used.
        """
        mean = self._graph.node("GlobalAveragePool", [source], outputs="AvgPool")
        flat = self._graph.node("Flatten", [mean], outputs="Flatten", axis=1)
        dimension = self._dimension()
        kernel = self._take("Bottleneck/kernel", (self._channels[source], dimension))
        kernel, bias = self._normalised("Bottleneck", kernel)
        names = [flat, self._constant("Bottleneck", kernel), self._constant("offset", bias)]
        self._graph.node("Gemm", names, outputs=EMBEDDING)
        if self._left:
            raise ModelFileError(
                f"expected only the layers of {self.title}, but there is also "
                f"{next(iter(self._left))[:80]!r}; this is another network"
            )
        ends = {IMAGE: ("batch", 3, self.size, self.size)}, {EMBEDDING: ("batch", dimension)}
        return self._graph.to_bytes(*ends)

    def _dimension(self) -> int:
        """Length of an embedding, as the weights have it."""
        found = self._left.get("Bottleneck/kernel")
        dimension = int(found.shape[1]) if found is not None and found.ndim == 2 else 0
        if found is not None and not 1 <= dimension <= MAX_DIMENSION:
            raise ModelFileError(
                f"expected a Bottleneck of 1 to {MAX_DIMENSION} values, but it has the shape "
                f"{found.shape}; this is another network"
            )
        return dimension

    def _unit(self, unit: Unit, source: str, name: str) -> str:
        shape = (*unit.kernel, self._channels[source], unit.width)
        kernel, bias = self._normalised(name, self._take(f"{name}/kernel", shape))
        result = self._convolved(name, source, kernel, bias, stride=unit.stride, same=unit.same)
        return self._relu(name, result)

    def _relu(self, name: str, source: str) -> str:
        self._shape(f"{name}_Activation", self._channels[source], self._cells[source])
        return self._graph.node("Relu", [source], outputs=f"{name}_Activation")

    def _shape(self, name: str, channels: int, cells: tuple[int, int]) -> None:
        self._channels[name], self._cells[name] = channels, cells

    def _convolved(
        self,
        name: str,
        source: str,
        kernel: Array,
        bias: Array,
        *,
        stride: int = 1,
        same: bool = True,
    ) -> str:
        constants = [
            self._constant(f"{name}/kernel", kernel.transpose(3, 2, 0, 1)),
            self._constant(f"{name}/bias", bias),
        ]
        sides = (kernel.shape[0], kernel.shape[1])
        window, cells = self._window(source, sides, stride=stride, same=same)
        self._shape(name, kernel.shape[3], cells)
        return self._graph.node("Conv", [source, *constants], outputs=name, **window)

    def _window(
        self, source: str, kernel: tuple[int, int], *, stride: int, same: bool
    ) -> tuple[dict[str, list[int]], tuple[int, int]]:
        """The ONNX attributes of a window, and the cells it leaves.

        TensorFlow's SAME gives ceil(size / stride) cells and puts the odd cell of padding behind.
        """
        cells, before, behind = [], [], []
        for size, side in zip(self._cells[source], kernel, strict=True):
            count = -(-size // stride) if same else (size - side) // stride + 1
            total = max((count - 1) * stride + side - size, 0) if same else 0
            if count < 1:
                raise ModelFileError(
                    f"expected a picture large enough for {self.title}, came {self.size} x "
                    f"{self.size} pixels; facenet used {SIZE}"
                )
            cells.append(count)
            before.append(total // 2)
            behind.append(total - total // 2)
        window = {
            "kernel_shape": list(kernel),
            "strides": [stride, stride],
            "pads": before + behind,
        }
        return window, (cells[0], cells[1])

    def _normalised(self, name: str, kernel: Array) -> tuple[Array, Array]:
        """Kernel and bias that do what the kernel and its normalisation do."""
        width = (kernel.shape[-1],)
        beta, mean, variance = (
            self._take(f"{name}_BatchNorm/{part}", width)
            for part in ("beta", "moving_mean", "moving_variance")
        )
        scale = 1 / np.sqrt(variance + EPSILON)
        return kernel * scale, beta - mean * scale

    def _take(self, name: str, shape: tuple[int, ...]) -> Array:
        """A weight in float64, which is then used up."""
        if name not in self._left:
            raise ModelFileError(
                f"expected the weights of {self.title}, but {name!r} is missing; the "
                "file is damaged or of another network"
            )
        values = self._left.pop(name)
        if values.shape != shape:
            raise ModelFileError(
                f"expected {name!r} of the shape {shape}, but it is {values.shape}; this is "
                "another network"
            )
        return values.astype(np.float64)

    def _constant(self, name: str, values: Array) -> str:
        constant = values.astype(np.float32)
        if not np.all(np.isfinite(constant)):
            raise ModelFileError(
                f"expected finite weights, but those of {name!r} are not; the file is damaged"
            )
        return self._graph.constant(name, constant)
