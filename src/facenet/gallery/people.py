"""Who is meant: people of a gallery by id, name or external id, and by their metadata.

Two people may bear one name; then only an id tells them apart, and the answer to the name is an
error that lists the ids.
"""

from __future__ import annotations

import difflib
import heapq
import operator
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex

from facenet.errors import InputError, SettingsError, UnknownPersonError
from facenet.gallery.records import (
    LONGEST_NAME,
    EnrolledFace,
    Key,
    Person,
    Ruling,
    is_line,
    new_person_id,
)
from facenet.gallery.store import View
from facenet.types import FloatArray

LISTED = 10
"""Ids or names that a message lists at most."""
COMPARED = 20_000
"""Names that are looked through for one that is close."""
NEAREST = 50
"""Names that share the most pairs of letters with the one that was given; they are compared."""

SAME_PLACE = 0.5
"""Overlap from which two boxes in one photo are one face (the bound of PASCAL VOC)."""


def resolve(view: View, who: str) -> Person:
    """The person of an id, of a name that one person bears, or of an external id; in this order.

    Raises UnknownPersonError: with the ids when several bear the name, with close names when
    nobody does.
    """
    if not isinstance(who, str):
        raise UnknownPersonError(
            f"A person should be named by a text, a name or an id; got {type(who).__name__}."
        )
    by_id = view.get(Person, who) if _possible(who) else None
    found = [by_id] if by_id else named(view, who)
    if len(found) > 1:
        raise UnknownPersonError(
            f"{len(found)} people are called {who:.80}, so give the id of one of them: "
            f"{_listed(person.id for person in found)}."
        )
    if not found:
        found = known_outside(view, who)
    if not found:
        raise UnknownPersonError(_unknown(view, who))
    return found[0]


def named(view: View, name: str) -> list[Person]:
    """The people who bear exactly this name, however its letters are composed, by id."""
    found = [person for form in _forms(name) for person in view.find(Person, name=form)]
    return sorted(found, key=lambda person: person.id)


def known_outside(view: View, external_id: str) -> list[Person]:
    """Whoever has this external id, however its letters are composed: one person, or nobody."""
    return [p for form in _forms(external_id) for p in view.find(Person, external_id=form)][:1]


def composed(text: str) -> str:
    """A name or an external id as it is kept: composed letters (NFC of Unicode), so that one name
    is one text however it was typed. What can be neither comes back as it is."""
    known = isinstance(text, str) and len(text) <= 4 * LONGEST_NAME
    return unicodedata.normalize("NFC", text) if known else text


def require_face(view: View, face: int) -> EnrolledFace:
    """The face of a number. Raises InputError when there is none."""
    number = operator.index(face) if isinstance(face, SupportsIndex) else 0
    found = view.get(EnrolledFace, number) if 0 < number < 2**63 else None
    if found is None:
        raise InputError(
            f"A face should be the number of one that is enrolled; there is no face {face!s:.40}. "
            "`facenet gallery show`, or `faces()` from Python, lists those of a person."
        )
    return found


def require_faces(view: View, faces: int | Iterable[int]) -> list[EnrolledFace]:
    """The faces of some numbers, each once, by number. Raises InputError as `require_face`, and
    when there is none."""
    alone = isinstance(faces, SupportsIndex | str) or not isinstance(faces, Iterable)
    found = {
        face.id: face
        for number in ([faces] if alone else faces)  # type: ignore[union-attr]
        if (face := require_face(view, number))  # type: ignore[arg-type]
    }
    if not found:
        raise InputError("There should be one face or more; got none. Give their numbers.")
    return [found[number] for number in sorted(found)]


def require_obeyed(view: View, face: EnrolledFace, why: str = "It was not done") -> None:
    """Raise InputError when a face is with a person against what a user decided.

    why: how the message begins.
    """
    for ruling in view.find(Ruling, face=face.id):
        if ruling.same != (ruling.person == face.person):
            person = view.get(Person, ruling.person)
            said = "confirmed as" if ruling.same else "said not to be"
            raise InputError(
                f"{why}: face {face.id} was {said} {person.name if person else '?'} "
                f"({ruling.person}) by a user. Confirm, reject or forget that first."
            )


def seen_before(
    view: View, photo: str, box: Sequence[float] | FloatArray | None
) -> list[EnrolledFace]:
    """Enrolled faces that are this very face: of a photo of this digest, and in the same place.

    box: (4,), x1 y1 x2 y2 in pixels; the same place is an overlap (intersection over union) of
    `SAME_PLACE` or more, as two detectors never agree to the pixel. None when `photo` is "".
    """
    if not photo or box is None:
        return []
    return [
        face
        for face in view.find(EnrolledFace, photo=photo)
        if face.box is not None and _overlap(face.box, box) >= SAME_PLACE
    ]


def matching(view: View, where: Mapping[str, Any]) -> list[Person]:
    """People whose metadata has each of these values, by id.

    Raises SettingsError for anything but a mapping of texts.
    """
    if not isinstance(where, Mapping) or not all(isinstance(key, str) for key in where):
        raise SettingsError(
            f"where should map names of metadata to values; got {type(where).__name__}. An "
            'example: {"team": "a"}.'
        )
    return [
        person
        for person in view.find(Person)
        if all(key in person.metadata and person.metadata[key] == where[key] for key in where)
    ]


def new_person(
    name: str | None,
    *,
    external_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    now: float | None = None,
) -> Person:
    """A person with a new id. Without a name an automatic one, "unknown-" and half of the id.

    Raises InputError for a name, external id or metadata that no person can have.
    """
    created = time.time() if now is None else now
    fresh = new_person_id()
    title, automatic = (f"unknown-{fresh[:8]}", True) if name is None else (composed(name), False)
    outside = None if external_id is None else composed(external_id)
    told = {} if metadata is None else plain_metadata(metadata)
    return Person(fresh, title, created, outside, told, automatic)


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as a dict of its own. Raises InputError for what maps nothing."""
    if not isinstance(metadata, Mapping):
        raise InputError(
            f"Metadata of a person should map names to values; got {type(metadata).__name__}. An "
            'example: {"team": "a"}.'
        )
    return dict(metadata)


def _possible(text: str) -> bool:
    """Whether a text can be a name at all: no store is asked for ten megabytes."""
    return 0 < len(text) <= LONGEST_NAME and is_line(text)


def _forms(text: str) -> list[str]:
    """What a name may be kept as: with composed letters, and as it is given."""
    return [form for form in dict.fromkeys((composed(text), text)) if _possible(form)]


def _unknown(view: View, who: str) -> str:
    close = []
    if _possible(who):
        names = {person.name for person in view.find(Person, limit=COMPARED)}
        folded = {name.casefold(): name for name in sorted(names)}
        wanted = composed(who).casefold()
        few = heapq.nlargest(NEAREST, folded, key=lambda name: _shared(wanted, name))
        found = difflib.get_close_matches(wanted, few, n=3, cutoff=0.6)
        close = [folded[name] for name in found]
    everybody = "`facenet gallery list`, or `people()`, lists everybody."
    step = f"Did you mean {' or '.join(close)}?" if close else everybody
    shown = f"{who:.80}" if _possible(who) else f"a text of {len(who):,} characters"
    return f"Nobody in this gallery has the name or the id {shown}. {step}"


def _shared(a: str, b: str) -> float:
    """Share of pairs of neighbouring letters that two texts have in common (Dice), 0 to 1."""
    pairs = [set(zip(f" {text}", f"{text} ", strict=True)) for text in (a, b)]
    return 2 * len(pairs[0] & pairs[1]) / (len(pairs[0]) + len(pairs[1]))


def _listed(texts: Iterable[Key]) -> str:
    every = [str(text) for text in texts]
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more


def _overlap(a: Sequence[float] | FloatArray, b: Sequence[float] | FloatArray) -> float:
    """Intersection over union of two boxes x1 y1 x2 y2, 0 to 1."""
    wide = min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0]))
    tall = min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1]))
    shared = max(wide, 0.0) * max(tall, 0.0)
    both = sum(float(box[2] - box[0]) * float(box[3] - box[1]) for box in (a, b)) - shared
    return shared / both if both > 0 else 0.0
