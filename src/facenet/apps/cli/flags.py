"""Flags from settings: the fields of a frozen dataclass become the options of a command.

A command declares `recognition: Recognition` and gets `--model`, `--engine` and the rest, with
the names, defaults and help of the fields; so flags and Python fields cannot drift apart.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from facenet.errors import FacenetError, SettingsError

if TYPE_CHECKING:
    from facenet.faces.mtcnn import MtcnnSettings
    from facenet.recognizer import Recognizer


def flag(default: Any, text: str) -> Any:
    """A dataclass field that becomes an option with this help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Detection:
    """How faces are found."""

    detector: str = flag("mtcnn", "Detector, see `facenet models list`.")
    min_face_size: int = flag(20, "Smallest face looked for, in pixels.")
    thresholds: str = flag("0.6,0.7,0.7", "Scores that P-, R- and O-net must reach.")
    factor: float = flag(0.709, "Ratio of one pyramid level to the one before.")
    exactness: str = flag("facenet-pytorch", "Whose pixel conventions: facenet-pytorch or facenet.")

    def settings(self) -> MtcnnSettings:
        """The options of MTCNN."""
        from facenet.faces.mtcnn import MtcnnSettings

        try:
            first, second, third = (float(part) for part in self.thresholds.split(","))
        except ValueError as error:
            raise SettingsError(
                f"thresholds should be three numbers such as 0.6,0.7,0.7; got {self.thresholds}."
            ) from error
        return MtcnnSettings(
            min_face_size=self.min_face_size,
            thresholds=(first, second, third),
            factor=self.factor,
            exactness=self.exactness,
        )


@dataclass(frozen=True, slots=True)
class Running:
    """What runs the graphs."""

    engine: str = flag("auto", "Runtime: auto, onnxruntime or openvino.")
    device: str | None = flag(None, "Device: cpu, cuda, coreml, gpu, npu [default: FACENET_DEVICE]")


@dataclass(frozen=True, slots=True)
class Embedding:
    """How faces become vectors."""

    model: str = flag("mobilefacenet", "Embedder, see `facenet models list`.")
    precision: str = flag("fp32", "Arithmetic of the embedder: fp32 or bf16 (OpenVINO).")
    flip: bool = flag(False, "Average with the mirrored face: slower, a little better.")


@dataclass(frozen=True, slots=True)
class Deciding:
    """When two faces match."""

    fmr: float | None = flag(None, "False-match rate to decide at [default: 1e-4]")
    threshold: float | None = flag(None, "Similarity to decide at, in place of a rate.")


@dataclass(frozen=True, slots=True)
class Output:
    """How answers are printed."""

    json: bool = flag(False, "Print JSON instead of CSV or text.")


def parse_size(size: str) -> tuple[int, int]:
    """Width and height from "112" or "96x112". Raises SettingsError."""
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() for side in sides):
        raise SettingsError(f"size should be a number or WIDTHxHEIGHT; got {size!r}.")
    return int(sides[0]), int(sides[-1])


def open_recognizer(
    detection: Detection, running: Running, embedding: Embedding | None = None
) -> Recognizer:
    """A recognizer with the options of a command."""
    from facenet.recognizer import Recognizer

    embedding = embedding or Embedding()
    return Recognizer(
        model=embedding.model,
        detector=detection.detector,
        engine=running.engine,
        device=running.device,
        precision=embedding.precision,
        flip=embedding.flip,
        detection=detection.settings(),
    )


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command: settings become flags, and every error of ours one sentence and code 2."""
    hints = get_type_hints(function, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if _is_settings(kind)}

    @functools.wraps(function)
    def wrapper(**values: Any) -> None:
        for name, kind in groups.items():
            chosen = {f.name: values.pop(f.name) for f in fields(kind)}
            values[name] = kind(**chosen)
        _run(function, values)

    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        known = parameter.name in groups
        parameters += _options(kind) if known else [parameter.replace(annotation=kind)]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__dict__["__wrapped__"]
    return wrapper


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _options(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind)
    parameters = []
    for entry in fields(kind):
        default = None if entry.default is MISSING else entry.default
        option = typer.Option(help=entry.metadata["help"])
        annotation = Annotated[hints[entry.name], option]
        parameters.append(
            inspect.Parameter(
                entry.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=annotation,
            )
        )
    return parameters


def _run(function: Callable[..., Any], values: dict[str, Any]) -> None:
    try:
        code = function(**values)
    except FacenetError as error:
        print(f"facenet: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("facenet: stopped; what was finished is kept.", file=sys.stderr)
        code = 130
    raise typer.Exit(code or 0)


Places = Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")]
"""The argument of commands that take photos."""
