"""The catalogue: every model facenet knows by name. Cards are data, in `cards/*.json`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from facenet.errors import ModelFileError, UnknownModelError
from facenet.models.card import ModelCard, load_card
from facenet.models.home import environment

DEFAULT_DETECTOR = "mtcnn"
DEFAULT_EMBEDDER = "mobilefacenet"
CARD = "card.json"
"""Name of the card in the folder of an imported model."""


def package_folder() -> Path:
    """The folder of this package that holds `cards/` and `weights/`."""
    return Path(str(files("facenet.models")))


def models_folder(home: Path | None = None) -> Path:
    """The folder in FACENET_HOME that holds one folder per fetched or imported model."""
    return (home or environment().home) / "models"


@cache
def published() -> Mapping[str, ModelCard]:
    """The cards that come with facenet, by name."""
    cards = [load_card(path) for path in sorted((package_folder() / "cards").glob("*.json"))]
    return MappingProxyType({card.name: card for card in cards})


def imported(home: Path | None = None) -> dict[str, ModelCard]:
    """The cards of the models imported on this machine, by name.

    Raises ModelFileError for a card that is damaged or lies in another model's folder.
    """
    cards = {}
    for path in sorted(models_folder(home).glob(f"*/{CARD}")):
        card = load_card(path)
        if card.name != path.parent.name:
            raise ModelFileError(
                f"{path} should be the card of {path.parent.name}; it is that of {card.name}. "
                f"Remove the folder {path.parent} and import the model again."
            )
        cards[card.name] = card
    return cards


def catalog(home: Path | None = None) -> dict[str, ModelCard]:
    """All cards by name: the published ones, then those imported on this machine.

    A published name is always the published model.
    """
    return dict(published()) | {
        name: card for name, card in imported(home).items() if name not in published()
    }


def find_card(name: str, *, kind: str | None = None, home: Path | None = None) -> ModelCard:
    """The card of a name or alias.

    kind: "detector" or "embedder" when only that will do.
    Raises UnknownModelError with the nearest names, ModelFileError for the wrong kind.
    """
    card = _named(name, published())
    if card is None:
        card = _named(name, imported(home))
    if card is None:
        raise UnknownModelError(f"There is no model named {name!r}. {_hint(name, kind, home)}")
    if kind and card.kind != kind:
        fitting = ", ".join(sorted(c.name for c in catalog(home).values() if c.kind == kind))
        article = {"embedder": "an embedder"}
        came, needed = (article.get(k, f"a {k}") for k in (card.kind, kind))
        raise ModelFileError(f"{name} is {came}; {needed} is needed: {fitting}.")
    return card


def _named(name: str, cards: Mapping[str, ModelCard]) -> ModelCard | None:
    aliases = (card for card in cards.values() if name in card.aliases)
    return cards.get(name) or next(aliases, None)


def _hint(name: str, kind: str | None, home: Path | None) -> str:
    """The nearest names of the wanted kind, small and capital letters being alike."""
    names = [
        known
        for card in catalog(home).values()
        if kind in (None, card.kind)
        for known in (card.name, *card.aliases)
    ]
    lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.45)
    if not near:
        return "See `facenet models list`."
    return f"Did you mean {' or '.join(lower[known] for known in near)}?"
