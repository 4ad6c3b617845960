"""From a name to a model that runs: card, checked files, the right engine for this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from facenet.errors import EngineError
from facenet.models import openvino
from facenet.models.card import ModelCard
from facenet.models.catalog import find_card
from facenet.models.engine import DEVICES, Engine, EngineSettings, open_engine
from facenet.models.selfcheck import Ask, remembered
from facenet.models.store import ModelStore


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
    engines = {stem: open_engine(path, choice.settings) for stem, path in paths.items()}
    return Model(card, engines, choice.reason)


def choose_engine(
    card: ModelCard,
    settings: EngineSettings,
    home: Path,
    *,
    installed: Callable[[], bool] = openvino.installed,
    ask: Ask | None = None,
) -> Choice:
    """Settle "auto": OpenVINO where it is installed and computes right, else ONNX Runtime.

    What was asked for by name is taken as it is; it fails loudly where it cannot run.
    installed: whether OpenVINO is here. ask: who checks it, see `selfcheck.remembered`.
    Raises EngineError when only OpenVINO has the precision and it is not to be used.
    """
    if settings.engine != "auto":
        return Choice(settings, "asked for")
    runtimes = DEVICES[str(settings.device)]
    if len(runtimes) == 1:
        chosen = replace(settings, engine=runtimes[0])
        return Choice(chosen, f"the one engine for the device {settings.device}")
    vino = replace(settings, engine="openvino")
    if not installed():
        return _fall_back(settings, "OpenVINO is not installed")
    if any(Path(file.path).stem not in card.golden for file in card.files):
        return _fall_back(settings, "the card has no golden answer to check OpenVINO with")
    verdict = remembered(card, vino, home, ask=ask)
    if verdict.ok:
        return Choice(vino, f"OpenVINO {verdict.reason}")
    return _fall_back(settings, f"OpenVINO was turned down: {verdict.reason}")


def _fall_back(settings: EngineSettings, reason: str) -> Choice:
    if settings.precision != "fp32":
        raise EngineError(
            f"{settings.precision} was asked for, which only OpenVINO computes; {reason}. "
            'Use precision "fp32".'
        )
    return Choice(replace(settings, engine="onnxruntime"), reason)
