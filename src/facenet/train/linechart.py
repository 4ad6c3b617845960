"""Curves of a training run as SVG, without matplotlib: an element for a page, numbers only.

Looks as the figures of `facenet.evaluate.plots` do, and takes its colours: CSS variables of the
page, with a fallback. No name from the data is drawn; legends are the page's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from facenet.evaluate.plots import SIZE, style
from facenet.evaluate.svg import GRID, INK, MUTED, variable

POINTS = 300
"""Points of a line at most; where there are more lines in the log, each is the mean of several."""
LEFT, RIGHT, TOP, BOTTOM = 46, 392, 26, 248
"""Edges of the field, in units of SIZE."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line. x, y: same length; y None where there is no number, which breaks the line.

    marked: with a dot at each point.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    marked: bool = False


def chart(name: str, title: str, ordinate: str, curves: Sequence[Curve]) -> str:
    """A drawing of the curves over the step, or "" when there is no number in them.

    name: unique on the page, of letters and digits. title: what a reader hears. ordinate: what
    stands above the field. These three come from the program, never from data.
    The ordinate is logarithmic where all is above 0 and the largest is 30 times the least.
    """
    thinned = [_thinned(curve) for curve in curves]
    points = [p for pieces, _ in thinned for piece in pieces for p in piece]
    if not points:
        return ""
    x_axis = _Axis(0, max(1.0, *(x for x, _ in points)), LEFT, RIGHT, whole=True)
    reach = [y for _, spread in thinned for _, *ends in spread for y in ends]
    low, high = (pick((*(y for _, y in points), *reach)) for pick in (min, max))
    y_axis = _Axis(low, high, BOTTOM, TOP, log=low > 0 and high / low > 30)
    width, height = SIZE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{name}-title"><title id="{name}-title">{title}</title>',
        *_frame(x_axis, y_axis, ordinate + (" (log)" if y_axis.log else "")),
    ]
    for number, (pieces, spread) in enumerate(thinned):
        parts += _drawn(pieces, spread, curves[number].marked, number, (x_axis, y_axis))
    return "".join(parts) + "</svg>"


class _Axis:
    """Places of values between two edges of the field, and the values that have a tick.

    whole: of whole numbers, and without room beyond the first and the last.
    """

    def __init__(
        self, low: float, high: float, begin: float, end: float, *, log: bool = False,
        whole: bool = False,
    ) -> None:  # fmt: skip
        self.log, self._whole = log, whole
        self._begin, self._end = begin, end
        low, high = self._scaled(low), self._scaled(high)
        largest = max(abs(low), abs(high), 1e-9)
        flat = high - low < 1e-9 * largest
        margin = (0.05 * largest if flat else 0.04 * (high - low)) * (not whole)
        self._low, self._high = low - margin, high + margin

    def place(self, value: float) -> float:
        """Where a value is, in units of the drawing."""
        share = (self._scaled(value) - self._low) / (self._high - self._low)
        return self._begin + min(1.0, max(0.0, share)) * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Three to eight round values."""
        if self.log:
            decades = range(math.ceil(self._low), math.floor(self._high) + 1)
            steps = (1,) if len(decades) > 2 else (1, 2, 5)
            every = math.ceil(len(decades) / 8) or 1
            wide = range(math.floor(self._low), math.ceil(self._high) + 1, every)
            found = [step * 10.0**decade for decade in wide for step in steps]
            return [v for v in found if v > 0 and self._low <= math.log10(v) <= self._high]
        raw = (self._high - self._low) / 7
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(s * size for s in (1, 2, 5, 10) if s * size >= raw)
        step = max(step, 1.0) if self._whole else step
        first = math.ceil(self._low / step)
        return [row * step for row in range(first, math.floor(self._high / step) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def _thinned(curve: Curve) -> tuple[list[list[Point]], list[tuple[float, float, float]]]:
    """The unbroken pieces of a line, and x, least and most of y where points stand for several."""
    size = math.ceil(len(curve.x) / POINTS) or 1
    pieces: list[list[Point]] = [[]]
    spread: list[tuple[float, float, float]] = []
    for begin in range(0, len(curve.x), size):
        values = [y for y in curve.y[begin : begin + size] if y is not None and math.isfinite(y)]
        if not values:
            pieces.append([])
            continue
        x = sum(curve.x[begin : begin + size]) / len(curve.x[begin : begin + size])
        pieces[-1].append((x, sum(values) / len(values)))
        if size > 1:
            spread.append((x, min(values), max(values)))
    return [piece for piece in pieces if piece], spread


def _frame(x_axis: _Axis, y_axis: _Axis, ordinate: str) -> list[str]:
    """Grid, ticks and names of the axes."""
    grid, ink, muted = variable(GRID), variable(INK), variable(MUTED)
    parts = []
    for value in y_axis.ticks():
        y = y_axis.place(value)
        parts.append(_line(LEFT, y, RIGHT, y, grid))
        parts.append(_text(LEFT - 5, y + 4, _tick(value), ink, "end"))
    for value in x_axis.ticks():
        x = x_axis.place(value)
        parts.append(_line(x, TOP, x, BOTTOM, grid))
        parts.append(_text(x, BOTTOM + 16, _tick(value), ink, "middle"))
    parts.append(_line(LEFT, BOTTOM, RIGHT, BOTTOM, muted))
    parts.append(_text((LEFT + RIGHT) / 2, BOTTOM + 34, "Step", muted, "middle"))
    parts.append(_text(LEFT, TOP - 9, ordinate, muted, "start"))
    return parts


def _drawn(
    pieces: list[list[Point]], spread: list[tuple[float, float, float]], marked: bool, number: int,
    axes: tuple[_Axis, _Axis],
) -> list[str]:  # fmt: skip
    """The marks of one curve: the range behind, the line, dots where they are wanted or alone."""
    colour, dashes = style(number)
    x_axis, y_axis = axes
    parts = []
    if spread:
        around = [(x, high) for x, _, high in spread] + [(x, low) for x, low, _ in spread[::-1]]
        parts.append(
            f'<polygon points="{_places(around, x_axis, y_axis)}" '
            f'style="fill: {colour}; opacity: 0.18"/>'
        )
    for piece in pieces:
        dashed = f"; stroke-dasharray: {dashes}" if dashes else ""
        parts.append(
            f'<polyline points="{_places(piece, x_axis, y_axis)}" '
            f'style="fill: none; stroke: {colour}; stroke-width: 1.6{dashed}"/>'
        )
        for x, y in piece if marked or len(piece) == 1 else ():
            parts.append(
                f'<circle cx="{x_axis.place(x):.1f}" cy="{y_axis.place(y):.1f}" r="2.4" '
                f'style="fill: {colour}"/>'
            )
    return parts


def _places(points: Sequence[Point], x_axis: _Axis, y_axis: _Axis) -> str:
    return " ".join(f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in points)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'style="stroke: {colour}; stroke-width: 0.8"/>'
    )


def _text(x: float, y: float, words: str, colour: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'style="font-size: 11px; fill: {colour}">{words}</text>'
    )


def _tick(value: float) -> str:
    """A tick: "0.05", "200", "20k", "1e-4"."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{round(value, 10):g}"
