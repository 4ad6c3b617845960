"""What a file or folder of this machine holds, seen from its contents, and its ONNX graphs.

Every form is told by what is inside or beside it: TensorFlow checkpoints and frozen graphs, Keras,
state dicts of facenet-pytorch, facenet's files of MTCNN, networks of MXNet, ONNX. Where the form
says how the model was trained, that is told too; what it cannot know is left to the user.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from facenet.errors import ModelFileError, StorageError
from facenet.models.card import Licence, Source
from facenet.models.convert.front import Feeding
from facenet.models.plainonnx import check_graph, picture_size

MAX_BYTES = 2 << 30
"""Most bytes of a file: a Protocol Buffers message ends at 2 GiB."""

MTCNN = ("pnet", "rnet", "onet")
"""The files of an MTCNN, without their endings."""

FACENET = {"width": 160, "height": 160, "color": "rgb"}
"""The picture of facenet's own models; crop and standardisation changed over the years."""

FACENET_PYTORCH = {
    **FACENET,
    "crop": "margin_output",
    "standardise": "fixed",
    "margin": 0,
}
"""How facenet-pytorch crops (its own MTCNN with image_size 160, margin 0) and standardises."""


Fits = Callable[[Iterable[tuple[int, ...]], tuple[int, int]], bool]
"""Shapes of outputs, and width and height of the picture -> whether a decoder can read them."""

INSIGHTFACE = Licence("MIT", "InsightFace: non-commercial research only", commercial=False)
"""The licence of InsightFace's packs."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A model that was recognised.

    kind: "embedder" or "detector". title: what it is, in words. graphs: side of the picture in
    pixels -> ONNX bytes by file name without ending; "" is the model's own name. defaults: fields
    of `Preprocess` that the form tells. name: one to suggest, or None. assumed: those of the
    defaults that are usual for the form, and not told by it. known: whether the form is known at
    all, and it is not just any graph. feeding: how a detector of InsightFace's kind was trained
    to be fed. family, fits: of a detector, the family on its card, and whether outputs of these
    shapes can be read for a picture of this width and height. licence, training_data: None where
    they are not known.
    """

    kind: str
    title: str
    source: Source
    graphs: Callable[[int], Mapping[str, bytes]]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    assumed: tuple[str, ...] = ()
    known: bool = True
    feeding: Feeding | None = None
    family: str | None = None
    fits: Fits | None = None
    licence: Licence | None = None
    training_data: str | None = None


def read_model(path: Path) -> Found:
    """What a file, a folder, or the prefix of a checkpoint holds.

    Raises ModelFileError when it is no model that facenet can run, MissingExtraError for Keras
    without h5py, StorageError when it cannot be read.
    """
    from facenet.models.convert.checkpoint_files import is_checkpoint
    from facenet.models.convert.mxnet import find_pair

    if is_checkpoint(path):
        return _checkpoint(path)
    if not os.path.isdir(path):
        require_file(path)
    elif (parts := _mtcnn_files(path)) is not None:
        return _mtcnn(path, parts)
    with _named(path):
        pair = find_pair(path)
    if pair is not None:
        return _mxnet(*pair)
    if os.path.isdir(path):
        raise ModelFileError(
            f"{str(path)[:200]} should hold a model: a TensorFlow checkpoint, the three files of "
            "an MTCNN (.pt or .npy), a network of MXNet or ONNX files. It holds none; give the "
            "file itself."
        )
    return _file(path)


def read_folder(folder: Path) -> tuple[list[Found], list[str]]:
    """The detector and the recogniser of a folder of ONNX files, and a line about each file.

    Raises ModelFileError when there is neither, or for what `check_graph` refuses.
    """
    from facenet.models.convert.insightface import PACKS, read_pack

    pack = read_pack(folder)
    named = (("detector", pack.detector), ("recogniser", pack.recogniser))
    name = folder.resolve().name
    found = [
        replace(read_model(file.path), name=f"{name}-{role}")
        for role, file in named
        if file is not None
    ]
    if name in PACKS:
        found = [replace(model, licence=INSIGHTFACE) for model in found]
    return found, pack.describe()


def require_file(file: Path) -> None:
    """Raises ModelFileError when there is no such file."""
    if not os.path.isfile(file):
        raise ModelFileError(f"{file} should be a model file; there is no such file.")


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{file} should be an ONNX file of at most 2 GiB; it is larger.")
        return file.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read {file}: {error.strerror or error}.") from error


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the name of a file in front of what a reader says of its bytes."""
    try:
        yield
    except ModelFileError as error:
        raise ModelFileError(f"{path.name[:100]}: {str(error).rstrip('.')}.") from error


def _source(file: Path, parts: Iterable[bytes], convert: str | None = None) -> Source:
    """The source of one file, or of several, one behind the other."""
    digest, size = hashlib.sha256(), 0
    for data in parts:
        digest.update(data)
        size += len(data)
    return Source("file", digest.hexdigest(), size, file.name, convert=convert)


def _checkpoint(path: Path) -> Found:
    """facenet's networks; the digest is that of the index, which holds the tensors' checksums."""
    from facenet.models.convert.facenet_checkpoint import convert_checkpoint, inspect_checkpoint

    with _named(path):
        contents = inspect_checkpoint(path)
    index = contents.prefix.with_name(f"{contents.prefix.name}.index")
    people = (
        "no class layer" if contents.classes is None else f"a class layer of {contents.classes}"
    )

    def graphs(side: int) -> dict[str, bytes]:
        with _named(path):
            return {"": convert_checkpoint(contents.prefix, size=side)}

    title = f"TensorFlow checkpoint of {contents.network}, {contents.dimension} values, {people}"
    source = _source(contents.prefix, [_read(index)], "checkpoint")
    return Found("embedder", title, source, graphs, FACENET)


def _file(file: Path) -> Found:
    from facenet.models.convert.keras import SIGNATURE, convert_keras
    from facenet.models.convert.numpyfile import MAGIC

    data = _read(file)
    if data.startswith(SIGNATURE):
        with _named(file):
            graph = convert_keras(data)
        source = _source(file, [data], "keras")
        title = "Inception-ResNet-v1 of Keras"
        return Found("embedder", title, source, lambda _: {"": graph}, FACENET)
    if file.suffix.lower() == ".pb":
        return _frozen(file, data)
    if file.suffix.lower() in (".pt", ".pth"):
        return _torch(file, data)
    if data.startswith(MAGIC):
        from facenet.models.convert.mtcnn import read_mtcnn

        with _named(file):
            net, _ = read_mtcnn(data)
        raise _one_part(file, net)
    return _onnx(file, data)


def _frozen(file: Path, data: bytes) -> Found:
    from facenet.models.convert.tensorflow import convert_frozen_graph

    def graphs(side: int) -> dict[str, bytes]:
        with _named(file):
            return {"": convert_frozen_graph(data, size=side)}

    source = _source(file, [data], "tensorflow")
    return Found("embedder", "a frozen graph of TensorFlow", source, graphs, FACENET)


def _torch(file: Path, data: bytes) -> Found:
    from facenet.models.convert import facenet_pytorch
    from facenet.models.convert.inception_resnet_v1 import inception_resnet_v1
    from facenet.models.convert.mtcnn import which_mtcnn
    from facenet.models.convert.torchfile import read_state_dict

    with _named(file):
        state = read_state_dict(data)
        if (net := which_mtcnn(state)) is not None:
            raise _one_part(file, net)
        if not facenet_pytorch.is_facenet_pytorch(state):
            first = next(iter(state), "nothing")[:80]
            raise ModelFileError(
                f"expected a state dict of facenet-pytorch's InceptionResnetV1, but its first "
                f"tensor is {first!r}; export the network as ONNX and import that"
            )
        network = facenet_pytorch.read_network(state)
        graph = inception_resnet_v1(network.weights)
    people = "" if network.classes is None else f", class layer of {network.classes} left out"
    title = (
        f"facenet-pytorch's InceptionResnetV1, {network.dimension} values{people}; standardised "
        "and, unless told otherwise, cropped as facenet-pytorch does"
    )
    source = _source(file, [data], "facenet_pytorch")
    return Found(
        "embedder",
        title,
        source,
        lambda _: {"": graph},
        FACENET_PYTORCH,
        name=file.stem,
        assumed=("crop", "margin"),
    )


def _one_part(file: Path, net: str) -> ModelFileError:
    return ModelFileError(
        f"{file.name[:100]} is one part of MTCNN, its {net[0].upper()}-net. Put the files of "
        "pnet, rnet and onet (facenet: det1 to det3) into one folder, and give the folder."
    )


def _mtcnn_files(folder: Path) -> list[Path] | None:
    """Three .pt or three .npy files of a folder, or None."""
    for ending in (".pt", ".npy"):
        files = sorted(path for path in folder.glob(f"*{ending}") if path.is_file())
        if len(files) == len(MTCNN):
            return files
    return None


def _mtcnn(folder: Path, files: list[Path]) -> Found:
    from facenet.models.convert.mtcnn import convert_mtcnn

    graphs: dict[str, bytes] = {}
    read: dict[str, bytes] = {}
    for file in files:
        data = _read(file)
        with _named(file):
            net, graph = convert_mtcnn(data)
        if net in graphs:
            raise ModelFileError(
                f"{str(folder)[:200]} should hold pnet, rnet and onet of one MTCNN; it holds two "
                f"of {net}. Take one of them away."
            )
        graphs[net], read[net] = graph, data
    source = _source(folder.resolve(), [read[net] for net in MTCNN], "mtcnn")
    title = "MTCNN, three cascaded networks with five landmarks"
    return Found("detector", title, source, lambda _: graphs, family="mtcnn")


def _mxnet(symbol: Path, params: Path) -> Found:
    from facenet.models.convert.insightface import SIDE
    from facenet.models.convert.mxnet import convert_mxnet

    parts = _read(symbol), _read(params)

    def graphs(side: int) -> dict[str, bytes]:
        with _named(params):
            return {"": convert_mxnet(*parts, side=side)}

    known = _onnx(params, graphs(SIDE)[""])
    return replace(known, source=_source(params, parts, "mxnet"), graphs=graphs)


def _yunet(file: Path, source: Source, data: bytes) -> Found:
    """It is fed as it was trained, whatever the file: BGR from 0 to 255."""
    from facenet.models.convert.yunet import TITLE, fits_yunet

    return Found(
        "detector",
        TITLE,
        source,
        lambda _: {"": data},
        name=file.stem,
        family="yunet",
        fits=fits_yunet,
    )


def _onnx(file: Path, data: bytes) -> Found:
    """An ONNX file: YuNet, an ArcFace-like embedder, a detector of InsightFace, or another."""
    from facenet.models.convert.insightface import NORMALISED, SIDE, fits_form, ports, recognise
    from facenet.models.convert.yunet import is_yunet

    check_graph(data, file.name)
    source = _source(file, [data])
    if is_yunet(data):
        return _yunet(file, source, data)
    known = recognise(data)
    if known is None:
        size = picture_size(data)
        sides = {} if size is None else {"width": size[0], "height": size[1]}
        title = f"a graph with {ports(data)}"
        return Found("embedder", title, source, lambda _: {"": data}, sides, known=False)
    if not known.used:
        raise ModelFileError(
            f"{file.name[:100]} is a model for {known.title} of InsightFace's packs, which facenet "
            "does not use. Give a detector or a recogniser."
        )
    made = Found(
        known.role, known.title, source, lambda _: {"": data}, name=known.name or file.stem
    )
    if known.role == "detector":
        inside = known.standardise == NORMALISED
        feeding = Feeding((0.0,), (1.0,)) if inside else Feeding()
        return replace(made, feeding=feeding, family="scrfd", fits=fits_form)
    told = {"width": SIDE, "height": SIDE, "margin": 0, "color": "rgb", "crop": "similarity"}
    assumed = ("crop", "color", *(() if known.standardise == NORMALISED else ("standardise",)))
    return replace(
        made,
        defaults={**told, "standardise": known.standardise},
        assumed=() if known.name else assumed,
    )
