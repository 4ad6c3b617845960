"""Inception-ResNet-v2 as facenet trained it.

Source: `models/inception_resnet_v2.py` of davidsandberg/facenet (2017 and 2018), after Szegedy et
al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (2016).
Parts are named as in our Inception-ResNet-v1; `layers` gives facenet's own names.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from facenet.models.convert import inception_resnet_v2 as tables
from facenet.models.convert.blocks import SIZE
from facenet.train.backbones.backbone import BackboneKind
from facenet.train.backbones.inception_resnet_v1 import (
    Branched,
    ConvUnit,
    FacenetSettings,
    InceptionResnet,
    Plan,
    branch_layers,
)

PLAN: Final = Plan(
    "Inception-ResNet-v2",
    tables.STEM,
    tables.STEM_POOLED,
    tables.BLOCK35,
    tables.MIXED_6A,
    tables.BLOCK17,
    tables.MIXED_7A,
    tables.BLOCK8,
    tables.LAST,
)


class Mixed5b(Branched):
    """Three branches and a fourth on the mean of 3x3, joined: (n, 192, h, w) -> (n, 320, h, w)."""

    def __init__(self, channels: int, settings: FacenetSettings) -> None:
        super().__init__(channels, tables.MIXED_5B, settings)
        (unit,) = tables.MIXED_5B_POOLED
        self.branch3 = ConvUnit(channels, unit, settings)
        self.width += unit.width

    def forward(self, x: Tensor) -> Tensor:
        """See the class; cells of the padding do not count in the mean."""
        mean = functional.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
        return torch.cat([*self.ends(x), self.branch3(mean)], 1)


class InceptionResnetV2(InceptionResnet):
    """Crops (n, 3, h, w), RGB, at least 75 x 75 (made for 160 x 160) -> (n, embedding_size)."""

    def __init__(self, settings: FacenetSettings) -> None:
        super().__init__(PLAN, settings)

    def begin(self, channels: int) -> int:
        """See InceptionResnet."""
        self.mixed_5b = Mixed5b(channels, self.settings)
        return self.mixed_5b.width

    def begun(self, x: Tensor) -> Tensor:
        """See InceptionResnet."""
        mixed: Tensor = self.mixed_5b(functional.max_pool2d(x, 3, 2))
        return mixed

    def layers(self) -> dict[str, str]:
        """See FacenetBackbone."""
        branches = (*tables.MIXED_5B, tables.MIXED_5B_POOLED)
        return super().layers() | branch_layers("mixed_5b", "Mixed_5b", branches)


KINDS: dict[str, BackboneKind] = {
    "inception_resnet_v2": BackboneKind(
        InceptionResnetV2,
        FacenetSettings,
        SIZE,
        "Szegedy et al. 2016, as davidsandberg/facenet has it",
    )
}
