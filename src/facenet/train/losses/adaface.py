"""AdaFace: a margin that depends on how good the picture is (Kim et al., 2022, arXiv:2204.00964).

The raw length of an embedding stands for the quality of its picture. With k from -1 (short: poor)
to 1 (long: good) the right logit is s (cos(theta - m k) - m - m k): at 0 that of CosFace, at -1
that of ArcFace. Lengths are compared with a running mean and deviation, which are buffers, and
carry no gradient. They begin at 20 and 100, so that training begins as CosFace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from facenet.train.losses.bounds import in_range, scale_and_ramp
from facenet.train.losses.marginloss import MarginLoss
from facenet.train.losses.numerics import arccos, target_of, with_target

SMALLEST_ANGLE = 1e-3


@dataclass(frozen=True, slots=True)
class AdaFaceSettings:
    """scale: s. margin: m, 0 to 1. spread: h, how far k goes with one deviation of the length.

    alpha: weight of a batch in the running mean and deviation, 0 to 1; 1: no memory. ramp_steps:
    training steps over which the margin grows from 0. Raises SettingsError for values out of
    range.
    """

    scale: float = 64.0
    margin: float = 0.4
    spread: float = 0.333
    alpha: float = 0.01
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        scale_and_ramp("adaface", self.scale, self.ramp_steps)
        in_range("adaface.margin", self.margin, 0, 1)
        in_range("adaface.spread", self.spread, 0)
        in_range("adaface.alpha", self.alpha, 0, 1)


def quality(norms: Tensor, mean: Tensor, deviation: Tensor, spread: float) -> Tensor:
    """k, from -1 to 1, of lengths (n,), without gradient: (n,)."""
    lengths = norms.detach().clamp(1e-3, 100)
    return (spread * (lengths - mean) / (deviation + 1e-3)).clamp(-1, 1)


def adaface_logits(
    cosines: Tensor, labels: Tensor, k: Tensor, *, scale: float, margin: float | Tensor
) -> Tensor:
    """Cosines (n, c), labels int64 (n,), quality k (n,) -> logits (n, c)."""
    angle = arccos(target_of(cosines, labels)) - margin * k
    angle = angle.clamp(SMALLEST_ANGLE, math.pi - SMALLEST_ANGLE)
    target = scale * (angle.cos() - (margin + margin * k))
    return with_target(scale * cosines, labels, target)


class AdaFace(MarginLoss):
    """Cross-entropy over `adaface_logits`; buffers mean and deviation, float32 ()."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: AdaFaceSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size, settings.ramp_steps)
        self.settings = settings
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("deviation", torch.tensor(100.0))

    def observe(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> None:
        """Move the running mean and deviation of the lengths (n,) towards this batch."""
        lengths = norms.clamp(1e-3, 100)
        self.mean.lerp_(lengths.mean(), self.settings.alpha)
        deviation = lengths.std(correction=1 if len(lengths) > 1 else 0)
        self.deviation.lerp_(deviation, self.settings.alpha)

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,), lengths (n,) -> logits (n, c)."""
        margin = self.settings.margin * self.ramp()
        k = quality(norms, self.mean, self.deviation, self.settings.spread)
        return adaface_logits(cosines, labels, k, scale=self.settings.scale, margin=margin)

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """As `MarginLoss.forward`, with the running "norm_mean" and "norm_deviation"."""
        scalars = super().forward(embeddings, labels)
        running = {"norm_mean": self.mean, "norm_deviation": self.deviation}
        return scalars | {name: value.clone() for name, value in running.items()}

    def usual_norms(self, cosines: Tensor) -> Tensor:
        """Lengths (n,) at the running mean, where k is 0."""
        return self.mean.expand(len(cosines))
