"""What an ONNX file must be before a runtime sees it: self-contained, plain, with fitting ports.

What could make a runtime read other files or run other code is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from facenet.errors import ModelFileError
from facenet.models.card import Preprocess
from facenet.models.convert.front import channels_last, picture_port, sides_of

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
    newest = onnx.defs.onnx_opset_version()
    if any(used.domain in DOMAINS and used.version > newest for used in model.opset_import):
        raise ModelFileError(
            f"{name} is written with an operator set after {newest}, the newest that is known "
            "here. Export it again with an older one."
        )
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{name} is not valid ONNX: {_short(error)}") from error


def _short(error: Exception) -> str:
    """What the checker says, on one line of bounded length: it quotes the file."""
    return " ".join(str(error).split())[:300]


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
            f"{name} keeps the values of {part.name[:80]!r} in another file, which is not "
            "supported. Save it again as a single file."
        )
    if kind == "NodeProto" and part.domain not in DOMAINS:
        operator = f"{part.domain[:80]}.{part.op_type[:80]}"
        raise ModelFileError(
            f"{name} uses the operator {operator}; only the operators of ONNX itself are "
            "supported. Export it again without extensions."
        )


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the picture that a graph takes, or None where it takes any, or none.

    data: what `check_graph` let pass.
    """
    import onnx

    port = picture_port(onnx.ModelProto.FromString(data).graph)
    sides = sides_of(port) if port is not None else []
    if len(sides) != 4:
        return None
    height, width = sides[1:3] if channels_last(sides) else sides[2:]
    return None if height is None or width is None else (width, height)


def check_ports(data: bytes, name: str) -> Any:
    """The one input of a graph, a batch of pictures; it has one output, too.

    data: what `check_graph` let pass. Raises ModelFileError for anything else.
    """
    import onnx

    graph = onnx.ModelProto.FromString(data).graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [port for port in graph.input if port.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelFileError(
            f"{name} should have one input and one output; it has {_named(inputs)} and "
            f"{_named(graph.output)}."
        )
    if inputs[0].type.tensor_type.elem_type != FLOAT:
        raise ModelFileError(f"The input of {name} should be float32; it is of another type.")
    return inputs[0]


def check_embedder(data: bytes, name: str, preprocess: Preprocess) -> None:
    """Raises ModelFileError unless a graph has one float32 input, N x 3 x H x W, and one output.

    data: what `check_graph` let pass, channels first. preprocess: says H and W.
    """
    sizes = sides_of(check_ports(data, name))
    wanted = (3, preprocess.height, preprocess.width)
    fits = len(sizes) == 4 and all(
        got in (None, want) for got, want in zip(sizes[1:], wanted, strict=True)
    )
    if not fits:
        came = " x ".join("any" if s is None else str(s) for s in sizes) or "a single value"
        raise ModelFileError(
            f"{name} should take N x {' x '.join(map(str, wanted))}, as its preprocessing says; "
            f"it takes {came}."
        )


def _named(ports: Sequence[Any]) -> str:
    more = f" and {len(ports) - 4} more" if len(ports) > 4 else ""
    return (", ".join(port.name[:40] for port in ports[:4]) or "none") + more
