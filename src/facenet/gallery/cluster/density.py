"""Clusters as dense regions: DBSCAN on the graph of similar faces, and scikit-learn's HDBSCAN.

DBSCAN: Ester et al. (1996); facenet's contributed/cluster runs it with eps 1.0 on the Euclidean
distance and one sample, which joins whatever is connected by similarities of 0.5 and more.
HDBSCAN: Campello, Moulavi and Sander (2013); it needs no threshold, and no graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facenet.errors import MissingExtraError, SettingsError
from facenet.gallery.cluster.constraints import Links, bounds, link
from facenet.gallery.cluster.labels import by_size, joined
from facenet.gallery.cluster.neighbours import Neighbours, checked_unit
from facenet.types import IntArray

MOST_DENSE = 20_000
"""Faces that HDBSCAN takes: its time grows with their square."""


def similarity_of(distance: float) -> float:
    """The cosine of unit vectors at a Euclidean distance: 1 - d * d / 2."""
    return 1 - distance * distance / 2


def dbscan(graph: Neighbours, links: Links | None = None, *, samples: int = 1) -> IntArray:
    """DBSCAN on a graph whose edges are the pairs within its radius: int64 (n,), see `by_size`.

    samples: faces, itself included, that a core needs within the radius. A face near a core that
    is none itself goes with its most similar core. A face near none, which DBSCAN calls noise, is
    a cluster of its own. links: where constraints stand against a cluster, it is joined anew, the
    most similar pairs first, without the unions they forbid.
    """
    if samples < 1:
        raise SettingsError(f"samples should be 1 or more; got {samples}.")
    given = links or link(len(graph))
    core = np.diff(graph.starts) + 1 >= samples
    first, second = _edges(graph, core)
    rows = np.arange(len(graph), dtype=np.int64)
    order = np.argsort(given.unit, kind="stable")
    same = given.unit[order[1:]] == given.unit[order[:-1]]
    ties = np.stack([order[:-1][same], order[1:][same]])
    label = joined(len(rows), np.concatenate([first, ties[0]]), np.concatenate([second, ties[1]]))
    if given.binding():
        label = _apart(label, given, graph, core)
    return by_size(label)


def _edges(graph: Neighbours, core: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """What joins: every edge of two cores, and of another face the edge to its nearest core."""
    rows, columns = graph.rows, graph.columns
    both = core[rows] & core[columns] & (rows < columns)
    reached = np.flatnonzero(~core[rows] & core[columns])
    order = reached[np.lexsort((-graph.similarity[reached], rows[reached]))]
    _, nearest = np.unique(rows[order], return_index=True)
    border = order[nearest]
    return np.concatenate([rows[both], rows[border]]), np.concatenate(
        [columns[both], columns[border]]
    )


def _apart(label: IntArray, links: Links, graph: Neighbours, core: NDArray[np.bool_]) -> IntArray:
    """Clusters in which two units are that may not come together, joined anew without that."""
    where = np.zeros(links.units, np.int64)
    where[links.unit] = label
    torn = where[links.apart]
    bad = np.unique(torn[torn[:, 0] == torn[:, 1]])
    told = where[links.fixed]
    names, counts = np.unique(told, return_counts=True)
    inside = np.isin(label, np.union1d(bad, names[counts > 1]))
    parent = where.copy()
    units = np.unique(links.unit[inside])
    parent[units] = len(label) + units
    rows, columns = graph.rows, graph.columns
    wanted = inside[rows] & (rows < columns) & (core[rows] | core[columns])
    edges = np.flatnonzero(wanted)
    state = bounds(links)
    root = np.arange(links.units, dtype=np.int64)
    for edge in edges[np.argsort(-graph.similarity[edges], kind="stable")].tolist():
        a, b = (_root(root, int(links.unit[side[edge]])) for side in (rows, columns))
        if a != b and state.may(a, b):
            root[max(a, b)] = min(a, b)
            state.unite(min(a, b), max(a, b))
    parent[units] = [len(label) + _root(root, int(unit)) for unit in units]
    return parent[links.unit]


def _root(root: IntArray, unit: int) -> int:
    while root[unit] != unit:
        root[unit] = root[root[unit]]
        unit = int(root[unit])
    return unit


def hdbscan(vectors: NDArray[np.floating], *, smallest: int = 2) -> IntArray:
    """scikit-learn's HDBSCAN of unit vectors (n, d), Euclidean: int64 (n,), see `by_size`.

    smallest: faces of the smallest cluster. What it calls noise are clusters of their own, and so
    are all faces where it finds fewer than two clusters. Raises
    MissingExtraError without scikit-learn, SettingsError beyond `MOST_DENSE` faces.
    """
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError as error:
        raise MissingExtraError(
            "HDBSCAN needs scikit-learn, which is not installed or broken. Install it with "
            '`pip install "facenet[gallery]"`, or choose another method.'
        ) from error
    rows = checked_unit(vectors)
    if len(rows) > MOST_DENSE:
        raise SettingsError(
            f"HDBSCAN is for up to {MOST_DENSE:,} faces; got {len(rows):,}. Choose the method "
            "average."
        )
    if len(rows) < smallest:
        return np.arange(len(rows), dtype=np.int64)
    found = HDBSCAN(min_cluster_size=smallest, min_samples=1, copy=True).fit(rows).labels_
    label = np.asarray(found, np.int64)
    noise = label < 0
    label[noise] = len(rows) + np.arange(noise.sum())
    return by_size(label)
