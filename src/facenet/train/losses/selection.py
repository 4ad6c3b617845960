"""Which triplets of a batch are learned from; nothing here is larger than (n, n).

Source: Schroff et al., 2015 (FaceNet: semi-hard), Hermans et al., 2017 (arXiv:1703.07737: all and
hard), facenet's src/train_tripletloss.py (random violating, after VGG Face). Negatives of each
anchor are sorted by distance, so that those that violate a margin are the first k of a row:
counting, drawing and summing them needs no list of all triplets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Draw = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a batch offers: distances without gradient, float (n, n), of any kind.

    same: bool (n, n), two different rows of one person. sorted_negatives: each anchor's distances
    to other people, rising, then infinity. order: int64 (n, n), the rows that these are of.
    negatives: int64 (n,), how many. A row labelled -1 is a negative of all, and no anchor.
    """

    distances: Tensor
    same: Tensor
    sorted_negatives: Tensor
    order: Tensor
    negatives: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Triplets:
    """Rows of the chosen triplets: int64 (t,) each."""

    anchor: Tensor
    positive: Tensor
    negative: Tensor


def candidates(distances: Tensor, labels: Tensor) -> Candidates:
    """Distances (n, n) and labels int64 (n,) -> what can be chosen from."""
    distances = distances.detach()
    alike = labels[:, None] == labels[None]
    known = (labels >= 0)[:, None]
    same = alike & known & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    other = ~alike & known
    far, order = torch.where(other, distances, torch.inf).sort(dim=1, stable=True)
    return Candidates(distances, same, far, order, other.sum(dim=1))


def hard(batch: Candidates, margin: float, draw: Draw) -> Triplets:
    """Per anchor its farthest positive and its nearest negative."""
    positive = torch.where(batch.same, batch.distances, -torch.inf).argmax(dim=1)
    anchor = torch.nonzero(batch.same.any(dim=1) & (batch.negatives > 0))[:, 0]
    return Triplets(anchor, positive[anchor], batch.order[anchor, 0])


def semi_hard(batch: Candidates, margin: float, draw: Draw) -> Triplets:
    """Per anchor and positive the nearest negative beyond the positive.

    If none is beyond it, the farthest negative.
    """
    anchor, positive = torch.nonzero(batch.same & (batch.negatives > 0)[:, None]).unbind(1)
    place = torch.searchsorted(batch.sorted_negatives, batch.distances, right=True)
    place = torch.minimum(place, (batch.negatives - 1).clamp_min(0)[:, None])[anchor, positive]
    return Triplets(anchor, positive, batch.order[anchor, place])


def random_violating(batch: Candidates, margin: float, draw: Draw) -> Triplets:
    """Per anchor and later positive a negative nearer than the positive plus the margin.

    draw: gives float64 (n, n), 0 to below 1, which decides: each is as likely as the others.
    Without such a negative there is no triplet.
    """
    count = violating(batch, margin)
    anchor, positive = torch.nonzero(batch.same.triu(1) & (count > 0)).unbind(1)
    number = count[anchor, positive]
    place = torch.minimum((draw()[anchor, positive] * number).long(), number - 1)
    return Triplets(anchor, positive, batch.order[anchor, place])


def violating(batch: Candidates, margin: float) -> Tensor:
    """Per anchor and other row, the negatives nearer than it plus the margin: int64 (n, n)."""
    return torch.searchsorted(batch.sorted_negatives, batch.distances + margin)


def mean_of_all(distances: Tensor, batch: Candidates, margin: float) -> tuple[Tensor, Tensor]:
    """Mean of d_ap - d_an + margin over all triplets in which it is above 0, and their number.

    distances: (n, n), those of the batch, with gradient. Sums of each anchor's sorted negatives
    in float64 take the place of the list of triplets.
    """
    sums = distances.gather(1, batch.order).double()
    sums = torch.where(batch.sorted_negatives < torch.inf, sums, 0).cumsum(dim=1)
    sums = torch.nn.functional.pad(sums, (1, 0))
    count = torch.where(batch.same, violating(batch, margin), 0)
    terms = count * (distances.double() + margin) - sums.gather(1, count)
    number = count.sum()
    total = torch.where(batch.same, terms, 0).sum()
    return (total / number.clamp_min(1)).to(distances.dtype), number


def drawn(rows: int, seed: int, step: int) -> Tensor:
    """Random numbers float64 (rows, rows), 0 to below 1: a function of seed and step alone."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]))
    return torch.rand(rows, rows, dtype=torch.float64, generator=generator)


Selection = Callable[[Candidates, float, Draw], Triplets]
SELECTIONS: dict[str, Selection | None] = {
    "all": None,
    "hard": hard,
    "semi_hard": semi_hard,
    "random_violating": random_violating,
}
"""By name; None: `mean_of_all`, which lists no triplets."""
