"""Corrections: people renamed, merged, split; faces moved, confirmed, rejected, deleted.

Each function takes a store, makes its change in one draft, and writes an entry of the journal that
takes it back (but for what is deleted). What a user decided about a face, confirm (must-link) and
reject (cannot-link), and about two people, apart, stays in force through every later change:

- a face is never with a person it was said not to be, and a confirmed face is with that person;
  a change that would break this is refused, and says which decision stands in its way;
- only a decision overrules a decision: `confirm`, `reject` or `forget`; `apart` with revoke;
- when people are merged, decisions about them are about the one who stays.

A rejected face leaves its person for a new automatic one, so that nothing is lost and the face can
still be named. An automatic person whom the last face leaves is removed.
Must-link and cannot-link as in Wagstaff and others, ICML 2001.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from facenet.errors import InputError
from facenet.gallery.journal import Recorder, aparts_of, scrub, undo_entry, write_entry
from facenet.gallery.people import (
    composed,
    new_person,
    plain_metadata,
    require_face,
    require_faces,
    require_obeyed,
    resolve,
)
from facenet.gallery.records import Apart, EnrolledFace, Person, Ruling
from facenet.gallery.store import Draft, Store


@dataclass(frozen=True, slots=True)
class Change:
    """What a correction did. action: its name. entry: number in the journal, None when there was
    nothing to change. person: the person it ended with, as now enrolled; None when gone. faces:
    how many faces are with somebody else now, or gone. gone: how many are gone for good, because
    they were deleted or their enrolment was taken back."""

    action: str
    entry: int | None
    person: Person | None
    faces: int = 0
    gone: int = 0


def rename(store: Store, who: str, name: str) -> Change:
    """Give a person another name; an automatic person becomes a named one.

    Raises UnknownPersonError, and InputError for a name that nobody can have.
    """
    with store.write() as draft:
        recorder = Recorder(draft)
        person = replace(resolve(draft, who), name=composed(name), automatic=False)
        recorder.put(person)
        return _change(recorder, "rename", person)


def describe(store: Store, who: str, metadata: Mapping[str, Any]) -> Change:
    """Give a person other metadata, in place of what was there. Errors as in `rename`."""
    told = plain_metadata(metadata)
    with store.write() as draft:
        recorder = Recorder(draft)
        person = replace(resolve(draft, who), metadata=told)
        recorder.put(person)
        return _change(recorder, "describe", person)


def merge(store: Store, into: str, others: Iterable[str]) -> Change:
    """Make people one: all faces of `others` go to `into`, who keeps id and name.

    The external id is that of `into`, else of the first other who has one. Metadata are those of
    all; where two have a key, `into` wins, then the earlier. Decisions about the others become
    decisions about `into`. Raises UnknownPersonError, and InputError when a user said that two of
    them are two, or that a face of theirs is not one of them.
    """
    with store.write() as draft:
        recorder = Recorder(draft)
        target = resolve(draft, into)
        recorder.about.add(target.id)
        gone = _each([resolve(draft, other) for other in others], target)
        everybody = [target, *gone]
        _require_not_apart(draft, everybody)
        moved = [face for other in gone for face in draft.find(EnrolledFace, person=other.id)]
        for face in moved:
            recorder.put(replace(face, person=target.id))
        for other in gone:
            _inherit(recorder, other.id, target.id)
            recorder.remove_person(other.id)
        merged = replace(
            target,
            external_id=next((one.external_id for one in everybody if one.external_id), None),
            metadata={key: one.metadata[key] for one in everybody[::-1] for key in one.metadata},
        )
        recorder.put(merged)
        for face in draft.find(EnrolledFace, person=target.id):
            require_obeyed(draft, face, f"{merged.name} was not merged")
        return _change(recorder, "merge", merged, len(moved))


def split(store: Store, faces: int | Iterable[int], name: str | None = None) -> Change:
    """Give some faces to a new person: two people were under one name.

    name: of the new person; None for an automatic one. Raises InputError for faces that are not
    there, or that were confirmed as somebody.
    """
    with store.write() as draft:
        recorder = Recorder(draft)
        person = new_person(name)
        recorder.put(person)
        return _hand_over(recorder, "split", require_faces(draft, faces), person)


def move(store: Store, faces: int | Iterable[int], who: str) -> Change:
    """Give faces to another person who is enrolled.

    Raises UnknownPersonError, and InputError for faces that are not there, that were confirmed as
    somebody else, or said not to be this person.
    """
    with store.write() as draft:
        person = resolve(draft, who)
        return _hand_over(Recorder(draft), "move", require_faces(draft, faces), person)


def confirm(store: Store, face: int, who: str) -> Change:
    """A user says: this face is this person. It goes there, and stays there.

    Takes the place of what was decided about this face and person, and of a confirmation as
    somebody else. Raises UnknownPersonError, InputError for a face that is not there.
    """
    with store.write() as draft:
        recorder = Recorder(draft)
        person, enrolled = resolve(draft, who), require_face(draft, face)
        for ruling in draft.find(Ruling, face=enrolled.id):
            if ruling.same and ruling.person != person.id:
                recorder.delete(Ruling, ruling.key)
        _rule(recorder, enrolled, person, same=True)
        return _hand_over(recorder, "confirm", [enrolled], person)


def reject(store: Store, face: int, who: str) -> Change:
    """A user says: this face is not this person. Nothing will ever give it to them.

    When it was with them it goes to a new automatic person, whom `Change.person` names; otherwise
    it stays where it is. Takes the place of a confirmation. Raises as `confirm`.
    """
    with store.write() as draft:
        recorder = Recorder(draft)
        person, enrolled = resolve(draft, who), require_face(draft, face)
        _rule(recorder, enrolled, person, same=False)
        if enrolled.person != person.id:
            return _change(recorder, "reject", draft.get(Person, enrolled.person))
        stranger = new_person(None)
        recorder.put(stranger)
        return _hand_over(recorder, "reject", [enrolled], stranger)


def forget(store: Store, face: int, who: str) -> Change:
    """Take back what a user decided about a face and a person; the face stays where it is.

    Raises UnknownPersonError, InputError for a face that is not there or nothing decided.
    """
    with store.write() as draft:
        recorder = Recorder(draft)
        person, enrolled = resolve(draft, who), require_face(draft, face)
        key = f"{enrolled.id}:{person.id}"
        if draft.get(Ruling, key) is None:
            raise InputError(
                f"Nothing was decided about face {enrolled.id} and {person.name} ({person.id})."
            )
        recorder.delete(Ruling, key)
        return _change(recorder, "forget", person)


def apart(store: Store, first: str, second: str, *, revoke: bool = False) -> Change:
    """A user says: these two people look alike and are two. They are never merged or confused.

    revoke: take that back. Raises UnknownPersonError, InputError for one person given twice.
    """
    with store.write() as draft:
        recorder = Recorder(draft)
        a, b = resolve(draft, first), resolve(draft, second)
        if a.id == b.id:
            raise InputError(f"Two people should be told apart; got {a.name} ({a.id}) twice.")
        low, high = sorted((a.id, b.id))
        kept = draft.get(Apart, f"{low}:{high}")
        if revoke and kept:
            recorder.delete(Apart, kept.key)
        if not revoke and not kept:
            recorder.put(Apart(low, high, time.time()))
        return _change(recorder, "together" if revoke else "apart", a)


def delete_faces(store: Store, faces: int | Iterable[int]) -> Change:
    """Delete faces with their vectors, crops and decisions. It cannot be undone.

    Entries of the journal that speak of them can no longer be taken back either. Raises
    InputError for faces that are not there.
    """
    with store.write() as draft:
        enrolled = require_faces(draft, faces)
        owners = {face.person for face in enrolled}
        for face in enrolled:
            draft.delete(EnrolledFace, face.id)
        scrub(draft, faces={face.id for face in enrolled})
        for owner in _left_empty(draft, owners):
            draft.delete(Person, owner)
            scrub(draft, people=[owner])
        left = [owner for owner in owners if draft.get(Person, owner)]
        entry = write_entry(draft, "delete_faces", left)
        person = draft.get(Person, left[0]) if len(left) == 1 else None
        return Change("delete_faces", entry.id, person, len(enrolled), len(enrolled))


def delete_person(store: Store, who: str) -> Change:
    """Delete a person with everything that is kept of them. It cannot be undone.

    The entries of the journal that speak of them are deleted too. Raises UnknownPersonError.
    """
    with store.write() as draft:
        person = resolve(draft, who)
        faces = [face.id for face in draft.find(EnrolledFace, person=person.id)]
        scrub(draft, people=[person.id], faces=faces)
        draft.delete(Person, person.id)
        entry = write_entry(draft, "delete", ())
        return Change("delete", entry.id, None, len(faces), len(faces))


def undo(store: Store, entry: int | None = None) -> Change:
    """Take back the latest entry of the journal that was not taken back, or the one of a number.

    Faces whose enrolment is taken back are gone for good, as are people whom it made; `Change.gone`
    counts the faces. There is no way to take back what was taken back.
    Raises InputError when it cannot be: it deleted something, or something later depends on it.
    """
    with store.write() as draft:
        there = draft.count(EnrolledFace)
        undone = undo_entry(draft, entry)
        gone = there - draft.count(EnrolledFace)
        people = [person for one in undone.people if (person := draft.get(Person, one))]
        person = people[0] if people else None
        return Change(f"undo {undone.action}", undone.id, person, gone, gone)


def add(store: Store, person: Person) -> Change:
    """Put a new person without a face, also where somebody has the name already.

    Raises InputError for an external id that is somebody else's.
    """
    with store.write() as draft:
        recorder = Recorder(draft)
        recorder.put(person)
        return _change(recorder, "add", person)


def _change(recorder: Recorder, action: str, person: Person | None, faces: int = 0) -> Change:
    entry = recorder.enter(action)
    return Change(action, entry.id if entry else None, person, faces)


def _hand_over(
    recorder: Recorder, action: str, faces: list[EnrolledFace], person: Person
) -> Change:
    """Give faces to a person, if nothing that was decided is against it."""
    draft, moved = recorder.draft, [face for face in faces if face.person != person.id]
    for face in moved:
        given = replace(face, person=person.id)
        require_obeyed(draft, given, f"Face {face.id} was not given to {person.name}")
        recorder.put(given)
    for owner in _left_empty(draft, {face.person for face in moved}):
        recorder.remove_person(owner)
    return _change(recorder, action, person, len(moved))


def _left_empty(draft: Draft, people: Iterable[str]) -> list[str]:
    """Those of some people who are automatic and without a face: nobody, then."""
    found = (draft.get(Person, one) for one in sorted(people))
    return [
        person.id
        for person in found
        if person and person.automatic and not draft.count(EnrolledFace, person=person.id)
    ]


def _rule(recorder: Recorder, face: EnrolledFace, person: Person, *, same: bool) -> None:
    """Write a ruling, unless it is there already."""
    kept = recorder.draft.get(Ruling, f"{face.id}:{person.id}")
    if kept is None or kept.same != same:
        recorder.put(Ruling(face.id, person.id, same, time.time()))


def _inherit(recorder: Recorder, old: str, new: str) -> None:
    """Make decisions about one person decisions about another."""
    draft = recorder.draft
    for ruling in draft.find(Ruling, person=old):
        kept = draft.get(Ruling, f"{ruling.face}:{new}")
        if kept and kept.same != ruling.same:
            raise InputError(
                f"The people were not merged: a user said that face {ruling.face} is one of them "
                "and not the other. Forget one of the two decisions first."
            )
        if not kept:
            recorder.put(replace(ruling, person=new))
    for pair in aparts_of(draft, old):
        low, high = sorted((new, pair.second if pair.first == old else pair.first))
        if draft.get(Apart, f"{low}:{high}") is None:
            recorder.put(Apart(low, high, pair.created))


def _each(people: list[Person], but: Person) -> list[Person]:
    """Each of some people once, in their order. Raises InputError when nobody is left."""
    found = {person.id: person for person in people if person.id != but.id}
    if not found:
        raise InputError(
            f"Merging needs another person besides {but.name} ({but.id}); got none. Name one."
        )
    return list(found.values())


def _require_not_apart(draft: Draft, people: list[Person]) -> None:
    names = {person.id: person.name for person in people}
    for person in people:
        for pair in draft.find(Apart, first=person.id):
            if pair.second in names:
                raise InputError(
                    f"{names[pair.first]} ({pair.first}) and {names[pair.second]} ({pair.second}) "
                    "were not merged: a user said that they are two. Take that back with apart and "
                    "revoke first."
                )
