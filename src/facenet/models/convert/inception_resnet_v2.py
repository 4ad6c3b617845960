"""Inception-ResNet-v2 as an ONNX graph, built from its weights alone.

Source: `models/inception_resnet_v2.py` of davidsandberg/facenet (2017 and 2018), after Szegedy et
al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.models.convert.blocks import IMAGE, SIZE, Block, Branches, Net, Unit

STEM: Final = (
    Unit("Conv2d_1a_3x3", 32, stride=2, same=False),
    Unit("Conv2d_2a_3x3", 32, same=False),
    Unit("Conv2d_2b_3x3", 64),
)
STEM_POOLED: Final = (
    Unit("Conv2d_3b_1x1", 80),
    Unit("Conv2d_4a_3x3", 192, same=False),
)
MIXED_5B: Final[Branches] = (
    (Unit("Branch_0_Conv2d_1x1", 96),),
    (Unit("Branch_1_Conv2d_0a_1x1", 48), Unit("Branch_1_Conv2d_0b_5x5", 64)),
    (
        Unit("Branch_2_Conv2d_0a_1x1", 64),
        Unit("Branch_2_Conv2d_0b_3x3", 96),
        Unit("Branch_2_Conv2d_0c_3x3", 96),
    ),
)
MIXED_5B_POOLED: Final = (Unit("Branch_3_Conv2d_0b_1x1", 64),)
BLOCK35: Final = Block(
    "Block35",
    10,
    0.17,
    (
        (Unit("Branch_0_Conv2d_1x1", 32),),
        (Unit("Branch_1_Conv2d_0a_1x1", 32), Unit("Branch_1_Conv2d_0b_3x3", 32)),
        (
            Unit("Branch_2_Conv2d_0a_1x1", 32),
            Unit("Branch_2_Conv2d_0b_3x3", 48),
            Unit("Branch_2_Conv2d_0c_3x3", 64),
        ),
    ),
)
MIXED_6A: Final[Branches] = (
    (Unit("Branch_0_Conv2d_1a_3x3", 384, stride=2, same=False),),
    (
        Unit("Branch_1_Conv2d_0a_1x1", 256),
        Unit("Branch_1_Conv2d_0b_3x3", 256),
        Unit("Branch_1_Conv2d_1a_3x3", 384, stride=2, same=False),
    ),
)
BLOCK17: Final = Block(
    "Block17",
    20,
    0.10,
    (
        (Unit("Branch_0_Conv2d_1x1", 192),),
        (
            Unit("Branch_1_Conv2d_0a_1x1", 128),
            Unit("Branch_1_Conv2d_0b_1x7", 160),
            Unit("Branch_1_Conv2d_0c_7x1", 192),
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
        Unit("Branch_1_Conv2d_1a_3x3", 288, stride=2, same=False),
    ),
    (
        Unit("Branch_2_Conv2d_0a_1x1", 256),
        Unit("Branch_2_Conv2d_0b_3x3", 288),
        Unit("Branch_2_Conv2d_1a_3x3", 320, stride=2, same=False),
    ),
)
BLOCK8: Final = Block(
    "Block8",
    9,
    0.20,
    (
        (Unit("Branch_0_Conv2d_1x1", 192),),
        (
            Unit("Branch_1_Conv2d_0a_1x1", 192),
            Unit("Branch_1_Conv2d_0b_1x3", 224),
            Unit("Branch_1_Conv2d_0c_3x1", 256),
        ),
    ),
)
LAST: Final = (Unit("Conv2d_7b_1x1", 1536),)


def inception_resnet_v2(weights: Mapping[str, NDArray[Any]], *, size: int = SIZE) -> bytes:
    """The ONNX bytes of the network with these weights.

    weights: named as `inception_resnet_v1` wants them. `Block8_10` is the last block, unscaled
    and without ReLU; `Bottleneck/kernel` is (1536, D). size: sides of the picture, in pixels.
    The graph takes `image` (N, 3, size, size) and gives `embedding` (N, D), not yet of unit
    length. Raises ModelFileError when an array is missing, too many, of another shape or not
    finite, and for a size that is too small.
    """
    with np.errstate(all="ignore"):  # strange numbers are refused where they are folded
        net = Net("inception_resnet_v2", weights, title="an Inception-ResNet-v2", size=size)
        top = net.chain(STEM, IMAGE)
        top = net.pool("MaxPool_3a_3x3", top)
        top = net.chain(STEM_POOLED, top)
        top = _mixed_5b(net, net.pool("MaxPool_5a_3x3", top))
        top = net.repeated(BLOCK35, top)
        top = net.reduced("Mixed_6a", MIXED_6A, top)
        top = net.repeated(BLOCK17, top)
        top = net.reduced("Mixed_7a", MIXED_7A, top)
        top = net.repeated(BLOCK8, top)
        top = net.residual("Block8_10", BLOCK8.branches, top, scale=1.0)
        return net.embedding(net.chain(LAST, top))


def _mixed_5b(net: Net, source: str) -> str:
    ends = [net.chain(units, source, prefix="Mixed_5b_") for units in MIXED_5B]
    mean = net.average("Mixed_5b_Branch_3_AvgPool_0a_3x3", source)
    ends.append(net.chain(MIXED_5B_POOLED, mean, prefix="Mixed_5b_"))
    return net.joined("Mixed_5b", ends)
