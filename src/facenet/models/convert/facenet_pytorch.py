"""facenet-pytorch's InceptionResnetV1 from its state dict, read without torch.

Source: `models/inception_resnet_v1.py` of timesler/facenet-pytorch 2.6, whose published files
(`20180402-114759-vggface2.pt`, `20180408-102900-casia-webface.pt`) are facenet's own weights of
2018 under other names. Its normalisations have a gamma (`bn.weight`), one everywhere in the
published files and something else after further training; it is folded in here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.models.convert.inception_resnet_v1 import (
    BLOCK8,
    BLOCK17,
    BLOCK35,
    MIXED_6A,
    MIXED_7A,
    STEM,
    STEM_POOLED,
    Branches,
    inception_resnet_v1,
)
from facenet.models.convert.torchfile import read_state_dict

Array = NDArray[Any]

MARK: Final = "conv2d_1a.conv.weight"
"""The tensor by which a state dict is known to be one of this network."""
_PARALLEL: Final = "module."
"""What torch's DataParallel writes in front of every name."""
_COUNTERS: Final = ".num_batches_tracked"
"""How long a normalisation was trained, which says nothing about what it computes."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The weights of an InceptionResnetV1, and how many people its class layer knows.

    weights: LAYER/VARIABLE -> float array, as `inception_resnet_v1` takes them. dimension: values
    of a vector. classes: None where the file has no class layer, which is never part of the graph.
    """

    weights: Mapping[str, Array]
    dimension: int
    classes: int | None


def convert_state_dict(data: bytes) -> bytes:
    """The ONNX bytes of an InceptionResnetV1 of facenet-pytorch.

    data: the whole `.pt` file, with or without the class layer. See `inception_resnet_v1` for the
    graph: `image` (N, 3, 160, 160) to `embedding` (N, D), not yet of unit length.
    Raises ModelFileError for another network, and as `read_state_dict`.
    """
    return inception_resnet_v1(read_network(read_state_dict(data)).weights)


def is_facenet_pytorch(state: Mapping[str, Array]) -> bool:
    """Whether a state dict (name -> array of any shape) is one of an InceptionResnetV1."""
    return MARK in state or _PARALLEL + MARK in state


def read_network(state: Mapping[str, Array]) -> Network:
    """The weights under the names of facenet's scopes, gamma folded in.

    state: name -> float array, as `read_state_dict` gives it; kernels are (out, in, height, width).
    Raises ModelFileError for a tensor that is missing, too many, or of another kind.
    """
    left = _Tensors(state)
    weights: dict[str, Array] = {}
    with np.errstate(all="ignore"):  # strange numbers are refused where the graph is written
        for torch_name, name in _units():
            kernel = left.take(f"{torch_name}.conv.weight", 4).transpose(2, 3, 1, 0)
            weights |= left.normalised(f"{torch_name}.bn", name, kernel)
        for torch_name, name in _wide():
            kernel = left.take(f"{torch_name}.weight", 4)
            weights[f"{name}/kernel"] = kernel.transpose(2, 3, 1, 0)
            weights[f"{name}/bias"] = left.take(f"{torch_name}.bias", 1)
        dense = left.take("last_linear.weight", 2).T
        weights |= left.normalised("last_bn", "Bottleneck", dense)
    classes = left.classes(dense.shape[1])
    left.finish()
    return Network(weights, dense.shape[1], classes)


def _units() -> Iterator[tuple[str, str]]:
    """Names of every convolution with normalisation: facenet-pytorch's and facenet's."""
    for unit in (*STEM, *STEM_POOLED):
        yield unit.name.lower().rsplit("_", 1)[0], unit.name
    for torch_name, name, branches in _branched():
        for number, units in enumerate(branches):
            for step, unit in enumerate(units):
                place = f".{step}" if len(units) > 1 else ""
                yield f"{torch_name}.branch{number}{place}", f"{name}_{unit.name}"


def _branched() -> Iterator[tuple[str, str, Branches]]:
    for torch_name, block in (("repeat_1", BLOCK35), ("repeat_2", BLOCK17), ("repeat_3", BLOCK8)):
        for number in range(block.repeats):
            yield f"{torch_name}.{number}", f"{block.name}_{number + 1}", block.branches
    yield "block8", "Block8_6", BLOCK8.branches
    yield "mixed_6a", "Mixed_6a", MIXED_6A
    yield "mixed_7a", "Mixed_7a", MIXED_7A


def _wide() -> Iterator[tuple[str, str]]:
    """Names of the widening convolution of every residual block, which has a bias instead."""
    for torch_name, name, _ in _branched():
        if not torch_name.startswith("mixed"):
            yield f"{torch_name}.conv2d", f"{name}_Conv2d_1x1"


class _Tensors:
    """The tensors of a state dict that are not used yet."""

    def __init__(self, state: Mapping[str, Array]) -> None:
        parallel = all(name.startswith(_PARALLEL) for name in state)
        skip = len(_PARALLEL) if parallel else 0
        self._left = {
            name[skip:]: array for name, array in state.items() if not name.endswith(_COUNTERS)
        }

    def take(self, name: str, axes: int) -> Array:
        """A tensor in float64, which is then used up."""
        if name not in self._left:
            raise ModelFileError(
                f"expected the weights of facenet-pytorch's InceptionResnetV1, but {name!r} is "
                "missing; the file is damaged or of another network"
            )
        values = self._left.pop(name)
        if values.ndim != axes or values.dtype.kind != "f":
            raise ModelFileError(
                f"expected {name!r} to be real numbers along {axes} axes, but it is "
                f"{values.dtype} of the shape {values.shape}; this is another network"
            )
        return values.astype(np.float64)

    def normalised(self, torch_name: str, name: str, kernel: Array) -> dict[str, Array]:
        """A kernel and its normalisation with gamma folded in: gamma scales kernel and mean."""
        parts = {
            part: self.take(f"{torch_name}.{part}", 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        width = (kernel.shape[-1],)
        for part, values in parts.items():
            if values.shape != width:
                raise ModelFileError(
                    f"expected {torch_name}.{part} of the shape {width}, but it is "
                    f"{values.shape}; this is another network"
                )
        gamma = parts["weight"]
        return {
            f"{name}/kernel": kernel * gamma,
            f"{name}_BatchNorm/beta": parts["bias"],
            f"{name}_BatchNorm/moving_mean": parts["running_mean"] * gamma,
            f"{name}_BatchNorm/moving_variance": parts["running_var"],
        }

    def classes(self, dimension: int) -> int | None:
        """Rows of the class layer, which is then used up; None where there is none."""
        if not {"logits.weight", "logits.bias"} & self._left.keys():
            return None
        weight, bias = self.take("logits.weight", 2), self.take("logits.bias", 1)
        if weight.shape != (len(bias), dimension):
            raise ModelFileError(
                f"expected a class layer of {len(bias)} x {dimension}, as its bias and the vectors "
                f"say, but it is {' x '.join(map(str, weight.shape))}; the file is damaged or of "
                "another network"
            )
        return len(bias)

    def finish(self) -> None:
        """Raises ModelFileError unless every tensor was used."""
        if self._left:
            raise ModelFileError(
                "expected only the layers of facenet-pytorch's InceptionResnetV1, but there is "
                f"also {next(iter(self._left))[:80]!r}; this is another network"
            )
