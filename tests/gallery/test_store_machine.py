"""Random histories: a SQLite store and a memory store against a model of plain dictionaries."""

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from facenet.errors import InputError
from facenet.gallery.memory import MemoryStore
from facenet.gallery.records import EnrolledFace, Person, Ruling, Space
from facenet.gallery.sqlite import SqliteStore

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    str.strip
)
PEOPLE = st.sampled_from(["p1", "p2", "p3", "p4"])
FACES = st.integers(1, 6)
CONTRACTS = st.sampled_from(["x", "y"])
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


class Stores(RuleBasedStateMachine):
    """people: id -> (name, external id). faces: id -> (person, source). rulings: (face, person) ->
    same. vectors: contract -> face -> angle. gone: faces that were removed. log: what a reader of
    changes would have to know, face -> revision."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.stores = [MemoryStore(), SqliteStore(self.folder / "G.db", create=True)]
        self.people, self.faces, self.rulings = {}, {}, {}
        self.vectors, self.revision, self.last, self.log, self.horizon = {}, 0, 0, {}, 0

    def teardown(self):
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            shutil.rmtree(self.folder)

    def do(self, change, *, allowed=True):
        """Run a change in each store; both obey, or both refuse."""
        for store in self.stores:
            refused = False
            with store.write() as draft:
                try:
                    change(draft)
                except InputError:
                    refused = True
            assert refused is not allowed
        self.revision += allowed
        return allowed

    @rule(person=PEOPLE, name=NAMES, external=st.none() | st.sampled_from(["e", "f"]))
    def put_person(self, person, name, external):
        free = external is None or all(
            external != other for key, (_, other) in self.people.items() if key != person
        )
        row = Person(person, name[:200], 1.0, external)
        if self.do(lambda draft: draft.put(row), allowed=free):
            self.people[person] = (row.name, external)

    @rule(face=FACES, person=PEOPLE, source=TEXT)
    def put_face(self, face, person, source):
        row = EnrolledFace(face, person, 1.0, source=source)
        if self.do(lambda draft: draft.put(row), allowed=person in self.people):
            self.faces[face] = (person, source)
            self.last = max(self.last, face)
            self.log[face] = (self.revision, True)

    @rule(face=FACES, person=PEOPLE, same=st.booleans())
    def rule_on(self, face, person, same):
        allowed = face in self.faces and person in self.people
        if self.do(lambda draft: draft.put(Ruling(face, person, same, 1.0)), allowed=allowed):
            self.rulings[face, person] = same

    @rule(contract=CONTRACTS)
    def put_space(self, contract):
        self.do(lambda draft: draft.put(Space(contract, "m", 2, "active", 1.0)))
        self.vectors.setdefault(contract, {})

    @rule(contract=CONTRACTS, faces=st.dictionaries(FACES, st.floats(0, 6), min_size=1))
    def put_vectors(self, contract, faces):
        rows = {face: row(angle) for face, angle in faces.items()}
        allowed = contract in self.vectors and faces.keys() <= self.faces.keys()
        if self.do(lambda draft: draft.put_vectors(contract, rows), allowed=allowed):
            self.vectors[contract].update(faces)
            self.log.update(dict.fromkeys(faces, (self.revision, True)))

    @rule(person=PEOPLE)
    def delete_person(self, person):
        if person not in self.people:
            return
        self.do(lambda draft: draft.delete(Person, person))
        del self.people[person]
        for face in [face for face, row in self.faces.items() if row[0] == person]:
            self.forget(face)
        self.rulings = {key: same for key, same in self.rulings.items() if key[1] != person}

    @rule(face=FACES)
    def delete_face(self, face):
        if face in self.faces:
            self.do(lambda draft: draft.delete(EnrolledFace, face))
            self.forget(face)

    @rule(contract=CONTRACTS)
    def delete_space(self, contract):
        if contract in self.vectors:
            self.do(lambda draft: draft.delete(Space, contract))
            del self.vectors[contract]
            self.horizon = self.revision

    @rule(number=st.integers(1, 3))
    def take_numbers(self, number):
        for store in self.stores:
            with store.write() as draft:
                taken = [draft.next_id(EnrolledFace) for _ in range(number)]
            assert taken == list(range(self.last + 1, self.last + 1 + number))
        self.last += number

    @rule(person=PEOPLE, name=NAMES)
    def break_off(self, person, name):
        for store in self.stores:
            try:
                with store.write() as draft:
                    draft.delete(Person, person)
                    draft.put(Person(person, name[:200], 2.0))
                    raise TimeoutError
            except TimeoutError:
                pass

    @precondition(lambda self: hasattr(self, "stores"))
    @rule()
    def open_again(self):
        self.stores[1].close()
        self.stores[1] = SqliteStore(self.folder / "G.db")

    def forget(self, face):
        del self.faces[face]
        self.rulings = {key: same for key, same in self.rulings.items() if key[0] != face}
        for rows in self.vectors.values():
            rows.pop(face, None)
        self.log[face] = (self.revision, False)

    @invariant()
    def all_tell_the_same(self):
        for store in getattr(self, "stores", ()):
            with store.read() as view:
                assert view.revision == self.revision
                people = {row.id: (row.name, row.external_id) for row in view.find(Person)}
                assert people == self.people
                faces = {row.id: (row.person, row.source) for row in view.find(EnrolledFace)}
                assert faces == self.faces
                same = {(row.face, row.person): row.same for row in view.find(Ruling)}
                assert same == self.rulings
                self.compare_vectors(view)
                self.compare_changes(view)

    def compare_vectors(self, view):
        for contract in ("x", "y"):
            kept = self.vectors.get(contract, {})
            block = view.vectors(contract)
            assert block.ids.tolist() == sorted(kept)
            assert list(block.people) == [self.faces[face][0] for face in sorted(kept)]
            for face, found in zip(block.ids.tolist(), block.rows, strict=True):
                assert np.array_equal(found, row(kept[face]))

    def compare_changes(self, view):
        for since in itertools.chain(range(-1, 2), range(self.revision - 1, self.revision + 2)):
            found = view.changes(since)
            if not max(self.horizon, 0) <= since <= self.revision:
                assert found is None
            else:
                newer = {face: there for face, (at, there) in self.log.items() if at > since}
                assert found.put == tuple(sorted(face for face, on in newer.items() if on))
                assert found.gone == tuple(sorted(face for face, on in newer.items() if not on))


def row(angle):
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


Stores.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStores = Stores.TestCase
