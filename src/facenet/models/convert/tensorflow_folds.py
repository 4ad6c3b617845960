"""TensorFlow operators on constants, computed with NumPy while a graph is rewritten.

Two things make them necessary: batch normalisation written out as arithmetic on stored
statistics, and the little programs that compute the target shape of a flatten. A shape
vector holds BATCH for the batch. Errors are NumPy's; ``Builder.folded`` maps them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.models.convert.liveness import LiveNode
from facenet.models.convert.tensorflow_values import MAX_FOLD_ELEMENTS, Fold


def _two(function: Callable[[Any, Any], Any]) -> Fold:
    """A NumPy function of two constants, bounded before it broadcasts."""

    def fold(node: LiveNode, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        left, right = arrays
        if math.prod(np.broadcast_shapes(left.shape, right.shape)) > MAX_FOLD_ELEMENTS:
            raise ValueError("the result is too large")
        return np.asarray(function(left, right))

    return fold


def _vector(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 1:
        raise ValueError("only vectors are expected")
    return array


def _slice(_: LiveNode, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """``size`` elements from ``begin``; -1 takes the rest."""
    start, length = int(arrays[1][0]), int(arrays[2][0])
    rest = _vector(arrays[0])[start:]
    return rest if length < 0 else rest[:length]


def _strided_slice(node: LiveNode, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """``vector[begin:end:stride]`` or one element of it, as Python code on a shape does."""
    vector = _vector(arrays[0])
    begin, end, stride = (int(array.reshape(())[()]) for array in arrays[1:])
    if int(node.attrs.get("shrink_axis_mask", 0)):
        return np.asarray(vector[begin])
    first = None if int(node.attrs.get("begin_mask", 0)) else begin
    last = None if int(node.attrs.get("end_mask", 0)) else end
    return vector[first:last:stride]


FOLD: Final[dict[str, Fold]] = {
    "Add": _two(np.add),
    "AddV2": _two(np.add),
    "Sub": _two(np.subtract),
    "Mul": _two(np.multiply),
    "RealDiv": _two(np.divide),
    "Maximum": _two(np.maximum),
    "Rsqrt": lambda _, a: np.asarray(1 / np.sqrt(a[0])),
    "Reshape": lambda _, a: a[0].reshape([int(n) for n in a[1]]),
    "ExpandDims": lambda _, a: np.expand_dims(a[0], int(a[1].reshape(())[()])),
    "Pack": lambda node, a: np.stack(a, axis=int(node.attrs.get("axis", 0))),
    "ConcatV2": lambda _, a: np.concatenate(a[:-1], axis=int(a[-1].reshape(())[()])),
    "Prod": lambda _, a: np.asarray(np.prod(_vector(a[0]))),
    "Slice": _slice,
    "StridedSlice": _strided_slice,
}
