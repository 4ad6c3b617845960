"""The OpenVINO engine: the fastest on Intel and most AMD processors (extra `openvino`).

OpenVINO computes in bfloat16 by itself where the processor can; here the precision is always
the one that was asked for.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError, MissingExtraError
from facenet.models.engine import EngineSettings, Shape, check_feeds

_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
_HINT = "INFERENCE_PRECISION_HINT"


PACKAGE = "openvino"

NO_BF16 = 'bf16 was asked for; this processor has no bfloat16 arithmetic. Use precision "fp32".'
"""Why bf16 cannot be had on this machine."""


def installed(package: str = PACKAGE) -> bool:
    """Whether OpenVINO can be imported, without importing it."""
    return find_spec(package) is not None


def available() -> list[str]:
    """Device names that this OpenVINO can use."""
    return _present(_import(PACKAGE).Core())


class OpenVinoEngine:
    """A graph in OpenVINO; follows the `Engine` protocol.

    package: the module that is OpenVINO. Raises MissingExtraError when it is not installed.
    """

    def __init__(
        self, graph: Path | bytes, settings: EngineSettings, *, package: str = PACKAGE
    ) -> None:
        openvino = _import(package)
        core = openvino.Core()
        self._settings = settings
        self._version = openvino.__version__.split("-")[0]
        device = str(settings.device).upper()
        _require(core, device, settings.precision)
        self._compiled = _compile(core, graph, device, settings)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(settings.streams):
            self._free.put(self._compiled.create_infer_request())
        self._inputs = {i.any_name: _shape(i.partial_shape) for i in self._compiled.inputs}
        self._outputs = [sorted(output.get_names()) for output in self._compiled.outputs]

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Input names with their shapes, None for a free axis."""
        return self._inputs

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once, such as (n, 3, H, W) -> (n, d).

        An output that has several names is given under each.

        Raises EngineError when the input does not fit or the run fails.
        """
        check_feeds(self._inputs, feeds)
        request = self._free.get()
        try:
            answer = request.infer(dict(feeds), share_inputs=True)
        except (RuntimeError, ValueError, KeyError) as error:
            raise EngineError(f"OpenVINO could not run the graph: {error}") from error
        finally:
            self._free.put(request)
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


def _import(package: str) -> Any:
    """The module `openvino`, imported with its usage reports switched off.

    Its import reports to Google Analytics when `openvino_telemetry` can be imported; without
    that module it uses a stand-in of its own that sends nothing.
    """
    if not installed(package):
        raise MissingExtraError(
            'The engine "openvino" is not installed. Install it with '
            '`pip install "facenet[openvino]"`, or use engine "onnxruntime".'
        )
    sys.modules.setdefault(f"{PACKAGE}_telemetry", None)  # type: ignore[arg-type]
    try:
        return import_module(package)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"OpenVINO is installed but cannot be loaded: {error}. "
            'Install it again, or use engine "onnxruntime".'
        ) from error


def _present(core: Any) -> list[str]:
    return sorted({name.split(".")[0].lower() for name in core.available_devices})


def _require(core: Any, device: str, precision: str) -> None:
    present = _present(core)
    if device.lower() not in present:
        raise EngineError(
            f"The device {device.lower()} was asked for; OpenVINO finds {', '.join(present)}. "
            "Choose another device or install its driver."
        )
    capable = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in capable:
        raise EngineError(NO_BF16)


def _compile(core: Any, graph: Path | bytes, device: str, settings: EngineSettings) -> Any:
    options: dict[str, Any] = {_HINT: _PRECISIONS[settings.precision]}
    if device == "CPU":
        options |= {
            "INFERENCE_NUM_THREADS": settings.threads,
            "NUM_STREAMS": settings.streams,
            "ENABLE_CPU_PINNING": False,
        }
    try:
        model = graph if isinstance(graph, bytes) else str(graph)
        compiled = core.compile_model(core.read_model(model), device, options)
        granted = compiled.get_property(_HINT).get_type_name()
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"OpenVINO could not load {_named(graph)}: {error}") from error
    if granted != options[_HINT]:
        raise EngineError(
            f"{settings.precision} was asked for; OpenVINO computes in {granted} on "
            f"{device.lower()}. Choose another precision or device."
        )
    return compiled


def _named(graph: Path | bytes) -> str:
    return "a graph from memory" if isinstance(graph, bytes) else str(graph)


def _shape(shape: Any) -> Shape:
    return tuple(int(size.get_length()) if size.is_static else None for size in shape)
