"""The figures of a report as SVG: the only module that uses matplotlib (extra `evaluate`).

The same numbers give the same bytes. Colours are CSS variables with a fallback, so that the page
decides on light or dark; no name from the data is drawn, legends are the page's. Error rates are
on logarithmic axes, as ISO/IEC 19795-1 asks of DET plots; a rate of zero is off such an axis.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.evaluate.curves import rate_name
from facenet.evaluate.svg import GRID, INK, MUTED, SERIES, inline, variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 300
"""Points of a line at most."""
TINY = 1e-12
"""What is left of zero when shares are subtracted."""
SIZE = (400, 290)
"""Units of a figure: CSS pixels on a page of full width."""
DASHES = ("", "6 2.5", "1.5 2", "7 2 1.5 2")
"""Dashes of models, in units: with the colours, twelve models can be told apart."""
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "facenet", "text.parse_math": False,
    "font.size": 11, "axes.titlesize": 11, "axes.titlecolor": MUTED, "axes.labelcolor": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "xtick.major.size": 0, "ytick.major.size": 0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.edgecolor": MUTED, "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID,
    "grid.linewidth": 0.8, "lines.linewidth": 1.6, "lines.scale_dashes": False,
    "axes.linewidth": 0.8, "axes.formatter.use_mathtext": False, "axes.unicode_minus": False,
}  # fmt: skip

Floats = NDArray[np.float64]
Models = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """name: of the figure, unique on a page. title: what it shows, in words. svg: the drawing,
    an element for a page. legend: what its lines are: "models", "kinds" or "discard". model: the
    row of the one model that it shows, or None. measure: of quality, as the data calls it."""

    name: str
    title: str
    svg: str
    legend: str
    model: int | None = None
    measure: str = ""


def require_matplotlib() -> None:
    """Import what figures need. Raises ImportError where it is missing or broken."""
    with quiet():
        import matplotlib.backends.backend_svg
        import matplotlib.figure  # noqa: F401


def style(number: int) -> tuple[str, str]:
    """Colour, as a CSS value, and dashes of the line of a model."""
    return variable(SERIES[number % len(SERIES)]), DASHES[number % len(DASHES)]


def draw(models: Models) -> dict[str, list[Drawing]]:
    """All figures that results have numbers for, by section of the report.

    models: the plain records. Raises InputError where the columns of a curve differ in length.
    """
    with quiet(), _defaults():
        return {
            "errors": [*_roc(models), *_det(models)],
            "histograms": list(_histograms(models)),
            "identification": [*_cmc(models), *_searches(models), *_scaling(models)],
            "quality": list(_discards(models)),
            "calibration": list(_reliability(models)),
        }


def _roc(models: Models) -> Iterator[Drawing]:
    lines = _curves(models, "curves", "roc", x="fmr", y="tmr")
    lines = [(n, x[x > 0], y[x > 0]) for n, x, y in lines if (x > 0).any()]
    if not lines:
        return
    axes = _axes("False-match rate (log)", "True-match rate")
    _log(axes, "x", [x for _, x, _ in lines])
    for number, x, y in lines:
        _line(axes, x, y, number, steps=True)
        _whiskers(axes, models[number], number, lambda tar: tar)
    low = min(float(column.min()) for column in (*(y for _, _, y in lines), _ends(models)))
    axes.set_ylim(_floor(low), 1.002)
    yield _drawing(axes, "roc", "ROC: true matches at each false-match rate", "models")


def _det(models: Models) -> Iterator[Drawing]:
    lines = [(n, x, 1 - y) for n, x, y in _curves(models, "curves", "roc", x="fmr", y="tmr")]
    lines = _above_zero(lines)
    if not lines:
        return
    axes = _axes("False-match rate (log)", "False-non-match rate (log)")
    _log(axes, "x", [x for _, x, _ in lines])
    _log(axes, "y", [*(y for _, _, y in lines), 1 - _ends(models)])
    edge = (max(axes.get_xlim()[0], axes.get_ylim()[0]), 1.0)
    axes.plot(edge, edge, color=MUTED, linewidth=0.8, linestyle=(0, (1.5, 3)))
    for number, x, y in lines:
        _line(axes, x, y, number, steps=True)
        _whiskers(axes, models[number], number, lambda tar: 1 - tar)
    yield _drawing(axes, "det", "DET: the two errors against each other", "models")


def _histograms(models: Models) -> Iterator[Drawing]:
    for number, model in enumerate(models):
        shown = _within(model, "curves", "histogram")
        if not shown:
            continue
        edges, mated, others = _wider(*_columns(shown, "edges", "mated", "non_mated", longer=1))
        axes = _axes("Similarity", "Pairs per bin (log)")
        _log(axes, "y", [mated, others, np.array([1.0])])
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom, top * (top / bottom) ** 0.12)  # room for the word at the threshold
        for counts, colour in ((others, SERIES[1]), (mated, SERIES[0])):
            height = np.where(counts > 0, counts, bottom)
            axes.stairs(height, edges, baseline=bottom, color=colour, alpha=0.22, fill=True)
            axes.stairs(height, edges, baseline=bottom, color=colour)
        filled = np.flatnonzero(mated + others)
        if len(filled):
            axes.set_xlim(edges[filled[0]], edges[filled[-1] + 1])
        if model.get("threshold") is not None:
            _threshold(axes, float(model["threshold"]))
        title = "Similarities of mated and non-mated pairs"
        yield _drawing(axes, f"histogram{number}", title, "kinds", number)


def _wider(edges: Floats, *counts: Floats) -> tuple[Floats, ...]:
    """Bins put together until there are half as many as a line has points."""
    starts = np.arange(0, len(edges) - 1, math.ceil(2 * (len(edges) - 1) / POINTS) or 1)
    joined = (np.add.reduceat(column, starts) for column in counts)
    return np.append(edges[starts], edges[-1]), *joined


def _threshold(axes: Axes, value: float) -> None:
    low, high = axes.get_xlim()
    left = value < (low + high) / 2
    axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    axes.annotate(
        f"threshold {value:.3f}", (value, 0.97), xycoords=("data", "axes fraction"),
        xytext=(4 if left else -4, 0), textcoords="offset points", color=INK, va="top",
        ha="left" if left else "right",
    )  # fmt: skip


def _cmc(models: Models) -> Iterator[Drawing]:
    lines = []
    for number, model in enumerate(models):
        shares = _numbers(_within(model, "identification").get("cmc_curve") or [])
        if len(shares):
            lines.append((number, np.arange(1.0, len(shares) + 1), shares))
    if not lines:
        return
    axes = _axes("Rank (log)", "Mated searches with their mate up to the rank")
    _log(axes, "x", [x for _, x, _ in lines], name=lambda rank: f"{rank:g}")
    for number, x, y in lines:
        _line(axes, x, y, number, steps=True)
    low = min(float(np.nanmin(y)) for _, _, y in lines)
    axes.set_ylim(_floor(low), 1.002)
    yield _drawing(axes, "cmc", "CMC: at which rank the mate comes", "models")


def _searches(models: Models) -> Iterator[Drawing]:
    lines = _curves(models, "identification", "fnir_curve", x="fpir", y="fnir")
    lines = _above_zero(lines)
    if not lines:
        return
    axes = _axes("FPIR: false-positive identifications (log)", "FNIR: missed mates (log)")
    _log(axes, "x", [x for _, x, _ in lines])
    _log(axes, "y", [y for _, _, y in lines])
    for number, x, y in lines:
        _line(axes, x, y, number, steps=True)
    yield _drawing(axes, "fnir", "Searches: misses at each rate of false alarms", "models")


def _scaling(models: Models) -> Iterator[Drawing]:
    lines = []
    for number, model in enumerate(models):
        rows = _within(model, "identification").get("scaling") or []
        sizes = {"gallery": [row.get("gallery") for row in rows],
                 "fnir": [row.get("fnir") for row in rows]}  # fmt: skip
        x, y = _pairs(*_columns(sizes, "gallery", "fnir"))
        if len(x):
            lines.append((number, x, y))
    if not lines:
        return
    axes = _axes("People in the gallery (log)", "FNIR: missed mates")
    _log(axes, "x", [x for _, x, _ in lines], name=lambda size: f"{size:,.0f}")
    for number, x, y in lines:
        _line(axes, x, y, number, marker="o")
    axes.set_ylim(bottom=0)
    yield _drawing(axes, "scaling", "Searches: misses as the gallery grows", "models")


def _discards(models: Models) -> Iterator[Drawing]:
    kinds = ("fnmr", "oracle", "random")
    for number, model in enumerate(models):
        for place, (measure, curve) in enumerate((model.get("quality") or {}).items()):
            columns = {"discard": curve.get("discard") or curve.get("fraction") or [], **curve}
            if not columns["discard"] or not curve.get("fnmr"):
                continue
            if isinstance(curve.get("random"), float):  # the same at every share
                columns["random"] = [curve["random"]] * len(columns["discard"])
            axes = _axes("Share of the pairs discarded, worst quality first", "FNMR")
            for row, kind in enumerate(kinds):
                if columns.get(kind):
                    _line(axes, *_pairs(*_columns(columns, "discard", kind)), row)
            axes.set_ylim(bottom=0)
            name, title = f"discard{number}n{place}", "Errors left as the worst are discarded"
            yield _drawing(axes, name, title, "discard", number, measure=measure)


def _reliability(models: Models) -> Iterator[Drawing]:
    lines = _curves(models, "calibration", "reliability", x="predicted", y="observed")
    if not lines:
        return
    axes = _axes("Probability that was predicted", "Share that was of one person")
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8, linestyle=(0, (1.5, 3)))
    for number, x, y in lines:
        _line(axes, x, y, number, marker="o")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    yield _drawing(axes, "reliability", "Reliability: how often a probability comes true", "models")


def _within(record: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A record inside a record; empty where one on the way is absent."""
    for name in names:
        record = record.get(name) or {}
    return record


def _curves(models: Models, *names: str, x: str, y: str) -> list[tuple[int, Floats, Floats]]:
    """A curve of each model that has one, with the row of the model."""
    found = []
    for number, model in enumerate(models):
        curve = _within(model, *names)
        if curve:
            first, second = _pairs(*_columns(curve, x, y))
            if len(first):
                found.append((number, first, second))
    return found


def _above_zero(lines: Sequence[tuple[int, Floats, Floats]]) -> list[tuple[int, Floats, Floats]]:
    """The points that logarithmic axes have a place for."""
    masks = [(x > TINY) & (y > TINY) for _, x, y in lines]
    kept = [(n, x[mask], y[mask]) for (n, x, y), mask in zip(lines, masks, strict=True)]
    return [line for line in kept if len(line[1])]


def _numbers(values: Sequence[Any]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _columns(curve: Mapping[str, Any], *names: str, longer: int = 0) -> list[Floats]:
    """Columns of a curve; the first one is `longer` than the others by so many."""
    columns = [_numbers(curve.get(name) or []) for name in names]
    if len({len(columns[0]) - longer, *(len(column) for column in columns[1:])}) != 1:
        counts = ", ".join(f"{len(column)} {n}" for n, column in zip(names, columns, strict=True))
        raise InputError(
            f"The columns of a curve in a report should fit each other; got {counts}. Make the "
            "report anew."
        )
    return columns


def _pairs(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Points that are numbers, `POINTS` of them at most, the first and the last among them."""
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(rows) > POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, POINTS).round().astype(int)]
    return x[rows], y[rows]


def _axes(x: str, y: str) -> Axes:
    """An empty plot: the name of the ordinate stands above it, where it is read."""
    from matplotlib.figure import Figure

    width, height = SIZE
    axes = Figure(figsize=(width / 72, height / 72)).add_axes((0.115, 0.145, 0.865, 0.765))
    axes.set_xlabel(x)
    axes.set_title(y, loc="left")
    return axes


def _line(
    axes: Axes, x: Floats, y: Floats, number: int, *, steps: bool = False, marker: str = ""
) -> None:
    dashes = [float(length) for length in DASHES[number % len(DASHES)].split()]
    axes.plot(
        x, y, color=SERIES[number % len(SERIES)], marker=marker, markersize=4,
        linestyle=(0, dashes) if dashes else "-", drawstyle="steps-post" if steps else "default",
    )  # fmt: skip


def _whiskers(
    axes: Axes, model: Mapping[str, Any], number: int, turn: Callable[[float], float]
) -> None:
    """The intervals of the rates that are in the table, at the rates that came about."""
    colour = SERIES[number % len(SERIES)]
    for far, tar, ends in _points(model):
        axes.plot((far, far), [turn(end) for end in ends], color=colour, linewidth=3.5, alpha=0.3)
        axes.plot(far, turn(tar), "o", color=colour, markersize=4.5)


def _points(model: Mapping[str, Any]) -> Iterator[tuple[float, float, Sequence[float]]]:
    """Realised FAR, TAR and its interval, of the rates that have all three."""
    for point in (model.get("tar_at_far") or {}).values():
        far, tar, ends = point.get("far"), point.get("tar"), point.get("ci")
        if far and tar is not None and ends and None not in ends:
            yield far, tar, ends


def _ends(models: Models) -> Floats:
    """The lower ends of all intervals of TAR, and 1: never empty."""
    return np.array([1.0, *(ends[0] for model in models for _, _, ends in _points(model))])


def _floor(share: float) -> float:
    """The foot of an axis of shares: in steps of 0.05, below what is shown."""
    return max(0.0, math.floor((share - 1e-9) * 20) / 20)


def _log(
    axes: Axes, which: str, columns: Sequence[Floats], *, name: Callable[[float], str] | None = None
) -> None:
    """A logarithmic axis over what is above zero, with ticks at decades, or closer on few."""
    from matplotlib.ticker import FixedLocator, NullLocator

    shown = np.concatenate([column[column > 0] for column in columns] or [np.ones(1)])
    shown = shown if len(shown) else np.ones(1)
    low, high = float(shown.min()), float(shown.max())
    low, high = low / 1.1, max(high * 1.02, low * 1.5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    width = math.log10(high / low)
    steps = (1,) if width > 2.6 else (1, 3) if width > 1.3 else (1, 2, 5)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    ticks = ticks[:: math.ceil(len(ticks) / 7)] if ticks else [low]
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_ticklabels([(name or _tick)(tick) for tick in ticks])


def _tick(value: float) -> str:
    """A tick: "1e-3", "0.05", "200", "1e4"."""
    return f"{value:g}" if 0.01 <= value < 10_000 else rate_name(value)


def _drawing(
    axes: Axes, name: str, title: str, legend: str, model: int | None = None, *, measure: str = ""
) -> Drawing:
    buffer, figure = BytesIO(), cast("Figure", axes.figure)
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Drawing(name, title, inline(buffer.getvalue(), name, title), legend, model, measure)


@contextmanager
def quiet() -> Iterator[None]:
    """matplotlib's notes on its font cache and on settings files stay out of the user's sight."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _defaults() -> Iterator[None]:
    """Settings of our own, whatever the user's `matplotlibrc` says; put back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield
