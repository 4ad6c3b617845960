"""CosFace, or AM-softmax: the right cosine less a margin (Wang et al., 2018, arXiv:1801.09414).

Its gradient is that of the plain cosine, without any singular point: safest in half precision.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from facenet.train.losses.bounds import in_range, scale_and_ramp
from facenet.train.losses.marginloss import MarginLoss
from facenet.train.losses.numerics import target_of, with_target


@dataclass(frozen=True, slots=True)
class CosFaceSettings:
    """scale: s, what cosines are multiplied with. margin: m, taken from the right cosine, 0 to 2.

    The paper and InsightFace 2018 use 0.35, InsightFace today 0.4. ramp_steps: training steps
    over which the margin grows from 0. Raises SettingsError for values out of range.
    """

    scale: float = 64.0
    margin: float = 0.4
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        scale_and_ramp("cosface", self.scale, self.ramp_steps)
        in_range("cosface.margin", self.margin, 0, 2)


def cosface_logits(
    cosines: Tensor, labels: Tensor, *, scale: float, margin: float | Tensor
) -> Tensor:
    """Cosines (n, c), labels int64 (n,) -> logits (n, c): s (c_y - m), others s c_j."""
    target = scale * (target_of(cosines, labels) - margin)
    return with_target(scale * cosines, labels, target)


class CosFace(MarginLoss):
    """Cross-entropy over `cosface_logits`."""

    def __init__(self, settings: CosFaceSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size, settings.ramp_steps)
        self.settings = settings

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,) -> logits (n, c)."""
        margin = self.settings.margin * self.ramp()
        return cosface_logits(cosines, labels, scale=self.settings.scale, margin=margin)
