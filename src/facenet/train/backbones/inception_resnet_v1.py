"""Inception-ResNet-v1, and what facenet's three networks share.

Source: `models/inception_resnet_v1.py` of davidsandberg/facenet (2017 and 2018), after Szegedy et
al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (2016).
Parts and weights bear the names of timesler/facenet-pytorch, so its state dicts load as they are
(without `logits`). The widths are those of `facenet.models.convert`, which writes the ONNX graphs.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from facenet.errors import ImageError, SettingsError
from facenet.models.convert import inception_resnet_v1 as tables
from facenet.models.convert.blocks import EPSILON, SIZE, Block, Branches, Unit
from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.backbones.heads import check_sizes, in_full_precision, without_gain

SMALLEST: Final = 75
"""Sides of the smallest crop that leaves a cell at the end of either Inception-ResNet."""

_PARTS: Final = (
    "mixed_5b",
    "repeat_1",
    "mixed_6a",
    "repeat_2",
    "mixed_7a",
    "repeat_3",
    "block8",
    "conv2d_7b",
)
"""What stands between stem and bottleneck; the first and the last in version 2 only."""


@dataclass(frozen=True, slots=True)
class FacenetSettings:
    """Options of facenet's networks; they stand as facenet's trainer has them.

    embedding_size: values of an embedding (facenet published 128 and 512). dropout: share of values
    dropped before the last layer, which is 1 - keep_probability; recipes set it (facenet-pytorch
    has 0.6). bn_momentum: share that each batch has in the running statistics; 0.005 is
    TensorFlow's decay of 0.995, facenet-pytorch has 0.1. gamma: whether batch normalisation learns
    a gain. facenet's does not, so it stays as it is (1 in a fresh network and in facenet's
    published weights); True trains it, as facenet-pytorch does.
    Raises SettingsError for a value out of its range.
    """

    embedding_size: int = 512
    dropout: float = 0.0
    bn_momentum: float = 0.005
    gamma: bool = False

    def __post_init__(self) -> None:
        check_sizes(embedding_size=self.embedding_size, dropout=self.dropout)
        if not 0.0 < self.bn_momentum <= 1.0:
            raise SettingsError(
                "bn_momentum should be a share above 0 and at most 1; got "
                f"{self.bn_momentum}. 0.005 is facenet's, 0.1 is torch's."
            )

    def norm(self, width: int) -> nn.BatchNorm2d:
        """The normalisation behind a convolution of that many channels."""
        norm = nn.BatchNorm2d(width, eps=EPSILON, momentum=self.bn_momentum)
        if not self.gamma:
            without_gain(norm)
        return norm


class ConvUnit(nn.Module):
    """Convolution, normalisation, ReLU: (n, channels, h, w) -> (n, unit.width, h', w')."""

    def __init__(self, channels: int, unit: Unit, settings: FacenetSettings) -> None:
        super().__init__()
        high, wide = unit.kernel
        padding = (high // 2, wide // 2) if unit.same else (0, 0)
        self.conv = nn.Conv2d(
            channels, unit.width, unit.kernel, unit.stride, padding=padding, bias=False
        )
        self.bn = settings.norm(unit.width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return functional.relu(self.bn(self.conv(x)), inplace=True)


def chained(channels: int, units: tuple[Unit, ...], settings: FacenetSettings) -> nn.Module:
    """Units one after the other; a single one stands for itself."""
    layers = []
    for unit in units:
        layers.append(ConvUnit(channels, unit, settings))
        channels = unit.width
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


class Branched(nn.Module):
    """Branches side by side on one input: branch0, branch1, ..., their channels joined."""

    def __init__(self, channels: int, branches: Branches, settings: FacenetSettings) -> None:
        super().__init__()
        self.names = tuple(f"branch{number}" for number in range(len(branches)))
        for name, units in zip(self.names, branches, strict=True):
            self.add_module(name, chained(channels, units, settings))
        self.width = sum(units[-1].width for units in branches)

    def ends(self, x: Tensor) -> list[Tensor]:
        """What each branch makes of x."""
        return [getattr(self, name)(x) for name in self.names]


class Reduction(Branched):
    """Branches of stride 2 and a largest-of-3x3 of stride 2 (no padding), joined."""

    def __init__(self, channels: int, branches: Branches, settings: FacenetSettings) -> None:
        super().__init__(channels, branches, settings)
        self.width += channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, width, (h - 1) // 2, (w - 1) // 2)."""
        return torch.cat([*self.ends(x), functional.max_pool2d(x, 3, 2)], 1)


class Residual(Branched):
    """x + scale * (branches, joined, widened by a biased 1x1 convolution), then ReLU.

    Shapes (n, channels, h, w) on both sides. last: the scale is 1, and there is no ReLU.
    """

    def __init__(
        self, channels: int, block: Block, settings: FacenetSettings, *, last: bool = False
    ) -> None:
        super().__init__(channels, block.branches, settings)
        self.conv2d = nn.Conv2d(self.width, channels, 1)
        self.scale = 1.0 if last else block.scale
        self.rectified = not last

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        wide = self.conv2d(torch.cat(self.ends(x), 1))
        x = torch.add(x, wide, alpha=self.scale)
        return functional.relu(x, inplace=True) if self.rectified else x


def repeated(channels: int, block: Block, settings: FacenetSettings) -> nn.Sequential:
    """The block as often as it comes, each with weights of its own."""
    return nn.Sequential(*(Residual(channels, block, settings) for _ in range(block.repeats)))


class FacenetBackbone(Backbone):
    """A network of facenet: what is in front of the bottleneck differs, the rest is here."""

    last_linear: nn.Linear
    last_bn: nn.BatchNorm1d

    def __init__(self, settings: FacenetSettings) -> None:
        super().__init__()
        self.settings = settings
        self.embedding_size = settings.embedding_size
        self.input_size = SIZE
        self.dropout = nn.Dropout(settings.dropout)

    @abstractmethod
    def layers(self) -> dict[str, str]:
        """Name of each convolution (unit) here -> name of the layer in facenet's ONNX graphs."""

    def finish(self, channels: int) -> None:
        """Adds the bottleneck and draws the weights: Xavier's uniform, biases 0, as facenet."""
        self.last_linear = nn.Linear(channels, self.embedding_size, bias=False)
        momentum = self.settings.bn_momentum
        self.last_bn = nn.BatchNorm1d(self.embedding_size, eps=EPSILON, momentum=momentum)
        if not self.settings.gamma:
            without_gain(self.last_bn)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embedded(self, x: Tensor) -> Tensor:
        """The bottleneck: (n, channels) -> raw embeddings (n, embedding_size), float32."""
        return in_full_precision((self.last_linear, self.last_bn), x)


@dataclass(frozen=True, slots=True)
class Plan:
    """The tables of an Inception-ResNet, as `facenet.models.convert` has them.

    stem, stem_pooled: in front of and behind the first pool. last: behind block8.
    """

    title: str
    stem: tuple[Unit, ...]
    stem_pooled: tuple[Unit, ...]
    block35: Block
    mixed_6a: Branches
    block17: Block
    mixed_7a: Branches
    block8: Block
    last: tuple[Unit, ...] = ()


class InceptionResnet(FacenetBackbone):
    """Crops (n, 3, h, w), RGB, at least 75 x 75 (made for 160 x 160) -> (n, embedding_size)."""

    def __init__(self, plan: Plan, settings: FacenetSettings) -> None:
        super().__init__(settings)
        self.plan = plan
        channels = 3
        for unit in plan.stem + plan.stem_pooled:
            self.add_module(stem_name(unit), ConvUnit(channels, unit, settings))
            channels = unit.width
        channels = self.begin(channels)
        self.repeat_1 = repeated(channels, plan.block35, settings)
        self.mixed_6a = Reduction(channels, plan.mixed_6a, settings)
        self.repeat_2 = repeated(self.mixed_6a.width, plan.block17, settings)
        self.mixed_7a = Reduction(self.mixed_6a.width, plan.mixed_7a, settings)
        channels = self.mixed_7a.width
        self.repeat_3 = repeated(channels, plan.block8, settings)
        self.block8 = Residual(channels, plan.block8, settings, last=True)
        for unit in plan.last:
            self.add_module(stem_name(unit), ConvUnit(channels, unit, settings))
            channels = unit.width
        self.finish(channels)

    def begin(self, channels: int) -> int:
        """Adds what a version has between stem and repeat_1; gives the channels behind it."""
        return channels

    def begun(self, x: Tensor) -> Tensor:
        """x through what `begin` added."""
        return x

    def forward(self, images: Tensor) -> Tensor:
        """See the class. Raises ImageError for crops that are too small or of another shape."""
        check_least(images, SMALLEST, self.plan.title)
        x = self._through(self.plan.stem, images)
        x = self._through(self.plan.stem_pooled, functional.max_pool2d(x, 3, 2))
        x = self.mixed_6a(self.run(self.repeat_1, self.begun(x)))
        x = self.mixed_7a(self.run(self.repeat_2, x))
        x = self.block8(self.run(self.repeat_3, x))
        x = self._through(self.plan.last, x)
        return self.embedded(self.dropout(x.mean((2, 3))))

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """See Backbone: the stem, each part by its name, the bottleneck."""
        parts = dict(self.named_children())
        stem = tuple(parts[stem_name(unit)] for unit in self.plan.stem + self.plan.stem_pooled)
        blocks: dict[str, tuple[nn.Module, ...]] = {"stem": stem}
        blocks |= {name: (parts[name],) for name in _PARTS if name in parts}
        return blocks | {"embedding": (self.last_linear, self.last_bn)}

    def layers(self) -> dict[str, str]:
        """See FacenetBackbone."""
        plan = self.plan
        units = plan.stem + plan.stem_pooled + plan.last
        names = {stem_name(unit): unit.name for unit in units}
        repeats = (plan.block35, plan.block17, plan.block8)
        for number, block in enumerate(repeats, 1):
            for place in range(block.repeats):
                part = f"repeat_{number}.{place}"
                names |= residual_layers(part, f"{block.name}_{place + 1}", block)
        names |= branch_layers("mixed_6a", "Mixed_6a", plan.mixed_6a)
        names |= branch_layers("mixed_7a", "Mixed_7a", plan.mixed_7a)
        last = f"{plan.block8.name}_{plan.block8.repeats + 1}"
        return names | residual_layers("block8", last, plan.block8)

    def _through(self, units: tuple[Unit, ...], x: Tensor) -> Tensor:
        for unit in units:
            x = getattr(self, stem_name(unit))(x)
        return x


PLAN: Final = Plan(
    "Inception-ResNet-v1",
    tables.STEM,
    tables.STEM_POOLED,
    tables.BLOCK35,
    tables.MIXED_6A,
    tables.BLOCK17,
    tables.MIXED_7A,
    tables.BLOCK8,
)


class InceptionResnetV1(InceptionResnet):
    """Crops (n, 3, h, w), RGB, at least 75 x 75 (made for 160 x 160) -> (n, embedding_size)."""

    def __init__(self, settings: FacenetSettings) -> None:
        super().__init__(PLAN, settings)


def stem_name(unit: Unit) -> str:
    """Conv2d_1a_3x3 -> conv2d_1a."""
    return unit.name.lower().rsplit("_", 1)[0]


def check_least(images: Tensor, least: int, network: str) -> None:
    """Raises ImageError unless the crops are (n, 3, h, w) with h and w of at least that."""
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < least:
        raise ImageError(
            f"{network} takes crops (n, 3, h, w) of at least {least} x {least} pixels; got "
            f"{tuple(images.shape)[:6]}. Make the crops {SIZE} x {SIZE}."
        )


def branch_layers(part: str, layer: str, branches: Branches) -> dict[str, str]:
    """Names of the units of a Branched -> names of facenet's layers."""
    names = {}
    for number, units in enumerate(branches):
        for step, unit in enumerate(units):
            place = f".{step}" if len(units) > 1 else ""
            names[f"{part}.branch{number}{place}"] = f"{layer}_{unit.name}"
    return names


def residual_layers(part: str, layer: str, block: Block) -> dict[str, str]:
    """Names of the convolutions of a Residual -> names of facenet's layers."""
    wide = {f"{part}.conv2d": f"{layer}_Conv2d_1x1"}
    return branch_layers(part, layer, block.branches) | wide


KINDS: dict[str, BackboneKind] = {
    "inception_resnet_v1": BackboneKind(
        InceptionResnetV1,
        FacenetSettings,
        SIZE,
        "Szegedy et al. 2016, as davidsandberg/facenet has it",
    )
}
