"""What tells known people apart: duels of an SVM, planes of a regression, nearest faces. NumPy.

The probabilities of the SVM come from its duels by the second method of Wu, Lin and Weng (2004), as
in libsvm; but one slope for all duels, fitted on held-out faces, stands for Platt's two numbers per
duel, which few pictures do not support. The others take the softmax of slope * scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import DataError
from facenet.types import FloatArray, IntArray

CERTAIN = 1e-7
"""No duel is more certain than this, as in libsvm."""
MOST_DUELLING = 200
"""People of an SVM: it has a plane for every two of them."""
ROWS = 64
"""Faces that are answered at a time."""


Floats = NDArray[np.float64]


class Machine(Protocol):
    """What was fitted: unit vectors -> scores -> probabilities of k people."""

    def check(self, people: int, width: int) -> None:
        """Raise DataError unless the arrays are for so many people and values of a vector."""

    def scores(self, rows: Floats) -> Floats:
        """The method's own evidence: float64 (m, d) -> (m, s)."""

    def probabilities(self, scores: Floats, slope: float) -> Floats:
        """Probabilities that add up to 1: float64 (m, s) -> (m, k)."""


@dataclass(frozen=True, slots=True, eq=False)
class Duels:
    """A linear SVM of every two of k people, in the dual form of libsvm.

    vectors: float32 (n, d), the support vectors, in the order of their people. person: int64 (n,).
    duals: float64 (k - 1, n), row j: coefficients in the duel with the j-th other person.
    offsets: float64 (k (k - 1) / 2,), one per duel, in the order (0, 1), (0, 2), ..., (1, 2), ...
    """

    vectors: FloatArray
    person: IntArray
    duals: Floats
    offsets: Floats

    def check(self, people: int, width: int) -> None:
        """See `Machine`."""
        if people > MOST_DUELLING:
            raise DataError(f"An SVM is for up to {MOST_DUELLING} people; this has {people:,}.")
        count = len(self.person)
        duels = people * (people - 1) // 2
        require_shape("vectors", self.vectors, (count, width))
        _require_people(self.person, people)
        require_shape("duals", self.duals, (people - 1, count))
        require_shape("offsets", self.offsets, (duels,))

    def scores(self, rows: Floats) -> Floats:
        """Each duel, above 0 for its first person: float64 (m, d) -> (m, k (k - 1) / 2)."""
        people = len(self.duals) + 1
        kernel = rows @ self.vectors.T.astype(np.float64)
        ends = np.searchsorted(self.person, np.arange(people + 1))
        share = np.stack(
            [
                kernel[:, a:b] @ self.duals[:, a:b].T
                for a, b in zip(ends[:-1], ends[1:], strict=True)
            ],
            axis=1,
        )
        first, second = np.triu_indices(people, 1)
        found = share[:, first, second - 1] + share[:, second, first] + self.offsets
        return np.asarray(found, np.float64)

    def probabilities(self, scores: Floats, slope: float) -> Floats:
        """The duels' chances, coupled: float64 (m, k (k - 1) / 2) -> (m, k)."""
        people = len(self.duals) + 1
        first, second = np.triu_indices(people, 1)
        chance = np.clip(_sigmoid(slope * scores), CERTAIN, 1 - CERTAIN)
        table = np.zeros((len(scores), people, people))
        table[:, first, second], table[:, second, first] = chance, 1 - chance
        return coupled(table)


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """A logistic regression: weights float64 (k, d), offsets float64 (k,)."""

    weights: Floats
    offsets: Floats

    def check(self, people: int, width: int) -> None:
        """See `Machine`."""
        require_shape("weights", self.weights, (people, width))
        require_shape("offsets", self.offsets, (people,))

    def scores(self, rows: Floats) -> Floats:
        """Logits: float64 (m, d) -> (m, k)."""
        return np.asarray(rows @ self.weights.T + self.offsets, np.float64)

    def probabilities(self, scores: Floats, slope: float) -> Floats:
        """Softmax of slope * scores: float64 (m, k) -> (m, k)."""
        return softmax(slope * scores)


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The nearest training faces vote, each with its similarity.

    vectors: float32 (n, d), in the order of their people. person: int64 (n,). neighbours: int64
    (1,), how many vote. people: int64 (1,), k.
    """

    vectors: FloatArray
    person: IntArray
    neighbours: IntArray
    people: IntArray

    def check(self, people: int, width: int) -> None:
        """See `Machine`."""
        require_shape("vectors", self.vectors, (len(self.person), width))
        _require_people(self.person, people)
        require_shape("neighbours", self.neighbours, (1,))
        require_shape("people", self.people, (1,))
        if self.neighbours[0] < 1 or self.people[0] != people or len(self.person) < 1:
            raise DataError(
                f"neighbours should be 1 or more, of {people} people; the numbers of the "
                f"classifier are {self.neighbours[0]} and {self.people[0]}. Train it again."
            )

    def scores(self, rows: Floats) -> Floats:
        """Sum of the similarities above 0 of each person's voters: float64 (m, d) -> (m, k)."""
        similarity = rows @ self.vectors.T.astype(np.float64)
        nearest = vectors.top_k(similarity, int(self.neighbours[0]))
        votes = np.zeros((len(rows), int(self.people[0])))
        weight = np.maximum(np.take_along_axis(similarity, nearest, axis=1), 0)
        np.add.at(votes, (np.arange(len(rows))[:, None], self.person[nearest]), weight)
        return votes

    def probabilities(self, scores: Floats, slope: float) -> Floats:
        """Softmax of slope * scores: float64 (m, k) -> (m, k)."""
        return softmax(slope * scores)


MACHINES: dict[str, type[Any]] = {"svm": Duels, "logistic": Planes, "knn": Nearest}
"""Name of a method -> what it fits."""
ARRAYS: Mapping[str, Mapping[str, str]] = {
    "svm": {"vectors": "F32", "person": "I64", "duals": "F64", "offsets": "F64"},
    "logistic": {"weights": "F64", "offsets": "F64"},
    "knn": {"vectors": "F32", "person": "I64", "neighbours": "I64", "people": "I64"},
}
"""The arrays of each method and their types in a file."""


def coupled(chance: Floats) -> Floats:
    """Probabilities of k people from those of their duels: float64 (m, k, k) -> (m, k).

    chance[:, i, j]: that it is i, if it is i or j; the diagonal is not read. The least of
    sum over i and j of (r_ji p_i - r_ij p_j)^2 (Wu, Lin and Weng, 2004, equations 15 to 17), by
    its linear equations, which libsvm approaches in steps.
    """
    count, people, _ = chance.shape
    off = ~np.eye(people, dtype=bool)
    lost = np.where(off, chance, 0).transpose(0, 2, 1)
    system = np.ones((count, people + 1, people + 1))
    system[:, :people, :people] = -lost * lost.transpose(0, 2, 1)
    place = np.arange(people)
    system[:, place, place] = np.sum(lost**2, axis=2)
    system[:, people, people] = 0
    wanted = np.zeros((count, people + 1, 1))
    wanted[:, people] = 1
    found = np.maximum(np.linalg.solve(system, wanted)[:, :people, 0], 0)
    return np.asarray(found / found.sum(axis=1, keepdims=True), np.float64)


def softmax(logits: Floats) -> Floats:
    """exp(logits) over their sum: float64 (m, k) -> (m, k)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float64)


def portions(rows: Floats) -> Iterator[Floats]:
    """Rows (m, d), `ROWS` of them at a time."""
    return (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -40, 40))), np.float64)


def require_shape(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Raise DataError unless an array has a shape, such as (n, d), and holds something."""
    if array.shape != shape or 0 in shape:
        raise DataError(
            f"{name} of a classifier should be {shape} and not empty; it is {array.shape}. Train "
            "it again."
        )


def _require_people(person: IntArray, people: int) -> None:
    if person.ndim != 1 or len(person) == 0 or np.any(np.diff(person) < 0):
        raise DataError("person of a classifier should be rising numbers; train it again.")
    if person[0] < 0 or person[-1] >= people:
        raise DataError(f"person of a classifier should be 0 to {people - 1}; train it again.")
