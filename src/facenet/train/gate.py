"""The gate of fine-tuning: has the new model lost anything that the old one could do?

Both models are judged on the same pairs of people that no stage of the training saw (here), and on
pictures of the learned people that were held back (`closedset`); every difference has the 95 %
interval of the same draws of people (paired bootstrap). Nothing here knows how the vectors were
made.

The rule: a figure fails when the new model is worse by more than the allowed loss, unless chance
explains it: the interval of the difference reaches zero, and the loss is at most five times what is
allowed. So one of a few hundred pairs that flips is no loss, and few pairs excuse no large one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facenet import vectors
from facenet.data.pairset import PairSet
from facenet.errors import DataError
from facenet.evaluate.curves import pairs_needed, rate_name
from facenet.evaluate.curves import refusal as refusal_of
from facenet.evaluate.folds import Bools, Floats
from facenet.evaluate.intervals import (
    REPLICATES,
    Interval,
    PairScores,
    percentiles,
    replicate,
    share_interval,
)
from facenet.evaluate.pairreport import PairReport, compare_models, verification_report
from facenet.evaluate.verification import VerificationSettings, Views
from facenet.types import FloatArray

RATES = (1e-2, 1e-3)
"""False-match rates at which true matches are compared, as far as the pairs support them."""
ALLOWED_LOSS = 0.002
EXCUSED = 5
"""Times the allowed loss that chance may explain."""
FEW = 20
"""People with fewer of whom a set says little."""
ROUNDING = 1e-9
"""Differences are of shares: 0.998 - 1 is no more than a loss of 0.002."""
NO_REFERENCE = (
    "Forgetting on other people was not measured: name a set that both models are to be judged by, "
    "with --reference FILE.bin or --reference FOLDER:PAIRS."
)


@dataclass(frozen=True, slots=True)
class GateRow:
    """One figure of both models.

    set: what it was measured on. figure: "accuracy", "tar@1e-2", "fmr@1e-2" (false matches at the
    old model's threshold for that rate), "cosine" (mean similarity of the old and the new vector
    of a picture; it has no old value), or one of `closedset.known_rows`. old, new: shares, with
    95 % intervals. difference: new less old, with the interval of the same draws. judged: whether
    the gate looks at it. passed: False where it fails the gate. of: what it was counted over, in
    words.
    """

    set: str
    figure: str
    old: float | None
    new: float
    old_interval: Interval | None
    new_interval: Interval | None
    difference: float | None
    difference_interval: Interval | None
    judged: bool
    passed: bool
    of: str

    def sentence(self) -> str:
        """The change for a person."""
        change = "" if self.difference is None else f", a difference of {self.difference:+.4f}"
        old = "" if self.old is None else f"{self.old:.4f} before, "
        return f"{self.figure} on {self.set}: {old}{self.new:.4f} now{change}"


@dataclass(frozen=True, slots=True)
class Gate:
    """The outcome: passed when no judged row failed. notes: what was not measured, and why."""

    passed: bool
    allowed_loss: float
    rows: tuple[GateRow, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def failed(self) -> tuple[GateRow, ...]:
        """The rows that keep the model from being published."""
        return tuple(row for row in self.rows if not row.passed)


@dataclass(frozen=True, slots=True, eq=False)
class JudgedPairs:
    """Pairs that both models decide.

    old, new: unit vectors float32 (pictures, d) of each model. found: bool (pictures,), which could
    be embedded.
    """

    name: str
    pairs: PairSet
    old: FloatArray
    new: FloatArray
    found: Bools


def passes(difference: float, interval: Interval | None, allowed_loss: float) -> bool:
    """The rule of the gate for one figure: difference is the new share less the old one."""
    loss = -difference - ROUNDING
    if loss <= allowed_loss:
        return True
    by_chance = interval is not None and interval[1] >= 0
    return by_chance and loss <= EXCUSED * allowed_loss


def gate(
    judged: Sequence[JudgedPairs],
    learned: Sequence[GateRow] = (),
    *,
    allowed_loss: float = ALLOWED_LOSS,
    notes: Sequence[str] = (),
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Gate:
    """Compare two models on sets of pairs, and add what is known of the people learned.

    learned: rows of `closedset.known_rows`. allowed_loss: share that a figure may lose, 0 to 1.
    notes: go into the outcome as they are. replicates, seed: of the bootstrap. Raises DataError for
    vectors that do not fit the pairs.
    """
    rows: list[GateRow] = []
    told = list(notes)
    for one in judged:
        rows += pair_rows(one, allowed_loss, replicates=replicates, seed=seed)
        others = int(np.sum(~one.pairs.same))
        refused = [refusal_of(rate, others) for rate in RATES if pairs_needed(rate) > others]
        told += [f"{one.name}: {note}" for note in (*one.pairs.notes, *refused, *_few(one.pairs))]
    rows += learned
    passed = all(row.passed for row in rows)
    return Gate(passed, allowed_loss, tuple(rows), tuple(told))


def _few(pairs: PairSet) -> list[str]:
    """What has to be said of a set of few people."""
    rows = np.concatenate([pairs.a, pairs.b])
    people = len(np.unique(pairs.subjects()[rows]))
    if people >= FEW:
        return []
    return [f"{people} people say little of all others: hold out more, or name a reference."]


# ---- pairs


def pair_rows(
    judged: JudgedPairs, allowed_loss: float, *, replicates: int, seed: int
) -> list[GateRow]:
    """Accuracy, TAR at each rate, threshold drift and likeness of the vectors on one set."""
    shapes = {judged.old.shape, judged.new.shape}
    if len(shapes) != 1 or len(judged.old) != len(judged.pairs.pictures):
        raise DataError(
            f"The gate needs a vector of both models for each of the {len(judged.pairs.pictures)} "
            f"pictures of {judged.name}; got the shapes {sorted(shapes)}."
        )
    how = VerificationSettings("cosine")
    old, new = (
        verification_report(
            judged.pairs, Views(rows, None, judged.found), how, replicates=replicates, seed=seed
        )
        for rows in (judged.old, judged.new)
    )
    paired = {row["metric"]: row["ci"] for row in compare_models(new, old)}
    counts = old.values
    of = f"{counts['pairs']} pairs of {counts['people']} people"
    rows = [
        _row(judged.name, name, (old, new), paired.get(name), allowed_loss, of)
        for name in ("accuracy", *(f"tar@{rate_name(rate)}" for rate in RATES))
        if name in paired
    ]
    rows += _drift(judged, (old, new), replicates=replicates, seed=seed)
    return [*rows, _likeness(judged)]


def _row(
    name: str,
    figure: str,
    reports: tuple[PairReport, PairReport],
    interval: Sequence[float] | None,
    allowed_loss: float,
    of: str,
) -> GateRow:
    (old, old_interval), (new, new_interval) = (_figure(r.values, figure) for r in reports)
    between = None if interval is None else (float(interval[0]), float(interval[1]))
    return GateRow(
        name,
        figure,
        old,
        new,
        old_interval,
        new_interval,
        new - old,
        between,
        judged=True,
        passed=passes(new - old, between, allowed_loss),
        of=of,
    )


def _figure(values: Mapping[str, Any], name: str) -> tuple[float, Interval | None]:
    """A figure of a verification and its interval."""
    what, _, rate = name.partition("@")
    if rate:
        point = values["tar_at_far"][rate]
        value, interval = point["tar"], point["ci"]
    else:
        value, interval = values[what], values[f"{what}_ci"]
    return float(value), None if interval is None else (float(interval[0]), float(interval[1]))


def _drift(
    judged: JudgedPairs, reports: tuple[PairReport, PairReport], *, replicates: int, seed: int
) -> list[GateRow]:
    """What becomes of a threshold chosen with the old model when the new one is put in its place.

    It is not judged: the new model has a table of its own. It says what happens to who keeps a
    number.
    """
    old, new = reports
    points = old.values["tar_at_far"]
    names = [rate_name(rate) for rate in RATES if rate_name(rate) in points]
    if not names:
        return []
    pairs, others = judged.pairs, ~judged.pairs.same
    accepted = {
        (name, which): (report.result.similarity >= points[name]["threshold"]) & others
        for name in names
        for which, report in (("old", old), ("new", new))
    }
    drawn = replicate(
        _scores(pairs, old.result.similarity),
        shares={
            f"{name} {which}": (hits.astype(np.float64), others.astype(np.float64))
            for (name, which), hits in accepted.items()
        },
        replicates=replicates,
        seed=seed,
    )
    people = old.values["people"]
    return [
        _drift_row(
            judged.name,
            name,
            (accepted[name, "old"][others], accepted[name, "new"][others]),
            (drawn[f"{name} old"], drawn[f"{name} new"]),
            people,
        )
        for name in names
    ]


def _drift_row(
    name: str,
    rate: str,
    accepted: tuple[Bools, Bools],
    drawn: tuple[Floats, Floats],
    people: int,
) -> GateRow:
    """accepted: non-mated pairs (m,) at the old threshold, by the old and the new model."""
    old, new = (float(hits.mean()) for hits in accepted)
    intervals = [
        share_interval(values, share, people)
        for values, share in zip(drawn, (old, new), strict=True)
    ]
    return GateRow(
        name,
        f"fmr@{rate}",
        old,
        new,
        intervals[0],
        intervals[1],
        new - old,
        percentiles(drawn[1] - drawn[0]),
        judged=False,
        passed=True,
        of=f"{len(accepted[0])} non-mated pairs at the old threshold for {rate}",
    )


def _likeness(judged: JudgedPairs) -> GateRow:
    old, new = (vectors.unit(rows[judged.found]) for rows in (judged.old, judged.new))
    cosines = np.sum(old.astype(np.float64) * new, axis=1)
    mean = float(cosines.mean()) if len(cosines) else 0.0
    of = f"{len(cosines)} pictures, their vector now and before"
    return GateRow(judged.name, "cosine", None, mean, None, None, None, None, False, True, of)


def _scores(pairs: PairSet, similarity: Floats) -> PairScores:
    """Pairs numbered by their people as `verification_report` does, so that draws are the same."""
    people = pairs.subjects()
    numbers = np.unique(np.concatenate([people[pairs.a], people[pairs.b]]), return_inverse=True)[1]
    return PairScores(similarity, pairs.same, numbers[: len(pairs)], numbers[len(pairs) :])
