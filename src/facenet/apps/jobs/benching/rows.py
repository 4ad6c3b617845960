"""The rows that `facenet bench` prints.

median and p95 are over runs: half of them, and 95 in 100 of them, were at least as fast. For a
rate, p95 is therefore the lower figure, for a time the higher one. ratio: what the peer takes,
divided by what facenet takes; above 1 facenet is faster, or smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
COLUMNS = ("name", "unit", "median", "p95", "runs", "peer", "peer_median", "ratio")


def timed(
    name: str,
    unit: str,
    ours: Sequence[Mapping[str, Any]],
    peer: str | None = None,
    theirs: Sequence[Mapping[str, Any]] | None = None,
) -> Row:
    """A row of runs, each with `seconds` and `items`. unit: "ms", "s", or a rate such as "x/s"."""
    clocks, other = _clocks(ours), _clocks(theirs or ())
    half, most = float(np.median(clocks)), float(np.percentile(clocks, 95))
    their_half = float(np.median(other)) if len(other) else None
    return {
        "name": name, "unit": unit, "median": _in(unit, half), "p95": _in(unit, most),
        "runs": len(clocks), "peer": peer,
        "peer_median": None if their_half is None else _in(unit, their_half),
        "ratio": None if their_half is None else their_half / half,
    }  # fmt: skip


def quantity(
    name: str,
    unit: str,
    value: float,
    peer: str | None = None,
    theirs: float | None = None,
    *,
    runs: int = 1,
) -> Row:
    """A row of one value: measured once, or made of the medians of so many runs.

    peer, theirs: of something that is less the better.
    """
    ratio = None if theirs is None or not value else theirs / value
    return {
        "name": name, "unit": unit, "median": value, "p95": value, "runs": runs,
        "peer": peer, "peer_median": theirs, "ratio": ratio,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Rows for a person: columns side by side, numbers to four digits."""
    lines = [list(COLUMNS), *([_cell(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    numbers = {COLUMNS.index(name) for name in ("median", "p95", "runs", "peer_median", "ratio")}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _clocks(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds an item, of each run."""
    return [answer["seconds"] / max(answer["items"], 1e-9) for answer in answers]


def _in(unit: str, seconds: float) -> float:
    """Seconds an item in a unit."""
    if unit.endswith("/s"):
        return 1 / max(seconds, 1e-12)
    return 1000 * seconds if unit == "ms" else seconds


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
