"""Losses of cosines with class centres: margins, then cross-entropy, and what is logged of it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from facenet.train.losses.firstloss import FirstLoss, Floats, first_loss
from facenet.train.losses.loss import ClassLoss, cosines
from facenet.train.losses.numerics import labelled_mean, lengths, row_losses, target_of


def figures(logits: Tensor, labels: Tensor, positive: Tensor, norms: Tensor) -> dict[str, Tensor]:
    """What every class loss logs, scalars () without gradient.

    logits: (n, c), with margins. positive: cosines (n,) with the right centre. norms: raw lengths
    (n,). violating: share of rows in which a wrong class has the highest logit. Rows labelled -1
    count for "norm" only.
    """
    logits = logits.detach()
    wrong = logits.amax(dim=1) > target_of(logits, labels)
    return {
        "positive_cosine": labelled_mean(positive.detach(), labels),
        "norm": norms.detach().mean(),
        "violating": labelled_mean(wrong.to(logits.dtype), labels),
    }


class MarginLoss(ClassLoss):
    """Cross-entropy over scaled cosines in which the right class is made harder.

    ramp_steps: the margin grows from none to its full size over so many training steps (calls in
    train mode), which `steps`, int64 (), counts; 0: it is there from the start.
    """

    steps: Tensor

    def __init__(self, classes: int, embedding_size: int, ramp_steps: int = 0) -> None:
        super().__init__(classes, embedding_size)
        self.ramp_steps = ramp_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,) and raw lengths (n,) -> logits (n, c) with the margin."""

    def observe(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> None:
        """See a batch of training before its logits are asked for; by default nothing changes."""

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Raw embeddings (n, d) float32 -> cosines (n, c) with the classes."""
        return cosines(embeddings, self.weight)

    def ramp(self) -> float | Tensor:
        """The part of the margin that is in force, 0 to 1."""
        if self.ramp_steps == 0:
            return 1.0
        return (self.steps.float() / self.ramp_steps).clamp(max=1.0)

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Raw embeddings (n, d), labels int64 (n,) -> "loss" and `figures`, scalars ()."""
        with torch.autocast(embeddings.device.type, enabled=False):
            raw = embeddings.float()
            norms, cosine = lengths(raw), self.cosines(raw)
            if self.training:
                with torch.no_grad():
                    self.observe(cosine, labels, norms)
            logits = self.logits(cosine, labels, norms)
            scalars = {"loss": row_losses(logits, labels).mean()}
            scalars |= figures(logits, labels, target_of(cosine, labels), norms)
        if self.training:
            self.steps += 1
        return scalars

    def first_loss(self, *, centres: int = 1) -> FirstLoss:
        """Mean and spread of the loss of random embeddings, with the margin now in force."""

        def logit(cosine: Floats, column: int) -> Floats:
            pair = self.weight.new_zeros(len(cosine), 2)
            pair[:, column] = torch.from_numpy(cosine)
            zeros = torch.zeros_like(pair[:, 0], dtype=torch.int64)
            with torch.no_grad():
                logits = self.logits(pair, zeros, self.usual_norms(pair))
            return np.asarray(logits[:, column].cpu(), np.float64)

        return first_loss(
            lambda cosine: logit(cosine, 0),
            lambda cosine: logit(cosine, 1),
            classes=self.classes,
            embedding_size=self.embedding_size,
            centres=centres,
        )

    def usual_norms(self, cosines: Tensor) -> Tensor:
        """Lengths (n,) that stand for those of a first batch."""
        return torch.ones_like(cosines[:, 0])

    def expected_first_loss(self) -> float | None:
        """Mean loss of random embeddings against random centres; exact for any class count."""
        return self.first_loss().mean

    def first_loss_spread(self) -> float | None:
        """Standard deviation of one row's first loss: divide by the root of the batch size."""
        return self.first_loss().spread
