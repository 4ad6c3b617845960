"""Random histories of corrections, each step taken back by `undo` or refused: is anything wrong?

After each step the whole gallery is read. What a correction changed, row by row, is kept here; to
take it back has to give exactly these rows back and leave all others, whichever entries were taken
back before. A step that is refused changes nothing. After each step what a user decided is obeyed,
and nothing of a deleted person is in the journal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from crashing.ledger import State, contents
from crashing.operations import put_faces
from facenet.errors import InputError
from facenet.gallery import corrections
from facenet.gallery.corrections import Change
from facenet.gallery.journal import Recorder, entries
from facenet.gallery.memory import MemoryStore
from facenet.gallery.people import new_person
from facenet.gallery.records import EnrolledFace, Person, Row, Ruling, Space
from facenet.gallery.store import Draft, Store

STEPS = 30
"""Of a history."""
UNDO = 0.3
"""Share of steps that take something back."""


@dataclass(slots=True)
class Found:
    """What came of histories. undone: corrections taken back; refused: steps that were refused,
    of both kinds. told: the first things that were wrong."""

    histories: int = 0
    corrections: int = 0
    undone: int = 0
    refused: int = 0
    wrong: int = 0
    told: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The one line at the end."""
        return (
            f"{self.histories} histories: {self.corrections} corrections, {self.undone} undone, "
            f"{self.refused} refused, {self.wrong} wrong"
        )

    def expect(self, good: bool, what: str) -> None:
        """Count what is not as it should be."""
        if not good:
            self.wrong += 1
            self.told += [what] if len(self.told) < 10 else []


def run(histories: int, seed: int, make: Callable[[], Store] = MemoryStore) -> Found:
    """So many histories, each in a new gallery. make: gives the store of each."""
    found = Found()
    for number in range(histories):
        History(make(), np.random.default_rng([seed, number]), found).play()
        found.histories += 1
    return found


class History:
    """One gallery and what was done to it. changed: entry -> the rows that it changed, by name,
    each before and after."""

    def __init__(self, store: Store, random: np.random.Generator, found: Found) -> None:
        self.store, self.random, self.found = store, random, found
        self.changed: dict[int, dict[str, tuple[str | None, str | None]]] = {}
        with store.write() as draft:
            draft.put(Space("space-0", "toy", 16, "active", 0.0))
        for _ in range(4):
            before = self.now()
            self.keep(before, self.enrol(fresh=True))

    def play(self) -> None:
        """All steps of it."""
        for _ in range(STEPS):
            before = self.now()
            try:
                if self.random.random() < UNDO:
                    self.take_back(before)
                else:
                    self.correct(before)
            except InputError:
                self.found.refused += 1
                self.found.expect(self.now() == before, "what was refused changed something")
            self.require_obeyed()

    def now(self) -> State:
        """Everything but the journal."""
        with self.store.read() as view:
            state = contents(view)
        return {k: v for k, v in state.items() if not k.startswith(("entry:", "revision"))}

    def correct(self, before: State) -> None:
        """One correction, chosen at random."""
        choices = (
            self.rename, self.describe, self.merge, self.split, self.move, self.confirm,
            self.reject, self.forget, self.apart, self.delete, self.enrol, self.move, self.confirm,
            self.reject,
        )  # fmt: skip
        self.keep(before, choices[int(self.random.integers(len(choices)))]())
        self.found.corrections += 1

    def keep(self, before: State, change: Change) -> None:
        """Remember which rows a correction changed."""
        after = self.now()
        self.found.expect((after != before) == (change.entry is not None), f"{change.action}: none")
        if change.entry is not None:
            names = before.keys() | after.keys()
            pairs = {name: (before.get(name), after.get(name)) for name in names}
            changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
            self.changed[change.entry] = changed

    def take_back(self, before: State) -> None:
        """Take back the latest entry, or any."""
        number = None
        if self.random.random() < 0.5 and self.changed:
            number = int(self.random.choice(list(self.changed)))
        change = corrections.undo(self.store, number)
        self.found.undone += 1
        expected = dict(before)
        for name, (old, new) in self.changed.pop(change.entry or 0).items():
            same = before.get(name) == new
            self.found.expect(same, f"{change.action}: {name} had changed since")
            if old is None:
                expected.pop(name, None)
            else:
                expected[name] = old
        self.found.expect(self.now() == expected, f"{change.action} gave something else back")

    def require_obeyed(self) -> None:
        """What a user decided holds, and the journal speaks of nobody who was deleted."""
        with self.store.read() as view:
            for ruling in view.find(Ruling):
                face = view.get(EnrolledFace, ruling.face)
                good = face is not None and ruling.same == (face.person == ruling.person)
                self.found.expect(good, f"face {ruling.face} is not where it was said to be")

    # ---- corrections

    def people(self, count: int) -> list[str]:
        """Ids of some people."""
        with self.store.read() as view:
            ids = [person.id for person in view.find(Person)]
        if len(ids) < count:
            raise InputError("there are too few people")
        return [str(one) for one in self.random.permutation(ids)[:count]]

    def face(self) -> int:
        """Number of a face."""
        with self.store.read() as view:
            ids = [face.id for face in view.find(EnrolledFace)]
        if not ids:
            raise InputError("there is no face")
        return int(self.random.choice(ids))

    def word(self) -> str:
        """A name that nobody had."""
        return f"name {self.random.bytes(5).hex()}"

    def enrol(self, fresh: bool = False) -> Change:
        """Two faces of somebody, as an enrolment enters them in the journal."""
        known = None if fresh or self.random.random() < 0.5 else self.people(1)[0]
        with self.store.write() as draft:
            recorder = Recorder(draft)
            person = known or new_person(self.word()).id
            if known is None:
                recorder.put(Person(person, self.word(), 1.0))
            for number in put_faces(draft, self.random, person, 2):
                face = draft.get(EnrolledFace, number)
                draft.delete(EnrolledFace, number)
                if face:
                    recorder.put(face)
                    row = self.random.standard_normal(16).astype(np.float32)
                    draft.put_vectors("space-0", {number: row / np.linalg.norm(row)})
            entry = recorder.enter("enrol")
        return Change("enrol", entry.id if entry else None, None)

    def rename(self) -> Change:
        return corrections.rename(self.store, self.people(1)[0], self.word())

    def describe(self) -> Change:
        return corrections.describe(self.store, self.people(1)[0], {"about": self.word()})

    def merge(self) -> Change:
        into, *others = self.people(int(self.random.integers(2, 4)))
        return corrections.merge(self.store, into, others)

    def split(self) -> Change:
        name = self.word() if self.random.random() < 0.5 else None
        return corrections.split(self.store, {self.face(), self.face()}, name)

    def move(self) -> Change:
        return corrections.move(self.store, {self.face(), self.face()}, self.people(1)[0])

    def confirm(self) -> Change:
        return corrections.confirm(self.store, self.face(), self.people(1)[0])

    def reject(self) -> Change:
        return corrections.reject(self.store, self.face(), self.people(1)[0])

    def forget(self) -> Change:
        with self.store.read() as view:
            rulings = view.find(Ruling)
        if not rulings:
            raise InputError("nothing was decided")
        ruling = rulings[int(self.random.integers(len(rulings)))]
        return corrections.forget(self.store, ruling.face, ruling.person)

    def apart(self) -> Change:
        first, second = self.people(2)
        return corrections.apart(self.store, first, second, revoke=self.random.random() < 0.3)

    def delete(self) -> Change:
        if self.random.random() < 0.6:
            return corrections.delete_faces(self.store, self.face())
        (who,) = self.people(1)
        change = corrections.delete_person(self.store, who)
        with self.store.read() as view:
            spoken = {one for entry in entries(view) for one in entry.people}
        self.found.expect(who not in spoken, "the journal speaks of somebody who was deleted")
        return change


def report(histories: int, seed: int, *, broken: bool) -> int:
    """Print what came of it; 1 when anything was wrong. broken: with a store that is, for a
    negative control."""
    found = run(histories, seed, Forgetful if broken else MemoryStore)
    for told in found.told:
        print(told, file=sys.stderr)
    print(found.line(), flush=True)
    return 1 if found.wrong else 0


class Forgetful(MemoryStore):
    """A broken store: somebody who was gone and comes back has lost the name."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    @contextmanager
    def write(self) -> Iterator[Draft]:
        with super().write() as draft:
            put = draft.put

            def careless(row: Row) -> None:
                if isinstance(row, Person):
                    again = row.id in self._seen and draft.get(Person, row.id) is None
                    self._seen.add(row.id)
                    row = replace(row, name="somebody") if again else row
                put(row)

            draft.put = careless  # type: ignore[method-assign]
            yield draft
