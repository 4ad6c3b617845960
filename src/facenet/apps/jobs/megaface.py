"""MegaFace with a model: the work behind `facenet evaluate megaface`.

Features go to files as MegaFace's devkit and insightface's tools read them; what is there is not
made again, so that a run over a million pictures goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from facenet.apps.jobs.evaluation import check_draws, embedder_facts
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
from facenet.data.pairs import file_digest, short
from facenet.data.pairset import Picture
from facenet.errors import DataError
from facenet.evaluate.intervals import REPLICATES
from facenet.evaluate.megaface import (
    MegafaceSettings,
    insightface_far_distractors,
    insightface_noise_removal,
    megaface_report,
)
from facenet.evaluate.rows import interval
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
    bootstrap and of the subsets. Raises SettingsError."""

    sides: tuple[Listed, Listed]
    features: Path
    detect: bool = False
    as_insightface: bool = False
    replicates: int = REPLICATES
    seed: int = 0

    def __post_init__(self) -> None:
        check_draws(self.replicates, self.seed)

    def algorithm(self, recognizer: Recognizer) -> str:
        """The name in the feature files: the model with what else its features depend on, so that
        those of another model, precision or detector are never taken for them."""
        embedder = recognizer.embedder
        found = f" {recognizer.detection}" if self.detect else ""
        terms = f"{embedder.card.contract} {embedder.arithmetic}{found}"
        return f"{embedder.card.name}-{hashlib.sha256(terms.encode()).hexdigest()[:12]}"

    def digests(self) -> dict[str, str]:
        """SHA-256 of the lists, by name."""
        lists = [file for side in self.sides for file in (side.file, side.noises) if file]
        return {file.name: file_digest(file) for file in lists}


def missing_features(run: MegafaceRun, side: Listed, recognizer: Recognizer) -> list[str]:
    """The pictures of a list without a feature.

    Raises DataError for lists that cannot be read, and where features are missing and no picture
    of the list is there.
    """
    names, _ = _clean(side)
    missing = [name for name in names if not _feature(run, side, name, recognizer).is_file()]
    if missing and not any((side.images / name).is_file() for name in names):
        raise DataError(
            f"{short(side.images)} should hold the pictures of {short(side.file)}, such as "
            f"{short(names[0])}; none of them is there. Give the folder that the list begins in."
        )
    return missing


def write_features(
    run: MegafaceRun, side: Listed, names: Sequence[str], *, recognizer: Recognizer, done: Done
) -> Mapping[str, float]:
    """Write the features of pictures, zeros for one without a face, none for one that is not
    there; the seconds it took, per stage.

    A feature is the sum of the outputs for the picture and its mirror image, of length one.
    """
    seconds: Mapping[str, float] = {}
    looking = Gathering(aligned=not run.detect, mirrors=True, remember=False)
    gatherer = Gatherer(recognizer, looking)
    for start in range(0, len(names), CHUNK):
        part = names[start : start + CHUNK]
        pictures = [Picture(name, _there(side.images / name)) for name in part]
        seen = gatherer.gather(pictures, lambda n, _, s=start: done(s + n, len(names)))  # type: ignore[misc]
        for picture, vector in zip(pictures, seen.vectors(), strict=True):
            if picture.source is not None:
                write_feature(_feature(run, side, picture.name, recognizer), vector)
        seconds = seen.seconds
    return seconds


def _feature(run: MegafaceRun, side: Listed, name: str, recognizer: Recognizer) -> Path:
    return feature_path(run.features, side.kind, name, run.algorithm(recognizer))


def run_megaface(run: MegafaceRun, recognizer: Recognizer, done: Done) -> dict[str, Any]:
    """Write the features that are missing, then evaluate all.

    `problems` names every picture whose feature is zeros or missing, in each run.
    """
    seconds: dict[str, float] = {}
    missing = [missing_features(run, side, recognizer) for side in run.sides]
    for side, names in zip(run.sides, missing, strict=True):
        took = write_features(run, side, names, recognizer=recognizer, done=done)
        seconds = {stage: seconds.get(stage, 0.0) + took[stage] for stage in took} or seconds
    start = perf_counter()
    values = evaluate_megaface(run, run.algorithm(recognizer), recognizer)
    facts = embedder_facts(recognizer, aligned=not run.detect)
    return values | facts | {"seconds": {**seconds, "score": perf_counter() - start}}


def evaluate_megaface(run: MegafaceRun, algorithm: str, recognizer: Recognizer) -> dict[str, Any]:
    """Rank 1 and TAR from the feature files of both lists; algorithm: the name in the files."""
    width = int(recognizer.embedder.card.dimension or 0)
    problems: list[str] = []
    probes, distractors = run.sides
    names, noisy_probes = _clean(probes)
    strangers, noisy_strangers = _clean(distractors)
    if not run.as_insightface:
        names, strangers = _without(names, noisy_probes), _without(strangers, noisy_strangers)
    paths = [feature_path(run.features, probes.kind, name, algorithm) for name in names]
    rows = np.concatenate(list(_features(paths, names, width, problems)))
    people = [person_of(name) for name in names]
    others = [feature_path(run.features, distractors.kind, name, algorithm) for name in strangers]
    blocks = _features(others, strangers, width, problems)
    if run.as_insightface:
        rows = insightface_noise_removal(rows, people, noisy_probes, seed=run.seed)
        blocks = _far(blocks, noisy_strangers)
    settings = MegafaceSettings(replicates=run.replicates, seed=run.seed)
    found = megaface_report(rows, people, blocks, settings, count=len(others))
    treated = "replaced as by insightface" if run.as_insightface else "left out"
    faces = "faces looked for" if run.detect else "pictures are crops"
    return {
        "model": algorithm,
        "dataset": "MegaFace",
        "protocol": "FaceScrub probes among distractors, cosine similarity of summed flips; "
        f"{faces}; noisy pictures {treated}",
        "digests": run.digests(),
        "failures": found["probes_lost"] + found["distractors_lost"],
        "problems": problems,
        "noisy": [int(noisy_probes.sum()), int(noisy_strangers.sum())],
        **found.pop("verification"),
        **found,
        "identification": {"scaling": [_misses(row) for row in found["rank_1"]]},
    }


def _features(
    paths: Sequence[Path], names: Sequence[str], width: int, problems: list[str]
) -> Iterator[FloatArray]:
    """The features of pictures, some at a time; zeros for one without a file, and a sentence for
    each of zeros."""
    for start in range(0, len(paths), CHUNK):
        part = range(start, min(start + CHUNK, len(paths)))
        rows = np.zeros((len(part), width), np.float32)
        there = [row for row in part if paths[row].is_file()]
        if there:
            found = np.concatenate(list(read_features(paths[row] for row in there)))
            rows[[row - start for row in there]] = found
        problems += [
            f"No usable face in {names[row]}: it is missing, cannot be read, or shows none."
            for row in part
            if not rows[row - start].any()
        ]
        yield rows


def _misses(row: dict[str, Any]) -> dict[str, Any]:
    """A point of the curve in the terms of searches: misses at rank 1 against the gallery."""
    low, high = row["ci"] or (None, None)
    ends = None if low is None or high is None else [1 - high, 1 - low]
    return {
        "gallery": row["distractors"],
        "hit_rate": row["rate"],
        "hit_rate_ci": row["ci"],
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
        lines.append(
            f"rank 1 among {row['distractors']:,} distractors: {row['rate']:.4f} "
            f"{interval(row['ci'])}"
        )
    for name, point in values["tar_at_far"].items():
        lines.append(f"TAR {point['tar']:.4f} {interval(point['ci'])} at FAR {name}")
    lines += [f"not printed: {why}" for why in list(values["refused"].values())[:1]]
    lines.append(f"protocol: {values['protocol']}")
    return "\n".join(lines)
