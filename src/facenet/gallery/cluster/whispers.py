"""Chinese whispers: every face takes the label that its neighbours, weighed by similarity, have.

Biemann, "Chinese Whispers" (2006); in facenet's contributed/clustering with an edge where the
scalar product is above 0.55 and 20 rounds. The order in which faces are visited is random: the
same seed gives the same clusters.
"""

from __future__ import annotations

import numpy as np

from facenet.gallery.cluster.constraints import Bounds, Links, bounds, link
from facenet.gallery.cluster.labels import by_size
from facenet.gallery.cluster.neighbours import Neighbours
from facenet.types import FloatArray, IntArray

ROUNDS = 20


def chinese_whispers(
    graph: Neighbours, links: Links | None = None, *, rounds: int = ROUNDS, seed: int = 0
) -> IntArray:
    """Clusters of a graph of similar faces: int64 (n,), see `by_size`.

    links: constraints. Faces of one unit speak with one voice, and a unit never takes a label
    that one it is apart from has; so no constraint is ever broken. rounds: at most; it ends
    earlier when a round changes nothing.
    """
    given = links or link(len(graph))
    starts, near, weight = _between_units(graph, given)
    label = np.arange(given.units, dtype=np.int64)
    apart, fixed = bounds(given), np.flatnonzero(given.fixed)
    random = np.random.default_rng(seed)
    voices = np.flatnonzero(np.diff(starts) > 0)
    for _ in range(rounds):
        changed = 0
        for unit in random.permutation(voices).tolist():
            edges = slice(starts[unit], starts[unit + 1])
            heard = label[near[edges]]
            forbidden = label[_others(apart, fixed, unit)]
            new = _loudest(heard, weight[edges], forbidden, int(label[unit]))
            changed += new != label[unit]
            label[unit] = new
        if not changed:
            break
    return by_size(label[given.unit])


def _others(apart: Bounds, fixed: IntArray, unit: int) -> list[int]:
    """The units whose label a unit may not take."""
    others = list(apart.apart.get(unit, ()))
    return others + fixed[fixed != unit].tolist() if apart.fixed[unit] else others


def _loudest(heard: IntArray, weight: FloatArray, forbidden: IntArray, own: int) -> int:
    """The label with the most weight among those that are allowed, of equals the lowest."""
    if len(forbidden):
        allowed = ~np.isin(heard, forbidden)
        heard, weight = heard[allowed], weight[allowed]
    if len(heard) == 0:
        return own
    first = heard[0]
    if (heard == first).all():
        return int(first)
    names, places = np.unique(heard, return_inverse=True)
    return int(names[np.argmax(np.bincount(places, weight))])


def _between_units(graph: Neighbours, links: Links) -> tuple[IntArray, IntArray, FloatArray]:
    """Compressed rows over units: starts (units + 1,), units (m,), similarities (m,)."""
    rows, columns = links.unit[graph.rows], links.unit[graph.columns]
    outside = np.flatnonzero(rows != columns)
    order = outside[np.argsort(rows[outside], kind="stable")]
    sizes = np.bincount(rows[order], minlength=links.units)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return starts, columns[order], graph.similarity[order]
