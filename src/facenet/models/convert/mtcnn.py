"""The three MTCNN networks as ONNX graphs, from facenet-pytorch's or facenet's files of weights.

Source: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks" (2016). The weights of facenet-pytorch (`pnet.pt`, `rnet.pt`, `onet.pt`) and of facenet
(`det1.npy` to `det3.npy`) are those of the original Caffe release.

Input everywhere: ``image``, float32, N x 3 x H x W, RGB, (x - 127.5) * 0.0078125.
Outputs: ``score`` the probability of a face, ``offset`` the box correction (x1, y1, x2,
y2 in parts of the box) and, from O-net, ``landmark`` (5 x, then 5 y, in parts of the box).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.models.convert.numpyfile import MAGIC, read_layers
from facenet.models.convert.onnxgraph import Dimensions, GraphWriter
from facenet.models.convert.torchfile import read_state_dict

Weights = Mapping[str, NDArray[Any]]

LAYERS: Final[dict[str, dict[str, tuple[int, ...]]]] = {
    "pnet": {
        "conv1": (10, 3, 3, 3),
        "conv2": (16, 10, 3, 3),
        "conv3": (32, 16, 3, 3),
        "conv4_1": (2, 32, 1, 1),
        "conv4_2": (4, 32, 1, 1),
    },
    "rnet": {
        "conv1": (28, 3, 3, 3),
        "conv2": (48, 28, 3, 3),
        "conv3": (64, 48, 2, 2),
        "dense4": (128, 576),
        "dense5_1": (2, 128),
        "dense5_2": (4, 128),
    },
    "onet": {
        "conv1": (32, 3, 3, 3),
        "conv2": (64, 32, 3, 3),
        "conv3": (64, 64, 3, 3),
        "conv4": (128, 64, 2, 2),
        "dense5": (256, 1152),
        "dense6_1": (2, 256),
        "dense6_2": (4, 256),
        "dense6_3": (10, 256),
    },
}
"""Layers of each network in facenet-pytorch's names, with the shapes of their weights. Behind all
but the heads, which have an underscore, comes PReLU."""


def convert_mtcnn(data: bytes) -> tuple[str, bytes]:
    """Which network a file of weights holds, "pnet", "rnet" or "onet", and its ONNX bytes.

    data: the whole of `pnet.pt`, `rnet.pt` or `onet.pt` of facenet-pytorch, or of `det1.npy`,
    `det2.npy` or `det3.npy` of facenet. See `pnet`, `rnet` and `onet` for the graphs.
    Raises ModelFileError for another network and as `read_state_dict` and `read_layers`.
    """
    name, weights = read_mtcnn(data)
    return name, NETWORKS[name](weights)


def read_mtcnn(data: bytes) -> tuple[str, dict[str, NDArray[Any]]]:
    """Which network a file holds, and its weights: facenet-pytorch's name -> float32 array.

    Raises as `convert_mtcnn`.
    """
    if data.startswith(MAGIC):
        came = read_layers(data)
        renamed = {name: _pytorch_names(name) for name in LAYERS}
        name = _which(came, {net: names.keys() for net, names in renamed.items()})
        weights = {renamed[name].get(old, old): values.T for old, values in came.items()}
    else:
        weights = read_state_dict(data)
        name = _which(weights, {net: _shapes(net) for net in LAYERS})
    return name, _checked(name, weights)


def which_mtcnn(state: Weights) -> str | None:
    """The network, "pnet", "rnet" or "onet", whose every weight a state dict has, or None.

    state: facenet-pytorch's name -> array of any shape.
    """
    return next((net for net in LAYERS if _shapes(net).keys() <= state.keys()), None)


def _which(came: Iterable[str], networks: Mapping[str, Iterable[str]]) -> str:
    """The network that shares most names with a file: what is missing is told then."""
    shared = {net: len(set(came) & set(names)) for net, names in networks.items()}
    return max(shared, key=shared.__getitem__)


def _shapes(net: str) -> dict[str, tuple[int, ...]]:
    """Every weight of a network with its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, shape in LAYERS[net].items():
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
        if "_" not in layer:
            shapes[f"prelu{layer[-1]}.weight"] = shape[:1]
    return shapes


def _pytorch_names(net: str) -> dict[str, str]:
    """facenet's names of the weights of a network -> facenet-pytorch's.

    facenet calls every layer conv. Its axes are the other way round: (in, out), and (column, row,
    in, out), for its weights are meant for pictures whose rows and columns were exchanged.
    """
    names: dict[str, str] = {}
    for name in _shapes(net):
        layer, _, part = name.partition(".")
        if layer.startswith("prelu"):
            spelled = layer.replace("prelu", "PReLU") if net == "pnet" else layer
            names[f"{spelled}/alpha"] = name
        else:
            old = layer.replace("dense", "conv").replace("_", "-")
            names[f"{old}/{'weights' if part == 'weight' else 'biases'}"] = name
    return names


def _checked(net: str, weights: Weights) -> dict[str, NDArray[Any]]:
    """The weights as float32. Raises ModelFileError unless they are all of this network."""
    title = f"MTCNN's {net[0].upper()}-net"
    checked: dict[str, NDArray[Any]] = {}
    for name, shape in _shapes(net).items():
        if name not in weights:
            raise ModelFileError(
                f"expected the weights of {title}, but {name!r} is missing; the file is damaged "
                "or of another network"
            )
        values = weights[name]
        if values.shape != shape or values.dtype.kind != "f":
            raise ModelFileError(
                f"expected {name!r} of {title} to be real numbers of the shape {shape}, but it is "
                f"{values.dtype} of {values.shape}; this is another network"
            )
        if not np.all(np.isfinite(values)):
            raise ModelFileError(
                f"expected finite weights, but those of {name!r} are not; the file is damaged"
            )
        checked[name] = values.astype(np.float32)
    extra = next((name for name in weights if name not in checked), None)
    if extra is not None:
        raise ModelFileError(
            f"expected only the layers of {title}, but there is also {extra[:80]!r}; this is "
            "another network"
        )
    return checked


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


NETWORKS: Final[dict[str, Callable[[Weights], bytes]]] = {"pnet": pnet, "rnet": rnet, "onet": onet}
"""Name of a network -> the ONNX bytes of its weights."""
