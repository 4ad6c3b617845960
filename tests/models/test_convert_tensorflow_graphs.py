import numpy as np
import onnx
import pytest
from graph_maker import BOOL, FLOAT, const, graph, node, picture
from small_nets import (
    BETA,
    CONV,
    DENSE,
    GAMMA,
    IMAGES,
    MEAN,
    NORMAL,
    POOL,
    POOLED,
    SAME,
    STATISTICS,
    VARIANCE,
    conv,
    conv_nodes,
    converted,
    dense,
    flatten,
    folded_shape,
    fused,
    nchw,
    noise,
    run,
    shape_2017,
    shape_2018,
    shape_by_hand,
    squeeze,
    squeeze_all,
)

from facenet.models.convert.graphdef import Shape
from facenet.models.convert.tensorflow import convert_frozen_graph

# Heads: flatten, dense, normalise


@pytest.mark.parametrize(
    "how", [shape_2017, shape_2018, shape_by_hand, folded_shape, squeeze, squeeze_all]
)
def test_every_flatten_and_a_dense_layer(how):
    got = converted(picture(batch=2), POOL, how("pool"), dense("flat"), size=5, images=IMAGES)
    np.testing.assert_allclose(got, POOLED @ DENSE, rtol=0, atol=1e-6)


def test_a_mean_that_drops_its_axes_and_a_turned_matrix():
    nodes = node("pool", "Mean", "input", "hw") + const("hw", [2, 1], "<i4")
    nodes += const("w", DENSE.T) + node("embeddings", "MatMul", "pool", "w", transpose_b=True)
    got = converted(picture(), nodes, size=5, images=IMAGES)
    np.testing.assert_allclose(got, POOLED @ DENSE, rtol=0, atol=1e-6)


def test_a_real_picture_is_flattened_in_tensorflows_order():
    weights = noise(75, 6, seed=12)
    nodes = const("s", [-1, 75], "<i4") + node("flat", "Reshape", "input", "s")
    nodes += const("w", weights) + node("embeddings", "MatMul", "flat", "w")
    got = converted(picture(), nodes, size=5, images=IMAGES)
    np.testing.assert_allclose(got, IMAGES.reshape(2, -1) @ weights, rtol=0, atol=1e-5)


def test_a_vector_becomes_a_picture_again():
    weights, kernel = noise(3, 12, seed=13), noise(1, 1, 3, 2, seed=14)
    nodes = POOL + squeeze("pool") + const("w", weights) + node("dense", "MatMul", "flat", "w")
    nodes += const("four", [-1, 2, 2, 3], "<i4") + node("cells", "Reshape", "dense", "four")
    nodes += conv_nodes("c", "cells", kernel) + flatten("c", 8)
    got = converted(picture(), nodes, size=5, images=IMAGES)
    expected = conv((POOLED @ weights).reshape(2, 2, 2, 3), kernel, 1, SAME)
    np.testing.assert_allclose(got, expected.reshape(2, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_batch_normalisation_of_a_vector_through_a_picture_of_one_cell(relu):
    nodes = POOL + squeeze("pool") + const("w", DENSE[:, :4]) + node("dense", "MatMul", "flat", "w")
    source, expected = "dense", POOLED @ DENSE[:, :4]
    if relu:  # nothing to melt into: the factor and offset are written as nodes
        nodes += node("relu", "Relu", "dense")
        source, expected = "relu", np.maximum(expected, 0)
    nodes += const("cell", [-1, 1, 1, 4], "<i4") + const("row", [-1, 4], "<i4")
    nodes += node("a", "Reshape", source, "cell") + STATISTICS + fused("bn", "a")
    nodes += node("embeddings", "Reshape", "bn", "row")
    expected = (expected - MEAN) / np.sqrt(VARIANCE + 0.01) * GAMMA + BETA
    got = converted(picture(), nodes, size=5, images=IMAGES)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_l2_normalisation_with_its_floor():
    nodes = POOL + squeeze("pool") + node("sq", "Square", "flat") + const("ax", 1, "<i4")
    nodes += node("sum", "Sum", "sq", "ax", keep_dims=True) + const("eps", 1e-10)
    nodes += node("max", "Maximum", "sum", "eps") + node("rs", "Rsqrt", "max")
    nodes += node("embeddings", "Mul", "flat", "rs")
    images = np.concatenate([IMAGES, np.zeros_like(IMAGES[:1])])
    got = converted(picture(), nodes, size=5, images=images)
    lengths = np.maximum(np.linalg.norm(POOLED, axis=1, keepdims=True), 1e-5)
    np.testing.assert_allclose(got[:2], POOLED / lengths, rtol=0, atol=1e-6)
    assert not got[2].any()


# Training switches, queues and other ways in


def switched(op):
    """Slim's cond around batch normalisation: the training branches are no operators of ours."""
    names = {"g": "gamma", "b": "beta", "m": "mean", "v": "variance", "c": "conv"}
    ends = b"".join(node(short, op, name, "pred") for short, name in names.items())
    return (
        ends
        + node("phase_train", "Placeholder", dtype=BOOL, shape=Shape(()))
        + node("pred", "Identity", "phase_train")
        + node("not", "LogicalNot", "pred")
        + node("cond/Switch", op, "pred", "pred")
        + node("cond/t", "Identity", "cond/Switch:1")
        + const_after("cond/Const", 7, "^cond/t")
        + node("train", "FusedBatchNorm", "c:1", "g:1", "b:1", is_training=True)
        + node("infer", "FusedBatchNorm", *"cgbmv", epsilon=0.01, is_training=False)
        + node("merge", "Merge", "train", "infer")
        + node("drop", op, "merge", "not")
        + node("dropout", "RandomDropout", "drop", "cond/Const")
        + node("pass", "Identity", "drop:1")
        + node("merge_1", "RefMerge", "pass", "dropout")
        + node("merge_2", "Merge", "cond/Const", "merge_1")
    )


def const_after(name, value, *inputs):
    return node(name, "Const", *inputs, value=np.float32(value).reshape(1), dtype=FLOAT)


@pytest.mark.parametrize("op", ["Switch", "RefSwitch"])
def test_phase_train_takes_the_inference_branch(op):
    nodes = (picture(), CONV, STATISTICS, switched(op), flatten("merge_2", 100))
    model = convert_frozen_graph(graph(*nodes), size=5)
    got = run(model, nchw(IMAGES))
    np.testing.assert_allclose(got, NORMAL.reshape(2, -1), rtol=0, atol=1e-5)
    kinds = {item.op_type for item in onnx.load_from_string(model).graph.node}
    assert "Conv" in kinds
    assert not {"Mul", "Add"} & kinds


def test_a_queue_before_the_picture_is_cut_off():
    queue = node("fifo", "FIFOQueueV2") + node("deq", "QueueDequeueUpToV2", "fifo", "batch_size")
    queue += node("batch_size", "Placeholder", dtype=FLOAT, shape=Shape(()))
    queue += node("image_batch", "Identity", "deq") + node("input", "Identity", "image_batch")
    got = converted(queue, POOL, squeeze("pool"), dense("flat"), size=5, images=IMAGES)
    np.testing.assert_allclose(got, POOLED @ DENSE, rtol=0, atol=1e-6)


def test_a_lone_float_placeholder_is_the_picture():
    start = node("data", "Placeholder", dtype=FLOAT, shape=Shape((None, None, None, 3)))
    pool = node("pool", "Mean", "data", "hw", keep_dims=True) + const("hw", [1, 2], "<i4")
    got = converted(start, pool, squeeze("pool"), dense("flat"), size=5, images=IMAGES)
    np.testing.assert_allclose(got, POOLED @ DENSE, rtol=0, atol=1e-6)


def test_names_that_collide_with_the_ends_are_kept_apart():
    nodes = node("image", "Relu", "input") + node("embedding", "Relu", "image")
    pool = node("pool", "Mean", "embedding", "hw") + const("hw", [1, 2], "<i4")
    got = converted(picture(), nodes, pool, dense("pool"), size=5, images=IMAGES)
    expected = np.maximum(IMAGES, 0).mean(axis=(1, 2)) @ DENSE
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
