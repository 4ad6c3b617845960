"""The combined margin of SphereFace, ArcFace and CosFace: cos(m1 theta + m2) - m3.

Source: Deng et al., 2019 (arXiv:1801.07698), section 2.4, and InsightFace's MXNet code. Its torch
code leaves m1 and m2 out when m3 is above 0; here all three count, always. m1 theta + m2 may pass
pi, where the cosine turns upward again; `monotony` says what then:

extended  (-1)^k cos(u) - 2k with k = floor(u / pi), SphereFace's way: falls on, without a step
clamp     cos(min(u, pi)): no exact gradient for rows that are very wrong
none      cos(u), as InsightFace: not monotonic
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
from facenet.train.losses.numerics import (
    GRADIENTS,
    arccos,
    target_of,
    through,
    unfolded,
    with_target,
)


def _clamped(angles: Tensor) -> Tensor:
    return angles.clamp(max=math.pi).cos()


MONOTONIES: dict[str, Callable[[Tensor], Tensor]] = {
    "extended": unfolded,
    "clamp": _clamped,
    "none": torch.cos,
}


@dataclass(frozen=True, slots=True)
class CombinedSettings:
    """scale: s. m1: what the right angle is multiplied with, 1 to 4. m2: added to it, radians.

    m3: taken from its cosine. monotony: "extended", "clamp" or "none". gradient: "exact" or
    "detached". ramp_steps: training steps over which all three grow from (1, 0, 0). Raises
    SettingsError for values out of range.
    """

    scale: float = 64.0
    m1: float = 1.0
    m2: float = 0.3
    m3: float = 0.2
    monotony: str = "extended"
    gradient: str = "exact"
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        scale_and_ramp("combined", self.scale, self.ramp_steps)
        in_range("combined.m1", self.m1, 1, 4)
        in_range("combined.m2 in radians", self.m2, 0, 1.57)
        in_range("combined.m3", self.m3, 0, 2)
        chosen("combined.monotony", self.monotony, MONOTONIES)
        chosen("combined.gradient", self.gradient, GRADIENTS)


def combined_logits(
    cosines: Tensor, labels: Tensor, settings: CombinedSettings, part: float | Tensor = 1.0
) -> Tensor:
    """Cosines (n, c), labels int64 (n,), the part of the margins in force () -> logits (n, c)."""
    cosine = target_of(cosines, labels)
    m1, m2, m3 = 1 + (settings.m1 - 1) * part, settings.m2 * part, settings.m3 * part
    value = MONOTONIES[settings.monotony](m1 * arccos(cosine) + m2) - m3
    target = through(value, cosine, settings.gradient)
    return with_target(settings.scale * cosines, labels, settings.scale * target)


class Combined(MarginLoss):
    """Cross-entropy over `combined_logits`."""

    def __init__(self, settings: CombinedSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size, settings.ramp_steps)
        self.settings = settings

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,) -> logits (n, c)."""
        return combined_logits(cosines, labels, self.settings, self.ramp())
