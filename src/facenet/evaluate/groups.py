"""Error rates of groups of people at one threshold, and how far apart they are.

ISO/IEC 19795-10:2024: one threshold for all, each group's own rates with counts and intervals,
non-mated pairs of one group, and a matrix across the groups. Of the single numbers GARBE (Howard
and others, "Evaluating proposed fairness models for face recognition algorithms", arXiv
2203.05051) is preferred; FDR (de Freitas Pereira and Marcel, 2020) and IR (Grother, 2021) are given
because others give them, with the doubt that paper casts on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import SettingsError
from facenet.evaluate.curves import pairs_needed, rate_name
from facenet.evaluate.groupcounts import Outcomes
from facenet.evaluate.intervals import REPLICATES, Interval, percentiles, share_interval, wilson

LEAST = 30
"""Mated pairs below which a group's FNMR is no claim, however common errors are."""
DOUBT = (
    "FDR and IR are hard to read at real error rates: FDR stays near 1 because differences of "
    "small rates are small, and IR follows the one smallest rate (arXiv 2203.05051). Prefer the "
    "rates of the groups, their ratios and GARBE."
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rate:
    """One error rate of one group.

    value: None without pairs. wilson: as if pairs were independent, too narrow. interval: people
    drawn anew, which is the one to read; where no draw moves the rate, Wilson's for as many trials
    as there are people. needs: pairs that a claim needs; enough: they are there.
    """

    value: float | None
    errors: int
    pairs: int
    wilson: Interval | None
    interval: Interval | None
    needs: int
    enough: bool


@dataclass(frozen=True, slots=True)
class Group:
    """One group. attempts, failures: pictures (or pairs of a list), and those without a face."""

    name: str
    people: int
    attempts: int
    failures: int
    fmr: Rate
    fnmr: Rate


@dataclass(frozen=True, slots=True)
class Summary:
    """One number for how far groups are apart, None with fewer than two.

    interval: the middle 95 % over draws of people, widened to hold the value. Chance alone sets
    groups apart, so it lies rather high. groups: how many took part.
    """

    value: float | None
    interval: Interval | None
    groups: int


@dataclass(frozen=True, slots=True)
class GroupReport:
    """Groups at one threshold.

    far: the rate that the threshold stands for. unit: of attempts, "pictures" or "pairs". cross:
    FMR between groups in their order, None without pairs; cross_pairs, cross_matches: its counts.
    summaries: by name; see `group_report`. notes: a sentence each.
    """

    threshold: float
    far: float
    unit: str
    groups: tuple[Group, ...]
    cross: tuple[tuple[float | None, ...], ...]
    cross_pairs: tuple[tuple[int, ...], ...]
    cross_matches: tuple[tuple[int, ...], ...]
    summaries: Mapping[str, Summary]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)


def group_report(
    outcomes: Outcomes,
    *,
    far: float,
    replicates: int = REPLICATES,
    seed: int = 0,
    alpha: float = 0.5,
) -> GroupReport:
    """The rates of every group, the matrix across groups, and summaries.

    far: the false-match rate that the threshold stands for. A group's FMR is a claim with 3 / far
    non-mated pairs, its FNMR with 3 / FNMR mated ones (FNMR of all groups together), at least 30.
    Smaller groups are listed and take no part in the summaries, which are:

    fmr_max_min, fmr_max_mean, fnmr_max_min, fnmr_max_mean: the highest rate over the lowest, and
    over the geometric mean. A group without an error enters them, and IR, as half an error.
    garbe_fmr, garbe_fnmr, garbe: Gini coefficients and their sum weighted by alpha and 1 - alpha.
    fdr: 1 - (alpha max|FMR difference| + (1 - alpha) max|FNMR difference|).
    ir: (max / min FMR)^alpha (max / min FNMR)^(1 - alpha).

    Raises SettingsError for a far or an alpha outside 0 to 1.
    """
    if not (0 < far <= 1 and 0 <= alpha <= 1):
        raise SettingsError(
            f"far should be above 0 and at most 1, alpha from 0 to 1; got {far:g} and {alpha:g}."
        )
    drawn = outcomes.rates(replicates, seed)
    fmr, fnmr = _rates(outcomes, far, drawn)
    people = outcomes.present.tolist()
    groups = tuple(
        Group(name, people[row], int(tried), int(failed), fmr[row], fnmr[row])
        for row, (name, tried, failed) in enumerate(
            zip(outcomes.cells, outcomes.attempts, outcomes.failures, strict=True)
        )
    )
    pairs, matches = outcomes.cross_pairs.tolist(), outcomes.cross_accepted.tolist()
    return GroupReport(
        threshold=float(outcomes.threshold),
        far=float(far),
        unit=outcomes.unit,
        groups=groups,
        cross=tuple(
            tuple(hits / of if of else None for hits, of in zip(row, rests, strict=True))
            for row, rests in zip(matches, pairs, strict=True)
        ),
        cross_pairs=tuple(map(tuple, pairs)),
        cross_matches=tuple(map(tuple, matches)),
        summaries=_summaries(groups, drawn, alpha),
        notes=_notes(groups, outcomes, far),
    )


def gini(rates: NDArray[np.floating]) -> Floats:
    """Sample Gini coefficient over the last axis, (..., n) -> (...): 0 for equal rates, 1 for one.

    n / (n - 1) * sum_ij |x_i - x_j| / (2 n^2 mean). 0 when all rates are 0; NaN for n < 2.
    """
    values = np.asarray(rates, np.float64)
    count = values.shape[-1]
    if count < 2:
        return np.full(values.shape[:-1], np.nan)
    apart = np.abs(values[..., :, None] - values[..., None, :]).sum(axis=(-1, -2))
    mean = values.mean(axis=-1)
    scale = 2 * count * (count - 1) * np.where(mean == 0, 1.0, mean)
    return np.asarray(apart / scale)


def _rates(
    outcomes: Outcomes, far: float, drawn: tuple[Floats, Floats]
) -> tuple[list[Rate], list[Rate]]:
    """FMR and FNMR of every group."""
    pairs = np.diag(outcomes.cross_pairs)
    matches = np.diag(outcomes.cross_accepted)
    mated, refused = outcomes.mated.sum(axis=0), outcomes.refused.sum(axis=0)
    share = float(refused.sum() / max(1, mated.sum()))
    wanted = max(LEAST, pairs_needed(share)) if share > 0 else LEAST
    with_pairs = (outcomes.mated > 0).sum(axis=0)
    return (
        _column(matches, pairs, drawn[0], outcomes.present, needs=pairs_needed(far)),
        _column(refused, mated, drawn[1], with_pairs, needs=wanted),
    )


def _column(
    errors: NDArray[np.int64],
    pairs: NDArray[np.int64],
    drawn: Floats,
    people: NDArray[np.int64],
    *,
    needs: int,
) -> list[Rate]:
    found = []
    for row, (wrong, of) in enumerate(zip(errors.tolist(), pairs.tolist(), strict=True)):
        if of == 0:
            found.append(Rate(None, 0, 0, None, None, needs, False))
            continue
        interval = share_interval(drawn[:, row], wrong / of, int(people[row]))
        found.append(Rate(wrong / of, wrong, of, wilson(wrong, of), interval, needs, of >= needs))
    return found


def _summaries(
    groups: tuple[Group, ...], drawn: tuple[Floats, Floats], alpha: float
) -> dict[str, Summary]:
    """Every summary, from the rates and from each draw of people."""
    known: dict[str, tuple[Floats, Floats, list[int]]] = {}
    for kind, draws in zip(("fmr", "fnmr"), drawn, strict=True):
        rates = [getattr(group, kind) for group in groups]
        half = np.array([0.5 / max(1, rate.pairs) for rate in rates])
        values = np.array([np.nan if rate.value is None else rate.value for rate in rates])
        rows = [row for row, rate in enumerate(rates) if rate.enough]
        known[kind] = np.vstack([values[None], draws]), half, rows
    found: dict[str, Summary] = {}
    for kind, (table, half, rows) in known.items():
        columns = _spread(table[:, rows], half[rows])
        for name, values in columns.items():
            found[f"{kind}_{name}"] = _summary(values, len(rows))
        found[f"garbe_{kind}"] = _summary(gini(table[:, rows]), len(rows))
    both = [row for row in known["fmr"][2] if row in known["fnmr"][2]]
    fmr, fnmr = ((table[:, both], half[both]) for table, half, _ in known.values())
    for name, values in _joint(fmr, fnmr, alpha).items():
        found[name] = _summary(values, len(both))
    return found


def _spread(table: Floats, half: Floats) -> dict[str, Floats]:
    """Ratios of the rates in each row, (r, n), with half an error, (n,), for none: each (r,)."""
    if table.shape[1] < 2:
        return {name: np.full(len(table), np.nan) for name in ("max_min", "max_mean")}
    values = np.where(table == 0, half, table)
    highest = values.max(axis=1)
    return {
        "max_min": highest / values.min(axis=1),
        "max_mean": highest / np.exp(np.log(values).mean(axis=1)),
    }


def _joint(
    fmr: tuple[Floats, Floats], fnmr: tuple[Floats, Floats], alpha: float
) -> dict[str, Floats]:
    """GARBE, FDR and IR of each row."""
    first, second = fmr[0], fnmr[0]
    if first.shape[1] < 2:
        return {name: np.full(len(first), np.nan) for name in ("garbe", "fdr", "ir")}
    ratios = (_spread(*fmr)["max_min"], _spread(*fnmr)["max_min"])
    apart = alpha * np.ptp(first, axis=1) + (1 - alpha) * np.ptp(second, axis=1)
    return {
        "garbe": alpha * gini(first) + (1 - alpha) * gini(second),
        "fdr": 1 - apart,
        "ir": ratios[0] ** alpha * ratios[1] ** (1 - alpha),
    }


def _summary(values: Floats, groups: int) -> Summary:
    """The first value is that of the data, the others are of draws: (1 + r,)."""
    value = float(values[0])
    if not np.isfinite(value):
        return Summary(None, None, groups)
    spread = percentiles(values[1:])
    held = spread and (min(spread[0], value), max(spread[1], value))
    return Summary(value, held, groups)


def _notes(groups: tuple[Group, ...], outcomes: Outcomes, far: float) -> tuple[str, ...]:
    said = [DOUBT]
    if outcomes.left_out:
        said.append(f"{outcomes.left_out:,} {outcomes.unit} have an unknown attribute.")
    for kind, what in (("fmr", "non-mated"), ("fnmr", "mated")):
        rates = [(group.name, getattr(group, kind)) for group in groups]
        small = [name for name, rate in rates if not rate.enough]
        if small:
            name, needs = kind.upper(), rates[0][1].needs
            at = f" at {rate_name(far)}" if kind == "fmr" else ""
            said.append(
                f"Too small for a claim about {name}{at}, which needs {needs:,} {what} pairs: "
                f"{_listed(small)}."
            )
        clean = [name for name, rate in rates if rate.enough and rate.errors == 0]
        if clean:
            said.append(
                f"Without an error of {kind.upper()}, and half an error in the ratios: "
                f"{_listed(clean)}."
            )
    return tuple(said)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
