"""Enrolment: photos of a person are judged, and the good ones kept.

A photo that is enrolled already is known by its digest and is no error, so that an enrolment can
be repeated; a refused photo leaves nothing behind. Besides what `judgement` says of the photo, a
face is refused when it is a conflict (nearer to somebody else, and near enough to be held for
them), unlike (far from all faces of the person), or was said by a user not to be this person.
Two people whom a user told apart are no conflict.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from facenet.errors import InputError
from facenet.gallery.decide import Match, Searcher, active_space, query_rows
from facenet.gallery.journal import Recorder, aparts_of
from facenet.gallery.judgement import (
    CONFLICT,
    REJECTED,
    UNLIKE,
    Enrolment,
    Judgement,
    Reason,
    Sighting,
    judge_photo,
)
from facenet.gallery.people import (
    composed,
    known_outside,
    named,
    new_person,
    resolve,
    seen_before,
)
from facenet.gallery.records import Crop, EnrolledFace, Person, Ruling
from facenet.gallery.store import Draft, Store, View
from facenet.types import FloatArray

ID = re.compile("[0-9a-f]{16}")
"""What ids of people look like."""


@dataclass(frozen=True, slots=True)
class Enrollee:
    """Whom to enrol. who: name of a new person, or name or id of one who is enrolled. external_id:
    names one person for good, whatever the name. metadata: put over those that are there."""

    who: str
    external_id: str | None = None
    metadata: Mapping[str, Any] | None = None

    def require_possible(self) -> None:
        """Raise InputError for a name, external id or metadata that nobody can have."""
        if not isinstance(self.who, str):
            raise InputError(
                f"A person to enrol should be a text, a name or an id; got "
                f"{type(self.who).__name__}. Give the name."
            )
        new_person(self.who, external_id=self.external_id, metadata=self.metadata)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What came of one photo. face: its number, None when it was refused for `reasons`. already:
    it was enrolled before. person, name: id and name of the person; id None where nobody was
    enrolled. overruled: reasons that were allowed. unjudged: codes of rules that were left out,
    as the rates that are known do not reach so far."""

    source: str
    photo: str
    name: str
    person: str | None
    face: int | None
    already: bool = False
    reasons: tuple[Reason, ...] = ()
    overruled: tuple[Reason, ...] = ()
    unjudged: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the photo was not enrolled."""
        return self.face is None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; reasons by code, with the sentences under "why"."""
        return {
            "photo": self.source,
            "sha256": self.photo,
            "person": self.name,
            "person_id": self.person,
            "face": self.face,
            "already": self.already,
            "reasons": [reason.code for reason in self.reasons],
            "why": " ".join(reason.text for reason in self.reasons),
            "overruled": [reason.code for reason in self.overruled],
            "unjudged": list(self.unjudged),
        }


def enrol(
    store: Store, index: Searcher, whom: Enrollee, sightings: Sequence[Sighting], how: Enrolment
) -> list[Enrolled]:
    """Judge photos of one person and keep the good ones, all in one draft; an answer per photo.

    The person is made with the first face that is kept; metadata and an external id are put when
    a face is kept or was there before. Raises ContractError for faces of another model, InputError
    for vectors, names or metadata that cannot be kept and an external id that is somebody else's,
    UnknownPersonError when several people bear the name: then nothing is kept.
    """
    judged = [judge_photo(sighting, how) for sighting in sightings]
    with store.read() as view:
        target = find_person(view, whom)
        rows = [
            None if one.row is None else query_rows(view, sighting.faces[[one.row]])[0]
            for sighting, one in zip(sightings, judged, strict=True)
        ]
        rivals = _rivals(view, index, target, rows)
    with store.write() as draft:
        work = _Work(draft, find_person(draft, whom, target), how)
        answers = [
            work.take(sighting, judgement, row, found)
            for sighting, judgement, row, found in zip(sightings, judged, rows, rivals, strict=True)
        ]
        work.finish(whom, any(not answer.refused for answer in answers))
        return answers


def find_person(view: View, whom: Enrollee, fresh: Person | None = None) -> Person:
    """The person to enrol, or a new one who is not in the store yet.

    By external id where one is given: whoever has it, else the person of the id `who`, else a new
    one. Without one as in `people.resolve`: by id, else by name, else by external id; else a new
    one, unless `who` looks like an id. fresh: the new one, made before. Raises InputError for an
    external id that is somebody else's, for an id that nobody has, and for a name, external id or
    metadata that nobody can have, UnknownPersonError when several people bear the name.
    """
    whom.require_possible()
    made = fresh or new_person(whom.who, external_id=whom.external_id, metadata=whom.metadata)
    by_id = view.get(Person, whom.who)
    if whom.external_id is None:
        if by_id or named(view, whom.who) or known_outside(view, whom.who):
            return resolve(view, whom.who)
        _require_no_id(whom.who)
        return made
    person = next(iter(known_outside(view, whom.external_id)), None) or by_id or made
    outside = None if person.external_id is None else composed(person.external_id)
    names = (person.id, composed(person.name))
    if composed(whom.who) not in names or outside not in (None, made.external_id):
        raise InputError(
            f"The external id {whom.external_id} should be {whom.who:.80}'s alone; {person.name} "
            f"({person.id}) has {person.external_id}. Give their name, or another external id."
        )
    return person


def _require_no_id(name: str) -> None:
    if ID.fullmatch(name):
        raise InputError(
            f"A new person's name should not look like an id; nobody has the id {name}. Check the "
            "id, give another name, or an external id with it."
        )


class _Work:
    """One enrolment under way in a draft."""

    def __init__(self, draft: Draft, person: Person, how: Enrolment) -> None:
        self.draft, self.person, self.how = draft, person, how
        self.recorder = Recorder(draft)
        self.contract = active_space(draft).contract
        ids = [face.id for face in draft.find(EnrolledFace, person=person.id)]
        self.own = list(draft.vectors(self.contract, ids=ids).rows)
        faces = draft.count(EnrolledFace)
        self.level, self.unjudged = how.conflict_level(faces), how.unjudged(faces)
        self.apart = _apart_from(draft, person)

    def take(
        self,
        sighting: Sighting,
        judgement: Judgement,
        row: FloatArray | None,
        rivals: Sequence[Match],
    ) -> Enrolled:
        """Judge one photo to the end, and keep its face, a vector (d,), if it may be kept."""
        known = self._existing(sighting)
        if known is not None:
            self._complete(sighting, judgement.row, row, known)
            return self._answer(sighting, known.id, already=True)
        if row is not None and judgement.row is not None:
            found = self._reasons(sighting, judgement.row, row, rivals)
            judgement = judgement.with_reasons(found, self.how.allow)
        if row is None or judgement.row is None or judgement.reasons:
            return self._answer(sighting, None, judgement)
        return self._answer(sighting, self._keep(sighting, judgement.row, row), judgement)

    def finish(self, whom: Enrollee, kept: bool) -> None:
        """Put what else is known of the person, and write the entry of the journal."""
        if kept:
            metadata = {**self.person.metadata, **(whom.metadata or {})}
            external = self.person.external_id
            if external is None and whom.external_id is not None:
                external = composed(whom.external_id)
            told = replace(self.person, metadata=metadata, external_id=external)
            if told != self.draft.get(Person, told.id):
                self.recorder.put(told)
        self.recorder.enter("enrol")

    def _existing(self, sighting: Sighting) -> EnrolledFace | None:
        if not sighting.photo:
            return None
        found = self.draft.find(EnrolledFace, photo=sighting.photo, person=self.person.id)
        return found[0] if found else None

    def _complete(
        self, sighting: Sighting, number: int | None, row: FloatArray | None, known: EnrolledFace
    ) -> None:
        """Put the vector of an enrolled face in the active space where it has none there: it was
        enrolled before the gallery changed its model, and left behind."""
        if number is None or row is None or len(self.draft.vectors(self.contract, ids=[known.id])):
            return
        same = seen_before(self.draft, sighting.photo, sighting.faces.boxes[number])
        if known.box is None or any(face.id == known.id for face in same):
            self.draft.put_vectors(self.contract, {known.id: row})
            self.own.append(row)

    def _reasons(
        self, sighting: Sighting, number: int, row: FloatArray, rivals: Sequence[Match]
    ) -> list[Reason]:
        """Why this face may not be the person's."""
        nearest = max((float(own @ row) for own in self.own), default=None)
        seen = seen_before(self.draft, sighting.photo, sighting.faces.boxes[number])
        found = self._rejections(seen)
        conflict = self._conflict(seen, rivals, nearest)
        if conflict:
            found.append(conflict)
        level = self.how.unlike_level()
        if nearest is not None and level is not None and nearest < level:
            text = (
                f"A face of {self.person.name} should be similar to one that is enrolled, by "
                f"{level:.3f} or more; it is {nearest:.3f}. Check whose it is, or allow {UNLIKE}."
            )
            found.append(Reason(UNLIKE, text, None, nearest))
        return found

    def _rejections(self, seen: Sequence[EnrolledFace]) -> list[Reason]:
        for face in seen:
            ruling = self.draft.get(Ruling, f"{face.id}:{self.person.id}")
            if ruling and not ruling.same:
                text = (
                    f"A user said that this face, number {face.id}, is not {self.person.name}. "
                    "If it is, confirm it."
                )
                return [Reason(REJECTED, text, face.person)]
        return []

    def _conflict(
        self, seen: Sequence[EnrolledFace], rivals: Sequence[Match], nearest: float | None
    ) -> Reason | None:
        """Whom else this face is held for: by the very photo, or by similarity."""
        if self.how.rules.conflict_fpir is None:
            return None
        excluded = {self.person.id, *self.apart}
        known = [(face.person, 1.0) for face in seen]
        if self.level is not None:
            near = max(self.level, -1.0 if nearest is None else nearest)
            known += [(m.person, float(m.similarity)) for m in rivals if m.similarity >= near]
        for who, similarity in known:
            other = None if who in excluded else self.draft.get(Person, who)
            if other:
                text = (
                    f"The face looks like {other.name} ({other.id}), similarity {similarity:.3f}. "
                    f"Enrol it there, say that the two are apart, or allow {CONFLICT}."
                )
                return Reason(CONFLICT, text, other.id, similarity)
        return None

    def _keep(self, sighting: Sighting, number: int, row: FloatArray) -> int:
        face = sighting.faces[number]
        if self.draft.get(Person, self.person.id) is None:
            self.recorder.put(self.person)
        x1, y1, x2, y2 = (float(value) for value in face.box)
        measures = sighting.measures[number] if sighting.measures else {}
        kept = EnrolledFace(
            id=self.draft.next_id(EnrolledFace),
            person=self.person.id,
            created=time.time(),
            photo=sighting.photo,
            source=sighting.source,
            box=(x1, y1, x2, y2),
            quality=face.quality,
            measures={name: value for name, value in measures.items() if math.isfinite(value)},
        )
        self.recorder.put(kept)
        self.draft.put_vectors(self.contract, {kept.id: row})
        if sighting.crops:
            self.draft.put(Crop(kept.id, sighting.crops[number]))
        self.own.append(row)
        return kept.id

    def _answer(
        self,
        sighting: Sighting,
        face: int | None,
        judgement: Judgement | None = None,
        *,
        already: bool = False,
    ) -> Enrolled:
        enrolled = self.draft.get(Person, self.person.id)
        return Enrolled(
            sighting.source,
            sighting.photo,
            self.person.name,
            enrolled.id if enrolled else None,
            face,
            already,
            judgement.reasons if judgement else (),
            judgement.overruled if judgement else (),
            self.unjudged if judgement and judgement.row is not None else (),
        )


def _rivals(
    view: View, index: Searcher, person: Person, rows: Sequence[FloatArray | None]
) -> list[Sequence[Match]]:
    """The nearest people of each face: enough that one is nobody to be passed over."""
    there = [row for row in rows if row is not None]
    if not there:
        return [() for _ in rows]
    found = iter(index.search(np.stack(there), 2 + len(_apart_from(view, person))))
    return [() if row is None else next(found) for row in rows]


def _apart_from(view: View, person: Person) -> set[str]:
    pairs = aparts_of(view, person.id)
    return {one for pair in pairs for one in (pair.first, pair.second)} - {person.id}
