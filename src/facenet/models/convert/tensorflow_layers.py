"""TensorFlow's layers with weights and windows, as ONNX in N x C x H x W.

Source: TensorFlow's documentation of ``nn.conv2d``, of its SAME and VALID padding and of
``nn.batch_normalization``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.models.convert.tensorflow_values import Builder, Linear, Size, Step, Value

MAX_WINDOW: Final = 1024
"""Largest kernel of a pool, stride or dilation, in cells."""


def _window(step: Step, key: str) -> tuple[int, int]:
    """(height, width) of a strides, ksize or dilations attribute N, H, W, C."""
    given: tuple[Any, ...] = step.attribute(key, (1, 1, 1, 1))
    sizes = [n for n in given if isinstance(n, int) and 1 <= n <= MAX_WINDOW]
    if not len(sizes) == len(given) == 4 or sizes[0] != 1 or sizes[3] != 1:
        raise step.refusal(f"{key} over height and width", given)
    return sizes[1], sizes[2]


def _check_nhwc(step: Step) -> None:
    """Refuse a node that counts its axes in another order."""
    data_format = step.attribute("data_format", b"NHWC")
    if data_format != b"NHWC":
        raise step.refusal("the data format NHWC", data_format)


def _placement(
    step: Step, sizes: Sequence[int], *, kernel: Sequence[int]
) -> tuple[list[int], dict[str, Any]]:
    """Output height and width, and the ONNX strides, pads and dilations of a window.

    SAME gives ceil(size / stride) cells and puts the odd cell of padding behind; VALID
    uses whole windows only.
    """
    _check_nhwc(step)
    strides, dilations = _window(step, "strides"), _window(step, "dilations")
    padding = step.attribute("padding", b"")
    if padding not in (b"SAME", b"VALID"):
        raise step.refusal("SAME or VALID padding", padding)
    out, before, after = [], [], []
    for size, side, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (side - 1) * dilation + 1
        cells = -(-size // stride) if padding == b"SAME" else (size - reach) // stride + 1
        total = max((cells - 1) * stride + reach - size, 0) if padding == b"SAME" else 0
        if cells < 1:
            raise step.refusal(f"at least {reach} cells", f"{size}: the picture is too small")
        out.append(cells)
        before.append(total // 2)
        after.append(total - total // 2)
    attrs: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(strides)}
    attrs["pads"] = before + after
    return out, attrs | ({"dilations": list(dilations)} if max(dilations) > 1 else {})


def convolution(builder: Builder, step: Step) -> Value:
    """Conv2D with a constant kernel H x W x I x O; it stays open for what follows."""
    source, weights = step.take(2)
    height, width, channels = step.sizes(source, 4)
    kernel = step.constant(weights)
    if kernel.ndim != 4 or kernel.shape[2] != channels or 0 in kernel.shape:
        raise step.refusal(f"a kernel H x W x {channels} x O", kernel.shape)
    (rows, columns), attrs = _placement(step, (height, width), kernel=kernel.shape[:2])
    turned = kernel.astype(np.float64).transpose(3, 2, 0, 1)
    layer = Linear("Conv", builder.spatial(source), turned, attrs)
    shape = (None, rows, columns, layer.channels)
    return Value(builder.onnx_name(step.node), shape, linear=layer)


def dense(builder: Builder, step: Step) -> Value:
    """MatMul of N x I by a constant matrix; it stays open for what follows."""
    source, weights = step.take(2)
    (width,) = step.sizes(source, 2)
    matrix = step.constant(weights)
    if not step.attribute("transpose_b", False):
        matrix = matrix.T
    if step.attribute("transpose_a", False) or matrix.ndim != 2 or matrix.shape[1] != width:
        raise step.refusal(f"weights of {width} rows", matrix.shape[::-1])
    layer = Linear("Gemm", builder.tensor(source), matrix.astype(np.float64), {"transB": 1})
    return Value(builder.onnx_name(step.node), (None, layer.channels), linear=layer)


def pool(builder: Builder, step: Step) -> Value:
    """MaxPool and AvgPool; padding never takes part in either."""
    (source,) = step.take(1)
    *sizes, channels = step.sizes(source, 4)
    kernel = _window(step, "ksize")
    (rows, columns), attrs = _placement(step, sizes, kernel=kernel)
    name, operand = builder.onnx_name(step.node), [builder.spatial(source)]
    if step.node.op == "AvgPool" and list(kernel) == sizes and rows == columns == 1:
        builder.graph.node("GlobalAveragePool", operand, outputs=name)
    else:
        onnx_op = {"AvgPool": "AveragePool", "MaxPool": "MaxPool"}[step.node.op]
        builder.graph.node(onnx_op, operand, outputs=name, **attrs)
    return Value(name, (None, rows, columns, channels))


def _affine(
    builder: Builder,
    step: Step,
    *,
    source: Value,
    factor: NDArray[np.float64] | None,
    offset: NDArray[np.float64],
) -> Value:
    """``source * factor + offset`` per channel of the last axis."""
    layer = source.open_layer
    if layer is not None:
        if factor is not None:
            layer.scale(factor)
        layer.shift(offset)
        return replace(source, name=builder.onnx_name(step.node))
    name, graph = builder.onnx_name(step.node), builder.graph
    spatial = len(source.shape) == 4
    tensor = builder.spatial(source) if spatial else builder.tensor(source)
    lay = (-1, 1, 1) if spatial else (-1,)
    if factor is not None:
        scale = graph.constant(f"{name}:factor", factor.reshape(lay))
        tensor = graph.node("Mul", [tensor, scale], outputs=f"{name}:scaled")
    shift = graph.constant(f"{name}:offset", offset.reshape(lay))
    return Value(graph.node("Add", [tensor, shift], outputs=name), source.shape)


def _vector(step: Step, value: Value, *, channels: Size) -> NDArray[np.float64]:
    array = step.constant(value).astype(np.float64)
    if array.shape != (channels,):
        raise step.refusal(f"a constant for {channels} channels", array.shape)
    return array


def bias(builder: Builder, step: Step) -> Value:
    """BiasAdd along the last axis."""
    source, bias = step.take(2)
    _check_nhwc(step)
    offset = _vector(step, bias, channels=source.shape[-1])
    return _affine(builder, step, source=source, factor=None, offset=offset)


def batch_norm(builder: Builder, step: Step) -> Value:
    """FusedBatchNorm: gamma (x - mean) / sqrt(variance + epsilon) + beta, stored statistics."""
    source, *constants = step.take(5)
    _check_nhwc(step)
    if step.attribute("is_training", True):
        raise step.refusal("stored statistics (is_training false)", "training mode")
    gamma, beta, mean, variance = (_vector(step, c, channels=source.shape[-1]) for c in constants)
    factor = gamma / np.sqrt(variance + step.attribute("epsilon", 1e-4))
    if not np.isfinite(factor).all():
        raise step.refusal("variances above -epsilon", "others")
    offset = beta - mean * factor
    return _affine(builder, step, source=source, factor=factor, offset=offset)
