"""Validation while training: pairs of people the network has not learned, judged as deployed.

The weights are those that would be exported, in full precision, and the accuracy is that of
`evaluate.verification` with cosine similarity: thresholds come from the other folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from facenet import vectors
from facenet.data.bins import read_bin
from facenet.data.drawn import draw_pairs
from facenet.data.folders import Sample, read_class_folders
from facenet.data.pairs import lfw_pairs
from facenet.data.pairset import PairSet
from facenet.data.trainingset import TrainingSet
from facenet.errors import DataError
from facenet.evaluate.falsematch import false_match_table
from facenet.evaluate.intervals import wilson
from facenet.evaluate.verification import VerificationSettings, Views, verify_pairs
from facenet.faces.embed import standardise
from facenet.models.card import FmrTable, Preprocess
from facenet.train.backbones.backbone import Backbone
from facenet.train.crops import crop_batches
from facenet.train.settings import ValidationSettings
from facenet.types import FloatArray

HELD_OUT, HELD_OUT_PICTURES = "held-out people", "held-out pictures"
MOST_PAIRS = 6000


@dataclass(frozen=True, slots=True, eq=False)
class ValidationSet:
    """Pictures that are already crops, and pairs of them.

    name: as the log calls it. pairs: their pictures, by row. read: row -> encoded picture, or None
    where there is none.
    """

    name: str
    pairs: PairSet
    read: Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """accuracy: share of pairs decided right, 0 to 1, with its 95 % interval (low, high).
    pairs: decided. threshold: mean over the folds, a similarity. fmr: false matches of all pairs of
    different people of the set, where it names people.
    """

    name: str
    accuracy: float
    low: float
    high: float
    pairs: int
    threshold: float
    fmr: FmrTable | None


class Diverged(Exception):
    """The network gives vectors that are infinite or no numbers; caught by the loop."""


def open_validation(settings: ValidationSettings, seed: int) -> ValidationSet:
    """A set as the configuration names it. Raises DataError when it cannot be read."""
    if settings.bin is not None:
        return _of_pairs(Path(settings.bin).stem, read_bin(settings.bin))
    images = Path(str(settings.images))
    if settings.pairs is not None:
        return _of_pairs(Path(settings.pairs).stem, lfw_pairs(images, settings.pairs))
    drawn = draw_pairs(read_class_folders(images), dataset=images.name, pairs=MOST_PAIRS, seed=seed)
    return _of_pairs(images.name, drawn)


def held_out(training_set: TrainingSet, seed: int, *, name: str = HELD_OUT) -> ValidationSet:
    """Pairs drawn from what was kept from training.

    Raises DataError where there are fewer than four, or fewer than two with two pictures.
    """
    rows = range(len(training_set.labels))
    people = [training_set.people[label] for label in training_set.labels.tolist()]
    samples = [Sample(person, Path(str(row))) for person, row in zip(people, rows, strict=True)]
    pairs = draw_pairs(samples, dataset=name, pairs=MOST_PAIRS, seed=seed)
    row_of = [int(Path(str(picture.source)).name) for picture in pairs.pictures]
    return ValidationSet(name, pairs, lambda row: training_set.read(row_of[row]))


def judge(backbone: Backbone, judged: ValidationSet, preprocess: Preprocess) -> Judgement:
    """Embed the pictures and decide the pairs; the backbone is in evaluation.

    Raises DataError when fewer than two folds are left.
    """
    return judgement(judged, *embedded(backbone, judged, preprocess))


def judgement(
    judged: ValidationSet, rows: FloatArray, found: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> Judgement:
    """What the vectors of a set's pictures are worth: unit vectors (m, d), found bool (m,).

    Raises DataError when fewer than two folds are left.
    """
    result = verify_pairs(judged.pairs, Views(rows, None, found), VerificationSettings("cosine"))
    correct = result.decisions.correct
    interval = wilson(float(correct.sum()), float(len(correct)))
    people = np.array([picture.person for picture in judged.pairs.pictures])
    named = found & (people != "")
    table = None
    if len(set(people[named].tolist())) > 1:
        table = false_match_table(rows[named], people[named].tolist(), dataset=judged.name)
    return Judgement(
        judged.name,
        float(result.decisions.accuracy.mean()),
        *(interval[0], interval[1]),
        len(correct),
        float(result.thresholds.mean()),
        table,
    )


def embedded(
    backbone: Backbone, judged: ValidationSet, preprocess: Preprocess
) -> tuple[FloatArray, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Unit vectors float32 (m, d) of the set's pictures, and which could be read: bool (m,).

    Raises Diverged for vectors that are not finite.
    """
    count = len(judged.pairs.pictures)
    rows = np.zeros((count, backbone.embedding_size), np.float32)
    found = np.zeros(count, np.bool_)
    sources = ((number, judged.read(number)) for number in range(count))
    for numbers, crops in crop_batches(sources, preprocess):
        inputs = torch.from_numpy(standardise(crops, preprocess)).to(device_of(backbone))
        rows[numbers] = backbone(inputs).float().cpu().numpy()
        found[numbers] = True
    if not np.isfinite(rows).all():
        raise Diverged
    rows[found] = vectors.unit(rows[found])
    return rows, found


def _of_pairs(name: str, pairs: PairSet) -> ValidationSet:
    def read(row: int) -> bytes | None:
        source = pairs.pictures[row].source
        if not isinstance(source, Path):
            return source
        try:
            return source.read_bytes()
        except OSError as error:
            raise DataError(f"Cannot read {source} of {name}: {error.strerror}.") from error

    return ValidationSet(name, pairs, read)


def device_of(backbone: Backbone) -> torch.device:
    """Where the weights of a network are."""
    return next(backbone.parameters()).device


def best_of(judgements: Sequence[Judgement]) -> Judgement | None:
    """The set that the best checkpoint is chosen by: people held out, else the first."""
    chosen = [j for j in judgements if j.name == HELD_OUT]
    return next(iter(chosen or judgements), None)
