"""Listing, showing, checking and importing models: the work behind `facenet models`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facenet.errors import ModelError, SettingsError, StorageError
from facenet.gallery.calibrate import lowest_fmr, similarity_at
from facenet.models.card import FmrTable, ModelCard, Preprocess
from facenet.models.catalog import catalog, find_card
from facenet.models.importing import import_model, recognised
from facenet.models.selfcheck import check_answer
from facenet.models.store import ModelStore

RATES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


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


def card_text(card: ModelCard) -> str:
    """A card as a person reads it."""
    licence = card.licence
    rows = [
        ("kind", card.kind),
        ("origin", card.source.origin or card.source.type),
        ("published file", f"{card.source.bytes:,} bytes, SHA-256 {card.source.sha256}"),
        ("licence", f"code {licence.code}; weights {licence.weights}. {licence.note}".strip()),
        ("training data", card.training_data),
        ("contract", card.contract if card.kind == "embedder" else None),
        ("input", _input_text(card.preprocess)),
        ("output", f"{card.dimension} values" if card.dimension else None),
        ("notes", card.notes),
        *((f.name, f"{f.value:g} - {f.origin}; {f.protocol}") for f in card.figures),
        *(_rates(card.fmr) if card.fmr else []),
    ]
    lines = [f"{label:>15}  {text}" for label, text in rows if text]
    return "\n".join([f"{card.name}: {card.title}", *lines])


def _input_text(preprocess: Preprocess | None) -> str | None:
    if preprocess is None:
        return None
    return (
        f"{preprocess.width}x{preprocess.height} {preprocess.color.upper()}, "
        f"crop {preprocess.crop}, margin {preprocess.margin}, standardise {preprocess.standardise}"
    )


def _rates(table: FmrTable) -> list[tuple[str, str]]:
    possible = [rate for rate in RATES if rate >= lowest_fmr(table)]
    thresholds = [(rate, similarity_at(table, rate)) for rate in possible]
    rows = [(f"FMR {rate:g}", f"at similarity {value:.3f}") for rate, value in thresholds]
    source = f"{table.pairs:,} pairs of {table.people:,} people in {table.images:,} pictures"
    return [("FMR table", f"{table.dataset}: {source}"), *rows]


def check_models(names: Sequence[str]) -> list[dict[str, Any]]:
    """Check digests and golden answers of the named models, or of all that are here."""
    store = ModelStore()
    cards = [find_card(name) for name in names] or [
        card for card in catalog().values() if store.installed(card)
    ]
    return [_check(card, store) for card in cards]


def _check(card: ModelCard, store: ModelStore) -> dict[str, Any]:
    try:
        error = check_answer(card, store.files(card))
    except (ModelError, StorageError) as failure:
        return {"name": card.name, "ok": False, "reason": str(failure)}
    golden = f"golden answer within {error:.1e}" if card.golden else "no golden answer on the card"
    return {"name": card.name, "ok": True, "reason": f"digests equal; {golden}"}


@dataclass(frozen=True, slots=True)
class OwnModel:
    """What a file of one's own cannot say of itself; None: not told. See `Preprocess`."""

    width: int
    height: int
    name: str | None = None
    crop: str | None = None
    standardise: str | None = None
    margin: int = 0
    color: str = "rgb"


def import_file(file: Path, own: OwnModel, *, overwrite: bool = False) -> ModelCard:
    """Install a published file, known by its digest, or an ONNX embedder of one's own.

    Raises SettingsError when a file of one's own lacks name, crop or standardise.
    """
    store = ModelStore()
    card = recognised(file, store.home)
    if card is not None:
        store.pull(card, given=file)
        return card
    asked = {"name": own.name, "crop": own.crop, "standardise": own.standardise}
    missing = [option for option, value in asked.items() if value is None]
    if missing:
        raise SettingsError(
            f"{file} is none of the published files, so facenet cannot know how it was trained. "
            f"Say it with --{', --'.join(missing)}."
        )
    preprocess = Preprocess(
        own.width, own.height, str(own.crop), str(own.standardise), own.margin, own.color
    )
    return import_model(
        file, name=str(own.name), preprocess=preprocess, store=store, overwrite=overwrite
    )
