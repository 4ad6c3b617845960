"""Guards of a run: is it wired right, and are its numbers still numbers?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from facenet.data.trainingset import TrainingSet
from facenet.errors import TrainingError
from facenet.files import written
from facenet.train.batch import Batch
from facenet.train.checkpoint import packed

TOLERANCE = 1.5
"""How far the first loss may be from its expected value, besides three standard deviations."""
MOST_SETBACKS = 3
"""How often one process goes back before training is given up."""


class NotFinite(Exception):
    """A step gave a loss or a gradient that is infinite or no number; caught by the loop."""

    def __init__(self, step: int, dump: Path) -> None:
        super().__init__(step)
        self.step, self.dump = step, dump


def first_loss_note(loss: float, expected: float | None, spread: float) -> str | None:
    """A sentence when the loss of the first batch is not what random centres give; else None.

    expected: None where nothing is known of it. spread: its standard deviation.
    """
    if expected is None or abs(loss - expected) <= TOLERANCE + 3 * spread:
        return None
    return (
        f"The first loss should be about {expected:.1f} with random class centres; it is "
        f"{loss:.1f}. Check labels, scale and preprocessing when training does not get better."
    )


def dump_batch(
    folder: Path,
    step: int,
    batches: Sequence[Batch],
    training: TrainingSet,
    scalars: Mapping[str, float],
) -> Path:
    """Write what step `step` saw: pictures as they went in, their names, what came out."""
    place = folder / "dumps" / f"step-{step:09d}"
    images = torch.cat([batch.images for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    with written(place.with_suffix(".safetensors")) as file:
        file.write(packed({"images": images, "labels": labels}))
    rows = [int(row) for batch in batches for row in batch.rows]
    told = {
        "step": step,
        "names": [str(training.names[row]) for row in rows],
        "scalars": {name: repr(value) for name, value in scalars.items()},
    }
    with written(place.with_suffix(".json")) as file:
        file.write(json.dumps(told, indent=1).encode())
    return place.with_suffix(".json")


def check_setbacks(steps: Sequence[int], dump: Path) -> None:
    """Raises TrainingError when training had to go back too often; steps: where it went wrong."""
    if len(steps) > MOST_SETBACKS:
        raise TrainingError(
            f"Loss, gradient and weights should be finite numbers; {len(steps)} times (at the "
            f"steps {', '.join(map(str, steps))}) they were not, in spite of going back each time. "
            f"What the last one saw is in {dump}. Lower schedule.rate, or use precision fp32."
        )
