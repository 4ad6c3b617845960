"""What the first batch should cost: random embeddings against random class centres.

Notes 1.11 give log C + s * margin + s^2 / (2 d), which holds for many classes. Here it is exact
for any number: the cosine of two random directions in d dimensions has the density
(1 - c^2)^((d - 3) / 2), and for the sum S of independent exp(z_j), P(log S + Gumbel <= u) is
the product of E[exp(-exp(z_j - u))], a distribution whose mean and variance are those of log S
plus those of Gumbel's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class FirstLoss:
    """The loss of one row of a first batch: its mean, and its standard deviation over rows."""

    mean: float
    spread: float


def first_loss(
    target: Callable[[Floats], Floats],
    other: Callable[[Floats], Floats],
    *,
    classes: int,
    embedding_size: int,
    centres: int = 1,
) -> FirstLoss:
    """The first loss of cross-entropy over cosines.

    target, other: cosines float64 (k,) -> logits (k,) of the right class and of a wrong one.
    centres: per class, the nearest counts.
    """
    cosine, weight = random_cosines(embedding_size, centres)
    right, wrong = target(cosine), other(cosine)
    logits = np.concatenate([right, wrong])
    u = np.arange(logits.min() - 6, logits.max() + math.log(classes) + 40, 0.2)
    below = _below(wrong, weight, u) * (classes - 1) + _below(right, weight, u)
    rise = np.diff(np.exp(below))
    middle = (u[1:] + u[:-1]) / 2
    mean = float(rise @ middle)
    variance = float(rise @ (middle - mean) ** 2) - math.pi**2 / 6
    right_mean = float(weight @ right)
    right_variance = float(weight @ (right - right_mean) ** 2)
    return FirstLoss(mean - EULER - right_mean, math.sqrt(max(variance, 0.0) + right_variance))


def random_cosines(embedding_size: int, centres: int = 1) -> tuple[Floats, Floats]:
    """Cosines float64 (k,), rising, and their probabilities, of random directions.

    centres: how many random directions the vector is compared with; the largest cosine counts.
    """
    angle = (np.arange(4096)[::-1] + 0.5) / 4096 * np.pi
    logarithm = (embedding_size - 2) * np.log(np.sin(angle))
    weight = np.exp(logarithm - logarithm.max())
    kept = weight > 1e-20
    cumulated = np.cumsum(weight[kept]) / weight[kept].sum()
    return np.cos(angle[kept]), np.diff(cumulated**centres, prepend=0.0)


def _below(logits: Floats, weight: Floats, u: Floats) -> Floats:
    """log E[exp(-exp(z - u))] for each u (m,) of logits z (k,) with their weights (k,)."""
    missing = np.concatenate(
        [
            -np.expm1(-np.exp(logits[None] - part[:, None])) @ weight
            for part in np.array_split(u, max(1, len(u) // 256))
        ]
    )
    below: Floats = np.log1p(-np.minimum(missing, 1 - 1e-15))
    return below
