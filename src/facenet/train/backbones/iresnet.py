"""iResNet, the residual networks of ArcFace (InsightFace's LResNet{N}E-IR, arcface_torch's r{N}).

Source: Deng et al., "ArcFace" (CVPR 2019), and InsightFace's published networks. Parameter names
are those of arcface_torch, so that its published weights load by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from facenet.errors import SettingsError
from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.backbones.heads import (
    HEADS,
    build_head,
    check_crops,
    check_sizes,
    through_head,
)
from facenet.train.choosing import chosen

_WIDTHS = (64, 128, 256, 512)

_DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}


@dataclass(frozen=True, slots=True)
class IResNetSettings:
    """The options of an iResNet; the defaults are arcface_torch's.

    embedding_size: d. head: one of `heads.HEADS`. dropout: share that heads E and F drop (0.4 in
    InsightFace's MXNet networks); other heads take only 0. se: squeeze and excitation in each
    block (Hu et al. 2018), as InsightFace's `use_se`. zero_init: the last gain of each block starts
    at 0, so that each begins as its shortcut (Goyal et al. 2017); InsightFace's flag of that name
    zeroes the middle one by mistake. input_size: side of the crops in pixels, a multiple of 16.
    Raises SettingsError for what does not fit.
    """

    embedding_size: int = 512
    head: str = "E"
    dropout: float = 0.0
    se: bool = False
    zero_init: bool = False
    input_size: int = 112

    def __post_init__(self) -> None:
        chosen("head", self.head, dict.fromkeys(HEADS))
        check_sizes(
            embedding_size=self.embedding_size,
            input_size=self.input_size,
            dropout=self.dropout,
            multiple=16,
            smallest=32,
        )
        if self.dropout and self.head not in ("E", "F"):
            raise SettingsError(
                f"Head {self.head} has no dropout to set; got dropout {self.dropout!r:.40}. "
                "Leave it at 0, or take head E or F."
            )


class SqueezeExcitation(nn.Module):
    """Each channel times a factor from the mean of all: (n, c, h, w) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = nn.Conv2d(channels, channels // 16, 1)
        self.prelu = nn.PReLU(channels // 16)
        self.conv2 = nn.Conv2d(channels // 16, channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Feature map -> feature map of the same shape."""
        factors: Tensor = self.sigmoid(self.conv2(self.prelu(self.conv1(self.pool(x)))))
        return x * factors


class ResidualBlock(nn.Module):
    """BN, conv, BN, PReLU, conv (with the stride), BN, plus the shortcut; nothing after the sum.

    (n, channels, h, w) -> (n, width, h / stride, w / stride), rounded up.
    """

    def __init__(self, channels: int, width: int, *, stride: int, se: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.se = SqueezeExcitation(width) if se else None
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Feature map -> feature map."""
        out: Tensor = self.conv1(self.bn1(x))
        out = self.bn3(self.conv2(self.prelu(self.bn2(out))))
        if self.se is not None:
            out = self.se(out)
        return out + (x if self.downsample is None else self.downsample(x))


class IResNet(Backbone):
    """The network: a stem at full size, four stages that each halve the side, an output head."""

    def __init__(self, depths: tuple[int, int, int, int], settings: IResNetSettings) -> None:
        super().__init__()
        self.embedding_size = settings.embedding_size
        self.input_size = settings.input_size
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.prelu = nn.PReLU(_WIDTHS[0])
        widths = zip((_WIDTHS[0], *_WIDTHS), _WIDTHS, strict=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(channels, width, depth, settings.se)
            for (channels, width), depth in zip(widths, depths, strict=True)
        )
        head = build_head(
            settings.head,
            _WIDTHS[-1],
            settings.input_size // 16,
            settings.embedding_size,
            dropout=settings.dropout,
        )
        self._head_names = tuple(name for name, _ in head.named_children())
        for name, layer in head.named_children():
            self.add_module(name, layer)
        self._initialise(settings.zero_init)

    def _initialise(self, zero_init: bool) -> None:
        """Convolutions N(0, 0.1): the BatchNorm after each takes the scale out again."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                nn.init.normal_(module.weight, 0.0, 0.1)
            elif isinstance(module, ResidualBlock) and zero_init:
                nn.init.zeros_(module.bn3.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Crops (n, 3, s, s) -> raw embeddings (n, d). Raises ImageError for another size."""
        check_crops(images, self.input_size)
        x: Tensor = self.prelu(self.bn1(self.conv1(images)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = self.run(stage, x)
        return through_head(self._head(), x)

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """stem, layer1 to layer4, embedding."""
        return {
            "stem": (self.conv1, self.bn1, self.prelu),
            "layer1": (self.layer1,),
            "layer2": (self.layer2,),
            "layer3": (self.layer3,),
            "layer4": (self.layer4,),
            "embedding": self._head(),
        }

    def _head(self) -> tuple[nn.Module, ...]:
        return tuple(self.get_submodule(name) for name in self._head_names)


def _stage(channels: int, width: int, depth: int, se: bool) -> nn.Sequential:
    """depth blocks, the first with stride 2."""
    return nn.Sequential(
        *(
            ResidualBlock(
                channels if number == 0 else width, width, stride=2 if number == 0 else 1, se=se
            )
            for number in range(depth)
        )
    )


def build_iresnet(depth: int, settings: IResNetSettings | None = None) -> IResNet:
    """iResNet of depth 18, 34, 50, 100 or 200; None: arcface_torch's settings.

    Raises SettingsError for another depth.
    """
    stages = {str(known): blocks for known, blocks in _DEPTHS.items()}
    return IResNet(chosen("depth", str(depth), stages), settings or IResNetSettings())


KINDS: dict[str, BackboneKind] = {
    f"iresnet{depth}": BackboneKind(
        partial(build_iresnet, depth), IResNetSettings, 112, "ArcFace (Deng et al. 2019)"
    )
    for depth in _DEPTHS
}
