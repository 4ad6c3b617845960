"""SphereFace-R: SphereFace with any margin, a fixed scale and three shapes (Liu et al., 2021).

Source: arXiv:2109.05565 and its code, OpenSphere. v0: psi(theta_y) of m theta, falling beyond pi
too; v1: cos(min(m theta_y, pi)); v2: the right cosine stays, the others become cos(theta_j / m).
The paper detaches the gradient, see numerics.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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

VERSIONS = {
    "v0": unfolded,
    "v1": lambda angles: angles.clamp(max=math.pi).cos(),
    "v2": None,
}


@dataclass(frozen=True, slots=True)
class SphereFaceRSettings:
    """version: "v0", "v1" or "v2". margin: m, 1 to 8; gradient: "exact" or "detached".

    scale: s. OpenSphere uses s 30, m 1.5 with its SFNet and s 64, m 1.7 with iResNet-100.
    ramp_steps: training steps over which m grows from 1. Raises SettingsError for values out of
    range.
    """

    scale: float = 30.0
    margin: float = 1.5
    version: str = "v1"
    gradient: str = "detached"
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        scale_and_ramp("sphereface_r", self.scale, self.ramp_steps)
        in_range("sphereface_r.margin", self.margin, 1, 8)
        chosen("sphereface_r.version", self.version, VERSIONS)
        chosen("sphereface_r.gradient", self.gradient, GRADIENTS)


def sphereface_r_logits(
    cosines: Tensor, labels: Tensor, settings: SphereFaceRSettings, margin: float | Tensor
) -> Tensor:
    """Cosines (n, c), labels int64 (n,), margin m () -> logits (n, c)."""
    scale, shape = settings.scale, VERSIONS[settings.version]
    cosine = target_of(cosines, labels)
    if shape is None:
        others = through((arccos(cosines) / margin).cos(), cosines, settings.gradient)
        return with_target(scale * others, labels, scale * cosine)
    target = through(shape(margin * arccos(cosine)), cosine, settings.gradient)
    return with_target(scale * cosines, labels, scale * target)


class SphereFaceR(MarginLoss):
    """Cross-entropy over `sphereface_r_logits`."""

    def __init__(self, settings: SphereFaceRSettings, classes: int, embedding_size: int) -> None:
        super().__init__(classes, embedding_size, settings.ramp_steps)
        self.settings = settings

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,) -> logits (n, c)."""
        margin = 1 + (self.settings.margin - 1) * self.ramp()
        return sphereface_r_logits(cosines, labels, self.settings, margin)
