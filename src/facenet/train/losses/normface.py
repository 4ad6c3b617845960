"""NormFace: softmax over scaled cosines, no margin (Wang et al., 2017, arXiv:1704.06369)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from facenet.train.losses.bounds import scale_and_ramp
from facenet.train.losses.marginloss import MarginLoss


@dataclass(frozen=True, slots=True)
class NormFaceSettings:
    """scale: what cosines are multiplied with.

    To reach the probability p for the right one of C classes it has to be about
    log((C - 1) p / (1 - p)) or more. Raises SettingsError unless it is above 0.
    """

    scale: float = 30.0

    def __post_init__(self) -> None:
        scale_and_ramp("normface", self.scale, 0)


class NormFace(MarginLoss):
    """Cross-entropy over s * c_j: the other cosine losses with a margin of nothing."""

    def __init__(self, settings: NormFaceSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size)
        self.settings = settings

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c) -> logits (n, c)."""
        return cosines * self.settings.scale
