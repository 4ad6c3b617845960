"""How good a clustering is, where the truth is known: pairwise and B-cubed scores.

Pairwise: of the pairs that a clustering joins, the share that belong together (precision), and of
the pairs that belong together, the share it joins (recall). Big classes dominate them. B-cubed
(Bagga and Baldwin, 1998; preferred by Amigo et al., 2009) averages over faces: of the faces in the
cluster of a face, the share of its person, and of the faces of its person, the share in its
cluster. F: harmonic mean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from facenet.errors import InputError
from facenet.types import IntArray


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and their harmonic mean, 0 to 1."""

    precision: float
    recall: float
    f: float


@dataclass(frozen=True, slots=True)
class ClusterScores:
    """What a clustering is worth. clusters: how many there are. mixed: clusters with more than
    one person; split: people in more than one cluster."""

    pairwise: Score
    bcubed: Score
    clusters: int
    mixed: int
    split: int

    def to_dict(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)


def score_clusters(labels: IntArray, person: IntArray) -> ClusterScores:
    """Compare clusters with people.

    labels, person: whole numbers (n,), cluster and person of each face. Without any pair to
    join, or without a joined one, the pairwise share is 1. Raises InputError when they differ in
    length or there is no face.
    """
    if np.shape(labels) != np.shape(person) or np.ndim(labels) != 1 or len(labels) == 0:
        raise InputError(
            "Scores need one cluster and one person for each face, and one face or more; got the "
            f"shapes {np.shape(labels)} and {np.shape(person)}."
        )
    cluster = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    truth = np.unique(person, return_inverse=True)[1].astype(np.int64)
    cells, cell, together = np.unique(
        cluster * (truth.max() + 1) + truth, return_inverse=True, return_counts=True
    )
    sizes, people = np.bincount(cluster), np.bincount(truth)
    hits, joined, mated = (_pairs(counts) for counts in (together, sizes, people))
    per_cluster = np.bincount(cells // (truth.max() + 1))
    per_person = np.bincount(cells % (truth.max() + 1))
    return ClusterScores(
        _score(hits / joined if joined else 1.0, hits / mated if mated else 1.0),
        _score(
            float(np.mean(together[cell] / sizes[cluster])),
            float(np.mean(together[cell] / people[truth])),
        ),
        len(sizes),
        int((per_cluster > 1).sum()),
        int((per_person > 1).sum()),
    )


def _pairs(counts: IntArray) -> int:
    """Pairs inside groups of these sizes."""
    return int(np.sum(counts * (counts - 1) // 2))


def _score(precision: float, recall: float) -> Score:
    total = precision + recall
    return Score(float(precision), float(recall), 2 * precision * recall / total if total else 0.0)
