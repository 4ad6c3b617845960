"""What is done to a gallery while it is crashed: a program that says what it begins and what is
done, and changes people at random through the functions that users reach.

Each committed draft is one change in the ledger. What it will make is read from the draft itself,
said before the commit, and acknowledged after it. Backups and files of an older schema are rows of
the ledger too, named `backup:n` and `old:n`, whose digest is that of everything in them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from crashing.erasures import claimed
from crashing.ledger import State, contents
from facenet.errors import InputError
from facenet.gallery import corrections, upgrade
from facenet.gallery.backup import backup, restore
from facenet.gallery.migrations import MIGRATIONS
from facenet.gallery.records import Crop, EnrolledFace, Person, Space, new_person_id
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.sqlitefile import sync
from facenet.gallery.store import Draft, Store, View

WIDTH = 16
"""Values of a vector."""
CROWD = 7
"""People from which on deleting is more likely than enrolling."""
LATER = (
    *MIGRATIONS,
    "CREATE TABLE later (key INTEGER PRIMARY KEY, value TEXT);\nINSERT INTO later VALUES (1, 'a');",
    "CREATE INDEX later_value ON later (value);\nUPDATE later SET value = 'b';",
)
"""Two migrations after the newest one."""

Say = Callable[[Mapping[str, Any]], None]


class Voice:
    """Numbers changes and says them, one JSON object on a line. early: acknowledge before the
    change is kept, as a broken program would."""

    def __init__(self, say: Say, *, early: bool = False) -> None:
        self.say, self.early, self.number = say, early, 0

    @contextmanager
    def change(self, put: Mapping[str, str], gone: tuple[str, ...] = ()) -> Iterator[None]:
        """Say what is begun, and that it is done if nothing went wrong."""
        number = self.begin(put, gone)
        yield
        self.done(number)

    def begin(
        self, put: Mapping[str, str], gone: tuple[str, ...], new: tuple[int, ...] = ()
    ) -> int:
        self.number += 1
        self.say({"begin": self.number, "put": put, "gone": gone, "new": new})
        if self.early:
            self.say({"ack": self.number})
        return self.number

    def done(self, number: int) -> None:
        if not self.early:
            self.say({"ack": number})


class WatchedStore:
    """A `Store` whose drafts are said in a ledger."""

    def __init__(self, store: Store, voice: Voice) -> None:
        self.store, self.voice = store, voice
        self.place = store.place
        self.state: State | None = None

    def read(self) -> Any:
        return self.store.read()

    def close(self) -> None:
        self.store.close()

    @contextmanager
    def write(self) -> Iterator[Draft]:
        with self.store.write() as draft:
            before = self.state if self.state is not None else contents(draft)
            yield draft
            after = contents(draft)
            number = self._begin(before, after)
        if number:
            self.voice.done(number)
        self.state = after

    def _begin(self, before: State, after: State) -> int:
        if before == after:
            return 0
        put = {name: value for name, value in after.items() if before.get(name) != value}
        gone = tuple(name for name in before if name not in after)
        known = before.keys()
        new = [int(name[5:]) for name in put if name.startswith("face:") and name not in known]
        return self.voice.begin(put, gone, tuple(new))


class Program:
    """Changes a gallery at random. inner: the store itself, which `backup` needs."""

    def __init__(self, path: Path, inner: Store, voice: Voice, seed: int) -> None:
        self.path, self.inner, self.voice = path, inner, voice
        self.store = WatchedStore(inner, voice)
        self.random = np.random.default_rng(seed)
        self.files = 0

    def step(self) -> str:
        """One operation, chosen at random; its name."""
        names = list(OPERATIONS)
        weights = np.array([weight for weight, _ in OPERATIONS.values()], float)
        with self.store.read() as view:
            if view.count(Person) > CROWD:
                weights[names.index("delete")] *= 3
            if view.count(Person) < 4 or view.count(EnrolledFace) < 4:
                weights[:] = [name == "import" for name in names]
        name = str(self.random.choice(names, p=weights / weights.sum()))
        self.voice.say({"doing": name})
        with suppress(InputError):  # refused by a decision of before; nothing was changed
            OPERATIONS[name][1](self)
        return name

    def file(self, kind: str) -> tuple[str, Path]:
        """Name in the ledger and path of a new file beside the gallery; the one before goes."""
        self.files += 1
        for old in self.path.parent.glob(f"{kind}-*.db"):
            with self.voice.change({}, (f"{kind}:{old.stem.partition('-')[2]}",)):
                old.unlink()
                sync(old.parent)
        number = f"{os.getpid()}{self.files:04}"
        return f"{kind}:{number}", self.path.with_name(f"{kind}-{number}.db")

    def people(self, count: int) -> list[str]:
        """Ids of some people."""
        with self.store.read() as view:
            ids = [person.id for person in view.find(Person)]
        return [str(one) for one in self.random.permutation(ids)[:count]]

    def faces(self, count: int) -> list[int]:
        """Ids of some faces."""
        with self.store.read() as view:
            ids = [face.id for face in view.find(EnrolledFace)]
        return [int(one) for one in self.random.permutation(ids)[:count]]


def active(view: View) -> Space | None:
    """The space that is searched."""
    found = view.find(Space, state="active")
    return found[0] if found else None


def vector(random: np.random.Generator) -> Any:
    """A unit vector, float32 (16,)."""
    row = random.standard_normal(WIDTH)
    return (row / np.linalg.norm(row)).astype(np.float32)


def put_faces(draft: Draft, random: np.random.Generator, person: str, count: int) -> list[int]:
    """Faces of a person with vectors in every space, some with a crop; their ids."""
    if active(draft) is None:
        draft.put(Space("space-0", "toy", WIDTH, "active", 0.0))
    ids = []
    for _ in range(count):
        face = draft.next_id(EnrolledFace)
        photo = random.bytes(32).hex()
        source = f"/photos/{photo[:20]}.jpg"
        draft.put(EnrolledFace(face, person, 1.0, photo, source, (1.0, 2.0, 3.5, 4.0)))
        if random.random() < 0.3:
            draft.put(Crop(face, random.bytes(int(random.integers(50, 3000)))))
        ids.append(face)
    for space in draft.find(Space):
        draft.put_vectors(space.contract, {face: vector(random) for face in ids})
    return ids


def enrol(program: Program) -> None:
    """A face or two of somebody new, or of somebody who is there."""
    with program.store.write() as draft:
        known = draft.find(Person)
        if known and program.random.random() < 0.5:
            person = known[int(program.random.integers(len(known)))]
        else:
            person = put_person(draft, program.random)
        put_faces(draft, program.random, person.id, int(program.random.integers(1, 3)))


def put_person(draft: Draft, random: np.random.Generator) -> Person:
    """Somebody new."""
    number = random.bytes(6).hex()
    known = f"external {number}" if random.random() < 0.3 else None
    badge = f"badge {number} " * int(random.integers(1, 40))
    person = Person(new_person_id(), f"Name {number}", 2.0, known, {"badge": badge})
    draft.put(person)
    return person


def many(program: Program) -> None:
    """People with their faces, all in one draft."""
    with program.store.write() as draft:
        for _ in range(int(program.random.integers(2, 5))):
            person = put_person(draft, program.random)
            put_faces(draft, program.random, person.id, int(program.random.integers(1, 7)))


def delete(program: Program) -> None:
    """A person, or some faces."""
    whole = program.random.random() < 0.6
    people, faces = (program.people(1), []) if whole else ([], program.faces(3))
    with program.store.read() as view:
        program.voice.say(claimed(view, people, faces))
    if whole:
        corrections.delete_person(program.store, *people)
    else:
        corrections.delete_faces(program.store, faces)


def merge(program: Program) -> None:
    """Two or three people who are one."""
    into, *others = program.people(int(program.random.integers(2, 4)))
    corrections.merge(program.store, into, others)


def correct(program: Program) -> None:
    """One of the small corrections."""
    choice = int(program.random.integers(6))
    who, other = program.people(2)
    face = program.faces(1)
    name = f"Renamed {program.random.bytes(4).hex()}"
    calls: tuple[Callable[[], Any], ...] = (
        lambda: corrections.rename(program.store, who, name),
        lambda: corrections.split(program.store, face, name),
        lambda: corrections.confirm(program.store, face[0], who),
        lambda: corrections.reject(program.store, face[0], who),
        lambda: corrections.apart(program.store, who, other),
        lambda: corrections.undo(program.store),
    )
    calls[choice]()


def remodel(program: Program) -> None:
    """A change of model: a second space filled, searched from then on, the old one dropped."""
    with program.store.read() as view:
        building, old = view.find(Space, state="building"), view.find(Space, state="retired")
    if old:
        upgrade.drop(program.store, old[0].contract)
    contract = building[0].contract if building else f"space-{program.random.bytes(4).hex()}"
    upgrade.begin(program.store, contract, "toy", WIDTH, "fp32")
    upgrade.fill(
        program.store,
        contract,
        lambda faces: [vector(program.random) for _ in faces],
        lambda done, total: None,
    )
    upgrade.switch(program.store, contract)


def back_up(program: Program) -> None:
    """A copy of the gallery in use."""
    name, path = program.file("backup")
    with program.store.read() as view:
        state = contents(view)
    with program.voice.change({name: digest_of(state)}):
        backup(program.inner, path)


def migrate(program: Program) -> None:
    """A file of an older facenet appears, and is opened by a newer one."""
    name, path = program.file("old")
    state = told(program.path, "template")
    with program.voice.change({name: digest_of(state)}):
        place(program.path, "template", path)
        SqliteStore(path, migrations=LATER).close()


def put_back(program: Program) -> None:
    """A gallery that a dead program left with a log is replaced by a backup."""
    name, path = program.file("live")
    with program.voice.change({name: digest_of(told(program.path, "unclean"))}):
        place(program.path, "unclean", path)
    with program.voice.change({name: digest_of(told(program.path, "template"))}):
        restore(program.path.with_name("template"), path)


OPERATIONS: Mapping[str, tuple[int, Callable[[Program], None]]] = {
    "enrol": (8, enrol),
    "import": (3, many),
    "delete": (4, delete),
    "merge": (3, merge),
    "correct": (5, correct),
    "remodel": (2, remodel),
    "backup": (2, back_up),
    "migrate": (2, migrate),
    "restore": (2, put_back),
}
"""Name -> how often, and what."""


def digest_of(state: State) -> str:
    """What tells a whole gallery from another; a restore gives it a new revision."""
    rows = {name: value for name, value in state.items() if name != "revision"}
    return blake2b(json.dumps(rows, sort_keys=True).encode(), digest_size=8).hexdigest()


def make_templates(path: Path, seed: int) -> None:
    """Two galleries beside a path: `template`, and `unclean`, which has two more people, and one
    in a log that nobody closed."""
    random = np.random.default_rng(seed)
    template, unclean = path.with_name("template"), path.with_name("unclean")
    store = SqliteStore(template, create=True)
    keep_one(store, random, template)
    store.close()
    shutil.copyfile(template, unclean)
    for _ in range(2):
        store = SqliteStore(unclean)
        keep_one(store, random, unclean)
        store.close()
    store = SqliteStore(unclean)
    keep_one(store, random, unclean)
    for end in ("", "-wal"):
        shutil.copyfile(f"{unclean}{end}", f"{unclean}.copy{end}")
    store.close()
    for end in ("", "-wal"):
        os.replace(f"{unclean}.copy{end}", f"{unclean}{end}")


def keep_one(store: Store, random: np.random.Generator, path: Path) -> None:
    """One more person with faces, and in a file beside the gallery what it holds now."""
    with store.write() as draft:
        put_faces(draft, random, put_person(draft, random).id, 4)
    with store.read() as view:
        path.with_suffix(".json").write_text(json.dumps(contents(view)))


def told(path: Path, name: str) -> State:
    """What a template beside a path holds."""
    state: State = json.loads(path.with_name(name).with_suffix(".json").read_text())
    return state


def place(path: Path, name: str, target: Path) -> None:
    """Copy a template, and bring it to the disk before it gets its name."""
    source = path.with_name(name)
    for end in ("-wal", ""):
        copy = target.with_name(f"{target.stem}.copy{end}")
        if Path(f"{source}{end}").exists():
            shutil.copyfile(f"{source}{end}", copy)
            sync(copy)
            os.replace(copy, f"{target}{end}")
            sync(target.parent)


BESIDE = {"backup": MIGRATIONS, "old": LATER, "live": MIGRATIONS}
"""Kinds of files beside a gallery, and the schema they are opened with."""
TEMPLATES = ("range.db", "template", "template.json", "unclean", "unclean-wal", "unclean.json")


def present(path: Path) -> State:
    """Everything that is there: the gallery, and in one row each the files beside it.

    Raises FacenetError for a gallery that cannot be opened or read.
    """
    with opened(path) as view:
        state = contents(view)
    for kind, migrations in BESIDE.items():
        for other in sorted(path.parent.glob(f"{kind}-*.db")):
            with opened(other, migrations) as view:
                state[f"{kind}:{other.stem.partition('-')[2]}"] = digest_of(contents(view))
    return state


@contextmanager
def opened(path: Path, migrations: tuple[str, ...] = MIGRATIONS) -> Iterator[View]:
    """A gallery, read and closed again."""
    store = SqliteStore(path, migrations=migrations)
    try:
        with store.read() as view:
            yield view
    finally:
        store.close()


def sweep(path: Path, keep: tuple[str, ...] = TEMPLATES) -> None:
    """Remove all files beside a gallery that are not its own."""
    for other in path.parent.iterdir():
        if not other.name.startswith(path.name) and other.name not in keep:
            other.unlink()
