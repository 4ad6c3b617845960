"""Inception-ResNet-v1 as an ONNX graph, built from its weights alone.

Source: `models/inception_resnet_v1.py` of davidsandberg/facenet (2017 and 2018), after Szegedy et
al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.models.convert import blocks
from facenet.models.convert.blocks import IMAGE, SIZE, Block, Net, Unit

Branches = blocks.Branches
"""Chains of units side by side."""

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


def inception_resnet_v1(weights: Mapping[str, NDArray[Any]], *, size: int = SIZE) -> bytes:
    """The ONNX bytes of the network with these weights.

    weights: LAYER/VARIABLE -> float array, the layers named like facenet's scopes with `_` for
    `/`: `Block35_1_Branch_0_Conv2d_1x1/kernel` (height, width, in, out), `Block35_1_Conv2d_1x1/
    bias` (out,), and `.../beta`, `moving_mean`, `moving_variance` (out,) of each `..._BatchNorm`.
    `Block8_6` is the last block, unscaled and without ReLU; `Bottleneck/kernel` is (1792, D).
    size: sides of the picture, in pixels.
    The graph takes `image` (N, 3, size, size) and gives `embedding` (N, D), not yet of unit
    length. Raises ModelFileError when an array is missing, too many, of another shape or not
    finite, and for a size that is too small.
    """
    with np.errstate(all="ignore"):  # strange numbers are refused where they are folded
        net = Net("inception_resnet_v1", weights, title="an Inception-ResNet-v1", size=size)
        top = net.chain(STEM, IMAGE)
        top = net.pool("MaxPool_3a_3x3", top)
        top = net.chain(STEM_POOLED, top)
        top = net.repeated(BLOCK35, top)
        top = net.reduced("Mixed_6a", MIXED_6A, top)
        top = net.repeated(BLOCK17, top)
        top = net.reduced("Mixed_7a", MIXED_7A, top)
        top = net.repeated(BLOCK8, top)
        top = net.residual("Block8_6", BLOCK8.branches, top, scale=1.0)
        return net.embedding(top)
