"""Dual path networks for faces, as InsightFace trained them.

Source: Chen et al., "Dual Path Networks" (NIPS 2017), and InsightFace's `fdpn.py` (2018): a stem
for small crops and an output head in place of the 7x7 stem, the last normalisation and the class
layer of ImageNet. InsightFace's 68 has a residual path four times as wide as the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.backbones.densenet import (
    STEM_WIDTH,
    FaceStem,
    check_face_options,
    draw_as_insightface,
)
from facenet.train.backbones.heads import build_head, check_crops

_WIDTHS: Final = (256, 512, 1024, 2048)
"""Channels of the residual path in each of the four parts."""
_STRIDE: Final = 16
"""Pixels of the crop for each cell of the last feature map."""
_EPSILON: Final = 1e-3
"""Added to each variance: MXNet's default."""


@dataclass(frozen=True, slots=True)
class DpnSettings:
    """Options of a dual path network; they stand as InsightFace has them.

    embedding_size: values of an embedding. head: output head, one of heads.HEADS. dropout: share of
    values that heads E and F drop; other heads take only 0. input_size: side of the crops in
    pixels, a multiple of 16. Raises SettingsError for a value out of its range.
    """

    embedding_size: int = 512
    head: str = "E"
    dropout: float = 0.4
    input_size: int = 112

    def __post_init__(self) -> None:
        check_face_options(self.embedding_size, self.head, self.dropout, self.input_size)


@dataclass(frozen=True, slots=True)
class DualPlan:
    """The numbers of a dual path network.

    narrow: channels of the 3x3 convolutions in the first part; they double from part to part.
    groups: of these convolutions. units, growth: of each part, blocks and dense channels a block
    adds.
    """

    narrow: int
    groups: int
    units: tuple[int, int, int, int]
    growth: tuple[int, int, int, int]


PLANS: Final = {
    "dpn68": DualPlan(128, 32, (3, 4, 12, 3), (16, 32, 32, 64)),
    "dpn92": DualPlan(96, 32, (3, 4, 20, 3), (16, 32, 24, 128)),
    "dpn107": DualPlan(200, 50, (4, 8, 20, 3), (20, 64, 64, 128)),
    "dpn131": DualPlan(160, 40, (4, 8, 28, 3), (16, 32, 32, 128)),
}


class NormedConv(nn.Module):
    """BN, ReLU, convolution without bias: (n, channels, h, w) -> (n, width, h', w')."""

    def __init__(
        self, channels: int, width: int, side: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=_EPSILON)
        self.conv = nn.Conv2d(
            channels, width, side, stride, padding=side // 2, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.conv(functional.relu(self.bn(x), inplace=True))
        return out


@dataclass(frozen=True, slots=True)
class Part:
    """Widths of the blocks between two halvings: of the residual path, inside, of each growth."""

    width: int
    narrow: int
    groups: int
    growth: int


class DualPath(nn.Module):
    """A block of both paths: the first `width` channels are added to, the others grow.

    1x1, grouped 3x3, 1x1 of the whole input give `width` channels for the residual path and
    `growth` for the dense one. The first block of a part projects its input to width + 2 * growth
    channels and divides the sides by `stride`.
    (n, channels, h, w) -> (n, width + dense channels, h / stride, w / stride).
    """

    def __init__(
        self, channels: int, part: Part, *, stride: int = 1, projected: bool = False
    ) -> None:
        super().__init__()
        self.width = part.width
        self.project = (
            NormedConv(channels, part.width + 2 * part.growth, 1, stride=stride)
            if projected
            else None
        )
        self.a = NormedConv(channels, part.narrow, 1)
        self.b = NormedConv(part.narrow, part.narrow, 3, stride=stride, groups=part.groups)
        self.c = NormedConv(part.narrow, part.width + part.growth, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        old = x if self.project is None else self.project(x)
        new = self.c(self.b(self.a(x)))
        total = old[:, : self.width] + new[:, : self.width]
        return torch.cat([total, old[:, self.width :], new[:, self.width :]], 1)


class DualPathNetwork(Backbone):
    """Crops (n, 3, s, s), s as the settings say -> raw embeddings (n, embedding_size)."""

    def __init__(self, plan: DualPlan, settings: DpnSettings) -> None:
        super().__init__()
        self.embedding_size = settings.embedding_size
        self.input_size = settings.input_size
        self.stem = FaceStem()
        channels = STEM_WIDTH
        rows = zip(_WIDTHS, plan.units, plan.growth, strict=True)
        for number, (width, count, growth) in enumerate(rows):
            part = Part(width, plan.narrow << number, plan.groups, growth)
            stride = 2 if number else 1
            units = [DualPath(channels, part, stride=stride, projected=True)]
            channels = width + 3 * growth
            for _ in range(count - 1):
                units.append(DualPath(channels, part))
                channels += growth
            self.add_module(f"conv{number + 2}", nn.Sequential(*units))
        self.head = build_head(
            settings.head,
            channels,
            settings.input_size // _STRIDE,
            settings.embedding_size,
            dropout=settings.dropout,
        )
        draw_as_insightface(self)

    def forward(self, images: Tensor) -> Tensor:
        """See the class. Raises ImageError for crops of another size."""
        check_crops(images, self.input_size)
        x = self.stem(images)
        for name, part in self.named_children():
            if name.startswith("conv"):
                x = self.run(part.children(), x)
        embeddings: Tensor = self.head(x)
        return embeddings

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """See Backbone: stem, conv2, conv3, conv4, conv5, embedding."""
        parts = {name: (part,) for name, part in self.named_children() if name != "head"}
        return {**parts, "embedding": (self.head,)}


KINDS: dict[str, BackboneKind] = {
    name: BackboneKind(
        partial(DualPathNetwork, plan),
        DpnSettings,
        112,
        "Chen et al. 2017, as InsightFace (2018) has it",
    )
    for name, plan in PLANS.items()
}
