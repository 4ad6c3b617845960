"""Engines: a loaded graph that runs, whatever runtime is behind it.

A fake for tests is any object with these three members; it enters through constructors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError, SettingsError
from facenet.models.home import cpu_threads, environment

Shape = tuple[int | None, ...]


class Engine(Protocol):
    """A loaded graph.

    `inputs` maps names to shapes (None = any size). `run` takes float32 arrays by input name and
    gives float32 arrays by output name. `describe` says runtime, version, device, precision.
    """

    @property
    def inputs(self) -> Mapping[str, Shape]: ...

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]: ...

    def describe(self) -> dict[str, Any]: ...


ENGINES = ("auto", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16")
DEVICES = {
    "cpu": ("onnxruntime", "openvino"),
    "cuda": ("onnxruntime",),
    "coreml": ("onnxruntime",),
    "gpu": ("openvino",),
    "npu": ("openvino",),
}
"""Device name -> runtimes that can serve it ("gpu" and "npu" are Intel's, through OpenVINO)."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What runs a graph.

    engine: "auto", "onnxruntime" or "openvino". device: a key of `DEVICES`, or None for
    FACENET_DEVICE (cpu). precision: "fp32" or "bf16". threads: 0 = what the CPU quota allows.
    """

    engine: str = "auto"
    device: str | None = None
    precision: str = "fp32"
    threads: int = 0

    def __post_init__(self) -> None:
        device = self.device or environment().device
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "threads", self.threads or cpu_threads())
        _check("engine", self.engine, ENGINES)
        _check("precision", self.precision, PRECISIONS)
        _check("device", device, tuple(DEVICES))
        if self.threads < 1:
            raise SettingsError(f"threads should be 1 or more; got {self.threads}.")
        if self.engine != "auto" and self.engine not in DEVICES[device]:
            raise EngineError(
                f"The device {device} runs with {' or '.join(DEVICES[device])}, not with "
                f"{self.engine}. Choose another engine or device."
            )


def _check(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{what} should be one of {', '.join(choices)}; got {value!r}.")


def open_engine(path: Path, settings: EngineSettings) -> Engine:
    """Load a graph with a named runtime (not "auto": see `loader.load_model`).

    Raises EngineError when the runtime or the device is missing, or the file does not load.
    """
    openers: dict[str, Callable[[Path, EngineSettings], Engine]] = {
        "onnxruntime": _open_onnxruntime,
        "openvino": _open_openvino,
    }
    return openers[settings.engine](path, settings)


def _open_onnxruntime(path: Path, settings: EngineSettings) -> Engine:
    from facenet.models.ort import OrtEngine

    return OrtEngine(path, settings)


def _open_openvino(path: Path, settings: EngineSettings) -> Engine:
    from facenet.models.openvino import OpenVinoEngine

    return OpenVinoEngine(path, settings)


def golden_input(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The known input of golden answers: float32 of a shape, smooth values within -1 to 1."""
    step = np.arange(int(np.prod(shape)), dtype=np.float64)
    wave = 0.6 * np.sin(0.0131 * step) + 0.4 * np.cos(0.731 * step + 1.0)
    return wave.reshape(shape).astype(np.float32)


def relative_error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """|got - expected| / |expected| over all values (Euclidean lengths)."""
    if got.shape != expected.shape or not np.all(np.isfinite(got)):
        return float("inf")
    length = float(np.linalg.norm(expected))
    return float(np.linalg.norm(got - expected)) / max(length, 1e-12)
