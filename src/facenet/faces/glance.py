"""The quick look of P-net and R-net in compiled code, faster than a runtime's bfloat16.

Their convolutions are so small that a runtime spends most of its time on moving values to and fro.
`glance.c` takes pixels through all of them row by row, with the matrix units of newer Intel
processors (AMX), and stays in the processor's cache. What it says is a little off, as all bfloat16
is, and so it is only asked which cells and crops are worth an exact look; see `networks`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from facenet.faces.compiled import GLANCE, Find, Try, compiled, tried
from facenet.faces.kernels import Kernels
from facenet.models.engine import Engine, golden_input
from facenet.types import FloatArray

PNET = {
    "conv1.weight": (10, 3, 3, 3), "conv1.bias": (10,), "prelu1.slope": (10, 1, 1),
    "conv2.weight": (16, 10, 3, 3), "conv2.bias": (16,), "prelu2.slope": (16, 1, 1),
    "conv3.weight": (32, 16, 3, 3), "conv3.bias": (32,), "prelu3.slope": (32, 1, 1),
    "heads.weight": (5, 32, 1, 1), "heads.bias": (5,),
}  # fmt: skip
RNET = {
    "conv1.weight": (28, 3, 3, 3), "conv1.bias": (28,), "prelu1.slope": (28, 1, 1),
    "conv2.weight": (48, 28, 3, 3), "conv2.bias": (48,), "prelu2.slope": (48, 1, 1),
    "conv3.weight": (64, 48, 2, 2), "conv3.bias": (64,), "prelu3.slope": (64, 1, 1),
    "dense4.weight": (128, 576), "dense4.bias": (128,), "prelu4.slope": (128,),
    "heads.weight": (5, 128), "heads.bias": (5,),
}  # fmt: skip
NETS = {"pnet": PNET, "rnet": RNET}
"""What the two networks consist of, as a model of MTCNN is written."""
LANES = 16
"""Values of a row of a tile; of bfloat16 there are two in the place of one."""
LINE = 64
"""Bytes of a line of the processor's cache."""
TRIED = (47, 62)
"""Height and width of the level that a glance is compared with P-net in."""
MARGIN = {"pnet": 0.15, "rnet": 0.05}
"""How far below the threshold a quick look may score what the exact one lets pass. O-net lets too
many crops pass for a quick look to be worth its while."""
SHARE = 0.5
"""Of the margin: so far off may the scores be of what a glance is compared in."""
EXACT = 1e-5
"""How far off its answers for windows may be, as those of two runtimes are."""

Weights = Mapping[str, FloatArray]


@runtime_checkable
class Legible(Protocol):
    """An engine that says what it runs."""

    @property
    def graph(self) -> Path | bytes | None:
        """The ONNX file, or its bytes; None where other code for this processor may not do the
        same: on another device, or held to older instructions."""
        ...


class Glance:
    """P-net in compiled code. weights: arrays as in `PNET`. kernels: those that can glance."""

    def __init__(self, weights: Weights, kernels: Kernels) -> None:
        self._kernels, self._exact = kernels, _in_turn(weights)
        self._tiles, self._values = _aligned(_pnet_tiles(weights)), _values(weights)

    def odds(self, levels: FloatArray) -> FloatArray:
        """How surely the cells of levels, float32 (n, 3, h, w), standardised, show a face: the
        logarithm of the odds, float32 (n, r, c)."""
        return self._kernels.glance(levels, self._tiles, self._values)

    def judge(self, windows: FloatArray, sizes: NDArray[np.uint8]) -> dict[str, FloatArray]:
        """P-net's own answers, in float32, for cells: "score" (n,) and "offset" (n, 4).

        windows: what it sees of each, (n, 3, 12, 12). sizes: how many rows and columns of that are
        in the level, (2, n): 12, or 11 where it ends a pixel too early; the rest counts as not
        there.
        """
        said = self._kernels.judge(windows, sizes, self._exact)
        return {"score": _score(said[:, 0]), "offset": said[:, 1:]}


class CropGlance:
    """R-net in compiled code. weights: arrays as in `RNET`. kernels: those that can glance."""

    def __init__(self, weights: Weights, kernels: Kernels) -> None:
        self._kernels = kernels
        self._tiles, self._values = _aligned(_rnet_tiles(weights)), _values(weights)

    def odds(self, crops: FloatArray) -> FloatArray:
        """How surely crops, float32 (n, 3, 24, 24), standardised, show a face: the logarithm of
        the odds, float32 (n,)."""
        return self._kernels.glance_crops(crops, self._tiles, self._values)


@dataclass(frozen=True, slots=True)
class Glances:
    """What looks quickly in the place of P-net and R-net, None where nothing does.

    reason: why not, "" where both are there.
    """

    pnet: Glance | None = None
    rnet: CropGlance | None = None
    reason: str = ""


def glances_of(
    engines: Mapping[str, Engine], *, find: Find = compiled, attempt: Try = tried
) -> Glances:
    """What stands for the engines "pnet" and "rnet" at a quick look.

    It takes a processor with AMX, compiled code that passed its trial, graphs that can be read, and
    answers that agree with the engines'. find: gives the compiled code. attempt: tries its quick
    look, see `compiled.tried`.
    """
    weights = {net: _weights_of(engines[net], shapes) for net, shapes in NETS.items()}
    kernels, reason = _able(weights, find, attempt)
    if kernels is None:
        return Glances(reason=reason)
    pnet, rnet = Glance(weights["pnet"], kernels), CropGlance(weights["rnet"], kernels)
    against = _against_pnet(pnet, engines["pnet"]), _against_rnet(rnet, engines["rnet"])
    return Glances(
        None if against[0] else pnet,
        None if against[1] else rnet,
        "; ".join(filter(None, against)),
    )


def _weights_of(engine: Engine, shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    """The weights of an engine's graph; none where it does not say what it runs, or is another."""
    graph = engine.graph if isinstance(engine, Legible) else None
    weights = weights_in(graph, shapes) if graph is not None else {}
    return weights if {name: array.shape for name, array in weights.items()} == shapes else {}


def _able(weights: Mapping[str, Weights], find: Find, attempt: Try) -> tuple[Kernels | None, str]:
    """Kernels that can glance, or why there are none."""
    if not all(weights.values()):
        return None, "its networks are others, or not to run on all that this processor has"
    here = find()
    if here.kernels is None:
        return None, here.reason
    if not here.kernels.can_glance():
        return None, "this processor has no AMX, or the system does not allow it"
    verdict = attempt(GLANCE)
    return (here.kernels, "") if verdict.ok else (None, f"when it was tried, it {verdict.reason}")


def _score(odds: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def _against_pnet(glance: Glance, engine: Engine) -> str:
    """What P-net says otherwise: of a level nearly the same counts, of windows exactly; "" for
    nothing."""
    level, windows = golden_input((1, 3, *TRIED)), golden_input((17, 3, 12, 12))
    off = _furthest(_score(glance.odds(level)), engine.run({"image": level})["score"])
    if not off <= SHARE * MARGIN["pnet"]:
        return _too_far("P-net", off, SHARE * MARGIN["pnet"])
    whole = np.full((2, len(windows)), windows.shape[2], np.uint8)
    ours, right = glance.judge(windows, whole), engine.run({"image": windows})
    off = max(_furthest(said, right[name].reshape(said.shape)) for name, said in ours.items())
    return "" if off <= EXACT else _too_far("P-net of windows", off, EXACT)


def _against_rnet(glance: CropGlance, engine: Engine) -> str:
    """What R-net says otherwise of crops, nearly; "" for nothing."""
    crops = golden_input((19, 3, 24, 24))
    off = _furthest(_score(glance.odds(crops)), engine.run({"image": crops})["score"])
    return "" if off <= SHARE * MARGIN["rnet"] else _too_far("R-net", off, SHARE * MARGIN["rnet"])


def _furthest(ours: FloatArray, right: FloatArray) -> float:
    """The largest difference; infinite for values that are no numbers."""
    off = float(np.max(np.abs(ours - right)))
    return off if math.isfinite(off) else math.inf


def _too_far(net: str, off: float, most: float) -> str:
    return f"what it says for {net} is off by {off:.2g}; at most {most:.2g} is right"


def log_odds(score: float) -> float:
    """The logarithm of the odds of a score below 1; less than any for 0 and below."""
    return math.log(score / (1 - score)) if score > 0 else -math.inf


def weights_in(
    graph: Path | bytes, shapes: Mapping[str, tuple[int, ...]] = PNET
) -> dict[str, FloatArray]:
    """The arrays of these names in an ONNX file; none where it cannot be read.

    Read by hand: importing `onnx` for it takes a seventh of a second.
    """
    try:
        data = graph if isinstance(graph, bytes) else graph.read_bytes()
        tensors = (
            _tensor(tensor, shapes)
            for number, graph_ in _fields(memoryview(data))
            if number == 7
            for kind, tensor in _fields(graph_)
            if kind == 5
        )
        return {name: array for name, array in tensors if name in shapes}
    except (OSError, ValueError, IndexError, TypeError, struct.error):
        return {}


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the fields of a message of Protocol Buffers."""
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        if key & 7 == 0:
            value, at = _number(message, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _number(message, at)
        else:
            size = {1: 8, 5: 4}.get(key & 7, len(message))
        if size > len(message) - at:
            raise ValueError
        yield key >> 3, message[at : at + size]
        at += size


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError


def _tensor(message: memoryview, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, FloatArray]:
    """Name and values of an `onnx.TensorProto` of floats that are kept as bytes."""
    sides: list[int] = []
    name, kind, data = "", 0, memoryview(b"")
    for number, value in _fields(message):
        if number == 1:
            sides += [value] if isinstance(value, int) else list(_packed(value))
        elif number == 2:
            kind = value
        elif number == 8:
            name = bytes(value).decode()
        elif number == 9:
            data = value
    if name not in shapes or kind != 1:
        return "", np.zeros(0, np.float32)
    return name, np.frombuffer(data, "<f4").reshape(sides)


def _packed(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _number(message, at)
        yield value


def _pnet_tiles(weights: Weights) -> FloatArray:
    """The kernels of the convolutions as `glance.c` multiplies with them: tiles (19, 16, 32)."""
    second, third = weights["conv2.weight"], weights["conv3.weight"]
    one = _first_tiles(weights["conv1.weight"])
    two = np.zeros((3, LANES, LANES, 2), np.float32)  # columns
    two[:, :, :15] = second.transpose(3, 0, 2, 1).reshape(3, 16, 15, 2)
    three = np.zeros((3, 2, 2, LANES, LANES, 2), np.float32)  # columns, rows 0 and 1 or 2, half
    by_row = third.transpose(3, 2, 0, 1).reshape(3, 3, 2, 16, 8, 2)
    three[:, 0, :, :, :8], three[:, 0, :, :, 8:] = by_row[:, 0], by_row[:, 1]
    three[:, 1, :, :, :8] = by_row[:, 2]
    return np.concatenate([part.reshape(-1, LANES, 2 * LANES) for part in (one, two, three)])


def _rnet_tiles(weights: Weights) -> FloatArray:
    """The same of R-net: tiles (203, 16, 32)."""
    second, third = weights["conv2.weight"], weights["conv3.weight"]
    one = _first_tiles(weights["conv1.weight"])
    two = np.zeros((3, 3, 3, LANES, LANES, 2), np.float32)  # rows, columns, channels
    two[..., :14, :] = second.transpose(2, 3, 0, 1).reshape(3, 3, 3, LANES, 14, 2)
    three = third.transpose(2, 1, 3, 0).reshape(3, LANES, 2, 2, 4, LANES)
    three = three.transpose(0, 3, 4, 5, 1, 2)
    dense = weights["dense4.weight"].reshape(128, 64, 9).transpose(0, 2, 1)
    dense = dense.reshape(2, 4, LANES, 18, LANES, 2).transpose(0, 3, 1, 2, 4, 5)
    parts = [part.reshape(-1, LANES, 2 * LANES) for part in (one, two, three, dense)]
    return np.concatenate(parts)


def _first_tiles(kernel: FloatArray) -> FloatArray:
    """Of a first convolution (n, 3, 3, 3): columns 0 and 1, or 2, of the kernel; row of two;
    16 channels each."""
    groups = -(-len(kernel) // LANES)
    padded = np.zeros((groups * LANES, 3, 3, 3), np.float32)
    padded[: len(kernel)] = kernel
    rows = padded.transpose(0, 2, 1, 3).reshape(groups, LANES, 9, 3)  # rows, then channels
    out = np.zeros((2, 2, groups, LANES, LANES, 2), np.float32)
    for row in range(2):
        out[0, row, :, :, 3 * row : 3 * row + 9] = rows[..., :2]
        out[1, row, :, :, 3 * row : 3 * row + 9, 0] = rows[..., 2]
    return out


def _values(weights: Weights) -> FloatArray:
    """Biases and slopes of the layers, filled up to whole tiles, and weights and bias of the
    score."""
    names = [name for name in weights if name.endswith((".bias", ".slope"))]
    parts = [weights[name].ravel() for name in sorted(names, key=_turn) if "heads" not in name]
    padded = [np.pad(part, (0, -len(part) % LANES)) for part in parts]
    head = weights["heads.weight"][0].ravel(), weights["heads.bias"][:1]
    return np.concatenate([*padded, *head]).astype(np.float32)


def _turn(name: str) -> tuple[str, str]:
    """Layer by layer, biases before slopes."""
    layer, kind = name.split(".")
    return layer[-1], kind


def _in_turn(weights: Weights) -> FloatArray:
    """All of them in the order in which `facenet_judge` needs them: (6643,)."""
    parts = []
    for n in (1, 2, 3):
        kernel = weights[f"conv{n}.weight"].transpose(1, 2, 3, 0)
        parts += [kernel, weights[f"conv{n}.bias"], weights[f"prelu{n}.slope"]]
    heads = weights["heads.weight"][:, :, 0, 0], weights["heads.bias"][:, None]
    parts.append(np.concatenate(heads, axis=1))
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def _aligned(values: FloatArray) -> NDArray[np.uint16]:
    """The nearest bfloat16, the even one of two, from the beginning of a line of the cache on."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    room = np.empty(rounded.size + LINE // 2, np.uint16)
    start = -room.ctypes.data % LINE // 2
    out = room[start : start + rounded.size].reshape(rounded.shape)
    out[...] = rounded
    return out
