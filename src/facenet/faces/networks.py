"""The networks of MTCNN, run: which cells of a pyramid level hold a face, what crops show.

A network can be looked through twice. First a quick engine (bfloat16) looks at everything; what it
scores above the threshold less a `MARGIN` is looked at again by the exact one (fp32), and
only that counts. P-net's answer for a cell depends on 12 x 12 pixels alone, so cells can be asked
about one by one. The answers are those of the exact engine alone as long as the quick one is
nowhere further off than the margin; `scripts/agreement.py` measures how far it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
CHUNKS = {"pnet": 1024, "rnet": 128, "onet": 32}
"""Crops that go through a network at once: bounds memory (facenet-pytorch#105)."""
Answer = dict[str, FloatArray]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of a level: rows and columns int64 (n,), scores float32 (n,), offsets (n, 4).

    width: columns that the level has in all.
    """

    rows: Indices
    columns: Indices
    scores: FloatArray
    offsets: FloatArray
    width: int


class Networks:
    """P-, R- and O-net.

    exact, quick: engines "pnet", "rnet" and "onet" as in the card `mtcnn`; without quick ones the
    exact ones look at everything.
    """

    def __init__(
        self, exact: Mapping[str, Engine], quick: Mapping[str, Engine] | None = None
    ) -> None:
        self._exact, self._quick = exact, quick or {}

    def cells(self, level: FloatArray, threshold: float, *, by_column: bool) -> Cells:
        """The cells of a level that reach a threshold: float32 (3, h, w), standardised.

        by_column: counted down the columns, else along the rows.
        """
        quick = self._quick.get("pnet")
        answer = (quick or self._exact["pnet"]).run({"image": level[None]})
        score = answer["score"][0]
        reached = score >= (threshold - MARGIN["pnet"] if quick else threshold)
        if by_column:
            columns, rows = np.nonzero(reached.T)
        else:
            rows, columns = np.nonzero(reached)
        if not quick:
            offsets = answer["offset"][0][:, rows, columns].T
            return Cells(rows, columns, score[rows, columns], offsets, score.shape[1])
        scores, offsets = self.look(level, rows, columns)
        keep = scores >= threshold
        return Cells(rows[keep], columns[keep], scores[keep], offsets[keep], score.shape[1])

    def look(
        self, level: FloatArray, rows: Indices, columns: Indices
    ) -> tuple[FloatArray, FloatArray]:
        """What the exact engine says of cells of a level, float32 (3, h, w), standardised.

        rows, columns: (n,). Returns scores (n,) and offsets (n, 4).
        """
        scores = np.empty(len(rows), np.float32)
        offsets = np.empty((len(rows), 4), np.float32)
        below = STRIDE * rows + CELL > level.shape[1]
        beside = (STRIDE * columns + CELL > level.shape[2]) & ~below
        inside = ~(below | beside)
        if np.any(inside):
            windows = sliding_window_view(level, (CELL, CELL), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
            patches = windows[:, rows[inside], columns[inside]].swapaxes(0, 1)
            answer = _run(self._exact["pnet"], patches, CHUNKS["pnet"])
            scores[inside] = answer["score"].reshape(-1)
            offsets[inside] = answer["offset"].reshape(-1, 4)
        if np.any(below):
            last = self._last(level[:, 1 - CELL :])
            scores[below], offsets[below] = (values[columns[below]] for values in last)
        if np.any(beside):
            last = self._last(level[:, :, 1 - CELL :])
            scores[beside], offsets[beside] = (values[rows[beside]] for values in last)
        return scores, offsets

    def _last(self, strip: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Scores (n,) and offsets (n, 4) of the last row or column of cells, where the level ends
        a pixel too early for it and P-net pools what there is."""
        answer = self._exact["pnet"].run({"image": np.ascontiguousarray(strip[None])})
        return answer["score"].reshape(-1), answer["offset"].reshape(4, -1).T

    def quick(self, net: str) -> bool:
        """Whether "rnet" or "onet" is looked through quickly first."""
        return net in MARGIN and net in self._quick

    def near(self, net: str, crops: FloatArray, threshold: float) -> Mask:
        """Which crops, float32 (n, 3, side, side), standardised, "rnet" or "onet" has to judge
        exactly: bool (n,), where `quick`. The others surely score below the threshold."""
        score = _run(self._quick[net], crops, CHUNKS[net])["score"]
        return np.asarray(score > threshold - MARGIN[net])

    def judge(self, net: str, crops: FloatArray) -> Answer:
        """What "rnet" or "onet" says of crops, float32 (n, 3, side, side), standardised.

        Returns "score" (n,), "offset" (n, 4) and from O-net "landmark" (n, 10).
        """
        return _run(self._exact[net], crops, CHUNKS[net])


def _run(engine: Engine, crops: FloatArray, size: int) -> Answer:
    """Run an engine on crops (n, 3, side, side), n >= 1, `size` at once.

    The rest is filled up to a round number: a runtime prepares itself for each number of crops
    that it has not had yet, and may add up a single one in another order.
    """
    parts = []
    for start in range(0, len(crops), size):
        part = crops[start : start + size]
        full = min(_round(len(part)), size)
        filled = np.zeros((full, *part.shape[1:]), np.float32)
        filled[: len(part)] = part
        answer = engine.run({"image": filled})
        parts.append({name: values[: len(part)] for name, values in answer.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _round(count: int) -> int:
    """The least of 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below `count`."""
    double = max(2, 1 << (count - 1).bit_length())
    return double * 3 // 4 if double > 2 and count <= double * 3 // 4 else double
