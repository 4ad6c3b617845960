"""Center loss: embeddings are drawn to the centre of their class, beside another loss.

Source: Wen et al., 2016 ("A Discriminative Feature Learning Approach for Deep Face Recognition")
and facenet's src/facenet.py. Two rules:

facenet  mean over rows and dimensions of (x - c_y)^2; each row moves its centre by 1 - alfa of
         the way, rows of one class one upon the other
paper    mean over rows of |x - c_y|^2 / 2 (beside a softmax loss that is a mean as well, which
         keeps the paper's weight); a centre moves by (1 - alfa) sum(x - c_y) / (1 + rows of it)

Centres are buffers and begin at 0. No optimiser moves them: in facenet of 2017 only the optimiser
did, and since 2018 both did (issues 673 and 1114). The loss uses the centres from before the move.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facenet.train.choosing import chosen
from facenet.train.losses.bounds import in_range

USUAL = {"facenet": (0.01, 0.95), "paper": (0.003, 0.5)}
"""By rule: factor and alfa that its source uses."""


@dataclass(frozen=True, slots=True)
class CenterSettings:
    """rule: "facenet" or "paper". factor: the weight of the loss. alfa: how much centres stay.

    Centres move by 1 - alfa, 0 to 1. None: what the source of the rule uses, 0.01 and 0.95 for
    facenet, 0.003 and 0.5 for the paper. Raises SettingsError for values out of range.
    """

    rule: str = "facenet"
    factor: float | None = None
    alfa: float | None = None

    def __post_init__(self) -> None:
        factor, alfa = chosen("center.rule", self.rule, USUAL)
        in_range("center.factor", factor if self.factor is None else self.factor, 0)
        in_range("center.alfa", alfa if self.alfa is None else self.alfa, 0, 1)


def center_distances(embeddings: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """|x - c_y|^2 of raw embeddings (n, d), labels (n,), centres (c, d): (n,); 0 for label -1."""
    squared = (embeddings - centres[labels.clamp_min(0)]).square().sum(dim=1)
    return torch.where(labels >= 0, squared, 0)


def moves(embeddings: Tensor, labels: Tensor, centres: Tensor, *, rule: str) -> Tensor:
    """What each row (n, d) would add to its centre, of (c, d), if nothing of that stayed: (n, d).

    Zero for rows labelled -1.
    """
    known = (labels >= 0).to(centres.dtype)
    rows = labels.clamp_min(0)
    away = (embeddings - centres[rows]) * known[:, None]
    if rule == "facenet":
        return away
    counts = torch.zeros_like(centres[:, 0]).index_add_(0, rows, known)
    return away / (1 + counts[rows])[:, None]


class CenterLoss(nn.Module):
    """The term that center loss adds; buffer centres, float32 (classes, d)."""

    centres: Tensor

    def __init__(self, settings: CenterSettings, classes: int, embedding_size: int) -> None:
        super().__init__()
        factor, alfa = USUAL[settings.rule]
        self.rule = settings.rule
        self.factor = factor if settings.factor is None else settings.factor
        self.rate = 1 - (alfa if settings.alfa is None else settings.alfa)
        self.register_buffer("centres", torch.zeros(classes, embedding_size))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Raw embeddings (n, d), labels int64 (n,) -> the term (), over rows that have a label.

        In train mode the centres move afterwards.
        """
        squared = center_distances(embeddings.float(), labels, self.centres)
        mean = squared.sum() / (labels >= 0).sum().clamp_min(1)
        if self.training:
            with torch.no_grad():
                step = self.rate * moves(embeddings.float(), labels, self.centres, rule=self.rule)
                self.centres.index_add_(0, labels.clamp_min(0), step)
        share = 1 / embeddings.shape[1] if self.rule == "facenet" else 0.5
        return self.factor * share * mean
