"""A small convolutional network: trains in seconds on a processor, for trying things out.

Four times convolution 3x3 with stride 2, BatchNorm and PReLU; the mean over what is left; a linear
layer and BatchNorm. Not a network for real faces: its accuracy there is that of a toy.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from facenet.errors import SettingsError
from facenet.train.backbones.backbone import Backbone, BackboneKind


@dataclass(frozen=True, slots=True)
class SmallNetSettings:
    """embedding_size: d. width: channels of the first convolution; each next has twice as many.
    input_size: side of the crops in pixels. Raises SettingsError for what does not fit."""

    embedding_size: int = 64
    width: int = 16
    input_size: int = 56

    def __post_init__(self) -> None:
        for name, low in (("embedding_size", 1), ("width", 1), ("input_size", 16)):
            if getattr(self, name) < low:
                raise SettingsError(
                    f"backbone.{name} should be {low} or more; got {getattr(self, name)}."
                )


class SmallNet(Backbone):
    """Crops (n, 3, s, s) -> raw embeddings (n, d), for any s of 16 or more."""

    def __init__(self, settings: SmallNetSettings) -> None:
        super().__init__()
        self.embedding_size, self.input_size = settings.embedding_size, settings.input_size
        widths = [3, *(settings.width * 2**number for number in range(4))]
        self.layers = nn.Sequential(
            *(_layer(before, after) for before, after in zip(widths, widths[1:], strict=False))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], settings.embedding_size, bias=False)
        self.norm = nn.BatchNorm1d(settings.embedding_size)

    def forward(self, images: Tensor) -> Tensor:
        """Crops (n, 3, s, s) -> raw embeddings (n, d)."""
        x = self.pool(self.run(self.layers, images)).flatten(1)
        embeddings: Tensor = self.norm(self.linear(x))
        return embeddings

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """layer1 to layer4, embedding."""
        layers = {f"layer{number}": (layer,) for number, layer in enumerate(self.layers, 1)}
        return {**layers, "embedding": (self.linear, self.norm)}


def _layer(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.PReLU(width),
    )


KINDS: dict[str, BackboneKind] = {
    "smallnet": BackboneKind(SmallNet, SmallNetSettings, 56, "facenet, for trying things out")
}
