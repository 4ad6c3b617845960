"""Importing models: the work behind `facenet models import`.

What a file says of itself is taken from it, what the user says counts more, and what nobody says is
asked for or, where nearly all models are alike, assumed and told.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from facenet.errors import ModelFileError, SettingsError
from facenet.models import disk, sources
from facenet.models.card import (
    COLORS,
    CROPS,
    KINDS,
    STANDARDISATIONS,
    ModelCard,
    Preprocess,
)
from facenet.models.convert.checkpoint_files import is_checkpoint
from facenet.models.convert.front import MEAN, SCALE, Feeding
from facenet.models.convert.insightface import KNOWN_FORMS
from facenet.models.importing import import_model, recognised
from facenet.models.packs import is_zip, pack_folder, unpacked
from facenet.models.plainonnx import check_ports
from facenet.models.recognising import Found, read_folder, read_model
from facenet.models.store import ModelStore

FEEDINGS: Mapping[str, tuple[float, float]] = {
    "fixed": (MEAN, SCALE),
    "insightface": (MEAN, MEAN),
    "none": (0.0, 1.0),
}
"""Standardisation of a detector -> mean and scale."""
CHOICES = {
    "name": "NAME",
    "size": "PIXELS",
    "crop": "|".join(CROPS),
    "standardise": "|".join(STANDARDISATIONS),
}
"""What is asked for -> what may be said."""
GRAPHS_IN_FOLDER = 4
"""Frozen graphs of a folder that are compared with the published ones."""


@dataclass(frozen=True, slots=True)
class OwnModel:
    """What a file of one's own cannot say of itself; None: not told.

    kind: "embedder" or "detector". mean, scale: of a detector, see `Feeding`. For the others see
    `Preprocess`.
    """

    width: int | None = None
    height: int | None = None
    name: str | None = None
    kind: str | None = None
    crop: str | None = None
    standardise: str | None = None
    margin: int | None = None
    color: str | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in (None, *KINDS):
            raise SettingsError(
                f"kind should be one of {', '.join(KINDS)}; got {self.kind[:40]!r}."
            )

    def told(self, *fields: str) -> dict[str, Any]:
        """Those of the fields that the user said."""
        values = asdict(self)
        return {field: values[field] for field in fields if values[field] is not None}


FED = ("width", "height", "crop", "standardise", "margin", "color")
"""What is said of an embedder."""
SEEN = ("width", "height", "standardise", "color", "mean", "scale")
"""What is said of a detector."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The cards of what was imported, and lines to print about it."""

    cards: tuple[ModelCard, ...]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Import:
    """One call of `import_file`: where to, what the user said, whether to overwrite."""

    store: ModelStore
    own: OwnModel
    overwrite: bool


def parse_channels(name: str, text: str | None) -> tuple[float, ...] | None:
    """The numbers of "127.5" or "104,117,123". Raises SettingsError."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"{name} should be one number or three, such as 104,117,123; got {text!r:.60}."
        ) from error


def import_file(path: Path, own: OwnModel, *, overwrite: bool = False) -> Imported:
    """Install a published file, known by its digest, or a model of one's own.

    path: what `read_model` reads, or a pack: a folder of ONNX files or a zip of one (its detector
    and recogniser are named NAME-detector and NAME-recogniser).
    Raises SettingsError when a model of one's own lacks what its file does not say.
    """
    asked = Import(ModelStore(), own, overwrite)
    card, file = _published(path, asked.store)
    if card is not None:
        return _import_published(card, file, asked)
    if is_zip(path):
        with unpacked(path, asked.store.home) as folder:
            return _import_pack(folder, asked)
    pack = None if is_checkpoint(path) else pack_folder(path)
    if pack is not None:
        return _import_pack(pack, asked)
    return _import_one(path, read_model(path), asked)


def _published(path: Path, store: ModelStore) -> tuple[ModelCard | None, Path]:
    """The card whose file this is, or that lies in this folder as facenet's releases do."""
    if os.path.isdir(path):
        files = sorted(filter(os.path.isfile, path.glob("*.pb")))[:GRAPHS_IN_FOLDER]
    else:
        files = [path] if os.path.isfile(path) else []
    found = ((recognised(file, store.home), file) for file in files)
    return next(((card, file) for card, file in found if card is not None), (None, path))


def _import_published(card: ModelCard, file: Path, asked: Import) -> Imported:
    """The published model, or under a name of one's own a model that is fed as it is."""
    own, store = asked.own, asked.store
    _check_kind(own.kind, card.kind, file, card.title)
    if own.name in (None, card.name, *card.aliases):
        if own.told(*FED, *SEEN):
            raise SettingsError(
                f"{file.name[:100]} is the published model {card.name}, whose card says how it is "
                "fed. To feed it in another way, import it under a name of your own with --name."
            )
        store.pull(card, given=file)
        return Imported((card,))
    disk.make_folder(store.home)
    with (
        disk.storage_errors(store.home),
        tempfile.TemporaryDirectory(prefix="unpacking-", dir=store.home) as room,
    ):
        copy = Path(room) / Path(card.source.member or file.name).name
        sources.take(card, file, copy)
        found = replace(
            read_model(copy),
            title=card.title,
            defaults=asdict(card.preprocess) if card.preprocess else {},
            assumed=(),
            licence=card.licence,
            training_data=card.training_data,
        )
        return _import_one(file, found, asked)


def _import_pack(folder: Path, asked: Import) -> Imported:
    """The detector and the recogniser of a pack, or the one of the kind that is asked for.

    What is said of preprocessing concerns the recogniser, mean and scale the detector.
    """
    models, lines = read_folder(folder)
    own = asked.own
    models = [found for found in models if own.kind in (None, found.kind)]
    if not models:
        raise ModelFileError(
            f"{folder.name[:100]} holds no {own.kind}; found: {'; '.join(lines)[:600]}."
        )
    if own.name:
        models = [replace(m, name=f"{own.name}-{str(m.name).rpartition('-')[2]}") for m in models]
    cards: list[ModelCard] = []
    for found in models:
        fields = FED if found.kind == "embedder" else ("mean", "scale")
        one = _import_one(
            folder, found, replace(asked, own=OwnModel(kind=own.kind, **own.told(*fields)))
        )
        cards += one.cards
        lines += one.lines
    return Imported(tuple(cards), tuple(lines))


def _import_one(path: Path, found: Found, asked: Import) -> Imported:
    """Import one model with what it tells itself and what the user says."""
    _check_found(found, asked.own, path)
    if found.kind == "detector":
        found, preprocess, notes, supposed = _detector(found, asked.own, path)
    else:
        found, preprocess, notes, supposed = _embedder(found, asked.own, path)
    name = asked.own.name or str(found.name)
    card = import_model(
        found,
        name=name,
        preprocess=preprocess,
        kind=found.kind,
        store=asked.store,
        overwrite=asked.overwrite,
        notes=notes,
    )
    return Imported((card,), _supposed_lines(name, supposed))


def _check_found(found: Found, own: OwnModel, path: Path) -> None:
    """Raises ModelFileError unless what was found is of the kind that is asked for."""
    if not found.known and own.kind == "detector":
        raise ModelFileError(
            f"{path.name[:100]} is not supported as a detector: it is {found.title}, which fits no "
            f"decoder. Known are {KNOWN_FORMS}."
        )
    _check_kind(own.kind, found.kind, path, found.title)
    if found.known:
        return
    try:
        check_ports(next(iter(found.graphs(0).values())), path.name)
    except ModelFileError as error:
        raise ModelFileError(
            f"{error} As a detector it fits no decoder either: known are {KNOWN_FORMS}."
        ) from error


def _check_kind(asked: str | None, found: str, path: Path, title: str) -> None:
    if asked not in (None, found):
        raise ModelFileError(
            f"{path.name[:100]} should be a model of the kind {asked}, as --kind says; it is of "
            f"the kind {found}: {title}. Leave --kind out, or give another file."
        )


Settled = tuple[Found, Preprocess | None, str, dict[str, Any]]
"""What is imported, how it is fed, notes for its card, and what was assumed."""


def _embedder(found: Found, own: OwnModel, path: Path) -> Settled:
    given = own.told("mean", "scale")
    if given:
        raise SettingsError(
            f"--{' and --'.join(given)} is for detectors, and {path.name[:100]} is an embedder. "
            f"Say how it is standardised with --standardise {CHOICES['standardise']}."
        )
    told = own.told(*FED)
    values = {**found.defaults, **told}
    size = values.get("width") and values.get("height")
    have = {"name": own.name or found.name, "size": size or None, **values}
    _ask([key for key in CHOICES if have.get(key) is None], found, path)
    preprocess = Preprocess(**{"margin": 0, "color": COLORS[0], **values})
    said = {key: value for key, value in asdict(preprocess).items() if key in told}
    supposed = {
        key: value
        for key, value in asdict(preprocess).items()
        if key not in told
        and (key in found.assumed or key not in found.defaults)
        and (key != "margin" or preprocess.crop != "similarity")
    }
    return found, preprocess, _notes(found.title, said, supposed), supposed


def _detector(found: Found, own: OwnModel, path: Path) -> Settled:
    told = own.told(*SEEN)
    unfit = {**own.told("crop", "margin"), **(told if found.feeding is None else {})}
    if unfit:
        flags = ["size" if key in ("width", "height") else key for key in unfit]
        raise SettingsError(
            f"--{' and --'.join(dict.fromkeys(flags))} says nothing of {path.name[:100]}, which is "
            f"{found.title}. Leave it out."
        )
    _ask([] if own.name or found.name else ["name"], found, path)
    if found.feeding is None:
        return found, None, found.title, {}
    fed = replace(found, feeding=_feeding(found.feeding, told))
    said = {key: value for key, value in told.items() if key not in ("width", "height")}
    return fed, None, f"{_notes(found.title, said, {})} Fed as {fed.feeding}.", {}


def _feeding(usual: Feeding, told: Mapping[str, Any]) -> Feeding:
    """How a detector is fed: as the user says, else as its graph does."""
    mean, scale = usual.mean, usual.scale
    if "standardise" in told:
        if told["standardise"] not in FEEDINGS or "mean" in told or "scale" in told:
            raise SettingsError(
                f"A detector is standardised with --standardise {'|'.join(FEEDINGS)}, or else with "
                "--mean and --scale. Give one of these."
            )
        mean, scale = ((value,) for value in FEEDINGS[told["standardise"]])
    color = told.get("color", usual.color)
    if color not in COLORS:
        raise SettingsError(f"color should be one of {', '.join(COLORS)}; got {color[:40]!r}.")
    size = (told["width"], told["height"]) if "width" in told else None
    return Feeding(told.get("mean", mean), told.get("scale", scale), color, size)


def _ask(missing: Sequence[str], found: Found, path: Path) -> None:
    """Raises SettingsError with the flags that are missing, and what may be said with them."""
    if not missing:
        return
    flags = ", ".join(f"--{key} {CHOICES[key]}" for key in missing)
    more = ""
    if found.kind == "embedder" and not found.known:
        more = f" Where it is so, add --color {COLORS[1]} and --margin PIXELS."
    raise SettingsError(
        f"{path} is none of the published files, so facenet cannot know how it was trained. "
        f"It is {found.title}. Say it with {flags}.{more}"
    )


def _notes(title: str, said: Mapping[str, Any], supposed: Mapping[str, Any]) -> str:
    """What was found, said and assumed, for the card."""
    parts = [f"{title[:1].upper()}{title[1:]}."]
    for start, values in (("Told at the import", said), ("Assumed at the import", supposed)):
        if values:
            parts.append(f"{start}: {_listed(values)}.")
    return " ".join(parts)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {','.join(f'{v:g}' for v in value) if isinstance(value, tuple) else value}"
        for key, value in values.items()
    )


def _supposed_lines(name: str, supposed: Mapping[str, Any]) -> tuple[str, ...]:
    """The line that says what was assumed, and which flags correct it."""
    if not supposed:
        return ()
    flags = " ".join(f"--{key} {value}" for key, value in supposed.items())
    return (
        f"{name}: assumed {flags}, as is usual for such a file, which does not say it. Where that "
        "is wrong, import it again with the right flags and --overwrite.",
    )
