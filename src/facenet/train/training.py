"""What is trained, and how one step of it is taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from facenet.errors import EngineError, ModelFileError, TrainingError
from facenet.models.home import environment
from facenet.train.allocator import keep_memory
from facenet.train.averaging import Average
from facenet.train.backbones import BACKBONES, build_backbone
from facenet.train.backbones.backbone import Backbone
from facenet.train.batch import Batch
from facenet.train.checkpoint import optimiser_tensors, restore_optimiser
from facenet.train.losses import LOSSES, build_loss
from facenet.train.losses.loss import ClassLoss, Loss
from facenet.train.losses.terms import LossWithTerms
from facenet.train.optimisers import build_optimiser, parameter_groups
from facenet.train.settings import Config, StageSettings, options
from facenet.train.stages import HEAD, Freezing, rates


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is: all that changes besides tensors, saved as JSON.

    step: steps taken. stage: number of the stage, stage_begin: its first step. skipped: steps that
    were left out because they gave numbers that are not finite. best: the best validation accuracy,
    at best_step, on the set judged_by.
    """

    step: int = 0
    stage: int = 0
    stage_begin: int = 0
    skipped: tuple[int, ...] = ()
    best: float | None = None
    best_step: int | None = None
    judged_by: str | None = None


class Training:
    """Backbone, loss, optimiser and averages of one run, brought from stage to stage.

    config: of the run. classes: people in its training set. backbone: with the weights that
    training begins from; it is also what `start.distil` holds on to.
    """

    def __init__(self, config: Config, classes: int, backbone: Backbone) -> None:
        keep_memory()
        self.config, self.classes, self.backbone = config, classes, backbone
        self.device = device(config.loop.device)
        self.backbone.to(self.device)
        self.backbone.checkpointed = config.loop.checkpointing
        if config.loop.channels_last:
            self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.freezing = Freezing(backbone)
        self.progress = Progress()
        self.begun = {k: v.detach().clone() for k, v in backbone.state_dict().items()}
        self.average = Average(backbone, config.loop.average) if config.loop.average else None
        self.loss: Loss = self._loss(config.loss)
        self._teacher: Backbone | None = None
        self.settings = StageSettings()
        self.enter(self.settings)

    def enter(self, settings: StageSettings) -> None:
        """Begin a stage: its loss, what learns, and an optimiser without memory."""
        if settings.loss is not None:
            self._change_loss(settings.loss)
        self.settings = settings
        self.resume_learning()
        self.backbone.zero_grad(set_to_none=True)  # of what learned before and stays now
        factors = rates(self.backbone, settings)
        groups = parameter_groups(self.backbone, self.loss, self.config.optimiser, factors)
        self.optimiser = build_optimiser(self.config.optimiser, groups)

    def advance(self, **changes: Any) -> None:
        """Progress with other values, by the names of its fields."""
        self.progress = replace(self.progress, **changes)

    def resume_learning(self) -> None:
        """Back from evaluation: what learns learns again."""
        self.freezing.enter(self.settings)
        self.loss.train()

    def take_step(self, batches: Sequence[Batch], rate: float) -> dict[str, float]:
        """One step of the optimiser over the mean gradient of the batches.

        Gives scalars for the log, "loss" and "gradient" (its norm, before it is cut) among them.
        Nothing is changed but the statistics of normalisation when one of these is not finite:
        look before you go on.
        """
        torch.manual_seed(seed_of(self.config.seed, self.progress.step))
        self.optimiser.zero_grad(set_to_none=True)
        scalars: dict[str, list[float]] = {}
        for batch in batches:
            terms = self._terms(batch)
            (terms["loss"] / len(batches)).backward()  # type: ignore[no-untyped-call]
            for name, value in terms.items():
                scalars.setdefault(name, []).append(float(value.detach()))
        means = {name: sum(values) / len(values) for name, values in scalars.items()}
        means["gradient"] = self._gradient_norm()
        if finite(means):
            self._move(rate)
        return means

    def weights_finite(self) -> bool:
        """Whether all weights and statistics are numbers to go on with."""
        values = (*self.backbone.state_dict().values(), *self.loss.state_dict().values())
        return all(bool(torch.isfinite(value).all()) for value in values)

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        images = batch.images.to(self.device)
        if self.config.loop.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        lower = self.config.loop.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if lower else nullcontext():
            embeddings = self.backbone(images).float()
        terms: dict[str, Tensor] = self.loss(embeddings, batch.labels.to(self.device))
        weight = self.config.start.distil
        if weight and self.settings.part != HEAD:  # else no gradient comes of it
            away = 1 - functional.cosine_similarity(embeddings, self._taught(images)).mean()
            terms = {**terms, "loss": terms["loss"] + weight * away, "distil": away}
        return terms

    def _taught(self, images: Tensor) -> Tensor:
        """What the model that training began from says of the crops: (n, d)."""
        if self._teacher is None:
            self._teacher = new_backbone(self.config).to(self.device)
            self._teacher.load_state_dict(self.begun)
            self._teacher.eval()
        with torch.no_grad():
            return self._teacher(images).float()  # type: ignore[no-any-return]

    def _gradient_norm(self) -> float:
        """Norm of the backbone's gradient, brought down to loop.clip; of the head's without one."""
        learning = [p for p in self.backbone.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in learning if p.grad is not None])
        if self.config.loop.clip:
            torch.nn.utils.clip_grads_with_norm_(learning, self.config.loop.clip, norm)
        of_loss = [p.grad.norm() for p in self.loss.parameters() if p.grad is not None]
        head = torch.stack(of_loss).norm() if of_loss else torch.zeros((), device=self.device)
        return float(torch.stack([norm, head]).norm())

    def _move(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.progress.step)

    # ---- losses

    def _loss(self, section: Mapping[str, Any]) -> Loss:
        torch.manual_seed(seed_of(self.config.seed, -1))
        settings = options("loss", section, LOSSES)
        size = self.backbone.embedding_size
        loss = build_loss(section["name"], settings, self.classes, size)
        terms = self.config.terms
        if terms.center is not None or terms.prelogits_norm is not None:
            loss = LossWithTerms(loss, terms, self.classes, size)
        return loss.to(self.device)

    def _change_loss(self, section: Mapping[str, Any]) -> None:
        """Another loss, beginning with the class centres of the one before."""
        before = self.class_loss()
        self.loss = self._loss(section)
        after = self.class_loss()
        if before is not None and after is not None and before.weight.shape == after.weight.shape:
            after.set_centres(before.weight.detach())

    def class_loss(self) -> ClassLoss | None:
        """The part of the loss that has class centres, or None."""
        loss = self.loss.loss if isinstance(self.loss, LossWithTerms) else self.loss
        return loss if isinstance(loss, ClassLoss) else None

    # ---- what is validated, exported and saved

    @contextmanager
    def exported(self) -> Iterator[Backbone]:
        """The backbone with the weights that are validated and exported, ready to embed.

        These are the averaged ones where there are any, drawn back towards the first ones as
        start.interpolate says. Afterwards all is as before, to the bit.
        """
        own = {k: v.detach().clone() for k, v in self.backbone.state_dict().items()}
        try:
            self.backbone.load_state_dict(self.exported_weights())
            self.backbone.eval()
            with torch.no_grad():
                yield self.backbone
        finally:
            self.backbone.load_state_dict(own)
            self.resume_learning()

    def exported_weights(self) -> dict[str, Tensor]:
        """The weights of `exported`, by name."""
        weights = dict(self.backbone.state_dict())
        if self.average is not None:
            weights.update(self.average.state_dict())
        share = self.config.start.interpolate
        if share == 1:
            return weights
        return {
            name: self.begun[name].lerp(value, share) if value.is_floating_point() else value
            for name, value in weights.items()
        }

    def parts(self) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, Any]]:
        """Tensors and JSON of a checkpoint."""
        tensors, rest = optimiser_tensors(self.optimiser)
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.exported_weights(),
            "loss": self.loss.state_dict(),
            "optimiser": tensors,
        }
        if self.average is not None or self.config.start.interpolate != 1:
            parts["raw"] = self.backbone.state_dict()
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        if self.config.start.model is not None:
            parts["begun"] = self.begun
        return parts, {"progress": asdict(self.progress), "optimiser": rest}

    def restore(
        self,
        parts: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        stages: Sequence[StageSettings],
    ) -> None:
        """Go back to a checkpoint; stages: of the run, in order.

        Raises TrainingError when it is of another network or loss.
        """
        said = state["progress"]
        progress = Progress(**{**said, "skipped": tuple(said["skipped"])})
        current = min(progress.stage, len(stages) - 1)
        for settings in stages[: current + 1]:
            if settings.loss is not None:
                self.loss = self._loss(settings.loss)
        self.enter(replace(stages[current], loss=None))
        self.progress = progress
        try:
            self.begun = dict(parts.get("begun", self.begun))
            self.backbone.load_state_dict(parts.get("raw", parts["model"]))
            self.loss.load_state_dict(parts["loss"])
            restore_optimiser(self.optimiser, parts["optimiser"], state["optimiser"])
            if self.average is not None:
                self.average.load_state_dict(parts["average"])
        except (RuntimeError, ValueError, KeyError, ModelFileError) as error:
            told = " ".join(str(error).split())
            raise TrainingError(
                f"The weights of the checkpoint are of another network: {told:.300} Restore "
                "config.yaml as it was when the run began."
            ) from error
        self.resume_learning()


def new_backbone(config: Config) -> Backbone:
    """The backbone of a run with random weights, the same for the same seed."""
    torch.manual_seed(seed_of(config.seed, -2))
    settings = options("backbone", config.backbone, BACKBONES)
    return build_backbone(config.backbone["name"], settings)


def device(name: str) -> torch.device:
    """Where to train. Raises EngineError when CUDA is asked for and not there."""
    named = environment().device if name == "auto" else name
    if named != "cuda":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EngineError(
            "Training should run on cuda, and torch finds no such device. Use loop.device=cpu, or "
            "install torch with CUDA."
        )
    return torch.device("cuda")


def finite(scalars: Mapping[str, float]) -> bool:
    """Whether the loss and the gradient are numbers to go on with."""
    return all(abs(scalars[name]) < float("inf") for name in ("loss", "gradient"))


def seed_of(seed: int, step: int) -> int:
    """The seed of one step's random numbers: so nothing of them has to be saved."""
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
