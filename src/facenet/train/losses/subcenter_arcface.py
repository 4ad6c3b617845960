"""Sub-center ArcFace: several centres per class, the nearest counts (Deng et al., 2020, ECCV).

Source: "Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces" and
InsightFace's subcenter_arcface. Wrongly labelled pictures gather at the lesser centres, so the
trained centres tell which pictures to drop (`drop_list`) before training again with one centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facenet.train.choosing import chosen
from facenet.train.losses.arcface import MONOTONIES, ArcFaceSettings, arcface_logits
from facenet.train.losses.bounds import in_range, scale_and_ramp
from facenet.train.losses.firstloss import FirstLoss
from facenet.train.losses.loss import cosines, unit
from facenet.train.losses.marginloss import MarginLoss
from facenet.train.losses.numerics import GRADIENTS, arccos

ROWS = 4096
"""Rows that `drop_list` compares at once."""


@dataclass(frozen=True, slots=True)
class SubcenterArcFaceSettings:
    """centres: K per class, 1 to 16; 3 for large and noisy sets, 2 for small ones.

    scale, margin, monotony, gradient, ramp_steps: as of ArcFace. Raises SettingsError for values
    out of range.
    """

    centres: int = 3
    scale: float = 64.0
    margin: float = 0.5
    monotony: str = "hard"
    gradient: str = "exact"
    ramp_steps: int = 0

    def __post_init__(self) -> None:
        in_range("subcenter_arcface.centres", self.centres, 1, 16)
        scale_and_ramp("subcenter_arcface", self.scale, self.ramp_steps)
        in_range("subcenter_arcface.margin in radians", self.margin, 0, 1.57)
        chosen("subcenter_arcface.monotony", self.monotony, MONOTONIES)
        chosen("subcenter_arcface.gradient", self.gradient, GRADIENTS)

    def arcface(self) -> ArcFaceSettings:
        """What holds for the nearest centres."""
        return ArcFaceSettings(
            self.scale, self.margin, self.monotony, self.gradient, self.ramp_steps
        )


def nearest_cosines(embeddings: Tensor, weight: Tensor) -> Tensor:
    """Cosines (n, c) of raw embeddings (n, d) with the nearest of the centres (c, K, d)."""
    classes, centres, size = weight.shape
    every = cosines(embeddings, weight.reshape(classes * centres, size))
    return every.view(len(every), classes, centres).max(dim=2).values


class SubcenterArcFace(MarginLoss):
    """ArcFace over `nearest_cosines`; weight is float32 (classes, K, d)."""

    def __init__(
        self, settings: SubcenterArcFaceSettings, classes: int, embedding_size: int
    ) -> None:
        super().__init__(classes, embedding_size, settings.ramp_steps)
        self.settings = settings
        shape = (classes, settings.centres, embedding_size)
        self.weight = nn.Parameter(torch.empty(shape).normal_(std=0.01))

    def set_centres(self, centres: Tensor) -> None:
        """Begin with these centres (classes, d); the others of a class lie 6 degrees beside it.

        They differ, since centres in one place would never part. From torch's random numbers.
        """
        with torch.no_grad():
            length = self.weight.norm(dim=2).mean()
            noise = torch.nn.functional.normalize(torch.randn_like(self.weight), dim=2) * 0.1
            noise[:, 0] = 0
            self.weight.copy_((unit(centres)[:, None] + noise) * length)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Raw embeddings (n, d) float32 -> cosines (n, c) with the nearest centres."""
        return nearest_cosines(embeddings, self.weight)

    def logits(self, cosines: Tensor, labels: Tensor, norms: Tensor) -> Tensor:
        """Cosines (n, c), labels (n,) -> logits (n, c)."""
        margin = self.settings.margin * self.ramp()
        return arcface_logits(cosines, labels, self.settings.arcface(), margin)

    def first_loss(self, *, centres: int | None = None) -> FirstLoss:
        """As `MarginLoss.first_loss`, of the nearest of K centres."""
        return super().first_loss(centres=self.settings.centres if centres is None else centres)


@dataclass(frozen=True, slots=True, eq=False)
class Cleaning:
    """What the centres say about the labels.

    dominant: int64 (c,), per class the centre that is nearest to most of its pictures. angle:
    float32 (n,), degrees between a picture and the dominant centre of its class; no number for
    rows labelled -1. drop: bool (n,), the pictures to leave out.
    """

    dominant: Tensor
    angle: Tensor
    drop: Tensor


@torch.no_grad()
def drop_list(
    embeddings: Tensor, labels: Tensor, weight: Tensor, *, degrees: float = 75.0
) -> Cleaning:
    """Which pictures are probably labelled wrongly.

    embeddings: (n, d), raw or unit. labels: int64 (n,). weight: (c, K, d). degrees: a picture
    further from the dominant centre of its class is dropped. Of centres that are nearest to
    equally many pictures the first dominates; pictures of class -1 are never dropped.
    Raises SettingsError for degrees out of 0 to 180.
    """
    in_range("degrees", degrees, 0, 180)
    classes, centres, _ = weight.shape
    own = torch.cat(
        [
            _own_cosines(some, row_labels, weight)
            for some, row_labels in zip(
                torch.split(embeddings, ROWS), torch.split(labels, ROWS), strict=True
            )
        ]
    )
    known = labels >= 0
    place = labels * centres + own.argmax(dim=1)
    votes = torch.bincount(place[known], minlength=classes * centres).view(classes, centres)
    dominant = (votes == votes.amax(dim=1, keepdim=True)).int().argmax(dim=1)
    cosine = own.gather(1, dominant[labels.clamp_min(0)][:, None])[:, 0]
    angle = torch.where(known, torch.rad2deg(arccos(cosine)), torch.nan)
    return Cleaning(dominant, angle, known & (angle > degrees))


def _own_cosines(embeddings: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Cosines (n, K) of embeddings (n, d) with all centres of their class."""
    own = torch.nn.functional.normalize(weight[labels.clamp_min(0)].float(), dim=2)
    return (unit(embeddings)[:, None] * own).sum(dim=2)
