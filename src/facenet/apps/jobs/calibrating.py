"""Thresholds from one's own pictures: the work behind `facenet calibrate`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.allpairs import Folder, pictures_digest
from facenet.apps.jobs.evaluation import check_draws
from facenet.apps.jobs.gather import Done
from facenet.evaluate.calibration import calibration_loss, fit_logistic, reliability
from facenet.evaluate.falsematch import table_of
from facenet.evaluate.heldout import held_out_check, split_people, table_intervals
from facenet.evaluate.sweep import Floats, Labelled, Sweep, sweep
from facenet.evaluate.tally import BINS, HALF
from facenet.gallery.calibrate import (
    DEFAULT_FMR,
    fmr_for_identification,
    lowest_fmr,
    similarity_at,
)
from facenet.models.calibration import (
    Calibration,
    Logistic,
    calibration_path,
    require_prior,
    save_calibration,
)
from facenet.types import IntArray

RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
GALLERIES = (10, 100, 1_000, 10_000, 100_000)
FPIR = 0.01
SAMPLE = 500_000
"""Non-mated pairs that the cost of the probabilities is measured on."""


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """detector: its name, for the record. prior: share of pairs of one person among those that
    will be compared. seed: of the halves that check each other. Raises SettingsError."""

    detector: str
    prior: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        require_prior(self.prior)
        check_draws(1, self.seed)


def calibrate_folder(
    seen: Folder, how: CalibrationSettings, done: Done
) -> tuple[Calibration, dict[str, Any]]:
    """Measure false-match rates and probabilities on a folder per person.

    The rates are checked on people who did not take part, and so are the probabilities: both are
    made of one half of the people and judged on the other; what is kept is made of all. Raises
    DataError with fewer than four people, or without any pair of one person.
    """
    swept = sweep(seen.faces, done=done)
    rows, names = _found(seen)
    table = table_of(swept.tally, images=len(rows), people=len(set(names)), dataset=seen.dataset)
    low, high = table_intervals(table, rows, names)
    calibration = Calibration(
        contract=seen.contract,
        model=str(seen.facts["model"]),
        dataset=seen.dataset,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        detector=how.detector,
        images=len(rows),
        people=table.people,
        fmr=table,
        fmr_low=low,
        fmr_high=high,
        logistic=fit(swept, how.prior),
        held_out=held_out_check(rows, names, similarity_at, seed=how.seed),
        digest=pictures_digest(seen.pictures),
    )
    values = calibration_values(calibration) | _judged(seen.faces, how.prior, how.seed)
    facts = {key: value for key, value in seen.facts.items() if key != "cropping"}
    protocol = f"every picture against every other, cosine similarity; {seen.facts['cropping']}"
    looked = {"pictures": len(seen.pictures), "failures": len(seen.gathered.problems)}
    return calibration, {**facts, "protocol": protocol, **looked, **values}


def fit(swept: Sweep, prior: float) -> Logistic:
    """The logistic calibration of all pairs of a sweep, by the bins of its histogram."""
    counts = swept.tally.at_least[:-1] - swept.tally.at_least[1:]
    used = np.flatnonzero(counts)
    middles = (np.arange(BINS)[used] + 0.5) / HALF - 1
    return fit_logistic(_binned(swept.mated), middles, prior, counts=counts[used])


def _binned(similarity: Floats) -> Floats:
    """Mated similarities in the middles of their bins, (n,): else a mated and a non-mated pair
    that are equally similar would seem to differ."""
    row = np.clip(np.floor(similarity * HALF), -HALF, HALF - 1)
    return np.where(np.isfinite(similarity), (row + 0.5) / HALF, -np.inf)


def calibration_values(calibration: Calibration) -> dict[str, Any]:
    """What a calibration says, as plain values: similarities by rate and by size of the gallery."""
    table = calibration.fmr
    similarities = {
        f"{rate:g}": similarity_at(table, rate) for rate in RATES if rate >= lowest_fmr(table)
    }
    galleries = []
    for size in GALLERIES:
        rate = fmr_for_identification(FPIR, size)
        known = rate >= lowest_fmr(table)
        similarity = similarity_at(table, rate) if known else None
        galleries.append({"gallery": size, "fpir": FPIR, "fmr": rate, "similarity": similarity})
    kept = calibration.to_dict()
    named = {"fmr_table": kept.pop("fmr"), "digests": {calibration.dataset: kept.pop("digest")}}
    answers = {"similarity_at": similarities, "galleries": galleries}
    tables = _tables(calibration, galleries)
    return {**kept, **named, **answers, "tables": tables, "notes": _reach(calibration)}


def _tables(calibration: Calibration, galleries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a calibration says as tables of a report."""
    table = calibration.fmr
    rates = [
        {"similarity": at, "fmr": count / table.pairs, "low": low, "high": high, "count": count}
        for at, count, low, high in zip(
            table.similarity,
            table.false_matches,
            calibration.fmr_low,
            calibration.fmr_high,
            strict=True,
        )
    ]
    held = [
        {
            "rate": name,
            "similarity": answer.threshold,
            "observed": answer.observed,
            "low": answer.ci[0] if answer.ci else None,
            "high": answer.ci[1] if answer.ci else None,
            "within_factor_two": {True: "yes", False: "no", None: answer.note}[
                answer.within_factor_two
            ],
        }
        for name, answer in calibration.held_out.items()
    ]
    curve = calibration.logistic
    logistic = {"slope": curve.slope, "offset": curve.offset, "prior": curve.prior}
    return [
        {"title": "False-match rate of each similarity, 95 % interval", "rows": rates},
        {"title": "The rates observed on held-out people", "rows": held},
        {"title": "Thresholds for searches, by size of the gallery", "rows": galleries},
        {
            "title": "Probability: sigmoid(slope x similarity + offset + logit prior)",
            "rows": [logistic],
        },
    ]


def _reach(calibration: Calibration) -> list[str]:
    """What to do where the pairs do not reach the rate that is decided at by default."""
    lowest = lowest_fmr(calibration.fmr)
    if lowest <= DEFAULT_FMR:
        return []
    step = 10.0 ** (math.floor(math.log10(lowest)) - 1)
    return [
        f"These pictures speak of false-match rates from {math.ceil(lowest / step) * step:.2g} on, "
        f"and verify and identify decide at {DEFAULT_FMR:g} unless told otherwise: give them such "
        "a rate with --fmr, or --calibration card, or calibrate on more people."
    ]


def write_calibration(calibration: Calibration, out: Path | None) -> Path:
    """Write a calibration to `out`, or else beside the card of its model, where it is found by
    itself; whole or not at all. Returns where. Raises StorageError."""
    path = out or calibration_path(calibration.contract)
    save_calibration(path, calibration)
    return path


def _judged(faces: Labelled, prior: float, seed: int) -> dict[str, Any]:
    """Cost and reliability of probabilities fitted on one half of the people, on the other."""
    first = split_people([str(number) for number in faces.person], seed)
    halves = [
        sweep(Labelled(faces.rows[rows], faces.person[rows], faces.found[rows]))
        for rows in (first, ~first)
    ]
    fitted, judged = fit(halves[0], prior), halves[1]
    mated, others = _binned(judged.mated), _sample(judged, seed)
    bins = reliability(
        *(fitted.llr(scores[np.isfinite(scores)]) for scores in (mated, others)), prior=0.5
    )
    loss = calibration_loss(mated, others, fitted)
    return {"calibration": {**loss.to_dict(), "reliability": bins}}


def _sample(swept: Sweep, seed: int) -> Floats:
    """Non-mated similarities drawn from the histogram, each in the middle of its bin."""
    counts: IntArray = swept.tally.at_least[:-1] - swept.tally.at_least[1:]
    total = int(counts.sum())
    taken = counts
    if total > SAMPLE:
        taken = np.random.default_rng(seed).multinomial(SAMPLE, counts / total)
    return np.repeat((np.arange(BINS) + 0.5) / HALF - 1, taken)


def _found(seen: Folder) -> tuple[np.ndarray[Any, np.dtype[np.float32]], list[str]]:
    rows = np.flatnonzero(seen.faces.found)
    return seen.faces.rows[rows], [seen.pictures[row].person for row in rows]


def calibration_text(values: Mapping[str, Any]) -> str:
    """A calibration for a person."""
    table, loss = values["fmr_table"], values["calibration"]
    lines = [
        f"{values['contract']}: {table['pairs']:,} pairs of different people, {values['people']:,} "
        f"people in {values['images']:,} pictures of {values['dataset']}"
    ]
    lines += [f"FMR {rate:>6}  similarity {at:.3f}" for rate, at in values["similarity_at"].items()]
    for name, answer in values["held_out"].items():
        if answer["observed"] is None or answer["within_factor_two"] is None:
            lines.append(f"held-out people, FMR {name}: {answer['note']}")
        else:
            verdict = "within" if answer["within_factor_two"] else "NOT within"
            lines.append(
                f"held-out people, FMR {name}: observed {answer['observed']:.3g}, "
                f"{verdict} a factor of two"
            )
    for row in values["galleries"]:
        at = "too rare for these pairs" if row["similarity"] is None else f"{row['similarity']:.3f}"
        lines.append(
            f"gallery of {row['gallery']:,}: FPIR {row['fpir']:g} at FMR {row['fmr']:.2g}, "
            f"similarity {at}"
        )
    logistic = values["logistic"]
    lines.append(
        f"probability: sigmoid({logistic['slope']:.2f} x similarity {logistic['offset']:+.2f} + "
        f"logit prior), prior {logistic['prior']:g}; Cllr {loss['cllr']:.4f} bits on held-out "
        f"people, at best {loss['min_cllr']:.4f}"
    )
    return "\n".join([*lines, *values["notes"]])
