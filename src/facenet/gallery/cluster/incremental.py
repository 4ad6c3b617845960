"""New faces come to clusters that are there: names and rulings stay, nothing is done anew.

Every cluster that is there counts as one face with the weight of all of its own, and link
clustering goes on from there: only the new faces are compared with the others. A cluster is never
parted. Two that have names never come together; one without a name may, when new faces bring it
near enough, and so a face that was left alone finds its person later (the deferred outliers of
Immich).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from facenet.errors import InputError
from facenet.gallery.cluster.constraints import Pairs, link
from facenet.gallery.cluster.linkage import REACH, united
from facenet.gallery.cluster.neighbours import MOST, checked_unit, neighbour_graph
from facenet.types import FloatArray, IntArray


def add_faces(
    vectors: FloatArray,
    known: IntArray,
    threshold: float,
    *,
    named: Collection[int] = (),
    together: Pairs = (),
    apart: Pairs = (),
    templates: bool = True,
) -> IntArray:
    """Clusters of faces of which the first m have one already: int64 (n,).

    vectors: (n, d), unit length, those in clusters first. known: (m,), their clusters, 0 or more.
    named: clusters that never come together with one another. together, apart: pairs of rows, as
    in `link`. templates: template link, else average link. Clusters keep their numbers; of two
    that come together the named one's stays, else that of the one with more faces. New ones get
    the numbers after the highest. Raises InputError for rulings that contradict the clusters.
    """
    rows, labels = checked_unit(vectors), np.asarray(known, np.int64)
    if labels.ndim != 1 or len(labels) > len(rows) or labels.min(initial=0) < 0:
        raise InputError(
            f"Clusters should be given for the first of {len(rows)} faces, as numbers from 0; got "
            f"the shape {labels.shape} and a lowest one of {labels.min(initial=0)}."
        )
    order = np.argsort(labels, kind="stable")
    same = labels[order[1:]] == labels[order[:-1]]
    ties = np.stack([order[:-1][same], order[1:][same]], axis=1)
    must = np.concatenate([ties, np.array(list(together), np.int64).reshape(-1, 2)])
    told = np.flatnonzero(np.isin(labels, list(named)))
    links = link(len(rows), together=must, apart=apart, fixed=told)
    reach = max(-0.99, threshold - (REACH if templates else 0))
    graph = neighbour_graph(rows, reach, most=MOST, since=len(labels))
    found = united(graph, rows, threshold, links, templates=templates)
    return _numbered(found, labels, set(named))


def _numbered(found: IntArray, labels: IntArray, named: set[int]) -> IntArray:
    """Clusters under the numbers they had; the others after the highest, in order of faces."""
    sizes = np.bincount(labels)
    best: dict[int, tuple[bool, int, int]] = {}
    for cluster, label in zip(found[: len(labels)].tolist(), labels.tolist(), strict=True):
        rank = (label in named, int(sizes[label]), -label)
        best[cluster] = max(rank, best.get(cluster, rank))
    number = {cluster: -rank[2] for cluster, rank in best.items()}
    highest = len(sizes)
    for cluster in found[len(labels) :].tolist():
        if cluster not in number:
            number[cluster], highest = highest, highest + 1
    return np.array([number[cluster] for cluster in found.tolist()], np.int64).reshape(-1)
