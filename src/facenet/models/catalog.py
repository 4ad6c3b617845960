"""The catalogue: every model facenet knows by name. Cards are data, in `cards/*.json`."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

from facenet.errors import ModelFileError, UnknownModelError
from facenet.models.card import ModelCard, load_card
from facenet.models.home import environment

DEFAULT_DETECTOR = "mtcnn"
DEFAULT_EMBEDDER = "mobilefacenet"


def package_folder() -> Path:
    """The folder of this package that holds `cards/` and `weights/`."""
    return Path(str(files("facenet.models")))


def models_folder(home: Path | None = None) -> Path:
    """The folder in FACENET_HOME that holds one folder per fetched or imported model."""
    return (home or environment().home) / "models"


def catalog(home: Path | None = None) -> dict[str, ModelCard]:
    """All cards by name: the published ones, then those imported on this machine."""
    published = sorted((package_folder() / "cards").glob("*.json"))
    imported = sorted(models_folder(home).glob("*/card.json"))
    cards = [load_card(path) for path in [*published, *imported]]
    return {card.name: card for card in cards}


def find_card(name: str, *, kind: str | None = None, home: Path | None = None) -> ModelCard:
    """The card of a name or alias.

    kind: "detector" or "embedder" when only that will do.
    Raises UnknownModelError with the nearest names, ModelFileError for the wrong kind.
    """
    cards = catalog(home)
    aliases = {alias: card for card in cards.values() for alias in card.aliases}
    card = cards.get(name) or aliases.get(name)
    if card is None:
        near = difflib.get_close_matches(name, [*cards, *aliases], n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See `facenet models list`."
        raise UnknownModelError(f"There is no model named {name!r}. {hint}")
    if kind and card.kind != kind:
        fitting = ", ".join(sorted(c.name for c in cards.values() if c.kind == kind))
        raise ModelFileError(f"{name} is a {card.kind}; a {kind} is needed: {fitting}.")
    return card
