"""Which detectors there are: a card or its files tell the family, the family the class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from facenet.errors import EngineError, ModelFileError, SettingsError
from facenet.faces.detect import Detector
from facenet.faces.glance import glances_of
from facenet.faces.mtcnn import Mtcnn, MtcnnSettings
from facenet.faces.networks import is_quicker
from facenet.faces.scrfd import Scrfd, ScrfdSettings
from facenet.faces.yunet import Yunet, YunetSettings
from facenet.models.card import ModelCard
from facenet.models.catalog import find_card
from facenet.models.engine import Engine, EngineSettings
from facenet.models.loader import Model, load_model

TRIED = 640
"""Side of the picture that YuNet is compared with in two arithmetics."""

DetectorSettings: TypeAlias = MtcnnSettings | ScrfdSettings | YunetSettings
"""Options of a detector."""


@dataclass(frozen=True, slots=True)
class Family:
    """Detectors that one class runs.

    title: for messages. settings: their options. open: a detector of a name, what its engines
    run with, and options.
    """

    title: str
    settings: type[DetectorSettings]
    open: Callable[[str, EngineSettings, Any], Detector]


def _load(name: str, running: EngineSettings) -> Model:
    return load_model(name, kind="detector", settings=running)


def _mtcnn(name: str, running: EngineSettings, options: MtcnnSettings) -> Mtcnn:
    """MTCNN with a stream for every thread, and bfloat16 to look quickly where there is any."""
    running = replace(running, streams=running.threads)

    exact = _load(name, running).engines

    def quick() -> Mapping[str, Engine]:
        try:
            engines = _load(name, replace(running, precision="bf16")).engines
        except EngineError:  # this processor or runtime has none, or computes wrong in it
            return {}
        return engines if is_quicker(engines["pnet"], exact["pnet"]) else {}

    return Mtcnn(
        exact, options, quick=quick, glances=lambda: glances_of(exact), threads=running.threads
    )


def _yunet(name: str, running: EngineSettings, options: YunetSettings) -> Yunet:
    """YuNet in the arithmetic that is asked for; in bfloat16 several pictures side by side, while
    two large ones in fp32 are in each other's way in the processor's cache."""
    running, engine = _in_arithmetic(name, running, options.arithmetic)
    if running.precision == "fp32":
        return Yunet(engine, options)
    streams = replace(running, streams=running.threads)
    return Yunet(
        engine, options, beside=lambda: _load(name, streams).engine, threads=running.threads
    )


def _in_arithmetic(
    name: str, running: EngineSettings, arithmetic: str
) -> tuple[EngineSettings, Engine]:
    """A network of one file and what it runs with; "auto" is bfloat16 where it is quicker."""
    if arithmetic == "fp32":
        return running, _load(name, running).engine
    try:
        quickly = replace(running, precision="bf16")
        quick = _load(name, quickly).engine
    except EngineError:  # this processor or runtime has none, or computes wrong in it
        if arithmetic == "bf16":
            raise
        return running, _load(name, running).engine
    if arithmetic == "auto":
        exact = _load(name, running).engine
        if not is_quicker(quick, exact, side=TRIED):
            return running, exact
    return quickly, quick


MTCNN = Family("MTCNN", MtcnnSettings, _mtcnn)
SCRFD = Family(
    "SCRFD",
    ScrfdSettings,
    lambda name, running, options: Scrfd(_load(name, running).engine, options),
)
YUNET = Family("YuNet", YunetSettings, _yunet)
FAMILIES = {"mtcnn": MTCNN, "scrfd": SCRFD, "yunet": YUNET}
"""Name on a card -> family."""


def family_of(card: ModelCard) -> Family:
    """That on the card; where it names none, MTCNN for pnet, rnet and onet, SCRFD for one file.

    Raises ModelFileError for other files, which nothing here can run.
    """
    if card.family is not None:
        return FAMILIES[card.family]
    stems = {Path(file.path).stem for file in card.files}
    if stems == {"pnet", "rnet", "onet"}:
        return MTCNN
    if len(stems) == 1:
        return SCRFD
    raise ModelFileError(
        f"The detector {card.name} should have one file, or pnet, rnet and onet; it has "
        f"{', '.join(sorted(stems))[:200]}. Choose another detector."
    )


def detector_settings(card: ModelCard, options: DetectorSettings | None = None) -> DetectorSettings:
    """The options of a detector: those given, else its family's defaults.

    Raises SettingsError for the options of another family.
    """
    family = family_of(card)
    if options is None:
        return family.settings()
    if not isinstance(options, family.settings):
        raise SettingsError(
            f"The detector {card.name} is of the family {family.title} and takes "
            f"{family.settings.__name__}; got {type(options).__name__}."
        )
    return options


def open_detector(
    name: str, running: EngineSettings, *, options: DetectorSettings | None = None
) -> Detector:
    """Load a detector by name or alias.

    Raises UnknownModelError, EngineError, SettingsError for options of another family, and
    ModelFileError for a card nothing here can run.
    """
    card = find_card(name, kind="detector")
    return family_of(card).open(card.name, running, detector_settings(card, options))


def held_back(
    name: str, running: EngineSettings, *, options: DetectorSettings | None = None
) -> str | None:
    """Why a detector that may use bfloat16 computes in fp32 alone; None where nothing forbids it.

    MTCNN looks quickly in bfloat16 unless that is forbidden; a processor that has none is no
    reason. YuNet uses it with the arithmetic "auto". Raises as `open_detector` does.
    """
    card = find_card(name, kind="detector")
    options = detector_settings(card, options)
    looks = isinstance(options, MtcnnSettings) and running.instructions != "auto"
    chooses = isinstance(options, YunetSettings) and options.arithmetic == "auto"
    if not looks and not chooses:
        return None
    try:
        _load(card.name, replace(running, precision="bf16"))
    except EngineError as error:
        said = str(error).removeprefix("bf16 was asked for; ").partition(". Use ")[0]
        return f"fp32 alone, which is slower; bf16: {said}"
    return None
