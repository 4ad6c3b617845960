"""ArcFace: the right angle plus a margin (Deng et al., 2019, arXiv:1801.07698).

cos(theta + m) turns upward again beyond theta = pi - m (151 degrees for m = 0.5), where a worse
embedding would be rewarded. What happens there is `monotony`:

hard   c - m sin(m) from there on, as the paper's MXNet code: falls on, with a small step down
easy   no margin at all where c <= 0
clamp  -1 from there on: no exact gradient for rows that are very wrong
none   cos(theta + m) everywhere, not monotonic

`gradient` "exact" is the derivative of the loss. "detached" leaves the margin out of the
derivative (see numerics.py). InsightFace since December 2022 is monotony none, gradient detached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from facenet.train.choosing import chosen
from facenet.train.losses.bounds import in_range, scale_and_ramp
from facenet.train.losses.marginloss import MarginLoss
from facenet.train.losses.numerics import GRADIENTS, sines, target_of, through, with_target

Margin = float | Tensor


def added(cosine: Tensor, margin: Margin) -> Tensor:
    """cos(theta + m) of the cosines (n,), without an arccos; margin in radians, () or (n,)."""
    angle = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    return cosine * angle.cos() - sines(cosine) * angle.sin()


def _before_turning(cosine: Tensor, margin: Margin) -> Tensor:
    turning = math.pi - torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    return cosine.detach() > turning.cos()


def hard(cosine: Tensor, margin: Margin) -> Tensor:
    """cos(theta + m) while theta + m < pi, then c - m sin(m); cosines (n,) -> (n,)."""
    angle = torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)
    beyond = cosine - angle * angle.sin()
    return torch.where(_before_turning(cosine, margin), added(cosine, margin), beyond)


def easy(cosine: Tensor, margin: Margin) -> Tensor:
    """cos(theta + m) where c > 0, else c; cosines (n,) -> (n,)."""
    return torch.where(cosine.detach() > 0, added(cosine, margin), cosine)


def clamp(cosine: Tensor, margin: Margin) -> Tensor:
    """cos(min(theta + m, pi)); cosines (n,) -> (n,)."""
    lowest = torch.full_like(cosine, -1)
    return torch.where(_before_turning(cosine, margin), added(cosine, margin), lowest)


MONOTONIES: dict[str, Callable[[Tensor, Margin], Tensor]] = {
    "hard": hard,
    "easy": easy,
    "none": added,
    "clamp": clamp,
}


@dataclass(frozen=True, slots=True)
class ArcFaceSettings:
    """scale: s, what cosines are multiplied with. margin: m in radians, 0 to 1.57.

    monotony: "hard", "easy", "none" or "clamp". gradient: "exact" or "detached". ramp_steps:
    training steps over which the margin grows from 0. Raises SettingsError for values out of
    range: 28.6 is what other libraries call 0.5, in degrees.
    """

    scale: float = 64.0
    margin: float = 0.5
    monotony: str = "hard"
    gradient: str = "exact"
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        scale_and_ramp("arcface", self.scale, self.ramp_steps)
        in_range("arcface.margin in radians", self.margin, 0, 1.57)
        chosen("arcface.monotony", self.monotony, MONOTONIES)
        chosen("arcface.gradient", self.gradient, GRADIENTS)


def arcface_logits(
    cosines: Tensor, labels: Tensor, settings: ArcFaceSettings, margin: Margin
) -> Tensor:
    """Cosines (n, c), labels int64 (n,), margin in radians () -> logits (n, c)."""
    cosine = target_of(cosines, labels)
    target = through(MONOTONIES[settings.monotony](cosine, margin), cosine, settings.gradient)
    return with_target(settings.scale * cosines, labels, settings.scale * target)


class ArcFace(MarginLoss):
    """Cross-entropy over `arcface_logits`."""

    def __init__(self, settings: ArcFaceSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size, settings.ramp_steps)
        self.settings = settings

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,) -> logits (n, c)."""
        margin = self.settings.margin * self.ramp()
        return arcface_logits(cosines, labels, self.settings, margin)
