"""Weights of an ONNX graph laid into a torch network of the same structure.

An ONNX file often holds a normalisation inside the convolution before it. What it did cannot be
told from the file, so the weights go into the convolution and the normalisation's offset, with a
mean of 0 and a deviation of 1: the same answers but for the order of sums. For training with moving
statistics, `settle_statistics` measures those on pictures, with the same answers again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facenet.errors import InputError, ModelFileError
from facenet.train.backbones.backbone import Backbone
from facenet.train.backbones.mobilefacenet_tf import LatePaddedConv
from facenet.train.onnxlayers import NOTHING, Layer

Array = NDArray[Any]
Norm = nn.BatchNorm1d | nn.BatchNorm2d

WEIGHTED = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)
"""Modules that are laid beside the layers of a graph."""
BLANK = torch.device("meta")
"""Where a network has shapes and no values."""


def weights_for(backbone: Backbone, layers: Sequence[Layer]) -> dict[str, Array]:
    """The state dict of a network that computes what the graph of the layers does.

    backbone: may be on torch's "meta" device. Returns float32 arrays by the names of its state
    dict, without the counters of batches. Raises ModelFileError, with where they part, for a graph
    of another structure.
    """
    walk = _Walk(backbone, layers)
    for name, module in running_order(backbone):
        walk.fill(name, module)
    if walk.next != len(layers):
        raise ModelFileError(f"the graph has {len(layers) - walk.next} layers more")
    return walk.made


def running_order(backbone: Backbone) -> list[tuple[str, nn.Module]]:
    """Name and module of every layer with weights, in the order in which they run.

    Runs the network once on one picture of zeros, in evaluation mode, and leaves it as it was.
    """
    names = {module: name for name, module in backbone.named_modules()}
    order: list[tuple[str, nn.Module]] = []
    hooks = [
        module.register_forward_pre_hook(lambda m, _: order.append((names[m], m)))
        for module in names
        if isinstance(module, WEIGHTED)
    ]
    side = backbone.input_size
    picture = torch.zeros(1, 3, side, side, device=next(backbone.parameters()).device)
    _evaluated(backbone, [picture], hooks)
    return order


def _evaluated(backbone: Backbone, batches: Iterable[Tensor], hooks: list[Any]) -> None:
    """Run batches (n, 3, h, w) in evaluation mode without gradients, then remove the hooks."""
    training = [module for module in backbone.modules() if module.training]
    try:
        with torch.no_grad():
            backbone.eval()
            for images in batches:
                backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True


class _Walk:
    """How far the layers of a graph are laid into a network.

    made: the state dict so far. next: number of the layer that comes next. _held: the bias that a
    convolution or full connection has no place for, and a normalisation behind it may take.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[Layer]) -> None:
        self.made: dict[str, Array] = {}
        self.next = 0
        self._backbone, self._layers = backbone, layers
        self._held: Array | None = None

    def fill(self, name: str, module: nn.Module) -> None:
        """Take what a module needs from the layers."""
        if isinstance(module, Norm):
            self._fill_norm(name, module)
        elif isinstance(module, nn.PReLU):
            layer = self._take(name, "prelu")
            self._put(f"{name}.weight", module.weight, layer.arrays["weight"])
        else:
            assert isinstance(module, nn.Conv2d | nn.Linear)
            self._fill_product(name, module)

    def _fill_product(self, name: str, module: nn.Conv2d | nn.Linear) -> None:
        self._settled(name)
        kind = "conv" if isinstance(module, nn.Conv2d) else "dense"
        layer = self._take(name, kind, *(("conv",) if kind == "dense" else ()))
        if isinstance(module, nn.Conv2d) and layer.window != _window(module):
            raise ModelFileError(
                f"{name} has strides, pads and groups {_window(module)}, the graph {layer.window}"
            )
        share = np.float32(layer.scale / self._scale(name))
        weight, bias = (layer.arrays[part] * share for part in ("weight", "bias"))
        self._put(f"{name}.weight", module.weight, weight)
        if module.bias is not None:
            self._put(f"{name}.bias", module.bias, bias)
            bias = np.zeros_like(bias)
        self._held = bias

    def _scale(self, name: str) -> float:
        """What a network multiplies the values of a layer with: a block's `scale`, at its end."""
        parent, _, last = name.rpartition(".")
        scale = getattr(self._backbone.get_submodule(parent), "scale", 1.0)
        return float(scale) if last == "conv2d" else 1.0

    def _fill_norm(self, name: str, module: Norm) -> None:
        layer = self._layers[self.next] if self.next < len(self._layers) else None
        follows = layer is not None and layer.after == self.next - 1 != NOTHING
        if self._held is not None and not (layer and layer.kind == "norm" and follows):
            parts = _standing_still(self._held, module.eps)
        else:
            layer = self._take(name, "norm")
            held = 0.0 if self._held is None else self._held
            parts = {part: layer.arrays[part] for part in ("weight", "bias", "running_var")}
            parts["running_mean"] = layer.arrays["running_mean"] - held
            parts["running_var"] = parts["running_var"] + (
                layer.arrays["epsilon"] - np.float32(module.eps)
            )
        self._held = None
        for part, values in parts.items():
            self._put(f"{name}.{part}", getattr(module, part), values)

    def _take(self, name: str, *kinds: str) -> Layer:
        if self.next >= len(self._layers) or self._layers[self.next].kind not in kinds:
            end = self.next >= len(self._layers)
            came = "nothing more" if end else self._layers[self.next].kind
            raise ModelFileError(f"{name} needs a layer {kinds[0]}, the graph has {came}")
        self.next += 1
        return self._layers[self.next - 1]

    def _settled(self, name: str) -> None:
        if self._held is not None and np.any(self._held):
            raise ModelFileError(f"the graph has a bias before {name} that the network has not")
        self._held = None

    def _put(self, name: str, target: Any, values: Array) -> None:
        wanted = tuple(target.shape)
        if _without_cells(values.shape) != _without_cells(wanted):
            raise ModelFileError(f"{name} is {wanted}, in the graph {values.shape}")
        self.made[name] = np.array(values.reshape(wanted), np.float32, order="C")


def _without_cells(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a 1x1 convolution as that of a full connection."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _window(module: nn.Conv2d) -> tuple[int, ...]:
    """Strides, pads (top, left, bottom, right) and groups, as `Layer.window` has them."""
    if isinstance(module, LatePaddedConv):
        pads: tuple[int, ...] = (0, 0, 1, 1)
    else:
        high, wide = (int(one) for one in module.padding)
        pads = (high, wide, high, wide)
    return (*(int(one) for one in module.stride), *pads, module.groups)


def _standing_still(offset: Array, epsilon: float) -> dict[str, Array]:
    """A normalisation that only adds an offset (c,): mean 0, and variance + epsilon 1."""
    variance = np.float32(1) - np.float32(epsilon)
    while variance + np.float32(epsilon) < 1:
        variance = np.nextafter(variance, np.float32(2))
    width = len(offset)
    return {
        "weight": np.ones(width, np.float32),
        "bias": offset,
        "running_mean": np.zeros(width, np.float32),
        "running_var": np.full(width, variance, np.float32),
    }


def settle_statistics(backbone: Backbone, batches: Iterable[Tensor]) -> int:
    """Give every BatchNorm the statistics of pictures, and the gains that leave the answers alone.

    backbone: such as `load_backbone` gives. batches: tensors (n, 3, h, w), standardised as for
    training; a few hundred pictures will do. In evaluation mode the network answers as before, to
    rounding; with the statistics of batches, or moving ones, it now answers nearly the same, which
    a network whose normalisations were folded away does not. Returns the number of pictures.
    Raises InputError when there are none.
    """
    norms = [module for module in backbone.modules() if isinstance(module, Norm)]
    sums = {norm: _Moments(norm.num_features) for norm in norms}
    hooks = [norm.register_forward_pre_hook(lambda m, x: sums[m].add(x[0])) for norm in norms]
    count = [0]

    def counted() -> Iterator[Tensor]:
        for images in batches:
            count[0] += len(images)
            yield images

    _evaluated(backbone, counted(), hooks)
    if not count[0]:
        raise InputError("Statistics should be taken from pictures; there are none. Pass some.")
    for norm in norms:
        _settle(norm, sums[norm])
    return count[0]


class _Moments:
    """Sums over the values of each channel, float64 (c,)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.total = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """values: (n, c) or (n, c, h, w)."""
        rows = values.detach().transpose(0, 1).flatten(1).cpu().double()
        self.count += rows.shape[1]
        self.total += rows.sum(1)
        self.squares += (rows * rows).sum(1)


def _settle(norm: Norm, moments: _Moments) -> None:
    """New mean and variance, with gain and offset that make the same line of them."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean = moments.total / max(moments.count, 1)
    variance = (moments.squares / max(moments.count, 1) - mean * mean).clamp(min=0)
    slope = norm.weight.double().cpu() / torch.sqrt(norm.running_var.double().cpu() + norm.eps)
    height = norm.bias.double().cpu() - norm.running_mean.double().cpu() * slope
    with torch.no_grad():
        norm.weight.copy_(slope * torch.sqrt(variance + norm.eps))
        norm.bias.copy_(height + slope * mean)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
