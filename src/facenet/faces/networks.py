"""The networks of MTCNN, run: which cells of a pyramid level hold a face, what crops show.

A network can be looked through twice. First a glance, or else a quick engine, looks at everything
in bfloat16; what it scores above the threshold less a `MARGIN` is looked at again by the exact
engine (fp32), and only that counts. P-net's answer for a cell depends on 12 x 12 pixels alone, so
cells can be asked about one by one. The answers are those of the exact engine alone as long as the
quick look is nowhere further off than the margin; `scripts/agreement.py` measures how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from time import perf_counter

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from facenet.faces.boxes import Indices
from facenet.faces.compiled import Find, compiled
from facenet.faces.glance import MARGIN, Glances, log_odds
from facenet.models.engine import Engine, rounded
from facenet.types import FloatArray

CELL, STRIDE = 12, 2
"""Field of view of P-net and the step between its cells, in pixels of a level."""
MUCH = {"pnet": 1 << 18, "rnet": 256}
"""Pixels of levels, crops, from which on a quick look with a quick engine pays."""
FEW = 16
"""Crops from which on a glance of R-net pays, where there is one; one of P-net always does."""
ALONE = 40
"""Pixels of a level that take as long as a cell that is asked about alone."""
CHUNKS = {"pnet": 256, "rnet": 128, "onet": 32}
"""Crops that go through a network at once: bounds memory (facenet-pytorch#105)."""
TRIED = 256
"""Side of the level that two engines are compared with."""
GAIN = 1.3
"""How many times as quick as the exact engine the quick one has to be."""
LEAST = 8
"""Crops that a network is given at once at least, where there are as many."""

Answer = dict[str, FloatArray]
Each = Callable[[Callable[[slice], Answer], Sequence[slice]], Iterable[Answer]]
Mask = NDArray[np.bool_]

NO_WINDOWS = np.zeros((0, 3, CELL, CELL), np.float32)
NO_SIZES = np.zeros((2, 0), np.uint8)
NO_OFFSETS = np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Cells of levels of one size that are asked about: numbers of their levels, rows and columns,
    int64 (n,), level by level.

    width: columns that a level has in all. windows: what P-net sees of each, float32
    (n, 3, `CELL`, `CELL`). sizes: how many rows and columns of that are in the level, (2, n).
    answer: what is known already, scores (n,) and offsets (n, 4); then there are no windows.
    """

    levels: Indices
    rows: Indices
    columns: Indices
    width: int
    windows: FloatArray
    sizes: NDArray[np.uint8]
    answer: tuple[FloatArray, FloatArray] | None = None


class Networks:
    """P-, R- and O-net.

    exact: engines "pnet", "rnet" and "onet" as in the card `mtcnn`. quick: gives the same networks
    in quicker arithmetic, or nothing; called when there is so much to look at that it pays, see
    `MUCH`. glances: gives what is quicker still, and is used in the place of `quick`.
    """

    def __init__(
        self,
        exact: Mapping[str, Engine],
        quick: Callable[[], Mapping[str, Engine]] = dict,
        *,
        glances: Callable[[], Glances] = Glances,
        much: Mapping[str, int] = MUCH,
        alone: int = ALONE,
    ) -> None:
        self._exact, self._make_quick, self._make_glances = exact, quick, glances
        self._much, self._alone = much, alone

    @cached_property
    def _quick(self) -> Mapping[str, Engine]:
        return self._make_quick()

    @cached_property
    def _glances(self) -> Glances:
        return self._make_glances()

    def looks_quickly(self, net: str, much: int) -> bool:
        """Whether a network looks quickly first: at levels of so many pixels, so many crops."""
        if net == "rnet" and much >= FEW and self._glances.rnet is not None:
            return True
        return much >= self._much.get(net, inf) and net in self._quick

    def survey(self, levels: FloatArray, threshold: float, *, by_column: bool) -> Asked:
        """The cells of levels of one size that may reach a threshold.

        levels: float32 (n, 3, h, w), standardised. by_column: cells are counted down the columns,
        else along the rows. Where a quick look leaves too many cells, all are asked about.
        """
        near = self._near_cells(levels, threshold - MARGIN["pnet"])
        if near is not None:
            cells = _cells_of(near, by_column)
            if len(cells[0]) * self._alone <= levels.size // 3:
                return self.cut(levels, cells)
        answer = self._exact["pnet"].run({"image": levels})
        score, offset = answer["score"], answer["offset"]
        numbers, rows, columns = _cells_of(score >= threshold, by_column)
        said = score[numbers, rows, columns], offset[numbers, :, rows, columns]
        return Asked(numbers, rows, columns, score.shape[2], NO_WINDOWS, NO_SIZES, said)

    def _near_cells(self, levels: FloatArray, threshold: float) -> Mask | None:
        """Which cells reach a threshold at a quick look (n, r, c); None where there is none."""
        pixels = levels.size // 3
        if self._glances.pnet is not None:
            return np.asarray(self._glances.pnet.odds(levels) >= log_odds(threshold))
        if self.looks_quickly("pnet", pixels):
            return np.asarray(self._quick["pnet"].run({"image": levels})["score"] >= threshold)
        return None

    def cut(self, levels: FloatArray, cells: tuple[Indices, Indices, Indices]) -> Asked:
        """Cells of levels, float32 (n, 3, h, w), standardised, with their pixels.

        cells: number of the level, row and column of each, (k,), level by level.

        A level may end a pixel too early for its last row or column; P-net pools what there is.
        """
        (numbers, rows, columns), (height, width) = cells, levels.shape[2:]
        windows = squares(levels, (numbers, STRIDE * rows, STRIDE * columns))
        ends = np.array([[height], [width]]) - STRIDE * np.stack([rows, columns])
        sizes = np.minimum(ends, CELL).astype(np.uint8)
        return Asked(numbers, rows, columns, -(-(width - 2) // STRIDE) - 4, windows, sizes)

    def look(self, many: Sequence[Asked], each: Each = map) -> list[tuple[FloatArray, FloatArray]]:
        """What the exact engine says of cells: for each of the asked, scores (n,) and offsets
        (n, 4).

        each: calls a function with some arguments, one after the other or side by side, and gives
        what it returns in their order.
        """
        open_ = [asked for asked in many if asked.answer is None]
        windows = np.concatenate([NO_WINDOWS, *(asked.windows for asked in open_)])
        sizes = np.concatenate([NO_SIZES, *(asked.sizes for asked in open_)], axis=1)
        step = CHUNKS["pnet"]
        parts = [slice(start, start + step) for start in range(0, len(windows), step)]
        said = list(each(lambda part: self._judge_cells(windows[part], sizes[:, part]), parts))
        scores = np.concatenate([np.zeros(0, np.float32), *(answer["score"] for answer in said)])
        offsets = np.concatenate([NO_OFFSETS, *(answer["offset"] for answer in said)])
        ends = np.cumsum([len(asked.rows) for asked in open_])[:-1]
        answers = iter(zip(np.split(scores, ends), np.split(offsets, ends), strict=True))
        return [next(answers) if asked.answer is None else asked.answer for asked in many]

    def _judge_cells(self, windows: FloatArray, sizes: NDArray[np.uint8]) -> Answer:
        """Exact answers for cells: "score" (n,) and "offset" (n, 4)."""
        if self._glances.pnet is not None:
            return self._glances.pnet.judge(windows, sizes)
        scores = np.empty(len(windows), np.float32)
        offsets = np.empty((len(windows), 4), np.float32)
        for height, width in np.unique(sizes, axis=1).T:
            rows = np.flatnonzero((sizes[0] == height) & (sizes[1] == width))
            said = _run(self._exact["pnet"], "pnet", windows[rows, :, :height, :width])
            scores[rows], offsets[rows] = said["score"][:, 0, 0], said["offset"][:, :, 0, 0]
        return {"score": scores, "offset": offsets}

    def near(self, net: str, crops: FloatArray, threshold: float) -> Mask:
        """Which crops, float32 (n, 3, side, side), standardised, a network has to judge exactly:
        bool (n,). The others surely score below the threshold.

        net: one of `MARGIN` that `looks_quickly` at so many."""
        if net == "rnet" and self._glances.rnet is not None:
            return np.asarray(self._glances.rnet.odds(crops) > log_odds(threshold - MARGIN[net]))
        score = _run(self._quick[net], net, crops)["score"]
        return np.asarray(score > threshold - MARGIN[net])

    def judge(self, net: str, crops: FloatArray) -> Answer:
        """What "rnet" or "onet" says of crops, float32 (n, 3, side, side), standardised.

        Returns "score" (n,), "offset" (n, 4) and from O-net "landmark" (n, 10).
        """
        return _run(self._exact[net], net, crops)


def chunks(rows: Indices, net: str, threads: int) -> list[Indices]:
    """Crops that go through a network together: no more than it takes, and few enough that every
    thread gets some."""
    size, share = CHUNKS[net], len(rows) // (threads + 1)
    if threads > 1 and share < size:
        size = _round_down(max(share, LEAST))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


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


def _cells_of(mask: Mask, by_column: bool) -> tuple[Indices, Indices, Indices]:
    """Numbers, rows and columns of the cells (n, r, c) that are true, in their order.

    As `np.nonzero`, which takes eight times as long for few in many.
    """
    if by_column:
        mask = mask.swapaxes(1, 2)
    number, one, other = np.unravel_index(np.flatnonzero(mask), mask.shape)
    return (number, other, one) if by_column else (number, one, other)


def squares(
    levels: FloatArray,
    corners: tuple[Indices, Indices, Indices],
    find: Find = compiled,
) -> FloatArray:
    """Windows of levels, float32 (m, 3, h, w), zero where one ends: number of the level, first row
    and first column (n,) -> (n, 3, `CELL`, `CELL`).

    find: gives the compiled functions; without them NumPy does it."""
    if kernels := find().kernels:
        return kernels.windows(levels, corners, CELL)
    numbers, rows, columns = corners
    levels = np.pad(levels, ((0, 0), (0, 0), (0, 1), (0, 1)))
    windows = sliding_window_view(levels, (CELL, CELL), axis=(2, 3))
    return np.asarray(windows[numbers, :, rows, columns])


def _run(engine: Engine, net: str, crops: FloatArray) -> Answer:
    """Run an engine on crops (n, 3, h, w), n >= 1, some at once.

    The rest is filled up to a `rounded` number; a single one might be added up in another order.
    """
    parts, size = [], CHUNKS[net]
    for start in range(0, len(crops), size):
        part = crops[start : start + size]
        full = min(rounded(len(part), 1 if net == "pnet" else 2), size)
        filled = np.zeros((full, *part.shape[1:]), np.float32)
        filled[: len(part)] = part
        answer = engine.run({"image": filled})
        parts.append({name: values[: len(part)] for name, values in answer.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _round_down(count: int) -> int:
    """The largest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not above `count`, 1 or more."""
    power = 1 << (count.bit_length() - 1)
    return power * 3 // 2 if power > 1 and count >= power * 3 // 2 else power
