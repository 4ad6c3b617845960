"""MobileFaceNet: inverted bottlenecks with PReLU, and a learned weight for each place of the map.

Source: Chen et al., "MobileFaceNets" (CCBR 2018), and InsightFace's networks: x1 is y1 of its MXNet
symbols, x2 is "mbf" of arcface_torch. Parameter names are those of arcface_torch, so that its
published weights load by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.backbones.heads import check_crops, check_sizes, in_full_precision


@dataclass(frozen=True, slots=True)
class MobileFaceNetSettings:
    """The options of a MobileFaceNet.

    embedding_size: d (the paper: 128). input_size: side of the crops in pixels, a multiple of 16.
    Raises SettingsError for what does not fit.
    """

    embedding_size: int = 512
    input_size: int = 112

    def __post_init__(self) -> None:
        check_sizes(
            embedding_size=self.embedding_size,
            input_size=self.input_size,
            multiple=16,
            smallest=32,
        )


class ConvBlock(nn.Module):
    """Convolution without bias, BatchNorm, and PReLU unless linear."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(
            channels, width, kernel, stride=stride, padding=padding, groups=groups, bias=False
        )
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(width))
        if not linear:
            self.layers.append(nn.PReLU(width))

    def forward(self, x: Tensor) -> Tensor:
        """Feature map -> feature map."""
        out: Tensor = self.layers(x)
        return out


class Bottleneck(nn.Module):
    """1x1 to `inner` channels, 3x3 on each of them alone, 1x1 to `width`, linear at the end."""

    def __init__(
        self, channels: int, width: int, inner: int, *, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(channels, inner),
            ConvBlock(inner, inner, 3, stride=stride, padding=1, groups=inner),
            ConvBlock(inner, width, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature map -> feature map, the input added where the block is residual."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class Residuals(nn.Module):
    """Several residual bottlenecks of one width, in turn."""

    def __init__(self, width: int, inner: int, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(Bottleneck(width, width, inner, residual=True) for _ in range(count))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature map -> feature map of the same shape."""
        out: Tensor = self.layers(x)
        return out


class GlobalDepthwise(nn.Module):
    """A weight for each place and channel, then a full connection without bias and BatchNorm.

    (n, 512, side, side) -> (n, embedding_size), from the full connection on in float32.
    """

    def __init__(self, side: int, embedding_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(512, 512, side, groups=512, linear=True),
            nn.Flatten(),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Feature map (n, 512, side, side) -> embeddings (n, d), float32."""
        weigh, flatten, *full = self.layers
        return in_full_precision(full, flatten(weigh(x)))


class MobileFaceNet(Backbone):
    """The network. scale multiplies all widths but the inner ones and the 64 groups of the stem."""

    def __init__(self, scale: int, settings: MobileFaceNetSettings) -> None:
        super().__init__()
        self.embedding_size = settings.embedding_size
        self.input_size = settings.input_size
        narrow, wide = 64 * scale, 128 * scale
        self.layers = nn.ModuleList(
            (
                ConvBlock(3, narrow, 3, stride=2, padding=1),
                ConvBlock(narrow, narrow, 3, padding=1, groups=64),
                Bottleneck(narrow, narrow, 128, stride=2),
                Residuals(narrow, 128, 4),
                Bottleneck(narrow, wide, 256, stride=2),
                Residuals(wide, 256, 6),
                Bottleneck(wide, wide, 512, stride=2),
                Residuals(wide, 256, 2),
            )
        )
        self.conv_sep = ConvBlock(wide, 512)
        self.features = GlobalDepthwise(settings.input_size // 16, settings.embedding_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Crops (n, 3, s, s) -> raw embeddings (n, d). Raises ImageError for another size."""
        check_crops(images, self.input_size)
        x = self.run(self._units(), images)
        x = self.conv_sep(x)
        out: Tensor = self.features(x)
        return out

    def _units(self) -> Iterator[nn.Module]:
        for layer in self.layers:
            if isinstance(layer, Residuals):
                yield from layer.layers
            else:
                yield layer

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """stem, stage1 to stage3 (each halves the side), conv_sep, embedding."""
        layers = tuple(self.layers)
        return {
            "stem": layers[:2],
            "stage1": layers[2:4],
            "stage2": layers[4:6],
            "stage3": layers[6:8],
            "conv_sep": (self.conv_sep,),
            "embedding": (self.features,),
        }


def build_mobilefacenet(
    scale: int = 1, settings: MobileFaceNetSettings | None = None
) -> MobileFaceNet:
    """MobileFaceNet of 1 (the paper's) or 2 times the widths (InsightFace's mbf)."""
    return MobileFaceNet(scale, settings or MobileFaceNetSettings())


KINDS: dict[str, BackboneKind] = {
    "mobilefacenet": BackboneKind(
        partial(build_mobilefacenet, 1),
        MobileFaceNetSettings,
        112,
        "MobileFaceNets (Chen et al. 2018)",
    ),
    "mobilefacenet_x2": BackboneKind(
        partial(build_mobilefacenet, 2),
        MobileFaceNetSettings,
        112,
        "InsightFace's mbf (arcface_torch)",
    ),
}
