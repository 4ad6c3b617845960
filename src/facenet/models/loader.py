"""From a name to a model that runs: card, checked files, the right engine for this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from facenet.models import openvino
from facenet.models.card import ModelCard
from facenet.models.catalog import find_card
from facenet.models.engine import DEVICES, Engine, EngineSettings, open_engine
from facenet.models.selfcheck import remembered
from facenet.models.store import ModelStore


@dataclass(frozen=True, slots=True)
class Model:
    """A card with its running engines, by file name without ending."""

    card: ModelCard
    engines: Mapping[str, Engine]

    @property
    def engine(self) -> Engine:
        """The engine of a model of one file."""
        return next(iter(self.engines.values()))


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine chosen for a model, and why."""

    settings: EngineSettings
    reason: str


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
    return Model(card, {stem: open_engine(path, choice.settings) for stem, path in paths.items()})


def choose_engine(card: ModelCard, settings: EngineSettings, home: Path) -> Choice:
    """Settle "auto": OpenVINO where it is installed and computes right, else ONNX Runtime.

    What was asked for by name is taken as it is; it fails loudly where it cannot run.
    """
    if settings.engine != "auto":
        return Choice(settings, "asked for")
    only = _only(settings)
    if only:
        chosen = replace(settings, engine=only)
        return Choice(chosen, f"the one engine for the device {settings.device}")
    vino = replace(settings, engine="openvino")
    fallback = replace(settings, engine="onnxruntime")
    if not openvino.installed():
        return Choice(fallback, "OpenVINO is not installed")
    if not card.golden:
        return Choice(fallback, "the card has no golden answer to check OpenVINO with")
    verdict = remembered(card, vino, home)
    if verdict.ok:
        return Choice(vino, f"OpenVINO {verdict.reason}")
    return Choice(fallback, f"OpenVINO was turned down: {verdict.reason}")


def _only(settings: EngineSettings) -> str | None:
    """The runtime of a device that only one runtime serves."""
    runtimes = DEVICES[str(settings.device)]
    return runtimes[0] if len(runtimes) == 1 else None
