"""The one door to ONNX Runtime: imported silently, its many exceptions under one name."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


def runtime() -> Any:
    """The module `onnxruntime`, imported with its usage reports switched off.

    Its builds from 1.31 on report their use to Microsoft unless told not to before the import.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


@cache
def failures() -> tuple[type[Exception], ...]:
    """Everything ONNX Runtime raises; its own exceptions have no common class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as inner

    own = [kind for kind in vars(inner).values() if isinstance(kind, type)]
    return (*(k for k in own if issubclass(k, Exception)), RuntimeError, ValueError, OSError)
