"""Learning rates in closed form: the rate of a step is computed from its number alone.

So nothing of a schedule has to be saved, and a resumed run has the same rates to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from facenet.errors import SettingsError
from facenet.train.choosing import chosen
from facenet.train.schedulefile import RateLine, held, read_rates
from facenet.train.unused import refuse_unused

UNITS = ("epoch", "step")

_USES = {
    "constant": ("rate",),
    "steps": ("rate", "at", "factor", "unit"),
    "staircase": ("rate", "every", "factor", "unit"),
    "poly": ("rate", "power", "final"),
    "cosine": ("rate", "final"),
    "file": ("file", "first_epoch"),
}


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """How the learning rate goes.

    name: "constant"; "steps": times `factor` at each mark of `at`; "staircase": times `factor`
    every so often (facenet's learning_rate_decay_epochs and _factor); "poly": from `rate` to
    `final` as (1 - t)^power (InsightFace: 2 in its published logs, 1 since April 2023); "cosine":
    from `rate` to `final` along half a cosine; "file": from a file as facenet's.
    rate: at first, after the warm-up. at: marks, ascending. factor: above 0. every: length of a
    stair. unit: of `at` and `every`: "epoch" (fractions too) or "step" of the optimiser. power:
    of poly. final: rate that poly and cosine reach at the end of the steps asked for. warmup:
    steps over which the rate rises in a line, (step + 1) / warmup of what it would be; poly and
    cosine begin to fall after it. file: path of the rates. first_epoch: what that file calls the
    first epoch: 1 as in facenet's softmax trainer, 0 as in its triplet trainer.
    """

    name: str = "constant"
    rate: float = 0.1
    at: tuple[float, ...] = ()
    factor: float = 0.1
    every: float = 0.0
    unit: str = "epoch"
    power: float = 1.0
    final: float = 0.0
    warmup: int = 0
    file: str | None = None
    first_epoch: int = 1

    def __post_init__(self) -> None:
        chosen("schedule.name", self.name, _USES)
        refuse_unused("schedule", self, _USES, always=("warmup",))
        if self.unit not in UNITS:
            raise SettingsError(f"schedule.unit should be epoch or step; got {self.unit!r:.60}.")
        for option in ("rate", "factor", "power"):
            if not 0 < getattr(self, option) < math.inf:
                raise _wrong(option, "more than 0", getattr(self, option))
        for option in ("final", "warmup"):
            if not 0 <= getattr(self, option) < math.inf:
                raise _wrong(option, "0 or more", getattr(self, option))
        if self.first_epoch not in (0, 1):
            raise _wrong("first_epoch", "0 or 1", self.first_epoch)
        self._require_own()

    def _require_own(self) -> None:
        """What "steps", "staircase" and "file" cannot do without."""
        rising = all(low < high for low, high in zip((0.0, *self.at), self.at, strict=False))
        if self.name == "steps" and not (self.at and rising and self.at[-1] < math.inf):
            raise _wrong("at", "a list of ascending marks above 0, such as [20, 28]", self.at)
        if self.name == "staircase" and not 0 < self.every < math.inf:
            raise _wrong("every", "the length of a stair, above 0", self.every)
        if self.name == "file" and not self.file:
            raise _wrong("file", "the path of a file of learning rates", self.file)


def _wrong(option: str, wanted: str, value: object) -> SettingsError:
    return SettingsError(
        f"schedule.{option} should be {wanted}; got {value!r:.80}. Correct the value."
    )


class Schedule:
    """The rates of a run, by step from 0.

    steps_per_epoch: steps of the optimiser in an epoch. total_steps: steps asked for. Raises
    SettingsError for a warm-up longer than that, and for a file that cannot be read, is wrong or
    ends training before the first step.
    """

    def __init__(self, settings: ScheduleSettings, steps_per_epoch: int, total_steps: int) -> None:
        if steps_per_epoch < 1 or total_steps < 1:
            raise SettingsError(
                f"A run should have at least one step, and each epoch too; got {total_steps}, "
                f"{steps_per_epoch} in an epoch. Train longer, or on more pictures."
            )
        if settings.warmup >= total_steps and settings.warmup > 0:
            raise SettingsError(
                f"schedule.warmup should be shorter than the run of {total_steps} steps; got "
                f"{settings.warmup}. Shorten it, or train longer."
            )
        self.settings, self.steps_per_epoch = settings, steps_per_epoch
        self.total_steps = total_steps
        self._lines: tuple[RateLine, ...] = ()
        if settings.file is not None:
            self._lines = read_rates(Path(settings.file))
            if self.rate(0) is None:
                raise SettingsError(
                    f"The learning rates of {settings.file[-200:]} end before the first step. "
                    "Give the first epoch a rate."
                )
        self.ends_at = self._end()

    def rate(self, step: int) -> float | None:
        """The learning rate of a step; None: training ends before it."""
        if not 0 <= step < self.total_steps:
            return None
        rate = _FORMULAS[self.settings.name](self, step)
        rising = step < self.settings.warmup
        return rate * (step + 1) / self.settings.warmup if rate and rising else rate

    def notes(self) -> tuple[str, ...]:
        """Sentences on what of the settings has no effect on this run: for its user, no error."""
        found = []
        if self.ends_at < self.total_steps:
            found.append(
                f"The learning rates of {str(self.settings.file)[-200:]} end training after "
                f"{self.ends_at} of the {self.total_steps} steps asked for."
            )
        late = [mark for mark in self.settings.at if self._step(mark) >= self.total_steps]
        if late:
            found.append(
                f"The run of {self.total_steps} steps ends before schedule.at {late[0]:g} "
                f"({self.settings.unit}): the learning rate does not fall there."
            )
        return tuple(found)

    def _end(self) -> int:
        """The number of steps that are trained: those asked for, or fewer by a mark of the file."""
        last = self._lines[-1] if self._lines else None
        if last is None or last.rate is not None:
            return self.total_steps
        epochs = last.epoch - self.settings.first_epoch
        return min(self.total_steps, epochs * self.steps_per_epoch)

    def _step(self, mark: float) -> int:
        """The step nearest to a mark in the unit of the settings."""
        return round(mark * self.steps_per_epoch if self.settings.unit == "epoch" else mark)

    def _progress(self, step: int) -> float:
        """Which share of the way after the warm-up lies behind, 0 to 1."""
        warmup = self.settings.warmup
        return max(0, step - warmup) / (self.total_steps - warmup)

    def _constant(self, step: int) -> float:
        return self.settings.rate

    def _steps(self, step: int) -> float:
        passed = sum(step >= self._step(mark) for mark in self.settings.at)
        return self.settings.rate * self.settings.factor**passed

    def _staircase(self, step: int) -> float:
        stair = max(1, self._step(self.settings.every))
        return float(self.settings.rate * self.settings.factor ** (step // stair))

    def _poly(self, step: int) -> float:
        left = (1 - self._progress(step)) ** self.settings.power
        return float(self.settings.final + (self.settings.rate - self.settings.final) * left)

    def _cosine(self, step: int) -> float:
        left = (1 + math.cos(math.pi * self._progress(step))) / 2
        return self.settings.final + (self.settings.rate - self.settings.final) * left

    def _file(self, step: int) -> float | None:
        return held(self._lines, step // self.steps_per_epoch + self.settings.first_epoch)


_FORMULAS: dict[str, Callable[[Schedule, int], float | None]] = {
    "constant": Schedule._constant,
    "steps": Schedule._steps,
    "staircase": Schedule._staircase,
    "poly": Schedule._poly,
    "cosine": Schedule._cosine,
    "file": Schedule._file,
}
