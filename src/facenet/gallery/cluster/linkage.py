"""Clusters that grow by unions: average link, exact, and template link, on the graph of neighbours.

Average link (UPGMA: Sokal and Michener, 1958): two clusters come together, the most similar first,
as long as the average similarity of their faces, all with all, reaches the threshold. Similarities
are scalar products, so that average is the product of two sums of vectors, and no matrix of all
pairs is needed; and an average reaches a threshold only where some pair does, so the graph of such
pairs holds every union there can be. Unions are found by chains of nearest neighbours (Murtagh,
1983; Muellner, 2011), which end in the same clusters as the greedy order, because no union brings
anything nearer than its nearer part was: that holds with cannot-links too.

Template link: the same, with the similarity of the two templates, the unit vectors of the sums. A
template of many photos forgets what is odd in each, so a person's odd photos come home. A union
may bring a third cluster nearer, so the chains are followed again until nothing is near enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.gallery.cluster.constraints import Bounds, Links, bounds, link
from facenet.gallery.cluster.labels import by_size
from facenet.gallery.cluster.neighbours import Neighbours
from facenet.types import FloatArray, IntArray

REACH = 0.1
"""How far below its threshold template link looks: clusters that far apart may come nearer."""
NOBODY = (-1, -2.0)


def average_link(
    graph: Neighbours, vectors: FloatArray, threshold: float, links: Links | None = None
) -> IntArray:
    """Clusters whose average similarity reaches a threshold: int64 (n,), see `by_size`.

    graph: of these vectors (n, d) at this threshold or a lower one. links: constraints, none of
    which is broken. Exact where the graph is not capped; ties go to the lower number.
    """
    return by_size(united(graph, vectors, threshold, links or link(len(graph))))


def template_link(
    graph: Neighbours, vectors: FloatArray, threshold: float, links: Links | None = None
) -> IntArray:
    """Clusters whose templates reach a threshold: int64 (n,), see `by_size`.

    graph: of these vectors (n, d), at `REACH` below the threshold. links: as in `average_link`.
    In the end no two clusters are left that are joined by an edge of the graph, may come together,
    and have templates that reach the threshold.
    """
    given = links or link(len(graph))
    return by_size(united(graph, vectors, threshold, given, templates=True))


def united(
    graph: Neighbours,
    vectors: FloatArray,
    threshold: float,
    links: Links,
    *,
    templates: bool = False,
) -> IntArray:
    """As `average_link` and `template_link` of vectors (n, d); clusters named by one of their
    units: int64 (n,)."""
    state = _started(graph, vectors, threshold, links, templates)
    waiting = [unit for unit in range(links.units) if len(state.near[unit])][::-1]
    while waiting:
        made: list[int] = []
        while waiting:
            unit = waiting.pop()
            if state.root[unit] == unit and not state.done[unit]:
                found = _follow(state, unit)
                waiting += found
                made += found
        if templates and made:
            state.done[:] = False
            alive = np.unique(state.root)[::-1].tolist()
            waiting = [cluster for cluster in alive if len(state.near[cluster])]
    return state.root[links.unit]


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Clusters on their way, by the number of one of their units. total: sums of their vectors,
    float32 (units, d). scale: what a product of sums is divided by: number of faces, or length of
    the sum. root: cluster of each unit. near: candidates, as units. members: units of a cluster.
    done: nothing is near enough."""

    threshold: float
    reach: float
    templates: bool
    total: FloatArray
    scale: FloatArray
    root: IntArray
    near: list[IntArray]
    members: list[IntArray]
    done: NDArray[np.bool_]
    bounds: Bounds


def _started(
    graph: Neighbours, vectors: FloatArray, threshold: float, links: Links, templates: bool
) -> _State:
    units = links.units
    total = np.zeros((units, vectors.shape[1]), np.float32)
    np.add.at(total, links.unit, vectors)
    rows = links.unit[graph.rows]
    columns = links.unit[graph.columns][np.argsort(rows, kind="stable")]
    ends = np.cumsum(np.bincount(rows, minlength=units))[:-1]
    counts = np.bincount(links.unit, minlength=units).astype(np.float32)
    return _State(
        threshold,
        threshold - (REACH if templates else 0),
        templates,
        total,
        _lengths(total) if templates else counts,
        np.arange(units, dtype=np.int64),
        np.split(columns, ends) if units else [],
        [np.array([unit]) for unit in range(units)],
        np.zeros(units, np.bool_),
        bounds(links),
    )


def _lengths(rows: FloatArray) -> FloatArray:
    """Lengths of sums (n, d); never zero, which opposite vectors could make."""
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    return np.asarray(np.maximum(length, 1e-6), np.float32)


def _follow(state: _State, start: int) -> list[int]:
    """Go from a cluster to its nearest one, and on, until two are nearest to each other: they are
    united. Go on from the one before them, until the chain is empty.

    Similarities rise strictly along the chain, so it ends; what has nothing near is done. Returns
    the clusters that were made, to start from again.
    """
    chain, rising = [start], [-2.0]
    made: list[int] = []
    while chain:
        nearest, similarity = _nearest(state, chain[-1])
        if len(chain) > 1 and (nearest == chain[-2] or similarity <= rising[-1]):
            made.append(_unite(state, chain.pop(), chain.pop()))
            del rising[-2:]
        elif nearest < 0:
            state.done[chain.pop()] = True
            rising.pop()
        else:
            chain.append(nearest)
            rising.append(similarity)
    return made


def _nearest(state: _State, cluster: int) -> tuple[int, float]:
    """The most similar cluster that a cluster may be united with, and their similarity; `NOBODY`
    when none reaches the threshold. Those beyond reach are let go for good."""
    near = np.unique(state.root[state.near[cluster]])
    near = near[near != cluster]
    near = near[state.bounds.allowed(cluster, near)]
    product = state.total[near] @ state.total[cluster]
    similarity = product / (state.scale[near] * state.scale[cluster])
    inside = similarity >= state.reach
    near, similarity = near[inside], similarity[inside]
    state.near[cluster] = near
    if len(near) == 0:
        return NOBODY
    best = int(np.argmax(similarity))
    if similarity[best] < state.threshold:
        return NOBODY
    return int(near[best]), float(similarity[best])


def _unite(state: _State, a: int, b: int) -> int:
    """Make two clusters one, under the number of the one with more units."""
    kept, gone = (a, b) if len(state.members[a]) >= len(state.members[b]) else (b, a)
    state.root[state.members[gone]] = kept
    state.members[kept] = np.concatenate([state.members[kept], state.members[gone]])
    state.near[kept] = np.concatenate([state.near[kept], state.near[gone]])
    state.total[kept] += state.total[gone]
    if state.templates:
        state.scale[kept] = _lengths(state.total[kept][None])[0]
    else:
        state.scale[kept] += state.scale[gone]
    state.bounds.unite(kept, gone)
    state.members[gone] = state.near[gone] = state.members[gone][:0]
    return kept
