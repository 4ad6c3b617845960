"""The ONNX Runtime engine: always installed, every platform.

`onnxruntime.InferenceSession` accepts a missing device and quietly uses the CPU; here a device
that was asked for and is not there is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError
from facenet.models.engine import EngineSettings, Shape, check_feeds, description
from facenet.models.prelu import without_prelu
from facenet.runtime import failures, runtime

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


UNWANTED = ["WeightBiasQuantization"]
"""Rounds weights of an 8-bit graph that were left in float on purpose."""


def available() -> list[str]:
    """Device names that this ONNX Runtime can use."""
    onnxruntime = runtime()
    present = set(onnxruntime.get_available_providers())
    return [device for device, provider in _PROVIDERS.items() if provider in present]


class OrtEngine:
    """A graph in ONNX Runtime; follows the `Engine` protocol."""

    def __init__(self, graph: Path | bytes, settings: EngineSettings) -> None:
        onnxruntime = runtime()
        device = str(settings.device)
        if settings.precision not in ("fp32", "int8"):
            raise EngineError(
                f"ONNX Runtime has no {settings.precision} arithmetic on {device}. "
                'Use precision "fp32", or engine "openvino".'
            )
        if device not in available():
            raise EngineError(
                f"The device {device} was asked for; this ONNX Runtime "
                f"{onnxruntime.__version__} offers {', '.join(available())}. Install the build "
                f"of onnxruntime for {device}, or choose another device."
            )
        self._said = description(graph, settings, onnxruntime.__version__)
        own = device == "cpu" and settings.instructions == "auto"
        self._graph = graph if own else None
        self._session = _session(graph, _PROVIDERS[device], settings)
        self._inputs = {i.name: _shape(i.shape) for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Input names with their shapes, None for a free axis."""
        return self._inputs

    @property
    def graph(self) -> Path | bytes | None:
        """What it runs; None on another device than the processor or with its older
        instructions, where other code may not do the same."""
        return self._graph

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once, such as (n, 3, H, W) -> (n, d).

        Raises EngineError when the input does not fit or the run fails.
        """
        check_feeds(self._inputs, feeds)
        try:
            values = self._session.run(self._outputs, dict(feeds))
        except failures() as error:
            raise EngineError(f"ONNX Runtime could not run the graph: {error}") from error
        return dict(zip(self._outputs, values, strict=True))

    def describe(self) -> dict[str, Any]:
        """Runtime, version, device, precision, threads."""
        return dict(self._said)


def _session(graph: Path | bytes, provider: str, settings: EngineSettings) -> Any:
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads // settings.streams
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        made = without_prelu(graph) if provider == _PROVIDERS["cpu"] else None
        model = made or (graph if isinstance(graph, bytes) else str(graph))
        session = onnxruntime.InferenceSession(
            model, options, providers=[provider], enable_fallback=0, disabled_optimizers=UNWANTED
        )
    except failures() as error:
        name = "a graph from memory" if isinstance(graph, bytes) else graph
        raise EngineError(f"ONNX Runtime could not load {name}: {error}") from error
    session.disable_fallback()  # or a failing device would be left for the CPU during `run`
    if session.get_providers()[0] != provider:
        raise EngineError(
            f"{provider} was asked for, but ONNX Runtime fell back to "
            f"{session.get_providers()[0]}. Its drivers are probably missing on this machine."
        )
    return session


def _shape(shape: list[Any]) -> Shape:
    return tuple(size if isinstance(size, int) and size > 0 else None for size in shape)
