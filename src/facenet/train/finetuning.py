"""Fine-tuning: who is learned and who judges, the usual configuration, old and new model compared.

Three parts of the pictures, drawn by a seed: people who are held out with all their pictures judge
the embedding; of the people who are learned, some pictures are held back and tell whether these
people are known better than before; the rest is learned. No choice of the training looks at the
first two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facenet import vectors
from facenet.data.splitting import split_images, split_people
from facenet.data.trainingset import TrainingSet
from facenet.errors import DataError, SettingsError
from facenet.faces.embed import standardise
from facenet.models.card import Preprocess
from facenet.train.backbones.backbone import Backbone
from facenet.train.closedset import Known, KnownVectors
from facenet.train.crops import crop_batches
from facenet.train.gate import JudgedPairs
from facenet.train.settings import StageSettings
from facenet.train.unfolding import settle_statistics
from facenet.train.validation import ValidationSet, embedded
from facenet.train.weights import Loaded, load_network
from facenet.types import FloatArray, IntArray

LEARNED, HELD_BACK, JUDGING = "learned", "held back", "judging"
"""What a picture is for."""
MIN_PEOPLE = 4
"""People who are held out, at least: two folds that share nobody."""
MIN_PICTURES = 3
"""Pictures that a learned person has, at least, for one of them to be held back."""
STATISTICS = 512
"""Pictures that moving statistics are begun from."""
BATCHES = (8, 32)
"""The smallest and the largest batch, unless the configuration names one."""
STEPS = 8
"""Steps that an epoch has, where there are enough pictures."""


@dataclass(frozen=True, slots=True)
class Shares:
    """hold_out: share of the people who judge. hold_back: share of the pictures of each learned
    person that are not learned. gate: False when nothing is held out, and all is learned.
    Raises SettingsError for shares that cannot be."""

    hold_out: float = 0.2
    hold_back: float = 0.2
    gate: bool = True

    def __post_init__(self) -> None:
        for name in ("hold_out", "hold_back"):
            if not 0 < getattr(self, name) < 1:
                raise SettingsError(
                    f"{name} should be above 0 and below 1; got {getattr(self, name):g}. To learn "
                    "from everything and judge by nothing, use --no-gate."
                )


@dataclass(frozen=True, slots=True, eq=False)
class Roles:
    """What each picture of a set is for: rows, int64, rising, no row in two of them."""

    learned: IntArray
    held_back: IntArray
    judging: IntArray

    def words(self) -> list[str]:
        """A word for each picture, in the order of the set."""
        told = [""] * sum(len(rows) for rows in (self.learned, self.held_back, self.judging))
        for rows, word in (
            (self.learned, LEARNED),
            (self.held_back, HELD_BACK),
            (self.judging, JUDGING),
        ):
            for row in rows.tolist():
                told[row] = word
        return told


def divide(whole: TrainingSet, shares: Shares, seed: int) -> Roles:
    """Draw who is learned and what judges.

    Raises DataError with the numbers when there are not enough people to learn and to judge by.
    """
    none = np.zeros(0, np.int64)
    if len(whole.people) < 2:
        raise DataError(
            f"Fine-tuning needs two people or more to tell apart; {whole.name} holds "
            f"{len(whole.people)} with usable pictures. Add people."
        )
    if not shares.gate:
        return Roles(np.arange(len(whole)), none, none)
    _check_people(whole, shares.hold_out)
    people = split_people(whole.labels, shares.hold_out, seed)
    counts = np.bincount(whole.labels)
    several = people.train[counts[whole.labels[people.train]] >= MIN_PICTURES]
    if not len(several):
        return Roles(people.train, none, people.held)
    split = split_images(whole.labels[several], shares.hold_back, seed)
    back = several[split.held]
    return Roles(np.setdiff1d(people.train, back), back, people.held)


def _check_people(whole: TrainingSet, hold_out: float) -> None:
    """Raise DataError when the folder holds too few people to judge by."""
    counts = np.bincount(whole.labels)
    several = int(np.sum(counts >= 2))
    wanted = len(counts) - round(len(counts) * (1 - hold_out) + 1e-9)
    judging = min(wanted, several)
    if judging >= MIN_PEOPLE and len(counts) - judging >= 2:
        return
    raise DataError(
        f"Judging needs {MIN_PEOPLE} people or more who are held out, with two pictures or more "
        f"each, and two who are learned; {whole.name} has {len(counts)} people, {several} of them "
        f"with two pictures, and a share of {hold_out:g} holds out {judging}. Add people or "
        "pictures, hold out more (--hold-out), or train without judging (--no-gate)."
    )


# ---- the usual configuration


def usual_config(base: Loaded, *, train_batch_norm: bool = False) -> dict[str, Any]:
    """Plain values of a configuration that fits most folders, without data and start.model.

    Three stages: the class centres alone, the last block and the output, the block before it too.
    The large margin makes known pictures hard enough to learn from; the new vectors are held to the
    old ones (start.distil). Class centres are short, so that their rate is a small number.
    """
    norms = "trained" if train_batch_norm else "frozen"
    before, last = tuple(base.backbone.blocks())[-3:-1]
    return {
        "preprocess": asdict(_preprocess(base)),
        "backbone": {"name": base.name, **asdict(base.settings)},
        "start": {"distil": 60.0},
        "loss": {"name": "cosface", "margin": 0.6, "scale": 32.0},
        "optimiser": {"name": "sgd"},
        "schedule": {"name": "cosine", "rate": 0.001},
        "loop": {},
        "stages": [
            asdict(StageSettings("head", epochs=1, rate=0.001, batch_norm="frozen")),
            asdict(StageSettings(last, epochs=2, rate=0.001, batch_norm=norms)),
            asdict(StageSettings(before, epochs=3, rate=0.0005, batch_norm=norms, layer_decay=0.7)),
        ],
        "licence": base.card.licence.weights,
    }


def batch_for(pictures: int) -> int:
    """A batch that leaves an epoch some steps; of few pictures, all of them."""
    small, large = BATCHES
    return max(1, min(pictures, large, max(small, pictures // STEPS)))


def _preprocess(base: Loaded) -> Preprocess:
    if base.card.preprocess is None:
        raise SettingsError(
            f"{base.card.name} should say how its crops are made; its card does not. Choose "
            "another base."
        )
    return base.card.preprocess


def settled(base: Loaded, people: TrainingSet) -> int:
    """Give the base statistics of these people, so that its normalisations can learn.

    In the graphs of published models they are folded away. Returns the number of pictures.
    """
    rows = np.random.default_rng(0).permutation(len(people))[:STATISTICS]
    sources = ((int(row), people.read(int(row))) for row in np.sort(rows))
    preprocess = _preprocess(base)
    return settle_statistics(
        base.backbone,
        (
            torch.from_numpy(standardise(crops, preprocess))
            for _, crops in crop_batches(sources, preprocess)
        ),
    )


# ---- what the gate looks at


@dataclass(frozen=True, slots=True, eq=False)
class TwoModels:
    """The model that was begun from, and what became of it; both take crops of `preprocess`."""

    old: Backbone
    new: Backbone
    preprocess: Preprocess

    @classmethod
    def open(cls, base: Path, run: Path) -> TwoModels:
        """The weights that a run was begun from, and those that it exports.

        Raises as `weights.load_network`.
        """
        old, new = load_network(base), load_network(run)
        return cls(old.backbone, new.backbone, _preprocess(new))

    def judged(self, judged: ValidationSet) -> JudgedPairs:
        """A set of pairs with the vectors of both models."""
        with torch.no_grad():
            old, found = embedded(self.old.eval(), judged, self.preprocess)
            new, _ = embedded(self.new.eval(), judged, self.preprocess)
        return JudgedPairs(judged.name, judged.pairs, old, new, found)

    def known(self, whole: TrainingSet, roles: Roles, strangers: JudgedPairs) -> Known:
        """The pictures of the people who were learned, and those of others who are not among them.

        strangers: a set of people who were not learned, as `judged` gives it.
        """
        rows = np.concatenate([roles.learned, roles.held_back])
        seen = [self._vectors(one, whole, rows) for one in (self.old, self.new)]
        read = seen[0][1]
        first = np.arange(len(rows)) < len(roles.learned)
        learned, back = np.flatnonzero(read & first), np.flatnonzero(read & ~first)
        labels = whole.labels[rows]
        others = strangers.found
        return Known(
            labels[learned],
            labels[back],
            strangers.pairs.subjects()[others],
            *(
                KnownVectors(got[learned], got[back], rows_of[others])
                for (got, _), rows_of in zip(seen, (strangers.old, strangers.new), strict=True)
            ),
        )

    def _vectors(
        self, backbone: Backbone, whole: TrainingSet, rows: IntArray
    ) -> tuple[FloatArray, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """Unit vectors of some rows of a set (n, d), and which could be read (n,)."""
        got = np.zeros((len(rows), backbone.embedding_size), np.float32)
        read = np.zeros(len(rows), np.bool_)
        sources = ((place, whole.read(row)) for place, row in enumerate(rows.tolist()))
        with torch.no_grad():
            for places, crops in crop_batches(sources, self.preprocess):
                inputs = torch.from_numpy(standardise(crops, self.preprocess))
                got[places] = backbone.eval()(inputs).float().numpy()
                read[places] = True
        return vectors.unit(got), read


def without_people(judged: ValidationSet, known: Iterable[str]) -> tuple[ValidationSet, int]:
    """A set without the pairs of people of these names, and how many pairs that were.

    Raises DataError when fewer than two folds are left.
    """
    names = {name for name in known if name}
    shown = np.array([picture.person in names for picture in judged.pairs.pictures])
    pairs = judged.pairs
    kept = ~(shown[pairs.a] | shown[pairs.b])
    gone = int(np.sum(~kept))
    if not gone:
        return judged, 0
    if len(np.unique(pairs.fold[kept])) < 2:
        raise DataError(
            f"The reference set {judged.name} should be of people who are not learned; {gone} of "
            f"its {len(pairs)} pairs show one who is, and too few are left. Choose another set."
        )
    left = replace(
        pairs, a=pairs.a[kept], b=pairs.b[kept], same=pairs.same[kept], fold=pairs.fold[kept]
    )
    return replace(judged, pairs=left), gone


def only_own(values: Mapping[str, Any], own: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise SettingsError when a recipe or a change sets what fine-tuning decides itself.

    keys: such as "data.train".
    """
    for key in keys:
        section, _, name = key.partition(".")
        came, meant = values.get(section), own.get(section)
        if name:
            came, meant = (
                one.get(name) if isinstance(one, Mapping) else one for one in (came, meant)
            )
        if came != meant:
            raise SettingsError(
                f"{key} follows from the folder and the base here; leave it out of the recipe and "
                "the changes. `facenet train` takes it."
            )
