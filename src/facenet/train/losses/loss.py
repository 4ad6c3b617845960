"""What every loss is: raw embeddings and labels to scalars, its changing state in buffers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-12
"""Smallest squared length that is divided by: a zero vector stays zero and gives no NaN."""


class Loss(nn.Module, ABC):
    """A loss of raw embeddings (n, d) and labels int64 (n,).

    `forward` gives scalars, float32 (), by name: "loss" is what is minimised, the others are for
    the log and carry no gradient. Whatever changes while training is a buffer, so that it is
    saved. A label of -1 says that none of the classes is the right one.
    """

    @abstractmethod
    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Raw embeddings (n, d) float, labels (n,) int64 -> scalars () float32 by name."""

    def expected_first_loss(self) -> float | None:
        """About the loss of a first batch with random centres; None: nothing is known of it."""
        return None

    def first_loss_spread(self) -> float | None:
        """Standard deviation of one row's part of that loss; None where nothing is known of it."""
        return None


class ClassLoss(Loss):
    """A loss with a centre per class: `weight`, float32 (classes, d)."""

    def __init__(self, classes: int, embedding_size: int) -> None:
        super().__init__()
        self.classes, self.embedding_size = classes, embedding_size
        self.weight = nn.Parameter(torch.empty(classes, embedding_size).normal_(std=0.01))

    def set_centres(self, centres: Tensor) -> None:
        """Begin with these centres (classes, d): those of the data, in place of random ones."""
        with torch.no_grad():
            self.weight.copy_(unit(centres) * self.weight.norm(dim=1).mean())


def unit(vectors: Tensor) -> Tensor:
    """Vectors (n, d) of any float type -> float32 (n, d) of unit length; zero stays zero."""
    vectors = vectors.float()
    return vectors * torch.rsqrt(vectors.square().sum(dim=1, keepdim=True).clamp_min(EPSILON))


def cosines(embeddings: Tensor, weight: Tensor) -> Tensor:
    """Cosines of raw embeddings (n, d) with class centres (c, d): float32 (n, c).

    In full precision whatever autocast says: near 1, bfloat16 knows steps of 5 degrees only.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        return functional.linear(unit(embeddings), unit(weight))


@dataclass(frozen=True, slots=True)
class LossKind:
    """A loss by name: what builds it, the type of its settings, where it comes from.

    build: (settings, classes, embedding_size) -> Loss. per_class: it has a centre per class;
    otherwise batches hold several pictures of each person. source: paper or system.
    """

    build: Callable[[Any, int, int], Loss]
    settings: type
    per_class: bool
    source: str
