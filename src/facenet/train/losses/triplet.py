"""Triplet losses: a face is to be nearer to its person than to others, by a margin.

Source: Schroff et al., 2015 (arXiv:1503.03832) and facenet's train_tripletloss.py with squared
Euclidean distances of unit vectors, |a - b|^2 = 2 - 2 cos; InsightFace's loss type 13 with angles.
Triplets are chosen within the batch (selection.py) from the very embeddings that are learned from.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

from facenet.errors import SettingsError
from facenet.train.choosing import chosen
from facenet.train.losses.bounds import in_range
from facenet.train.losses.loss import Loss, unit
from facenet.train.losses.numerics import arccos, lengths
from facenet.train.losses.selection import (
    SELECTIONS,
    Candidates,
    candidates,
    drawn,
    mean_of_all,
    violating,
)


@dataclass(frozen=True, slots=True)
class TripletSettings:
    """margin: of squared distances, 0 to 4. selection: which triplets of a batch are learned from.

    "all": every one that violates the margin. "hard": per face its farthest mated and nearest
    non-mated one. "semi_hard": per mated pair the nearest non-mated face beyond.
    "random_violating": facenet's, per mated pair one that violates the margin, drawn by `seed`.
    soft: softplus(d_ap - d_an) of plain distances, without margin, in place of
    max(0, d_ap - d_an + margin); None: for "hard" only; not for "all". Raises SettingsError for
    values out of range, and for a margin or seed that would not be used.
    """

    margin: float = 0.2
    selection: str = "random_violating"
    soft: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check("triplet", self, 4)


@dataclass(frozen=True, slots=True)
class AngularTripletSettings:
    """margin: of angles in radians, 0 to 3.14. The others as of TripletSettings, of angles."""

    margin: float = 0.5
    selection: str = "random_violating"
    soft: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check("angular_triplet", self, 3.14)


def _check(loss: str, settings: TripletSettings | AngularTripletSettings, most: float) -> None:
    in_range(f"{loss}.margin", settings.margin, 0, most)
    in_range(f"{loss}.seed", settings.seed, 0)
    chosen(f"{loss}.selection", settings.selection, SELECTIONS)
    if settings.soft and settings.selection == "all":
        raise SettingsError(
            f"{loss}.soft should be false with the selection all, which is a mean over triplets "
            f"that violate a margin; got true. Choose hard, or leave soft out."
        )
    if settings.seed and settings.selection != "random_violating":
        raise SettingsError(
            f"{loss}.seed is for the selection random_violating; got {settings.seed} with "
            f"{settings.selection}, which draws nothing. Leave it out."
        )
    unused = is_soft(settings) and settings.selection in ("hard", "semi_hard")
    if unused and settings.margin != type(settings)().margin:
        raise SettingsError(
            f"{loss}.margin is for max(0, d_ap - d_an + margin); got {settings.margin:g} with the "
            f"soft form, which has none. Give soft: false, or leave the margin out."
        )


def is_soft(settings: TripletSettings | AngularTripletSettings) -> bool:
    """Is it softplus(d_ap - d_an), not max(0, d_ap - d_an + margin)?"""
    return settings.selection == "hard" if settings.soft is None else settings.soft


class TripletLoss(Loss):
    """What both triplet losses share; `steps`, int64 (), counts calls in train mode.

    A batch without a triplet gives a loss of 0 with gradient 0, and "triplets" 0.
    """

    steps: Tensor

    def __init__(self, settings: TripletSettings | AngularTripletSettings) -> None:
        super().__init__()
        self.settings = settings
        self.soft = is_soft(settings)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def distances(self, cosines: Tensor) -> Tensor:
        """What triplets compare, of cosines of any shape: as large where the cosine is smaller."""

    @abstractmethod
    def plain(self, distances: Tensor) -> Tensor:
        """Distances as the soft form compares them."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Raw embeddings (n, d), labels int64 (n,) -> scalars ().

        "loss"; "triplets", of how many it is the mean; "violating", the share of all triplets of
        the batch that violate the margin; "positive_cosine", the mean of mated pairs; "norm".
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            raw = embeddings.float()
            vectors = unit(raw)
            cosine = vectors @ vectors.T
            distances = self.distances(cosine)
            batch = candidates(distances, labels)
            loss, triplets = self._mean(distances, batch)
            seen = _seen(cosine.detach(), batch, self.settings.margin)
            norm = lengths(raw.detach()).mean()
        if self.training:
            self.steps += 1
        return {"loss": loss, "triplets": triplets, **seen, "norm": norm}

    def _mean(self, distances: Tensor, batch: Candidates) -> tuple[Tensor, Tensor]:
        settings = self.settings
        select = SELECTIONS[settings.selection]
        if select is None:
            loss, number = mean_of_all(distances, batch, settings.margin)
            return loss, number.float()
        triplets = select(batch, settings.margin, partial(self._drawn, distances))
        positive = distances[triplets.anchor, triplets.positive]
        negative = distances[triplets.anchor, triplets.negative]
        if self.soft:
            terms = softplus(self.plain(positive) - self.plain(negative))
        else:
            terms = (positive - negative + settings.margin).clamp_min(0)
        number = torch.full_like(distances[0, 0], len(terms)).detach()
        return terms.sum() / max(1, len(terms)), number

    def _drawn(self, distances: Tensor) -> Tensor:
        return drawn(len(distances), self.settings.seed, int(self.steps)).to(distances.device)


class EuclideanTriplet(TripletLoss):
    """Triplets of squared Euclidean distances of unit vectors."""

    def __init__(self, settings: TripletSettings, classes: int, embedding_size: int) -> None:
        super().__init__(settings)

    def distances(self, cosines: Tensor) -> Tensor:
        """2 - 2 c."""
        return 2 - 2 * cosines

    def plain(self, distances: Tensor) -> Tensor:
        """The root, whose slope at 0 is 0."""
        return distances.clamp_min(1e-8).sqrt()


class AngularTriplet(TripletLoss):
    """Triplets of angles in radians."""

    def __init__(self, settings: AngularTripletSettings, classes: int, embedding_size: int) -> None:
        super().__init__(settings)

    def distances(self, cosines: Tensor) -> Tensor:
        """The angles."""
        return arccos(cosines)

    def plain(self, distances: Tensor) -> Tensor:
        """The angles as they are."""
        return distances


def _seen(cosines: Tensor, batch: Candidates, margin: float) -> dict[str, Tensor]:
    """The figures of the log that concern all pairs and triplets of the batch."""
    pairs = batch.same.sum().clamp_min(1)
    possible = (batch.same * batch.negatives[:, None]).sum().clamp_min(1)
    violate = torch.where(batch.same, violating(batch, margin), 0).sum()
    mated = torch.where(batch.same, cosines, 0).sum()
    return {"positive_cosine": mated / pairs, "violating": violate / possible}
