"""Listing, showing, checking and importing models: the work behind `facenet models`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from facenet.errors import ModelError, SettingsError, StorageError
from facenet.gallery.calibrate import lowest_fmr, similarity_at
from facenet.models.card import FmrTable, ModelCard, Preprocess
from facenet.models.catalog import catalog, find_card
from facenet.models.importing import import_model, recognised
from facenet.models.recognising import Found, holds_onnx, read_folder, read_model
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

    width: int | None = None
    height: int | None = None
    name: str | None = None
    crop: str | None = None
    standardise: str | None = None
    margin: int | None = None
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """The cards of what was imported, and a line for each file of a pack."""

    cards: tuple[ModelCard, ...]
    lines: tuple[str, ...] = ()


def import_file(path: Path, own: OwnModel, *, overwrite: bool = False) -> Imported:
    """Install a published file, known by its digest, or a model of one's own.

    path: what `read_model` reads, or a folder of ONNX files (a pack: its detector and recogniser
    are named NAME-detector and NAME-recogniser).
    Raises SettingsError when a model of one's own lacks name, crop or standardise.
    """
    store = ModelStore()
    card = recognised(path, store.home) if os.path.isfile(path) else None
    if card is not None:
        store.pull(card, given=path)
        return Imported((card,))
    if not holds_onnx(path):
        return Imported((_take(path, read_model(path), own, store, overwrite=overwrite),))
    models, lines = read_folder(path)
    if own.name:
        models = [replace(m, name=f"{own.name}-{str(m.name).rpartition('-')[2]}") for m in models]
    own = replace(own, name=None)
    cards = [_take(path, found, own, store, overwrite=overwrite) for found in models]
    return Imported(tuple(cards), tuple(lines))


def _take(
    path: Path, found: Found, own: OwnModel, store: ModelStore, *, overwrite: bool
) -> ModelCard:
    """Import one model with what it tells itself and what the user says."""
    told = {key: value for key, value in asdict(own).items() if value is not None}
    told = {"name": found.name, "width": 112, "height": 112, **found.defaults, **told}
    name = told.pop("name")
    asked = {"name": name}
    if found.kind == "embedder":
        asked |= {option: told.get(option) for option in ("crop", "standardise")}
    missing = [option for option, value in asked.items() if value is None]
    if missing:
        raise SettingsError(
            f"{path} is none of the published files, so facenet cannot know how it was trained. "
            f"It is {found.title}. Say it with --{', --'.join(missing)}."
        )
    preprocess = Preprocess(**told) if found.kind == "embedder" else None
    return import_model(
        found,
        name=str(name),
        preprocess=preprocess,
        kind=found.kind,
        store=store,
        overwrite=overwrite,
    )
