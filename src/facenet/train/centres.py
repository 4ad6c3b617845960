"""Class centres from the data: the mean embedding of each person, in place of random ones.

A new class layer of random numbers begins with a loss near 40 and drags a trained backbone through
a bad stretch (InsightFace issues 245, 350, 1998); one that begins at the centres does not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facenet.data.trainingset import TrainingSet
from facenet.faces.embed import standardise
from facenet.train.crops import crop_batches
from facenet.train.loop import Watch
from facenet.train.opening import rows_by_person
from facenet.train.training import Training
from facenet.train.validation import device_of

PER_PERSON = 20
"""Pictures of a person that make their centre."""


def begin_at_centres(training: Training, people: TrainingSet, watch: Watch) -> None:
    """Set the class centres of the loss to the people's mean unit embeddings.

    A loss without class centres stays as it is.
    """
    loss = training.class_loss()
    if loss is None:
        return
    watch.note(f"Finding the class centres of {len(people.people)} people.")
    with training.exported() as backbone:
        loss.set_centres(class_centres(backbone, people, training))


def class_centres(backbone: nn.Module, people: TrainingSet, training: Training) -> Tensor:
    """Mean unit embedding of each person, unit length again: float32 (people, d)."""
    size = training.backbone.embedding_size
    where = device_of(training.backbone)
    sums = torch.zeros(len(people.people), size, device=where)
    chosen = rows_by_person(people.labels, PER_PERSON)
    sources = ((row, people.read(row)) for row in chosen)
    for rows, crops in crop_batches(sources, training.config.preprocess):
        inputs = torch.from_numpy(standardise(crops, training.config.preprocess)).to(where)
        found = nn.functional.normalize(backbone(inputs).float())
        sums.index_add_(0, torch.from_numpy(people.labels[rows]).to(where), found)
    return nn.functional.normalize(sums)
