"""Examining the machine: the work behind `facenet doctor`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from facenet import __version__
from facenet.errors import FacenetError
from facenet.faces.compiled import compiled
from facenet.faces.detectors import held_back
from facenet.faces.glance import glances_of
from facenet.models import openvino, ort
from facenet.models.card import ModelCard
from facenet.models.catalog import catalog, published
from facenet.models.engine import EngineSettings
from facenet.models.home import cpu_name, cpu_threads, environment
from facenet.models.loader import choose_engine, load_model
from facenet.models.store import ModelStore

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "onnx")

COMPILED = "compiled"
AMX = "AMX"
LOOKING = "mtcnn"
"""The detector that looks quickly first."""

T = TypeVar("T")


def examine(instructions: str = "auto") -> dict[str, Any]:
    """Versions, processor, threads, places, devices per engine, and the engine of each model.
    pixels: whether the detectors' small steps are compiled. quick_look: whether MTCNN looks first
    with AMX.

    instructions: to which the engines are held. Of an embedder also its fastest precision.
    problems: what is wrong, a sentence each; a model that was not fetched is no problem.
    """
    place, problems = environment(), list[str]()
    settings = EngineSettings(instructions=instructions)
    store = ModelStore(place.home)
    engines = {"onnxruntime": ort.available, "openvino": _openvino_devices}
    nowhere = list[str]()
    cards = _ask(lambda: catalog(place.home), dict(published()), problems)
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
        "pixels": _pixels(),
        "quick_look": _quick_look(settings),
        "engines": {name: _ask(devices, nowhere, problems) for name, devices in engines.items()},
        "instructions": settings.instructions,
        "models": [_examine_model(card, store, settings, problems) for card in cards.values()],
        "problems": problems,
    }


def report(findings: Mapping[str, Any]) -> str:
    """The findings as a person reads them."""
    packages = ", ".join(f"{k} {v or '(not installed)'}" for k, v in findings["packages"].items())
    lines = [
        f"facenet {findings['facenet']}, Python {findings['python']}, {findings['system']}",
        f"packages    {packages}",
        f"processor   {findings['processor']}, {findings['threads']} threads granted",
        f"home        {findings['home']}",
        f"device      {findings['device']}",
        f"pixels      {findings['pixels']}",
        f"quick look  {findings['quick_look']}",
    ]
    if findings["instructions"] != "auto":
        lines.append(f"held to     {findings['instructions']}")
    for engine, devices in findings["engines"].items():
        lines.append(f"{engine:<12}{', '.join(devices) or 'not available'}")
    for model in findings["models"]:
        lines.append(f"{model['name']}: {model['engine'] or '-'} ({model['reason']})")
        if "precision" in model:
            lines.append(f"{'':<12}precision auto: {model['precision_reason']}")
    return "\n".join([*lines, *(f"problem: {text}" for text in findings["problems"])])


def _examine_model(
    card: ModelCard, store: ModelStore, settings: EngineSettings, problems: list[str]
) -> dict[str, Any]:
    """Which engine runs a model here and why, or why none does; of an embedder in which precision
    it would run fastest."""
    try:
        if not store.installed(card):
            reason = f"not here; fetch it with `facenet models pull {card.name}`"
            return {"name": card.name, "engine": None, "reason": reason}
        store.files(card)
        choice = choose_engine(card, settings, store.home)
        found = {"name": card.name, "engine": choice.settings.engine, "reason": choice.reason}
        if card.kind == "detector" and (slower := held_back(card.name, settings)):
            found["reason"] += f"; {slower}"
        if card.kind == "embedder":
            fast = choose_engine(card, replace(settings, precision="auto"), store.home)
            found |= {"precision": fast.settings.precision, "precision_reason": fast.reason}
        return found
    except FacenetError as error:
        problems.append(str(error))
        return {"name": card.name, "engine": None, "reason": str(error)}


def _pixels() -> str:
    """What works on pixels and boxes, and why nothing better does."""
    here = compiled()
    return COMPILED if here.kernels else f"NumPy, which is slower: {here.reason}"


def _quick_look(settings: EngineSettings) -> str:
    """What MTCNN looks with first, or why it does not look with AMX."""
    if settings.instructions != "auto":
        return f"off: the instructions are held to {settings.instructions}"
    try:
        glances = glances_of(load_model(LOOKING, settings=settings).engines)
    except FacenetError as error:
        return f"off: {error}"
    return f"off: {glances.reason}" if glances.reason else AMX


def _ask(question: Callable[[], T], otherwise: T, problems: list[str]) -> T:
    try:
        return question()
    except FacenetError as error:
        problems.append(str(error))
        return otherwise


def _openvino_devices() -> list[str]:
    return openvino.available() if openvino.installed() else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
