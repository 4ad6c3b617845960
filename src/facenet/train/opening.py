"""From a configuration to what training needs: batches, sets to judge by, a backbone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from facenet.data.filtering import read_filtered
from facenet.data.splitting import split_images, split_people
from facenet.data.trainingset import TrainingSet, open_training_set
from facenet.errors import DataError
from facenet.train.backbones.backbone import Backbone
from facenet.train.batch import Batch, Sampling
from facenet.train.loader import Loader
from facenet.train.losses.labels import check_labels
from facenet.train.sampling import Balanced, PeopleTimesImages, Shuffled
from facenet.train.settings import Config
from facenet.train.training import new_backbone
from facenet.train.validation import (
    HELD_OUT,
    HELD_OUT_PICTURES,
    ValidationSet,
    held_out,
    open_validation,
)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a run works on.

    whole: all pictures, as recorded for a later resume. training: those that are learned.
    sampling, loader: in which order, and who brings them. validation: sets to judge by. accumulate:
    batches of one step.
    """

    whole: TrainingSet
    training: TrainingSet
    sampling: Sampling
    loader: Loader
    validation: tuple[ValidationSet, ...]
    accumulate: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser in an epoch, at least 1."""
        return max(1, self.sampling.steps_per_epoch // self.accumulate)

    def steps(self, first: int) -> Generator[list[Batch]]:
        """The batches of step `first`, of the next one, and so on without end."""
        with closing(self.loader.run(first * self.accumulate)) as batches:
            while True:
                yield [next(batches) for _ in range(self.accumulate)]


def open_material(config: Config) -> Material:
    """Read the lists of pictures; no picture is decoded yet.

    Raises DataError for sets that cannot be read, for labels that do not fit, and when nobody is
    left to judge by.
    """
    whole = open_training_set(config.data.train, min_images=config.data.min_images)
    chosen = whole
    if config.data.keep is not None:
        chosen = whole.subset(read_filtered(config.data.keep).rows(whole.names))
    training, judged = _divided(chosen, config)
    if not training.people:
        raise DataError(f"{config.data.train} should leave people to learn; it leaves none.")
    check_labels(training.labels, len(training.people))
    sampling = _sampling(training, config)
    loader = Loader(
        training,
        sampling,
        config.preprocess,
        size=config.preprocess.width,
        augment=config.augment,
        seed=config.seed,
        threads=config.data.threads,
        cache_mb=config.data.cache_mb,
    )
    sets = tuple(open_validation(settings, config.seed) for settings in config.validation)
    return Material(whole, training, sampling, loader, (*judged, *sets), config.loop.accumulate)


def _divided(chosen: TrainingSet, config: Config) -> tuple[TrainingSet, tuple[ValidationSet, ...]]:
    """Pictures to learn from, and those to judge by: of other people, of the same people."""
    data, seed, judged = config.data, config.seed, list[ValidationSet]()
    if data.hold_out:
        split = split_people(chosen.labels, data.hold_out, seed)
        judged.append(held_out(chosen.subset(split.held), seed, name=HELD_OUT))
        chosen = chosen.subset(split.train)
    if data.hold_out_images:
        split = split_images(chosen.labels, data.hold_out_images, seed)
        judged.append(held_out(chosen.subset(split.held), seed, name=HELD_OUT_PICTURES))
        chosen = chosen.subset(split.train)
    return chosen, tuple(judged)


def _sampling(training: TrainingSet, config: Config) -> Sampling:
    data, batch = config.data, config.loop.batch
    if data.sampling == "people":
        own = data.epoch_batches or None
        return PeopleTimesImages(
            training.labels, data.people, data.images, config.seed, epoch_size=own
        )
    if data.sampling == "balanced":
        return Balanced(training.labels, batch, config.seed, power=data.power)
    return Shuffled(len(training.labels), batch, config.seed, epoch_size=data.epoch_batches or None)


def open_backbone(config: Config) -> Backbone:
    """The backbone to begin with: of `start.model`, or random.

    Raises ModelFileError when the weights are those of another network.
    """
    backbone = new_backbone(config)
    if config.start.model is not None:
        from facenet.train.weights import load_into

        load_into(backbone, config.start.model)
    return backbone


def rows_by_person(labels: np.ndarray[tuple[int], np.dtype[np.int64]], most: int) -> list[int]:
    """Up to `most` rows of each person, the first ones, in the order of the set."""
    seen: dict[int, int] = {}
    rows = []
    for row, label in enumerate(labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= most:
            rows.append(row)
    return rows
