"""The weights of facenet's networks: from torch to the builders of ONNX graphs, and back.

Source: `models/utils/tensorflow2pytorch.py` of timesler/facenet-pytorch. Kernels are (height,
width, in, out) in TensorFlow and (out, in, height, width) in torch; facenet's normalisation has no
gain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facenet.errors import ModelFileError
from facenet.train.backbones.inception_resnet_v1 import ConvUnit, FacenetBackbone

Array = NDArray[Any]

_PARTS: Final = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
"""What torch and facenet call the parts of a normalisation without gain."""


def graph_weights(network: FacenetBackbone) -> dict[str, Array]:
    """The weights as the builders of `facenet.models.convert` take them.

    Gives LAYER/VARIABLE -> float64 array; kernels are (height, width, in, out). The gain is
    multiplied into kernel and mean, since facenet's normalisation has none.
    """
    state = {name: value.cpu().double().numpy() for name, value in network.state_dict().items()}
    weights: dict[str, Array] = {}
    for kernel, norm, layer in _places(network):
        values = state[kernel].transpose(tuple(range(2, state[kernel].ndim)) + (1, 0))
        if norm is None:
            weights[f"{layer}/bias"] = state[kernel.replace(".weight", ".bias")]
        else:
            gain = state[f"{norm}.weight"]
            values = values * gain
            for part, variable in _PARTS.items():
                scale = gain if part == "running_mean" else 1.0
                weights[f"{layer}_BatchNorm/{variable}"] = state[f"{norm}.{part}"] * scale
        weights[f"{layer}/kernel"] = values
    return weights


def load_graph_weights(network: FacenetBackbone, weights: Mapping[str, Array]) -> None:
    """Puts weights of facenet's TensorFlow or Keras files into a network; each gain becomes 1.

    weights: as `graph_weights` gives them and `facenet.models.convert` reads them from files.
    Raises ModelFileError for an array that is missing, too many, of another shape or not finite;
    the network is then unchanged.
    """
    left = dict(weights)
    state = network.state_dict()
    loaded: dict[str, Tensor] = {}
    for kernel, norm, layer in _places(network):
        sources = {kernel: f"{layer}/kernel"}
        if norm is None:
            sources[kernel.replace(".weight", ".bias")] = f"{layer}/bias"
        else:
            loaded[f"{norm}.weight"] = torch.ones_like(state[f"{norm}.weight"])
            sources |= {f"{norm}.{part}": f"{layer}_BatchNorm/{v}" for part, v in _PARTS.items()}
        missing = [source for source in sources.values() if source not in left]
        if missing:
            raise ModelFileError(
                f"expected the weights of {type(network).__name__}, but {missing[0]!r} is missing; "
                "the file is damaged or of another network"
            )
        for name, source in sources.items():
            loaded[name] = _tensor(source, left.pop(source), state[name])
    if left:
        raise ModelFileError(
            f"expected only the layers of {type(network).__name__}, but there is also "
            f"{next(iter(left))[:80]!r}; this is another network"
        )
    network.load_state_dict(loaded, strict=False)


def _tensor(name: str, values: Array, like: Tensor) -> Tensor:
    """An array as the tensor it is to become."""
    values = values.transpose((*range(values.ndim)[:-3:-1], *range(values.ndim - 2)))
    if values.shape != tuple(like.shape):
        raise ModelFileError(
            f"expected {name!r} to fit a tensor {tuple(like.shape)}, but it is {values.shape} in "
            "torch's order; this is another network"
        )
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    if not torch.isfinite(tensor).all():
        raise ModelFileError(
            f"expected finite weights, but those of {name!r} are not; the file is damaged"
        )
    return tensor


def _places(network: FacenetBackbone) -> Iterator[tuple[str, str | None, str]]:
    """Of each layer the names of its kernel, of its normalisation (or None) and in the graph."""
    for name, layer in network.layers().items():
        if isinstance(network.get_submodule(name), ConvUnit):
            yield f"{name}.conv.weight", f"{name}.bn", layer
        else:
            yield f"{name}.weight", None, layer
    yield "last_linear.weight", "last_bn", "Bottleneck"
