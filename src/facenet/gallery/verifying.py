"""Is a gallery file whole? Every page, seal, tally and reference, as a list of faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import DamagedGalleryError
from facenet.gallery.migrations import MIGRATIONS
from facenet.gallery.records import NORM_SLACK, EnrolledFace, Person, Space
from facenet.gallery.seals import SIZE, TABLES, seal_vector
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.sqlitefile import held_gallery
from facenet.gallery.sqliterows import SqliteView, fits
from facenet.gallery.sqlitevectors import FACE_BITS
from facenet.gallery.tallies import Tally, vector_tally

BLOCK = 8192
"""Rows that are read at a time."""
NAMED = 5
"""Damaged rows of a kind that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found. vectors: contract -> how many. problems: a sentence each, none when the
    gallery is whole. owes: bytes of what was deleted may lie in the file still; whoever opens the
    gallery and may write it clears them."""

    place: str
    revision: int = 0
    people: int = 0
    faces: int = 0
    vectors: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    owes: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "place": self.place,
            "ok": self.ok,
            "revision": self.revision,
            "people": self.people,
            "faces": self.faces,
            "vectors": dict(self.vectors),
            "problems": list(self.problems),
            "erasure_owed": self.owes,
        }


def schema_version(path: Path) -> int:
    """The schema a file is at, as its header says, at most the newest one known here."""
    file = held_gallery(path)
    try:
        return min(int.from_bytes(file.read(60, 4), "big"), len(MIGRATIONS))
    finally:
        file.release()


def open_as_it_is(path: Path, *, checked: bool) -> SqliteStore:
    """A store of a file without bringing it to a newer schema."""
    migrations = MIGRATIONS[: max(schema_version(path), 1)]
    return SqliteStore(path, migrations=migrations, checked=checked)


def verify(path: str | Path) -> VerifyReport:
    """Read a whole gallery and list what is wrong with it; nothing is repaired.

    Takes about a second for 100,000 faces. Damage is a problem in the report; GalleryError is
    raised for what is no gallery, or one of a newer facenet, StorageError for a failing disk.
    """
    try:
        store = open_as_it_is(Path(path), checked=False)
    except DamagedGalleryError as error:
        return VerifyReport(str(path)[:300], problems=(str(error),))
    try:
        with store.read() as view:
            return _verified(view)
    except DamagedGalleryError as error:
        return VerifyReport(store.place, problems=(str(error),))
    finally:
        store.close()


def _verified(view: SqliteView) -> VerifyReport:
    problems: list[str] = []
    for check in (_pages, _tallies, _rows, _vectors, _changes, _erased, _counters, _active):
        with _noting(problems):
            for problem in check(view):
                problems.append(problem)
    counts: dict[str, int] = {}
    with _noting(problems):
        counts = {
            name: view.tally(vector_tally(number)).count for name, number in _spaces(view).items()
        }
    people, faces = view.count(Person), view.count(EnrolledFace)
    found = tuple(dict.fromkeys(problems))
    return VerifyReport(view.place, view.revision, people, faces, counts, found, view.owes)


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Make a problem of whatever damage does to the code that looks for it."""
    try:
        yield
    except DamagedGalleryError as error:
        problems.append(str(error))
    except (TypeError, ValueError, AttributeError) as error:
        problems.append(f"A row holds what none should: {str(error)[:120]}.")


def _pages(view: SqliteView) -> Iterator[str]:
    """What SQLite itself says of its pages, indices and references."""
    for (line,) in view.ask("PRAGMA integrity_check(20)"):
        if line != b"ok":
            yield f"SQLite's check of the file says: {line.decode('utf-8', 'replace')[:200]}."
    broken = view.ask("PRAGMA foreign_key_check")
    if broken:
        yield f"{len(broken):,} rows speak of a person or a face that is not there."


def _tallies(view: SqliteView) -> Iterator[str]:
    rows = view.ask("SELECT name, count, total, last, seal FROM tally")
    yield from _named("tally", [row[0] for row in rows if not fits("tally", row[:-1], row[-1])])


def _rows(view: SqliteView) -> Iterator[str]:
    for kind, table in TABLES.items():
        names = ", ".join(("key", *table.columns, "body", "seal"))
        found, bad = Tally(), []
        for row in _walk(view, f"SELECT {names} FROM {kind}"):
            found, good = _counted(found, row[-1])
            if not good or not fits(kind, row[:-1], row[-1]):
                bad.append(row[0])
        yield from _named(kind, bad)
        yield from _missing(view, kind, found)


def _vectors(view: SqliteView) -> Iterator[str]:
    """Seals, widths, lengths, and whether each lies in a space that is there."""
    spaces = {pair[1]: pair[0] for name in _spaces(view) if (pair := view.space(name))}
    found: dict[int, Tally] = dict.fromkeys(spaces, Tally())
    bad: list[Any] = []
    for key, face, data, own in _walk(view, "SELECT key, face, data, seal FROM vector"):
        number = key >> FACE_BITS
        tally, good = _counted(found.get(number, Tally()), own)
        space = spaces.get(number)
        if not good or space is None or not _sound(space, number, face, data, own):
            bad.append(face)
        found[number] = tally
    yield from _named("vector", bad)
    for number, tally in found.items():
        yield from _missing(view, vector_tally(number), tally)


def _sound(space: Space, number: int, face: Any, data: Any, own: bytes) -> bool:
    if not isinstance(face, int) or not isinstance(data, bytes) or not 0 < face < 1 << FACE_BITS:
        return False
    if seal_vector(number, face, data) != own or len(data) != 4 * space.dimension:
        return False
    length = float(np.linalg.norm(np.frombuffer(data, "<f4").astype(np.float64)))
    return abs(length - 1) <= NORM_SLACK


def _changes(view: SqliteView) -> Iterator[str]:
    rows = _walk(view, "SELECT revision AS key, put, gone, seal FROM change")
    yield from _named("change", [row[0] for row in rows if not fits("change", row[:-1], row[-1])])


def _erased(view: SqliteView) -> Iterator[str]:
    found, bad = Tally(), []
    for row in view.ask("SELECT kind, key, seal FROM erased"):
        found, good = _counted(found, row[-1])
        if not good or not fits("erased", row[:-1], row[-1]):
            bad.append(row[1])
    yield from _named("erased", bad)
    yield from _missing(view, "erased", found)


def _counters(view: SqliteView) -> Iterator[str]:
    for kind in ("face", "entry"):
        highest = view.ask(f"SELECT max(key) FROM {kind}")[0][0] or 0
        if highest > view.tally(kind).last:
            yield f"The counter of the kind {kind} is behind its rows, so that ids would repeat."


def _active(view: SqliteView) -> Iterator[str]:
    active = view.count(Space, state="active")
    vectors = view.ask("SELECT key FROM vector LIMIT 1")
    if active > 1 or (vectors and not active):
        yield f"One space of vectors should be active; {active} are."


def _spaces(view: SqliteView) -> dict[str, int]:
    """Contract -> number of each space that can be read."""
    numbers: dict[str, int] = {}
    for (key,) in view.ask("SELECT key FROM space"):
        found = view.space(key.decode("utf-8", "replace")) if isinstance(key, bytes) else None
        if found is not None:
            numbers[found[0].contract] = found[1]
    return numbers


def _walk(view: SqliteView, question: str) -> Iterator[Any]:
    """All rows in the order of their keys, in blocks. A file whose order is broken ends it."""
    last: Any = None
    column = "revision" if " AS key" in question else "key"
    while True:
        where = "" if last is None else f" WHERE {column} > ?"
        bound = [] if last is None else [last.decode() if isinstance(last, bytes) else last]
        rows = view.ask(f"{question}{where} ORDER BY {column} LIMIT {BLOCK}", bound)
        yield from rows
        if len(rows) < BLOCK:
            return
        if last is not None and rows[-1][0] <= last:
            raise view.damaged("rows stand in a wrong order")
        last = rows[-1][0]


def _counted(tally: Tally, found: Any) -> tuple[Tally, bool]:
    """The tally with a row more, and whether its seal has the form of one."""
    good = isinstance(found, bytes) and len(found) == SIZE
    return (tally.with_seal(found) if good else tally), good


def _named(kind: str, keys: list[Any]) -> Iterator[str]:
    if keys:
        names = (k.decode("utf-8", "replace") if isinstance(k, bytes) else str(k) for k in keys)
        some = ", ".join(name[:40] for name in list(names)[:NAMED])
        yield f"{len(keys):,} rows of the kind {kind} are not as they were written: {some}."


def _missing(view: SqliteView, name: str, found: Tally) -> Iterator[str]:
    kept = view.tally(name)
    if kept.count != found.count:
        yield f"There should be {kept.count:,} rows of the kind {name}; there are {found.count:,}."
    elif kept.rows != found.rows:
        yield f"Rows of the kind {name} are damaged, or are older ones that had been replaced."
