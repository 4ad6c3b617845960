"""The front door to people who are kept: photos in, people enrolled, faces named.

A `Gallery` is a store with a recognizer. It is of one embedding contract at a time, and vectors of
another never enter it. Photos are whatever `facenet.images.load_image` takes. People are meant by
name, id or external id; by id where two bear one name. Whatever is changed is in the journal, and
can be taken back with `undo` unless it was a deletion.

    >>> with facenet.Gallery.create("people.db") as gallery:  # doctest: +SKIP
    ...     gallery.enroll("Grace Hopper", "hopper.jpg")
    ...     gallery.identify("party.jpg")
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from facenet.errors import ImageError, NoFaceError, SeveralFacesError, StorageError
from facenet.faces.embed import FLIPPED
from facenet.gallery import decide
from facenet.gallery.answers import (
    Candidate,
    GalleryIdentification,
    PersonVerification,
    Question,
)
from facenet.gallery.calibrate import Threshold
from facenet.gallery.enrolment import Enrolled, Enrollee, enrol
from facenet.gallery.index import IDENTITY, Index
from facenet.gallery.judgement import Enrolment, EnrolmentRules, Sighting, rules_for
from facenet.gallery.levels import Rates
from facenet.gallery.nearest import Approximation
from facenet.gallery.records import EnrolledFace, Setting, Space
from facenet.gallery.register import Register
from facenet.gallery.snapshot import snapshot_path
from facenet.gallery.store import Store, open_store
from facenet.images import is_many, load_with_digest
from facenet.models.calibration import Calibration
from facenet.models.home import cpu_threads
from facenet.recognizer import Recognizer
from facenet.sightings import look, require_fit, require_select, space_named, space_of
from facenet.types import Face, Faces

KEEP_CROPS = "keep_crops"
"""Name of a setting: "1" where pictures of faces are kept."""
AT_ONCE = 64
"""Photos of a person that are enrolled in one draft."""
SNAPSHOT_FROM = 20_000
"""Faces from which closing a gallery writes its index beside it, for the next start."""


class Gallery(Register):
    """People kept in a store. Make one with `create`, come back to it with `open`.

    rules: of enrolment, by default `EnrolmentRules()`; its bound on detection scores is left out
    with another detector than MTCNN. As a context manager it closes at the end.
    """

    def __init__(
        self,
        store: Store,
        *,
        recognizer: Recognizer | None = None,
        rules: EnrolmentRules | None = None,
        approximate: bool | Approximation = False,
    ) -> None:
        super().__init__(store)
        self._given, self._rules, self._approximate = recognizer, rules, approximate
        self._index: tuple[Space, Index] | None = None
        self._built: tuple[Space, Recognizer] | None = None
        if recognizer is not None:
            require_fit(self.space, recognizer)

    @classmethod
    def create(
        cls,
        place: str | Path,
        *,
        recognizer: Recognizer | None = None,
        model: str | None = None,
        precision: str = "fp32",
        flip: bool = False,
        keep_crops: bool = False,
    ) -> Gallery:
        """A new gallery in a file (or at an address) where there is none.

        model, precision, flip: of the embedder, for good; those of `recognizer` where one is
        given. keep_crops: keep a small picture of each enrolled face. Raises GalleryError when
        there is a gallery already, StorageError when there cannot be one, UnknownModelError.
        """
        space = space_of(recognizer) if recognizer else space_named(model, precision, flip)
        store = open_store(place, create=True)
        with ExitStack() as undone:
            undone.callback(store.close)
            with store.write() as draft:
                draft.put(space)
                if draft.get(Setting, IDENTITY) is None:
                    draft.put(Setting(IDENTITY, secrets.token_hex(16)))
                draft.put(Setting(KEEP_CROPS, "1" if keep_crops else "0"))
            gallery = cls(store, recognizer=recognizer)
            undone.pop_all()
        return gallery

    @classmethod
    def open(
        cls,
        place: str | Path,
        *,
        recognizer: Recognizer | None = None,
        rules: EnrolmentRules | None = None,
        approximate: bool = False,
    ) -> Gallery:
        """The gallery in a file or at an address.

        recognizer: by default one of the gallery's own model, loaded when it is needed.
        approximate: search a part of the faces; see `Index`, and `index.recall` for what it finds.
        Raises GalleryError when there is none or it cannot be used, DamagedGalleryError,
        ContractError for a recognizer of another model, SettingsError for `approximate` with fewer
        than two million faces.
        """
        store = open_store(place)
        with ExitStack() as undone:
            undone.callback(store.close)
            gallery = cls(store, recognizer=recognizer, rules=rules, approximate=approximate)
            if approximate:
                with store.read() as view:
                    Approximation().require_enough(view.count(EnrolledFace))
            undone.pop_all()
        return gallery

    def close(self) -> None:
        """Let go of the file. A large gallery leaves its index beside it for the next start."""
        if self._index and len(self._index[1]) >= SNAPSHOT_FROM:
            with suppress(StorageError):  # a copy of what the store has: it can be made again
                self._index[1].save()
        self._index = None
        self.store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- what it is

    @property
    def recognizer(self) -> Recognizer:
        """The one that was given, or one of the gallery's own model.

        Raises ContractError when its model is not the gallery's (any more).
        """
        space = self.space
        if self._given is None and (self._built is None or self._built[0] != space):
            flip = space.contract.endswith(FLIPPED)
            built = Recognizer(model=space.model, precision=space.precision, flip=flip)
            self._built = (space, built)
        recognizer = self._given or (self._built[1] if self._built else Recognizer())
        require_fit(space, recognizer)
        return recognizer

    @property
    def index(self) -> Index:
        """What searches the active space; it brings itself to the store's revision."""
        space = self.space
        if self._index is None or self._index[0].contract != space.contract:
            file = self._file
            snapshot = snapshot_path(file, space.contract) if file else None
            index = Index(
                self.store, space.contract, snapshot=snapshot, threads=cpu_threads(),
                approximate=self._approximate,
            )  # fmt: skip
            self._index = (space, index)
        return self._index[1]

    @property
    def keep_crops(self) -> bool:
        """Whether small pictures of enrolled faces are kept."""
        return self._setting(KEEP_CROPS) == "1"

    @property
    def rules(self) -> EnrolmentRules:
        """Bounds of enrolment."""
        return self._rules or rules_for(self.recognizer.detection)

    @property
    def calibration(self) -> Calibration | None:
        """The calibration that the recognizer was told to use (None for "card"), else the one of
        its model that is kept in the gallery, else the recognizer's own, or None."""
        return self._calibration(self.recognizer)

    # ---- enrolment and decisions

    def look(self, photos: Any, *, crops: bool = False) -> Iterator[Sighting]:
        """What is seen in each photo, in their order, a few read at a time.

        A photo that cannot be read gives a sighting with its `problem`. crops: with pictures.
        """
        return look(self.recognizer, photos, crops=crops)

    def enroll(
        self,
        person: str,
        photos: Any,
        *,
        external_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        allow: Sequence[str] = (),
    ) -> list[Enrolled]:
        """Enrol photos of a person, new or not, one face each; an answer per photo.

        person: name or id. external_id: tells two people of one name apart. allow: reasons that
        do not count this time, of `facenet.gallery.judgement.ALLOWABLE`. A photo that is enrolled
        already stays as it is. Photos are committed 64 at a time.
        Raises UnknownPersonError when several people bear the name, SettingsError for `allow`,
        InputError for a name, external id or metadata that nobody can have.
        """
        how = self.judging(allow)
        whom = Enrollee(person, external_id, metadata)
        whom.require_possible()
        answers: list[Enrolled] = []
        group: list[Sighting] = []
        for sighting in self.look(photos, crops=self.keep_crops):
            group.append(sighting)
            if len(group) == AT_ONCE:
                answers += self.enroll_seen(whom, group, how)
                group = []
        return answers + (self.enroll_seen(whom, group, how) if group else [])

    def enroll_seen(
        self, whom: Enrollee, sightings: Sequence[Sighting], how: Enrolment
    ) -> list[Enrolled]:
        """Enrol what was seen, all in one draft. Errors as in `enroll`."""
        return enrol(self.store, self.index, whom, sightings, how)

    def judging(self, allow: Sequence[str] = ()) -> Enrolment:
        """How photos are judged here. Raises SettingsError for a reason that cannot be allowed."""
        alone = isinstance(allow, str) or not isinstance(allow, Iterable)
        codes: tuple[Any, ...] = (allow,) if alone else tuple(allow)
        rates = self.rates
        return Enrolment(self.rules, codes, rates.table, rates.card.fmr)

    def question(
        self,
        *,
        fmr: float | None = None,
        fpir: float | None = None,
        threshold: float | None = None,
        once: bool = True,
        where: Mapping[str, Any] | None = None,
        template: bool = False,
    ) -> Question:
        """How faces are to be identified, for `answer`; arguments and errors as in `identify`."""
        rates = self.rates
        rates.search(1, fmr=fmr, fpir=fpir, threshold=threshold)  # refused before the work
        among = self._among(where)
        count = self._comparisons(among, template)
        level = rates.search(count, fmr=fmr, fpir=fpir, threshold=threshold)
        return Question(level, count, once, among, template, rates.contract)

    def answer(
        self, faces: Faces, question: Question, *, photo: str = ""
    ) -> list[GalleryIdentification]:
        """Decide about the embedded faces of one photo; photo: its digest (`Sighting.photo`).

        Raises ContractError when the gallery's model changed since the question was made.
        """
        index = self.index
        with index.reading() as view:
            return decide.identify_faces(view, index, faces, question, photo=photo)

    def identify(
        self,
        photos: Any,
        *,
        fmr: float | None = None,
        fpir: float | None = None,
        threshold: float | None = None,
        once: bool = True,
        where: Mapping[str, Any] | None = None,
        template: bool = False,
    ) -> Any:
        """Name every face of a photo, or call it unknown and say why.

        fmr: rate of false matches of each comparison to decide at (default 1e-4); fpir: how often
        a stranger may be named over the whole gallery, instead; threshold: a similarity, instead.
        once: name a person at most once in a photo. where: metadata that people must have, such
        as {"team": "a"}. template: compare with each person's pooled vector, not the best face.
        Returns a list of `GalleryIdentification`, one per face; for a list of photos, a list of
        lists. Raises ImageError for a photo that cannot be read, SettingsError for a rate that the
        model's table does not reach.
        """
        seen = self.look(photos)  # by the model of now, as the question
        asked = self.question(
            fmr=fmr, fpir=fpir, threshold=threshold, once=once, where=where, template=template
        )
        answers = []
        for sighting in seen:
            if sighting.problem:
                raise ImageError(sighting.problem)
            answers.append(self.answer(sighting.faces, asked, photo=sighting.photo))
        return answers if is_many(photos) else answers[0]

    def verify(
        self,
        person: str,
        photo: Any,
        *,
        fmr: float | None = None,
        threshold: float | None = None,
        select: str | None = None,
        template: bool = False,
    ) -> PersonVerification:
        """Does a photo show this person? One face is expected, or chosen with `select`.

        fmr: how often a stranger may pass, over all faces of the person together (default 1e-4).
        template: compare with the person's pooled vector. Raises NoFaceError, SeveralFacesError,
        UnknownPersonError, InputError for a person without faces.
        """
        who = self.person(person)
        count = self._comparisons(frozenset([who.id]), template)
        rates = self.rates
        level = rates.person(count, fmr=fmr, threshold=threshold)
        face, digest = self._one_face(photo, select)
        contract = rates.contract
        asked = Question(level, max(count, 1), template=template, contract=contract)
        index = self.index
        with index.reading() as view:
            return decide.verify_person(view, index, face, who, asked, photo=digest)

    def search(
        self,
        photo: Any,
        k: int = 5,
        *,
        select: str | None = None,
        where: Mapping[str, Any] | None = None,
        template: bool = False,
    ) -> list[Candidate]:
        """The k people who look most like the one face of a photo, whatever the similarity.

        Arguments and errors as in `verify` and `identify`.
        """
        face, _ = self._one_face(photo, select)
        asked = Question(Threshold(-1.0, None), 1, False, self._among(where), template)
        index = self.index
        with index.reading() as view:
            return decide.rank(view, index, face, asked, k)

    # ---- inside

    @property
    def rates(self) -> Rates:
        """What is known of the errors of the gallery's model."""
        recognizer = self.recognizer
        embedder = recognizer.embedder
        return Rates(embedder.card, embedder.contract, self._calibration(recognizer))

    def _calibration(self, recognizer: Recognizer) -> Calibration | None:
        chosen = recognizer.rates_chosen
        kept = None if chosen else self.kept_calibration(recognizer.embedder.contract)
        return kept or recognizer.calibration

    def _among(self, where: Mapping[str, Any] | None) -> frozenset[str] | None:
        return None if where is None else frozenset(person.id for person in self.people(where))

    def _comparisons(self, among: frozenset[str] | None, template: bool) -> int:
        """Vectors that a face is compared with: faces, or people who have one."""
        index = self.index
        if among is not None:
            return index.count(among, template=template)
        index.refresh()
        return index.people if template else len(index)

    def _one_face(self, photo: Any, select: str | None) -> tuple[Face, str]:
        require_select(select)
        pixels, digest = load_with_digest(photo)
        try:
            return self.recognizer.face(pixels, select=select), digest
        except (NoFaceError, SeveralFacesError) as error:
            name = str(photo)[:300] if isinstance(photo, str | PathLike) else "the photo"
            raise type(error)(str(error).replace("the photo", name, 1)) from error
