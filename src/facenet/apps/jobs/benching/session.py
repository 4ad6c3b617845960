"""What every part of a benchmark shares: settings, runs, a folder for inputs, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.apps.jobs.benching.link import Opening
from facenet.apps.jobs.benching.runs import Ledger, Runs
from facenet.apps.jobs.benching.settings import BenchSettings
from facenet.apps.jobs.peers.worker import SYSTEMS
from facenet.models.card import ModelCard
from facenet.models.catalog import DEFAULT_EMBEDDER, catalog
from facenet.models.store import ModelStore

INCEPTION = "inception_resnet_v1"
FASTEST = "auto"
"""Arithmetic of the pipeline: the fastest that computes right here."""
FACENET = ("facenet-msceleb-20170512", "facenet-casia-webface", "facenet-vggface2")
"""Models whose network is that of facenet-pytorch; they are one network, so one is measured."""


@dataclass(frozen=True, slots=True)
class Session:
    """One benchmark. opening: opens facenet and peers. folder: for inputs, temporary. ledger:
    takes what is told besides rows. store: where the models are."""

    settings: BenchSettings
    opening: Opening
    folder: Path
    ledger: Ledger
    store: ModelStore

    def runs(self, threads: int) -> Runs:
        """What runs plans on a number of threads."""
        return Runs(self.opening, threads, self.ledger)

    @property
    def running(self) -> dict[str, Any]:
        """What runs facenet's networks: a part of each task, and of `EngineSettings`."""
        return {"engine": self.settings.engine, "instructions": self.settings.instructions}

    def note(self, text: str) -> None:
        """Tell a sentence."""
        self.ledger.note(text)

    def here(self, kind: str) -> list[ModelCard]:
        """The models of a kind that are on this machine."""
        cards = catalog(self.store.home).values()
        return [card for card in cards if card.kind == kind and self.store.installed(card)]

    def networks(self) -> dict[str, str]:
        """Models to embed with by the name of their network, facenet's first where it is here."""
        names = [card.name for card in self.here("embedder")]
        facenet = next((name for name in FACENET if name in names), None)
        if facenet is None:
            self.note(
                f"{INCEPTION} was not measured: no model of facenet is on this machine. Fetch one "
                "with `facenet models pull facenet-casia-webface`."
            )
        first = {INCEPTION: facenet} if facenet else {}
        return {**first, DEFAULT_EMBEDDER: DEFAULT_EMBEDDER}

    def peers(self, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Those of the tasks whose peer was asked for, in that order."""
        return {name: tasks[name] for name in self.settings.against if name in tasks}

    def tell_unasked(self) -> None:
        """Sentences about peers that nothing of what was measured has a counterpart in."""
        for name in self.settings.against:
            if name in self.ledger.asked or name == "none":
                continue
            why = "nothing that was measured has a counterpart in it."
            if name in SYSTEMS:
                system = self.opening(name, 1)
                answer = system.ask({"prepare": {"job": "hello"}})
                system.close()
                why = str(answer.get("missing", why))[:400]
            self.note(f"{name} was not measured: {why}")
