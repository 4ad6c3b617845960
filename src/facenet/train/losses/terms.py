"""What is added to a loss: center loss and the penalty on the length of raw embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facenet.train.losses.center import CenterLoss, CenterSettings
from facenet.train.losses.loss import Loss
from facenet.train.losses.prelogits_norm import PrelogitsNormSettings, prelogits_norm


@dataclass(frozen=True, slots=True)
class TermSettings:
    """center: center loss. prelogits_norm: facenet's penalty on the length. None: without it."""

    center: CenterSettings | None = None
    prelogits_norm: PrelogitsNormSettings | None = None


class LossWithTerms(Loss):
    """A loss plus its terms, each of which is logged.

    loss: the loss itself, logged as "main_loss". classes: how many labels there are.
    """

    def __init__(self, loss: Loss, terms: TermSettings, classes: int, embedding_size: int) -> None:
        super().__init__()
        self.loss, self.terms = loss, terms
        self.center = (
            None if terms.center is None else CenterLoss(terms.center, classes, embedding_size)
        )

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Raw embeddings (n, d), labels int64 (n,) -> what the loss gives; "loss" is the sum.

        Besides: "main_loss", "center", "prelogits_norm", scalars () without gradient.
        """
        scalars: dict[str, Tensor] = self.loss(embeddings, labels)
        parts = {"main_loss": scalars["loss"]}
        with torch.autocast(embeddings.device.type, enabled=False):
            if self.center is not None:
                parts["center"] = self.center(embeddings, labels)
            if self.terms.prelogits_norm is not None:
                parts["prelogits_norm"] = prelogits_norm(embeddings, self.terms.prelogits_norm)
        total = torch.stack([*parts.values()]).sum()
        return scalars | {name: part.detach() for name, part in parts.items()} | {"loss": total}

    def expected_first_loss(self) -> float | None:
        """That of the loss itself: compare it with "main_loss"."""
        return self.loss.expected_first_loss()

    def first_loss_spread(self) -> float | None:
        """That of the loss itself."""
        return self.loss.first_loss_spread()
