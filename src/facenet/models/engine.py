"""Engines: a loaded graph that runs, whatever runtime is behind it.

A fake for tests is any object with these three members; it enters through constructors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError, SettingsError
from facenet.models.disk import sha256_of
from facenet.models.home import cpu_threads, environment

Shape = tuple[int | None, ...]


class Engine(Protocol):
    """A loaded graph. Several threads may run it at once."""

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Input names with their shapes, None for a free axis."""
        ...

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once: float32 arrays by input name -> float32 arrays by output name.

        Shapes are the graph's own; for embedders (n, 3, H, W) -> (n, d).
        Raises EngineError when the feeds do not fit `inputs` or the runtime fails.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Engine, version, device, precision and threads."""
        ...


@runtime_checkable
class Seeing(Protocol):
    """An engine that takes a picture as it is, too: no float32 of it is made in memory."""

    def see(self, picture: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """What `run` gives for the same values as float32 (1, 3, H, W), to the bit.

        picture: uint8 (1, H, W, 3), contiguous, with the channels in the order that the graph
        takes. Raises EngineError where the graph takes no such picture.
        """
        ...


ENGINES = ("auto", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16", "int8")
"""Arithmetics, the exact one first; settings also take "auto", the fastest that computes right."""
INSTRUCTIONS = ("auto", "avx2")
"""All that the processor has, or no more than a processor with AVX2 has."""
BATCHES = (1, 16)
"""Numbers of faces that embedders are run with most: one, and many."""
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
    FACENET_DEVICE (cpu). precision: one of `PRECISIONS`, or "auto". threads: 0 = what the CPU
    quota allows. streams: runs that go on at once, each with its share of the threads.
    instructions: one of `INSTRUCTIONS`; "avx2" holds OpenVINO to the kernels of such a processor,
    in the whole process, and leaves bf16 and int8 out.
    """

    engine: str = "auto"
    device: str | None = None
    precision: str = "fp32"
    threads: int = 0
    streams: int = 1
    instructions: str = "auto"

    def __post_init__(self) -> None:
        device = (self.device or environment().device).lower()
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "threads", self.threads or cpu_threads())
        _check("engine", self.engine, ENGINES)
        _check("precision", self.precision, (*PRECISIONS, "auto"))
        _check("device", device, tuple(DEVICES))
        _check("instructions", self.instructions, INSTRUCTIONS)
        if self.threads < 1:
            raise SettingsError(
                f"threads should be 1 or more, or 0 for the CPU quota; got {self.threads}."
            )
        if not 1 <= self.streams <= self.threads:
            raise SettingsError(
                f"streams should be from 1 to the {self.threads} threads; got {self.streams}."
            )
        if self.engine != "auto" and self.engine not in DEVICES[device]:
            raise EngineError(
                f"The device {device} runs with {' or '.join(DEVICES[device])}, not with "
                f"{self.engine}. Choose another engine or device."
            )
        if self.instructions != "auto" and self.precision in ("bf16", "int8"):
            raise EngineError(
                f"{self.precision} was asked for; it is left out where the instructions are held "
                f'to {self.instructions}. Use precision "fp32", or instructions "auto".'
            )


def _check(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{what} should be one of {', '.join(choices)}; got {value!r}.")


def open_engine(
    graph: Path | bytes,
    settings: EngineSettings,
    *,
    batches: tuple[int, ...] = (),
    steady: bool = False,
) -> Engine:
    """Load a graph with a named runtime and precision (not "auto": see `loader.load_model`).

    graph: an ONNX file, or its bytes. batches: sizes of a batch that come often, for which
    OpenVINO makes a graph of their own. steady: it makes one, too, for input shapes that turn out
    to come often.

    Raises EngineError when the runtime or the device is missing, or the file does not load.
    """
    openers: dict[str, Callable[[], Engine]] = {
        "onnxruntime": lambda: _open_onnxruntime(graph, settings),
        "openvino": lambda: _open_openvino(graph, settings, batches, steady),
    }
    return openers[settings.engine]()


def _open_onnxruntime(graph: Path | bytes, settings: EngineSettings) -> Engine:
    from facenet.models.ort import OrtEngine

    return OrtEngine(graph, settings)


def _open_openvino(
    graph: Path | bytes, settings: EngineSettings, batches: tuple[int, ...], steady: bool
) -> Engine:
    from facenet.models.openvino import OpenVinoEngine

    return OpenVinoEngine(graph, settings, batches=batches, steady=steady)


def description(graph: Path | bytes, settings: EngineSettings, version: str) -> dict[str, Any]:
    """What `Engine.describe` says of a graph.

    Of an 8-bit graph also `weights`, the beginning of its SHA-256: a model may have several such
    graphs, one after the other, and their vectors differ a little.
    """
    said = {
        "engine": settings.engine,
        "version": version,
        "device": settings.device,
        "precision": settings.precision,
        "threads": settings.threads,
    }
    if settings.precision != "int8":
        return said
    whole = sha256(graph).hexdigest() if isinstance(graph, bytes) else sha256_of(graph)
    return {**said, "weights": whole[:16]}


def check_feeds(
    inputs: Mapping[str, Shape], feeds: Mapping[str, NDArray[Any]], dtype: type = np.float32
) -> None:
    """Raises EngineError unless there is an array of the right shape and type for every input.

    inputs: such as {"image": (None, 3, 112, 112)}. feeds: such as float32 (n, 3, H, W).

    The runtimes do not agree here: OpenVINO runs with the last values of an input that is missing.
    """
    if feeds.keys() != inputs.keys():
        raise EngineError(
            f"The graph takes {' and '.join(inputs)}; got {' and '.join(feeds) or 'nothing'}."
        )
    for name, shape in inputs.items():
        array = feeds[name]
        fits = len(array.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != dtype:
            wanted = " x ".join("any" if side is None else str(side) for side in shape)
            got = " x ".join(map(str, array.shape))
            raise EngineError(
                f"{name} should be {np.dtype(dtype)}, {wanted}; got {array.dtype}, "
                f"{got or 'a number'}."
            )


def rounded(count: int, least: int = 1) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below `count` and `least`.

    A batch filled up to such a size: a runtime prepares itself for each that it has not had yet,
    and keeps some megabytes for it.
    """
    double = 1 << (count - 1).bit_length()
    return max(least, double * 3 // 4 if double > 2 and count <= double * 3 // 4 else double)


def golden_input(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The known input of golden answers: float32 of a shape, smooth values within -1 to 1."""
    step = np.arange(int(np.prod(shape)), dtype=np.float64)
    wave = 0.6 * np.sin(0.0131 * step) + 0.4 * np.cos(0.731 * step + 1.0)
    return wave.reshape(shape).astype(np.float32)


def relative_error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """|got - expected| / |expected| over all values (Euclidean lengths), both (n,) or alike.

    Infinite for arrays of two shapes and for values that are not finite.
    """
    if got.shape != expected.shape or not np.all(np.isfinite(got)):
        return float("inf")
    length = float(np.linalg.norm(expected))
    return float(np.linalg.norm(got - expected)) / max(length, 1e-12)
