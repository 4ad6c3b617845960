"""The front door: from photographs to answers.

`Recognizer` holds a detector and an embedder; `verify`, `identify` and `compare` are its
questions. Photos are whatever `facenet.images.load_image` takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from facenet import vectors
from facenet.data.folders import read_people
from facenet.errors import (
    ImageError,
    InputError,
    NoFaceError,
    SettingsError,
    SeveralFacesError,
)
from facenet.faces.allocator import share_arenas
from facenet.faces.detect import Detector, select_faces
from facenet.faces.detectors import DetectorSettings, detector_settings, open_detector
from facenet.faces.embed import Embedder
from facenet.faces.flow import Stream
from facenet.faces.mtcnn import MtcnnSettings
from facenet.faces.pipeline import LIMITS, Pipeline, Seen, reduction
from facenet.gallery import compare as decisions
from facenet.gallery.calibrate import (
    Threshold,
    decide_threshold,
    fmr_for_identification,
    probability,
)
from facenet.gallery.compare import People, Verification
from facenet.images import is_many, load_image
from facenet.models.calibration import Calibration, calibration_path, load_calibration
from facenet.models.card import ModelCard
from facenet.models.catalog import DEFAULT_DETECTOR, DEFAULT_EMBEDDER, find_card
from facenet.models.engine import EngineSettings
from facenet.models.loader import load_model
from facenet.types import Face, Faces, FloatArray

Known: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any]"
"""A folder of people, or name -> photo or photos."""

GROUP = LIMITS.group
"""Photos that go through detection together."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """People ready for `identify`, and the photos that could not be used, with the reason."""

    people: People
    refused: tuple[tuple[str, str], ...]


class Recognizer:
    """A detector and an embedder, ready to answer.

    model: name of an embedder, detector: of a detector (`facenet models list`). engine: "auto",
    "onnxruntime" or "openvino", or `EngineSettings`, for threads and instructions too; a device and
    a precision named beside them count. device: "cpu", "cuda", ... or None for FACENET_DEVICE.
    precision: of the embedder, "fp32", "bf16", "int8" (see `facenet models quantize`), or "auto",
    the fastest that computes right. flip: average with the mirrored face (slower, a little better).
    detection: options of the detector, `MtcnnSettings` or `ScrfdSettings`. calibration: whose
    false-match rates count: "auto" (those of `facenet calibrate` where they were measured, else
    the card's), "card", or a file.
    The attribute `detection` says which detector with which options it is, "" for `from_parts`;
    `cards` are of the embedder and a detector known by name; `rates_chosen`: not by "auto"."""

    detection: str = ""
    cards: tuple[ModelCard, ...]

    def __init__(
        self,
        *,
        model: str = DEFAULT_EMBEDDER,
        detector: str = DEFAULT_DETECTOR,
        engine: str | EngineSettings = "auto",
        device: str | None = None,
        precision: str = "fp32",
        flip: bool = False,
        detection: DetectorSettings | None = None,
        calibration: str | os.PathLike[str] = "auto",
    ) -> None:
        share_arenas()
        running = engine if isinstance(engine, EngineSettings) else EngineSettings(engine, device)
        named = running.precision if precision == "fp32" else precision
        self._settings = replace(running, device=device or running.device, precision=named)
        card = find_card(detector, kind="detector")
        self.cards = (find_card(model, kind="embedder"), card)
        self._flip, self._detection = flip, detection
        self._calibration, self.rates_chosen = calibration, calibration != "auto"
        options = json.dumps(asdict(detector_settings(card, detection)), sort_keys=True)
        self.detection = f"{card.contract} {options}"

    @cached_property
    def embedder(self) -> Embedder:
        """The embedder, loaded when first used."""
        model = load_model(self.cards[0].name, kind="embedder", settings=self._settings)
        return Embedder(model.card, model.engine, flip=self._flip)

    @cached_property
    def detector(self) -> Detector:
        """The detector, loaded when first used; it always runs in fp32."""
        settings = replace(self._settings, precision="fp32")
        return open_detector(self.cards[1].name, settings, options=self._detection)

    @classmethod
    def from_parts(
        cls, detector: Detector, embedder: Embedder, calibration: Calibration | None = None
    ) -> Recognizer:
        """A recognizer of parts that are already there: other detectors, fakes in tests."""
        recognizer = cls.__new__(cls)
        recognizer.cards, recognizer.rates_chosen = (embedder.card,), calibration is not None
        recognizer.__dict__.update(detector=detector, embedder=embedder, calibration=calibration)
        return recognizer

    def with_standardise(self, standardise: str) -> Recognizer:
        """This recognizer with another standardisation than the card's, to measure what it costs.

        See `Embedder.with_standardise`; a calibration of the model does not count for it.
        """
        other, embedder = copy(self), self.embedder.with_standardise(standardise)
        other.__dict__.update({"calibration": None} if embedder.overridden else {})
        other.__dict__.update(embedder=embedder)
        return other

    @cached_property
    def calibration(self) -> Calibration | None:
        """What was measured of this model on one's own pictures; None: the card's rates count."""
        if self._calibration == "card":
            return None
        if self._calibration != "auto":
            return load_calibration(Path(self._calibration))
        own = calibration_path(self.embedder.contract)
        return load_calibration(own) if own.exists() else None

    def threshold(
        self,
        *,
        fmr: float | None = None,
        threshold: float | None = None,
        fpir: float | None = None,
        comparisons: int = 1,
    ) -> Threshold:
        """The similarity to decide at: by false-match rate (default 1e-4), or as given.

        fpir: false-positive rate of a search that compares with `comparisons` vectors.
        Raises SettingsError when the model's table does not reach the rate, or when two of them
        are given; ContractError for a calibration of another model.
        """
        if fpir is not None:
            if fmr is not None or threshold is not None:
                raise SettingsError("Give one of fmr, fpir and threshold, not several.")
            if not 0 < fpir < 1:
                raise SettingsError(f"fpir should be above 0 and below 1; got {fpir:g}.")
            fmr = fmr_for_identification(fpir, comparisons)
        return decide_threshold(
            self.embedder.card,
            fmr=fmr,
            threshold=threshold,
            calibration=self.calibration,
            contract=self.embedder.contract,
        )

    def detect(self, source: Any, *, color: str = "rgb") -> Any:
        """The faces of a photo as `Faces` without embeddings; for a list, a list of `Faces`."""
        if is_many(source):
            return self._all(self.stream(source, embed=False, color=color))
        return self.detector.detect([load_image(source, color=color)])[0]

    def faces(self, source: Any, *, color: str = "rgb") -> Any:
        """The faces of a photo as `Faces` with embeddings; for a list, a list of `Faces`."""
        if is_many(source):
            return self._all(self.stream(source, color=color))
        image = load_image(source, color=color)
        return self.embedder.embed([image], self.detector.detect([image]))[0]

    def stream(
        self,
        photos: Iterable[Any],
        *,
        embed: bool = True,
        pixels: bool = False,
        reduced: bool = False,
        color: str = "rgb",
    ) -> Stream[Seen]:
        """What is seen in each of any number of photos, in order and in bounded memory.

        Reading, detection and embedding overlap; a photo that cannot be used gives a `Seen` with
        its `problem` and stops nothing. Use it in a `with` block to stop early and leave no thread
        behind. See `Pipeline.run`.
        embed: faces with embeddings. pixels: hand each photo's pixels back too. reduced: decode
        JPEGs at 1/2, 1/4 or 1/8 of their size, by the detector's min_face_size: faster, and not
        quite the same faces. Raises SettingsError where it allows none (see
        `pipeline.reduction`), or for another detector than MTCNN.
        """
        embedder = self.embedder if embed else None
        parts = self._reduced(embedder) if reduced else {}
        return Pipeline(self.detector, embedder, reduced=parts).run(
            photos, color=color, pixels=pixels
        )

    def embed(self, source: Any, *, color: str = "rgb") -> Any:
        """Unit vectors of all faces of a photo, float32 (n, d), the largest face first.

        For a list of photos, a list of arrays.
        """
        found = self.faces(source, color=color)
        if isinstance(found, Faces):
            return found.embedding
        return [faces.embedding for faces in found]

    def face(self, source: Any, *, select: str | None = None, color: str = "rgb") -> Face:
        """The one face of a photo, embedded.

        select: how to choose when there are several ("largest", "probability",
        "largest_over_threshold", "center_weighted_size"); None expects exactly one.
        Raises NoFaceError, SeveralFacesError.
        """
        image = load_image(source, color=color)
        found = self.detector.detect([image])[0]
        if select:
            found = select_faces(found, select, (image.shape[1], image.shape[0]))
        name = _name(source)
        if len(found) == 0:
            raise NoFaceError(
                f"No face was found in {name}; one is needed. Use a photo in which the face is "
                "upright and larger, or lower min_face_size."
            )
        if len(found) > 1:
            raise SeveralFacesError(
                f"{len(found)} faces were found in {name}; one is expected. Crop the photo, or "
                'choose with select, such as "largest".'
            )
        return self.embedder.embed([image], [found])[0][0]

    def verify(
        self,
        a: Any,
        b: Any,
        *,
        fmr: float | None = None,
        threshold: float | None = None,
        prior: float | None = None,
        select: str | None = None,
        color: str = "rgb",
    ) -> Verification:
        """Do two photos, one face each, show the same person?

        fmr: false-match rate to decide at (default 1e-4); threshold: a similarity instead. prior:
        share of pairs of one person among those you compare, for `probability`, which needs a
        calibration.
        """
        level = self.threshold(fmr=fmr, threshold=threshold)
        if prior is not None and self.calibration is None:
            raise SettingsError(
                "A prior is of use to calibrated probabilities; this model has none. Make them "
                "with `facenet calibrate FOLDER`, or leave prior out."
            )
        first = self.face(a, select=select, color=color)
        second = self.face(b, select=select, color=color)
        answer = decisions.verify(first, second, level)
        if self.calibration is None:
            return answer
        chance = probability(answer.similarity, self.calibration, prior)
        return replace(answer, probability=float(chance))

    def compare(
        self, sources: Iterable[Any], *, select: str | None = None, color: str = "rgb"
    ) -> FloatArray:
        """Similarity of every photo with every other, one face each: float32 (n, n).

        select, color: as in `face`. Raises InputError with fewer than two photos.
        """
        photos = _listed(sources)
        if len(photos) < 2:
            raise InputError(f"Comparing needs two photos or more; got {len(photos)}.")
        faces = [self.face(photo, select=select, color=color) for photo in photos]
        rows = np.array([face.embedding for face in faces], np.float32)
        return vectors.similarity_matrix(rows, rows)

    def enrol(self, known: Known, *, color: str = "rgb") -> Enrolment:
        """People from a folder (one file or sub-folder each) or from a mapping name -> photos.

        A photo that is broken, or without exactly one face, is refused with its reason.
        Raises DataError when the folder holds nobody, InputError when a person is left without
        a photo.
        """
        people: dict[str, list[Face]] = {}
        refused: list[tuple[str, str]] = []
        for name, photos in _people(known).items():
            people[name], reasons = [], list[tuple[str, str]]()
            for photo in photos:
                try:
                    people[name].append(self.face(photo, color=color))
                except (ImageError, NoFaceError, SeveralFacesError) as error:
                    reasons.append((_name(photo), str(error)))
            if not people[name]:
                why = " ".join(reason for _, reason in reasons)
                raise InputError(f"{name} has no usable photo. {why}".strip())
            refused += reasons
        return Enrolment(People.from_faces(people), tuple(refused))

    def identify(
        self,
        known: Known | People,
        photos: Any,
        *,
        fmr: float | None = None,
        threshold: float | None = None,
        fpir: float | None = None,
        color: str = "rgb",
    ) -> Any:
        """Name every face of a photo, or of each of a list of photos.

        known: `People`, a folder or a mapping name -> photos. fmr, threshold: as in `verify`.
        fpir: how often a stranger may be named, over all known people, in place of fmr.
        Returns a list of `Identification`, one per face; for a list of photos, a list of lists.
        """
        self.threshold(fmr=fmr, threshold=threshold, fpir=fpir)  # refused before the work
        people = known if isinstance(known, People) else self.enrol(known, color=color).people
        level = self.threshold(
            fmr=fmr, threshold=threshold, fpir=fpir, comparisons=len(people.names)
        )
        found = self.faces(photos, color=color)
        if isinstance(found, Faces):
            return decisions.identify(people, found, level)
        return [decisions.identify(people, faces, level) for faces in found]

    @staticmethod
    def _all(stream: Stream[Seen]) -> list[Faces]:
        """The faces of each photo; the first that cannot be used raises its error."""
        with stream:
            return [seen.found() for seen in stream]

    def _reduced(self, embedder: Embedder | None) -> dict[int, Detector]:
        """The detector for JPEGs that are decoded at a part of their size, by the number below
        the line."""
        named = len(self.cards) == 2
        options = detector_settings(self.cards[1], self._detection) if named else None
        if not isinstance(options, MtcnnSettings):
            raise SettingsError(
                "Reduced decoding is for the detector MTCNN; got another one. Leave it out: other "
                "detectors reduce large pictures by themselves."
            )
        crop = embedder.preprocess if embedder else None
        part = reduction(options.min_face_size, max(crop.width, crop.height) if crop else 0)
        options = replace(options, min_face_size=options.min_face_size // part)
        settings = replace(self._settings, precision="fp32")
        return {part: open_detector(self.cards[1].name, settings, options=options)}


def _people(known: Known) -> Mapping[str, Sequence[Any]]:
    if isinstance(known, str | os.PathLike):
        return read_people(known)
    return {name: _listed(photos) for name, photos in known.items()}


def _listed(photos: Any) -> list[Any]:
    """Photos as a list, also a single one."""
    return list(photos) if is_many(photos) else [photos]


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else "the photo"
