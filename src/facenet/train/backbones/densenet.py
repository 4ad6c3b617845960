"""DenseNet-BC for faces, as InsightFace trained it.

Source: Huang et al., "Densely Connected Convolutional Networks" (CVPR 2017), and InsightFace's
`fdensenet.py` (2018): a stem for small crops and an output head in place of the 7x7 stem, the last
normalisation and the class layer of ImageNet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from facenet.errors import SettingsError
from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.backbones.heads import HEADS, build_head, check_crops, check_sizes
from facenet.train.backbones.iresnet import ResidualBlock
from facenet.train.choosing import chosen

STEM_WIDTH: Final = 64
"""Channels of InsightFace's stem for crops of 112 pixels, whatever the network behind it."""
_STRIDE: Final = 16
"""Pixels of the crop for each cell of the last feature map."""
_EPSILON: Final = 2e-5
"""Added to each variance."""


@dataclass(frozen=True, slots=True)
class DenseNetSettings:
    """Options of a DenseNet; they stand as InsightFace has them.

    embedding_size: values of an embedding. head: output head, one of heads.HEADS. dropout: share of
    values that heads E and F drop; other heads take only 0. unit_dropout: share dropped behind each
    convolution of the dense blocks. input_size: side of the crops in pixels, a multiple of 16.
    Raises SettingsError for a value out of its range.
    """

    embedding_size: int = 512
    head: str = "E"
    dropout: float = 0.4
    unit_dropout: float = 0.2
    input_size: int = 112

    def __post_init__(self) -> None:
        check_face_options(self.embedding_size, self.head, self.dropout, self.input_size)
        if not 0.0 <= self.unit_dropout < 1.0:
            raise SettingsError(
                "unit_dropout should be a share of at least 0 and below 1; got "
                f"{self.unit_dropout}. 0 drops nothing."
            )


def check_face_options(embedding_size: int, head: str, dropout: float, input_size: int) -> None:
    """Raises SettingsError unless a network with a stem and a head of InsightFace has sense."""
    chosen("head", head, dict.fromkeys(HEADS))
    check_sizes(
        embedding_size=embedding_size,
        dropout=dropout,
        input_size=input_size,
        multiple=_STRIDE,
        smallest=_STRIDE,
    )
    if dropout and head not in ("E", "F"):
        raise SettingsError(
            f"Head {head} has no dropout to set; got dropout {dropout}. Set it to 0, or take head "
            "E or F."
        )


@dataclass(frozen=True, slots=True)
class DensePlan:
    """units: of each of the four dense blocks. growth: channels that each unit adds."""

    units: tuple[int, int, int, int]
    growth: int


PLANS: Final = {
    "densenet121": DensePlan((6, 12, 24, 16), 32),
    "densenet161": DensePlan((6, 12, 36, 24), 48),
    "densenet169": DensePlan((6, 12, 32, 32), 32),
    "densenet201": DensePlan((6, 12, 48, 32), 32),
}


class FaceStem(nn.Module):
    """3x3 convolution, BN, PReLU, a block of iResNet: (n, 3, h, w) -> (n, 64, h / 2, w / 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, STEM_WIDTH, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(STEM_WIDTH, eps=_EPSILON)
        self.prelu = nn.PReLU(STEM_WIDTH)
        self.unit = ResidualBlock(STEM_WIDTH, STEM_WIDTH, stride=2, se=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.unit(self.prelu(self.bn(self.conv(x))))
        return out


class DenseUnit(nn.Module):
    """What BN, ReLU, 1x1, BN, ReLU, 3x3 make of x, behind x: (n, c, h, w) -> (n, c + g, h, w)."""

    def __init__(self, channels: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels, eps=_EPSILON)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth, eps=_EPSILON)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        new = self.dropout(self.conv1(functional.relu(self.bn1(x), inplace=True)))
        new = self.dropout(self.conv2(functional.relu(self.bn2(new), inplace=True)))
        return torch.cat([x, new], 1)


class Transition(nn.Module):
    """BN, ReLU, 1x1, mean of 2x2: (n, c, h, w) -> (n, width, h / 2, w / 2)."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=_EPSILON)
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.dropout(self.conv(functional.relu(self.bn(x), inplace=True)))
        return functional.avg_pool2d(x, 2)


class DenseNet(Backbone):
    """Crops (n, 3, s, s), s as the settings say -> raw embeddings (n, embedding_size)."""

    def __init__(self, plan: DensePlan, settings: DenseNetSettings) -> None:
        super().__init__()
        self.embedding_size = settings.embedding_size
        self.input_size = settings.input_size
        self.stem = FaceStem()
        channels = STEM_WIDTH
        width = 2 * plan.growth  # InsightFace halves from here, also where its stem is narrower
        for number, count in enumerate(plan.units, 1):
            units = []
            for _ in range(count):
                units.append(DenseUnit(channels, plan.growth, settings.unit_dropout))
                channels += plan.growth
            self.add_module(f"stage{number}", nn.Sequential(*units))
            if number < len(plan.units):
                width = (width + count * plan.growth) // 2
                transition = Transition(channels, width, settings.unit_dropout)
                self.add_module(f"transition{number}", transition)
                channels = width
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
            if name.startswith("stage"):
                x = self.run(part.children(), x)
            elif name.startswith("transition"):
                x = part(x)
        embeddings: Tensor = self.head(x)
        return embeddings

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """See Backbone: stem, stage1, transition1, ..., stage4, embedding."""
        parts = {name: (part,) for name, part in self.named_children() if name != "head"}
        return {**parts, "embedding": (self.head,)}


def draw_as_insightface(network: nn.Module) -> None:
    """MXNet's Xavier, uniform, fan-in, magnitude 2: within +-sqrt(2 / fan_in); biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            reach = sqrt(2 / module.weight[0].numel())
            nn.init.uniform_(module.weight, -reach, reach)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


KINDS: dict[str, BackboneKind] = {
    name: BackboneKind(
        partial(DenseNet, plan),
        DenseNetSettings,
        112,
        "Huang et al. 2017, as InsightFace (2018) has it",
    )
    for name, plan in PLANS.items()
}
