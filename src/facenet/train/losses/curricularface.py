"""CurricularFace: hard negatives weigh more as training goes on (Huang et al., 2020).

Source: arXiv:2004.00288 and its code. The right logit is ArcFace's ("hard"). A wrong class whose
cosine is above cos(theta_y + m) gets s c_j (t + c_j), where t, a buffer, follows the mean cosine
of the right classes: near 0 at first, when hard negatives count less, and above them later on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facenet.train.losses.arcface import Margin, added, hard
from facenet.train.losses.bounds import in_range, scale_and_ramp
from facenet.train.losses.marginloss import MarginLoss
from facenet.train.losses.numerics import target_of, with_target


@dataclass(frozen=True, slots=True)
class CurricularFaceSettings:
    """scale: s. margin: m in radians, 0 to 1.57. alpha: weight of a batch in t, 0 to 1.

    The authors use alpha 0.01, TFace 0.1. ramp_steps: training steps over which the margin grows
    from 0. Raises SettingsError for values out of range.
    """

    scale: float = 64.0
    margin: float = 0.5
    alpha: float = 0.01
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        scale_and_ramp("curricularface", self.scale, self.ramp_steps)
        in_range("curricularface.margin in radians", self.margin, 0, 1.57)
        in_range("curricularface.alpha", self.alpha, 0, 1)


def curricularface_logits(
    cosines: Tensor, labels: Tensor, t: float | Tensor, *, scale: float, margin: Margin
) -> Tensor:
    """Cosines (n, c), labels int64 (n,), t () -> logits (n, c).

    In a row labelled -1 there is nothing that a negative could be harder than: it keeps s c_j.
    """
    cosine = target_of(cosines, labels)
    bound = added(cosine.detach(), margin)[:, None]
    harder = (cosines.detach() > bound) & (labels >= 0)[:, None]
    others = torch.where(harder, cosines * (t + cosines), cosines)
    return with_target(scale * others, labels, scale * hard(cosine, margin))


class CurricularFace(MarginLoss):
    """Cross-entropy over `curricularface_logits`; buffer t, float32 ()."""

    t: Tensor

    def __init__(self, settings: CurricularFaceSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size, settings.ramp_steps)
        self.settings = settings
        self.register_buffer("t", torch.zeros(()))

    def observe(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> None:
        """Move t towards the mean cosine of the right classes, if a row has one."""
        known = labels >= 0
        mean = torch.where(known, target_of(cosines, labels), 0).sum() / known.sum().clamp_min(1)
        self.t.lerp_(torch.where(known.any(), mean, self.t), self.settings.alpha)

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,) -> logits (n, c)."""
        margin = self.settings.margin * self.ramp()
        return curricularface_logits(
            cosines, labels, self.t, scale=self.settings.scale, margin=margin
        )

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """As `MarginLoss.forward`, with "t"."""
        scalars = super().forward(embeddings, labels)
        return scalars | {"t": self.t.clone()}
