"""The weights inside a Keras file (HDF5), read without Keras; facenet's network from them.

Keras wrote `model_weights/LAYER/LAYER/VARIABLE:0` for a whole model, and the same without
`model_weights` for weights alone (keras/engine/saving.py, 2.1). Only these arrays are read:
attributes, where Keras keeps the architecture and marshalled Python code, are never looked at.
HDF5 is parsed by h5py (extra `keras`), a native library, so what it is asked for is narrow: hard
links at a fixed depth, plain float32 arrays that lie in the file itself and fit into it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import MissingExtraError, ModelFileError
from facenet.models.convert.inception_resnet_v1 import inception_resnet_v1

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""
MAX_LAYERS: Final = 4096
"""Most layers of a file that is read; Inception-ResNet-v1 has 426."""
MAX_VARIABLES: Final = 16
"""Most arrays of one layer."""
_WHOLE_MODEL: Final = "model_weights"

_FOREIGN = (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError)
"""What h5py raises for damaged files."""


def convert_keras(data: bytes) -> bytes:
    """The ONNX bytes of an Inception-ResNet-v1 of facenet, saved by Keras.

    data: the whole `.h5` file. See `inception_resnet_v1` for the graph that comes of it.
    Raises MissingExtraError without h5py, ModelFileError for another network and as
    `read_keras_weights`.
    """
    return inception_resnet_v1(read_keras_weights(data))


def read_keras_weights(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The arrays of a Keras file as LAYER/VARIABLE -> float32 array.

    data: the whole file. Takes at most as much memory again as the file has bytes.
    Raises MissingExtraError without h5py, ModelFileError for anything but plain weights.
    """
    h5py = load_h5py()
    if not data.startswith(SIGNATURE):
        raise _refusal("bytes of another kind")
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _read(h5py, file, budget=len(data))
    except _FOREIGN as error:
        raise _refusal(f"damaged parts ({' '.join(str(error).split())[:120]})") from error


def load_h5py() -> Any:
    """The module h5py. Raises MissingExtraError when it is not installed or does not load."""
    try:
        import h5py
    except (ImportError, OSError) as error:
        raise MissingExtraError(
            f"Reading a Keras file (.h5) needs h5py, which cannot be loaded: {error}. Install it "
            'with `pip install "facenet[keras]"`.'
        ) from error
    return h5py


def _read(h5py: Any, file: Any, *, budget: int) -> dict[str, NDArray[np.float32]]:
    arrays: dict[str, NDArray[np.float32]] = {}
    for layer, variable, dataset in _datasets(h5py, file):
        name = f"{layer}/{variable}"
        if name in arrays:
            raise _refusal(f"{name[:80]!r} twice")
        budget -= _checked_size(h5py, dataset, name)
        if budget < 0:
            raise _refusal("more values than bytes (one array under many names?)")
        arrays[name] = dataset[()]
    return arrays


def _datasets(h5py: Any, file: Any) -> Iterator[tuple[str, str, Any]]:
    """Layer, variable and array of everything at the depth where Keras keeps weights."""
    top = file
    if file.get(_WHOLE_MODEL, getlink=True) is not None:
        top = _child(h5py, file, _WHOLE_MODEL, kind=h5py.Group)
    if len(top) > MAX_LAYERS:
        raise _refusal(f"{len(top)} layers, more than the {MAX_LAYERS} that are read")
    for layer in top:
        outer = _child(h5py, top, layer, kind=h5py.Group)
        if len(outer) == 0:  # a layer without weights
            continue
        if list(outer)[:2] != [layer]:
            raise _refusal(f"a layer {layer[:80]!r} that is not in a group of its own name")
        inner = _child(h5py, outer, layer, kind=h5py.Group)
        if len(inner) > MAX_VARIABLES:
            raise _refusal(f"{len(inner)} arrays in the layer {layer[:80]!r}")
        for variable in inner:
            dataset = _child(h5py, inner, variable, kind=h5py.Dataset)
            yield layer, variable.removesuffix(":0"), dataset


def _child(h5py: Any, group: Any, name: str, *, kind: Any) -> Any:
    """A member of a group that is really in this file, and of this kind."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise _refusal(f"a link {name[:80]!r} to another place")
    child = group[name]
    if not isinstance(child, kind):
        raise _refusal(f"a {type(child).__name__.lower()} {name[:80]!r} in an unexpected place")
    return child


def _checked_size(h5py: Any, dataset: Any, name: str) -> int:
    """Bytes of an array that is float32, unpacked and in the file itself."""
    plan = dataset.id.get_create_plist()
    layouts = (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
    if plan.get_layout() not in layouts or plan.get_external_count() or plan.get_nfilters():
        raise _refusal(f"{name[:80]!r} in pieces, compressed or in another file")
    if dataset.shape is None:
        raise _refusal(f"{name[:80]!r} without values")
    if dataset.dtype != np.float32:
        raise _refusal(f"{name[:80]!r} of the type {str(dataset.dtype)[:40]}")
    size = 4
    for side in dataset.shape:
        size *= int(side)
    if dataset.id.get_storage_size() != size:
        raise _refusal(f"{name[:80]!r} with other bytes than its shape asks for")
    return size


def _refusal(came: str) -> ModelFileError:
    return ModelFileError(
        f"expected a Keras file (HDF5) with plain float32 weights, but it holds {came}; "
        "get the file again, or save the weights with Keras 2 as .h5"
    )
