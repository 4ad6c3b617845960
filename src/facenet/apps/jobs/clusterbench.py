"""How long clustering takes, and the memory it needs: the work behind `facenet bench cluster`.

The faces are generated: people of very different sizes (Zipf), a direction each, with as much
random change as makes two faces of one person about as similar as real ones are, 0.55 to 0.85.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import numpy as np

from facenet.errors import SettingsError
from facenet.gallery.cluster.methods import METHODS, ClusterSettings, cluster_graph
from facenet.gallery.cluster.neighbours import neighbour_graph
from facenet.gallery.cluster.scores import score_clusters
from facenet.models.home import cpu_name, cpu_threads
from facenet.types import FloatArray, IntArray
from facenet.vectors import unit

LARGEST = 2000
"""Faces of the largest person."""
STEEP = 1.2
"""Exponent of the sizes of people."""


@dataclass(frozen=True, slots=True)
class ClusterBench:
    """What is measured. rows, dimension: of the generated vectors. Raises SettingsError."""

    rows: int = 100_000
    dimension: int = 512
    method: str = "template"
    threshold: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= 10_000_000 and 2 <= self.dimension <= 4096 and self.seed >= 0):
            raise SettingsError(
                "rows should be 1 to 10,000,000, dimension 2 to 4,096 and seed 0 or more; got "
                f"{self.rows}, {self.dimension} and {self.seed}."
            )
        if self.method not in METHODS[:4]:
            raise SettingsError(
                f"method should be one of {', '.join(METHODS[:4])}; got {self.method!r:.40}."
            )


def generated_faces(rows: int, dimension: int, seed: int) -> tuple[FloatArray, IntArray]:
    """Unit vectors float32 (n, d) of people who do not exist, and whose each is, int64 (n,)."""
    random = np.random.default_rng(seed)
    sizes = np.minimum(np.floor(random.pareto(STEEP, rows)) + 1, LARGEST).astype(np.int64)
    sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), rows)) + 1]
    person = random.permutation(np.repeat(np.arange(len(sizes)), sizes)[:rows])
    people = unit(random.standard_normal((len(sizes), dimension), dtype=np.float32))
    vectors = random.standard_normal((rows, dimension), dtype=np.float32)
    vectors *= (random.uniform(0.4, 0.9, rows) / np.sqrt(dimension)).astype(np.float32)[:, None]
    vectors += people[person]
    return unit(vectors), person


def measure_clustering(bench: ClusterBench) -> dict[str, Any]:
    """Seconds of the graph and of the clusters, memory in MB, and scores, as plain values."""
    vectors, person = generated_faces(bench.rows, bench.dimension, bench.seed)
    before, start, used = peak_memory(), perf_counter(), process_time()
    settings = ClusterSettings(bench.method, bench.threshold, seed=bench.seed)
    graph = neighbour_graph(vectors, settings.reach)
    middle = perf_counter()
    labels = cluster_graph(graph, vectors, settings)
    end = perf_counter()
    return {
        "rows": bench.rows,
        "dimension": bench.dimension,
        "method": bench.method,
        "threshold": bench.threshold,
        "graph_seconds": middle - start,
        "cluster_seconds": end - middle,
        "processor_seconds": process_time() - used,
        "edges": len(graph.columns) // 2,
        "capped": graph.capped,
        "vectors_mb": vectors.nbytes / 1e6,
        "peak_mb_before": before,
        "peak_mb": peak_memory(),
        "people": int(person.max()) + 1,
        **score_clusters(labels, person).to_dict(),
        "cpu": cpu_name(),
        "cores": cpu_threads(),
        "system": platform.platform(terse=True),
    }


def peak_memory() -> float:
    """The most memory that this process has held, in MB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) / (1e6 if sys.platform == "darwin" else 1e3)


def bench_text(values: dict[str, Any]) -> str:
    """What was measured, for a person."""
    return (
        f"{values['rows']:,} x {values['dimension']} faces of {values['people']:,} people by "
        f"{values['method']} at {values['threshold']:g}: graph {values['graph_seconds']:.1f} s "
        f"({values['edges']:,} pairs), clusters {values['cluster_seconds']:.1f} s, "
        f"{values['processor_seconds']:.1f} s of processor time; memory at most "
        f"{values['peak_mb']:,.0f} MB, {values['peak_mb_before']:,.0f} MB of it before (vectors "
        f"{values['vectors_mb']:,.0f} MB); B-cubed F {values['bcubed']['f']:.4f}"
    )
