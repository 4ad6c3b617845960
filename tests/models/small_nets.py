"""Small networks as GraphDef bytes, with the same arithmetic in NumPy beside them."""

import numpy as np
import onnxruntime
from graph_maker import const, graph, node

from facenet.models.convert.tensorflow import convert_frozen_graph

SAME, VALID = b"SAME", b"VALID"


def run(model, image):
    return onnxruntime.InferenceSession(model).run(["embedding"], {"image": image})[0]


def noise(*sizes, seed=0):
    return np.random.RandomState(seed).uniform(-1, 1, sizes).astype(np.float32)


def nchw(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def flatten(source, width):
    """The end most graphs here share: everything behind the batch becomes N x D."""
    shape = const("flat/shape", [-1, width], "<i4")
    return shape + node("embeddings", "Reshape", source, "flat/shape")


def converted(*nodes, size, images, output="embeddings"):
    return run(convert_frozen_graph(graph(*nodes), output=output, size=size), nchw(images))


def windows(images, side, stride, padding, fill):
    """All windows of N x H x W x C by TensorFlow's padding rule, spelled out cell by cell."""
    size = images.shape[1]
    cells = -(-size // stride) if padding == SAME else -(-(size - side + 1) // stride)
    total = max((cells - 1) * stride + side - size, 0) if padding == SAME else 0
    before = total // 2
    padded = np.pad(images, [(0, 0), *[(before, total - before)] * 2, (0, 0)], constant_values=fill)
    return np.array(
        [
            [
                padded[:, r * stride : r * stride + side, c * stride : c * stride + side]
                for c in range(cells)
            ]
            for r in range(cells)
        ]
    ).transpose(2, 0, 1, 3, 4, 5)


def conv(images, kernel, stride, padding):
    found = windows(images.astype(np.float64), kernel.shape[0], stride, padding, 0)
    return np.einsum("nrcijk,ijko->nrco", found, kernel.astype(np.float64))


def conv_nodes(name, source, kernel, *, stride=1, padding=SAME):
    attrs = {"strides": (1, stride, stride, 1), "padding": padding, "data_format": b"NHWC"}
    return const(f"{name}/weights", kernel) + node(
        name, "Conv2D", source, f"{name}/weights", **attrs
    )


GAMMA, BETA, MEAN = (noise(4, seed=s) for s in (3, 4, 5))
VARIANCE = np.abs(noise(4, seed=6)) + 0.1
STATISTICS = (
    const("gamma", GAMMA) + const("beta", BETA) + const("mean", MEAN) + const("variance", VARIANCE)
)
KERNEL = noise(3, 3, 3, 4, seed=7)
IMAGES = noise(2, 5, 5, 3, seed=8)
CONV = conv_nodes("conv", "input", KERNEL)
PLAIN = conv(IMAGES, KERNEL, 1, SAME)
NORMAL = (PLAIN - MEAN) / np.sqrt(VARIANCE + 0.01) * GAMMA + BETA


def fused(name, source, op="FusedBatchNorm"):
    inputs = (source, "gamma", "beta", "mean", "variance")
    return node(name, op, *inputs, epsilon=0.01, is_training=False)


def written_out(name, source):
    """Batch normalisation as tf.nn.batch_normalization builds it."""
    return (
        const("e", 0.01)
        + node("add", "AddV2", "variance", "e")
        + node("r", "Rsqrt", "add")
        + node("m", "Mul", "r", "gamma")
        + node("x", "Mul", source, "m")
        + node("mm", "Mul", "mean", "m")
        + node("s", "Sub", "beta", "mm")
        + node(name, "AddV2", "x", "s")
    )


POOL = node("pool", "Mean", "input", "hw", keep_dims=True) + const("hw", [1, 2], "<i4")
POOLED = IMAGES.mean(axis=(1, 2))
DENSE = noise(3, 6, seed=11)


def dense(source, name="embeddings"):
    return const("w", DENSE) + node(name, "MatMul", source, "w", transpose_b=False)


def shape_2017(source):
    """Slim's flatten of 2017: Shape, two Slices, Prod, ExpandDims, ConcatV2."""
    return (
        node("shape", "Shape", source)
        + const("zero", [0], "<i4")
        + const("one", [1], "<i4")
        + const("three", [3], "<i4")
        + const("axis", 0, "<i4")
        + node("first", "Slice", "shape", "zero", "one")
        + node("rest", "Slice", "shape", "one", "three")
        + node("prod", "Prod", "rest", "zero")
        + node("wide", "ExpandDims", "prod", "axis")
        + node("target", "ConcatV2", "first", "wide", "axis")
        + node("flat", "Reshape", source, "target")
    )


def shape_2018(source):
    """Slim's flatten of 2018: Shape, StridedSlice, Pack."""
    return (
        node("shape", "Shape", source)
        + const("b", [0], "<i4")
        + const("e", [1], "<i4")
        + const("minus", -1, "<i4")
        + node("batch", "StridedSlice", "shape", "b", "e", "e", shrink_axis_mask=1)
        + node("target", "Pack", "batch", "minus", axis=0)
        + node("flat", "Reshape", source, "target")
    )


def shape_by_hand(source):
    """tf.reshape(x, [-1, product of shape[1:]])."""
    return (
        node("shape", "Shape", source)
        + const("b", [1], "<i4")
        + const("e", [0], "<i4")
        + const("first", -1, "<i4")
        + node("rest", "StridedSlice", "shape", "b", "e", "b", end_mask=1)
        + node("prod", "Prod", "rest", "e")
        + node("target", "Pack", "first", "prod")
        + node("flat", "Reshape", source, "target")
    )


def folded_shape(source):
    return const("target", [2, -1], "<i4") + node("flat", "Reshape", source, "target")


def squeeze(source):
    return node("flat", "Squeeze", source, squeeze_dims=(1, -2))


def squeeze_all(source):
    return node("flat", "Squeeze", source)
