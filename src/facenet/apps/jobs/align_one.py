"""One picture of a data set: find its face or faces, cut them out, write the crops.

Runs in worker processes; each loads the detector once, with one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from facenet.errors import FacenetError, InputError, SettingsError, StorageError
from facenet.faces.align import crop_face, margin_box
from facenet.faces.detect import RULES, Detector, select_faces
from facenet.faces.draw import save_image
from facenet.faces.mtcnn import Mtcnn, MtcnnSettings
from facenet.images import load_image
from facenet.models.card import Preprocess
from facenet.models.engine import EngineSettings
from facenet.models.loader import load_model
from facenet.types import Face, ImageArray

FORMATS = ("png", "jpg", "webp")
BOXES = "bounding_boxes.txt"
"""The list of crops and their boxes, in the folder of the crops."""

Box = tuple[int, int, int, int]
"""x1 y1 x2 y2 in whole pixels of the photo."""


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
    detection: MtcnnSettings = field(default_factory=MtcnnSettings)

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
    def open(cls, settings: AlignSettings, root: Path, *, threads: int) -> Worker:
        """Load the detector with a number of threads."""
        running = EngineSettings(engine=settings.engine, device=settings.device, threads=threads)
        model = load_model(settings.detector, kind="detector", settings=running)
        return cls(Mtcnn(model.engines, settings.detection), settings, root)

    def align(self, task: Task) -> Outcome:
        """Align one picture; a picture that cannot be read is an outcome, not an end.

        The boxes are listed before the crops are written: a crop that exists is always listed.
        """
        try:
            image = load_image(task.source)
            faces = self.detector.detect([image])[0]
            size = (image.shape[1], image.shape[0])
            chosen = select_faces(faces, self.settings.select, size)
            crops = [self._crop(image, face) for face in chosen]
        except InputError as error:
            return Outcome(task, unreadable=str(error))
        targets = self._targets(task.target, len(crops))
        self._list(task, [(t, box) for t, (_, box) in zip(targets, crops, strict=True)])
        for target, (crop, _) in zip(targets, crops, strict=True):
            save_image(crop, target)
        boxes = [box for _, box in crops]
        return Outcome(task, tuple(zip(targets, boxes, strict=True)))

    def _crop(self, image: ImageArray, face: Face) -> tuple[ImageArray, Box]:
        preprocess = self.settings.preprocess()
        output = (preprocess.width, preprocess.height)
        inside = output if preprocess.crop == "margin_output" else None
        size = (image.shape[1], image.shape[0])
        box = margin_box(face.box, size, margin=preprocess.margin, output=inside)
        return crop_face(image, face, preprocess), box

    def _targets(self, target: Path, faces: int) -> list[Path]:
        targets = numbered(target) if self.settings.select == "all" else iter([target])
        return list(islice(targets, faces))

    def _list(self, task: Task, crops: Sequence[tuple[Path, Box]]) -> None:
        """Append to the list of boxes in one write, so that several processes can share it."""
        lines = [f"{self._key(path)} {' '.join(map(str, box))}\n" for path, box in crops]
        text = "".join(lines) or f"{self._key(task.target)}\n"
        path = self.root / BOXES
        try:
            with path.open("ab", buffering=0) as file:
                file.write(text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise StorageError(f"Cannot write {path}: {error.strerror or error}.") from error

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def numbered(target: Path) -> Iterator[Path]:
    """NAME_0, NAME_1, ... for the faces of one picture (facenet's naming)."""
    return (target.with_name(f"{target.stem}_{n}{target.suffix}") for n in count())


_worker: Worker | None = None


def start(settings: AlignSettings, root: Path) -> None:
    """Prepare this worker process."""
    global _worker
    _worker = Worker.open(settings, root, threads=1)


def run(task: Task) -> Outcome:
    """Align one picture in this worker process; `start` comes first."""
    if _worker is None:
        raise FacenetError("The worker process was not started; call start first.")
    return _worker.align(task)
