"""The numbers of a verification set, each with its 95 % interval, as one plain record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from facenet.data.pairset import PairSet
from facenet.evaluate import curves
from facenet.evaluate.folds import VAL_FAR, Decisions, Floats
from facenet.evaluate.intervals import (
    REPLICATES,
    SUMMARY,
    Interval,
    PairScores,
    Share,
    difference_intervals,
    replicate,
    share_interval,
    summary_intervals,
)
from facenet.evaluate.verification import (
    VerificationResult,
    VerificationSettings,
    Views,
    verify_pairs,
)
from facenet.types import IntArray

VAL = f"val@{curves.rate_name(VAL_FAR)}"
WORST = 24
"""Wrongly decided pairs of each kind that a report shows."""


@dataclass(frozen=True, slots=True, eq=False)
class PairReport:
    """values: the plain record. result: the decisions behind it. replicates: the numbers of each
    bootstrap draw, by name."""

    values: dict[str, Any]
    result: VerificationResult
    replicates: Mapping[str, Floats]


def verification_report(
    pairs: PairSet,
    views: Views,
    settings: VerificationSettings,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PairReport:
    """Run a protocol on a pair set and say how far each number can be trusted.

    replicates, seed: of the bootstrap over people. A set with mated or non-mated pairs alone has
    an accuracy, which says little, and no error rates; a note says so. Raises DataError with fewer
    than two folds.
    """
    result = verify_pairs(pairs, views, settings)
    people = pairs.subjects()
    numbers = np.unique(np.concatenate([people[pairs.a], people[pairs.b]]), return_inverse=True)[1]
    subjects_a, subjects_b = numbers[: len(pairs)], numbers[len(pairs) :]
    scores = PairScores(result.similarity, pairs.same, subjects_a, subjects_b)
    rates = supported(int(np.sum(~pairs.same))) if pairs.same.any() else ()
    drawn = replicate(
        scores,
        rates=rates,
        shares=_decided(result.decisions, pairs),
        replicates=replicates,
        seed=seed,
    )
    values = _counts(pairs, views, scores)
    values |= _fold_values(result, drawn, scores)
    values |= _curve_values(scores, drawn)
    values |= _rate_values(scores, rates, drawn)
    values["bootstrap"] = {"replicates": replicates, "seed": seed, "people": scores.subjects}
    values["worst"] = worst_pairs(pairs, result)
    values["notes"] = [*pairs.notes, *_one_kind(pairs)]
    return PairReport(values, result, drawn)


def _decided(decided: Decisions, pairs: PairSet) -> dict[str, Share]:
    """Accuracy, and VAL where there are both kinds, as shares of pairs at thresholds that are held.

    Each fold adds as much as another, so that they are the means over the folds that are printed.
    """
    fold = np.unique(pairs.fold, return_inverse=True)[1]
    among = {"accuracy": (decided.correct, np.ones(len(pairs)))}
    if pairs.same.any() and not pairs.same.all():
        among[VAL] = (decided.accepted, pairs.same.astype(np.float64))
    found = {}
    for name, (hit, counts) in among.items():
        whole = counts / np.maximum(np.bincount(fold, counts), 1)[fold]
        found[name] = (whole * hit, whole)
    return found


def supported(non_mated: int) -> tuple[float, ...]:
    """The rates that so many non-mated pairs can speak of."""
    return tuple(rate for rate in curves.RATES if curves.pairs_needed(rate) <= non_mated)


def _one_kind(pairs: PairSet) -> list[str]:
    """What has to be said of a set with mated or non-mated pairs alone."""
    if pairs.same.any() and not pairs.same.all():
        return []
    kind, other = ("one person", "two people") if pairs.same.all() else ("two people", "one person")
    return [
        f"All {len(pairs)} pairs are of {kind}: error rates need pairs of {other} too, and any "
        f"threshold that calls every pair {kind} has the accuracy 1."
    ]


def _counts(pairs: PairSet, views: Views, scores: PairScores) -> dict[str, Any]:
    used = np.unique(np.concatenate([pairs.a, pairs.b]))
    lost = ~np.isfinite(scores.similarity)
    return {
        "dataset": pairs.dataset,
        "pairs": len(pairs),
        "mated": int(pairs.same.sum()),
        "non_mated": int((~pairs.same).sum()),
        "pictures": len(used),
        "people": scores.subjects,
        "failures": int((~views.found[used]).sum()),
        "not_found": int(lost.sum()),
        "not_found_mated": int((lost & pairs.same).sum()),
    }


def _fold_values(
    result: VerificationResult, drawn: Mapping[str, Floats], scores: PairScores
) -> dict[str, Any]:
    decided: Decisions = result.decisions
    accuracy = float(decided.accuracy.mean())
    interval = share_interval(drawn["accuracy"], accuracy, scores.subjects)
    wrong = ~decided.correct
    return {
        "accuracy": accuracy,
        "accuracy_std": float(decided.accuracy.std()),
        "accuracy_ci": _listed(interval),
        "threshold": float(result.thresholds.mean()),
        "thresholds": result.thresholds.tolist(),
        "fold_accuracies": decided.accuracy.tolist(),
        "errors": {
            "false_matches": int((wrong & ~scores.same).sum()),
            "false_non_matches": int((wrong & scores.same).sum()),
        },
        "val_at_far": _val(decided, drawn, scores.subjects),
    }


def _val(decided: Decisions, drawn: Mapping[str, Floats], people: int) -> dict[str, Any]:
    """VAL of facenet's `validate_on_lfw`; None where a kind of pair is missing."""
    if VAL not in drawn:
        return {"target": VAL_FAR, **dict.fromkeys(("val", "val_std", "val_ci", "far"))}
    val = float(np.nanmean(decided.val))
    return {
        "target": VAL_FAR,
        "val": val,
        "val_std": float(np.nanstd(decided.val)),
        "val_ci": _listed(share_interval(drawn[VAL], val, people)),
        "far": float(np.nanmean(decided.far)),
    }


def _curve_values(scores: PairScores, drawn: Mapping[str, Floats]) -> dict[str, Any]:
    mated, others = scores.mated, scores.non_mated
    if not (len(mated) and len(others)):
        unknown = dict.fromkeys((*SUMMARY, *(f"{name}_ci" for name in SUMMARY)))
        return {**unknown, "curves": {"histogram": curves.histogram(mated, others)}}
    values = {
        "auc": curves.area_under_roc(mated, others),
        "eer": curves.equal_error_rate(mated, others),
        "d_prime": curves.d_prime(mated, others),
    }
    found = summary_intervals(drawn, values, scores.subjects)
    return {
        **values,
        **{f"{name}_ci": _listed(interval) for name, interval in found.items()},
        "curves": {
            "roc": curves.roc_points(mated, others),
            "histogram": curves.histogram(mated, others),
        },
    }


def _rate_values(
    scores: PairScores, rates: tuple[float, ...], drawn: Mapping[str, Floats]
) -> dict[str, Any]:
    """TAR at the rates that the pairs support, and why not at the others."""
    others = len(scores.non_mated)
    printed = {}
    for rate in rates:
        name = curves.rate_name(rate)
        point = curves.tar_at_far(scores.mated, scores.non_mated, rate)
        interval = share_interval(drawn[f"tar@{name}"], point.tar, scores.subjects)
        printed[name] = {
            "tar": point.tar,
            "ci": _listed(interval),
            "far": point.far,
            "threshold": point.threshold,
            "false_matches": point.false_matches,
        }
    refused = {
        curves.rate_name(rate): curves.refusal(rate, others)
        if len(scores.mated)
        else "TAR needs pairs of one person; there are none."
        for rate in curves.RATES
        if rate not in rates
    }
    return {"tar_at_far": printed, "refused": refused}


def worst_pairs(pairs: PairSet, result: VerificationResult) -> dict[str, list[dict[str, Any]]]:
    """The wrongly decided pairs, the worst first; those without a face are not among them.

    Each with the names of its pictures and its similarity.
    """
    wrong = ~result.decisions.correct & np.isfinite(result.similarity)

    def listed(rows: IntArray, sign: int) -> list[dict[str, Any]]:
        ordered = rows[np.argsort(sign * result.similarity[rows], kind="stable")][:WORST]
        return [
            {
                "a": pairs.pictures[pairs.a[row]].name,
                "b": pairs.pictures[pairs.b[row]].name,
                "similarity": float(result.similarity[row]),
            }
            for row in ordered
        ]

    return {
        "false_matches": listed(np.flatnonzero(wrong & ~pairs.same), -1),
        "false_non_matches": listed(np.flatnonzero(wrong & pairs.same), 1),
    }


def compare_models(first: PairReport, second: PairReport) -> list[dict[str, Any]]:
    """Differences of two models on the same pairs, each with the interval of the same draws.

    The values are of the form {"metric", "difference", "ci"}; 0 outside the interval means that
    the models differ by more than the choice of people explains.
    """
    intervals = difference_intervals(first.replicates, second.replicates)
    rows = []
    for name, interval in intervals.items():
        values = [_value(report.values, name) for report in (first, second)]
        if values[0] is not None and values[1] is not None:
            difference = values[0] - values[1]
            rows.append({"metric": name, "difference": difference, "ci": _listed(interval)})
    return rows


def _value(values: Mapping[str, Any], name: str) -> float | None:
    """The value of a replicated number: "accuracy", "auc", "tar@1e-3", "val@1e-3"."""
    what, _, rate = name.partition("@")
    if not rate:
        return None if values[name] is None else float(values[name])
    if what == "val":
        return float(values["val_at_far"]["val"])
    return float(values["tar_at_far"][rate][what]) if what == "tar" else None


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
