"""Labels of clusters: numbered by size, joined by pairs, components of a graph."""

from __future__ import annotations

import numpy as np

from facenet.gallery.cluster.neighbours import Neighbours
from facenet.types import IntArray


def by_size(labels: IntArray) -> IntArray:
    """The same clusters (n,), numbered from 0: the biggest first, of equals the one that begins
    first."""
    values = np.asarray(labels)
    _, first, inverse, counts = np.unique(
        values, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -counts))
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return number[inverse.reshape(values.shape)]


def joined(count: int, first: IntArray, second: IntArray) -> IntArray:
    """The lowest member of the connected part of each of n nodes; edges (m,) and (m,).

    Every part takes the lowest number it sees, then numbers of numbers (pointer jumping), until
    nothing changes: a few passes of whole arrays in place of a loop over edges.
    """
    label = np.arange(count, dtype=np.int64)
    while True:
        a, b = label[first], label[second]
        unlike = a != b
        if not unlike.any():
            return label
        first, second, a, b = first[unlike], second[unlike], a[unlike], b[unlike]
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(label, above := label[label]):
            label = above


def components(graph: Neighbours) -> IntArray:
    """The lowest member of the connected part of each face (n,)."""
    return joined(len(graph), graph.rows, graph.columns)
