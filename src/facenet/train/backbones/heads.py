"""Output heads: from the last feature map of a network to its embeddings.

Source: InsightFace's heads A to J (`version-output`, get_fc1 of its MXNet symbols); E is that of
ArcFace (Deng et al. 2019). The layers bear the names of arcface_torch's iResNet. PReLU stands where
InsightFace chooses an activation; BatchNorm's epsilon is torch's 1e-5 (MXNet: 2e-5).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from facenet.errors import ImageError, SettingsError
from facenet.train.choosing import chosen

_POOLED = ("bn2", "prelu2", "pool", "flatten")
_POOLED_X = ("bn2", "prelu2", "pool", "dropout_x", "flatten")

_LAYERS: dict[str, tuple[str, ...]] = {
    "A": _POOLED,
    "B": (*_POOLED, "fc"),
    "C": (*_POOLED, "fc", "features"),
    "D": (*_POOLED, "fc", "features", "prelu3"),
    "E": ("bn2", "dropout", "flatten", "fc", "features"),
    "F": ("bn2", "dropout", "flatten", "fc"),
    "G": ("bn2", "flatten", "fc"),
    "H": ("flatten", "fc"),
    "I": ("bn2", "flatten", "fc", "features"),
    "J": ("flatten", "fc", "features"),
    "AX": _POOLED_X,
    "BX": (*_POOLED_X, "fc"),
    "CX": (*_POOLED_X, "fc", "features"),
    "DX": (*_POOLED_X, "fc", "features", "prelu3"),
}

HEADS = tuple(_LAYERS)
"""Every name that `build_head` knows."""

_LARGEST_SIDE, _LARGEST_EMBEDDING = 1024, 8192


class OutputHead(nn.Module):
    """The layers of one head in turn: feature map (n, c, s, s) -> embeddings (n, d), float32."""

    def __init__(self, layers: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map (n, c, s, s) -> embeddings (n, d), float32 under autocast too."""
        return through_head(self.children(), x)


def build_head(
    name: str, channels: int, side: int, embedding_size: int, *, dropout: float = 0.4
) -> nn.Module:
    """The head of that name for feature maps (n, channels, side, side) -> (n, embedding_size).

    dropout: the share of values that E and F drop; AX to DX drop 0.2 after pooling, the others
    nothing. The last BatchNorm keeps its gain at 1 (requires_grad False). Raises SettingsError for
    an unknown name, sizes that do not fit, and for A and AX, which have no full connection, where
    embedding_size is not channels.
    """
    layers = chosen("head", name, _LAYERS)
    check_sizes(embedding_size=embedding_size, dropout=dropout)
    if "fc" not in layers and embedding_size != channels:
        raise SettingsError(
            f"Head {name} gives the {channels} channels of the network; got embedding_size "
            f"{embedding_size}. Ask for {channels}, or take head B, which has a full connection."
        )
    width = channels if "pool" in layers else channels * side * side
    kinds: dict[str, Callable[[], nn.Module]] = {
        "bn2": lambda: nn.BatchNorm2d(channels),
        "prelu2": lambda: nn.PReLU(channels),
        "pool": lambda: nn.AdaptiveAvgPool2d(1),
        "dropout": lambda: nn.Dropout(dropout),
        "dropout_x": lambda: nn.Dropout(0.2),
        "flatten": lambda: nn.Flatten(),
        "fc": lambda: nn.Linear(width, embedding_size),
        "features": lambda: without_gain(nn.BatchNorm1d(embedding_size)),
        "prelu3": lambda: nn.PReLU(embedding_size),
    }
    return OutputHead(OrderedDict((layer, kinds[layer]()) for layer in layers))


def through_head(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """x through the layers in turn; from the first full connection on in full precision."""
    steps = list(layers)
    full = [isinstance(layer, nn.Linear) for layer in steps]
    cut = full.index(True) if True in full else len(steps)
    for layer in steps[:cut]:
        x = layer(x)
    return in_full_precision(steps[cut:], x)


def in_full_precision(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """x through the layers in turn, float32 with autocast off: a sum over thousands of values."""
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()
    if x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type):
        return _through(layers, x)
    with torch.autocast(x.device.type, enabled=False):
        return _through(layers, x)


def _through(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def without_gain(norm: nn.Module) -> nn.Module:
    """The BatchNorm with its gain kept at 1 (MXNet's fix_gamma); only the offset is learned."""
    assert isinstance(norm.weight, nn.Parameter)
    norm.weight.requires_grad_(False)
    return norm


def check_sizes(
    *,
    embedding_size: int = 512,
    input_size: int = 112,
    dropout: float = 0.0,
    multiple: int = 1,
    smallest: int = 1,
) -> None:
    """Raises SettingsError unless the sizes of a network make sense.

    multiple, smallest: what input_size (pixels) has to be a multiple of, and to reach.
    """
    if not 1 <= embedding_size <= _LARGEST_EMBEDDING:
        raise SettingsError(
            f"embedding_size should be between 1 and {_LARGEST_EMBEDDING}; "
            f"got {embedding_size!r:.40}. 512 is usual."
        )
    if input_size % multiple or not smallest <= input_size <= _LARGEST_SIDE:
        raise SettingsError(
            f"input_size should be a multiple of {multiple} from {smallest} to {_LARGEST_SIDE} "
            f"pixels; got {input_size!r:.40}. 112 is usual."
        )
    if not 0.0 <= dropout < 1.0:
        raise SettingsError(
            f"dropout should be a share of at least 0 and below 1; got {dropout!r:.40}. "
            "0 drops nothing."
        )


def check_crops(images: Tensor, input_size: int) -> None:
    """Raises ImageError unless the crops are (n, 3, input_size, input_size)."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, input_size, input_size):
        raise ImageError(
            f"This network takes crops (n, 3, {input_size}, {input_size}); got "
            f"{tuple(images.shape)[:6]}. Resize the crops, or build it with another input_size."
        )
