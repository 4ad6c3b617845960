"""What an ONNX file must be before a runtime sees it: self-contained, plain, with fitting ports.

What could make a runtime read other files or run other code is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from facenet.errors import ModelFileError
from facenet.models.card import Preprocess

DOMAINS = ("", "ai.onnx")
"""Names of the default operator set; other sets are code that a runtime would have to load."""

FLOAT = 1
"""`onnx.TensorProto.FLOAT`."""


def check_graph(data: bytes, name: str) -> None:
    """Raises ModelFileError for anything but a self-contained graph in plain ONNX.

    data: the whole file. name: what a message calls it.
    """
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


def check_embedder(data: bytes, name: str, preprocess: Preprocess) -> None:
    """Raises ModelFileError unless a graph has one float32 input, N x 3 x H x W, and one output.

    data: what `check_graph` let pass. preprocess: says H and W.
    """
    import onnx

    graph = onnx.ModelProto.FromString(data).graph
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
