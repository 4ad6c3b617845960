"""MagFace: a margin that grows with the length of the embedding (Meng et al., 2021).

Source: arXiv:2103.06627 and its code. The angular margin rises in a line from margin_low to
margin_high as the length a goes from norm_low to norm_high, and a regulariser rewards long
embeddings; so the length comes to tell the quality of a picture. Margin and regulariser are
differentiated in a: without that it is another method.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from facenet.errors import SettingsError
from facenet.train.choosing import chosen
from facenet.train.losses.arcface import MONOTONIES
from facenet.train.losses.bounds import in_range, scale_and_ramp
from facenet.train.losses.marginloss import MarginLoss
from facenet.train.losses.numerics import labelled_mean, lengths, target_of, with_target


@dataclass(frozen=True, slots=True)
class MagFaceSettings:
    """scale: s. norm_low, norm_high: bounds of the length. margin_low, margin_high: radians there.

    regulariser: the weight of the regulariser, lambda_g. monotony: as of ArcFace; the paper's
    code uses "easy". ramp_steps: training steps over which the margin grows from 0. To go on from
    a network whose embeddings are short, its authors use norms 1 to 51, margins 0.45 to 1 and
    regulariser 5. Raises SettingsError for values out of range.
    """

    scale: float = 64.0
    norm_low: float = 10.0
    norm_high: float = 110.0
    margin_low: float = 0.45
    margin_high: float = 0.8
    regulariser: float = 35.0
    monotony: str = "easy"
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        scale_and_ramp("magface", self.scale, self.ramp_steps)
        in_range("magface.norm_low", self.norm_low, 1e-3)
        in_range("magface.margin_low in radians", self.margin_low, 0, 1.57)
        in_range("magface.margin_high in radians", self.margin_high, self.margin_low, 1.57)
        in_range("magface.regulariser", self.regulariser, 0)
        chosen("magface.monotony", self.monotony, MONOTONIES)
        if not self.norm_high > self.norm_low:
            raise SettingsError(
                f"magface.norm_high should be above norm_low, {self.norm_low:g}; got "
                f"{self.norm_high:g}. Correct one of them."
            )


def magface_margin(norms: Tensor, settings: MagFaceSettings) -> Tensor:
    """Margins in radians (n,) of lengths (n,), differentiable between the bounds."""
    share = (_bounded(norms, settings) - settings.norm_low) / (
        settings.norm_high - settings.norm_low
    )
    return settings.margin_low + (settings.margin_high - settings.margin_low) * share


def magface_regulariser(norms: Tensor, settings: MagFaceSettings) -> Tensor:
    """g = 1 / a + a / norm_high^2 of lengths (n,), a within the bounds: (n,)."""
    a = _bounded(norms, settings)
    return 1 / a + a / settings.norm_high**2


def _bounded(norms: Tensor, settings: MagFaceSettings) -> Tensor:
    return norms.clamp(settings.norm_low, settings.norm_high)


def magface_logits(
    cosines: Tensor, labels: Tensor, margin: Tensor, settings: MagFaceSettings
) -> Tensor:
    """Cosines (n, c), labels int64 (n,), margins in radians (n,) -> logits (n, c)."""
    target = MONOTONIES[settings.monotony](target_of(cosines, labels), margin)
    return with_target(settings.scale * cosines, labels, settings.scale * target)


class MagFace(MarginLoss):
    """Cross-entropy over `magface_logits` plus the regulariser, over rows that have a label."""

    def __init__(self, settings: MagFaceSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size, settings.ramp_steps)
        self.settings = settings

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,), lengths (n,) -> logits (n, c)."""
        margin = magface_margin(norms, self.settings) * self.ramp()
        return magface_logits(cosines, labels, margin, self.settings)

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """As `MarginLoss.forward`; "loss" holds "regulariser" as well."""
        scalars = super().forward(embeddings, labels)
        g = magface_regulariser(lengths(embeddings.float()), self.settings)
        penalty = self.settings.regulariser * labelled_mean(g, labels)
        scalars["loss"] = scalars["loss"] + penalty
        return scalars | {"regulariser": penalty.detach()}

    def expected_first_loss(self) -> float | None:
        """None: it depends on the length of the embeddings."""
        return None

    def first_loss_spread(self) -> float | None:
        """None, as the first loss."""
        return None
