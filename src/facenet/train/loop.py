"""The loop: steps, validations and checkpoints until the last stage is done.

Everything a step does follows from the configuration and the number of the step: the pictures, how
they are changed, dropout. So a run that was stopped at any step goes on to the same weights, bit
for bit on the same CPU with the same number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from facenet.train.batch import Batch
from facenet.train.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from facenet.train.journal import Journal
from facenet.train.opening import Material
from facenet.train.report import write_report
from facenet.train.runfolder import BEST, LAST, write_judgements
from facenet.train.schedules import Schedule
from facenet.train.settings import Config
from facenet.train.stages import planned
from facenet.train.training import Training, finite
from facenet.train.tripwire import NotFinite, check_setbacks, dump_batch, first_loss_note
from facenet.train.validation import Diverged, best_of, judge

Tell = Callable[[str], None]
Done = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on.

    note: takes a sentence. done: takes steps done, all steps and a few words. stopped: asked after
    each step, True ends the run after a checkpoint.
    """

    note: Tell = lambda text: None
    done: Done = lambda done, total, text: None
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended.

    steps: taken in all. finished: False when it was stopped, and can be resumed. accuracy,
    judged_by, best_step: the best validation, its set, and when; None without one. images_per_s:
    of training in this process, waiting: share of that time without pictures. skipped: steps left
    out because they gave numbers that are not finite.
    """

    steps: int
    finished: bool
    accuracy: float | None
    judged_by: str | None
    best_step: int | None
    images_per_s: float
    waiting: float
    skipped: tuple[int, ...] = ()


class Loop:
    """Takes the steps of one run. folder: of the run, with its records already in it."""

    def __init__(self, training: Training, material: Material, folder: Path, watch: Watch) -> None:
        self._training, self._material = training, material
        self._folder, self._watch = folder, watch
        self._config = training.config
        self._stages = planned(self._config, material.steps_per_epoch)
        self._schedules = stage_schedules(self._config, material.steps_per_epoch)
        self._journal = Journal(folder)
        self._meter = _Meter()
        self._setbacks: list[int] = []
        self._last: tuple[Sequence[Batch], dict[str, float]] = ((), {})

    def run(self) -> Summary:
        """To the end, or until someone stops it. Raises TrainingError when numbers stay infinite,
        StorageError when a checkpoint cannot be saved (the last good one stays)."""
        with closing(self._journal):
            if has_checkpoint(self._folder / LAST):
                self._go_back()
            else:
                self._training.enter(self._stages[0][0])
                self._save()
            for schedule in self._schedules:
                for told in schedule.notes():
                    self._watch.note(told)
            while not (self._ended() or self._watch.stopped()):
                try:
                    self._run_stage()
                except NotFinite as wrong:
                    self._go_back()
                    known = {*self._training.progress.skipped, wrong.step}
                    self._training.advance(skipped=tuple(sorted(known)))
                    self._watch.note(
                        f"Step {wrong.step} gave numbers that are not finite; it is left out, and "
                        f"training goes on from step {self._training.progress.step}. What it saw "
                        f"is in {wrong.dump}."
                    )
                    self._setbacks.append(wrong.step)
                    check_setbacks(self._setbacks, wrong.dump)
            return self._summary()

    def _ended(self) -> bool:
        progress, most = self._training.progress, self._config.loop.max_steps
        return progress.stage >= len(self._stages) or (most > 0 and progress.step >= most)

    def _run_stage(self) -> None:
        """Steps until the stage ends, the schedule ends it, or someone stops it."""
        training = self._training
        with closing(self._material.steps(training.progress.step)) as steps:
            for batches in steps:
                if (rate := self._rate()) is None:
                    self._watch.note(
                        f"The schedule ends the stage before step {training.progress.step}."
                    )
                    break
                self._step(batches, rate)
                if self._left_in_stage() == 0 or self._ended():
                    break
                self._keep_up()
                if self._watch.stopped():
                    self._require_finite()
                    self._save()
                    return
        self._end_stage()

    def _rate(self) -> float | None:
        progress = self._training.progress
        return self._schedules[progress.stage].rate(progress.step - progress.stage_begin)

    def _left_in_stage(self) -> int:
        progress = self._training.progress
        return self._stages[progress.stage][1] - (progress.step - progress.stage_begin)

    def _step(self, batches: Sequence[Batch], rate: float) -> None:
        progress = self._training.progress
        if progress.step not in progress.skipped:
            begun = time.perf_counter()
            scalars = self._training.take_step(batches, rate)
            self._last = (batches, scalars)
            if not finite(scalars):
                raise self._not_finite(progress.step)
            self._check_first(scalars, batches)
            self._meter.add(batches, time.perf_counter() - begun)
            if (progress.step + 1) % self._config.loop.log_every == 0:
                self._log(scalars, batches[-1].epoch, rate)
        self._training.advance(step=progress.step + 1)
        total = sum(length for _, length in self._stages)
        most = self._config.loop.max_steps
        self._watch.done(progress.step + 1, min(most or total, total), self._meter.words())

    def _require_finite(self) -> None:
        """Weights are looked at before they are judged or saved."""
        if not self._training.weights_finite():
            raise self._not_finite(self._training.progress.step - 1)

    def _not_finite(self, step: int) -> NotFinite:
        """The step that went wrong, with what it saw written down."""
        batches, scalars = self._last
        names = self._material.training
        return NotFinite(step, dump_batch(self._folder, step, batches, names, scalars))

    def _check_first(self, scalars: dict[str, float], batches: Sequence[Batch]) -> None:
        """Say when the first loss is not what random centres give."""
        if self._training.progress.step == 0 and self._config.start.model is None:
            loss, people = self._training.loss, {int(y) for b in batches for y in b.labels}
            first = scalars.get("main_loss", scalars["loss"])
            spread = (loss.first_loss_spread() or 0) / len(people) ** 0.5
            if note := first_loss_note(first, loss.expected_first_loss(), spread):
                self._watch.note(note)

    def _log(self, scalars: dict[str, float], epoch: int, rate: float) -> None:
        self._meter.loss = scalars["loss"]
        self._journal.step(
            self._training.progress.step + 1,
            epoch=epoch,
            lr=rate,
            images_per_s=self._meter.rate(),
            waiting=self._meter.share_waiting(),
            **scalars,
        )

    def _keep_up(self) -> None:
        """Validate and save where it is time to."""
        step, loop = self._training.progress.step, self._config.loop
        epoch = self._material.steps_per_epoch
        judges = step % (loop.validate_every or epoch) == 0
        saves = step % (loop.save_every or epoch) == 0
        if judges or saves:
            self._require_finite()
        if judges:
            self._validate()
        if saves:
            self._save()

    def _end_stage(self) -> None:
        training = self._training
        self._require_finite()
        self._validate()
        training.advance(stage=training.progress.stage + 1, stage_begin=training.progress.step)
        if training.progress.stage < len(self._stages):
            training.enter(self._stages[training.progress.stage][0])
        self._save()

    def _validate(self) -> None:
        """Judge the weights that would be exported, on every set; keep the best of the first."""
        sets = self._material.validation
        if not sets:
            return
        progress = self._training.progress
        try:
            with self._training.exported() as backbone:
                judged = [judge(backbone, one, self._config.preprocess) for one in sets]
        except Diverged as error:
            raise self._not_finite(progress.step - 1) from error
        for one in judged:
            self._journal.validation(
                progress.step,
                one.name,
                accuracy=one.accuracy,
                low=one.low,
                high=one.high,
                pairs=one.pairs,
            )
        leading = best_of(judged)
        if leading is not None and (progress.best is None or leading.accuracy > progress.best):
            self._training.advance(
                best=leading.accuracy, best_step=progress.step, judged_by=leading.name
            )
            self._save_best()
            write_judgements(self._folder, judged, progress.step)

    # ---- checkpoints

    def _save(self) -> None:
        parts, state = self._training.parts()
        save_checkpoint(self._folder / LAST, parts, state)

    def _save_best(self) -> None:
        weights = self._training.exported_weights()
        progress = asdict(self._training.progress)
        save_checkpoint(self._folder / BEST, {"model": weights}, {"progress": progress})

    def _go_back(self) -> None:
        """To the last checkpoint, and the journal with it."""
        parts, state = load_checkpoint(self._folder / LAST)
        skipped = self._training.progress.skipped
        self._training.restore(parts, state, [settings for settings, _ in self._stages])
        known = {*skipped, *self._training.progress.skipped}
        self._training.advance(skipped=tuple(sorted(known)))
        self._journal.truncate_after(self._training.progress.step)

    def _summary(self) -> Summary:
        progress = self._training.progress
        write_report(self._folder)
        return Summary(
            progress.step,
            self._ended(),
            progress.best,
            progress.judged_by,
            progress.best_step,
            self._meter.rate(),
            self._meter.share_waiting(),
            progress.skipped,
        )


def stage_schedules(config: Config, steps_per_epoch: int) -> list[Schedule]:
    """The learning rates of each stage.

    Raises SettingsError for rates that do not fit its length, or when a file gives them already.
    """
    schedules = []
    for settings, length in planned(config, steps_per_epoch):
        rates = config.schedule
        if settings.rate is not None:
            rates = replace(rates, rate=settings.rate)
        schedules.append(Schedule(rates, steps_per_epoch, length))
    return schedules


class _Meter:
    """Pictures per second of training, and how much of the time was waiting for them."""

    def __init__(self) -> None:
        self._images, self._worked, self._waited = 0, 0.0, 0.0
        self.loss: float | None = None

    def add(self, batches: Sequence[Batch], worked: float) -> None:
        """A step that took `worked` seconds, besides waiting for its batches."""
        self._images += sum(len(batch.rows) for batch in batches)
        self._waited += sum(batch.wait_s for batch in batches)
        self._worked += worked

    def rate(self) -> float:
        """Pictures per second."""
        return self._images / max(self._worked + self._waited, 1e-9)

    def share_waiting(self) -> float:
        """0 to 1."""
        return self._waited / max(self._worked + self._waited, 1e-9)

    def words(self) -> str:
        """For a progress bar."""
        loss = "" if self.loss is None else f"loss {self.loss:.3f}, "
        return f"{loss}{self.rate():.0f} pictures/s"
