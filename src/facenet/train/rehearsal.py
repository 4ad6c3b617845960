"""Steps on random pictures: how fast a network trains here, and how fast a plain loop trains it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from facenet.models.card import Preprocess
from facenet.train.backbones import BACKBONES, build_backbone
from facenet.train.batch import Batch
from facenet.train.choosing import chosen
from facenet.train.settings import Config, DataSettings, LoopSettings
from facenet.train.training import Training, new_backbone

CLASSES = 1000
RATE = 0.01


def rehearsed(network: str, batch: int, *, precision: str) -> Callable[[], None]:
    """A step of facenet's training by softmax over 1000 people, as `facenet train` takes it.

    network: name of a backbone. batch: pictures of a step. precision: "fp32" or "bf16". Raises
    SettingsError for names that do not exist.
    """
    side = chosen("network", network, BACKBONES).input_size
    config = Config(
        data=DataSettings("random pictures"),
        preprocess=Preprocess(side, side, "similarity", "fixed"),
        backbone={"name": network},
        loss={"name": "softmax"},
        loop=LoopSettings(batch=batch, precision=precision),
    )
    training = Training(config, CLASSES, new_backbone(config))
    images, labels = _random(batch, side)
    drawn = Batch(0, 0, np.arange(batch), images, labels)

    def step() -> None:
        training.take_step([drawn], RATE)

    return step


def plain(network: str, batch: int) -> Callable[[], None]:
    """A step of the loop that tutorials show, of the same network: fp32, nothing arranged."""
    side = chosen("network", network, BACKBONES).input_size
    torch.manual_seed(0)
    model = nn.Sequential(build_backbone(network), _classifier(network)).train()
    optimiser = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    images, labels = _random(batch, side)

    def step() -> None:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _classifier(network: str) -> nn.Linear:
    return nn.Linear(BACKBONES[network].settings().embedding_size, CLASSES)


def _random(batch: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (n, 3, side, side) and labels (n,), always the same."""
    source = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=source)
    return images, torch.randint(0, CLASSES, (batch,), generator=source)
