"""The journal of a gallery: what was changed, and what takes it back.

An entry keeps, for each row that it changed, what was there before and a digest of what it left.
It can be taken back as long as every one of those rows is as it left it and no later entry touched
any of them; otherwise that one has to be taken back first. Vectors and crops are never in the
journal, so what deleted them cannot be undone. When a person is deleted, the entries that speak of
them go too, as names are in them, and those of whoever had become them: names they once bore.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, TypeAlias

from facenet.errors import InputError
from facenet.gallery.people import require_obeyed
from facenet.gallery.records import Apart, EnrolledFace, Entry, Key, Person, Row, Ruling
from facenet.gallery.store import Draft, View

JOURNAL = 10_000
"""Entries that are kept; the oldest go first."""
PAGE = 500
KINDS: Mapping[str, type[Any]] = {kind.kind: kind for kind in (Person, EnrolledFace, Ruling, Apart)}
"""Kinds of rows that entries change, parents first."""
Names: TypeAlias = "tuple[str, Key]"
"""Kind and key of a row."""


class Recorder:
    """A draft that remembers what was there before, so that an entry can take it back."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.about: set[str] = set()
        """People the entry speaks of, besides those of the rows."""
        self._before: dict[Names, Row | None] = {}

    def put(self, row: Row) -> None:
        """Write a row."""
        self._before.setdefault((row.kind, row.key), self.draft.get(type(row), row.key))
        self.draft.put(row)

    def delete(self, kind: type[Row], key: Key) -> None:
        """Remove a row that no other depends on; see `remove_person`."""
        self._before.setdefault((kind.kind, key), self.draft.get(kind, key))
        self.draft.delete(kind, key)

    def remove_person(self, person: str) -> None:
        """Remove a person without faces, with the rulings and aparts that speak of them."""
        for ruling in self.draft.find(Ruling, person=person):
            self.delete(Ruling, ruling.key)
        for apart in aparts_of(self.draft, person):
            self.delete(Apart, apart.key)
        self.delete(Person, person)

    def enter(self, action: str, *, now: float | None = None) -> Entry | None:
        """Write what was done as an entry; None where nothing changed."""
        changes = []
        people = set(self.about)
        for (kind, key), before in sorted(self._before.items(), key=lambda item: str(item[0])):
            after = self.draft.get(KINDS[kind], key)
            if before != after:
                changes.append([kind, key, _image(before), _mark(after)])
                people |= _people(before) | _people(after)
        if not changes:
            return None
        undo = json.loads(json.dumps({"rows": changes}))
        return write_entry(self.draft, action, people, undo=undo, now=now)


def write_entry(
    draft: Draft,
    action: str,
    people: Collection[str],
    *,
    undo: Mapping[str, Any] | None = None,
    now: float | None = None,
    keep: int = JOURNAL,
) -> Entry:
    """Put a new entry, and let the oldest go beyond `keep`."""
    number = draft.next_id(Entry)
    moment = time.time() if now is None else now
    entry = Entry(number, moment, action, tuple(sorted(people)), undo)
    draft.put(entry)
    for old in draft.find(Entry, limit=2):
        if old.id <= number - keep:
            draft.delete(Entry, old.id)
    return entry


def undo_entry(draft: Draft, number: int | None = None) -> Entry:
    """Take an entry back, by default the latest that has not been taken back.

    Raises InputError when there is none, when it was taken back already, when it deleted
    something, or when something later depends on it.
    """
    entry = _wanted(draft, number)
    if entry.undone:
        raise InputError(
            f"Entry {entry.id} ({entry.action}) was taken back already. `facenet gallery "
            "history`, or `history()`, says which were not."
        )
    if entry.undo is None:
        raise InputError(
            f"Entry {entry.id} ({entry.action}) cannot be taken back: what was deleted is gone, "
            "and nothing of it is kept. Restore a backup, or name an earlier entry."
        )
    rows = [(kind, key, before, after) for kind, key, before, after in entry.undo["rows"]]
    made = {str(key) for kind, key, before, _ in rows if kind == Person.kind and before is None}
    _require_last(draft, entry, rows, made)
    _restore(draft, entry, rows)
    done = replace(draft.get(Entry, entry.id) or entry, undone=True)
    if made:  # they are gone: this entry says what was done, and no other speaks of them
        done = replace(done, people=tuple(sorted(set(done.people) - made)), undo=None)
    draft.put(done)
    if made:
        scrub(draft, people=made, keep=_revivable(draft))
    return done


def scrub(
    draft: Draft,
    *,
    people: Collection[str] = (),
    faces: Collection[int] = (),
    keep: Collection[str] = (),
) -> None:
    """Remove every entry that speaks of these people, and what would undo those of these faces.

    Whoever is gone and is spoken of beside one of these people may have become them (by a merge),
    so what speaks of those goes too, and so on; but of those in `keep`.
    """
    gone_people, gone_faces = _with_merged(draft, set(people), set(keep)), set(faces)
    for entry in entries(draft):
        if gone_people & set(entry.people):
            draft.delete(Entry, entry.id)
        elif entry.undo is not None and gone_faces & _faces(entry.undo):
            draft.put(replace(entry, undo=None))


def entries(view: View, *, after: int = 0) -> Iterator[Entry]:
    """Every entry with a number above `after`, the oldest first, read in pages."""
    while page := view.find(Entry, after=after, limit=PAGE):
        yield from page
        after = page[-1].id


def aparts_of(view: View, person: str) -> list[Apart]:
    """The aparts that speak of a person, by key."""
    return [*view.find(Apart, first=person), *view.find(Apart, second=person)]


def _with_merged(draft: Draft, gone: set[str], keep: set[str]) -> set[str]:
    """People who are gone, with all who are gone and are spoken of together with any of them."""
    spoken = [set(entry.people) for entry in entries(draft)] if gone else []
    fresh = set(gone)
    while fresh:
        beside = {one for people in spoken if people & fresh for one in people} - gone - keep
        fresh = {one for one in beside if draft.get(Person, one) is None}
        gone = gone | fresh
    return gone


def _revivable(draft: Draft) -> set[str]:
    """Ids in entries that can still be taken back, and bring back people who are gone."""
    live = (entry for entry in entries(draft) if entry.undo is not None and not entry.undone)
    return {one for entry in live for one in entry.people}


def _wanted(draft: Draft, number: int | None) -> Entry:
    if number is not None:
        known = isinstance(number, int) and 0 < number < 2**63
        entry = draft.get(Entry, number) if known else None
        if entry is None:
            raise InputError(
                f"There is no entry {number!s:.40} in the journal. `facenet gallery history`, "
                "or `history()`, lists them; those of deleted people are gone with them."
            )
        return entry
    latest = None
    for entry in entries(draft):
        latest = latest if entry.undone else entry
    if latest is None:
        raise InputError("There is nothing to take back: no change of this gallery is left.")
    return latest


def _restore(draft: Draft, entry: Entry, rows: list[tuple[str, Key, Any, Any]]) -> None:
    """Put back what was there: parents before children, and what was new goes last."""
    ranked = sorted(rows, key=lambda row: (list(KINDS).index(row[0]), row[3] is None))
    for kind, key, before, _ in ranked:
        if before is not None:
            draft.put(_row(draft, kind, key, before))
    created = [(kind, key) for kind, key, before, _ in ranked if before is None]
    removed = {key for kind, key in created if kind == EnrolledFace.kind}
    for kind, key in reversed(created):
        _require_alone(draft, entry, kind, key)
        draft.delete(KINDS[kind], key)
    for number in sorted(_faces({"rows": rows})):  # a ruling that comes back has to be obeyed too
        if face := draft.get(EnrolledFace, number):
            require_obeyed(draft, face, f"Entry {entry.id} ({entry.action}) cannot be taken back")
    if removed:
        scrub(draft, faces={int(face) for face in removed})


def _require_alone(draft: Draft, entry: Entry, kind: str, key: Key) -> None:
    """Raise InputError when something that came later would go with a row."""
    left = 0
    if kind == Person.kind:
        left += draft.count(EnrolledFace, person=key) + draft.count(Ruling, person=key)
        left += len(aparts_of(draft, str(key)))
    if kind == EnrolledFace.kind:
        left += draft.count(Ruling, face=key)
    if left:
        what = "the person" if kind == Person.kind else "a face"
        raise InputError(
            f"Entry {entry.id} ({entry.action}) cannot be taken back: {left} later faces or "
            f"decisions depend on {what} that it made. Take those back first, or move them."
        )


def _row(draft: Draft, kind: str, key: Key, before: Any) -> Row:
    """A row as it was before. A face is the one that is there, with the person of before."""
    if kind == EnrolledFace.kind:
        face = draft.get(EnrolledFace, key)
        if face is None:
            raise InputError(f"Face {key} is not in the gallery any more, so nothing was undone.")
        return replace(face, person=before)
    row: Row = KINDS[kind](**before)
    return row


def _image(row: Row | None) -> Any:
    """What an entry keeps of a row before: all of it, of a face only whose it was."""
    if isinstance(row, EnrolledFace):
        return row.person
    return None if row is None else asdict(row)


def _mark(row: Row | None) -> str | None:
    """What tells a row that was left from any other."""
    if isinstance(row, EnrolledFace):
        return row.person
    if row is None:
        return None
    text = json.dumps(asdict(row), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _require_last(
    draft: Draft, entry: Entry, rows: list[tuple[str, Key, Any, Any]], made: Collection[str]
) -> None:
    """Raise InputError unless each row is as the entry left it, by the entry and no later one.

    made: ids of people who will be gone: no later entry may need them either.
    """
    touched = {(kind, key) for kind, key, _, _ in rows}
    later = [
        other
        for other in entries(draft, after=entry.id)
        if not other.undone and other.undo
        if set(made) & set(other.people)
        or any((kind, key) in touched for kind, key, _, _ in other.undo["rows"])
    ]
    same = all(_mark(draft.get(KINDS[kind], key)) == after for kind, key, _, after in rows)
    if later or not same:
        why = (
            f"entry {later[-1].id} ({later[-1].action}) changed the same later. Take that back "
            "first"
            if later
            else "what it changed is not as it left it. Correct it by hand"
        )
        raise InputError(f"Entry {entry.id} ({entry.action}) cannot be taken back: {why}.")


def _people(row: Row | None) -> set[str]:
    if isinstance(row, Person):
        return {row.id}
    if isinstance(row, Apart):
        return {row.first, row.second}
    return {row.person} if isinstance(row, EnrolledFace | Ruling) else set()


def _faces(undo: Mapping[str, Any]) -> set[int]:
    found = {int(key) for kind, key, _, _ in undo["rows"] if kind == EnrolledFace.kind}
    rulings = (str(key) for kind, key, _, _ in undo["rows"] if kind == Ruling.kind)
    return found | {int(key.partition(":")[0]) for key in rulings}
