"""Whether a quality measure foretells errors: error against the share of pairs discarded.

Grother and Tabassi ("Performance of biometric quality measures", 2007), with the partial areas
that Schlett and others ("Considerations on the evaluation of biometric quality assessment
algorithms", arXiv 2303.13294) recommend. The threshold is chosen once, on all pairs. Choosing it
anew on what is left, as the script of MagFace does, gives another curve, which is not this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError
from facenet.evaluate.curves import pairs_needed, refusal, tar_at_far

FRACTIONS = tuple(round(0.05 * step, 2) for step in range(20))
"""Shares of the mated pairs that are discarded: 0, 0.05, ... 0.95."""
LIMITS = (0.2, 0.3)
"""Partial areas go from 0 to each of these shares."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DiscardCurve:
    """FNMR of the mated pairs that are left when those of the lowest quality are discarded.

    far: wanted; realised_far, threshold, false_matches: what it is on all pairs, before anything
    is discarded. pairs, errors: mated pairs and false non-matches among them. fraction: shares
    discarded; fnmr: what is left then; oracle: when errors are discarded first; random: without
    any order, the same at every share. pauc, pauc_oracle, pauc_random: area under each from 0 to a
    share ("0.2", "0.3"), of the steps, not of the points of `fraction`. spearman: rank correlation
    of the pair's quality with its similarity; None when one of them is constant.
    """

    far: float
    realised_far: float
    threshold: float
    false_matches: int
    pairs: int
    errors: int
    fraction: tuple[float, ...]
    fnmr: tuple[float, ...]
    oracle: tuple[float, ...]
    random: float
    pauc: Mapping[str, float]
    pauc_oracle: Mapping[str, float]
    pauc_random: Mapping[str, float]
    spearman: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def error_discard_curve(
    similarity: NDArray[np.floating],
    same: Bools,
    quality_a: NDArray[np.floating],
    quality_b: NDArray[np.floating],
    *,
    far: float,
) -> DiscardCurve:
    """The error-versus-discard curve of a quality measure at one false-match rate.

    similarity: (n,), minus infinity where a face was not found: such a mated pair is an error.
    same: bool (n,). quality_a, quality_b: (n,), of the two pictures, higher is better; the lower
    one is that of the pair, and NaN is lower than any number. Of pairs of equal quality the
    expected error is taken over their orders, so that no order of the input shows.
    Raises DataError for columns of different lengths, NaN similarities, no mated pair, or too few
    non-mated ones for the rate.
    """
    scores, truth = np.asarray(similarity, np.float64), np.asarray(same, np.bool_)
    quality = pair_quality(quality_a, quality_b)
    _check(scores, truth, quality, far)
    point = tar_at_far(scores[truth], scores[~truth], far)
    wrong, kind = scores[truth] < point.threshold, quality[truth]
    count, errors = len(wrong), int(wrong.sum())
    measured = _left(_errors_discarded(wrong, kind), errors)
    best = _left(np.minimum(np.arange(count + 1.0), errors), errors)
    level = errors / count
    at = [math.floor(share * count + 1e-9) for share in FRACTIONS]
    return DiscardCurve(
        far=float(far),
        realised_far=point.far,
        threshold=point.threshold,
        false_matches=point.false_matches,
        pairs=count,
        errors=errors,
        fraction=FRACTIONS,
        fnmr=tuple(measured[at].tolist()),
        oracle=tuple(best[at].tolist()),
        random=level,
        pauc={f"{limit:g}": _area(measured, limit) for limit in LIMITS},
        pauc_oracle={f"{limit:g}": _area(best, limit) for limit in LIMITS},
        pauc_random={f"{limit:g}": level * limit for limit in LIMITS},
        spearman=spearman(kind, scores[truth]),
    )


def pair_quality(quality_a: NDArray[np.floating], quality_b: NDArray[np.floating]) -> Floats:
    """The lower quality of each pair: (n,), (n,) -> float64 (n,); NaN becomes minus infinity."""
    sides = [np.asarray(side, np.float64) for side in (quality_a, quality_b)]
    if sides[0].shape != sides[1].shape or sides[0].ndim != 1:
        raise DataError(
            "Each pair should have the quality of both pictures; got columns of the shapes "
            f"{sides[0].shape} and {sides[1].shape}."
        )
    one, two = (np.where(np.isnan(side), -np.inf, side) for side in sides)
    return np.asarray(np.minimum(one, two))


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float | None:
    """Rank correlation of two columns (n,), ties at their mean rank; None when one is constant.

    Infinities are ranked as they stand.
    """
    one, two = _ranks(a), _ranks(b)
    one, two = one - one.mean(), two - two.mean()
    scale = math.sqrt(float(one @ one) * float(two @ two))
    return float(one @ two) / scale if scale > 0 else None


def _ranks(values: NDArray[np.floating]) -> Floats:
    """Mean rank of each value, from 0: (n,) -> (n,)."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray((ends - (count + 1) / 2)[place])


def _errors_discarded(wrong: Bools, quality: Floats) -> Floats:
    """Expected errors among the k pairs of the lowest quality: (n,), (n,) -> (n + 1,)."""
    _, place = np.unique(quality, return_inverse=True)
    pairs, errors = np.bincount(place), np.bincount(place, wrong)
    ends = np.concatenate([[0], np.cumsum(pairs)])
    found = np.concatenate([[0], np.cumsum(errors)])
    return np.asarray(np.interp(np.arange(len(wrong) + 1), ends, found), np.float64)


def _left(discarded: Floats, errors: int) -> Floats:
    """FNMR after the loss of 0, 1, ... n - 1 pairs: errors among them (n + 1,) -> (n,)."""
    count = len(discarded) - 1
    return np.asarray((errors - discarded[:-1]) / (count - np.arange(count)))


def _area(fnmr: Floats, limit: float) -> float:
    """Area under the steps from a share of 0 to `limit`: (n,)."""
    count = len(fnmr)
    width = np.clip(limit * count - np.arange(count), 0, 1)
    return float(fnmr @ width) / count


def _check(scores: Floats, truth: Bools, quality: Floats, far: float) -> None:
    if scores.shape != truth.shape or scores.shape != quality.shape:
        raise DataError(
            "Each pair should have a similarity, a truth and two qualities; got the shapes "
            f"{scores.shape}, {truth.shape} and {quality.shape}."
        )
    bad = int(np.isnan(scores).sum())
    if bad:
        raise DataError(
            f"Similarities should be numbers; {bad:,} of {len(scores):,} are NaN. Check the "
            "vectors they come from; a pair without a face is minus infinity."
        )
    if not 0 < far <= 1:
        raise DataError(f"far should be a rate above 0, at most 1; got {far:g}.")
    if not truth.any():
        raise DataError("An error-versus-discard curve needs pairs of one person; got none.")
    others = int(np.sum(~truth))
    if others < pairs_needed(far):
        raise DataError(refusal(far, others))
