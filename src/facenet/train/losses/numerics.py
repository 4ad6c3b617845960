"""Arithmetic that the class losses share: safe at the ends, and on one column per row.

Source: training-evaluation notes 1.1. arccos and sqrt(1 - c^2) have infinite slopes at c = -1
and 1, so both are bounded there; margins touch one value per row, never a one-hot (n, c) matrix;
the loss is logsumexp(z) - z_y, never the logarithm of a clamped probability (which hides wrong
labels behind a constant 69.08). The detached gradient is SphereFace-R's characteristic gradient
detachment (Liu et al., 2021, arXiv:2109.05565), which InsightFace's ArcFace uses since 2022.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from facenet.train.losses.loss import EPSILON

GRADIENTS = {"exact": False, "detached": True}
"""How a margin is differentiated, by name: is the margin left out of the gradient?"""


def lengths(embeddings: Tensor) -> Tensor:
    """Lengths of embeddings (n, d): (n,), with a gradient that is zero at the zero vector."""
    return embeddings.square().sum(dim=1).clamp_min(EPSILON).sqrt()


def arccos(cosines: Tensor) -> Tensor:
    """Angles in radians, of the same shape; slopes stay below 1000, and are 0 beyond 1 - 1e-6."""
    return cosines.clamp(-1 + 1e-6, 1 - 1e-6).arccos()


def sines(cosines: Tensor) -> Tensor:
    """Sines of the angles, of the same shape, 1e-6 at least."""
    return (1 - cosines.square()).clamp_min(1e-12).sqrt()


def unfolded(angles: Tensor) -> Tensor:
    """(-1)^k cos(u) - 2k with k = floor(u / pi): the cosine of angles u, falling beyond pi too.

    angles: any shape, radians, 0 and up. SphereFace's psi is this of m * theta.
    """
    k = (angles.detach() / math.pi).floor()
    return (1 - 2 * torch.remainder(k, 2)) * angles.cos() - 2 * k


def target_of(values: Tensor, labels: Tensor) -> Tensor:
    """Value (n,) of each row of (n, c) in the column of its label; column 0 where it is -1."""
    return values[torch.arange(len(labels), device=labels.device), labels.clamp_min(0)]


def with_target(logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """The logits (n, c), changed in place: target (n,) stands in the columns of the labels.

    Rows whose label is -1 stay as they are.
    """
    value = torch.where(labels >= 0, target, target_of(logits, labels))
    return logits.scatter_(1, labels.clamp_min(0)[:, None], value[:, None])


def through(value: Tensor, cosines: Tensor, gradient: str) -> Tensor:
    """The value; when the gradient is "detached", differentiated as if it were the cosines."""
    return cosines + (value - cosines).detach() if GRADIENTS[gradient] else value


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row: logits (n, c), labels int64 (n,) -> (n,).

    logsumexp(z) - z_y, with the largest z taken off first. A row labelled -1 is of none of the
    classes: its right answer is a class that is not there, whose logit is 0, and its loss is
    log(1 + sum of exp(z)).
    """
    known = functional.cross_entropy(logits, labels.clamp_min(0), reduction="none")
    nobody = functional.softplus(known + target_of(logits, labels))
    return torch.where(labels >= 0, known, nobody)


def labelled_mean(values: Tensor, labels: Tensor) -> Tensor:
    """Mean () of the values (n,) of rows that have a label; 0 when there is none."""
    known = labels >= 0
    return torch.where(known, values, 0).sum() / known.sum().clamp_min(1)
