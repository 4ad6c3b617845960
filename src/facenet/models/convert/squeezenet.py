"""SqueezeNet as facenet used it, as an ONNX graph built from its weights alone.

Source: `models/squeezenet.py` of davidsandberg/facenet (2017 and 2018), after Iandola et al.,
"SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), version 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.models.convert.blocks import IMAGE, SIZE, Net, Unit

FIRST: Final = (Unit("conv1", 96, stride=2, side=7),)
FIRES: Final = (
    ((2, 16), (3, 16), (4, 32)),
    ((5, 32), (6, 48), (7, 48), (8, 64)),
    ((9, 64),),
)
"""Number and squeezed channels of each module; a pool stands between the groups."""
EXPANSION: Final = 4
"""Channels of either expansion, for each squeezed channel."""
CLASSES: Final = 1000
"""Channels of the last convolution, once the classes of ImageNet."""


def squeezenet(weights: Mapping[str, NDArray[Any]], *, size: int = SIZE) -> bytes:
    """The ONNX bytes of the network with these weights.

    weights: LAYER/VARIABLE -> float array, the layers named like facenet's scopes with `_` for
    `/`: `conv1/kernel` (height, width, in, out), `fire2_squeeze/kernel`, `fire2_expand_1x1/kernel`
    and `..._3x3`, each with its `..._BatchNorm/beta`, `moving_mean` and `moving_variance` (out,);
    `conv10/kernel` and `conv10/bias`; `Bottleneck/kernel` (1000, D).
    size: sides of the picture, in pixels.
    The graph takes `image` (N, 3, size, size) and gives `embedding` (N, D), not yet of unit
    length. Raises ModelFileError when an array is missing, too many, of another shape or not
    finite, and for a size that is too small.
    """
    with np.errstate(all="ignore"):  # strange numbers are refused where they are folded
        net = Net("squeezenet", weights, title="a SqueezeNet of facenet", size=size)
        top = net.pool("maxpool1", net.chain(FIRST, IMAGE))
        top = _fires(net, top, FIRES[0])
        top = net.pool("maxpool4", top, side=2)
        top = _fires(net, top, FIRES[1])
        top = net.pool("maxpool8", top)
        top = _fires(net, top, FIRES[2])
        return net.embedding(net.biased("conv10", top, CLASSES))


def _fires(net: Net, source: str, modules: tuple[tuple[int, int], ...]) -> str:
    """Fire modules: squeezed by a convolution of one cell, expanded by two, joined."""
    for number, narrow in modules:
        name = f"fire{number}"
        source = net.chain((Unit(f"{name}_squeeze", narrow, side=1),), source)
        wide = EXPANSION * narrow
        ends = [net.chain((Unit(f"{name}_expand_{k}", wide),), source) for k in ("1x1", "3x3")]
        source = net.joined(name, ends)
    return source
