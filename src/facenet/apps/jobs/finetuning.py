"""Fine-tuning as a job: check and align the pictures, train, judge by the gate, publish.

The run's folder also holds finetune.json (what was asked), crops/ (aligned pictures), pictures.csv
(what became of each picture), learned.csv (the pictures that are learned), base.safetensors (the
weights begun from), references/ (crops of the reference sets) and gate.json. It can be stopped
anywhere, and gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from facenet.apps.jobs.align import align_folder
from facenet.apps.jobs.align_one import AlignSettings
from facenet.apps.jobs.exporting import export_run
from facenet.apps.jobs.finetunelist import CROPS, KEPT, list_pictures
from facenet.apps.jobs.references import numbered, open_reference, parse_reference
from facenet.apps.jobs.training import found_recipe, stop_after_step
from facenet.data.trainingset import TrainingSet, open_training_set
from facenet.errors import DataError, SettingsError, TrainingError
from facenet.models.card import Preprocess
from facenet.train.checkpoint import save_checkpoint
from facenet.train.choosing import settings_from
from facenet.train.closedset import known_rows
from facenet.train.configfile import changed, read_values
from facenet.train.finetuning import (
    Roles,
    Shares,
    TwoModels,
    batch_for,
    divide,
    only_own,
    settled,
    usual_config,
)
from facenet.train.gate import NO_REFERENCE, Gate, gate
from facenet.train.gaterecord import read_gate, refusal, write_gate
from facenet.train.loop import Watch
from facenet.train.runfolder import BEST, RUN, read_record, write_judgements, write_record
from facenet.train.runs import resume_training, train_embedder
from facenet.train.settings import DATA_DEFAULTS, Config, config_from
from facenet.train.validation import ValidationSet, held_out, judgement
from facenet.train.weights import Loaded, load_network, save_weights

JOB, REFERENCES, BASE = "finetune.json", "references", "base.safetensors"
OWN = ("data.train", "data.hold_out", "data.keep", "preprocess", "backbone.name", "start.model")
"""What follows from the folder and the base."""
CHOOSING = ("loss", "optimiser", "schedule")
"""Sections that are replaced as a whole when their `name` is changed."""

Note = Callable[[str], None]
Done = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """What is asked for.

    folder: a sub-folder per person. base: name of a model, run or file of weights. aligned: the
    pictures are crops as the base takes them. hold_out, hold_back, gate: see
    `train.finetuning.Shares`. references: sets to judge by, FILE.bin or FOLDER:PAIRS. allowed_loss:
    of the gate. train_batch_norm: let normalisations learn. recipe, changes: laid over the usual
    configuration. workers: processes that align, 0: as many as there are cores.
    """

    folder: str
    base: str
    aligned: bool = False
    hold_out: float = 0.2
    hold_back: float = 0.2
    gate: bool = True
    references: tuple[str, ...] = ()
    allowed_loss: float = 0.002
    train_batch_norm: bool = False
    recipe: str | None = None
    changes: tuple[str, ...] = ()
    workers: int = 0
    seed: int = 666

    def __post_init__(self) -> None:
        self.shares()
        if not 0 <= self.allowed_loss < 1:
            raise SettingsError(
                f"allowed_loss should be 0 or more and below 1, a share such as 0.002; got "
                f"{self.allowed_loss:g}."
            )
        if self.references and not self.gate:
            raise SettingsError("A reference is for the gate; leave out --reference or --no-gate.")

    def shares(self) -> Shares:
        """What is held out. Raises SettingsError."""
        return Shares(self.hold_out, self.hold_back, self.gate)


@dataclass(frozen=True, slots=True)
class Publishing:
    """name: of the model that is made, None: none is. overwrite: replace one of that name. anyway:
    also when the gate was not passed, or there is none."""

    name: str | None = None
    overwrite: bool = False
    anyway: bool = False


@dataclass(frozen=True, slots=True)
class Finetuned:
    """How it ended. finished: False when it was stopped, and goes on with --resume. gate: None when
    nothing was judged. refused: why the model may not be published. published: name of the model
    that was made."""

    base: str
    run: str
    finished: bool
    steps: int
    gate: Gate | None = None
    refused: str | None = None
    published: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def finetune(
    settings: FinetuneSettings, out: Path, publishing: Publishing, *, note: Note, done: Done
) -> Finetuned:
    """Begin a fine-tuning in a new folder, and see it through.

    Raises ModelFileError for a base whose network is not known, DataError for too few people or
    pictures, SettingsError for what does not go together, TrainingError when there is a run in the
    folder already, or when the gate keeps the model from being published.
    """
    if (out / JOB).exists() or (out / RUN).exists():
        raise TrainingError(
            f"{out} should be a new folder; a run is in it. Go on with it by `facenet finetune "
            f"--resume {out}`, or name another one."
        )
    _check_publishing(settings, publishing)
    references = tuple(parse_reference(text).absolute() for text in settings.references)
    settings = replace(
        settings, folder=str(Path(settings.folder).absolute()), references=references
    )
    base = load_network(settings.base)
    values = _values(settings, base)
    divide(open_training_set(settings.folder), settings.shares(), settings.seed)
    save_weights(base.backbone, out / BASE, base.facts())
    write_record(out / JOB, {"settings": asdict(settings), "values": values})
    return resume_finetuning(out, publishing, note=note, done=done)


def resume_finetuning(out: Path, publishing: Publishing, *, note: Note, done: Done) -> Finetuned:
    """Go on with a fine-tuning; what is done is not done again. Raises as `finetune`."""
    if not (out / JOB).is_file():
        raise TrainingError(
            f"{out} should be the folder of a run of facenet finetune, with {JOB} in it; there is "
            "none. Begin with facenet finetune DIR --base NAME --out RUN."
        )
    settings, values = _read_job(out / JOB)
    _check_publishing(settings, publishing)
    crops = _aligned(settings, values, out, done)
    whole = open_training_set(crops)
    roles = divide(whole, settings.shares(), settings.seed)
    raw = None if settings.aligned else Path(settings.folder)
    list_pictures(raw, out, whole, roles, note=note)
    summary = _train(settings, values, out, whole.subset(roles.learned), note, done)
    ended = Finetuned(settings.base, str(out), summary.finished, summary.steps)
    if not summary.finished:
        return ended
    if settings.gate:
        outcome = _judged(settings, out, whole, roles, summary.steps, done)
        ended = replace(ended, gate=outcome, refused=refusal(outcome))
    if publishing.name and (publishing.anyway or ended.refused is None):
        card = export_run(
            out, publishing.name, overwrite=publishing.overwrite, anyway=publishing.anyway
        )
        ended = replace(ended, published=card.name)
    return ended


def _read_job(path: Path) -> tuple[FinetuneSettings, Mapping[str, Any]]:
    """What was asked for, and the configuration. Raises DataError for a damaged record."""
    job = read_record(path)
    asked, values = job.get("settings"), job.get("values")
    if not isinstance(asked, Mapping) or not isinstance(values, Mapping):
        raise DataError(
            f"{path} should hold the settings and values of facenet finetune; it does not. Begin "
            "anew in another folder."
        )
    return settings_from(FinetuneSettings, asked, str(path)), values


def _check_publishing(settings: FinetuneSettings, publishing: Publishing) -> None:
    if publishing.name and not settings.gate and not publishing.anyway:
        raise SettingsError(
            "A model is published when it passed the gate, and --no-gate leaves that out. Add "
            "--publish-anyway, or leave out one of the two."
        )


# ---- configuration


def _values(settings: FinetuneSettings, base: Loaded) -> dict[str, Any]:
    """The configuration as plain values, without what follows from the pictures; checked."""
    usual = usual_config(base, train_batch_norm=settings.train_batch_norm)
    values: dict[str, Any] = {**usual, "data": {}, "seed": settings.seed}
    if settings.recipe is not None:
        for key, told in read_values(found_recipe(Path(settings.recipe))).items():
            own = values.get(key)
            if isinstance(own, Mapping) and isinstance(told, Mapping) and key not in CHOOSING:
                told = {**own, **told}
            values[key] = told
    for section in CHOOSING:
        if any(change.startswith(f"{section}.name=") for change in settings.changes):
            values[section] = {}
    values = changed(values, settings.changes)
    only_own(values, {**usual, "data": {}}, OWN)
    _config(values, Path("crops"), Path("run"), learned=1_000_000)
    return values


def _config(values: Mapping[str, Any], crops: Path, run: Path, *, learned: int) -> Config:
    """The configuration of a run on so many pictures."""
    places = {"train": crops, "keep": run / KEPT, "model": run / BASE}
    found = {name: str(place.resolve()) for name, place in places.items()}
    start = {**values["start"], "model": found.pop("model")}
    told = {**DATA_DEFAULTS, **values["data"]}
    by_people = told.get("sampling") == "people"
    batch = told["people"] * told["images"] if by_people else batch_for(learned)
    loop = {"batch": batch, **values["loop"]}
    return config_from(
        {**values, "data": {**values["data"], **found}, "start": start, "loop": loop}
    )


# ---- pictures


def _aligned(settings: FinetuneSettings, values: Mapping[str, Any], out: Path, done: Done) -> Path:
    """The folder of the crops, made where they are not."""
    folder = Path(settings.folder)
    if settings.aligned:
        return folder
    align_folder(
        folder,
        out / CROPS,
        align_settings(values["preprocess"]),
        workers=settings.workers,
        done=lambda some, all_: done(some, all_, "aligning"),
    )
    return out / CROPS


def align_settings(preprocess: Mapping[str, Any]) -> AlignSettings:
    """Crops as a model takes them, faces found as by the commands."""
    wanted = Preprocess(**preprocess)
    return AlignSettings(wanted.width, wanted.height, wanted.margin, wanted.crop)


# ---- training


def _train(
    settings: FinetuneSettings,
    values: Mapping[str, Any],
    out: Path,
    learned: TrainingSet,
    note: Note,
    done: Done,
) -> Any:
    """Train, or go on; Ctrl-C ends it after the step, with a checkpoint."""
    if settings.train_batch_norm and not (out / RUN).exists():
        base = load_network(out / BASE)
        settled(base, learned)
        save_weights(base.backbone, out / BASE, base.facts())
    crops = Path(settings.folder) if settings.aligned else out / CROPS
    with stop_after_step() as stopped:
        watch = Watch(note, done, stopped)
        if (out / RUN).exists():
            return resume_training(out, watch=watch)
        config = _config(values, crops, out, learned=len(learned))
        return train_embedder(config, out, watch=watch)


# ---- judging


def _judged(
    settings: FinetuneSettings,
    out: Path,
    whole: TrainingSet,
    roles: Roles,
    steps: int,
    done: Done,
) -> Gate:
    """The outcome of the gate, from gate.json where it was found out before."""
    outcome = read_gate(out)
    if outcome is not None:
        return outcome
    done(0, 0, "judging")
    both = TwoModels.open(out / BASE, out)
    people = held_out(whole.subset(roles.judging), settings.seed)
    learned = {whole.people[label] for label in whole.labels[roles.learned].tolist()}
    references, notes = _references(settings, both.preprocess, out, learned, done)
    judged = [both.judged(one) for one in (people, *references)]
    known = both.known(whole, roles, judged[0])
    outcome = gate(
        judged,
        known_rows(known, allowed_loss=settings.allowed_loss, seed=settings.seed),
        allowed_loss=settings.allowed_loss,
        notes=notes,
        seed=settings.seed,
    )
    if not (out / BEST).exists():
        save_checkpoint(out / BEST, {"model": both.new.state_dict()}, {"progress": {"step": steps}})
    write_judgements(out, [judgement(people, judged[0].new, judged[0].found)], steps)
    write_gate(out, outcome)
    return outcome


def _references(
    settings: FinetuneSettings, preprocess: Preprocess, out: Path, learned: set[str], done: Done
) -> tuple[list[ValidationSet], list[str]]:
    """The reference sets, and what is to be said of them."""
    crops = None if settings.aligned else align_settings(asdict(preprocess))
    opened, notes = [], []
    for number, text in enumerate(settings.references, 1):
        place = out / REFERENCES / str(number)
        one, told = open_reference(text, place, learned, crops, workers=settings.workers, done=done)
        opened.append(one)
        notes += told
    return numbered(opened), notes or ([] if opened else [NO_REFERENCE])
