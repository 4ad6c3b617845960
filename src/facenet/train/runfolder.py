"""The folder of a run: what is in it, and what must not change while it goes on.

config.yaml (all settings), run.json (network, versions, machine), data.json (the pictures),
metrics.jsonl, validation.json (of the best weights), report.html, and the checkpoints last/ and
best/.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from facenet.data.trainingset import TrainingSet, manifest_difference
from facenet.errors import DataError, TrainingError
from facenet.files import written
from facenet.train.backbones.backbone import Backbone
from facenet.train.configfile import read_config, write_config
from facenet.train.settings import Config
from facenet.train.validation import Judgement

CONFIG, RUN, DATA, VALIDATION = "config.yaml", "run.json", "data.json", "validation.json"
BEST, LAST = "best", "last"
RATES = "rates.txt"
"""A copy of the schedule's file, where it has one."""
MAX_BYTES = 200_000_000
"""Most bytes of a record: data.json has a line per person."""


def begin_folder(folder: Path, config: Config, backbone: Backbone, whole: TrainingSet) -> None:
    """Write the records of a new run. Raises TrainingError when there is one already."""
    if (folder / RUN).exists():
        raise TrainingError(
            f"{folder} should be a new folder; a run is in it. Go on with it by `facenet train "
            f"--resume {folder}`, or name another one."
        )
    write_config(_with_own_rates(config, folder), folder / CONFIG)
    write_record(folder / DATA, whole.manifest())
    write_record(folder / RUN, facts(config, backbone, whole))


def _with_own_rates(config: Config, folder: Path) -> Config:
    """The settings with a copy of the file of learning rates, so that it cannot change."""
    if config.schedule.file is None:
        return config
    try:
        text = Path(config.schedule.file).read_bytes()
    except OSError as error:
        raise DataError(
            f"Cannot read the learning rates {config.schedule.file}: {error.strerror}."
        ) from error
    with written(folder / RATES) as file:
        file.write(text)
    return replace(config, schedule=replace(config.schedule, file=RATES))


def facts(config: Config, backbone: Backbone, whole: TrainingSet) -> dict[str, Any]:
    """What a card and a reader of the run need to know."""
    options = {key: value for key, value in config.backbone.items() if key != "name"}
    pictures = f"{whole.name}: {len(whole.labels)} pictures of {len(whole.people)} people"
    return {
        "backbone": config.backbone["name"],
        "backbone_settings": options,
        "embedding_size": backbone.embedding_size,
        "preprocess": asdict(config.preprocess),
        "training_data": pictures,
        "licence": {
            "code": "MIT",
            "weights": config.licence,
            "commercial": None,
            "note": "Trained by facenet; what may be done with them depends on the pictures.",
        },
        "skipped_pictures": [[skipped.name, skipped.reason] for skipped in whole.skipped],
        "data_digest": whole.digest,
        "facenet": version("facenet"),
        "revision": revision(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def revision() -> str | None:
    """The commit of this code, where it is run from a git checkout."""
    try:
        asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def open_folder(folder: Path) -> tuple[Config, dict[str, Any]]:
    """Settings and facts of a run that was begun. Raises DataError when there is none."""
    if not (folder / RUN).is_file():
        came = "there is none" if folder.is_dir() else "there is no such folder"
        raise DataError(
            f"{folder} should be the folder of a run of facenet train, with {RUN} in it; {came}."
        )
    return read_config(folder / CONFIG), read_record(folder / RUN)


def check_unchanged(folder: Path, whole: TrainingSet) -> None:
    """Raises TrainingError when the pictures are not those that the run began with."""
    difference = manifest_difference(read_record(folder / DATA), whole.manifest())
    if difference is not None:
        raise TrainingError(
            f"A run goes on with the pictures it began with. {difference} Bring them back, or "
            f"begin a new run with start.model={folder}."
        )


def write_judgements(folder: Path, judged: Sequence[Judgement], step: int) -> None:
    """Keep the figures of the best weights, for the card: accuracies and false-match rates."""
    figures = [
        {
            "name": f"{one.name} accuracy",
            "value": one.accuracy,
            "origin": f"validation at step {step} of this run",
            "protocol": f"{one.pairs} pairs, cosine, thresholds from the other folds; 95 % "
            f"interval {one.low:.4f} to {one.high:.4f}",
        }
        for one in judged
    ]
    tables = [one.fmr for one in judged if one.fmr is not None]
    fmr = asdict(tables[0]) if tables else None
    write_record(folder / VALIDATION, {"step": step, "figures": figures, "fmr": fmr})


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all. Raises StorageError when the disk is full."""
    with written(path) as file:
        file.write(json.dumps(values, indent=1).encode())


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON record of a run. Raises DataError when it is damaged or missing."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} should be a record of a run in JSON; {error}.") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} should be a JSON object; it is {type(values).__name__}.")
    return values
