"""Importing a model from this machine: a published file, or a model of one's own.

A model of one's own has to become ONNX: an embedder one graph with one input (faces, N x 3 x H x W)
and one output (vectors, N x D), a detector an MTCNN, a YuNet or one of InsightFace's kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError, ModelFileError, SettingsError
from facenet.models import disk
from facenet.models.card import (
    KINDS,
    Golden,
    Licence,
    ModelCard,
    ModelFile,
    Preprocess,
    check_name,
)
from facenet.models.catalog import CARD, catalog, published
from facenet.models.convert.front import channels_first, fed
from facenet.models.convert.insightface import KNOWN, KNOWN_FORMS
from facenet.models.engine import Engine, EngineSettings, golden_input, open_engine, relative_error
from facenet.models.plainonnx import check_embedder, check_graph
from facenet.models.recognising import INSIGHTFACE, Fits, Found, read_model, require_file
from facenet.models.sources import holds
from facenet.models.store import ModelStore

DETECTOR_INPUT = (3, 128, 128)
"""Known input of a detector that takes pictures of any size."""

DETECTOR_VALUES = 20_000
"""Most values of a detector's known answer that a card holds."""

ROWS_AGREE = 1e-4
"""Largest relative difference of a vector that is computed alone and among others."""

LICENCE = Licence("not stated", "not stated", None, "Ask the publisher of the file.")
LICENCES = dict.fromkeys(KNOWN, INSIGHTFACE)
"""SHA-256 of files whose licence is known: those of InsightFace's packs."""


def recognised(file: Path, home: Path | None = None) -> ModelCard | None:
    """The card whose published source file this is, by SHA-256; `ModelStore.pull` installs it.

    file: the source file itself, or a zip, wheel or sdist that holds it. Raises ModelFileError
    when there is no such file.
    """
    require_file(file)
    published_files = (
        (card, source)
        for card in catalog(home).values()
        for source in (card.source, *card.source.alternatives)
        if source.type != "file"
    )
    digest = disk.sha256_of(file)
    return next((card for card, source in published_files if holds(file, source, digest)), None)


def import_model(
    file: Path | Found,
    *,
    name: str,
    preprocess: Preprocess | None,
    kind: str = "embedder",
    store: ModelStore | None = None,
    overwrite: bool = False,
    notes: str | None = None,
) -> ModelCard:
    """Take a model into FACENET_HOME under a name of one's own, with a card.

    file: anything `read_model` reads, or what it gave. preprocess: how an embedder was trained,
    None for a detector. kind: "embedder" or "detector". overwrite: replace an imported model of
    this name. notes: for the card, by default what was found.
    Raises SettingsError for a name that is taken, ModelFileError for a file that is no such model,
    MissingExtraError for Keras without h5py, StorageError when it cannot be written.
    """
    store = store or ModelStore()
    _check_request(name, kind)
    found = read_model(file) if isinstance(file, Path) else file
    graphs = _graphs(found, name, kind, preprocess)
    folder = store.home / "models" / name
    with store.locked(name):
        if (folder / CARD).exists() and not overwrite:
            raise SettingsError(
                f"A model named {name} was imported before. Choose another name, or replace it "
                "with --overwrite."
            )
        made = {stem: folder / f"{stem}.onnx.new" for stem in graphs}
        try:
            for stem, path in made.items():
                disk.write_new(path, graphs[stem])
            golden = {stem: _measure(path, found, preprocess) for stem, path in made.items()}
            card = replace(
                _card(name, preprocess, graphs, found, golden), notes=notes or found.title
            )
            store.put(card, {f"{stem}.onnx": path for stem, path in made.items()})
            disk.write_text(folder / CARD, json.dumps(card.to_dict(), indent=1))
        finally:
            for path in made.values():
                disk.remove(path)
            with suppress(OSError):
                folder.rmdir()  # goes only when nothing came of it
    return card


def _check_request(name: str, kind: str) -> None:
    check_name(name)
    if kind not in KINDS:
        raise SettingsError(
            f"Only models of the kind {' or '.join(KINDS)} can be imported; got {kind!r}."
        )
    taken = {n.lower(): c.name for c in published().values() for n in (c.name, *c.aliases)}
    if name.lower() in taken:
        raise SettingsError(
            f"{name} is a name of the published model {taken[name.lower()]}. Choose another name."
        )


def _graphs(found: Found, name: str, kind: str, preprocess: Preprocess | None) -> dict[str, bytes]:
    """ONNX bytes by file name without ending, checked. Raises ModelFileError, SettingsError."""
    origin = found.source.origin
    if found.kind != kind:
        raise ModelFileError(f"{origin} should be a model of the kind {kind}; it is {found.title}.")
    if (preprocess is None) != (kind == "detector"):
        raise SettingsError("An embedder needs its preprocessing, and a detector has none.")
    made = found.graphs(preprocess.width if preprocess else 0)
    for data in made.values():
        check_graph(data, origin)
    if preprocess is not None:
        made = {stem: channels_first(data) for stem, data in made.items()}
        for data in made.values():
            check_embedder(data, origin, preprocess)
    elif found.feeding is not None:
        made = {stem: fed(data, found.feeding, origin) for stem, data in made.items()}
    return {stem or name: data for stem, data in made.items()}


def _measure(path: Path, found: Found, preprocess: Preprocess | None) -> Golden:
    """The answer of ONNX Runtime to the known input. Raises ModelFileError when there is none."""
    name = found.source.origin
    try:
        engine = open_engine(path, EngineSettings(engine="onnxruntime", device="cpu"))
        return (
            _measure_detector(engine, name, found.fits)
            if preprocess is None
            else _measure_embedder(engine, name, preprocess)
        )
    except EngineError as error:
        raise ModelFileError(f"{name} does not run: {error}") from error


def _measure_detector(engine: Engine, name: str, fits: Fits | None) -> Golden:
    """Every output of a detector, or of a large one those of its smallest tables.

    fits: tells whether a decoder can read them; None: they need no decoder of their own.
    """
    sides = next(iter(engine.inputs.values()))[1:]
    shape = (1, *(side or free for side, free in zip(sides, DETECTOR_INPUT, strict=True)))
    answers = engine.run({next(iter(engine.inputs)): golden_input(shape)})
    if not all(np.all(np.isfinite(answer)) for answer in answers.values()):
        raise ModelFileError(f"{name} should give finite float32 values; it does not.")
    if fits and not fits([a.shape for a in answers.values()], (shape[3], shape[2])):
        gave = ", ".join(" x ".join(map(str, a.shape)) for a in answers.values())
        raise ModelFileError(
            f"{name} is not supported: for a picture of {shape[3]}x{shape[2]} it gives "
            f"{gave[:200]}, which fits no decoder. Known are {KNOWN_FORMS}."
        )
    kept: dict[str, tuple[float, ...]] = {}
    left = DETECTOR_VALUES
    for output, answer in sorted(answers.items(), key=lambda pair: pair[1].size):
        left -= answer.size
        if left >= 0 or not kept:
            kept[output] = _rounded(answer)
    return Golden(shape, kept)


def _measure_embedder(engine: Engine, name: str, preprocess: Preprocess) -> Golden:
    """The vectors of an embedder, which must be such."""
    sides = (3, preprocess.height, preprocess.width)
    batch = next(iter(engine.inputs.values()))[0]
    shape = (batch or 1, *sides)
    output, answer = _run(engine, golden_input(shape))
    if answer.ndim != 2 or len(answer) != shape[0] or answer.shape[1] < 2:
        raise ModelFileError(
            f"{name} should give N x D values for N faces; for {shape[0]} it gives "
            f"{' x '.join(map(str, answer.shape)) or 'a single value'}."
        )
    if answer.dtype != np.float32 or not np.all(np.isfinite(answer)):
        raise ModelFileError(f"{name} should give finite float32 values; it does not.")
    if batch is None:
        _check_rows(engine, name, sides)
    return Golden(shape, {output: _rounded(answer)})


def _rounded(answer: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in answer.ravel())


def _run(engine: Engine, images: NDArray[np.float32]) -> tuple[str, NDArray[np.float32]]:
    answers = engine.run({next(iter(engine.inputs)): images})
    return next(iter(answers.items()))


def _check_rows(engine: Engine, name: str, sides: tuple[int, int, int]) -> None:
    """With a free number of faces, a face's vector must not depend on the others."""
    images = golden_input((3, *sides))
    together = _run(engine, images)[1]
    alone = np.concatenate([_run(engine, images[row : row + 1])[1] for row in range(3)])
    if relative_error(together, alone) > ROWS_AGREE:
        raise ModelFileError(
            f"{name} says it takes any number of faces, but a face's values depend on the others. "
            "Export it again in inference mode, or for one face at a time."
        )


def _card(
    name: str,
    preprocess: Preprocess | None,
    graphs: Mapping[str, bytes],
    found: Found,
    golden: Mapping[str, Golden],
) -> ModelCard:
    source, dimension = found.source, None
    if preprocess is not None:
        (answer,) = golden.values()
        (values,) = answer.outputs.values()
        dimension = len(values) // answer.shape[0]
    return ModelCard(
        name=name,
        kind=found.kind,
        title=f"imported from {source.origin}",
        source=source,
        files=tuple(
            ModelFile(f"{stem}.onnx", hashlib.sha256(data).hexdigest(), len(data))
            for stem, data in graphs.items()
        ),
        licence=found.licence or LICENCES.get(source.sha256, LICENCE),
        training_data=found.training_data or "not stated",
        preprocess=preprocess,
        dimension=dimension,
        golden=golden,
        family=found.family,
    )
