"""Inception-ResNet-v1 as an ONNX graph, built from its weights alone.

Source: `models/inception_resnet_v1.py` of davidsandberg/facenet (2017 and 2018), after Szegedy et
al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (2016).
Every convolution has batch normalisation without gamma, then ReLU; only the widening one at the
end of a residual block has a bias instead. The graph is written for inference: normalisations and
the scales of the residual blocks are multiplied into kernels and biases, dropout is left out.
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
"""Name of the ONNX input: float32, N x 3 x 160 x 160, RGB, standardised as in training."""
EMBEDDING: Final = "embedding"
"""Name of the ONNX output: float32, N x D, before the scaling to unit length."""
SIZE: Final = 160
"""Sides of the picture, in pixels."""
EPSILON: Final = 0.001
"""Added to each variance, in every normalisation of the network."""
MAX_DIMENSION: Final = 4096
"""Most values of an embedding; facenet published 128 and 512."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Unit:
    """Convolution, normalisation, ReLU. The name ends with the kernel, height x width.

    width: output channels. same: padded so that stride 1 keeps the size.
    """

    name: str
    width: int
    stride: int = 1
    same: bool = True

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        height, width = self.name.rsplit("_", 1)[1].split("x")
        return int(height), int(width)


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block that comes `repeats` times: branches, joined, widened, scaled, added."""

    name: str
    repeats: int
    scale: float
    branches: tuple[tuple[Unit, ...], ...]


Branches = tuple[tuple[Unit, ...], ...]

STEM: Final = (
    Unit("Conv2d_1a_3x3", 32, stride=2, same=False),
    Unit("Conv2d_2a_3x3", 32, same=False),
    Unit("Conv2d_2b_3x3", 64),
)
STEM_POOLED: Final = (
    Unit("Conv2d_3b_1x1", 80),
    Unit("Conv2d_4a_3x3", 192, same=False),
    Unit("Conv2d_4b_3x3", 256, stride=2, same=False),
)
BLOCK35: Final = Block(
    "Block35",
    5,
    0.17,
    (
        (Unit("Branch_0_Conv2d_1x1", 32),),
        (Unit("Branch_1_Conv2d_0a_1x1", 32), Unit("Branch_1_Conv2d_0b_3x3", 32)),
        (
            Unit("Branch_2_Conv2d_0a_1x1", 32),
            Unit("Branch_2_Conv2d_0b_3x3", 32),
            Unit("Branch_2_Conv2d_0c_3x3", 32),
        ),
    ),
)
MIXED_6A: Final[Branches] = (
    (Unit("Branch_0_Conv2d_1a_3x3", 384, stride=2, same=False),),
    (
        Unit("Branch_1_Conv2d_0a_1x1", 192),
        Unit("Branch_1_Conv2d_0b_3x3", 192),
        Unit("Branch_1_Conv2d_1a_3x3", 256, stride=2, same=False),
    ),
)
BLOCK17: Final = Block(
    "Block17",
    10,
    0.10,
    (
        (Unit("Branch_0_Conv2d_1x1", 128),),
        (
            Unit("Branch_1_Conv2d_0a_1x1", 128),
            Unit("Branch_1_Conv2d_0b_1x7", 128),
            Unit("Branch_1_Conv2d_0c_7x1", 128),
        ),
    ),
)
MIXED_7A: Final[Branches] = (
    (
        Unit("Branch_0_Conv2d_0a_1x1", 256),
        Unit("Branch_0_Conv2d_1a_3x3", 384, stride=2, same=False),
    ),
    (
        Unit("Branch_1_Conv2d_0a_1x1", 256),
        Unit("Branch_1_Conv2d_1a_3x3", 256, stride=2, same=False),
    ),
    (
        Unit("Branch_2_Conv2d_0a_1x1", 256),
        Unit("Branch_2_Conv2d_0b_3x3", 256),
        Unit("Branch_2_Conv2d_1a_3x3", 256, stride=2, same=False),
    ),
)
BLOCK8: Final = Block(
    "Block8",
    5,
    0.20,
    (
        (Unit("Branch_0_Conv2d_1x1", 192),),
        (
            Unit("Branch_1_Conv2d_0a_1x1", 192),
            Unit("Branch_1_Conv2d_0b_1x3", 192),
            Unit("Branch_1_Conv2d_0c_3x1", 192),
        ),
    ),
)


def inception_resnet_v1(weights: Mapping[str, Array]) -> bytes:
    """The ONNX bytes of the network with these weights.

    weights: LAYER/VARIABLE -> float array, the layers named like facenet's scopes with `_` for
    `/`: `Block35_1_Branch_0_Conv2d_1x1/kernel` (height, width, in, out), `Block35_1_Conv2d_1x1/
    bias` (out,), and `.../beta`, `moving_mean`, `moving_variance` (out,) of each `..._BatchNorm`.
    `Block8_6` is the last block, unscaled and without ReLU; `Bottleneck/kernel` is (1792, D).
    The graph takes `image` (N, 3, 160, 160) and gives `embedding` (N, D), not yet of unit length.
    Raises ModelFileError when an array is missing, too many, of another shape or not finite.
    """
    with np.errstate(all="ignore"):  # strange numbers are refused where they are folded
        net = _Net(weights)
        top = net.chain(STEM, IMAGE)
        top = net.pool("MaxPool_3a_3x3", top)
        top = net.chain(STEM_POOLED, top)
        top = net.repeated(BLOCK35, top)
        top = net.reduced("Mixed_6a", MIXED_6A, top)
        top = net.repeated(BLOCK17, top)
        top = net.reduced("Mixed_7a", MIXED_7A, top)
        top = net.repeated(BLOCK8, top)
        top = net.residual("Block8_6", BLOCK8.branches, top, scale=1.0)
        dimension = net.head(top)
    net.finish()
    return net.graph.to_bytes({IMAGE: ("batch", 3, SIZE, SIZE)}, {EMBEDDING: ("batch", dimension)})


class _Net:
    """The graph while it is written, the channels of its tensors and the weights not used yet."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.graph = GraphWriter("inception_resnet_v1")
        self._left = dict(weights)
        self._channels = {IMAGE: 3}

    def chain(self, units: tuple[Unit, ...], source: str, *, prefix: str = "") -> str:
        """One unit after the other."""
        for unit in units:
            source = self._unit(unit, source, prefix + unit.name)
        return source

    def pool(self, name: str, source: str) -> str:
        """The largest of 3 x 3, stride 2, unpadded."""
        self._channels[name] = self._channels[source]
        return self.graph.node(
            "MaxPool", [source], outputs=name, kernel_shape=[3, 3], strides=[2, 2]
        )

    def reduced(self, name: str, branches: Branches, source: str) -> str:
        """A reduction: branches of stride 2 and a pool, joined."""
        ends = [self.chain(units, source, prefix=f"{name}_") for units in branches]
        ends.append(self.pool(f"{name}_Branch_{len(branches)}_MaxPool_1a_3x3", source))
        return self._joined(name, ends)

    def repeated(self, block: Block, source: str) -> str:
        """A residual block several times, each with ReLU behind it."""
        for number in range(1, block.repeats + 1):
            name = f"{block.name}_{number}"
            total = self.residual(name, block.branches, source, scale=block.scale)
            self._channels[f"{name}_Activation"] = self._channels[total]
            source = self.graph.node("Relu", [total], outputs=f"{name}_Activation")
        return source

    def residual(self, name: str, branches: Branches, source: str, *, scale: float) -> str:
        """source + scale * (branches, joined and widened to the channels of source)."""
        ends = [self.chain(units, source, prefix=f"{name}_") for units in branches]
        joined = self._joined(f"{name}_Concatenate", ends)
        layer, width = f"{name}_Conv2d_1x1", self._channels[source]
        kernel = self._take(f"{layer}/kernel", (1, 1, self._channels[joined], width))
        bias = self._take(f"{layer}/bias", (width,))
        wide = self._convolved(layer, joined, kernel * scale, bias * scale)
        self._channels[f"{name}_ScaleSum"] = width
        return self.graph.node("Add", [source, wide], outputs=f"{name}_ScaleSum")

    def head(self, source: str) -> int:
        """Mean over the picture, dense layer, normalisation; returns the length of a vector."""
        mean = self.graph.node("GlobalAveragePool", [source], outputs="AvgPool")
        flat = self.graph.node("Flatten", [mean], outputs="Flatten", axis=1)
        found = self._left.get("Bottleneck/kernel")
        dimension = found.shape[1] if found is not None and found.ndim == 2 else 0
        if found is not None and not 1 <= dimension <= MAX_DIMENSION:
            raise ModelFileError(
                f"expected a Bottleneck of 1 to {MAX_DIMENSION} values, but it has the shape "
                f"{found.shape}; this is another network"
            )
        kernel = self._take("Bottleneck/kernel", (self._channels[source], dimension))
        kernel, bias = self._normalised("Bottleneck", kernel)
        names = [flat, self._constant("Bottleneck", kernel), self._constant("offset", bias)]
        self.graph.node("Gemm", names, outputs=EMBEDDING)
        return dimension

    def finish(self) -> None:
        """Raises ModelFileError unless every array was used."""
        if self._left:
            raise ModelFileError(
                f"expected only the layers of an Inception-ResNet-v1, but there is also "
                f"{next(iter(self._left))[:80]!r}; this is another network"
            )

    def _unit(self, unit: Unit, source: str, name: str) -> str:
        shape = (*unit.kernel, self._channels[source], unit.width)
        kernel, bias = self._normalised(name, self._take(f"{name}/kernel", shape))
        result = self._convolved(name, source, kernel, bias, stride=unit.stride, same=unit.same)
        self._channels[f"{name}_Activation"] = unit.width
        return self.graph.node("Relu", [result], outputs=f"{name}_Activation")

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
        high, wide = ((side // 2 if same else 0) for side in kernel.shape[:2])
        constants = [
            self._constant(f"{name}/kernel", kernel.transpose(3, 2, 0, 1)),
            self._constant(f"{name}/bias", bias),
        ]
        return self.graph.node(
            "Conv",
            [source, *constants],
            outputs=name,
            kernel_shape=list(kernel.shape[:2]),
            strides=[stride, stride],
            pads=[high, wide, high, wide],
        )

    def _joined(self, name: str, ends: list[str]) -> str:
        self._channels[name] = sum(self._channels[end] for end in ends)
        return self.graph.node("Concat", ends, outputs=name, axis=1)

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
                f"expected the weights of an Inception-ResNet-v1, but {name!r} is missing; the "
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
        return self.graph.constant(name, constant)
