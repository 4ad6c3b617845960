"""What one threshold does to the pairs inside each group of people, counted two ways.

From a list of scored pairs, or from all pairs of a set of pictures (`sweep`). Both pictures of a
pair are of one cell, such as "female / 20-39": pairs across cells are easier to tell apart and
flatter the rate (ISO/IEC 19795-10). The pairs across are counted for the matrix alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError, InputError
from facenet.evaluate.intervals import PairScores, subject_weights
from facenet.evaluate.sweep import BLOCK, Labelled, Sweep
from facenet.types import IntArray

MAX_CELLS = 200
"""More groups than this are no table."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Pairs inside each of G cells at one threshold, by person (P people, numbered from 0).

    cells: their names, sorted. unit: "pictures" or "pairs", what attempts, failures: int64 (G,),
    count; a failure has no face. mated, refused: int64 (P, G), pairs of one person, and those
    below the threshold. pictures: int64 (P, G) when all pairs were compared, else None.
    person_a, person_b, cell, accepted: (k,), non-mated pairs of a cell, all of them, or only the
    accepted ones when `pictures` tells how many there are. cross_pairs, cross_accepted: int64
    (G, G), symmetric. left_out: pictures or pairs with an unknown attribute.
    """

    cells: tuple[str, ...]
    threshold: float
    unit: str
    attempts: IntArray
    failures: IntArray
    mated: IntArray
    refused: IntArray
    pictures: IntArray | None
    person_a: IntArray
    person_b: IntArray
    cell: IntArray
    accepted: Bools
    cross_pairs: IntArray
    cross_accepted: IntArray
    left_out: int

    @property
    def present(self) -> IntArray:
        """People with a picture that was compared inside each cell: int64 (G,)."""
        if self.pictures is not None:
            return np.asarray((self.pictures > 0).sum(axis=0))
        there = self.mated > 0
        there[self.person_a, self.cell] = True
        there[self.person_b, self.cell] = True
        return np.asarray(there.sum(axis=0))

    def rates(self, replicates: int, seed: int) -> tuple[Floats, Floats]:
        """FMR and FNMR of each cell, once per draw of people: float64 (replicates, G) each.

        NaN where no pair was drawn.
        """
        weight = subject_weights(len(self.mated), replicates, seed).astype(np.float64)
        matches = np.empty((replicates, len(self.cells)))
        trials = np.empty_like(matches)
        if self.pictures is not None:
            squares = weight**2 @ self.pictures.astype(np.float64) ** 2
            trials = ((weight @ self.pictures) ** 2 - squares) / 2
        for row, drawn in enumerate(weight):
            pairs = drawn[self.person_a] * drawn[self.person_b]
            matches[row] = np.bincount(self.cell, pairs * self.accepted, len(self.cells))
            if self.pictures is None:
                trials[row] = np.bincount(self.cell, pairs, len(self.cells))
        return _ratio(matches, trials), _ratio(weight @ self.refused, weight @ self.mated)


def count_pairs(
    scores: PairScores, cell_a: Sequence[str], cell_b: Sequence[str], *, threshold: float
) -> Outcomes:
    """Count a list of scored pairs.

    cell_a, cell_b: the cell of both pictures of each pair, "" where it is not known.
    Raises InputError when they are not one per pair, DataError when no pair has cells.
    """
    if not len(cell_a) == len(cell_b) == len(scores.same):
        raise InputError(
            f"There should be two cells for each of the {len(scores.same):,} pairs; got "
            f"{len(cell_a):,} and {len(cell_b):,}."
        )
    cells, code = _coded([*cell_a, *cell_b])
    a, b = np.split(code, 2)
    known = (a >= 0) & (b >= 0)
    accepted = scores.similarity >= threshold
    shape = (scores.subjects, len(cells))
    inside, others = known & (a == b), known & ~scores.same
    mated, listed = inside & scores.same, inside & ~scores.same
    at = (scores.subject_a, a)
    missing = inside & np.isneginf(scores.similarity)
    return Outcomes(
        cells=cells,
        threshold=threshold,
        unit="pairs",
        attempts=np.bincount(a[inside], minlength=len(cells)),
        failures=np.bincount(a[missing], minlength=len(cells)),
        mated=_grid(*at, mated, shape),
        refused=_grid(*at, mated & ~accepted, shape),
        pictures=None,
        person_a=scores.subject_a[listed],
        person_b=scores.subject_b[listed],
        cell=a[listed],
        accepted=accepted[listed],
        cross_pairs=_both_ways(_grid(a, b, others, (len(cells),) * 2)),
        cross_accepted=_both_ways(_grid(a, b, others & accepted, (len(cells),) * 2)),
        left_out=int(np.sum(~known)),
    )


def count_all_pairs(
    faces: Labelled, swept: Sweep, cells: Sequence[str], *, threshold: float
) -> Outcomes:
    """Count all pairs of pictures; those without a face match nobody.

    swept: the sweep of `faces`. cells: the cell of each picture, "" where it is not known.
    Raises InputError when they do not belong together, DataError when no picture has a cell, or
    the threshold is so low that the sweep did not keep all pairs that reach it.
    """
    if not len(faces) == len(cells) == swept.pictures:
        raise InputError(
            f"There should be one cell per picture of the sweep, which has {swept.pictures:,}; "
            f"got {len(cells):,} cells and {len(faces):,} pictures."
        )
    if threshold <= swept.floor:
        raise DataError(
            f"The sweep kept the pairs above a similarity of {swept.floor:.4f}; the threshold is "
            f"{threshold:.4f}. Take a lower false-match rate, or sweep with a larger pool."
        )
    names, code = _coded(cells)
    known = code >= 0
    shape = (swept.people, len(names))
    pictures = _grid(swept.subject, code, known, shape)
    mated, refused = _mated(faces, swept.subject, code, threshold, shape)
    a, b = swept.pool_a, swept.pool_b
    matches = (swept.pool >= threshold) & known[a] & known[b]
    a, b = a[matches], b[matches]
    inside = code[a] == code[b]
    every = np.ones(len(a), np.bool_)
    return Outcomes(
        cells=names,
        threshold=threshold,
        unit="pictures",
        attempts=pictures.sum(axis=0),
        failures=np.bincount(code[known & ~faces.found], minlength=len(names)),
        mated=mated,
        refused=refused,
        pictures=pictures,
        person_a=swept.subject[a[inside]],
        person_b=swept.subject[b[inside]],
        cell=code[a[inside]],
        accepted=every[inside],
        cross_pairs=_pairs_across(pictures),
        cross_accepted=_both_ways(_grid(code[a], code[b], every, (len(names),) * 2)),
        left_out=int(np.sum(~known)),
    )


def _coded(cells: Sequence[str]) -> tuple[tuple[str, ...], IntArray]:
    """Names of the cells, and their number for each entry, -1 for ""."""
    names = sorted(set(cells) - {""})
    if not names:
        raise DataError(
            "Groups need pictures with known attributes; none has any. Check the file of "
            "attributes."
        )
    if len(names) > MAX_CELLS:
        raise DataError(
            f"Attributes should part the pictures into at most {MAX_CELLS} groups; they make "
            f"{len(names):,}. Choose fewer attributes, or write ranges in place of numbers."
        )
    number = {"": -1, **{name: row for row, name in enumerate(names)}}
    return tuple(names), np.array([number[cell] for cell in cells], np.int64)


def _grid(rows: IntArray, columns: IntArray, which: Bools, shape: tuple[int, int]) -> IntArray:
    """How often each row and column comes together among `which`: (n,) each -> shape."""
    flat = rows[which] * shape[1] + columns[which]
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)


def _both_ways(counts: IntArray) -> IntArray:
    """Pairs in either order counted together, those of a cell with itself once: (G, G)."""
    return counts + counts.T - np.diag(np.diag(counts))


def _pairs_across(pictures: IntArray) -> IntArray:
    """Pairs of pictures of different people between cells: (P, G) -> (G, G)."""
    total = pictures.sum(axis=0)
    pairs = np.outer(total, total) - pictures.T @ pictures
    return np.asarray(pairs - np.diag(np.diag(pairs) // 2))


def _mated(
    faces: Labelled, subject: IntArray, code: IntArray, threshold: float, shape: tuple[int, int]
) -> tuple[IntArray, IntArray]:
    """Pairs of one person inside a cell, and those that are refused: (P, G) each."""
    pairs, refused = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for rows in _runs(subject, code):
        place = (subject[rows[0]], code[rows[0]])
        pairs[place] = len(rows) * (len(rows) - 1) // 2
        group = faces.rows[rows[faces.found[rows]]].astype(np.float64)
        accepted = 0
        for top in range(0, len(group), BLOCK):
            square = np.clip(group[top : top + BLOCK] @ group[top:].T, -1, 1).astype(np.float32)
            upper = np.triu_indices(len(square), 1, square.shape[1])
            accepted += int(np.sum(square[upper].astype(np.float64) >= threshold))
        refused[place] = pairs[place] - accepted
    return pairs, refused


def _runs(subject: IntArray, code: IntArray) -> Iterator[IntArray]:
    """Rows of each person in each known cell."""
    rows = np.flatnonzero(code >= 0)
    rows = rows[np.lexsort((code[rows], subject[rows]))]
    key = np.stack([subject[rows], code[rows]])
    yield from np.split(rows, np.flatnonzero(np.any(key[:, 1:] != key[:, :-1], axis=0)) + 1)


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> Floats:
    """part / whole; NaN where nothing was drawn."""
    return np.asarray(part / np.where(whole > 0, whole, np.nan), np.float64)
