"""The three MTCNN networks as ONNX graphs, from facenet-pytorch's state dicts.

Source: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded
Convolutional Networks" (2016), with the weights of facenet-pytorch 2.6.0 (MIT), which are
those of the original Caffe release.

Input everywhere: ``image``, float32, N x 3 x H x W, RGB, (x - 127.5) * 0.0078125.
Outputs: ``score`` the probability of a face, ``offset`` the box correction (x1, y1, x2,
y2 in parts of the box) and, from O-net, ``landmark`` (5 x, then 5 y, in parts of the box).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.models.convert.onnxgraph import Dimensions, GraphWriter

Weights = Mapping[str, NDArray[Any]]


def pnet(weights: Weights) -> bytes:
    """P-net as ONNX bytes: any picture of at least 12 x 12 pixels, one cell per stride of 2."""
    graph = GraphWriter("pnet")
    top = _trunk(graph, weights, pools={1: 2}, convolutions=3)
    kernel, bias = _heads(weights, "conv4_1", "conv4_2")
    top = graph.node(
        "Conv",
        [top, graph.constant("heads.weight", kernel), graph.constant("heads.bias", bias)],
        outputs="heads",
        kernel_shape=[1, 1],
    )
    _outputs(graph, top, widths={"offset": 4})
    image: Dimensions = ("batch", 3, "height", "width")
    cells = ("batch", "rows", "columns")
    offsets = ("batch", 4, "rows", "columns")
    return graph.to_bytes({"image": image}, {"score": cells, "offset": offsets})


def rnet(weights: Weights) -> bytes:
    """R-net as ONNX bytes: 24 x 24 crops."""
    graph = GraphWriter("rnet")
    top = _trunk(graph, weights, pools={1: 3, 2: 3}, convolutions=3)
    top = _dense(graph, weights, top=top, layer=4, channels=64)
    top = _dense_heads(graph, weights, top=top, heads=("dense5_1", "dense5_2"))
    _outputs(graph, top, widths={"offset": 4})
    return graph.to_bytes(
        {"image": ("batch", 3, 24, 24)}, {"score": ("batch",), "offset": ("batch", 4)}
    )


def onet(weights: Weights) -> bytes:
    """O-net as ONNX bytes: 48 x 48 crops."""
    graph = GraphWriter("onet")
    top = _trunk(graph, weights, pools={1: 3, 2: 3, 3: 2}, convolutions=4)
    top = _dense(graph, weights, top=top, layer=5, channels=128)
    top = _dense_heads(graph, weights, top=top, heads=("dense6_1", "dense6_2", "dense6_3"))
    _outputs(graph, top, widths={"offset": 4, "landmark": 10})
    return graph.to_bytes(
        {"image": ("batch", 3, 48, 48)},
        {"score": ("batch",), "offset": ("batch", 4), "landmark": ("batch", 10)},
    )


def _trunk(
    graph: GraphWriter, weights: Weights, *, pools: Mapping[int, int], convolutions: int
) -> str:
    """Unpadded convolutions with PReLU, pooled after the layers in ``pools`` (layer: kernel).

    The pools have stride 2 and round up. One row and column of padding behind the picture
    does that for kernels 2 and 3 at every size: the extra cells never win a maximum, and a
    window that would hold nothing else does not exist.
    """
    top = "image"
    for layer in range(1, convolutions + 1):
        kernel = graph.constant(f"conv{layer}.weight", weights[f"conv{layer}.weight"])
        bias = graph.constant(f"conv{layer}.bias", weights[f"conv{layer}.bias"])
        side = weights[f"conv{layer}.weight"].shape[2]
        top = graph.node(
            "Conv", [top, kernel, bias], outputs=f"conv{layer}", kernel_shape=[side, side]
        )
        slope = weights[f"prelu{layer}.weight"].reshape(-1, 1, 1)
        top = graph.node(
            "PRelu", [top, graph.constant(f"prelu{layer}.slope", slope)], outputs=f"prelu{layer}"
        )
        if layer in pools:
            side = pools[layer]
            top = graph.node(
                "MaxPool",
                [top],
                outputs=f"pool{layer}",
                kernel_shape=[side, side],
                strides=[2, 2],
                pads=[0, 0, 1, 1],
            )
    return top


def _dense(graph: GraphWriter, weights: Weights, *, top: str, layer: int, channels: int) -> str:
    """The first dense layer with PReLU, its columns reordered to N x C x H x W features.

    facenet-pytorch flattens width, height, channel; ONNX flattens channel, height, width.
    """
    matrix = weights[f"dense{layer}.weight"]
    side = round((matrix.shape[1] / channels) ** 0.5)
    matrix = matrix.reshape(-1, side, side, channels).transpose(0, 3, 2, 1)
    kernel = graph.constant(f"dense{layer}.weight", matrix.reshape(len(matrix), -1))
    bias = graph.constant(f"dense{layer}.bias", weights[f"dense{layer}.bias"])
    top = graph.node("Flatten", [top], outputs="flat", axis=1)
    top = graph.node("Gemm", [top, kernel, bias], outputs=f"dense{layer}", transB=1)
    slope = graph.constant(f"prelu{layer}.slope", weights[f"prelu{layer}.weight"])
    return graph.node("PRelu", [top, slope], outputs=f"prelu{layer}")


def _heads(weights: Weights, score: str, *others: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """All heads as one layer: first the logit difference face - background, then the rest.

    The softmax over two logits is the logistic function of their difference.
    """
    parts = []
    for kind in ("weight", "bias"):
        logits = weights[f"{score}.{kind}"].astype(np.float64)
        rest = [weights[f"{name}.{kind}"] for name in others]
        parts.append(np.concatenate([logits[1:2] - logits[0:1], *rest]))
    return parts[0], parts[1]


def _dense_heads(graph: GraphWriter, weights: Weights, *, top: str, heads: Sequence[str]) -> str:
    kernel, bias = _heads(weights, *heads)
    return graph.node(
        "Gemm",
        [top, graph.constant("heads.weight", kernel), graph.constant("heads.bias", bias)],
        outputs="heads",
        transB=1,
    )


def _outputs(graph: GraphWriter, top: str, *, widths: Mapping[str, int]) -> None:
    """Split the heads' channels into ``logit`` and ``widths``; the logit becomes ``score``.

    1 / (1 + exp(-logit)) is spelled out: runtimes approximate Sigmoid to 1e-7, which reorders
    faces whose scores lie that close to one, and suppression keeps the first.
    """
    sizes = graph.constant("heads.sizes", [1, *widths.values()], dtype="<i8")
    graph.node("Split", [top, sizes], outputs=["logit", *widths], axis=1)
    axis = graph.constant("logit.axis", [1], dtype="<i8")
    flat = graph.node("Squeeze", ["logit", axis], outputs="logit.flat")
    one = graph.constant("one", [1.0])
    odds = graph.node("Exp", [graph.node("Neg", [flat], outputs="logit.negative")], outputs="odds")
    graph.node("Div", [one, graph.node("Add", [odds, one], outputs="odds.one")], outputs="score")
