"""The networks of MTCNN, run: which cells of a pyramid level hold a face, what crops show.

A network can be looked through twice. First a quick engine (bfloat16) looks at everything; what it
scores above the threshold less a `MARGIN` is looked at again by the exact one (fp32), and
only that counts. P-net's answer for a cell depends on 12 x 12 pixels alone, so cells can be asked
about one by one. The answers are those of the exact engine alone as long as the quick one is
nowhere further off than the margin; `scripts/agreement.py` measures how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from time import perf_counter

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from facenet.faces.boxes import Indices
from facenet.models.engine import Engine
from facenet.types import FloatArray

CELL, STRIDE = 12, 2
"""Field of view of P-net and the step between its cells, in pixels of a level."""
MARGIN = {"pnet": 0.1, "rnet": 0.05}
"""How far below the threshold the quick engine may score what the exact one lets pass. O-net lets
too many crops pass for a quick look to be worth its while."""
MUCH = {"pnet": 1 << 18, "rnet": 256}
"""Pixels of levels, crops, from which on a quick look pays."""
CHUNKS = {"pnet": 1024, "rnet": 128, "onet": 32}
"""Crops that go through a network at once: bounds memory (facenet-pytorch#105)."""
TRIED = 256
"""Side of the level that two engines are compared with."""
GAIN = 1.3
"""How many times as quick as the exact engine the quick one has to be."""

Answer = dict[str, FloatArray]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """Pixels of levels that answer for some of their cells.

    pixels: float32 (m, 3, h, w). cells: numbers of the cells (k,). where: for each the number of
    its picture among the m and its row and column in the answer, (3, k).
    """

    pixels: FloatArray
    cells: Indices
    where: Indices


@dataclass(frozen=True, slots=True)
class Asked:
    """Cells of levels of one size that are asked about: numbers of their levels, rows and columns,
    int64 (n,), level by level.

    width: columns that a level has in all. parts: what answers for them. answer: what is known
    already, scores (n,) and offsets (n, 4).
    """

    levels: Indices
    rows: Indices
    columns: Indices
    width: int
    parts: tuple[Part, ...] = ()
    answer: tuple[FloatArray, FloatArray] | None = None


class Networks:
    """P-, R- and O-net.

    exact: engines "pnet", "rnet" and "onet" as in the card `mtcnn`. quick: gives the same networks
    in quicker arithmetic, or nothing; called when there is so much to look at that it pays, see
    `MUCH`.
    """

    def __init__(
        self,
        exact: Mapping[str, Engine],
        quick: Callable[[], Mapping[str, Engine]] = dict,
        *,
        much: Mapping[str, int] = MUCH,
    ) -> None:
        self._exact, self._make_quick, self._much = exact, quick, much

    @cached_property
    def _quick(self) -> Mapping[str, Engine]:
        return self._make_quick()

    def looks_quickly(self, net: str, much: int) -> bool:
        """Whether a network looks quickly first: at a level of so many pixels, so many crops."""
        return much >= self._much.get(net, inf) and net in self._quick

    def _scans_quickly(self, levels: FloatArray) -> bool:
        return self.looks_quickly("pnet", levels.size // 3)

    def scan(self, levels: FloatArray) -> Answer:
        """What P-net says of levels of one size, float32 (n, 3, h, w), standardised: "score"
        (n, r, c) and "offset" (n, 4, r, c) of their cells, only scores within `MARGIN` where it
        looks quickly."""
        engines = self._quick if self._scans_quickly(levels) else self._exact
        return engines["pnet"].run({"image": levels})

    def pick(
        self, levels: FloatArray, scanned: Answer, threshold: float, *, by_column: bool
    ) -> Asked:
        """The cells of scanned levels, float32 (n, 3, h, w), that may reach a threshold.

        scanned: what `scan` said of them. by_column: counted down the columns, else along the
        rows.
        """
        score, quick = scanned["score"], self._scans_quickly(levels)
        reached = score >= (threshold - MARGIN["pnet"] if quick else threshold)
        if by_column:
            numbers, columns, rows = _true(reached.swapaxes(1, 2))
        else:
            numbers, rows, columns = _true(reached)
        if quick:
            return self.cut(levels, (numbers, rows, columns))
        answer = score[numbers, rows, columns], scanned["offset"][numbers, :, rows, columns]
        return Asked(numbers, rows, columns, score.shape[2], answer=answer)

    def cut(self, levels: FloatArray, cells: tuple[Indices, Indices, Indices]) -> Asked:
        """Cells of levels, float32 (n, 3, h, w), standardised, with their pixels.

        cells: number of the level, row and column of each, (k,), level by level.

        Where a level ends a pixel too early for its last row or column, P-net pools what there
        is; those cells are asked about together.
        """
        (numbers, rows, columns), (height, width) = cells, levels.shape[2:]
        below = STRIDE * rows + CELL > height
        beside = (STRIDE * columns + CELL > width) & ~below
        nowhere = np.zeros_like(rows)
        edges = (
            (below, levels[:, :, 1 - CELL :], (nowhere, columns)),
            (beside, levels[:, :, :, 1 - CELL :], (rows, nowhere)),
        )
        parts = []
        for edge, pixels, where in edges:
            if np.any(edge):
                those, at = np.unique(numbers[edge], return_inverse=True)
                there = np.stack([at, *(axis[edge] for axis in where)])
                parts.append(Part(pixels[those], np.flatnonzero(edge), there))
        inside = np.flatnonzero(~(below | beside))
        if len(inside):
            windows = sliding_window_view(levels, (CELL, CELL), axis=(2, 3))
            windows = windows[:, :, ::STRIDE, ::STRIDE]
            pixels = windows[numbers[inside], :, rows[inside], columns[inside]]
            there = np.stack([np.arange(len(inside)), nowhere[inside], nowhere[inside]])
            parts.append(Part(pixels, inside, there))
        return Asked(numbers, rows, columns, -(-(width - 2) // STRIDE) - 4, tuple(parts))

    def look(self, asked: Asked) -> tuple[FloatArray, FloatArray]:
        """What the exact engine says of cells: scores (n,) and offsets (n, 4)."""
        if asked.answer:
            return asked.answer
        scores = np.empty(len(asked.rows), np.float32)
        offsets = np.empty((len(asked.rows), 4), np.float32)
        for part in asked.parts:
            said = _run(self._exact["pnet"], "pnet", part.pixels)
            number, row, column = part.where
            scores[part.cells] = said["score"][number, row, column]
            offsets[part.cells] = said["offset"][number, :, row, column]
        return scores, offsets

    def near(self, net: str, crops: FloatArray, threshold: float) -> Mask:
        """Which crops, float32 (n, 3, side, side), standardised, "rnet" or "onet" has to judge
        exactly: bool (n,); to be asked where it `looks_quickly`. The others surely score below the
        threshold."""
        score = _run(self._quick[net], net, crops)["score"]
        return np.asarray(score > threshold - MARGIN[net])

    def judge(self, net: str, crops: FloatArray) -> Answer:
        """What "rnet" or "onet" says of crops, float32 (n, 3, side, side), standardised.

        Returns "score" (n,), "offset" (n, 4) and from O-net "landmark" (n, 10).
        """
        return _run(self._exact[net], net, crops)


def is_quicker(
    quick: Engine,
    exact: Engine,
    *,
    side: int = TRIED,
    clock: Callable[[], float] = perf_counter,
) -> bool:
    """Whether a network that takes one picture, such as P-net, is much quicker on one engine: so
    much that looking twice takes less time.

    side: of the picture, where the network takes any. Processors with bfloat16 but without its
    matrix units (AMX) are slower with it.
    """
    ((name, (_, _, height, width)),) = exact.inputs.items()
    level = np.zeros((1, 3, height or side, width or side), np.float32)

    def seconds(engine: Engine) -> float:
        times = []
        for _ in range(4):
            start = clock()
            engine.run({name: level})
            times.append(clock() - start)
        return min(times[1:])

    return seconds(quick) * GAIN < seconds(exact)


def _true(mask: Mask) -> tuple[Indices, ...]:
    """`np.nonzero` of few in many, eight times as fast."""
    return np.unravel_index(np.flatnonzero(mask), mask.shape)


def _run(engine: Engine, net: str, crops: FloatArray) -> Answer:
    """Run an engine on crops (n, 3, h, w), n >= 1, some at once.

    The rest is filled up to a round number: a runtime prepares itself for each number of crops
    that it has not had yet, and may add up a single one in another order.
    """
    parts, size = [], CHUNKS[net]
    for start in range(0, len(crops), size):
        part = crops[start : start + size]
        full = min(_round(len(part), 1 if net == "pnet" else 2), size)
        filled = np.zeros((full, *part.shape[1:]), np.float32)
        filled[: len(part)] = part
        answer = engine.run({"image": filled})
        parts.append({name: values[: len(part)] for name, values in answer.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _round(count: int, least: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below `count` and `least`."""
    double = max(least, 1 << (count - 1).bit_length())
    return double * 3 // 4 if double > 2 and count <= double * 3 // 4 else double
