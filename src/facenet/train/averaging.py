"""Averaged weights: an exponential moving average of all parameters over the steps.

As facenet's (`tf.train.ExponentialMovingAverage` with the step as `num_updates`), which computed
them but neither saved nor evaluated them; here both is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from facenet.errors import ModelFileError, SettingsError


class Average:
    """The moving average of a module's parameters; it begins with what they are now.

    decay: share of the old average that each step keeps, 0 to less than 1. warm: keep less at
    first, (1 + step) / (10 + step), so that the first weights are soon forgotten. Parameters are
    averaged in float32 at least. Buffers are copied as they are: the statistics of batch
    normalisation are moving averages already, and counters have no mean.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999, warm: bool = True) -> None:
        if not 0 <= decay < 1:
            raise SettingsError(
                f"The decay of averaged weights should be 0 or more and less than 1; got {decay}. "
                "0.9999 is usual."
            )
        self.decay, self.warm = decay, warm
        self._module = module
        self._averages = {
            name: value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)
            for name, value in module.named_parameters(remove_duplicate=False)
        }
        self._copies = {
            name: value.detach().clone()
            for name, value in module.state_dict().items()
            if name not in self._averages
        }

    def update(self, step: int) -> None:
        """Take the weights into the average after the step of this number, counted from 0."""
        kept = min(self.decay, (1 + step) / (10 + step)) if self.warm else self.decay
        values = self._module.state_dict()
        with torch.no_grad():
            for name, average in self._averages.items():
                average.lerp_(values[name].to(average.dtype), 1 - kept)
            for name, copy in self._copies.items():
                copy.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights and the copied buffers, by the names of the module's state_dict.

        The tensors are those that `update` goes on to change.
        """
        state = self._state()
        return {name: state[name] for name in self._module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved average, copied bit for bit.

        Raises ModelFileError for the average of another network.
        """
        own = self._state()
        _require_same(own, state)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module with the averaged weights; afterwards its own again, bit for bit.

        Also when what is done inside fails. module: the one that is averaged, or one like it.
        Raises ModelFileError for another network.
        """
        current = module.state_dict()
        _require_same(self._state(), current)
        own = {name: value.clone() for name, value in current.items()}
        try:
            _fill(current, self._state())
            yield module
        finally:
            _fill(current, own)

    def _state(self) -> dict[str, Tensor]:
        return {**self._averages, **self._copies}


def _fill(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(values[name])


def _require_same(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Raises ModelFileError that names the first tensor that differs."""
    for name in [*own, *(name for name in other if name not in own)]:
        shapes = [
            str(tuple(tensors[name].shape)) if name in tensors else "none"
            for tensors in (own, other)
        ]
        if shapes[0] != shapes[1]:
            raise ModelFileError(
                f"The averaged weights should be of one network; {name[:80]} has the shape "
                f"{shapes[0]} here and {shapes[1]} there. Use the checkpoint of this network."
            )
