"""From a name to a model that runs: card, checked files, the right engine for this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from facenet.errors import EngineError, ModelFileError
from facenet.models import openvino
from facenet.models.card import ModelCard
from facenet.models.catalog import find_card
from facenet.models.engine import (
    BATCHES,
    DEVICES,
    PRECISIONS,
    Engine,
    EngineSettings,
    open_engine,
)
from facenet.models.fastest import Clock, fastest, in_words, remembered_times
from facenet.models.measured import BF16, require_measured
from facenet.models.quantised import as_quantised, require_quantised
from facenet.models.selfcheck import Ask, remembered
from facenet.models.store import ModelStore

ASKED = "asked for"
"""Why an engine was chosen that was named."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine chosen for a model, and why."""

    settings: EngineSettings
    reason: str


@dataclass(frozen=True, slots=True)
class Model:
    """A card with its running engines, by file name without ending, and why they were chosen."""

    card: ModelCard
    engines: Mapping[str, Engine]
    reason: str = ""

    @property
    def engine(self) -> Engine:
        """The engine of a model of one file."""
        return next(iter(self.engines.values()))


def load_model(
    name: str,
    *,
    kind: str | None = None,
    settings: EngineSettings | None = None,
    store: ModelStore | None = None,
) -> Model:
    """Load a model by name.

    Raises UnknownModelError, ModelError when it was not fetched, DigestError when a file changed,
    EngineError when the engine or device is not there.
    """
    store = store or ModelStore()
    card = find_card(name, kind=kind, home=store.home)
    paths = store.files(card)
    choice = choose_engine(card, settings or EngineSettings(), store.home)
    if choice.settings.precision == "int8":
        paths = as_quantised(card, store)[1]
    batches = BATCHES if card.kind == "embedder" else ()
    steady = card.kind == "detector" and len(paths) == 1  # MTCNN's crops come in any number
    engines = {
        stem: open_engine(path, choice.settings, batches=batches, steady=steady)
        for stem, path in paths.items()
    }
    return Model(card, engines, choice.reason)


def settled(name: str, settings: EngineSettings, store: ModelStore | None = None) -> Choice:
    """What `load_model` would run an embedder with; nothing is loaded. Raises as it does."""
    store = store or ModelStore()
    card = find_card(name, kind="embedder", home=store.home)
    store.files(card)
    return choose_engine(card, settings, store.home)


def choose_engine(
    card: ModelCard,
    settings: EngineSettings,
    home: Path,
    *,
    installed: Callable[[], bool] = openvino.installed,
    ask: Ask | None = None,
    clock: Clock | None = None,
) -> Choice:
    """Settle what is "auto". Engine: OpenVINO where it is installed and computes right, else ONNX
    Runtime. Precision: the fastest of those that compute right and leave decisions as they are.

    An engine that was asked for by name is taken as it is; it fails loudly where it cannot run.
    installed: whether OpenVINO is here. ask: who checks it, see `selfcheck.remembered`. clock: who
    times, see `fastest.remembered_times`. Raises EngineError when only OpenVINO has the precision
    and it is not to be used, and for int8 without an 8-bit file that may be used.
    """
    if settings.precision == "int8":
        _require_8_bits(card, settings, home)
    if settings.precision == "auto":
        return _choose_precision(card, settings, home, installed, ask, clock)
    if settings.engine != "auto":
        return Choice(settings, ASKED)
    runtimes = DEVICES[str(settings.device)]
    if len(runtimes) == 1:
        chosen = replace(settings, engine=runtimes[0])
        return Choice(chosen, f"the one engine for the device {settings.device}")
    vino = replace(settings, engine="openvino")
    if not installed():
        return _fall_back(card, settings, home, "OpenVINO is not installed", ask)
    if settings.precision != "int8" and _unanswered(card):
        reason = "the card has no golden answer to check OpenVINO with"
        return _fall_back(card, settings, home, reason, ask)
    verdict = remembered(card, vino, home, ask=ask)
    if verdict.ok:
        return Choice(vino, f"OpenVINO {verdict.reason}")
    return _fall_back(card, settings, home, f"OpenVINO was turned down: {verdict.reason}", ask)


def _unanswered(card: ModelCard) -> bool:
    return any(Path(file.path).stem not in card.golden for file in card.files)


def _fall_back(
    card: ModelCard, settings: EngineSettings, home: Path, reason: str, ask: Ask | None
) -> Choice:
    """ONNX Runtime, in fp32 unseen, in int8 where it computes right."""
    chosen = replace(settings, engine="onnxruntime")
    if settings.precision == "fp32":
        return Choice(chosen, reason)
    if settings.precision == "int8":
        verdict = remembered(card, chosen, home, ask=ask)
        if verdict.ok:
            return Choice(chosen, f"{reason}; ONNX Runtime {verdict.reason}")
        raise EngineError(
            f"int8 was asked for; {reason}, and ONNX Runtime was turned down: {verdict.reason} Use "
            "another precision."
        )
    raise EngineError(
        f"{settings.precision} was asked for; only OpenVINO computes it, and {reason}. "
        'Use precision "fp32".'
    )


def _require_8_bits(card: ModelCard, settings: EngineSettings, home: Path) -> None:
    """Raise EngineError unless there is an 8-bit file for it that may be used."""
    if card.kind != "embedder" or settings.device != "cpu":
        raise EngineError(
            "int8 was asked for; 8-bit files are made and measured for embedders on the cpu, and "
            f'this is the {card.kind} {card.name} on {settings.device}. Use precision "fp32".'
        )
    require_quantised(card, ModelStore(home))


def _choose_precision(
    card: ModelCard,
    settings: EngineSettings,
    home: Path,
    installed: Callable[[], bool],
    ask: Ask | None,
    clock: Clock | None,
) -> Choice:
    """The fastest precision that computes right, and why; the others with what is against them."""
    exact = replace(settings, precision="fp32")
    if card.kind != "embedder" or settings.device != "cpu":
        choice = choose_engine(card, exact, home, installed=installed, ask=ask)
        return replace(
            choice, reason=f"fp32, as always but for embedders on the cpu; {choice.reason}"
        )
    able: dict[str, Choice] = {}
    against: list[str] = []
    for precision in PRECISIONS:
        try:
            wanted = replace(settings, precision=precision)
            choice = choose_engine(card, wanted, home, installed=installed, ask=ask)
            able[precision] = _verified(card, choice, home, ask)
        except (EngineError, ModelFileError) as error:
            said = str(error).removeprefix(f"{precision} was asked for; ").rstrip(".")
            against.append(f"{precision}: {said}")
    return _fastest(card, able, against, home, clock)


def _verified(card: ModelCard, choice: Choice, home: Path, ask: Ask | None) -> Choice:
    """A choice, checked too where its engine was asked for, and its effect on decisions.

    Raises EngineError.
    """
    if choice.reason == ASKED and choice.settings.precision != "fp32":
        verdict = remembered(card, choice.settings, home, ask=ask)
        if not verdict.ok:
            raise EngineError(verdict.reason)
    if choice.settings.precision == BF16:  # of int8 its file's record says so
        require_measured(card, ModelStore(home))
    return choice


def _fastest(
    card: ModelCard, able: Mapping[str, Choice], against: list[str], home: Path, clock: Clock | None
) -> Choice:
    first = next(iter(able.values()))
    if len(able) == 1:
        return replace(
            first, reason="; ".join([f"{first.settings.precision}, the only one", *against])
        )
    candidates = [choice.settings for choice in able.values()]
    times = remembered_times(card, home, candidates, clock=clock)
    if times.problem:
        why = f"{first.settings.precision}, because the timing {times.problem}"
        return replace(first, reason="; ".join([why, *against]))
    choice = able[fastest(times.milliseconds)]
    why = f"{choice.settings.precision} taken: {in_words(times.milliseconds)}"
    return replace(choice, reason="; ".join([why, *against]))
