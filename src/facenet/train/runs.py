"""Runs: begun from a configuration, gone on with after a stop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from facenet.errors import SettingsError
from facenet.train.centres import begin_at_centres
from facenet.train.checkpoint import has_checkpoint
from facenet.train.configfile import read_config
from facenet.train.loop import Loop, Summary, Watch, stage_schedules
from facenet.train.opening import Material, open_backbone, open_material
from facenet.train.runfolder import (
    LAST,
    begin_folder,
    check_unchanged,
    facts,
    open_folder,
)
from facenet.train.settings import Config
from facenet.train.stages import learning_blocks
from facenet.train.training import Training

SAME = ("torch", "threads", "machine")
"""Facts without which going on gives other bits."""


def train_embedder(
    recipe: Config | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    changes: Sequence[str] = (),
    watch: Watch | None = None,
) -> Summary:
    """Train as the recipe says, in a new folder.

    recipe: settings, or a YAML file of them. out: folder of the run. changes: to the file, such as
    "loop.batch=32". watch: who looks on, and may stop it. Raises SettingsError for settings that
    do not exist, TrainingError when there is a run in the folder, DataError for pictures that
    cannot be used, StorageError when the disk is full.
    """
    folder, watch = Path(out), watch or Watch()
    config = _settings(recipe, changes)
    material = open_material(config)
    backbone = open_backbone(config)
    training = Training(config, len(material.training.people), backbone)
    stage_schedules(config, material.steps_per_epoch)
    for stage in config.stages:
        learning_blocks(backbone, stage.part)
    _find_centres(training, material, watch)
    begin_folder(folder, config, backbone, material.whole)
    _tell_skipped(material, watch)
    return Loop(training, material, folder, watch).run()


def _settings(recipe: Config | str | os.PathLike[str], changes: Sequence[str]) -> Config:
    if not isinstance(recipe, Config):
        return read_config(Path(recipe), changes)
    if changes:
        raise SettingsError(
            f"changes are of a recipe's file; settings came, and {len(changes)} changes. Change "
            "the settings themselves, with dataclasses.replace."
        )
    return recipe


def resume_training(out: str | os.PathLike[str], *, watch: Watch | None = None) -> Summary:
    """Go on with a run that was stopped, to the same weights as if it had not been.

    Raises TrainingError when its pictures changed, DataError when there is no run or its
    checkpoint is damaged.
    """
    folder, watch = Path(out), watch or Watch()
    config, began = open_folder(folder)
    material = open_material(config)
    check_unchanged(folder, material.whole)
    backbone = open_backbone(config)
    training = Training(config, len(material.training.people), backbone)
    if not has_checkpoint(folder / LAST):  # stopped before its first one: as at the beginning
        _find_centres(training, material, watch)
    now = facts(config, backbone, material.whole)
    changed = [
        f"{name} {began.get(name)} -> {now[name]}" for name in SAME if began.get(name) != now[name]
    ]
    if changed:
        watch.note(f"The last bits of the weights may differ: {', '.join(changed)}.")
    return Loop(training, material, folder, watch).run()


def _find_centres(training: Training, material: Material, watch: Watch) -> None:
    """Begin at the centres of the data, where a model is begun from."""
    start = training.config.start
    if start.model is not None and start.centres == "data":
        begin_at_centres(training, material.training, watch)


def _tell_skipped(material: Material, watch: Watch) -> None:
    """A sentence about pictures that are not used, and where they are listed."""
    skipped = material.whole.skipped
    if skipped:
        first = skipped[0]
        watch.note(
            f"{len(skipped)} files or people are not used, the first of them {first.name}: "
            f"{first.reason}. run.json lists them all."
        )
