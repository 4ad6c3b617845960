"""Plain softmax, as facenet's train_softmax: a linear layer with bias over raw embeddings.

Source: facenet (davidsandberg), src/train_softmax.py; InsightFace's loss type 0. Its further
penalties are in terms.py, its weight decay is the optimiser's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facenet.train.losses.loss import ClassLoss, unit
from facenet.train.losses.marginloss import figures
from facenet.train.losses.numerics import lengths, row_losses


@dataclass(frozen=True, slots=True)
class SoftmaxSettings:
    """bias: does each class have a number that is added to its logit, as in facenet?"""

    bias: bool = True


class Softmax(ClassLoss):
    """Cross-entropy over <x, w_j> + b_j of raw embeddings."""

    def __init__(self, settings: SoftmaxSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size)
        self.bias = nn.Parameter(torch.zeros(classes)) if settings.bias else None

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Raw embeddings (n, d), labels int64 (n,) -> "loss" and `figures`, scalars ()."""
        with torch.autocast(embeddings.device.type, enabled=False):
            raw = embeddings.float()
            logits = nn.functional.linear(raw, self.weight, self.bias)
            scalars = {"loss": row_losses(logits, labels).mean()}
            with torch.no_grad():
                own = self.weight[labels.clamp_min(0)]
                positive = (unit(raw) * unit(own)).sum(dim=1)
                return scalars | figures(logits, labels, positive, lengths(raw))

    def expected_first_loss(self) -> float | None:
        """log C: the first weights are so small that all classes are about as likely."""
        return math.log(self.classes)
