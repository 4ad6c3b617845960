"""How big a network is and what a picture costs: parameters and multiply-adds.

Convention: a multiply and its add are one MAC. Convolutions, full connections and the products
inside attention count; biases, norms, activations, pooling and sums do not (as in the tables of
ArcFace and InsightFace). Parameters are all learnable tensors, those kept fixed included; running
statistics are not.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from facenet.train.backbones.backbone import Backbone


@runtime_checkable
class CountsItself(Protocol):
    """A module that multiplies tensors itself says how often: the hook of `count_macs`.

    `extra_macs` gets what `forward` got first, a batch of one picture, and gives the multiply-adds
    that no Conv2d or Linear inside the module makes.
    """

    def extra_macs(self, x: Tensor) -> int:
        """Multiply-adds of one picture beside those of the layers inside."""


def count_parameters(backbone: Backbone) -> int:
    """All values of all parameters, each counted once."""
    return sum(parameter.numel() for parameter in backbone.parameters())


def count_macs(backbone: Backbone, input_size: int | None = None) -> int:
    """Multiply-adds for one picture (3, input_size, input_size); None: the network's own size.

    Runs the network once on zeros where its weights are, in evaluation mode without gradients; on
    torch's "meta" device that costs nothing. Leaves the network as it was.
    """
    side = backbone.input_size if input_size is None else input_size
    counts: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *call: counts.append(_macs(*call)))
        for module in backbone.modules()
    ]
    training = [module for module in backbone.modules() if module.training]
    first = next(backbone.parameters())
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, side, side, dtype=first.dtype, device=first.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return sum(counts)


def _macs(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    """What one call of one module costs, without the modules inside it."""
    if isinstance(module, nn.Conv2d):
        count: int = output.numel() * module.weight[0].numel()
        return count
    if isinstance(module, nn.Linear):
        full: int = output.numel() * module.in_features
        return full
    return module.extra_macs(inputs[0]) if isinstance(module, CountsItself) else 0
