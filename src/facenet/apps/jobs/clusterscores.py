"""How well faces cluster where the people are known: the work behind `facenet evaluate clusters`.

A folder per person is the truth. Every method is run at a few false-match rates; facenet's two
scripts at their own settings. A rate that was chosen on the people it is judged on would look too
good, so each method's best rate is also chosen on one half of the people and judged on the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from facenet.apps.jobs.allpairs import look_at_folder, pictures_digest
from facenet.apps.jobs.gather import Done, Gathering
from facenet.errors import SettingsError
from facenet.gallery.calibrate import lowest_fmr
from facenet.gallery.cluster.incremental import add_faces
from facenet.gallery.cluster.methods import (
    DEFAULT_FMR,
    DEFAULT_METHOD,
    FACENET,
    METHODS,
    ClusterSettings,
    cluster_faces,
    cluster_graph,
    require_method,
)
from facenet.gallery.cluster.neighbours import Neighbours, neighbour_graph
from facenet.gallery.cluster.scores import ClusterScores, score_clusters
from facenet.recognizer import Recognizer
from facenet.types import FloatArray, IntArray

RATES = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
"""False-match rates at which methods are tried."""
ALL = (*METHODS, *FACENET)


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Faces of known people. vectors: (n, d). person: (n,). graph: of the lowest threshold."""

    vectors: FloatArray
    person: IntArray
    graph: Neighbours

    def run(self, settings: ClusterSettings) -> tuple[ClusterScores, float]:
        """The scores of a method, and its seconds without those of the graph."""
        start = perf_counter()
        if settings.family == "hdbscan":
            labels = cluster_faces(self.vectors, settings).labels
        else:
            labels = cluster_graph(self.graph, self.vectors, settings)
        return score_clusters(labels, self.person), perf_counter() - start


def score_folder(
    folder: Path,
    recognizer: Recognizer,
    how: Gathering,
    *,
    methods: Sequence[str] = ALL,
    seed: int = 0,
    done: Done,
) -> dict[str, Any]:
    """Scores of each method on the faces of a folder per person, as plain values.

    seed: of whispers, of the halves of the people, and of the order of the two parts. Raises
    SettingsError for methods that there are not, and for a model without a table of rates.
    """
    for method in methods:
        require_method(method)
    rates = {rate: recognizer.threshold(fmr=rate).similarity for rate in _rates(recognizer)}
    seen = look_at_folder(folder, recognizer, how, dataset=None, done=done)
    there = seen.faces.found
    trials = {method: _settings(method, rates, seed) for method in dict.fromkeys(methods)}
    lowest = min((s.reach for rows in trials.values() for _, s in rows), default=0.5)
    start = perf_counter()
    whole = _trial(seen.faces.rows[there], seen.faces.person[there], lowest)
    graph_seconds = perf_counter() - start
    results = [_row(rate, s, *whole.run(s)) for rows in trials.values() for rate, s in rows]
    facts = {key: value for key, value in seen.facts.items() if key != "cropping"}
    return {
        **facts,
        "dataset": seen.dataset,
        "protocol": "faces without their names clustered, compared with the people; "
        + str(seen.facts["cropping"]),
        "digests": {seen.dataset: pictures_digest(seen.pictures)},
        "pictures": len(seen.pictures),
        "people": int(len(np.unique(seen.faces.person))),
        "faces": len(whole.person),
        "failures": len(seen.pictures) - len(whole.person),
        "graph": {"seconds": graph_seconds, "edges": len(whole.graph.columns) // 2},
        "capped": whole.graph.capped,
        "results": results,
        "held_out": _held_out(whole, trials, lowest, seed),
        "in_two_parts": _in_two_parts(whole, rates, seed),
    }


def _rates(recognizer: Recognizer) -> tuple[float, ...]:
    """The rates that the table of a model knows."""
    table = recognizer.calibration.fmr if recognizer.calibration else recognizer.embedder.card.fmr
    if table is None:
        raise SettingsError(
            f"{recognizer.embedder.card.name} has no table of false-match rates, by which "
            "thresholds are chosen. Make one with `facenet calibrate` or `facenet evaluate "
            "all-pairs`."
        )
    least = lowest_fmr(table)
    return tuple(rate for rate in RATES if rate >= least) or (least,)


def _settings(
    method: str, rates: Mapping[float, float], seed: int
) -> list[tuple[float | None, ClusterSettings]]:
    """The settings at which a method is tried, with their rates."""
    if method in FACENET or method == "hdbscan":
        return [(None, ClusterSettings(method, seed=seed))]
    return [(rate, ClusterSettings(method, level, seed=seed)) for rate, level in rates.items()]


def _trial(vectors: FloatArray, person: IntArray, lowest: float) -> _Trial:
    return _Trial(vectors, person, neighbour_graph(vectors, lowest))


def _row(
    rate: float | None, settings: ClusterSettings, scores: ClusterScores, seconds: float
) -> dict[str, Any]:
    free = settings.family == "hdbscan"
    return {
        "method": settings.method,
        "fmr": rate,
        "threshold": None if free else settings.threshold,
        "default": settings.method == DEFAULT_METHOD and rate == DEFAULT_FMR,
        **scores.to_dict(),
        "seconds": seconds,
    }


def _held_out(
    whole: _Trial,
    trials: Mapping[str, Sequence[tuple[float | None, ClusterSettings]]],
    lowest: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Of each method that has a rate, the B-cubed F of each half of the people at the rate that is
    best on the other half."""
    people = np.unique(whole.person)
    first = np.isin(whole.person, np.random.default_rng(seed).permutation(people)[::2])
    halves = [
        _trial(whole.vectors[half], whole.person[half], lowest)
        for half in (first, ~first)
        if half.any()
    ]
    rows = []
    for method, settings in trials.items():
        if len(settings) < 2 or len(halves) < 2:
            continue
        f = [[half.run(one)[0].bcubed.f for _, one in settings] for half in halves]
        chosen = [int(np.argmax(scores)) for scores in f]
        rows.append(
            {
                "method": method,
                "fmr": [settings[chosen[0]][0], settings[chosen[1]][0]],
                "bcubed_f": [f[1][chosen[0]], f[0][chosen[1]]],
            }
        )
    return rows


def _in_two_parts(whole: _Trial, rates: Mapping[float, float], seed: int) -> dict[str, Any]:
    """The default method with all faces at once, and with one half added to the other."""
    rate = min(rates, key=lambda rate: abs(np.log(rate / DEFAULT_FMR)))
    settings = ClusterSettings(DEFAULT_METHOD, rates[rate])
    at_once = cluster_graph(whole.graph.above(settings.reach), whole.vectors, settings)
    order = np.random.default_rng(seed).permutation(len(whole.person))
    middle = len(order) // 2
    half = cluster_faces(whole.vectors[order[:middle]], settings).labels
    start = perf_counter()
    labels = np.empty(len(order), np.int64)
    labels[order] = add_faces(whole.vectors[order], half, settings.threshold)
    seconds = perf_counter() - start
    return {
        "fmr": rate,
        "at_once": score_clusters(at_once, whole.person).to_dict(),
        "added": score_clusters(labels, whole.person).to_dict(),
        "agreement": score_clusters(labels, at_once).to_dict(),
        "seconds": seconds,
    }


def scores_text(values: Mapping[str, Any]) -> str:
    """The scores for a person: a line per method and rate, the best F of each kind marked."""
    best = {
        kind: max((row[kind]["f"] for row in values["results"]), default=0.0)
        for kind in ("bcubed", "pairwise")
    }
    lines = [
        f"{values['model']}: {values['faces']:,} faces of {values['people']:,} people in "
        f"{values['dataset']}, {values['failures']} pictures without a usable face",
        f"{'method':17}{'FMR':>7} {'similarity':>10}  {'B-cubed P, R, F':24}  "
        f"{'pairwise P, R, F':24} clusters seconds",
    ]
    lines += [_line(row, best) for row in values["results"]]
    lines += [
        f"{row['method']}: rate chosen on one half of the people, B-cubed F on the other: "
        f"{row['bcubed_f'][0]:.4f} and {row['bcubed_f'][1]:.4f}"
        for row in values["held_out"]
    ]
    parts = values["in_two_parts"]
    lines.append(
        f"in two parts: B-cubed F {parts['added']['bcubed']['f']:.4f}, at once "
        f"{parts['at_once']['bcubed']['f']:.4f}; F of one against the other "
        f"{parts['agreement']['bcubed']['f']:.4f}"
    )
    return "\n".join(lines)


def _line(row: Mapping[str, Any], best: Mapping[str, float]) -> str:
    rate = "" if row["fmr"] is None else f"{row['fmr']:.0e}"
    level = "" if row["threshold"] is None else f"{row['threshold']:.3f}"
    parts = []
    for kind in ("bcubed", "pairwise"):
        score = row[kind]
        mark = "*" if score["f"] == best[kind] else " "
        parts.append(f"{score['precision']:.4f} {score['recall']:.4f} {score['f']:.4f}{mark}  ")
    columns = "  ".join(parts)
    return (
        f"{row['method']:17}{rate:>7} {level:>10}  {columns}{row['clusters']:>8} "
        f"{row['seconds']:>6.1f}" + (" default" if row["default"] else "")
    )
