"""What every backbone is: a torch network from standardised crops to raw embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Backbone(nn.Module, ABC):
    """A network from crops to embeddings.

    `forward` takes float32 (n, 3, h, w), standardised and in the colour order of the card, and
    gives float32 (n, embedding_size), of any length: losses and users bring it to unit length.
    embedding_size: d. input_size: side of the square input in pixels. checkpointed: trade time for
    memory: what `run` runs is computed again in the backward pass instead of being kept.
    """

    embedding_size: int
    input_size: int
    checkpointed: bool = False

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Crops (n, 3, h, w) -> raw embeddings (n, embedding_size), float32."""

    @abstractmethod
    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """The parts by name, from input to output; every parameter is in exactly one.

        The last is "embedding", the output head. Stages of fine-tuning begin at such a name.
        """

    def run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """x through the blocks in turn, each kept or computed again as `checkpointed` says."""
        for block in blocks:
            if self.checkpointed and self.training:
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_passes, block))
            else:
                x = block(x)
        return x


def _passes(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first and the second pass through a block."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Leave the statistics of normalisation alone: the first pass has counted this batch."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count


@dataclass(frozen=True, slots=True)
class BackboneKind:
    """A backbone by name: what builds it from its settings, their type, where it comes from.

    build: settings -> Backbone. settings: its frozen dataclass. input_size: side of the square
    input in pixels. source: paper or system.
    """

    build: Callable[[Any], Backbone]
    settings: type
    input_size: int
    source: str
