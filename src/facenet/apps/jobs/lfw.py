"""Labeled Faces in the Wild: the work behind `facenet evaluate lfw`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.apps.jobs.vectors_of import Done, collect_vectors
from facenet.data.pairs import Pair, lfw_path, read_lfw_pairs
from facenet.errors import DataError
from facenet.evaluate.verification import fold_accuracy
from facenet.models.card import ModelCard
from facenet.recognizer import Recognizer
from facenet.types import FloatArray


@dataclass(frozen=True, slots=True)
class LfwReport:
    """accuracy, accuracy_std: over the folds. threshold: cosine similarity. published: accuracy
    on the card, or None. not_found: pairs that count as "different" for want of a face or file."""

    model: str
    precision: str
    accuracy: float
    accuracy_std: float
    threshold: float
    pairs: int
    pictures: int
    not_found: int
    published: float | None
    published_protocol: str | None
    protocol: str
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """The result for a person, with its protocol."""
        lines = [
            f"{self.model} ({self.precision}): accuracy {self.accuracy:.4f} "
            f"+- {self.accuracy_std:.4f} on {self.pairs} pairs, threshold {self.threshold:.3f}",
            f"protocol: {self.protocol}",
            f"pairs without both faces: {self.not_found}, counted as different",
        ]
        if self.published is not None:
            lines.append(f"published: {self.published} ({self.published_protocol})")
        return "\n".join(lines)


def evaluate_lfw(
    images: Path,
    pairs_file: Path,
    recognizer: Recognizer,
    *,
    select: str,
    done: Done,
) -> LfwReport:
    """Run the protocol. Raises DataError when pairs or pictures are missing altogether."""
    pairs = read_lfw_pairs(pairs_file)
    paths = {name: lfw_path(images, name) for pair in pairs for name in (pair.a, pair.b)}
    missing = [f"{name}_{number:04d}" for (name, number), path in paths.items() if path is None]
    present = sorted(path for path in paths.values() if path is not None)
    if not present:
        raise DataError(
            f"{images} should hold Name/Name_0001.jpg; no picture of the pairs is there."
        )
    collected = collect_vectors(present, recognizer, select=select, done=done)
    similarity = _similarities(pairs, paths, collected.vectors)
    folds = [pair.fold for pair in pairs]
    counted = np.where(np.isnan(similarity), -1.0, similarity)
    result = fold_accuracy(counted, [pair.same for pair in pairs], folds)
    published = _published(recognizer.embedder.card)
    problems = [f"No such picture: {name}." for name in missing] + list(collected.failed.values())
    return LfwReport(
        model=recognizer.embedder.card.name,
        precision=recognizer.embedder.precision,
        accuracy=result.accuracy,
        accuracy_std=result.accuracy_std,
        threshold=result.threshold,
        pairs=len(pairs),
        pictures=len(present),
        not_found=int(np.isnan(similarity).sum()),
        published=published[0],
        published_protocol=published[1],
        protocol=_protocol(recognizer, select, len(set(folds))),
        problems=tuple(problems),
    )


def _similarities(
    pairs: Sequence[Pair],
    paths: Mapping[tuple[str, int], Path | None],
    found: Mapping[Path, FloatArray],
) -> NDArray[np.float64]:
    """Similarity per pair; NaN where a face is missing."""
    scores = np.full(len(pairs), np.nan)
    for row, pair in enumerate(pairs):
        a, b = (found.get(path) if (path := paths[name]) else None for name in (pair.a, pair.b))
        if a is not None and b is not None:
            scores[row] = vectors.similarity(a, b)
    return scores


def _protocol(recognizer: Recognizer, select: str, folds: int) -> str:
    preprocess = recognizer.embedder.preprocess
    return (
        f"{folds} contiguous folds, squared Euclidean distance, threshold from the other folds; "
        f"face by {select}, crop {preprocess.crop}"
        f"{f' margin {preprocess.margin}' if preprocess.margin else ''}, "
        f"standardise {preprocess.standardise}, "
        f"{'flip averaged' if recognizer.embedder.flip else 'no flip'}"
    )


def _published(card: ModelCard) -> tuple[float | None, str | None]:
    for figure in card.figures:
        if figure.name == "LFW accuracy" and figure.origin.startswith("published"):
            return figure.value, figure.protocol
    return None, None
