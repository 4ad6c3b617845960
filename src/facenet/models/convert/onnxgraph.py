"""Writing ONNX graphs whose bytes depend on nothing but their content.

Source: the ONNX operator set 17 (IR 8), which ONNX Runtime and OpenVINO both run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from facenet.errors import ModelFileError

OPSET: Final = 17
"""Version of the operator set every written graph declares."""
IR_VERSION: Final = 8
"""Version of the file format every written graph declares."""
PRODUCER: Final = "facenet"
"""Producer name inside every written file; there is no version and no date."""

MAX_CONSTANT_BYTES: Final = 2_000_000_000
"""Most bytes of constants in one graph: a Protocol Buffers message ends at 2 GiB."""

Dimensions = Sequence[int | str]
"""A shape with numbers for fixed and names for free axes."""


class GraphWriter:
    """Collects nodes and constants in order and serialises them.

    Tensors are named by the caller; a name may be written once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._names: set[str] = set()
        self._size = 0

    def constant(self, name: str, values: ArrayLike, *, dtype: str = "<f4") -> str:
        """Store ``values`` as a constant tensor (float32 by default) and return ``name``."""
        with np.errstate(all="ignore"):
            array = np.array(values, dtype=dtype, order="C")
        self._size += array.nbytes
        if self._size > MAX_CONSTANT_BYTES:
            raise ModelFileError(
                f"expected at most {MAX_CONSTANT_BYTES} bytes of weights, but {name!r} exceeds "
                "them; an ONNX file cannot hold more"
            )
        self._claim(name)
        self._constants[name] = array
        return name

    def node(
        self, op: str, inputs: Sequence[str], *, outputs: str | Sequence[str], **attrs: Any
    ) -> str:
        """Append one operator, named like its first output, and return that name."""
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        for name in names:
            self._claim(name)
        self._nodes.append(helper.make_node(op, list(inputs), names, name=names[0], **attrs))
        return names[0]

    def _claim(self, name: str) -> None:
        if name in self._names:
            raise ModelFileError(f"expected unique tensor names, but {name!r} came twice")
        self._names.add(name)

    def to_bytes(
        self, inputs: Mapping[str, Dimensions], outputs: Mapping[str, Dimensions]
    ) -> bytes:
        """The checked ONNX file; ``inputs`` and ``outputs`` map float32 tensors to shapes."""
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [_declare(name, shape) for name, shape in inputs.items()],
            [_declare(name, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        model = helper.make_model(
            graph,
            producer_name=PRODUCER,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise ModelFileError(f"expected a valid ONNX graph, but {error}") from error
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _declare(name: str, shape: Dimensions) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
