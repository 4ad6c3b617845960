"""Flags from settings: the fields of a frozen dataclass become the options of a command.

A command declares `recognition: Recognition` and gets `--model`, `--engine` and the rest, with
the names, defaults and help of the fields; so flags and Python fields cannot drift apart.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from facenet.apps.cli.outlet import note
from facenet.errors import FacenetError, SettingsError

if TYPE_CHECKING:
    from facenet.faces.detectors import DetectorSettings
    from facenet.models.card import ModelCard
    from facenet.models.engine import EngineSettings
    from facenet.recognizer import Recognizer

NAMED = ("model", "precision", "flip")
"""Options of an embedder that go to `Recognizer` as they are."""
ARITHMETIC = (
    "Arithmetic of the embedder: fp32, bf16 (OpenVINO), int8 (see `facenet models quantize`), or "
    "auto: the fastest of these that computes right here, found out once."
)
INSTRUCTIONS = (
    "auto, or avx2: as on a processor without AVX-512 and AMX. OpenVINO then uses none of these, "
    "ONNX Runtime cannot be held to it, and there is no bf16 and no int8."
)
ERROR, STOPPED, READER_LEFT = 2, 130, 141
"""Exit codes; the last two are what a shell shows for SIGINT and SIGPIPE."""

Places = Annotated[
    list[Path], typer.Argument(help="Photos, or folders of photos.", metavar="PHOTO")
]
"""The argument of commands that take photos."""


def flag(default: Any, text: str) -> Any:
    """A dataclass field that becomes an option with this help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Output:
    """How answers are printed."""

    json: bool = flag(False, "Print JSON instead of CSV or text.")


@dataclass(frozen=True, slots=True)
class Deciding:
    """When two faces match."""

    fmr: float | None = flag(None, "False-match rate to decide at.  [default: 1e-4]")
    threshold: float | None = flag(None, "Similarity to decide at, in place of a rate.")
    calibration: str = flag(
        "auto", "Whose rates: auto (your own where measured), card, or a file of calibrate."
    )

    def rates(self) -> dict[str, Any]:
        """As `Recognizer.threshold` takes them."""
        return {"fmr": self.fmr, "threshold": self.threshold}


@dataclass(frozen=True, slots=True)
class Identifying(Deciding):
    """When a face is given a name."""

    fpir: float | None = flag(
        None, "Rate at which strangers may be named over all known people, in place of fmr."
    )

    def rates(self) -> dict[str, Any]:
        """As `Recognizer.threshold` takes them."""
        return {"fmr": self.fmr, "threshold": self.threshold, "fpir": self.fpir}


@dataclass(frozen=True, slots=True)
class Detection:
    """How faces are found, and what runs the graphs."""

    detector: str = flag("mtcnn", "Detector, see `facenet models list`.")
    min_face_size: int | None = flag(
        None, "Smallest face looked for, in pixels.  [default: MTCNN and YuNet 20, SCRFD 0]"
    )
    thresholds: str = flag("0.6,0.7,0.7", "MTCNN: scores that P-, R- and O-net must reach.")
    factor: float = flag(0.709, "MTCNN: ratio of one pyramid level to the one before.")
    exactness: str = flag("facenet-pytorch", "MTCNN: whose pixels: facenet-pytorch or facenet.")
    score_threshold: float | None = flag(
        None, "SCRFD, YuNet: score that a face must reach.  [default: SCRFD 0.5, YuNet 0.7]"
    )
    nms_threshold: float | None = flag(
        None,
        "SCRFD, YuNet: overlap with a better face from which one goes.  [default: SCRFD 0.4, "
        "YuNet 0.3]",
    )
    sizes: str | None = flag(
        None,
        "SCRFD: sizes that a picture is brought to, such as 640,128 or 640x480.  [default: that "
        "of the graph, else 640]",
    )
    max_megapixels: float = flag(
        8, "YuNet: a picture that has more millions of pixels is reduced to so many."
    )
    max_faces: int = flag(0, "SCRFD, YuNet: at most so many faces, the largest; 0 = all.")
    arithmetic: str = flag(
        "fp32", "YuNet: fp32, bf16 (quicker, a little less exact), or auto: bf16 where quicker."
    )
    engine: str = flag("auto", "Runtime: auto, onnxruntime or openvino.")
    device: str | None = flag(
        None, "Device: cpu, cuda, coreml, gpu or npu.  [default: FACENET_DEVICE, else cpu]"
    )
    instructions: str = flag("auto", INSTRUCTIONS)

    def settings(self) -> DetectorSettings:
        """The options of the detector. Raises SettingsError for those of another family."""
        from facenet.faces.detectors import FAMILIES, family_of
        from facenet.models.catalog import find_card

        card = find_card(self.detector, kind="detector")
        owners: dict[str, list[str]] = {}
        for family in FAMILIES.values():
            for option in fields(family.settings):
                owners.setdefault(option.name, []).append(family.title)
        family = family_of(card)
        self._refuse([name for name in owners if family.title not in owners[name]], owners, card)
        told = {name: getattr(self, name) for name in owners if family.title in owners[name]}
        values = {name: _parsed(name, value) for name, value in told.items() if value is not None}
        return family.settings(**values)

    def _refuse(self, others: list[str], owners: dict[str, list[str]], card: ModelCard) -> None:
        """Raises SettingsError for options that the detector's family does not have."""
        given = [name for name in others if getattr(self, name) != getattr(Detection(), name)]
        if given:
            whose = owners[given[0]]
            alike = [f"--{n.replace('_', '-')}" for n in given if owners[n] == whose]
            raise SettingsError(
                f"{' and '.join(alike)} is for {' and '.join(whose)} only, and the detector "
                f"{card.name} is none. Leave it out, or choose another detector."
            )

    def licence_notice(self) -> str | None:
        """Which of the models have weights that may not be used commercially; None: none."""
        from facenet.models.card import licence_notice
        from facenet.models.catalog import find_card

        return licence_notice(map(find_card, self._models()))

    def _models(self) -> list[str]:
        return [self.detector]

    def options(self) -> dict[str, Any]:
        """The options of `Recognizer`."""
        named = {name: getattr(self, name) for name in ("detector", "engine", "device")}
        if self.instructions != "auto":
            named["engine"] = self._held()
        return {**named, "detection": self.settings()}

    def _held(self) -> EngineSettings:
        from facenet.models.engine import EngineSettings

        return EngineSettings(self.engine, self.device, instructions=self.instructions)

    def recognizer(self, **more: Any) -> Recognizer:
        """A recognizer with these options, and more of `Recognizer`'s; says what slows it down."""
        from facenet.recognizer import Recognizer

        made = Recognizer(**self.options(), **more)
        self.tell_held_back()
        return made

    def tell_held_back(self) -> None:
        """Why the detector computes in fp32 alone, where these options forbid what is quicker."""
        from facenet.faces.detectors import held_back

        if reason := held_back(self.detector, self._held(), options=self.settings()):
            note(f"{self.detector}: {reason}")


@dataclass(frozen=True, slots=True)
class Recognition(Detection):
    """How faces are found and become vectors."""

    model: str = flag("mobilefacenet", "Embedder, see `facenet models list`.")
    precision: str = flag("fp32", ARITHMETIC)
    flip: bool = flag(False, "Use the mirrored face too: slower, a little better.")

    def options(self) -> dict[str, Any]:
        """The options of `Recognizer`."""
        named = {name: getattr(self, name) for name in NAMED}
        return {**Detection.options(self), **named}

    def recognizer(self, **more: Any) -> Recognizer:
        """A recognizer with these options, and more of `Recognizer`'s; says what "auto" took."""
        self._tell([self.model])
        return Detection.recognizer(self, **more)

    def _tell(self, models: list[str]) -> None:
        """Which precision is taken, and why, where none was asked for by name."""
        if self.precision == "auto":
            from facenet.models.engine import EngineSettings
            from facenet.models.loader import settled

            running = EngineSettings(
                self.engine, self.device, "auto", instructions=self.instructions
            )
            for model in models:
                note(f"{model}: {settled(model, running).reason}")

    def _models(self) -> list[str]:
        return [self.detector, *self._names()]

    def _names(self) -> list[str]:
        """The embedders of a list with commas, each once."""
        return list(dict.fromkeys(filter(None, (name.strip() for name in self.model.split(",")))))

    def recognizers(self, **more: Any) -> list[Recognizer]:
        """A recognizer for each model of a list with commas, none of which mixes flips in."""
        from facenet.recognizer import Recognizer

        names = self._names()
        if not names:
            raise SettingsError("model should name an embedder or several; got none.")
        self._tell(names)
        options = {**self.options(), "flip": False, **more}
        made = [Recognizer(**{**options, "model": name}) for name in names]
        self.tell_held_back()
        return made


def _parsed(name: str, value: Any) -> Any:
    """An option of a detector as its settings take it. Raises SettingsError."""
    if name == "sizes":
        return tuple(parse_size(size.strip()) for size in value.split(","))
    if name != "thresholds":
        return value
    try:
        first, second, third = (float(part) for part in value.split(","))
    except ValueError as error:
        raise SettingsError(
            f"thresholds should be three numbers such as 0.6,0.7,0.7; got {value}."
        ) from error
    return first, second, third


def parse_size(size: str) -> tuple[int, int]:
    """Width and height from "112" or "96x112". Raises SettingsError."""
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and len(side) < 6 for side in sides):
        raise SettingsError(f"size should be a number or WIDTHxHEIGHT; got {size!r}.")
    return int(sides[0]), int(sides[-1])


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command: settings become flags, and every error of ours one sentence and code 2."""
    hints = get_type_hints(function, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if _is_settings(kind)}

    @functools.wraps(function)
    def wrapper(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        raise typer.Exit(_run(function, values))

    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in groups
    ]
    parameters = own + [option for kind in groups.values() for option in _options(kind)]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__dict__["__wrapped__"]
    return wrapper


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _options(kind: Any) -> list[inspect.Parameter]:
    """A keyword parameter per field; one that is false or true becomes a flag without --no-."""
    hints = get_type_hints(kind)
    parameters = []
    for entry in fields(kind):
        hint: Any = hints[entry.name]
        names = (f"--{entry.name.replace('_', '-')}",) if hint is bool else ()
        annotation = Annotated[hint, typer.Option(*names, help=entry.metadata["help"])]
        kept = inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default)
        parameters.append(kept.replace(annotation=annotation))
    return parameters


def _run(function: Callable[..., int], values: dict[str, Any]) -> int:
    """Call a command; its exit code, or that of what went wrong."""
    try:
        code = function(**values)
        sys.stdout.flush()
        return code
    except FacenetError as error:
        note(str(error))
        return ERROR
    except KeyboardInterrupt:
        note("stopped.")
        return STOPPED
    except BrokenPipeError:
        _discard_output()
        return READER_LEFT
    except OSError as error:
        note(f"Cannot write the answer: {error.strerror or error}.")
        _discard_output()
        return ERROR


def _discard_output() -> None:
    """Let what is left in the buffer of stdout go nowhere, or Python complains when it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
