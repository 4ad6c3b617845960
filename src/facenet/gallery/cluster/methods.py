"""The methods by name, with the settings of facenet's two scripts beside our own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet.errors import SettingsError
from facenet.gallery.cluster.constraints import Links, link
from facenet.gallery.cluster.density import dbscan, hdbscan, similarity_of
from facenet.gallery.cluster.linkage import REACH, average_link, template_link
from facenet.gallery.cluster.neighbours import (
    MOST,
    Neighbours,
    checked_unit,
    neighbour_graph,
    require_threshold,
)
from facenet.gallery.cluster.whispers import ROUNDS, chinese_whispers
from facenet.types import FloatArray, IntArray

METHODS = ("template", "average", "whispers", "dbscan", "hdbscan")
FACENET = {
    "facenet-dbscan": ("dbscan", similarity_of(1.0)),
    "facenet-whispers": ("whispers", 0.55),
}
"""facenet's contributed/cluster (eps 1.0, one sample) and contributed/clustering (0.55, 20
rounds): the method and its similarity, whatever the model."""
DEFAULT_METHOD = "template"
DEFAULT_FMR = 3e-6
"""Rate of false matches of single pairs. A collection is compared all with all, so it is lower
than where two photos are; chosen on one half of LFW's people, it scores best on the other too."""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How faces become clusters.

    method: one of `METHODS` or of `FACENET`. threshold: similarity, not used by hdbscan; that of a
    `FACENET` method is its own. samples: faces that a core of dbscan needs; hdbscan takes 2 at
    least. rounds, seed: of whispers. most: neighbours that a face keeps. Raises SettingsError.
    """

    method: str = DEFAULT_METHOD
    threshold: float = 0.6
    samples: int = 1
    rounds: int = ROUNDS
    seed: int = 0
    most: int = MOST

    def __post_init__(self) -> None:
        require_method(self.method)
        require_threshold(self.threshold)
        if self.method in FACENET:
            object.__setattr__(self, "threshold", FACENET[self.method][1])
        if min(self.samples, self.rounds, self.most) < 1 or self.seed < 0:
            raise SettingsError(
                "samples, rounds and most should be 1 or more and seed 0 or more; got "
                f"{self.samples}, {self.rounds}, {self.most} and {self.seed}."
            )

    @property
    def family(self) -> str:
        """The method without facenet's settings."""
        return FACENET.get(self.method, (self.method,))[0]

    @property
    def reach(self) -> float:
        """The similarity from which pairs are needed in the graph."""
        below = REACH if self.family == "template" else 0.0
        return max(-0.99, self.threshold - below)


@dataclass(frozen=True, slots=True, eq=False)
class Clustered:
    """labels: int64 (n,), clusters by size. note: what a reader should know, or empty."""

    labels: IntArray
    note: str = ""


def require_method(method: str) -> None:
    """Raises SettingsError for a method that there is not."""
    if method not in (*METHODS, *FACENET):
        raise SettingsError(
            f"method should be one of {', '.join((*METHODS, *FACENET))}; got {method!r:.40}."
        )


def cluster_faces(
    vectors: NDArray[np.floating], settings: ClusterSettings, links: Links | None = None
) -> Clustered:
    """Clusters of faces: vectors (n, d), unit length -> labels (n,), the biggest cluster first.

    Every face has a label: one that is like no other is a cluster of its own. links: constraints,
    never broken. Raises InputError for vectors that are no unit vectors, and SettingsError for
    hdbscan with constraints, which it does not know.
    """
    rows = checked_unit(vectors)
    if settings.family == "hdbscan":
        if links is not None and (links.binding() or links.units < len(rows)):
            raise SettingsError(
                "HDBSCAN knows no rulings on who is one person and who is two. Choose another "
                "method, or let the faces of a photo be one person (--collages)."
            )
        return Clustered(hdbscan(rows, smallest=max(2, settings.samples)))
    graph = neighbour_graph(rows, settings.reach, most=settings.most)
    return Clustered(cluster_graph(graph, rows, settings, links), graph.sentence())


def cluster_graph(
    graph: Neighbours, vectors: FloatArray, settings: ClusterSettings, links: Links | None = None
) -> IntArray:
    """As `cluster_faces` from a graph of the vectors (n, d) at `settings.reach` or below: (n,)."""
    near, given = graph.above(settings.reach), links or link(len(graph))
    if settings.family == "whispers":
        return chinese_whispers(near, given, rounds=settings.rounds, seed=settings.seed)
    if settings.family == "dbscan":
        return dbscan(near, given, samples=settings.samples)
    grow = template_link if settings.family == "template" else average_link
    return grow(near, vectors, settings.threshold, given)
