"""The OpenVINO engine: the fastest on Intel and most AMD processors (extra `openvino`).

OpenVINO computes in bfloat16 by itself where the processor can; here the precision is always
the one that was asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError, MissingExtraError
from facenet.models.engine import EngineSettings, Shape

_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def installed() -> bool:
    """Whether OpenVINO can be imported, without importing it."""
    return find_spec("openvino") is not None


def available() -> list[str]:
    """Device names that this OpenVINO can use."""
    import openvino

    return sorted({name.split(".")[0].lower() for name in openvino.Core().available_devices})


class OpenVinoEngine:
    """A graph in OpenVINO; follows the `Engine` protocol."""

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        if not installed():
            raise MissingExtraError(
                'The engine "openvino" is not installed. Install it with '
                '`pip install "facenet[openvino]"`, or use engine "onnxruntime".'
            )
        import openvino

        core = openvino.Core()
        self._settings = settings
        self._version = openvino.__version__.split("-")[0]
        device = str(settings.device).upper()
        _require(core, device, settings.precision)
        self._compiled = _compile(core, path, device, settings)
        self._request = self._compiled.create_infer_request()
        self._lock = threading.Lock()
        self._inputs = {i.any_name: _shape(i.partial_shape) for i in self._compiled.inputs}
        self._outputs = [sorted(output.get_names()) for output in self._compiled.outputs]

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Input names with their shapes, None for a free axis."""
        return self._inputs

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once; an output that has several names is given under each.

        Raises EngineError when the runtime refuses the input.
        """
        try:
            with self._lock:
                answer = self._request.infer(dict(feeds), share_inputs=True)
        except (RuntimeError, ValueError, KeyError) as error:
            raise EngineError(f"OpenVINO could not run the graph: {error}") from error
        values = [answer[index] for index in range(len(self._outputs))]
        return {
            name: value
            for names, value in zip(self._outputs, values, strict=True)
            for name in names
        }

    def describe(self) -> dict[str, Any]:
        """Runtime, version, device, precision, threads."""
        return {
            "engine": "openvino",
            "version": self._version,
            "device": self._settings.device,
            "precision": self._settings.precision,
            "threads": self._settings.threads,
        }


def _require(core: Any, device: str, precision: str) -> None:
    present = [name.split(".")[0] for name in core.available_devices]
    if device not in present:
        raise EngineError(
            f"The device {device.lower()} was asked for; OpenVINO finds "
            f"{', '.join(sorted(set(present))).lower()}. Choose another device or install its driver."
        )
    capable = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in capable:
        raise EngineError(
            "bf16 was asked for; this processor has no bfloat16 arithmetic. "
            'Use precision "fp32".'
        )


def _compile(core: Any, path: Path, device: str, settings: EngineSettings) -> Any:
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _PRECISIONS[settings.precision]}
    if device == "CPU":
        options |= {
            "INFERENCE_NUM_THREADS": settings.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
    try:
        return core.compile_model(str(path), device, options)
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"OpenVINO could not load {path}: {error}") from error


def _shape(shape: Any) -> Shape:
    return tuple(int(size.get_length()) if size.is_static else None for size in shape)
