"""How each TensorFlow operator of a facenet network is written as ONNX.

``EMIT`` maps an operator to the function that writes it; a further operator is one more
entry. Operators on constants only are computed before, by ``tensorflow_folds``.
Source: TensorFlow's operator documentation (``nn_ops``, ``math_ops``, ``array_ops``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.models.convert import tensorflow_layers as layers
from facenet.models.convert.tensorflow_values import (
    BATCH,
    Builder,
    Linear,
    Size,
    Sizes,
    Step,
    Value,
)

Emit = Callable[[Builder, Step], Value]


def _unary(*chain: str) -> Emit:
    """An operator per element that keeps shape and layout, as a chain of ONNX operators."""

    def emit(builder: Builder, step: Step) -> Value:
        (source,) = step.take(1)
        name, tensor = builder.onnx_name(step.node), builder.tensor(source)
        for number, onnx_op in enumerate(chain, start=1):
            output = name if number == len(chain) else f"{name}:{onnx_op}"
            tensor = builder.graph.node(onnx_op, [tensor], outputs=output)
        return Value(name, source.shape, flat=source.flat)

    return emit


def _square(builder: Builder, step: Step) -> Value:
    (source,) = step.take(1)
    tensor, name = builder.tensor(source), builder.onnx_name(step.node)
    return Value(
        builder.graph.node("Mul", [tensor, tensor], outputs=name), source.shape, flat=source.flat
    )


def _per_channel(constant: NDArray[Any], channels: int) -> NDArray[np.float64] | None:
    """A constant that is one number, or one per channel of the last axis, as a vector."""
    last = constant.shape[-1:] or (1,)
    if constant.size != last[0] or last[0] not in (1, channels):
        return None
    return np.broadcast_to(constant.astype(np.float64).reshape(-1), (channels,))


def _joined(step: Step, left: Sizes, *, right: Sizes) -> Sizes:
    """NumPy's rule for two shapes, where the batch equals only itself."""
    rank = max(len(left), len(right))
    sizes: list[Size] = []
    for one, two in zip(
        (1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True
    ):
        if one != two and 1 not in (one, two):
            raise step.refusal("shapes that fit each other", f"{left} and {right}")
        sizes.append(two if one == 1 else one)
    return tuple(sizes)


def _operand(builder: Builder, step: Step, *, value: Value, rank: int) -> str:
    """An input of a two-sided operator, laid out for results of the given rank."""
    if value.array is None:
        if len(value.shape) != rank:
            raise step.refusal(f"two tensors of rank {rank}", value.shape)
        return builder.spatial(value) if rank == 4 else builder.tensor(value)
    array = value.array
    if rank == 4 and array.ndim:
        array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(0, 3, 1, 2)
    return builder.graph.constant(f"{builder.onnx_name(step.node)}:constant", array)


def _binary(onnx_op: str) -> Emit:
    """A two-sided operator; Add, Sub and Mul by a constant melt into an open layer."""

    def emit(builder: Builder, step: Step) -> Value:
        left, right = step.take(2)
        shape, name = _joined(step, left.shape, right=right.shape), builder.onnx_name(step.node)
        tensor, other = (right, left) if left.array is not None else (left, right)
        if other.array is not None and shape == tensor.shape and tensor.open_layer is not None:
            op = onnx_op if tensor is left or onnx_op != "Sub" else "constant - tensor"
            if _melted(tensor.open_layer, op, constant=other.array):
                return replace(tensor, name=name)
        names = [_operand(builder, step, value=side, rank=len(shape)) for side in (left, right)]
        return Value(builder.graph.node(onnx_op, names, outputs=name), shape)

    return emit


def _melted(layer: Linear, onnx_op: str, *, constant: NDArray[Any]) -> bool:
    """Whether the operator could be worked into the layer, which is done then."""
    vector = _per_channel(constant, layer.channels)
    if vector is None:
        return False
    if onnx_op == "Mul":
        layer.scale(vector)
    elif onnx_op in ("Add", "Sub"):
        layer.shift(vector if onnx_op == "Add" else -vector)
    return onnx_op in ("Mul", "Add", "Sub")


def _axes(step: Step, value: Value, *, rank: int) -> list[int]:
    """Constant axis numbers from 0 to rank - 1, in order."""
    given = step.integers(value)
    axes = sorted({axis + rank if axis < 0 else axis for axis in given})
    if not axes or axes[0] < 1 or axes[-1] >= rank:
        raise step.refusal(f"axes from 1 to {rank - 1}", given)
    return axes


def _concat(builder: Builder, step: Step) -> Value:
    *parts, axis = step.values
    if not parts:
        raise step.refusal("two or more inputs", len(step.values))
    first = parts[0].shape
    (where,) = _axes(step, axis, rank=len(first))[:1]
    total = 0
    for part in parts:
        sizes = step.sizes(part, len(first))
        total += sizes[where - 1]
        if (None, *sizes[: where - 1], *sizes[where:]) != (*first[:where], *first[where + 1 :]):
            raise step.refusal(f"parts like {first}", part.shape)
    spatial = len(first) == 4
    names = [builder.spatial(part) if spatial else builder.tensor(part) for part in parts]
    turned = {1: 2, 2: 3, 3: 1}[where] if spatial else where
    name = builder.graph.node("Concat", names, outputs=builder.onnx_name(step.node), axis=turned)
    return Value(name, (*first[:where], total, *first[where + 1 :]))


def _reduce(builder: Builder, step: Step) -> Value:
    """Sum and Mean over axes behind the batch."""
    source, reduction = step.take(2)
    rank, name = len(source.shape), builder.onnx_name(step.node)
    step.sizes(source, rank)
    axes = _axes(step, reduction, rank=rank)
    keep = step.attribute("keep_dims", False)
    spatial = rank == 4
    if spatial and not keep and axes not in ([1, 2], [1, 2, 3]):
        raise step.refusal("kept axes or a reduction of height and width", axes)
    tensor = builder.spatial(source) if spatial else builder.tensor(source)
    turned = sorted({1: 2, 2: 3, 3: 1}[axis] for axis in axes) if spatial else axes
    if step.node.op == "Mean":
        builder.graph.node("ReduceMean", [tensor], outputs=name, axes=turned, keepdims=int(keep))
    else:
        constant = builder.graph.constant(f"{name}:axes", turned, dtype="<i8")
        builder.graph.node("ReduceSum", [tensor, constant], outputs=name, keepdims=int(keep))
    kept = [1 if axis in axes else size for axis, size in enumerate(source.shape)]
    dropped = [size for axis, size in enumerate(source.shape) if axis not in axes]
    return Value(name, tuple(kept if keep else dropped))


def _shape(builder: Builder, step: Step) -> Value:
    """The shape as a constant, with BATCH in front, for a flatten to compute with."""
    (source,) = step.take(1)
    sizes = np.array([BATCH if size is None else size for size in source.shape], dtype=np.int64)
    return Value("", sizes.shape, sizes)


def _reshape(builder: Builder, step: Step) -> Value:
    source, shape = step.take(2)
    rest = _target(step, source, batch=builder.batch, asked=step.integers(shape))
    return _reshaped(builder, step, source=source, rest=rest)


def _target(step: Step, source: Value, *, batch: Size, asked: list[int]) -> tuple[int, ...]:
    """The sizes behind the batch that a Reshape asks for; the batch must stay what it is."""
    have = math.prod(step.sizes(source, len(source.shape)))
    first, rest = asked[:1], asked[1:]
    known = math.prod(size for size in rest if size != -1)
    if first != [-1] and rest.count(-1) == 1 and known > 0 and have % known == 0:
        rest = [have // known if size == -1 else size for size in rest]
    if first not in ([-1], [batch], [BATCH]) or min(rest, default=1) < 0 or math.prod(rest) != have:
        raise step.refusal(f"a shape that keeps the batch of {source.shape}", asked)
    return tuple(rest)


def _squeeze(builder: Builder, step: Step) -> Value:
    (source,) = step.take(1)
    rank = len(source.shape)
    given: tuple[Any, ...] = step.attribute("squeeze_dims", ())
    dims = [dim + rank if dim < 0 else dim for dim in given if isinstance(dim, int)]
    dims = dims or [axis for axis, size in enumerate(source.shape) if size == 1]
    if any(not 1 <= dim < rank or source.shape[dim] != 1 for dim in dims):
        raise step.refusal("axes of length 1 behind the batch", given)
    sizes = step.sizes(source, rank)
    rest = tuple(size for axis, size in enumerate(sizes, start=1) if axis not in dims)
    return _reshaped(builder, step, source=source, rest=rest)


def _reshaped(builder: Builder, step: Step, *, source: Value, rest: tuple[int, ...]) -> Value:
    """``source`` with the sizes ``rest`` behind the batch, elements in TensorFlow's order.

    N x C and N x 1 x 1 x C hold the same numbers in the same order, so one stands for
    the other without a node; only a real picture is turned to N x H x W x C first.
    """
    shape: Sizes = (None, *rest)
    before, name = source.shape, builder.onnx_name(step.node)
    if shape == before:
        return source
    one_cell = len(before) == 4 and before[1:3] == (1, 1)
    flat_now = len(before) == 2 or source.flat
    if flat_now and (len(shape) == 2 or (len(shape) == 4 and shape[1:3] == (1, 1))):
        return replace(source, shape=shape, flat=len(shape) == 4)
    tensor = builder.tensor(source)
    if len(before) == 4 and not one_cell:
        tensor = builder.graph.node(
            "Transpose", [tensor], outputs=f"{name}:nhwc", perm=[0, 2, 3, 1]
        )
    if len(shape) != 4:
        return Value(builder.reshape(tensor, [0, *rest], output=name), shape)
    tensor = builder.reshape(tensor, [0, *rest], output=f"{name}:cells")
    return Value(builder.graph.node("Transpose", [tensor], outputs=name, perm=[0, 3, 1, 2]), shape)


def _const(builder: Builder, step: Step) -> Value:
    array = step.node.attrs.get("value")
    if not isinstance(array, np.ndarray):
        raise step.refusal("numbers", array)
    return Value("", array.shape, array)


EMIT: Final[dict[str, Emit]] = {
    "Const": _const,
    "Conv2D": layers.convolution,
    "MatMul": layers.dense,
    "BiasAdd": layers.bias,
    "FusedBatchNorm": layers.batch_norm,
    "FusedBatchNormV2": layers.batch_norm,
    "FusedBatchNormV3": layers.batch_norm,
    "MaxPool": layers.pool,
    "AvgPool": layers.pool,
    "Mean": _reduce,
    "Sum": _reduce,
    "ConcatV2": _concat,
    "Add": _binary("Add"),
    "AddV2": _binary("Add"),
    "Sub": _binary("Sub"),
    "Mul": _binary("Mul"),
    "RealDiv": _binary("Div"),
    "Maximum": _binary("Max"),
    "Relu": _unary("Relu"),
    "Rsqrt": _unary("Sqrt", "Reciprocal"),
    "Square": _square,
    "Shape": _shape,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
}
