"""SqueezeNet as facenet used it.

Source: `models/squeezenet.py` of davidsandberg/facenet (2017 and 2018), after Iandola et al.,
"SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), version 1.0. Parts bear
facenet's own names: `fire2.squeeze`, `fire2.expand_1x1`, ..., `conv10`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from facenet.models.convert import squeezenet as tables
from facenet.models.convert.blocks import SIZE, Unit
from facenet.train.backbones.backbone import BackboneKind
from facenet.train.backbones.inception_resnet_v1 import (
    ConvUnit,
    FacenetBackbone,
    FacenetSettings,
    check_least,
)

SMALLEST: Final = 25
"""Sides of the smallest crop that leaves a cell at the end."""


class Fire(nn.Module):
    """Squeezed by a 1x1 convolution, expanded by a 1x1 and a 3x3, joined: 8 * narrow channels."""

    def __init__(self, channels: int, narrow: int, settings: FacenetSettings) -> None:
        super().__init__()
        wide = tables.EXPANSION * narrow
        self.squeeze = ConvUnit(channels, Unit("squeeze_1x1", narrow), settings)
        self.expand_1x1 = ConvUnit(narrow, Unit("expand_1x1", wide), settings)
        self.expand_3x3 = ConvUnit(narrow, Unit("expand_3x3", wide), settings)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, 8 * narrow, h, w)."""
        x = self.squeeze(x)
        return torch.cat([self.expand_1x1(x), self.expand_3x3(x)], 1)


class SqueezeNet(FacenetBackbone):
    """Crops (n, 3, h, w), RGB, at least 25 x 25 (made for 160 x 160) -> (n, embedding_size)."""

    def __init__(self, settings: FacenetSettings) -> None:
        super().__init__(settings)
        (first,) = tables.FIRST
        # padded in `forward`, since the padding of TensorFlow depends on the size
        self.conv1 = ConvUnit(3, replace(first, same=False), settings)
        channels = first.width
        for number, narrow in chain(*tables.FIRES):
            self.add_module(f"fire{number}", Fire(channels, narrow, settings))
            channels = 2 * tables.EXPANSION * narrow
        self.conv10 = nn.Conv2d(channels, tables.CLASSES, 1)
        self.finish(tables.CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """See the class. Raises ImageError for crops that are too small or of another shape."""
        check_least(images, SMALLEST, "SqueezeNet")
        x = functional.max_pool2d(self.conv1(same_padded(images, side=7, stride=2)), 3, 2)
        early, middle, late = (self._fires(group) for group in tables.FIRES)
        x = functional.max_pool2d(self.run(early, x), 2, 2)
        x = functional.max_pool2d(self.run(middle, x), 3, 2)
        x = self.conv10(self.dropout(self.run(late, x)))
        return self.embedded(x.mean((2, 3)))

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """See Backbone."""
        numbers = [number for number, _ in chain(*tables.FIRES)]
        fires = {f"fire{n}": (self.get_submodule(f"fire{n}"),) for n in numbers}
        ends = {"conv10": (self.conv10,), "embedding": (self.last_linear, self.last_bn)}
        return {"stem": (self.conv1,), **fires, **ends}

    def layers(self) -> dict[str, str]:
        """See FacenetBackbone."""
        names = {"conv1": "conv1"}
        for number, _ in chain(*tables.FIRES):
            for part in ("squeeze", "expand_1x1", "expand_3x3"):
                names[f"fire{number}.{part}"] = f"fire{number}_{part}"
        return names | {"conv10": "conv10"}

    def _fires(self, group: tuple[tuple[int, int], ...]) -> list[nn.Module]:
        return [self.get_submodule(f"fire{number}") for number, _ in group]


def same_padded(x: Tensor, *, side: int, stride: int) -> Tensor:
    """x with zeros around it as TensorFlow's SAME has them: the odd row and column behind."""
    total = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[:-3:-1]]
    return functional.pad(x, [part for n in total for part in (n // 2, n - n // 2)])


KINDS: dict[str, BackboneKind] = {
    "squeezenet": BackboneKind(
        SqueezeNet,
        FacenetSettings,
        SIZE,
        "Iandola et al. 2016, as davidsandberg/facenet has it",
    )
}
