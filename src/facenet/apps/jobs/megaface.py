"""MegaFace with a model: the work behind `facenet evaluate megaface`.

Features go to files as MegaFace's devkit and insightface's tools read them; what is there is not
made again, so that a run over a million pictures goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.gather import Done, Gatherer, Gathering
from facenet.data.megaface import (
    feature_path,
    noisy,
    person_of,
    read_features,
    read_image_list,
    read_noise_list,
    write_feature,
)
from facenet.data.pairset import Picture
from facenet.evaluate.intervals import REPLICATES
from facenet.evaluate.megaface import (
    MegafaceSettings,
    insightface_far_distractors,
    insightface_noise_removal,
    megaface_report,
)
from facenet.recognizer import Recognizer
from facenet.types import FloatArray

CHUNK = 1024
"""Pictures between two looks at the disk."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One side of MegaFace. kind: "facescrub" or "megaface". file: its list. images: the folder
    that the paths of the list begin in. noises: a list of noisy pictures, or None."""

    kind: str
    file: Path
    images: Path
    noises: Path | None = None


@dataclass(frozen=True, slots=True)
class MegafaceRun:
    """sides: probes and distractors. features: folder of the feature files. detect: look for a
    face in each picture, instead of taking it for a crop. as_insightface: replace noisy pictures
    as insightface's remove_noises.py does, instead of leaving them out. replicates, seed: of the
    bootstrap and of the subsets."""

    sides: tuple[Listed, Listed]
    features: Path
    detect: bool = False
    as_insightface: bool = False
    replicates: int = REPLICATES
    seed: int = 0


def write_features(
    side: Listed, recognizer: Recognizer, how: Gathering, *, features: Path, done: Done
) -> list[str]:
    """Write the feature of every picture of a list that has none yet; a sentence per picture
    without a face, whose feature is zeros.

    A feature is the sum of the outputs for the picture and its mirror image, of length one.
    """
    names = read_image_list(side.file, side.kind)
    algorithm = recognizer.embedder.card.name
    missing = [
        name for name in names if not feature_path(features, side.kind, name, algorithm).is_file()
    ]
    problems: list[str] = []
    gatherer = Gatherer(recognizer, how)
    for start in range(0, len(missing), CHUNK):
        part = missing[start : start + CHUNK]
        pictures = [Picture(name, _there(side.images / name)) for name in part]
        seen = gatherer.gather(pictures, lambda n, _, s=start: done(s + n, len(missing)))  # type: ignore[misc]
        for name, vector in zip(part, seen.vectors(), strict=True):
            write_feature(feature_path(features, side.kind, name, algorithm), vector)
        problems += seen.problems.values()
    return problems


def run_megaface(run: MegafaceRun, recognizer: Recognizer, done: Done) -> dict[str, Any]:
    """Write the features that are missing, then evaluate all; `problems` are of the former."""
    looking = Gathering(aligned=not run.detect, mirrors=True, remember=False)
    problems: list[str] = []
    for side in run.sides:
        problems += write_features(side, recognizer, looking, features=run.features, done=done)
    values = evaluate_megaface(run, recognizer.embedder.card.name)
    return values | {"problems": problems}


def evaluate_megaface(run: MegafaceRun, algorithm: str) -> dict[str, Any]:
    """Rank 1 and TAR from the feature files of both lists; algorithm: the name in the files."""
    probes, distractors = run.sides
    names, noisy_probes = _clean(probes)
    strangers, noisy_strangers = _clean(distractors)
    if not run.as_insightface:
        names, strangers = _without(names, noisy_probes), _without(strangers, noisy_strangers)
    paths = [feature_path(run.features, probes.kind, name, algorithm) for name in names]
    rows = np.concatenate(list(read_features(paths)))
    people = [person_of(name) for name in names]
    others = [feature_path(run.features, distractors.kind, name, algorithm) for name in strangers]
    blocks = read_features(others)
    if run.as_insightface:
        rows = insightface_noise_removal(rows, people, noisy_probes, seed=run.seed)
        blocks = _far(blocks, noisy_strangers)
    settings = MegafaceSettings(replicates=run.replicates, seed=run.seed)
    found = megaface_report(rows, people, blocks, settings, count=len(others))
    treated = "replaced as by insightface" if run.as_insightface else "left out"
    return {
        "model": algorithm,
        "dataset": "MegaFace",
        "protocol": "FaceScrub probes among distractors, cosine similarity of summed flips; noisy "
        f"pictures {treated}",
        "noisy": [int(noisy_probes.sum()), int(noisy_strangers.sum())],
        **found.pop("verification"),
        **found,
        "identification": {"scaling": [_misses(row) for row in found["rank_1"]]},
    }


def _misses(row: dict[str, Any]) -> dict[str, Any]:
    """A point of the curve in the terms of searches: misses at rank 1 against the gallery."""
    low, high = row["ci"] or (None, None)
    ends = None if low is None or high is None else [1 - high, 1 - low]
    return {
        "gallery": row["distractors"],
        "hit_rate": row["rate"],
        "fnir": 1 - row["rate"],
        "fnir_ci": ends,
    }


def _clean(side: Listed) -> tuple[tuple[str, ...], np.ndarray[Any, np.dtype[np.bool_]]]:
    """The pictures of a list, and which of them are noisy."""
    names = read_image_list(side.file, side.kind)
    noises = read_noise_list(side.noises, side.kind) if side.noises else frozenset[str]()
    return names, noisy(names, noises, side.kind)


def _without(names: Sequence[str], marks: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[str, ...]:
    return tuple(name for name, mark in zip(names, marks, strict=True) if not mark)


def _far(
    blocks: Iterator[FloatArray], marks: np.ndarray[Any, np.dtype[np.bool_]]
) -> Iterator[FloatArray]:
    start = 0
    for block in blocks:
        yield insightface_far_distractors(block, marks[start : start + len(block)])
        start += len(block)


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None


def megaface_text(values: dict[str, Any]) -> str:
    """The numbers for a person."""
    lines = [
        f"{values['model']} on MegaFace: {values['probes']:,} probes of {values['people']:,} people"
    ]
    for row in values["rank_1"]:
        low, high = row["ci"] or (float("nan"), float("nan"))
        lines.append(
            f"rank 1 among {row['distractors']:,} distractors: {row['rate']:.4f} "
            f"[{low:.4f}, {high:.4f}]"
        )
    for name, point in values["tar_at_far"].items():
        lines.append(f"TAR {point['tar']:.4f} at FAR {name}")
    lines += [f"not printed: {why}" for why in list(values["refused"].values())[:1]]
    lines.append(f"protocol: {values['protocol']}")
    return "\n".join(lines)
