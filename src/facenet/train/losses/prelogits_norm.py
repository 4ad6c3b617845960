"""facenet's penalty on the length of raw embeddings ("prelogits"), from its train_softmax.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facenet.train.losses.bounds import in_range

OFFSET = 1e-4


@dataclass(frozen=True, slots=True)
class PrelogitsNormSettings:
    """factor: its weight; facenet's recipe for CASIA-WebFace uses 5e-4. p: which norm, 1 and up.

    Raises SettingsError for values out of range.
    """

    factor: float = 5e-4
    p: float = 1.0

    def __post_init__(self) -> None:
        in_range("prelogits_norm.factor", self.factor, 0)
        in_range("prelogits_norm.p", self.p, 1)


def prelogits_norm(embeddings: Tensor, settings: PrelogitsNormSettings) -> Tensor:
    """factor times the mean p-norm of |x| + 1e-4 of raw embeddings (n, d): ()."""
    shifted = embeddings.float().abs() + OFFSET
    norms: Tensor = torch.linalg.vector_norm(shifted, settings.p, dim=1)
    return settings.factor * norms.mean()
