"""What is put in front of an ONNX graph, so that it takes pictures as facenet feeds them.

facenet feeds N x 3 x H x W, and to detectors RGB as (x - 127.5) / 128. A graph that wants another
order of its axes, other channels or other values gets a few nodes of plain ONNX before its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import numpy as np

from facenet.errors import ModelFileError, SettingsError

MEAN: Final = 127.5
SCALE: Final = 128.0
"""What detectors are fed: (x - MEAN) / SCALE, of x from 0 to 255."""
BROADCASTS: Final = 7
"""First version of the operator set in which Mul and Add fit shapes to each other."""


@dataclass(frozen=True, slots=True)
class Feeding:
    """How a detector was trained to be fed.

    mean, scale: of each channel in the order in which the network takes them; it gets
    (x - mean) / scale of x from 0 to 255. color: that order, "rgb" or "bgr". size: width and
    height to fix where the graph takes any.
    """

    mean: tuple[float, ...] = (MEAN,)
    scale: tuple[float, ...] = (SCALE,)
    color: str = "rgb"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            if len(values) not in (1, 3) or not all(map(isfinite, values)):
                raise SettingsError(
                    f"{name} should be one number or three, such as 104,117,123; got {values}."
                )
        if min(self.scale) <= 0:
            raise SettingsError(f"scale should be above 0; got {self.scale}.")

    @property
    def plain(self) -> bool:
        """Whether this is how detectors are fed anyway."""
        usual = set(self.mean) == {MEAN} and set(self.scale) == {SCALE}
        return usual and self.color == "rgb"

    def __str__(self) -> str:
        mean, scale = (",".join(f"{v:g}" for v in values) for values in (self.mean, self.scale))
        size = "" if self.size is None else f", pictures of {self.size[0]}x{self.size[1]}"
        return f"{self.color.upper()}, mean {mean}, scale {scale}{size}"


def picture_port(graph: Any) -> Any:
    """The first input of an ONNX graph that is no weight; None where there is none."""
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    return next((port for port in graph.input if port.name not in weights), None)


def channels_last(sides: Sequence[int | None]) -> bool:
    """Whether an input of these sides is N x H x W x 3."""
    return len(sides) == 4 and sides[1] != 3 and sides[3] == 3


def sides_of(port: Any) -> list[int | None]:
    """Sides of an input, None for a free one."""
    return [side.dim_value or None for side in port.type.tensor_type.shape.dim]


def channels_first(data: bytes) -> bytes:
    """The same ONNX file for N x 3 x H x W; one that takes that already comes back as it is."""
    import onnx
    from onnx import helper

    model = onnx.ModelProto.FromString(data)
    port = picture_port(model.graph)
    if port is None or not channels_last(sides_of(port)):
        return data
    batch, height, width, channels = (side or None for side in sides_of(port))
    old = port.name
    new = _renew(model.graph, port, (batch, channels, height, width))
    return _begun(model, [helper.make_node("Transpose", [new], [old], perm=[0, 2, 3, 1])])


def fed(data: bytes, feeding: Feeding, name: str) -> bytes:
    """The same detector for what facenet feeds; one that takes that already comes back as it is.

    data: an ONNX file whose one input is 1 x 3 x H x W. name: what a message calls it. Raises
    ModelFileError for a graph of another size, or of an operator set that is too old.
    """
    import onnx

    model = onnx.ModelProto.FromString(data)
    port = picture_port(model.graph)
    height, width = sides_of(port)[2:]
    wanted = feeding.size
    if wanted is not None and any(
        had not in (None, want) for had, want in zip((width, height), wanted, strict=True)
    ):
        raise ModelFileError(
            f"{name} takes pictures of {width or 'any'}x{height or 'any'}, as its graph says, and "
            f"not of {wanted[0]}x{wanted[1]}. Leave --size out."
        )
    if feeding.plain and wanted in (None, (width, height)):
        return data
    if any(s.domain in ("", "ai.onnx") and s.version < BROADCASTS for s in model.opset_import):
        raise ModelFileError(
            f"{name} is written with an operator set before {BROADCASTS}, in front of which "
            "facenet puts nothing. Export it again with a newer one."
        )
    old = port.name
    batch, channels = sides_of(port)[:2]
    width, height = wanted or (width, height)
    new = _renew(model.graph, port, (batch or 1, channels or 3, height, width))
    return _begun(model, _fitting(feeding, new, old))


def _fitting(feeding: Feeding, new: str, old: str) -> list[Any]:
    """Nodes from what facenet feeds, RGB as (x - MEAN) / SCALE, to what the network wants."""
    from onnx import helper, numpy_helper

    mean, scale = (np.array(values).reshape(-1, 1, 1) for values in (feeding.mean, feeding.scale))
    constants = {
        "order": np.array([2, 1, 0] if feeding.color == "bgr" else [0, 1, 2]),
        "factor": (SCALE / scale).astype(np.float32),
        "offset": ((MEAN - mean) / scale).astype(np.float32),
    }
    nodes = [
        helper.make_node(
            "Constant", [], [f"{new}_{key}"], value=numpy_helper.from_array(value, f"{new}_{key}")
        )
        for key, value in constants.items()
    ]
    return [
        *nodes,
        helper.make_node("Gather", [new, f"{new}_order"], [f"{new}_channels"], axis=1),
        helper.make_node("Mul", [f"{new}_channels", f"{new}_factor"], [f"{new}_scaled"]),
        helper.make_node("Add", [f"{new}_scaled", f"{new}_offset"], [old]),
    ]


def _renew(graph: Any, port: Any, sides: Sequence[int | None]) -> str:
    """Give an input a name that is free and other sides; the name."""
    from onnx import helper

    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    new = "picture"
    while any(name.startswith(new) for name in taken):
        new += "_"
    shown = ["n" if side is None and axis == 0 else side for axis, side in enumerate(sides)]
    port.CopyFrom(helper.make_tensor_value_info(new, port.type.tensor_type.elem_type, shown))
    return new


def _begun(model: Any, nodes: Sequence[Any]) -> bytes:
    """The model with these nodes before its own."""
    own = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *own])
    data: bytes = model.SerializeToString(deterministic=True)
    return data
