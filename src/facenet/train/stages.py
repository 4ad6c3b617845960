"""Stages of training: which part learns, which stays as it is, at which rates.

Frozen means frozen: no gradient, no dropout, and the statistics of batch normalisation stay too
(training "only the class layer" with live statistics took a model from 0.98 to 0.74 on LFW,
facenet issue 235).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from facenet.errors import SettingsError
from facenet.train.backbones.backbone import Backbone
from facenet.train.settings import Config, StageSettings

HEAD, ALL = "head", "all"


def planned(config: Config, steps_per_epoch: int) -> tuple[tuple[StageSettings, int], ...]:
    """The stages of a run with their lengths in steps; steps_per_epoch: of the optimiser."""
    listed = config.stages or (StageSettings(ALL, config.loop.epochs),)
    return tuple((one, max(1, round(one.epochs * steps_per_epoch))) for one in listed)


def learning_blocks(backbone: Backbone, part: str) -> tuple[str, ...]:
    """Names of the blocks that learn in a stage of this part, from input to output.

    Raises SettingsError for a block that the backbone does not have.
    """
    names = tuple(backbone.blocks())
    if part == HEAD:
        return ()
    if part == ALL:
        return names
    if part not in names:
        raise SettingsError(
            f"The part of a stage should be {HEAD}, {ALL} or a block of the backbone "
            f"({', '.join(names)}); got {part!r:.60}."
        )
    return names[names.index(part) :]


class Freezing:
    """Switches the parts of one backbone between learning and staying.

    Parameters that are fixed when it is made, a gain of 1 for instance, stay fixed for ever.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._free = [p for p in backbone.parameters() if p.requires_grad]

    def enter(self, settings: StageSettings) -> None:
        """Make the stage's blocks learn and all others stay; again after every validation."""
        learning = learning_blocks(self._backbone, settings.part)
        self._backbone.train()
        for name, modules in self._backbone.blocks().items():
            for module in modules:
                module.train(name in learning)
        staying = [m for m in self._backbone.modules() if isinstance(m, _BatchNorm)]
        staying = staying if settings.batch_norm == "frozen" else []
        for module in staying:
            module.eval()
        learnt = self._ids(*(m for name in learning for m in self._backbone.blocks()[name]))
        learnt -= self._ids(*staying)
        for parameter in self._free:
            parameter.requires_grad_(id(parameter) in learnt)

    def _ids(self, *modules: nn.Module) -> set[int]:
        return {id(parameter) for module in modules for parameter in module.parameters()}


def rates(backbone: Backbone, settings: StageSettings) -> Mapping[str, float]:
    """Factor of the learning rate per learning block: 1 at the output, less towards the input."""
    learning = learning_blocks(backbone, settings.part)
    return {name: settings.layer_decay**away for away, name in enumerate(reversed(learning))}
