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

from facenet.apps.jobs.evaluation import check_draws
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
        """The name in the feature files: the model's, with an ending where faces are looked for,
        since those are other features."""
        return recognizer.embedder.card.name + ("-detected" if self.detect else "")

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
) -> list[str]:
    """Write the features of pictures; a sentence per picture without a face, whose feature is
    zeros.

    A feature is the sum of the outputs for the picture and its mirror image, of length one.
    """
    problems: list[str] = []
    looking = Gathering(aligned=not run.detect, mirrors=True, remember=False)
    gatherer = Gatherer(recognizer, looking)
    for start in range(0, len(names), CHUNK):
        part = names[start : start + CHUNK]
        pictures = [Picture(name, _there(side.images / name)) for name in part]
        seen = gatherer.gather(pictures, lambda n, _, s=start: done(s + n, len(names)))  # type: ignore[misc]
        for name, vector in zip(part, seen.vectors(), strict=True):
            write_feature(_feature(run, side, name, recognizer), vector)
        problems += seen.problems.values()
    return problems


def _feature(run: MegafaceRun, side: Listed, name: str, recognizer: Recognizer) -> Path:
    return feature_path(run.features, side.kind, name, run.algorithm(recognizer))


def run_megaface(run: MegafaceRun, recognizer: Recognizer, done: Done) -> dict[str, Any]:
    """Write the features that are missing, then evaluate all; `problems` are of the former."""
    problems: list[str] = []
    missing = [missing_features(run, side, recognizer) for side in run.sides]
    for side, names in zip(run.sides, missing, strict=True):
        problems += write_features(run, side, names, recognizer=recognizer, done=done)
    card = recognizer.embedder.card
    values = evaluate_megaface(run, run.algorithm(recognizer))
    facts = {"model": card.name, "model_digest": card.source.sha256, "contract": card.contract}
    return values | facts | {"precision": recognizer.embedder.precision, "problems": problems}


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
    faces = "faces looked for" if run.detect else "pictures are crops"
    return {
        "model": algorithm,
        "dataset": "MegaFace",
        "protocol": "FaceScrub probes among distractors, cosine similarity of summed flips; "
        f"{faces}; noisy pictures {treated}",
        "digests": run.digests(),
        "failures": found["probes_lost"] + found["distractors_lost"],
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
