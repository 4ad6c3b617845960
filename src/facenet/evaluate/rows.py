"""The numbers of a result as rows of tables: the same rows for report.html and report.csv."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facenet.evaluate.curves import rate_name

DATA, DECISIONS, SCORES = "Data", "Decisions", "Scores"
SEARCHES, BEYOND = "Searches", "Calibration and quality"
THRESHOLDS = 14
"""Rows of a table of thresholds, about."""

Record = Mapping[str, Any]

_PLAIN = (
    ("pairs", "Pairs", DATA),
    ("mated", "Mated pairs", DATA),
    ("non_mated", "Non-mated pairs", DATA),
    ("pictures", "Pictures", DATA),
    ("people", "People", DATA),
    ("failures", "Pictures without a usable face", DATA),
    ("not_found", "Pairs without both faces", DATA),
    ("accuracy", "Accuracy", DECISIONS),
    ("accuracy_std", "Deviation between folds", DECISIONS),
    ("published", "Published accuracy", DECISIONS),
    ("threshold", "Threshold, mean of the folds", DECISIONS),
    ("auc", "Area under the ROC", SCORES),
    ("eer", "Equal error rate", SCORES),
    ("d_prime", "d\u2032, distance of the means", SCORES),
)
_COUNTS = (
    ("gallery", "People in the gallery"),
    ("searches_mated", "Searches of people in it"),
    ("searches_non_mated", "Searches of others"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One number. metric: its name in report.csv. label, group: its place on the page.

    low, high: its 95 % interval. note: what has to be said with it, or why there is no number.
    """

    metric: str
    label: str
    group: str
    value: float | int | None
    low: float | None = None
    high: float | None = None
    note: str = ""


def rows(result: Record) -> list[Row]:
    """The numbers of a result that its table shows, those that are absent left out."""
    found = [_row(name, label, group, result, name) for name, label, group in _PLAIN]
    found += [*_errors(result), *_val(result), *_rates(result), *_searches(result)]
    found += _beyond(result)
    order = (DATA, DECISIONS, SCORES, SEARCHES, BEYOND)
    found.sort(key=lambda row: order.index(row.group))
    return [row for row in found if row.value is not None or row.note]


def details(result: Record) -> list[Row]:
    """The numbers of a result that stand elsewhere on the page: per fold, group, stage."""
    found = []
    for metric, name in (("fold_accuracy", "fold_accuracies"), ("fold_threshold", "thresholds")):
        for number, value in enumerate(result.get(name) or [], 1):
            found.append(Row(f"{metric}@{number}", "", "", value))
    for attribute, group in (result.get("groups") or {}).items():
        for row in group.get("rows") or []:
            for metric in ("fmr", "fnmr", "mated", "non_mated"):
                found.append(_row(f"{metric}@{attribute}={row.get('group')}", "", "", row, metric))
        found += _numbers(f"@{attribute}", group.get("summary") or {})
    searches = result.get("identification") or {}
    for row in searches.get("scaling") or []:
        for metric in ("fnir", "fpir", "hit_rate"):
            found.append(_row(f"{metric}@gallery={row.get('gallery')}", "", "", row, metric))
    for rate, point in (result.get("tar_at_far") or {}).items():
        for metric in ("far", "threshold", "false_matches"):
            found.append(_row(f"{metric}@{rate}", "", "", point, metric))
    found += _cells(result)
    found += [Row(f"seconds@{k}", "", "", v) for k, v in (result.get("seconds") or {}).items()]
    return [row for row in found if row.value is not None]


def _cells(result: Record) -> Iterator[Row]:
    """The numbers of tables of findings, named by title and the first cell of their row."""
    for table in result.get("tables") or []:
        for row in table.get("rows") or []:
            (first, key), *rest = list(row.items())
            words = "; ".join(f"{name} {text}" for name, text in rest if isinstance(text, str))
            for name, value in rest:
                if isinstance(value, int | float):
                    title = f"{table.get('title')}@{first}={key}: {name}"
                    yield Row(title, "", "", value, note=words)


def _row(metric: str, label: str, group: str, record: Record, name: str) -> Row:
    """A number of a record, with the interval that stands beside it as `<name>_ci`."""
    note = str(record.get(f"{name}_protocol") or "")
    value = record.get(name)
    low, high = record.get(f"{name}_ci") or (None, None)
    return Row(metric, label, group, value, low, high, note if value is not None else "")


def _numbers(suffix: str, record: Record) -> Iterator[Row]:
    """Every number of a flat record."""
    for name, value in record.items():
        if _counts(value) and not name.endswith("_ci"):
            yield _row(f"{name}{suffix}", "", "", record, name)


def _errors(result: Record) -> Iterator[Row]:
    errors = result.get("errors") or {}
    yield _row("false_matches", "False matches", DECISIONS, errors, "false_matches")
    yield _row("false_non_matches", "False non-matches", DECISIONS, errors, "false_non_matches")


def _val(result: Record) -> Iterator[Row]:
    """VAL at FAR as facenet's `validate_on_lfw` gives it, for comparison only."""
    point = result.get("val_at_far") or {}
    if point.get("val") is None:
        return
    target = rate_name(point.get("target") or 1e-3)
    note = f"FAR {shown(point.get('far'))}"
    if point.get("val_std") is not None:
        note = f"deviation {shown(point['val_std'])}, {note}"
    label = f"VAL at FAR {target}, mean of folds"
    low, high = point.get("val_ci") or (None, None)
    yield Row(f"val@{target}", label, SCORES, point["val"], low, high, note)


def _rates(result: Record) -> Iterator[Row]:
    """TAR at each rate, with what it rests on; the rates that were refused with their reason."""
    for rate, point in (result.get("tar_at_far") or {}).items():
        low, high = point.get("ci") or (None, None)
        words = [f"FAR {shown(point.get('far'))}"]
        if point.get("false_matches") is not None:
            words.append(f"false matches {shown(point['false_matches'])}")
        words.append(f"threshold {shown(point.get('threshold'))}")
        label, note = f"TAR at FAR {rate}", ", ".join(words)
        yield Row(f"tar@{rate}", label, SCORES, point.get("tar"), low, high, note)
    for rate, reason in (result.get("refused") or {}).items():
        yield Row(f"tar@{rate}", f"TAR at FAR {rate}", SCORES, None, note=str(reason))


def _searches(result: Record) -> Iterator[Row]:
    searches = result.get("identification") or {}
    for name, label in _COUNTS:
        yield _row(name, label, SEARCHES, searches, name)
    for rank, share in (searches.get("cmc") or {}).items():
        yield _point(f"rank@{rank}", f"Mate within rank {rank}", SEARCHES, share, "share")
    for rate, point in (searches.get("fnir_at_fpir") or {}).items():
        yield _point(f"fnir@{rate}", f"FNIR at FPIR {rate}", SEARCHES, point, "fnir")
    for rate, reason in (searches.get("refused") or {}).items():
        yield Row(f"fnir@{rate}", f"FNIR at FPIR {rate}", SEARCHES, None, note=str(reason))


def _point(metric: str, label: str, group: str, point: Any, name: str) -> Row:
    """A share that is a number, or a record with its interval and what it rests on."""
    if not isinstance(point, Mapping):
        return Row(metric, label, group, point)
    low, high = point.get("ci") or (None, None)
    note = ", ".join(
        f"{key.replace('_', ' ')} {shown(value)}"
        for key, value in point.items()
        if key not in (name, "ci") and _counts(value)
    )
    return Row(metric, label, group, point.get(name), low, high, note)


def _beyond(result: Record) -> Iterator[Row]:
    calibration = result.get("calibration") or {}
    yield _row("cllr", "Cllr, bits", BEYOND, calibration, "cllr")
    yield _row("min_cllr", "Least Cllr of any calibration", BEYOND, calibration, "min_cllr")
    for measure, curve in (result.get("quality") or {}).items():
        areas = {"20": curve.get("pauc_20"), **(curve.get("pauc") or {})}
        for limit, area in areas.items():
            share = f"{limit} %" if limit == "20" else limit
            label = f"pAUC of FNMR to {share} discarded, {measure}"
            yield Row(f"pauc_{limit}@{measure}", label, BEYOND, area)


def shown(value: Any) -> str:
    """A number for a person: counts whole, shares with four decimals, small ones as "3.3e-4".

    A share that is not 1 is never rounded to 1. None is a dash.
    """
    if value is None:
        return "\u2013"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:,.4f}"
    near = abs(value) < 1 and text.lstrip("-").startswith("1")
    return f"{math.trunc(value * 1e6) / 1e6:.6f}" if near else text


def interval(ends: Sequence[float] | None, *, signed: bool = False) -> str:
    """An interval for a person, after the number it belongs to."""
    if ends is None:
        return "[no interval]"
    low, high = (f"{end:+.4f}" if signed else f"{end:.4f}" for end in ends)
    return f"[{low}, {high}]"


def threshold_rows(result: Record) -> list[dict[str, float | int]]:
    """FMR and TAR at similarities, counted from the bins of the histogram.

    From where one non-mated pair in two is refused to where few mated pairs are accepted.
    """
    shown_bins = (result.get("curves") or {}).get("histogram") or {}
    if not shown_bins:
        return []
    mated, others = (_from_above(shown_bins[name]) for name in ("mated", "non_mated"))
    totals = result.get("mated") or mated[0], result.get("non_mated") or others[0]
    table = [
        {"similarity": edge, "fmr": o / totals[1], "tar": m / totals[0], "false_matches": o}
        for edge, m, o in zip(shown_bins["edges"], mated, others, strict=False)
        if totals[0] and totals[1] and o <= totals[1] / 2 and m >= totals[0] / 20
    ]
    return table[:: max(1, math.ceil(len(table) / THRESHOLDS))]


def fmr_rows(table: Record) -> list[dict[str, float | int]]:
    """The rows of a table of false matches: the first at or below each half and each decade."""
    pairs, found = table.get("pairs"), []
    listed = list(
        zip(table.get("similarity") or [], table.get("false_matches") or [], strict=False)
    )
    rates = [0.5, *(step * 10.0**-decade for decade in range(1, 10) for step in (1, 0.3))]
    for rate in rates:
        row = next((row for row in listed if pairs and row[1] <= rate * pairs), None)
        if row and row not in found:
            found.append(row)
    return [{"similarity": at, "fmr": count / pairs, "false_matches": count} for at, count in found]


def _counts(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _from_above(counts: Sequence[int]) -> list[int]:
    """How many are in a bin or above it."""
    total, found = 0, []
    for count in reversed(counts):
        total += count
        found.append(total)
    return found[::-1]
