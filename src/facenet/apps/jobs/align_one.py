"""One picture of a data set: find its face or faces, cut them out, write the crops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from facenet.apps.jobs.align_target import Box, list_boxes
from facenet.errors import InputError, SettingsError
from facenet.faces.align import crop_face, margin_box
from facenet.faces.detect import RULES, Detector, select_faces
from facenet.faces.detectors import DetectorSettings, open_detector
from facenet.faces.draw import save_image
from facenet.faces.mtcnn import MtcnnSettings
from facenet.images import load_image
from facenet.models.card import Preprocess
from facenet.models.engine import EngineSettings
from facenet.types import Face, ImageArray

FORMATS = ("png", "jpg", "webp")


RUNNING = ("engine", "device", "instructions")
"""Fields that say where the detector runs, and not what it finds."""


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """What the crops are like; the defaults are those of facenet's aligner.

    width, height, margin: pixels. crop: "margin_original", "margin_output" or "similarity".
    select: a rule of `faces.detect.RULES`, or "all" for every face (files NAME_0, NAME_1, ...).
    format: "png", "jpg" or "webp".
    """

    width: int = 182
    height: int = 182
    margin: int = 44
    crop: str = "margin_original"
    select: str = "center_weighted_size"
    format: str = "png"
    detector: str = "mtcnn"
    engine: str = "auto"
    device: str | None = None
    instructions: str = "auto"
    detection: DetectorSettings = field(default_factory=MtcnnSettings)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise SettingsError(
                f"format should be one of {', '.join(FORMATS)}; got {self.format!r}."
            )
        if self.select != "all" and self.select not in RULES:
            raise SettingsError(
                f"select should be one of all, {', '.join(RULES)}; got {self.select!r}."
            )
        self.preprocess()

    def preprocess(self) -> Preprocess:
        """The crop as a card would say it."""
        margin = 0 if self.crop == "similarity" else self.margin
        return Preprocess(self.width, self.height, self.crop, "fixed", margin)

    def lasting(self) -> dict[str, Any]:
        """What makes the crops what they are: everything but where the detector runs."""
        return {k: v for k, v in asdict(self).items() if k not in RUNNING}


@dataclass(frozen=True, slots=True)
class Task:
    """A picture to read and the file its crop goes to (before a number is added)."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a picture: crops with their boxes, or why there is none."""

    task: Task
    crops: tuple[tuple[Path, Box], ...] = ()
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """A detector and settings, ready for pictures; `root` is the folder of all crops."""

    detector: Detector
    settings: AlignSettings
    root: Path

    @classmethod
    def open(cls, settings: AlignSettings, root: Path) -> Worker:
        """Load the detector, with one thread: the work is shared out by pictures."""
        running = EngineSettings(**{name: getattr(settings, name) for name in RUNNING}, threads=1)
        detector = open_detector(settings.detector, running, options=settings.detection)
        return cls(detector, settings, root)

    def align(self, task: Task) -> Outcome:
        """Align one picture; a picture that cannot be used is an outcome, not an end.

        The boxes are listed before the crops are written: a crop that exists is always listed.
        """
        try:
            image = load_image(task.source)
            faces = self.detector.detect([image])[0]
            chosen = select_faces(faces, self.settings.select, (image.shape[1], image.shape[0]))
            made = [self._crop(image, face) for face in chosen]
        except InputError as error:
            return Outcome(task, unreadable=str(error))
        every = self.settings.select == "all"
        targets = numbered(task.target) if every else iter([task.target])
        crops = [(target, box) for target, (_, box) in zip(targets, made, strict=False)]
        list_boxes(self.root, task.target, crops)
        for (target, _), (crop, _) in zip(crops, made, strict=True):
            save_image(crop, target)
        return Outcome(task, tuple(crops))

    def _crop(self, image: ImageArray, face: Face) -> tuple[ImageArray, Box]:
        preprocess = self.settings.preprocess()
        output = (preprocess.width, preprocess.height)
        inside = output if preprocess.crop == "margin_output" else None
        size = (image.shape[1], image.shape[0])
        box = margin_box(face.box, size, margin=preprocess.margin, output=inside)
        return crop_face(image, face, preprocess), box


def numbered(target: Path) -> Iterator[Path]:
    """NAME_0, NAME_1, ... for the faces of one picture (facenet's naming)."""
    return (target.with_name(f"{target.stem}_{n}{target.suffix}") for n in count())
