"""facenet's networks from TensorFlow checkpoints: which one it is, and its ONNX graph.

facenet's trainers saved the trainable variables, to which `slim`'s moving means and variances were
added; its tools restored exactly these. So do we: the exponential moving averages of the weights
(`.../ExponentialMovingAverage`, in some checkpoints of January 2017) were tracked but never used
for an embedding, and they are left out like the optimiser's slots and the class layer `Logits`.
Source: `train_softmax.py`, `train_tripletloss.py`, `freeze_graph.py` and `facenet.load_model` of
davidsandberg/facenet (2017 and 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from facenet.errors import ModelFileError
from facenet.models.convert.blocks import SIZE
from facenet.models.convert.checkpoint import Checkpoint, read_checkpoint
from facenet.models.convert.checkpoint_files import find_checkpoint
from facenet.models.convert.inception_resnet_v1 import inception_resnet_v1
from facenet.models.convert.inception_resnet_v2 import inception_resnet_v2
from facenet.models.convert.squeezenet import squeezenet

SCOPES: Final = {
    "InceptionResnetV1": "inception_resnet_v1",
    "InceptionResnetV2": "inception_resnet_v2",
    "squeezenet": "squeezenet",
}
"""The scope of each network's variables, and the network's name."""
_BUILDERS: Final[dict[str, Callable[..., bytes]]] = {
    "inception_resnet_v1": inception_resnet_v1,
    "inception_resnet_v2": inception_resnet_v2,
    "squeezenet": squeezenet,
}
_LAST_BLOCK: Final = {"inception_resnet_v1": "Block8_6", "inception_resnet_v2": "Block8_10"}
_LEAVES: Final = {"weights": "kernel", "biases": "bias"} | {
    name: name for name in ("beta", "gamma", "moving_mean", "moving_variance")
}
"""Last part of a variable's name, and what the builders call it."""
_TRACKED: Final = ("biased", "local_step")
"""What TensorFlow kept beside a moving mean that starts from zero."""
_BOTTLENECK: Final = "Bottleneck/"
_CLASS_LAYER: Final = "Logits"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a checkpoint holds.

    prefix: of its files. network: a value of SCOPES. dimension: values of an embedding. classes:
    people the class layer tells apart, None without one; it never becomes part of the graph.
    """

    prefix: Path
    network: str
    dimension: int
    classes: int | None


def inspect_checkpoint(path: Path) -> Contents:
    """What the checkpoint that `path` means holds; only its index is read.

    path: see `find_checkpoint`. Raises ModelFileError for another network, a class layer that
    does not fit the embedding, and as `find_checkpoint` and `read_checkpoint`; StorageError.
    """
    return _contents(read_checkpoint(find_checkpoint(path)))


def convert_checkpoint(path: Path, *, size: int = SIZE) -> bytes:
    """The ONNX bytes of the facenet network in a checkpoint.

    path: see `find_checkpoint`. size: sides of the picture in pixels, which a checkpoint does not
    tell; facenet's models have 160. See `inception_resnet_v1` for the graph: `image` to
    `embedding`, not yet of unit length. Raises ModelFileError as `inspect_checkpoint` and for
    damaged data; StorageError where the disk does not answer.
    """
    checkpoint = read_checkpoint(find_checkpoint(path))
    network = _contents(checkpoint).network
    wanted = layer_names(checkpoint.variables, network)
    arrays = checkpoint.read(wanted)
    strange = next((name for name, array in arrays.items() if array.dtype.kind != "f"), None)
    if strange is not None:
        raise ModelFileError(
            f"expected floating-point weights, but {strange[:120]!r} is of the type "
            f"{arrays[strange].dtype}; this is another network"
        )
    return build(network, {layer: arrays.pop(name) for name, layer in wanted.items()}, size=size)


def build(network: str, weights: Mapping[str, NDArray[Any]], *, size: int = SIZE) -> bytes:
    """The ONNX bytes of a network, a value of SCOPES, with weights named as its builder wants.

    Raises ModelFileError where the weights are not those of the network.
    """
    return _BUILDERS[network](weights, size=size)


def layer_names(variables: Iterable[str], network: str) -> dict[str, str]:
    """Variable -> LAYER/VARIABLE, the builder's name, for all a network needs to embed.

    `InceptionResnetV1/Repeat/block35_1/Branch_0/Conv2d_1x1/weights` is
    `Block35_1_Branch_0_Conv2d_1x1/kernel`. The bottleneck may lie outside the scope, as the
    trainers of early 2017 had it. Raises ModelFileError for a variable of the scope that is
    neither a weight nor something that belongs to one, and for two of the same name.
    """
    names = set(variables)
    (scope,) = (scope + "/" for scope, known in SCOPES.items() if known == network)
    outside = not any(name.startswith(scope + _BOTTLENECK) for name in names)
    layers: dict[str, str] = {}
    for name in sorted(names):
        if name.startswith(scope):
            inner = name.removeprefix(scope)
        elif outside and name.startswith(_BOTTLENECK):
            inner = name
        else:
            continue
        if not _belongs_to_another(name, names):
            layers[name] = _layer(name, inner, network)
    if len(set(layers.values())) < len(layers):
        raise ModelFileError(
            f"expected each layer of {network} once, but two variables have one name; this is "
            "another network"
        )
    return layers


def _belongs_to_another(name: str, names: set[str]) -> bool:
    """Whether it is an optimiser's slot or an average, which lie below their variable."""
    parts = name.split("/")
    if parts[-1] in _TRACKED:
        return True
    return any("/".join(parts[:count]) in names for count in range(1, len(parts)))


def _layer(name: str, inner: str, network: str) -> str:
    *parts, leaf = inner.split("/")
    if not parts or leaf not in _LEAVES:
        raise ModelFileError(
            f"expected only the layers of {network}, but there is also {name[:120]!r}; this is "
            "another network"
        )
    if parts[0].split("_")[0] == "Repeat" and len(parts) > 1:
        parts = [parts[1].capitalize(), *parts[2:]]
    elif parts[0] == "Block8":
        parts[0] = _LAST_BLOCK.get(network, parts[0])
    return f"{'_'.join(parts)}/{_LEAVES[leaf]}"


def _contents(checkpoint: Checkpoint) -> Contents:
    names = checkpoint.variables
    found = {name.split("/", 1)[0] for name in names if "/" in name} & set(SCOPES)
    if len(found) != 1:
        first = next(iter(names), "nothing")[:120]
        those = " and ".join(sorted(found)) or "none"
        raise ModelFileError(
            f"expected the variables of one network of facenet ({', '.join(SCOPES)}), but "
            f"{checkpoint.prefix.name[-120:]!r} has those of {those} (its first is {first!r}); "
            "this is another network"
        )
    network = SCOPES[found.pop()]
    layers = {layer: name for name, layer in layer_names(names, network).items()}
    dense = layers.get("Bottleneck/kernel")
    shape = names[dense].shape if dense is not None else ()
    if len(shape) != 2:
        raise ModelFileError(
            f"expected a dense layer 'Bottleneck' in {checkpoint.prefix.name[-120:]!r}, but it has "
            f"{f'the shape {shape}' if dense else 'none'}; this is another network"
        )
    return Contents(checkpoint.prefix, network, shape[1], _classes(checkpoint, shape[1]))


def _classes(checkpoint: Checkpoint, dimension: int) -> int | None:
    """How many people the class layer knows; its two parts and the embedding must agree."""
    found = [checkpoint.variables.get(f"{_CLASS_LAYER}/{leaf}") for leaf in ("weights", "biases")]
    weights, biases = (None if variable is None else variable.shape for variable in found)
    if weights is None and biases is None:
        return None
    classes = (weights or biases or (0,))[-1]
    if weights not in (None, (dimension, classes)) or biases not in (None, (classes,)):
        raise ModelFileError(
            f"expected a class layer for embeddings of {dimension} values, but its weights have "
            f"the shape {weights} and its biases {biases}; this checkpoint is mixed from two models"
        )
    return classes
