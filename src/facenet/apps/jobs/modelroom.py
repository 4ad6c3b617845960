"""Listing models, and every runtime on their known inputs: the work behind `facenet models`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from facenet.errors import ModelError, StorageError
from facenet.models import openvino
from facenet.models.card import ModelCard
from facenet.models.catalog import catalog, find_card
from facenet.models.engine import EngineSettings
from facenet.models.quantised import require_quantised
from facenet.models.selfcheck import Ask, Verdict, ask_child
from facenet.models.store import ModelStore

EXACT = (("onnxruntime", "fp32"), ("openvino", "fp32"))
RUNS = (*EXACT, ("openvino", "bf16"), ("onnxruntime", "int8"), ("openvino", "int8"))
"""Engines and precisions on the CPU; detectors run in fp32, where it counts."""
COLUMNS = (
    *("name", "engine", "precision", "largest_difference", "cosine_distance", "ok", "reason"),
)

ABSENT = 'not installed here: pip install "facenet[openvino]"'


def overview() -> list[dict[str, Any]]:
    """One row per model of the catalogue."""
    store = ModelStore()
    return [
        {
            "name": card.name,
            "kind": card.kind,
            "installed": store.installed(card),
            "source": card.source.type,
            "megabytes": round(card.bytes / 1e6, 1),
            "dimension": card.dimension,
            "licence": card.licence.weights,
            "commercial": card.licence.commercial,
            "aliases": list(card.aliases),
            "title": card.title,
        }
        for card in catalog().values()
    ]


def check_models(
    names: Sequence[str],
    *,
    ask: Ask = ask_child,
    installed: Callable[[], bool] = openvino.installed,
) -> list[dict[str, Any]]:
    """Check the files of the named models, or of all that are here, and how each runtime computes.

    Returns a row per model, engine and precision: name, engine, precision, largest_difference (to
    the golden answer, absolute), cosine and cosine_distance (1 - cosine, of an embedder's vector),
    ok (None where it cannot run on this machine, or not as it was measured) and reason. A model
    whose files are not whole has one row, without engine. ask: finds out about one runtime, so
    that its crash is an answer.
    """
    store = ModelStore()
    cards = [find_card(name) for name in names] or [
        card for card in catalog().values() if store.installed(card)
    ]
    return [row for card in cards for row in _check(card, store, ask, installed)]


def _check(
    card: ModelCard, store: ModelStore, ask: Ask, installed: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    try:
        store.files(card)
    except (ModelError, StorageError) as failure:
        yield _row(card, None, None, Verdict(False, str(failure)))
        return
    for engine, precision in RUNS if card.kind == "embedder" else EXACT:
        missing = _missing(card, store, engine, precision, installed)
        if missing:
            yield _row(card, engine, precision, Verdict(False, missing), able=False)
            continue
        settings = EngineSettings(engine=engine, device="cpu", precision=precision)
        verdict = ask(card.name, settings, store.home)
        able = verdict.ok or not (
            verdict.reason == openvino.NO_BF16 or _elsewhere(card, store, engine, precision)
        )
        yield _row(card, engine, precision, verdict, able=able)


def _missing(
    card: ModelCard, store: ModelStore, engine: str, precision: str, installed: Callable[[], bool]
) -> str:
    """Why this machine cannot run a precision at all, "" where it can."""
    if engine == "openvino" and not installed():
        return ABSENT
    if precision != "int8":
        return ""
    try:
        require_quantised(card, store)
    except ModelError as failure:
        return str(failure)
    return ""


def _elsewhere(card: ModelCard, store: ModelStore, engine: str, precision: str) -> bool:
    """Whether an 8-bit file was measured with another engine, and owes this one nothing."""
    return precision == "int8" and not require_quantised(card, store).engine.startswith(engine)


def _row(
    card: ModelCard,
    engine: str | None,
    precision: str | None,
    verdict: Verdict,
    *,
    able: bool = True,
) -> dict[str, Any]:
    return {
        "name": card.name,
        "engine": engine,
        "precision": precision,
        "largest_difference": verdict.difference,
        "cosine": verdict.cosine,
        "cosine_distance": None if verdict.cosine is None else 1 - verdict.cosine,
        "ok": verdict.ok if able else None,
        "reason": verdict.reason,
    }
