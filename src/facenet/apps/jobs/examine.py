"""Examining the machine: the work behind `facenet doctor`."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from facenet import __version__
from facenet.errors import ModelError
from facenet.models import openvino, ort
from facenet.models.card import ModelCard
from facenet.models.catalog import catalog
from facenet.models.engine import EngineSettings
from facenet.models.home import cpu_name, cpu_threads, environment
from facenet.models.loader import choose_engine
from facenet.models.store import ModelStore

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "onnx")


def examine() -> dict[str, Any]:
    """Versions, processor, threads, places, devices per engine, and the engine of each model."""
    place = environment()
    store = ModelStore(place.home)
    return {
        "facenet": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "executable": sys.executable,
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": cpu_name(),
        "threads": cpu_threads(),
        "home": str(place.home),
        "device": place.device,
        "engines": {
            "onnxruntime": ort.available(),
            "openvino": openvino.available() if openvino.installed() else [],
        },
        "models": [_examine_model(card, store) for card in catalog(place.home).values()],
    }


def report(findings: dict[str, Any]) -> str:
    """The findings as a person reads them."""
    packages = ", ".join(f"{k} {v or '(not installed)'}" for k, v in findings["packages"].items())
    lines = [
        f"facenet {findings['facenet']}, Python {findings['python']}, {findings['system']}",
        f"packages   {packages}",
        f"processor  {findings['processor']}, {findings['threads']} threads granted",
        f"home       {findings['home']}",
    ]
    for engine, devices in findings["engines"].items():
        lines.append(f"{engine:<11}{', '.join(devices) or 'not installed'}")
    for model in findings["models"]:
        lines.append(f"{model['name']}: {model['engine'] or '-'} ({model['reason']})")
    return "\n".join(lines)


def _examine_model(card: ModelCard, store: ModelStore) -> dict[str, Any]:
    """Which engine runs a model here, or why none does; a model not fetched is no fault."""
    found: dict[str, Any] = {"name": card.name, "engine": None, "ok": True}
    if not store.installed(card):
        return found | {"reason": f"not here; fetch it with `facenet models pull {card.name}`"}
    try:
        store.files(card)
        choice = choose_engine(card, EngineSettings(), store.home)
    except ModelError as error:
        return found | {"ok": False, "reason": str(error)}
    return found | {"engine": choice.settings.engine, "reason": choice.reason}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
