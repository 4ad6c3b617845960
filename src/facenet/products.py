"""Exact products of 8-bit integers: what a scan of a large gallery is made of.

A row is d unsigned bytes, a query d signed ones, a product their inner product as an integer;
no rounding anywhere. ONNX Runtime's MatMulInteger has the processor's own instructions for it
(AMX, VNNI, dot products of ARM). On x86 with AVX2 alone it multiplies by `vpmaddubsw`, which adds
two products in 16 bits and saturates there: 2 * 255 * 127 is too much, 2 * 255 * 64 is not. So it
is tried on the largest values before it is used; where it is wrong, queries keep to 64 and it is
tried again, and where it is still wrong NumPy multiplies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.runtime import failures, runtime

LIMITS = (127, 64)
"""Largest components of a query, the better first."""
EXACT_COLUMNS = 512
"""Values of a row whose products add up below 2**24: 512 * 255 * 127. All such sums, in any order,
with or without fused operations, are integers that fp32 holds exactly."""
FEW_ROWS = 1024
"""Rows that NumPy turns into fp32 at a time: 2 MB of 512 values."""

Bytes = NDArray[np.uint8]
SignedBytes = NDArray[np.int8]
Sums = NDArray[np.int32]


class Products(Protocol):
    """Something that multiplies rows by queries exactly. Safe to use from several threads."""

    @property
    def limit(self) -> int:
        """Largest absolute value that a query may hold."""
        ...

    def multiply(self, rows: Bytes, queries: SignedBytes, out: Sums) -> None:
        """Rows uint8 (n, d) times queries int8 (d, m) into out int32 (n, m), all C-contiguous.

        d is at most 65,536, so that no sum leaves 32 bits.
        """
        ...


class NumpyProducts:
    """Products by fp32 matrix products of BLAS, in slices in which they are exact."""

    limit = LIMITS[0]

    def multiply(self, rows: Bytes, queries: SignedBytes, out: Sums) -> None:
        """See `Products`: (n, d) times (d, m) into (n, m)."""
        require_fit(rows, queries, out)
        for start in range(0, len(rows), FEW_ROWS):
            part = slice(start, start + FEW_ROWS)
            out[part] = 0
            for column in range(0, rows.shape[1], EXACT_COLUMNS):
                values = slice(column, column + EXACT_COLUMNS)
                left = rows[part, values].astype(np.float32)
                right = queries[values].astype(np.float32)
                out[part] += (left @ right).astype(np.int32)


class OrtProducts:
    """Products by ONNX Runtime, without a copy of the rows, on the thread that asks."""

    def __init__(self, limit: int = LIMITS[0]) -> None:
        self.limit = limit
        self._session = _session()

    def multiply(self, rows: Bytes, queries: SignedBytes, out: Sums) -> None:
        """See `Products`: (n, d) times (d, m) into (n, m)."""
        require_fit(rows, queries, out)
        binding = self._session.io_binding()
        for name, array in (("rows", rows), ("queries", queries)):
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, _address(array))
        binding.bind_output("sums", "cpu", 0, np.int32, out.shape, _address(out))
        self._session.run_with_iobinding(binding)


@cache
def best_products() -> Products:
    """The fastest products that are exact on this machine, tried once in a process."""
    return choose(partial(OrtProducts, limit) for limit in LIMITS)


def choose(candidates: Iterable[Callable[[], Products]]) -> Products:
    """The first candidate that can be made and is exact, else NumPy's."""
    for make in candidates:
        try:
            products = make()
            if exact(products):
                return products
        except failures():
            continue
    return NumpyProducts()


def exact(products: Products) -> bool:
    """Whether products are right on the largest values and on random ones, for several shapes."""
    rng = np.random.default_rng(0)
    limit = products.limit
    for n, d, m in ((70, 512, 1), (70, 512, 64), (33, 515, 3), (5, 2, 17), (1, 1, 1)):
        rows = rng.integers(0, 256, (n, d), dtype=np.uint8)
        rows[::3], rows[1::3] = 255, 0
        queries = rng.integers(-limit, limit + 1, (d, m)).astype(np.int8)
        queries[:, ::3] = limit
        queries[:, 1::3] = -limit
        out = np.empty((n, m), np.int32)
        products.multiply(rows, queries, out)
        if not np.array_equal(out, rows.astype(np.int64) @ queries.astype(np.int64)):
            return False
    return True


def require_fit(rows: Bytes, queries: SignedBytes, out: Sums) -> None:
    """Raise InputError unless rows (n, d), queries (d, m) and out (n, m) can be multiplied.

    ONNX Runtime is given bare addresses, so this must hold before it runs.
    """
    fits = (
        rows.dtype == np.uint8
        and queries.dtype == np.int8
        and out.dtype == np.int32
        and rows.ndim == queries.ndim == out.ndim == 2
        and rows.shape[1] == len(queries)
        and out.shape == (len(rows), queries.shape[1])
        and all(array.flags.c_contiguous for array in (rows, queries, out))
    )
    if not fits:
        raise InputError(
            "Rows and queries to multiply should be contiguous uint8 (n, d) and int8 (d, m), with "
            f"int32 (n, m) for the sums; got {rows.dtype} {rows.shape}, {queries.dtype} "
            f"{queries.shape} and {out.dtype} {out.shape}."
        )


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _session() -> Any:
    """A graph of one node, for the thread that runs it: callers bring their own threads."""
    from onnx import TensorProto, helper

    shapes = {"rows": TensorProto.UINT8, "queries": TensorProto.INT8, "sums": TensorProto.INT32}
    values = [helper.make_tensor_value_info(n, kind, [None, None]) for n, kind in shapes.items()]
    node = helper.make_node("MatMulInteger", ["rows", "queries"], ["sums"])
    graph = helper.make_graph([node], "products", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
