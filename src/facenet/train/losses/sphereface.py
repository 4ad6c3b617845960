"""SphereFace, or A-softmax, annealed (Liu et al., 2017, arXiv:1704.08063).

Source of the schedule: InsightFace 2018 (loss type 1) and face.evoLVe. The right logit is
a (lambda c_y + psi(theta_y)) / (1 + lambda), the others a c_j, with a = |x|, not a fixed scale;
psi = (-1)^k cos(m theta) - 2k, k = floor(m theta / pi). For a whole m, cos(m theta) is the
Chebyshev polynomial T_m(c), so no arccos is needed. lambda_t = max(minimum,
start (1 + gamma t)^-power) makes it plain softmax at first; t, the training steps, is a buffer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from facenet.train.losses.bounds import in_range
from facenet.train.losses.marginloss import MarginLoss
from facenet.train.losses.numerics import target_of, with_target

MANY_CLASSES = 20_000
"""From more classes than these on, InsightFace anneals later and more slowly."""


@dataclass(frozen=True, slots=True)
class SphereFaceSettings:
    """margin: m, a whole number, 1 to 8.

    start, gamma, power, minimum: of lambda, see above. hold_steps: training steps before t begins
    to count. None for gamma and hold_steps: 0.12 and 0, or, for more than 20,000 classes, 0.06
    and 5000, as InsightFace. Raises SettingsError for values out of range.
    """

    margin: int = 4
    start: float = 1000.0
    gamma: float | None = None
    power: float = 1.0
    minimum: float = 5.0
    hold_steps: int | None = None

    def __post_init__(self) -> None:
        in_range("sphereface.margin", self.margin, 1, 8)
        for name in ("start", "power", "minimum"):
            in_range(f"sphereface.{name}", getattr(self, name), 0)
        for name in ("gamma", "hold_steps"):
            if getattr(self, name) is not None:
                in_range(f"sphereface.{name}", getattr(self, name), 0)


def chebyshev(cosine: Tensor, order: int) -> Tensor:
    """cos(m theta) of cosines of any shape, as a polynomial; order: m, 0 and up."""
    before, value = cosine, torch.ones_like(cosine)
    for _ in range(order):
        before, value = value, 2 * cosine * value - before
    return value


def psi(cosine: Tensor, order: int) -> Tensor:
    """(-1)^k cos(m theta) - 2k, falling from 1 to 1 - 2m over all angles; any shape."""
    folds = torch.zeros_like(cosine)
    for j in range(1, order):
        folds += cosine.detach() < math.cos(j * math.pi / order)
    return (1 - 2 * torch.remainder(folds, 2)) * chebyshev(cosine, order) - 2 * folds


def sphereface_logits(
    cosines: Tensor, labels: Tensor, norms: Tensor, *, margin: int, annealing: float | Tensor
) -> Tensor:
    """Cosines (n, c), labels int64 (n,), lengths (n,), annealing: lambda () -> logits (n, c)."""
    cosine = target_of(cosines, labels)
    target = norms * (annealing * cosine + psi(cosine, margin)) / (1 + annealing)
    return with_target(norms[:, None] * cosines, labels, target)


class SphereFace(MarginLoss):
    """Cross-entropy over `sphereface_logits`; `steps` is its t."""

    def __init__(self, settings: SphereFaceSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size)
        many = classes > MANY_CLASSES
        self.settings = settings
        self.gamma = (0.06 if many else 0.12) if settings.gamma is None else settings.gamma
        hold = settings.hold_steps
        self.hold_steps = (5000 if many else 0) if hold is None else hold

    def annealing(self) -> Tensor:
        """The lambda now in force, float32 ()."""
        counted = (self.steps - self.hold_steps).clamp_min(0).float()
        factor = (1 + self.gamma * counted) ** -self.settings.power
        return (self.settings.start * factor).clamp_min(self.settings.minimum)

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,), lengths (n,) -> logits (n, c)."""
        margin, annealing = self.settings.margin, self.annealing()
        return sphereface_logits(cosines, labels, norms, margin=margin, annealing=annealing)

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """As `MarginLoss.forward`, with "lambda"."""
        annealing = self.annealing()
        return super().forward(embeddings, labels) | {"lambda": annealing}

    def expected_first_loss(self) -> float | None:
        """None: it depends on the length of the embeddings."""
        return None

    def first_loss_spread(self) -> float | None:
        """None, as the first loss."""
        return None
