"""The rows of `facenet bench` as bars: facenet's beside a peer's, with the ratio written on them.

The same rows give the same bytes of SVG. A panel for each unit, since bars of two units cannot be
compared; the second module that uses matplotlib (extra `evaluate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.errors import InputError, MissingExtraError, SettingsError, StorageError
from facenet.evaluate.plots import SETTINGS, quiet, require_matplotlib
from facenet.evaluate.svg import GRID, INK, MUTED, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (".svg", ".png")
LINE = 0.34
"""Inches of a row."""
PANEL = 0.75
"""Inches around the rows of a panel."""
WIDTH = 9.0
PEER = "#9aa4af"
OWN = ("facenet", "exact")
"""Peers that are facenet itself."""

COSTS = ("ms", "s", "MB", "GB")
"""Units, or what of them stands before "/", of which less is better."""
SHARES = ("share ", "times ", "queries ")
"""Beginnings of units of which more is better, as of rates, which end with "/s"."""

Rows = Sequence[Mapping[str, Any]]


def require_chart(path: Path) -> None:
    """See that a chart can be drawn, before what it shows is measured.

    Raises SettingsError for an ending but .svg and .png, MissingExtraError without matplotlib.
    """
    if path.suffix.lower() not in KINDS:
        raise SettingsError(f"A chart should be a file {' or '.join(KINDS)}; got {path.name:.80}.")
    try:
        require_matplotlib()
    except ImportError as error:
        raise MissingExtraError(
            f"Charts need matplotlib; its import failed: {str(error)[:120]}. Install it with "
            '`pip install "facenet[evaluate]"`.'
        ) from error


def save_chart(rows: Rows, path: Path) -> None:
    """Draw rows into a file, .svg or .png: those with a peer, or all where none has one.

    Rows that compare facenet with itself (a floor) are not drawn. Raises as `require_chart`,
    InputError when there are no rows, StorageError when the file cannot be written.
    """
    require_chart(path)
    import matplotlib

    drawn = [row for row in rows if row["peer"] not in OWN]
    kept = [row for row in drawn if row["peer_median"] is not None] or drawn
    if not kept:
        raise InputError("A chart should have rows; there are none.")
    with quiet(), matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = _figure(kept)
        try:
            metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
            figure.savefig(path, dpi=150, facecolor="white", metadata=metadata)
        except OSError as error:
            raise StorageError(f"Cannot write {path}: {error.strerror or error}.") from error


def _figure(rows: Rows) -> Figure:
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(map(_kind, rows)))
    panels = [[row for row in rows if _kind(row) == kind] for kind in kinds]
    heights = [LINE * len(panel) + PANEL for panel in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    places = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, panel in zip(places[:, 0], panels, strict=True):
        _panel(axes, panel)
    return figure


def _kind(row: Mapping[str, Any]) -> tuple[str, bool]:
    """Rows of one kind share a panel: of one unit, a search by itself."""
    return row["unit"], row["name"].startswith("search/")


def _panel(axes: Axes, rows: Rows) -> None:
    """One unit: the first row at the top, facenet's bar above its peer's."""
    widest = max(max(row["median"], row["peer_median"] or 0.0) for row in rows)
    for place, row in enumerate(rows):
        alone = row["peer_median"] is None
        thick = 0.7 if alone else 0.38
        top = place - (0 if alone else 0.2)
        axes.barh(top, row["median"], thick, color=SERIES[0])
        text = _shown(row["median"]) + ("" if alone else f"   ({row['ratio']:.2f} times)")
        _write(axes, row["median"], top, text, INK)
        if not alone:
            axes.barh(place + 0.2, row["peer_median"], thick, color=PEER)
            label = f"{_shown(row['peer_median'])} {row['peer']}"
            _write(axes, row["peer_median"], place + 0.2, label, MUTED)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, widest * 1.3 or 1.0)
    axes.set_title(_title(rows[0]["unit"]), loc="left")
    axes.grid(False, axis="y")
    axes.grid(color=GRID, axis="x")


def _title(unit: str) -> str:
    """A unit with what is better, where that is not plain."""
    if unit.split("/")[0] in COSTS:
        return f"{unit} (less is better)"
    return f"{unit} (more is better)" if unit.startswith(SHARES) else unit


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _write(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
        color=colour,
    )  # fmt: skip
