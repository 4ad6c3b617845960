"""Who is this? Decisions about the faces of one photo, against the people of a gallery.

All faces of a photo are decided together. Each pair of a face and a person whose similarity
reaches the threshold is a possible match; the most similar pair is taken first, then the next of a
face and a person that are both still free (ties: the earlier face, then the lower id). So one
person is named at most once in a photo, the best face has them, and every answer is a match with
the error rate that is stated beside it. An assignment that maximised the sum of similarities could
take a person from their best face to name a second one; it is not what a user expects, and it
makes each answer depend on all others.

What a user decided comes first: a confirmed face has its person whatever the similarity, and a
rejected one never gets that person. Both are known again by the photo's digest and the place in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from facenet.errors import ContractError, DamagedGalleryError, InputError
from facenet.gallery.answers import (
    BELOW,
    CONFIRMED,
    NOBODY,
    REJECTED,
    TAKEN,
    Candidate,
    GalleryIdentification,
    PersonVerification,
    Question,
)
from facenet.gallery.calibrate import identification_rate
from facenet.gallery.compare import require_contract
from facenet.gallery.people import seen_before
from facenet.gallery.records import EnrolledFace, Person, Ruling, Space, checked_vectors
from facenet.gallery.store import View
from facenet.types import Face, Faces, FloatArray


class Match(Protocol):
    """A person found: id, the face that matched (0 for a template), similarity."""

    @property
    def person(self) -> str:
        """Id of the person."""
        ...

    @property
    def face(self) -> int:
        """Number of the face, 0 for a template."""
        ...

    @property
    def similarity(self) -> float:
        """Cosine, -1 to 1."""
        ...


class Searcher(Protocol):
    """Finds the most similar people; see `facenet.gallery.index.Index`."""

    def search(
        self,
        queries: FloatArray,
        k: int = 5,
        *,
        among: Collection[str] | None = None,
        template: bool = False,
        view: View | None = None,
    ) -> Sequence[Sequence[Match]]:
        """At most k people for each of (m, d) unit vectors, the most similar first, as they are
        in a view."""
        ...


@dataclass(frozen=True, slots=True)
class _Case:
    """What is known of one face: candidates by falling similarity, and what a user decided."""

    candidates: tuple[Candidate, ...]
    confirmed: str | None = None
    rejected: frozenset[str] = field(default_factory=frozenset)


def identify_faces(
    view: View, index: Searcher, faces: Faces, question: Question, *, photo: str = ""
) -> list[GalleryIdentification]:
    """Decide about all faces of one photo; one answer per face, in their order.

    view: as `Index.reading` gives it. faces: with embeddings of the gallery's active space. photo:
    SHA-256 of the photo in hex, by
    which decisions of a user about this very face are found. Raises ContractError for faces of
    another model and a question about another, InputError for vectors that are none.
    """
    require_current(view, question)
    if len(faces) == 0:
        return []
    rows = query_rows(view, faces)
    decided = [_decisions(view, face, photo, question.among) for face in faces]
    wanted = 2 + max(len(rejected) for _, rejected in decided)
    wanted += len(faces) - 1 if question.once else 0
    found = candidates(view, index, rows, question, wanted)
    cases = [
        _Case(_complete(view, index, row, (ranked, own), question), own, rejected)
        for row, ranked, (own, rejected) in zip(rows, found, decided, strict=True)
    ]
    given = _assign(cases, question)
    level, rate = question.threshold, question.threshold.fmr
    fpir = None
    if rate is not None and question.comparisons:
        fpir = identification_rate(rate, question.comparisons)
    return [
        GalleryIdentification(face, best, known, level.similarity, rate, fpir, second, reason)
        for face, (best, known, second, reason) in zip(
            faces,
            (_outcome(case, given, number, question) for number, case in enumerate(cases)),
            strict=True,
        )
    ]


def verify_person(
    view: View,
    index: Searcher,
    face: Face,
    person: Person,
    question: Question,
    *,
    photo: str = "",
) -> PersonVerification:
    """Is a face this person? question: its threshold is the one of each comparison.

    Raises ContractError for a face or a question of another model, InputError for a person without
    faces.
    """
    require_current(view, question)
    rows = query_rows(view, _alone(face))
    only = replace(question, among=frozenset([person.id]))
    found = candidates(view, index, rows, only, 1)[0]
    if not found:
        raise InputError(
            f"{person.name} ({person.id}) should have an enrolled face; there is none. Enrol a "
            "photo first."
        )
    best, level = found[0], question.threshold
    own, rejected = _decisions(view, face, photo, None)
    match, reason = best.similarity >= level.similarity, None
    if person.id in rejected and match:
        match, reason = False, REJECTED
    elif own == person.id and not match:
        match, reason = True, CONFIRMED
    rate = None if level.fmr is None else identification_rate(level.fmr, question.comparisons)
    return PersonVerification(
        match,
        best.similarity,
        level.similarity,
        rate,
        level.source,
        person.name,
        person.id,
        best.face,
        question.comparisons,
        reason,
    )


def rank(view: View, index: Searcher, face: Face, question: Question, k: int) -> list[Candidate]:
    """The k people most similar to a face, the most similar first, whatever the similarity.

    Raises as `identify_faces`, SettingsError for k below 1.
    """
    return candidates(view, index, query_rows(view, _alone(face)), question, k)[0]


def candidates(
    view: View, index: Searcher, rows: FloatArray, question: Question, k: int
) -> list[list[Candidate]]:
    """The k most similar people of each row, (m, d) unit vectors, the most similar first.

    What the index found is compared with the view. Raises DamagedGalleryError for a person who is
    not there or a face that is somebody else's: the next best must not be taken for them.
    """
    if question.among is not None and not question.among:
        return [[] for _ in rows]
    found = index.search(rows, k, among=question.among, template=question.template, view=view)
    return [[_candidate(view, match) for match in ranked] for ranked in found]


def query_rows(view: View, faces: Faces) -> FloatArray:
    """The embeddings of faces, float32 (n, d), fit to be compared with this gallery.

    Raises ContractError for those of another model, InputError for NaN, zero or missing ones.
    """
    if faces.embedding is None:
        raise InputError("Faces to identify should have embeddings; these have none. Embed first.")
    space = active_space(view)
    require_contract(space.contract, faces.contract, "the photo")
    return checked_vectors(faces.embedding, space)


def require_current(view: View, question: Question) -> None:
    """Raise ContractError when the threshold of a question is of another model than is searched:
    its rates would not be true."""
    active = active_space(view).contract
    if question.contract not in (None, active):
        raise ContractError(
            f"The question was made for the model {question.contract:.200}; the gallery is "
            f"searched with {active:.200} by now. Make the question again."
        )


def active_space(view: View) -> Space:
    """The one space that is searched now. Raises DamagedGalleryError unless there is one."""
    spaces = view.find(Space, state="active")
    if len(spaces) != 1:
        raise DamagedGalleryError(
            f"A gallery should have one active model; this one has {len(spaces)}. Restore a backup."
        )
    return spaces[0]


def _candidate(view: View, match: Match) -> Candidate:
    person = view.get(Person, match.person)
    face = view.get(EnrolledFace, match.face) if match.face else None
    if person is None or (match.face and (face is None or face.person != person.id)):
        raise DamagedGalleryError(
            f"The gallery is damaged: face {match.face} of the person {match.person:.80} is not as "
            "it was found. Check it with `facenet gallery verify`."
        )
    return Candidate(person.name, person.id, float(match.similarity), int(match.face))


def _decisions(
    view: View, face: Face, photo: str, among: Collection[str] | None
) -> tuple[str | None, frozenset[str]]:
    """Whom a user confirmed this face as, and whom it was said not to be."""
    rulings = [
        ruling
        for seen in seen_before(view, photo, face.box)
        for ruling in view.find(Ruling, face=seen.id)
    ]
    confirmed = [r.person for r in rulings if r.same and (among is None or r.person in among)]
    rejected = frozenset(ruling.person for ruling in rulings if not ruling.same)
    return (confirmed[0] if confirmed else None), rejected


def _complete(
    view: View,
    index: Searcher,
    row: FloatArray,
    known: tuple[Sequence[Candidate], str | None],
    question: Question,
) -> tuple[Candidate, ...]:
    """Candidates together with the confirmed person, wherever they rank."""
    ranked, own = known
    if own is None or any(candidate.person_id == own for candidate in ranked):
        return tuple(ranked)
    alone = replace(question, among=frozenset([own]))
    return (*ranked, *candidates(view, index, row[None], alone, 1)[0])


def _assign(cases: Sequence[_Case], question: Question) -> Mapping[int, str]:
    """Face -> person: confirmed faces first, then pairs by falling similarity."""
    given = {n: case.confirmed for n, case in enumerate(cases) if case.confirmed}
    taken = set(given.values())
    pairs = [
        (-candidate.similarity, number, candidate.person_id)
        for number, case in enumerate(cases)
        for candidate in case.candidates
        if candidate.similarity >= question.threshold.similarity
        and candidate.person_id not in case.rejected
    ]
    for _, number, person in sorted(pairs):
        if number not in given and not (question.once and person in taken):
            given[number] = person
            taken.add(person)
    return given


def _outcome(
    case: _Case, given: Mapping[int, str], number: int, question: Question
) -> tuple[Candidate | None, bool, Candidate | None, str | None]:
    """Best candidate, whether it is them, the runner-up, and why."""
    if not case.candidates:
        return None, False, None, NOBODY
    mine = given.get(number)
    level = question.threshold.similarity
    best = next((c for c in case.candidates if c.person_id == mine), None)
    known, reason = best is not None, None
    if best is not None and best.similarity < level:
        reason = CONFIRMED
    if best is None:
        best, reason = _nearest(case, level)
    others = (c for c in case.candidates if c.person_id not in {best.person_id, *case.rejected})
    return best, known, next(others, None), reason


def _nearest(case: _Case, level: float) -> tuple[Candidate, str]:
    """Who came nearest to being named, and what stood in the way."""
    first = case.candidates[0]
    if first.similarity >= level:
        return first, REJECTED if first.person_id in case.rejected else TAKEN
    allowed = [c for c in case.candidates if c.person_id not in case.rejected]
    return (allowed or case.candidates)[0], BELOW


def _alone(face: Face) -> Faces:
    """One face as `Faces`."""
    embedding = None if face.embedding is None else face.embedding[None]
    points = None if face.landmarks is None else face.landmarks[None]
    score = np.array([face.detection_score], np.float32)
    return Faces(face.box[None], points, score, embedding, contract=face.contract)
