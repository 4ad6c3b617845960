"""Error rates of scores, as ISO/IEC 19795-1 defines them; ties are accepted, nothing is smoothed.

FMR(t) is the share of non-mated scores at or above t, FNMR(t) the share of mated scores below t.
TAR at FAR f is the largest 1 - FNMR(t) with FMR(t) <= f: never the nearest point of the curve. A
pair without a score (a face was not found) has minus infinity and matches at no threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError

RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""False-match rates that reports speak of."""
RULE = 3
"""Rule of three: no error among n trials leaves rates up to 3 / n possible."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Operating:
    """A threshold and what it does: tar and far are shares, false_matches a number of pairs."""

    threshold: float
    tar: float
    far: float
    false_matches: int


def rate_name(far: float) -> str:
    """A rate as reports write it: "1e-3", "3e-3", "2.5e-4"."""
    mantissa, _, exponent = f"{far:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def pairs_needed(far: float) -> int:
    """Non-mated pairs without which a rate cannot be spoken of: 3 / far."""
    return math.ceil(RULE / far - 1e-6)


def refusal(far: float, pairs: int) -> str:
    """Why a rate is not printed."""
    return (
        f"FAR {rate_name(far)} needs {pairs_needed(far):,} non-mated pairs (3 / rate); "
        f"there are {pairs:,}."
    )


def tar_at_far(mated: Scores, non_mated: Scores, far: float) -> Operating:
    """The operating point with the largest TAR whose FAR is at most `far`.

    mated, non_mated: float64 (n,), (m,). The threshold is the lowest score that is above the
    highest one that has to be refused. Raises DataError when one of them is empty.
    """
    _need_both(mated, non_mated)
    allowed = math.floor(far * len(non_mated) + 1e-9)
    if allowed >= len(non_mated):
        refused = -np.inf
    else:
        refused = float(np.partition(non_mated, len(non_mated) - 1 - allowed)[-1 - allowed])
    accepted = np.concatenate([mated[mated > refused], non_mated[non_mated > refused]])
    threshold = float(accepted.min()) if len(accepted) else float(np.nextafter(refused, np.inf))
    false_matches = int(np.sum(non_mated > refused))
    tar = float(np.mean(mated > refused))
    return Operating(threshold, tar, false_matches / len(non_mated), false_matches)


def area_under_roc(mated: Scores, non_mated: Scores) -> float:
    """Probability that a mated score is above a non-mated one; ties count half (Mann-Whitney).

    mated, non_mated: float64 (n,), (m,).
    """
    _need_both(mated, non_mated)
    others = np.sort(non_mated)
    below = np.searchsorted(others, mated, side="left")
    not_above = np.searchsorted(others, mated, side="right")
    return float((below + not_above).sum() / 2 / len(mated) / len(non_mated))


def equal_error_rate(mated: Scores, non_mated: Scores) -> float:
    """Where FMR and FNMR cross, linear between two neighbouring thresholds.

    mated, non_mated: float64 (n,), (m,).
    """
    _need_both(mated, non_mated)
    levels = np.append(np.unique(np.concatenate([mated, non_mated])), np.inf)
    fmr = 1 - np.searchsorted(np.sort(non_mated), levels, side="left") / len(non_mated)
    fnmr = np.searchsorted(np.sort(mated), levels, side="left") / len(mated)
    return float(crossing(fmr, fnmr))


def crossing(fmr: Scores, fnmr: Scores) -> Scores:
    """Value at which a falling and a rising row cross: (..., levels) -> (...).

    At the first level fmr is 1 and fnmr 0, at the last the other way round.
    """
    after = np.argmax(fnmr >= fmr, axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    gap_before = np.take_along_axis(fmr - fnmr, before, -1)
    gap_after = np.take_along_axis(fnmr - fmr, after, -1)
    total = gap_before + gap_after
    share = np.where(total > 0, gap_before / np.where(total > 0, total, 1), 0.0)
    low, high = np.take_along_axis(fmr, before, -1), np.take_along_axis(fmr, after, -1)
    return np.asarray((low + share * (high - low))[..., 0])


def d_prime(mated: Scores, non_mated: Scores) -> float | None:
    """Distance of the two means in pooled deviations; a diagnostic. None when it has no sense.

    mated, non_mated: float64 (n,), (m,); pairs without a score are left out.
    """
    one, two = mated[np.isfinite(mated)], non_mated[np.isfinite(non_mated)]
    if len(one) < 2 or len(two) < 2:
        return None
    spread = math.sqrt((float(one.var()) + float(two.var())) / 2)
    return abs(float(one.mean() - two.mean())) / spread if spread > 0 else None


def roc_points(mated: Scores, non_mated: Scores, *, points: int = 200) -> dict[str, list[float]]:
    """The ROC at rates spread evenly on a logarithmic scale, thresholds as lists.

    mated, non_mated: float64 (n,), (m,). Returns "threshold", "fmr" and "tmr" of up to `points`
    operating points, rising in fmr; each is a point of the curve, none is interpolated.
    """
    _need_both(mated, non_mated)
    one, two = np.sort(mated), np.sort(non_mated)
    counts = np.unique(np.geomspace(1, len(two), points).round().astype(int))
    levels = np.unique(np.append(two[-counts], [one[-1] if np.isfinite(one[-1]) else 1.0]))[::-1]
    levels = levels[np.isfinite(levels)]
    return {
        "threshold": levels.tolist(),
        "fmr": (1 - np.searchsorted(two, levels, side="left") / len(two)).tolist(),
        "tmr": (1 - np.searchsorted(one, levels, side="left") / len(one)).tolist(),
    }


def histogram(mated: Scores, non_mated: Scores, *, bins: int = 100) -> dict[str, list[float]]:
    """Counts of both kinds in equal bins from -1 to 1: edges (bins + 1), mated, non_mated.

    mated, non_mated: float64 (n,), (m,); pairs without a score are left out.
    """
    edges = np.linspace(-1, 1, bins + 1)
    counted = {
        name: np.histogram(np.clip(scores[np.isfinite(scores)], -1, 1), edges)[0].tolist()
        for name, scores in (("mated", mated), ("non_mated", non_mated))
    }
    return {"edges": edges.tolist(), **counted}


def _need_both(mated: Scores, non_mated: Scores) -> None:
    if len(mated) == 0 or len(non_mated) == 0:
        raise DataError(
            "Error rates need pairs of one person and pairs of two people; got "
            f"{len(mated)} and {len(non_mated)}. Add pictures or pairs of the missing kind."
        )
