"""What a similarity is worth as evidence, and how honest that is.

A log-likelihood ratio (LLR, natural logarithm) is fitted by prior-weighted logistic regression
and judged by Cllr, the cost over all priors, as Brümmer and du Preez ("Application-independent
evaluation of speaker detection", 2006) and their BOSARIS toolkit do. Fit on some people and judge
on others: `heldout.split_people` parts them. A pair without a score (a face was not found) is
minus infinity; it tells nothing of the two people and is left out, and counted.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError, SettingsError
from facenet.models.calibration import Logistic, logit, require_prior, sigmoid
from facenet.types import IntArray

PRIOR = 0.01
"""Share of mated pairs that a fit is weighted for: where thresholds of low FMR lie."""
RIDGE = 1e-8
"""Weight of slope² in the fit, the slope per deviation of the scores."""
NEWTON_STEPS = 200
SHORTEST = 1e-12
ROUNDING = 1e-12
"""Deviation of scores that are all equal, as a share of them."""
CONVERGED = 1e-18
"""Gain that a step promises below which there is none."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationLoss:
    """cllr: cost in bits of the LLRs as they are; min_cllr: of the best order-preserving LLRs;
    loss: the difference, which calibration could save. mated, non_mated: pairs that were judged.
    excluded: pairs without a score, which were not.
    """

    cllr: float
    min_cllr: float
    loss: float
    mated: int
    non_mated: int
    excluded: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def fit_logistic(
    mated: NDArray[np.floating],
    non_mated: NDArray[np.floating],
    prior: float = PRIOR,
    *,
    counts: IntArray | None = None,
) -> Logistic:
    """Fit LLR = slope * similarity + offset.

    mated, non_mated: (n,), (m,) similarities. counts: (m,), how often each of `non_mated` was
    seen, for the bins of a histogram; None: once. Minimises, with L = logit prior,

        prior / n * sum softplus(-LLR - L) + (1 - prior) / m * sum softplus(LLR + L)
        + RIDGE / 2 * (slope * deviation)^2

    by Newton's method in float64. `deviation` is that of the scores weighted as above. The ridge
    of 1e-8 is there for scores that a threshold parts without an error: without it their slope
    would grow for ever; with it the slope is large and finite. On other scores it does not show.
    Pairs of minus infinity are left out and counted. Raises DataError for NaN, plus infinity, or
    no score of one kind, SettingsError for a prior that is not between 0 and 1.
    """
    require_prior(prior)
    one, two = np.asarray(mated, np.float64), np.asarray(non_mated, np.float64)
    often = np.ones(len(two)) if counts is None else np.asarray(counts, np.float64)
    good_one, good_two = _scored("mated", one), _scored("non-mated", two) & (often > 0)
    if not (good_one.any() and good_two.any()):
        raise DataError(
            "A calibration needs scores of mated and of non-mated pairs; got "
            f"{int(good_one.sum()):,} and {int(good_two.sum()):,}. Add pictures of the missing "
            "kind, or look why no face was found."
        )
    weights = often[good_two] / often[good_two].sum()
    scores = np.concatenate([one[good_one], two[good_two]])
    share = np.full(int(good_one.sum()), prior / good_one.sum())
    weight = np.concatenate([share, (1 - prior) * weights])
    sign = np.repeat([1.0, -1.0], [len(share), len(weights)])
    slope, offset = _newton(scores, sign, weight)
    missing = np.sum(~good_one) + often[np.isneginf(two)].sum()
    return Logistic(slope, offset - logit(prior), prior, int(missing))


def _newton(scores: Floats, sign: Floats, weight: Floats) -> tuple[float, float]:
    """Slope and offset of the logit that minimise sum weight * softplus(-sign * logit) + ridge."""
    mean = float(weight @ scores)
    deviation = math.sqrt(float(weight @ (scores - mean) ** 2))
    if deviation <= ROUNDING * max(1.0, abs(mean)):
        deviation = 1.0  # one score for all: what is left is rounding, and no evidence
    z = (scores - mean) / deviation

    def cost(at: Floats) -> float:
        logits = -sign * (at[0] * z + at[1])
        loss = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
        return float(weight @ loss) + RIDGE / 2 * float(at[0]) ** 2

    at = np.array([0.0, logit(float(weight[sign > 0].sum()))])
    now = cost(at)
    for _ in range(NEWTON_STEPS):
        step, gain = _newton_step(at, z, sign, weight)
        stretch, after = 1.0, cost(at + step)
        while after > now - 1e-4 * stretch * gain and stretch > SHORTEST:
            stretch /= 2
            after = cost(at + stretch * step)
        if after > now:
            break  # rounding leaves nothing to gain
        at, now = at + stretch * step, after
        if gain < CONVERGED:
            break
    slope = float(at[0]) / deviation
    return slope, float(at[1]) - slope * mean


def _newton_step(at: Floats, z: Floats, sign: Floats, weight: Floats) -> tuple[Floats, float]:
    """The step to the minimum of the local parabola, and twice what it promises to gain."""
    wrong = sigmoid(-sign * (at[0] * z + at[1]))
    pull = -weight * sign * wrong
    bend = weight * wrong * (1 - wrong)
    gradient = np.array([pull @ z + RIDGE * at[0], pull.sum()])
    cross = bend @ z
    # A hair keeps the corner from 0 where every weight is below the smallest number.
    hessian = np.array([[bend @ (z * z) + RIDGE, cross], [cross, bend.sum() + 1e-300]])
    step = -np.linalg.solve(hessian, gradient)
    return step, float(-gradient @ step)


def cllr(llr_mated: NDArray[np.floating], llr_non: NDArray[np.floating]) -> float:
    """Cost of LLRs in bits: 1/2 [mean log2(1 + e^-mated) + mean log2(1 + e^non)].

    llr_mated, llr_non: (n,), (m,), infinities allowed. 0 is perfect, 1 is what LLRs of 0 cost,
    more than 1 misleads. Raises DataError for NaN or no LLR of one kind.
    """
    one, two = _both(llr_mated, llr_non)
    bits = np.logaddexp(0, -one).mean() + np.logaddexp(0, two).mean()
    return float(bits / 2 / math.log(2))


def min_cllr(mated: NDArray[np.floating], non_mated: NDArray[np.floating]) -> float:
    """The lowest Cllr that scores could have if a rising function turned them into LLRs.

    mated, non_mated: (n,), (m,), scores or LLRs. The function is found by pool adjacent
    violators. Raises DataError as `cllr` does.
    """
    one, two = _both(mated, non_mated)
    levels, place = np.unique(np.concatenate([one, two]), return_inverse=True)
    hits = np.bincount(place[: len(one)], minlength=len(levels))
    misses = np.bincount(place[len(one) :], minlength=len(levels))
    share = isotonic(hits / (hits + misses), (hits + misses).astype(np.float64))
    with np.errstate(divide="ignore"):
        llr = np.log(share) - np.log1p(-share) - math.log(len(one) / len(two))
    bits = _spent(-llr, hits) / len(one) + _spent(llr, misses) / len(two)
    return float(bits / 2 / math.log(2))


def _spent(against: Floats, counts: IntArray) -> float:
    """Sum of softplus over what was counted: (n,), (n,)."""
    seen = counts > 0
    return float(counts[seen] @ np.logaddexp(0, against[seen]))


def isotonic(values: NDArray[np.floating], weights: NDArray[np.floating]) -> Floats:
    """The non-decreasing row nearest to `values` in weighted least squares.

    values, weights: (n,), weights > 0. Returns float64 (n,). Pool adjacent violators (Ayer and
    others, 1955) in O(n): what does not rise is pooled at once, then blocks merge on a stack.
    """
    row, weight = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    if len(row) == 0:
        return row
    starts = np.flatnonzero(np.append(True, row[1:] > row[:-1]))
    heaps = np.add.reduceat(weight, starts)
    means = np.add.reduceat(row * weight, starts) / heaps
    flat = np.minimum.reduceat(row, starts) == np.maximum.reduceat(row, starts)
    means[flat] = row[starts[flat]]  # a mean of equal values is that value, to the last bit
    sizes = np.diff(np.append(starts, len(row)))
    stack: list[tuple[float, float, int]] = []
    for mean, heap, size in zip(means.tolist(), heaps.tolist(), sizes.tolist(), strict=True):
        while stack and stack[-1][0] >= mean:
            before, other, length = stack.pop()
            mean = before + (mean - before) * (heap / (heap + other))
            heap, size = heap + other, size + length
        stack.append((mean, heap, size))
    return np.repeat([mean for mean, _, _ in stack], [size for _, _, size in stack])


def calibration_loss(
    mated: NDArray[np.floating], non_mated: NDArray[np.floating], logistic: Logistic
) -> CalibrationLoss:
    """Cllr, minimum Cllr and their difference of similarities (n,), (m,) under a fit.

    Pairs of minus infinity are left out and counted. Raises DataError as `cllr` does.
    """
    one, two = np.asarray(mated, np.float64), np.asarray(non_mated, np.float64)
    good_one, good_two = _scored("mated", one), _scored("non-mated", two)
    llr_one, llr_two = logistic.llr(one[good_one]), logistic.llr(two[good_two])
    cost, best = cllr(llr_one, llr_two), min_cllr(llr_one, llr_two)
    excluded = len(one) + len(two) - len(llr_one) - len(llr_two)
    return CalibrationLoss(cost, best, cost - best, len(llr_one), len(llr_two), excluded)


def reliability(
    llr_mated: NDArray[np.floating],
    llr_non: NDArray[np.floating],
    *,
    prior: float = 0.5,
    bins: int = 10,
) -> dict[str, list[float]]:
    """Predicted against observed share of mated pairs, for a plot.

    llr_mated, llr_non: (n,), (m,). prior: share that both kinds are weighted to. bins: equal parts
    of the predicted probability from 0 to 1; empty ones are left out. Returns, one value per bin,
    "low", "high", "predicted" (mean), "observed", and the counts "mated" and "non_mated". A
    calibrated system has observed = predicted. Raises DataError as `cllr` does.
    """
    require_prior(prior)
    one, two = _both(llr_mated, llr_non)
    if bins < 1:
        raise SettingsError(f"bins should be 1 or more; got {bins}.")
    probability = sigmoid(np.concatenate([one, two]) + logit(prior))
    weight = np.repeat([prior / len(one), (1 - prior) / len(two)], [len(one), len(two)])
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    hits = np.bincount(place[: len(one)], minlength=bins)
    misses = np.bincount(place[len(one) :], minlength=bins)
    mass = np.bincount(place, weight, bins)
    used = np.flatnonzero(hits + misses)
    predicted = np.bincount(place, weight * probability, bins)[used] / mass[used]
    return {
        "low": (used / bins).tolist(),
        "high": ((used + 1) / bins).tolist(),
        "predicted": predicted.tolist(),
        "observed": (hits[used] * (prior / len(one)) / mass[used]).tolist(),
        "mated": hits[used].tolist(),
        "non_mated": misses[used].tolist(),
    }


def bayes_threshold(prior: float, cost_ratio: float = 1.0) -> float:
    """The LLR from which accepting is cheaper than refusing: -logit prior + log cost_ratio.

    prior: share of mated pairs among those compared. cost_ratio: cost of a false match over that
    of a false non-match. Raises SettingsError for a prior outside 0 to 1 or a ratio of 0 or less.
    """
    require_prior(prior)
    if not 0 < cost_ratio < math.inf:
        raise SettingsError(
            "cost_ratio should be the cost of a false match over that of a false non-match, above "
            f"0; got {cost_ratio:g}."
        )
    return math.log(cost_ratio) - logit(prior)


def _scored(kind: str, scores: Floats) -> NDArray[np.bool_]:
    """Which pairs have a score: (n,) -> bool (n,). NaN and plus infinity are no score at all."""
    missing = np.isneginf(scores)
    bad = int(np.sum(~(np.isfinite(scores) | missing)))
    if bad:
        raise DataError(
            f"Similarities of {kind} pairs should be numbers, or minus infinity where a face was "
            f"not found; {bad:,} of {len(scores):,} are not. Check the vectors they come from."
        )
    return np.asarray(~missing)


def _both(one: NDArray[np.floating], two: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Both kinds as float64: (n,), (m,)."""
    mated, non_mated = np.asarray(one, np.float64), np.asarray(two, np.float64)
    bad = int(np.isnan(mated).sum() + np.isnan(non_mated).sum())
    if len(mated) == 0 or len(non_mated) == 0 or bad:
        raise DataError(
            "The cost of LLRs needs numbers for mated and for non-mated pairs; got "
            f"{len(mated):,} and {len(non_mated):,}, of which {bad:,} are NaN. Check the scores "
            "they come from."
        )
    return mated, non_mated
