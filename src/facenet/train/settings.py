"""The settings of a training run: one frozen record, the same as flags, YAML keys and Python.

A section that chooses one of several parts has `name` and the options of that part. An unknown
key, a wrong type or an unknown name is a SettingsError that lists what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from facenet.errors import SettingsError
from facenet.models.card import Preprocess
from facenet.train.augment import AugmentSettings
from facenet.train.backbones import BACKBONES
from facenet.train.choosing import chosen, settings_from
from facenet.train.losses import LOSSES
from facenet.train.losses.terms import TermSettings
from facenet.train.optimisers import OptimiserSettings
from facenet.train.schedules import ScheduleSettings

SAMPLINGS = ("shuffled", "balanced", "people")
PRECISIONS = ("fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
BATCH_NORMS = ("trained", "frozen")
CENTRES = ("data", "random")
DATA_DEFAULTS: dict[str, Any] = {"power": 0.0, "people": 8, "images": 4, "epoch_batches": 0}
"""Of options that only some samplings use."""


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Which pictures, and in what order.

    train: folder of people, .rec file or folder that holds train.rec. min_images: people with
    fewer are left out. hold_out: share of the people (0 to 1) kept from training, whose pictures
    are judged in every validation. hold_out_images: the same for a share of each person's pictures:
    that judges how well the people learned are known, not how well others would be. keep: a CSV of
    `data.filtering` that says which pictures to keep, or nothing. sampling: "shuffled" (each
    picture once an epoch), "balanced" (people as often as their number of pictures to the power
    `power`: 0 all alike, 1 natural) or "people" (batches of `people` x `images`, for triplets).
    epoch_batches: batches of an epoch whatever the size of the set, as facenet's epoch_size; 0:
    once through; not for balanced.
    threads: that decode. cache_mb: megabytes of decoded pictures kept in memory.
    """

    train: str
    min_images: int = 1
    hold_out: float = 0.0
    hold_out_images: float = 0.0
    keep: str | None = None
    sampling: str = "shuffled"
    power: float = DATA_DEFAULTS["power"]
    people: int = DATA_DEFAULTS["people"]
    images: int = DATA_DEFAULTS["images"]
    epoch_batches: int = DATA_DEFAULTS["epoch_batches"]
    threads: int = 2
    cache_mb: int = 0

    def __post_init__(self) -> None:
        _one_of("data.sampling", self.sampling, SAMPLINGS)
        _within("data.hold_out", self.hold_out, 0, 0.9)
        _within("data.hold_out_images", self.hold_out_images, 0, 0.9)
        _within("data.power", self.power, 0, 1)
        for name in ("min_images", "people", "images", "threads"):
            _at_least(f"data.{name}", getattr(self, name), 1)
        for name in ("epoch_batches", "cache_mb"):
            _at_least(f"data.{name}", getattr(self, name), 0)
        unused = {"balanced": ("epoch_batches", "people", "images"), "people": ("power",)}
        for name in unused.get(self.sampling, ("power", "people", "images")):
            if getattr(self, name) != DATA_DEFAULTS[name]:
                raise SettingsError(
                    f"data.{name} is not used with data.sampling {self.sampling}; leave it out."
                )


@dataclass(frozen=True, slots=True)
class StartSettings:
    """What training begins from, and what holds it there.

    model: a model's name, a run folder or weights; None: random numbers. centres: class centres
    from the "data" (mean embedding of each person) or "random". distil: weight of the term
    1 - cosine(new embedding, embedding of the model begun from). interpolate: after training, this
    share of the way from the old weights to the new ones is kept (1: the new ones as they are).
    """

    model: str | None = None
    centres: str = "data"
    distil: float = 0.0
    interpolate: float = 1.0

    def __post_init__(self) -> None:
        _one_of("start.centres", self.centres, CENTRES)
        _at_least("start.distil", self.distil, 0)
        _within("start.interpolate", self.interpolate, 0, 1)
        if self.model is None and (self.distil or self.interpolate != 1):
            raise SettingsError(
                "start.distil and start.interpolate hold a model to an older one; start.model "
                "names none. Name a model, or leave them out."
            )


@dataclass(frozen=True, slots=True)
class StageSettings:
    """A stretch of training.

    part: "head" (the class centres alone), the name of a block of the backbone (it and all that
    follows it) or "all". epochs: its length. rate: learning rate in place of schedule.rate.
    batch_norm: "trained" or "frozen" (statistics and gains stay as they are). layer_decay: factor
    of the rate for each block further from the output. loss: a loss section in place of the run's,
    whose class centres go on where both have them.
    """

    part: str = "all"
    epochs: float = 1.0
    rate: float | None = None
    batch_norm: str = "trained"
    layer_decay: float = 1.0
    loss: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _one_of("stages.batch_norm", self.batch_norm, BATCH_NORMS)
        _within("stages.layer_decay", self.layer_decay, 0.01, 1)
        if self.epochs <= 0:
            raise SettingsError(f"stages.epochs should be more than 0; got {self.epochs}.")


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """Pairs that are judged while training.

    bin: a verification set of InsightFace (.bin), or images and pairs: a folder of aligned crops,
    one sub-folder per person, and a pairs file as LFW's; without pairs, they are drawn.
    """

    bin: str | None = None
    images: str | None = None
    pairs: str | None = None

    def __post_init__(self) -> None:
        if (self.bin is None) == (self.images is None) or (self.bin and self.pairs):
            raise SettingsError(
                "A validation set should be either `bin: FILE`, or `images: FOLDER` with or "
                "without `pairs: FILE`; got "
                f"bin={self.bin!r:.80}, images={self.images!r:.80}, pairs={self.pairs!r:.80}."
            )


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How steps are taken.

    batch: crops that go through the network together. accumulate: batches whose gradients make
    one step. epochs: where no stages are given. max_steps: end after so many steps; 0: no limit.
    device: "cpu", "cuda", or "auto": FACENET_DEVICE where it names one of these, else cpu.
    precision: "fp32", or "bf16" (the backbone in bfloat16 by autocast; losses stay fp32).
    channels_last: memory order, faster for convolutions. checkpointing: compute blocks again
    instead of keeping them. clip: largest norm of the backbone's gradient; 0: none. average:
    decay of the averaged weights, which are then what is validated and exported; 0: none.
    log_every, validate_every, save_every: in steps; validate_every and save_every 0: each epoch.
    """

    batch: int = 64
    accumulate: int = 1
    epochs: float = 20.0
    max_steps: int = 0
    device: str = "auto"
    precision: str = "fp32"
    channels_last: bool = True
    checkpointing: bool = False
    clip: float = 5.0
    average: float = 0.0
    log_every: int = 10
    validate_every: int = 0
    save_every: int = 0

    def __post_init__(self) -> None:
        _one_of("loop.precision", self.precision, PRECISIONS)
        _one_of("loop.device", self.device, DEVICES)
        for name in ("batch", "accumulate", "log_every"):
            _at_least(f"loop.{name}", getattr(self, name), 1)
        for name in ("max_steps", "clip", "validate_every", "save_every"):
            _at_least(f"loop.{name}", getattr(self, name), 0)
        _within("loop.average", self.average, 0, 0.999999)
        if self.epochs <= 0:
            raise SettingsError(f"loop.epochs should be more than 0; got {self.epochs}.")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that decides a training run.

    data, preprocess (how the crops were made, for the card), augment, start, loop, optimiser,
    schedule, terms: records of their own. backbone, loss: `name` and the options of that backbone
    or loss. validation: sets judged on the way, beside the people held out. stages: stretches of
    training; none: one, of the whole network. seed: of all random numbers. published: the figure
    that this recipe reached where it comes from, in words. licence: of the weights that come out.
    """

    data: DataSettings
    preprocess: Preprocess
    backbone: Mapping[str, Any]
    loss: Mapping[str, Any]
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    terms: TermSettings = field(default_factory=TermSettings)
    start: StartSettings = field(default_factory=StartSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    validation: tuple[ValidationSettings, ...] = ()
    stages: tuple[StageSettings, ...] = ()
    seed: int = 666
    published: str = ""
    licence: str = "unknown"

    def __post_init__(self) -> None:
        if self.preprocess.width != self.preprocess.height:
            raise SettingsError(
                f"preprocess should give square crops; got {self.preprocess.width}x"
                f"{self.preprocess.height}. Training does not support others."
            )
        per_class = all(
            LOSSES[loss["name"]].per_class for loss in self.losses()
        )  # after `losses` has checked the names
        if not per_class and self.data.sampling != "people":
            raise SettingsError(
                f"The loss {self.loss['name']} compares pictures of one person within a batch; "
                f"data.sampling should be people, got {self.data.sampling}."
            )
        if (
            self.data.sampling == "people"
            and self.loop.batch != self.data.people * self.data.images
        ):
            raise SettingsError(
                f"loop.batch should be data.people x data.images = "
                f"{self.data.people * self.data.images}; got {self.loop.batch}."
            )
        chosen("backbone.name", self.backbone.get("name", "nothing"), BACKBONES)

    def losses(self) -> list[Mapping[str, Any]]:
        """The loss sections of all stages. Raises SettingsError for an unknown name."""
        sections = [self.loss, *(stage.loss for stage in self.stages if stage.loss is not None)]
        for section in sections:
            chosen("loss.name", section.get("name", "nothing"), LOSSES)
        return sections

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `config_from` reads back; tuples as lists."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def config_from(values: Mapping[str, Any]) -> Config:
    """A run's settings from plain data; `stages: [head, block8, all]` is short for parts.

    Raises SettingsError for unknown keys, wrong types and names that do not exist.
    """
    values = dict(values)
    stages = values.get("stages")
    if isinstance(stages, list | tuple):
        values["stages"] = [{"part": one} if isinstance(one, str) else one for one in stages]
    config = settings_from(Config, values, "")
    for section in config.losses():
        options("loss", section, LOSSES)
    options("backbone", config.backbone, BACKBONES)
    return config


def options(where: str, section: Mapping[str, Any], choices: Mapping[str, Any]) -> Any:
    """The settings record of a section that chooses by `name`."""
    kind = chosen(f"{where}.name", section.get("name", "nothing"), choices)
    rest = {key: value for key, value in section.items() if key != "name"}
    return settings_from(kind.settings, rest, where)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{what} should be one of {', '.join(choices)}; got {value!r:.60}.")


def _within(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{what} should be {low} to {high}; got {value}.")


def _at_least(what: str, value: float, low: float) -> None:
    if not value >= low:
        raise SettingsError(f"{what} should be {low} or more; got {value}.")
