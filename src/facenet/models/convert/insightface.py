"""What an ONNX file of InsightFace is, seen from its graph, and what a pack of them holds.

A pack (`buffalo_l`, `antelopev2` and so on) is a folder with a detector, a recogniser and models
for landmarks, sex and age, told apart by their inputs and outputs. Nothing is run here.
Source: `model_zoo/{model_zoo,scrfd,retinaface,arcface_onnx,landmark,attribute}.py` and
`app/face_analysis.py` of InsightFace, whose rules these are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from facenet.errors import ModelFileError, StorageError

MAX_BYTES: Final = 2 << 30
"""Most bytes of an ONNX file: a Protocol Buffers message ends at 2 GiB."""
KNOWN: Final = {
    "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43": "w600k_r50",
    "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f": "w600k_mbf",
    "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a": "scrfd_500m_kps",
    "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91": "scrfd_10g_kps",
}
"""SHA-256 of published files -> their names."""
SIDE: Final = 112
"""Sides of the face that a recogniser takes, in pixels."""
DIMENSIONS: Final = range(128, 1025)
"""Lengths of the vectors that a recogniser gives."""
NORMALISED: Final = "none"
"""`Recognised.standardise` of a graph that takes values 0 to 255 and standardises them itself."""
PACKS: Final = ("antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")
"""Names of InsightFace's packs, whose weights are for non-commercial research only."""
KNOWN_FORMS: Final = (
    "MTCNN as three files, YuNet as OpenCV has it, with 12 outputs, and SCRFD or RetinaFace as "
    "InsightFace exports them: one picture, 1 x 3 x H x W, and 6, 9, 10 or 15 outputs, first all "
    "scores (n x 1), then all boxes (n x 4), then all landmarks (n x 10)"
)
"""The forms of detectors, in words."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a number of outputs means. strides: pixels between cells. anchors: answers per cell."""

    strides: tuple[int, ...]
    anchors: int
    landmarks: bool


FORMS: Final = {
    6: Form((8, 16, 32), 2, landmarks=False),
    9: Form((8, 16, 32), 2, landmarks=True),
    10: Form((8, 16, 32, 64, 128), 1, landmarks=False),
    15: Form((8, 16, 32, 64, 128), 1, landmarks=True),
}
"""Number of outputs of a detector -> form: first all scores, then all boxes, then all landmarks."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph: its name and its sides, None for a free one."""

    name: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = " x ".join("any" if side is None else str(side) for side in self.shape[:8])
        return f"{self.name[:40]} ({sides or 'no shape'})"


@dataclass(frozen=True, slots=True)
class Recognised:
    """A graph of InsightFace's kind.

    role: "embedder", "detector", "landmarks" or "attributes"; only the first two are used here.
    title: what it is, in words. name: that of a published file, or None. size: width and height
    of the input, None where it takes any. dimension: values of a vector, of an embedder only.
    standardise: what the input needs, "insightface" ((x - 127.5) / 127.5) of an embedder, "fixed"
    ((x - 127.5) / 128) of a detector, or `NORMALISED` (nothing); None for the others. form: of a
    detector only.
    """

    role: str
    title: str
    name: str | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    size: tuple[int, int] | None
    dimension: int | None = None
    standardise: str | None = None
    form: Form | None = None

    @property
    def used(self) -> bool:
        """Whether facenet runs models of this role."""
        return self.role in ("embedder", "detector")


@dataclass(frozen=True, slots=True)
class PackFile:
    """A file of a pack, with its SHA-256 and size in bytes."""

    path: Path
    sha256: str
    bytes: int
    recognised: Recognised


@dataclass(frozen=True, slots=True)
class Pack:
    """What a folder of ONNX files holds.

    detector, recogniser: the first of each by file name, as InsightFace chooses. others: known
    models that are not used. refused: files of another kind, with one sentence each.
    """

    name: str
    detector: PackFile | None
    recogniser: PackFile | None
    others: tuple[PackFile, ...]
    refused: tuple[tuple[Path, str], ...]

    def describe(self) -> list[str]:
        """One line per file: what it is and whether it is used."""
        lines = []
        for file in (self.detector, self.recogniser, *self.others):
            if file is not None:
                use = "" if file in (self.detector, self.recogniser) else ", not used here"
                lines.append(f"{file.path.name}: {file.recognised.title}{use}")
        return lines + [reason for _, reason in self.refused]


def recognise(data: bytes, *, known: Mapping[str, str] = KNOWN) -> Recognised | None:
    """What an ONNX file is, or None where it is nothing InsightFace's packs hold.

    data: the whole file. known: SHA-256 -> name of published files. See `ports` for what to say of
    an unknown one.
    Raises ModelFileError when the bytes are no ONNX file.
    """
    graph = _graph(data)
    inputs, outputs = _ports(graph)
    name = known.get(hashlib.sha256(data).hexdigest())
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (3, None):
        return None
    if len(outputs) in FORMS:
        return _detector(graph, name, inputs, outputs)
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or inputs[0].shape[2:] not in _SINGLE:
        return None
    return _single(graph, name, inputs, outputs)


def ports(data: bytes) -> str:
    """Inputs and outputs of an ONNX file in words, for a message, at most 500 characters.

    Raises ModelFileError when the bytes are no ONNX file.
    """
    inputs, outputs = _ports(_graph(data))
    return f"the input {_listed(inputs)} and the output {_listed(outputs)}"


def read_pack(folder: Path) -> Pack:
    """What each ONNX file of a folder is; folders inside are not looked at.

    One file at a time is in memory. A file that is unknown or damaged refuses itself, not the
    pack. Raises ModelFileError when there is no ONNX file, or neither detector nor recogniser;
    StorageError when a file cannot be read.
    """
    known: list[PackFile] = []
    refused: list[tuple[Path, str]] = []
    for path in _onnx_files(folder):
        found = _file(path)
        if isinstance(found, str):
            refused.append((path, found))
        else:
            known.append(found)
    detector = _first(known, "detector")
    recogniser = _first(known, "embedder")
    others = tuple(file for file in known if file not in (detector, recogniser))
    pack = Pack(folder.name, detector, recogniser, others, tuple(refused))
    if detector is None and recogniser is None:
        raise ModelFileError(
            f"{str(folder)[:200]} should hold a detector or a recogniser of InsightFace; found: "
            f"{'; '.join(pack.describe())[:600]}. Give the folder of a pack, such as buffalo_l."
        )
    return pack


_SINGLE: Final = ((SIDE, SIDE), (192, 192), (96, 96))
"""Sides of the inputs of recognisers, landmark models and attribute models."""
_UNUSED: Final[Mapping[tuple[int | None, int | None], tuple[str, str]]] = {
    (192, 3309): ("landmarks", "68 landmarks in space"),
    (192, 212): ("landmarks", "106 landmarks"),
    (96, 3): ("attributes", "sex and age"),
}
"""Side of the input and length of the answer -> role and title of models that are not used."""


def _single(
    graph: Any, name: str | None, inputs: tuple[Port, ...], outputs: tuple[Port, ...]
) -> Recognised | None:
    """A model of one output, told by the sides of its input and the length of its answer."""
    side, length = inputs[0].shape[2], outputs[0].shape[1]
    size = (int(side or 0), int(side or 0))
    if side == SIDE:
        if length not in DIMENSIONS:
            return None
        how = NORMALISED if _normalises(graph, inputs[0].name) else "insightface"
        title = f"recogniser, {length} values of a {SIDE}x{SIDE} face"
        return Recognised("embedder", title, name, inputs, outputs, size, length, how)
    role, title = _UNUSED.get((side, length), ("", ""))
    return Recognised(role, title, name, inputs, outputs, size) if role else None


def fits_form(shapes: Iterable[tuple[int, ...]], size: tuple[int, int]) -> bool:
    """Whether the outputs of a detector for pictures of this width and height can be read.

    shapes: of the outputs, such as (cells, 4) or (1, cells, 4), in any order.
    """
    tables = {
        shape[-2:] for shape in shapes if len(shape) == 2 or (shape[0] == len(shape) - 2 == 1)
    }
    form = FORMS.get(len(tables))
    if form is None or any(side % form.strides[-1] for side in size):
        return False
    cells = [(size[0] // s) * (size[1] // s) * form.anchors for s in form.strides]
    widths = (1, 4, 10) if form.landmarks else (1, 4)
    return tables == {(count, width) for count in cells for width in widths}


def _detector(
    graph: Any, name: str | None, inputs: tuple[Port, ...], outputs: tuple[Port, ...]
) -> Recognised | None:
    """A detector, where the lengths of its tables are those of its number of outputs."""
    form = FORMS[len(outputs)]
    levels = len(form.strides)
    for number, output in enumerate(outputs):
        width = output.shape[-1] if output.shape else None
        if width not in (None, (1, 4, 10)[number // levels]):
            return None
    height, wide = inputs[0].shape[2:]
    size = None if height is None or wide is None else (wide, height)
    title = f"detector, {levels} strides, {'with' if form.landmarks else 'without'} landmarks"
    how = NORMALISED if _normalises(graph, inputs[0].name) else "fixed"
    return Recognised("detector", title, name, inputs, outputs, size, standardise=how, form=form)


def _normalises(graph: Any, source: str) -> bool:
    """Whether the graph begins with a subtraction and a multiplication, as MXNet's exports do.

    InsightFace looks for the names of both among the first eight nodes; where the nodes have no
    names, the input itself must go through both.
    """
    names = [node.name for node in graph.node[:8]]
    if any(names):
        return any(n.startswith(("Sub", "_minus")) for n in names) and any(
            n.startswith(("Mul", "_mul")) for n in names
        )
    kinds = []
    for node in graph.node[:2]:
        if source not in node.input:
            break
        kinds.append(node.op_type)
        source = node.output[0] if node.output else ""
    return kinds == ["Sub", "Mul"]


def _graph(data: bytes) -> Any:
    """The graph of an ONNX file; weights that lie in other files are not touched."""
    import onnx
    from google.protobuf.message import DecodeError

    if len(data) > MAX_BYTES:
        raise ModelFileError(
            f"expected an ONNX file of at most 2 GiB, but it has {len(data):,} bytes"
        )
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelFileError(
            "expected an ONNX file, but the bytes are none; the file is damaged or of another kind"
        ) from error
    if not (model.ir_version and model.graph.node):
        raise ModelFileError("expected an ONNX file, but there is no graph in it; get it again")
    return model.graph


def _ports(graph: Any) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs, without the weights that old exports list among them, and outputs."""
    weights = {tensor.name for tensor in graph.initializer}
    return (
        tuple(_port(info) for info in graph.input if info.name not in weights),
        tuple(_port(info) for info in graph.output),
    )


def _port(info: Any) -> Port:
    sides = info.type.tensor_type.shape.dim
    return Port(info.name, tuple(side.dim_value if side.dim_value > 0 else None for side in sides))


def _listed(found: Sequence[Port]) -> str:
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return (", ".join(str(port) for port in found[:4]) or "none") + more


def _onnx_files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".onnx")
        if not files:
            inside = next((path.parent for path in sorted(folder.glob("*/*.onnx"))), None)
            raise ModelFileError(
                f"{str(folder)[:200]} should hold ONNX files, as InsightFace's packs do; there is "
                f"none. {f'Give {inside}.' if inside else 'Unpack the pack and give its folder.'}"
            )
    except OSError as error:
        raise StorageError(
            f"Cannot read the folder {str(folder)[:200]}: {error.strerror or error}."
        ) from error
    return files


def _file(path: Path) -> PackFile | str:
    """What a file is, or a sentence that says why it is not taken."""
    name = path.name[:100]
    try:
        if path.stat().st_size > MAX_BYTES:
            return f"{name}: expected an ONNX file of at most 2 GiB, but it is larger"
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        found = recognise(data)
        if found is None:
            return f"{name}: an unknown graph with {ports(data)}"
    except ModelFileError as error:
        return f"{name}: {error}"
    return PackFile(path, hashlib.sha256(data).hexdigest(), len(data), found)


def _first(files: Sequence[PackFile], role: str) -> PackFile | None:
    return next((file for file in files if file.recognised.role == role), None)
