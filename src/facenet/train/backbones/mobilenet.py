"""MobileNet v1 and v2 for faces: a stem without stride, and an output head of InsightFace.

Source: Howard et al. 2017 (v1, InsightFace's m1 "LMobileNetE": PReLU, BatchNorm without gain) and
Sandler et al. 2018 (v2, with the strides, ReLU and head of InsightFace's m2; the bottlenecks are
the paper's: they widen their own input and have a shortcut where the shapes agree).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from facenet.errors import SettingsError
from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.backbones.heads import HEADS, build_head, check_crops, check_sizes, without_gain
from facenet.train.choosing import chosen

_V1_STAGES = (
    ((64, 1),),
    ((128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *((512, 1),) * 5),
    ((1024, 2), (1024, 1)),
)
"""Channels and stride of each separable block, by stage."""

_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 1),
    (6, 96, 3, 2),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and first stride of each stage."""


@dataclass(frozen=True, slots=True)
class MobileNetSettings:
    """The options of a MobileNet.

    embedding_size: d. head: one of `heads.HEADS`. dropout: share that heads E and F drop; other
    heads take only 0; None: what InsightFace takes, 0.4 in E and F. input_size: side of the crops
    in pixels, a multiple of 16. Raises SettingsError for what does not fit.
    """

    embedding_size: int = 512
    head: str = "E"
    dropout: float | None = None
    input_size: int = 112

    def __post_init__(self) -> None:
        chosen("head", self.head, dict.fromkeys(HEADS))
        check_sizes(
            embedding_size=self.embedding_size,
            input_size=self.input_size,
            dropout=self.dropout or 0.0,
            multiple=16,
            smallest=32,
        )
        if self.dropout and self.head not in ("E", "F"):
            raise SettingsError(
                f"Head {self.head} has no dropout to set; got dropout {self.dropout!r:.40}. "
                "Leave it out, or take head E or F."
            )


class ConvNorm(nn.Sequential):
    """Convolution without bias, BatchNorm, and what follows (an activation, or nothing)."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        conv = nn.Conv2d(
            channels, width, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        )
        after = () if activation is None else (activation,)
        super().__init__(conv, nn.BatchNorm2d(width), *after)


class InvertedBottleneck(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 on each alone, 1x1 to `width`, linear."""

    def __init__(self, channels: int, width: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.shortcut = stride == 1 and channels == width
        widen = [ConvNorm(channels, inner, activation=nn.ReLU())] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            ConvNorm(inner, inner, 3, stride=stride, groups=inner, activation=nn.ReLU()),
            ConvNorm(inner, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature map -> feature map."""
        out: Tensor = self.layers(x)
        return x + out if self.shortcut else out


class MobileNet(Backbone):
    """A stem, stages of blocks, for v2 a last 1x1 convolution, and an output head."""

    def __init__(
        self, stem: nn.Module, stages: list[nn.Sequential], settings: MobileNetSettings
    ) -> None:
        super().__init__()
        self.embedding_size = settings.embedding_size
        self.input_size = settings.input_size
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.head = build_head(
            settings.head,
            _last_width(stages),
            settings.input_size // 16,
            settings.embedding_size,
            dropout=0.4 if settings.dropout is None else settings.dropout,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Crops (n, 3, s, s) -> raw embeddings (n, d). Raises ImageError for another size."""
        check_crops(images, self.input_size)
        x: Tensor = self.stem(images)
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            x = self.run(stage, x)
        out: Tensor = self.head(x)
        return out

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """stem, stage1 and on (v1: 5, v2: 8, the last one its 1x1 convolution), embedding."""
        stages = {f"stage{number}": (stage,) for number, stage in enumerate(self.stages, 1)}
        return {"stem": (self.stem,), **stages, "embedding": (self.head,)}


def _last_width(stages: list[nn.Sequential]) -> int:
    return [m.num_features for m in stages[-1].modules() if isinstance(m, nn.BatchNorm2d)][-1]


def _v1_unit(channels: int, width: int, kernel: int, *, stride: int, groups: int) -> ConvNorm:
    unit = ConvNorm(
        channels, width, kernel, stride=stride, groups=groups, activation=nn.PReLU(width)
    )
    without_gain(unit[1])
    return unit


def _v1_block(channels: int, width: int, stride: int) -> nn.Sequential:
    """3x3 on each channel alone, then 1x1: a separable convolution."""
    return nn.Sequential(
        _v1_unit(channels, channels, 3, stride=stride, groups=channels),
        _v1_unit(channels, width, 1, stride=1, groups=1),
    )


def build_mobilenet_v1(settings: MobileNetSettings | None = None) -> MobileNet:
    """MobileNet v1 as InsightFace's LMobileNetE."""
    stages, channels = [], 32
    for stage in _V1_STAGES:
        blocks = []
        for width, stride in stage:
            blocks.append(_v1_block(channels, width, stride))
            channels = width
        stages.append(nn.Sequential(*blocks))
    stem = _v1_unit(3, 32, 3, stride=1, groups=1)
    return MobileNet(stem, stages, settings or MobileNetSettings())


def build_mobilenet_v2(settings: MobileNetSettings | None = None) -> MobileNet:
    """MobileNet v2 with the strides and the head of InsightFace's."""
    stages, channels = [], 32
    for expansion, width, count, first_stride in _V2_STAGES:
        blocks = []
        for number in range(count):
            stride = first_stride if number == 0 else 1
            blocks.append(InvertedBottleneck(channels, width, expansion=expansion, stride=stride))
            channels = width
        stages.append(nn.Sequential(*blocks))
    stages.append(nn.Sequential(ConvNorm(channels, 1280, activation=nn.ReLU())))
    stem = ConvNorm(3, 32, 3, activation=nn.ReLU())
    return MobileNet(stem, stages, settings or MobileNetSettings())


KINDS: dict[str, BackboneKind] = {
    "mobilenet_v1": BackboneKind(
        build_mobilenet_v1, MobileNetSettings, 112, "MobileNets (Howard et al. 2017), InsightFace"
    ),
    "mobilenet_v2": BackboneKind(
        build_mobilenet_v2, MobileNetSettings, 112, "MobileNetV2 (Sandler et al. 2018), InsightFace"
    ),
}
