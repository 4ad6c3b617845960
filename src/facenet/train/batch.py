"""What goes through a training step: crops with their labels, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from facenet.types import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Crops of one step.

    step: number of the batch, from 0 over all epochs. epoch: from 0. rows: int64 (n,), of the
    training set. images: float32 (n, 3, h, w), standardised, in the card's colour order. labels:
    int64 (n,). wait_s: seconds that the step waited for it.
    """

    step: int
    epoch: int
    rows: IntArray
    images: Tensor
    labels: Tensor
    wait_s: float = 0.0


class Sampling(Protocol):
    """Which rows make up which batch: a function of the step alone, so nothing has to be saved."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        ...

    def batch(self, step: int) -> tuple[IntArray, int]:
        """Rows of batch `step`, int64 (n,), and its epoch."""
        ...
