"""Importing a model from a file of this machine: a published one, or an embedder of one's own.

A file of one's own has to be one ONNX graph with one input (faces, N x 3 x H x W) and one output
(vectors, N x D), or an Inception-ResNet-v1 saved by Keras, which becomes such a graph. What could
make a runtime read other files or run other code is refused before a runtime sees the file.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError, ModelFileError, SettingsError, StorageError
from facenet.models import disk
from facenet.models.card import (
    Golden,
    Licence,
    ModelCard,
    ModelFile,
    Preprocess,
    Source,
    check_name,
)
from facenet.models.catalog import CARD, catalog, published
from facenet.models.engine import Engine, EngineSettings, golden_input, open_engine, relative_error
from facenet.models.sources import DAMAGED_ARCHIVE
from facenet.models.store import ModelStore

DOMAINS = ("", "ai.onnx")
"""Names of the default operator set; other sets are code that a runtime would have to load."""

FLOAT = 1
"""`onnx.TensorProto.FLOAT`."""

MAX_BYTES = 2 << 30
"""Most bytes of an ONNX file: a Protocol Buffers message ends at 2 GiB."""

ROWS_AGREE = 1e-4
"""Largest relative difference of a vector that is computed alone and among others."""

LICENCE = Licence("not stated", "not stated", None, "Ask the publisher of the file.")
INSIGHTFACE = Licence("MIT", "InsightFace: non-commercial research only", commercial=False)
LICENCES = {
    "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43": INSIGHTFACE,
    "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f": INSIGHTFACE,
}
"""SHA-256 of files whose licence is known (`w600k_r50.onnx`, `w600k_mbf.onnx`)."""


def recognised(file: Path, home: Path | None = None) -> ModelCard | None:
    """The card whose published source file this is, by SHA-256; `ModelStore.pull` installs it.

    file: the source file itself, or a zip, wheel or sdist that holds it. Raises ModelFileError
    when there is no such file.
    """
    _require_file(file)
    cards = [card for card in catalog(home).values() if card.source.type != "file"]
    digest = disk.sha256_of(file)
    for card in cards:
        if digest in (card.source.sha256, card.source.archive):
            return card
    if not zipfile.is_zipfile(file):
        return None
    return next((card for card in cards if _holds(file, card.source)), None)


def import_model(
    file: Path,
    *,
    name: str,
    preprocess: Preprocess,
    kind: str = "embedder",
    store: ModelStore | None = None,
    overwrite: bool = False,
) -> ModelCard:
    """Take an embedder into FACENET_HOME under a name of one's own, with a card.

    file: ONNX, or Keras (.h5) with the layers of facenet's Inception-ResNet-v1. preprocess: how
    the model was trained, which the file does not say. overwrite: replace an imported model of
    this name. Raises SettingsError for a name that is taken, ModelFileError for a file that is no
    such model, MissingExtraError for Keras without h5py, StorageError when it cannot be written.
    """
    store = store or ModelStore()
    _check_request(name, kind)
    data, source = _graph_of(file)
    _check_graph(data, file.name, preprocess)
    folder = store.home / "models" / name
    made = folder / f"{name}.onnx.new"
    with store.locked(name):
        if (folder / CARD).exists() and not overwrite:
            raise SettingsError(
                f"A model named {name} was imported before. Choose another name, or replace it "
                "with --overwrite."
            )
        try:
            disk.write_new(made, data)
            card = _card(name, preprocess, data, source, _measure(made, file.name, preprocess))
            store.put(card, {card.files[0].path: made})
            disk.write_text(folder / CARD, json.dumps(card.to_dict(), indent=1))
        finally:
            disk.remove(made)
            with suppress(OSError):
                folder.rmdir()  # goes only when nothing came of it
    return card


def _check_request(name: str, kind: str) -> None:
    check_name(name)
    if kind != "embedder":
        raise SettingsError(f"Only embedders can be imported; got the kind {kind!r}.")
    taken = {n.lower(): c.name for c in published().values() for n in (c.name, *c.aliases)}
    if name.lower() in taken:
        raise SettingsError(
            f"{name} is a name of the published model {taken[name.lower()]}. Choose another name."
        )


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise ModelFileError(f"{file} should be a model file; there is no such file.")


def _read(file: Path) -> bytes:
    _require_file(file)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{file} should be an ONNX file of at most 2 GiB; it is larger.")
        return file.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read {file}: {error.strerror or error}.") from error


def _graph_of(file: Path) -> tuple[bytes, Source]:
    """ONNX bytes, and the file they come from. Raises ModelFileError, MissingExtraError."""
    from facenet.models.convert.keras import SIGNATURE, convert_keras

    data = _read(file)
    digest = hashlib.sha256(data).hexdigest()
    if not data.startswith(SIGNATURE):
        return data, Source("file", digest, len(data), file.name)
    try:
        graph = convert_keras(data)
    except ModelFileError as error:
        raise ModelFileError(f"{file.name}: {error}") from error
    return graph, Source("file", digest, len(data), file.name, convert="keras")


def _holds(archive: Path, source: Source) -> bool:
    """Whether the archive's member of the right name and size is the source file."""
    if source.member is None:
        return False
    try:
        with zipfile.ZipFile(archive) as zipped:
            info = zipped.getinfo(source.member)
            if info.file_size != source.bytes:
                return False
            with zipped.open(info) as stream:
                digest = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]
    except (KeyError, *DAMAGED_ARCHIVE, OSError):
        return False
    return digest.hexdigest() == source.sha256


def _check_graph(data: bytes, name: str, preprocess: Preprocess) -> None:
    """Raises ModelFileError for anything but a self-contained embedder in plain ONNX."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelFileError(f"{name} should be an ONNX file; it is none.") from error
    if not (model.ir_version and model.graph.node):
        raise ModelFileError(f"{name} should be an ONNX file; there is no graph in it.")
    if model.functions:
        raise ModelFileError(f"{name} defines functions of its own, which is not supported.")
    for part in _parts(model):
        _check_part(part, name)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{name} is not valid ONNX: {error}") from error
    _check_ports(model.graph, name, preprocess)


def _parts(message: Any) -> Iterator[Any]:
    """A Protocol Buffers message and all messages inside it."""
    from google.protobuf.message import Message

    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _parts(inner)


def _check_part(part: Any, name: str) -> None:
    kind = part.DESCRIPTOR.name
    if kind == "TensorProto" and (part.external_data or part.data_location == part.EXTERNAL):
        raise ModelFileError(
            f"{name} keeps the values of {part.name!r} in another file, which is not supported. "
            "Save it again as a single file."
        )
    if kind == "NodeProto" and part.domain not in DOMAINS:
        raise ModelFileError(
            f"{name} uses the operator {part.domain}.{part.op_type}; only the operators of ONNX "
            "itself are supported. Export it again without extensions."
        )


def _check_ports(graph: Any, name: str, preprocess: Preprocess) -> None:
    """One float32 input of N x 3 x H x W, one output."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [port for port in graph.input if port.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelFileError(
            f"{name} should have one input and one output; it has "
            f"{', '.join(port.name for port in inputs) or 'none'} and "
            f"{', '.join(port.name for port in graph.output) or 'none'}."
        )
    tensor = inputs[0].type.tensor_type
    sizes = [side.dim_value or None for side in tensor.shape.dim]
    if tensor.elem_type != FLOAT:
        raise ModelFileError(f"The input of {name} should be float32; it is of another type.")
    _check_sizes(sizes, name, (3, preprocess.height, preprocess.width))


def _check_sizes(sizes: Sequence[int | None], name: str, wanted: tuple[int, int, int]) -> None:
    came = " x ".join("any" if side is None else str(side) for side in sizes) or "a single value"
    if len(sizes) == 4 and sizes[1] != 3 and sizes[3] == 3:
        raise ModelFileError(
            f"{name} takes {came}: channels last (N x H x W x 3) is not supported, because facenet "
            "feeds N x 3 x H x W. Export it again with the channels first."
        )
    fits = len(sizes) == 4 and all(
        got in (None, want) for got, want in zip(sizes[1:], wanted, strict=True)
    )
    if not fits:
        raise ModelFileError(
            f"{name} should take N x {' x '.join(map(str, wanted))}, as its preprocessing says; "
            f"it takes {came}."
        )


def _measure(path: Path, name: str, preprocess: Preprocess) -> Golden:
    """The answer of ONNX Runtime to the known input. Raises ModelFileError when it is no vector."""
    sides = (3, preprocess.height, preprocess.width)
    try:
        engine = open_engine(path, EngineSettings(engine="onnxruntime", device="cpu"))
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
    except EngineError as error:
        raise ModelFileError(f"{name} does not run: {error}") from error
    return Golden(shape, {output: tuple(float(f"{v:.7g}") for v in answer.ravel())})


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
    name: str, preprocess: Preprocess, data: bytes, source: Source, golden: Golden
) -> ModelCard:
    digest = hashlib.sha256(data).hexdigest()
    (values,) = golden.outputs.values()
    return ModelCard(
        name=name,
        kind="embedder",
        title=f"imported from {source.origin}",
        source=source,
        files=(ModelFile(f"{name}.onnx", digest, len(data)),),
        licence=LICENCES.get(source.sha256, LICENCE),
        training_data="not stated",
        preprocess=preprocess,
        dimension=len(values) // golden.shape[0],
        golden={name: golden},
    )
