"""Who a track is: the answer, and the two who answer, a gallery and a few people in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from facenet import vectors
from facenet.faces.embed import Embedder
from facenet.galleries import Gallery
from facenet.gallery.answers import BELOW, NOBODY, Candidate
from facenet.gallery.calibrate import Threshold
from facenet.gallery.compare import People, require_contract
from facenet.gallery.levels import Rates
from facenet.recognizer import Recognizer
from facenet.types import Faces, FloatArray
from facenet.video.levels import Levels, levels_of
from facenet.video.settings import WatchSettings

CLOSED = "rate_spent"
"""Why nobody was looked for: the model's rates say nothing of rarer matches than those left."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a track is, by the last look at it.

    person, person_id: who it is, None for unknown; of a folder both are the name. similarity: of
    the track's template to them, or to the best candidate; None when there was nobody. threshold:
    similarity that the look needed. fmr: how often somebody else's track would have been taken for
    a given person by now, all looks together; fpir: how often a stranger's would have been named at
    all; None where the model's rates are not known. best_candidate: the most similar person.
    stranger: "unknown 3" where it is nobody known. reason: None when the similarity decided, else a
    word of `facenet.gallery.answers` or "rate_spent". looks: how often it was decided. faces: how
    many the template is of.
    """

    person: str | None = None
    person_id: str | None = None
    similarity: float | None = None
    threshold: float | None = None
    fmr: float | None = None
    fpir: float | None = None
    best_candidate: str | None = None
    stranger: str | None = None
    reason: str | None = None
    looks: int = 0
    faces: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search said of a template. candidates: the most similar people, best first; the first
    is accepted or not, and why not; the others count by their similarity."""

    candidates: tuple[Candidate, ...]
    accepted: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A template to be named: unit vector float32 (d,), and the best portrait of the track: JPEG
    and the box of the face in it, float32 (4,), by which decisions of a user are found."""

    vector: FloatArray
    jpeg: bytes = b""
    box: FloatArray | None = None


class Decider(Protocol):
    """Knows people. contract: of the vectors it compares."""

    contract: str

    def levels(self) -> Levels:
        """How looks are decided now."""
        ...

    def find(self, asked: Asked, level: Threshold) -> Finding:
        """Who a template is at a threshold."""
        ...


class KnownPeople:
    """People in memory, as `Recognizer.enrol` gives them. Raises SettingsError for rates that the
    model's table does not reach."""

    def __init__(self, people: People, rates: Rates, settings: WatchSettings) -> None:
        self.people, self.contract = people, people.contract
        count = len(people.names)
        level = rates.search(
            count, fmr=settings.fmr, fpir=settings.fpir, threshold=settings.threshold
        )
        given = settings.threshold is not None
        self._levels = levels_of(rates, level, given=given, comparisons=count)

    def levels(self) -> Levels:
        """How looks are decided."""
        return self._levels

    def find(self, asked: Asked, level: Threshold) -> Finding:
        """The most similar people; of several vectors of a person the best counts."""
        scores = vectors.similarity_matrix(asked.vector[None], self.people.embedding)[0]
        best: dict[str, float] = {}
        for column in np.argsort(-scores, kind="stable"):
            best.setdefault(self.people.names[column], float(scores[column]))
            if len(best) == 3:
                break
        found = tuple(Candidate(name, name, value) for name, value in best.items())
        accepted = found[0].similarity >= level.similarity
        return Finding(found, accepted, None if accepted else BELOW)


class GalleryPeople:
    """People of a gallery, as it is at each look: who is enrolled meanwhile counts.

    Raises ContractError for a recognizer of another model, SettingsError for rates that the
    model's table does not reach.
    """

    def __init__(self, gallery: Gallery, settings: WatchSettings) -> None:
        self._gallery, self._settings = gallery, settings
        self.contract = gallery.rates.contract
        self.levels()

    def levels(self) -> Levels:
        """How looks are decided, by the number of people there are now."""
        settings = self._settings
        question = self._question(settings.fmr, settings.fpir, settings.threshold)
        given = settings.threshold is not None
        rates = self._gallery.rates
        levels = levels_of(rates, question.threshold, given=given, comparisons=question.comparisons)
        return replace(levels, pooled=settings.pooled)

    def find(self, asked: Asked, level: Threshold) -> Finding:
        """The gallery's own answer; what a user decided about the portrait is obeyed."""
        question = replace(self._question(None, None, level.similarity), threshold=level)
        photo = hashlib.sha256(asked.jpeg).hexdigest() if asked.jpeg else ""
        faces = one_face(asked, self.contract)
        answer = self._gallery.answer(faces, question, photo=photo)[0]
        found = tuple(one for one in (answer.best, answer.second) if one is not None)
        return Finding(found, answer.known, answer.reason or (None if found else NOBODY))

    def _question(self, fmr: float | None, fpir: float | None, threshold: float | None) -> Any:
        return self._gallery.question(
            fmr=fmr, fpir=fpir, threshold=threshold, once=False, template=self._settings.pooled
        )


def decider_for(
    known: Any, gallery: Gallery | None, recognizer: Recognizer, settings: WatchSettings
) -> Decider | None:
    """Who answers: a gallery, known people (a folder, a mapping or `People`), or nobody.

    Raises ContractError for people of another model, DataError or InputError where there is nobody.
    """
    if gallery is not None:
        return GalleryPeople(gallery, settings)
    if known is None:
        return None
    rates = rates_of(recognizer)
    rates.search(1, fmr=settings.fmr, fpir=settings.fpir, threshold=settings.threshold)  # first
    people = known if isinstance(known, People) else recognizer.enrol(known).people
    require_contract(recognizer.embedder.contract, people.contract, "the known people")
    return KnownPeople(people, rates, settings)


def rates_of(recognizer: Recognizer) -> Rates:
    """What is known of the errors of a recognizer's model."""
    embedder: Embedder = recognizer.embedder
    return Rates(embedder.card, embedder.contract, recognizer.calibration)


def one_face(asked: Asked, contract: str) -> Faces:
    """A template as the face of a photo, (1, d)."""
    box = np.zeros((1, 4), np.float32) if asked.box is None else asked.box[None]
    return Faces(box, None, np.ones(1, np.float32), asked.vector[None], contract=contract)
