"""The OpenVINO engine: the fastest on Intel and most AMD processors (extra `openvino`).

OpenVINO computes in bfloat16 by itself where the processor can; here the precision is always
the one that was asked for. An 8-bit graph is int8 where it says so and fp32 elsewhere.
"""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError, MissingExtraError
from facenet.models.engine import EngineSettings, Shape, check_feeds, description, rounded

_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Arithmetic of all that is not 8-bit."""
_HINT = "INFERENCE_PRECISION_HINT"


PACKAGE = "openvino"

NO_BF16 = 'bf16 was asked for; this processor has no bfloat16 arithmetic. Use precision "fp32".'
"""Why bf16 cannot be had on this machine."""

PLACE = re.compile(r"Exception from \S+:\d+:|Check '.*' failed at \S+:\d+:")
"""A line of an error of OpenVINO that only says where in its source it came from."""
LONGEST = 300
"""Characters of an error that are told."""

LIMIT = "ONEDNN_MAX_CPU_ISA"
"""oneDNN, with which OpenVINO computes, reads it once in a process: the newest instructions."""
_FIRST = threading.Lock()
_held: list[str] = []
"""The instructions of the first engine of this process, which all others share."""

OFTEN = 8
"""Times that an input shape has to come before it gets a graph of its own."""
OWN = 4
"""Most shapes that have one, the last that came."""
LARGEST = 3 << 21
"""Most numbers of an input that gets one, a picture of two megapixels: bounds memory."""
REMEMBERED = 64
"""Shapes that are counted, the last that came."""


def installed(package: str = PACKAGE) -> bool:
    """Whether OpenVINO can be imported, without importing it."""
    return find_spec(package) is not None


def available() -> list[str]:
    """Device names that this OpenVINO can use."""
    return _present(_import(PACKAGE).Core())


class OpenVinoEngine:
    """A graph in OpenVINO; follows the `Engine` protocol, and `Seeing` where it takes a picture.

    batches: sizes of a batch that get a graph of their own when they first come, about a fifth
    faster, for as much memory again; where there are some, nothing is made before it is used, and
    other batches are filled up to a `rounded` size.
    steady: so does an input shape that comes often, as that of a video's frames does; a graph for
    any shape loses time when shapes change. package: the module that is OpenVINO.

    Raises MissingExtraError when it is not installed.
    """

    def __init__(
        self,
        graph: Path | bytes,
        settings: EngineSettings,
        *,
        batches: tuple[int, ...] = (),
        steady: bool = False,
        package: str = PACKAGE,
    ) -> None:
        openvino = _import(package)
        _hold(settings.instructions)
        self._core, self._graph, self._settings = openvino.Core(), graph, settings
        _require(self._core, str(settings.device).upper(), settings.precision)
        self._model: Any = _read(self._core, graph)
        self._said = description(graph, settings, openvino.__version__.split("-")[0])
        self._inputs = {i.any_name: _shape(i.partial_shape) for i in self._model.inputs}
        self._outputs = [sorted(output.get_names()) for output in self._model.outputs]
        self._batches = batches if _only_the_batch_is_free(self._inputs) else ()
        self._often = _Often() if steady and len(self._inputs) == 1 else None
        self._free: OrderedDict[_Kind, queue.SimpleQueue[Any]] = OrderedDict()
        self._making = threading.Lock()
        if not self._batches:
            self._requests(_Kind())

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Input names with their shapes, None for a free axis."""
        return self._inputs

    @property
    def graph(self) -> Path | bytes | None:
        """What it runs; None on another device than the processor or with its older
        instructions, where other code may not do the same."""
        settings = self._settings
        own = settings.device == "cpu" and settings.instructions == "auto"
        return self._graph if own else None

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once, such as (n, 3, H, W) -> (n, d).

        An output that has several names is given under each.

        Raises EngineError when the input does not fit or the run fails.
        """
        check_feeds(self._inputs, feeds)
        return self._answer(feeds, seen=False)

    def see(self, picture: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """What `run` gives for the float32 of a picture, uint8 (1, H, W, 3), contiguous.

        Raises EngineError when the graph takes no such picture or the run fails.
        """
        last = {name: (*shape[:1], *shape[2:], *shape[1:2]) for name, shape in self.inputs.items()}
        feeds = {next(iter(last)): picture}
        check_feeds(last, feeds, np.uint8)
        return self._answer(feeds, seen=True)

    def _answer(
        self, feeds: Mapping[str, NDArray[Any]], *, seen: bool
    ) -> dict[str, NDArray[np.float32]]:
        feeds, count = self._filled(feeds)
        free = self._requests(_Kind(self._own(next(iter(feeds.values())).shape), seen))
        request = free.get()
        try:
            answer = request.infer(dict(feeds), share_inputs=True)
        except (RuntimeError, ValueError, KeyError) as error:
            raise EngineError(f"OpenVINO could not run the graph: {in_a_line(error)}") from error
        finally:
            free.put(request)
        values = [answer[index][:count] for index in range(len(self._outputs))]
        return {
            name: value
            for names, value in zip(self._outputs, values, strict=True)
            for name in names
        }

    def _filled(
        self, feeds: Mapping[str, NDArray[Any]]
    ) -> tuple[Mapping[str, NDArray[Any]], int | None]:
        """A batch with its first rows again at the end, so that few sizes come, and how many rows
        of the answer count; None where that depends on the graph."""
        if not self._batches:
            return feeds, None
        ((name, batch),) = feeds.items()
        full = rounded(len(batch))
        if full == len(batch):
            return feeds, full
        return {name: np.resize(batch, (full, *batch.shape[1:]))}, len(batch)

    def describe(self) -> dict[str, Any]:
        """Runtime, version, device, precision, threads."""
        return dict(self._said)

    def _own(self, shape: Shape) -> Shape:
        """The shape of an input that has a graph of its own, or is to get one; () for others."""
        if self._often is None:
            return shape if shape[:1] and shape[0] in self._batches else ()
        with self._making:
            return shape if self._often.comes(shape) else ()

    def _requests(self, kind: _Kind) -> queue.SimpleQueue[Any]:
        """What runs inputs of one kind; made when it is first asked for."""
        with self._making:
            if kind not in self._free:
                model, self._model = self._model or _read(self._core, self._graph), None
                free: queue.SimpleQueue[Any] = queue.SimpleQueue()
                for _ in range(self._settings.streams):  # OpenVINO's own hand each run to a thread
                    compiled = _compile(self._core, model, self._graph, self._settings, kind)
                    free.put(compiled.create_infer_request())
                    model = _read(self._core, self._graph) if kind.seen else model
                self._free[kind] = free
            self._free.move_to_end(kind)
            own = [each for each in self._free if each.shape]
            if self._often and len(own) > OWN:
                del self._free[own[0]]
            return self._free[kind]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Inputs: of one shape, or of any (()); pictures as they are, or float32."""

    shape: Shape = ()
    seen: bool = False


class _Often:
    """Counts input shapes."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Shape, int] = OrderedDict()

    def comes(self, shape: Shape) -> bool:
        """Whether an input shape, which comes once more now, comes often and is not too large."""
        self._counts[shape] = self._counts.pop(shape, 0) + 1
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)
        return self._counts[shape] >= OFTEN and prod(size or 0 for size in shape) <= LARGEST


def _only_the_batch_is_free(inputs: Mapping[str, Shape]) -> bool:
    """Whether the graph has one input, and of it only the first side may be any."""
    shapes = list(inputs.values())
    return len(shapes) == 1 and shapes[0][:1] == (None,) and None not in shapes[0][1:]


def _hold(instructions: str) -> None:
    """Hold oneDNN to some instructions. Raises EngineError when it already runs with others."""
    if not _held:
        if instructions != "auto":
            os.environ[LIMIT] = instructions.upper()
        _held.append(instructions)
    if _held != [instructions]:
        raise EngineError(
            f"instructions {instructions} was asked for; OpenVINO runs with {_held[0]} in this "
            "process already, and looks at the processor only once. Use another process."
        )


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
        with _FIRST:
            module = import_module(package)
            _prepare_threads(module)
        return module
    except (ImportError, OSError) as error:
        raise EngineError(
            f"OpenVINO is installed but cannot be loaded: {error}. "
            'Install it again, or use engine "onnxruntime".'
        ) from error


def _prepare_threads(openvino: Any) -> None:
    """Make the tables of types that OpenVINO makes when it first needs them.

    It does so behind a lock of C++ and lets go of Python's in between: two threads that run their
    first graphs at once would wait for each other for ever (seen with 2026.4.1).
    """
    tensor = openvino.Tensor(np.zeros((1, 1), np.float32), shared_memory=True)
    tensor.get_element_type().to_dtype()
    np.array(tensor.data)


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


def in_a_line(error: Exception) -> str:
    """What OpenVINO's error says, without the places in its source that it begins with."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    said = [line for line in lines if line and not PLACE.fullmatch(line)]
    return (said or [type(error).__name__])[0][:LONGEST]


def _read(core: Any, graph: Path | bytes) -> Any:
    try:
        return core.read_model(graph if isinstance(graph, bytes) else str(graph))
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"OpenVINO could not load {_named(graph)}: {in_a_line(error)}") from error


def _compile(
    core: Any, model: Any, graph: Path | bytes, settings: EngineSettings, kind: _Kind
) -> Any:
    """A model ready to run, which takes inputs of one kind from now on."""
    device = str(settings.device).upper()
    options: dict[str, Any] = {_HINT: _PRECISIONS[settings.precision]}
    if device == "CPU":
        options |= {
            "INFERENCE_NUM_THREADS": settings.threads // settings.streams,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
    try:
        if kind.seen:
            model = _taking_bytes(model)
        if kind.shape:
            model.reshape({model.inputs[0]: list(kind.shape)})
        compiled = core.compile_model(model, device, options)
        granted = compiled.get_property(_HINT).get_type_name()
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"OpenVINO could not load {_named(graph)}: {in_a_line(error)}") from error
    if granted != options[_HINT]:
        raise EngineError(
            f"{settings.precision} was asked for; OpenVINO computes in {granted} on "
            f"{device.lower()}. Choose another precision or device."
        )
    return compiled


def _taking_bytes(model: Any) -> Any:
    """A model that takes uint8 (1, H, W, 3) in place of float32 (1, 3, H, W)."""
    openvino = import_module(PACKAGE)
    build = import_module(f"{PACKAGE}.preprocess").PrePostProcessor(model)
    build.input().tensor().set_element_type(openvino.Type.u8)
    build.input().tensor().set_layout(openvino.Layout("NHWC"))
    build.input().model().set_layout(openvino.Layout("NCHW"))
    return build.build()


def _named(graph: Path | bytes) -> str:
    return "a graph from memory" if isinstance(graph, bytes) else str(graph)


def _shape(shape: Any) -> Shape:
    return tuple(int(size.get_length()) if size.is_static else None for size in shape)
