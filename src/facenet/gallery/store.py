"""What a store of galleries is: rows and vectors, read at one revision, written whole or not.

Every store keeps the same promises, and one suite of tests (tests/gallery/conformance.py) holds
all of them to it: a reader sees one revision from beginning to end; a draft that is left by an
error changes nothing; one that has been left without is on the disk; there is one writer at a time
among all processes; each committed draft that changed something raises the revision by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

from facenet.errors import InputError, SettingsError
from facenet.gallery.records import (
    Apart,
    Census,
    Changes,
    Crop,
    EnrolledFace,
    Key,
    Person,
    Row,
    Ruling,
    VectorBlock,
)
from facenet.types import FloatArray

R = TypeVar("R", bound=Row)

FILTERS: Mapping[str, tuple[str, ...]] = {
    "person": ("name", "external_id"),
    "face": ("person", "photo", "source"),
    "ruling": ("face", "person"),
    "apart": ("first", "second"),
    "space": ("state",),
    "crop": (),
    "entry": (),
    "setting": (),
}
"""What rows of a kind can be found by, besides their key."""


class View(Protocol):
    """A gallery at one revision."""

    @property
    def revision(self) -> int:
        """Counts the committed drafts."""
        ...

    def get(self, kind: type[R], key: Key) -> R | None:
        """The row with this key, or None."""
        ...

    def find(
        self, kind: type[R], *, after: Key | None = None, limit: int | None = None, **equal: Any
    ) -> list[R]:
        """Rows of a kind in the order of their keys, with keys above `after`, at most `limit`.

        equal: columns of `FILTERS` and the values they should have.
        """
        ...

    def count(self, kind: type[R], **equal: Any) -> int:
        """How many rows `find` would give."""
        ...

    def vectors(
        self,
        contract: str,
        *,
        after: int = 0,
        limit: int | None = None,
        ids: Sequence[int] | None = None,
    ) -> VectorBlock:
        """Vectors of a space by face id: those above `after`, or of the faces in `ids`.

        Faces without a vector in that space are left out. Raises GalleryError for damaged ones.
        """
        ...

    def census(self, contract: str) -> Census | None:
        """What the stamps of all faces sum up to, by which who keeps them in memory knows that
        these are all, and the present ones; None where a store cannot give older ones back."""
        ...

    def bare(self, contract: str, ids: Sequence[int] | None = None) -> dict[int, int]:
        """Stamps of the faces without a vector in a space, of all or of those in `ids`, by id;
        none where `census` is None."""
        ...

    def tallied(self, kind: type[R], name: str) -> dict[str, int]:
        """How many rows of a kind there are by a column of `FILTERS` that is a text."""
        ...

    def changes(self, since: int) -> Changes | None:
        """Faces that changed after a revision; None where the store does not know, and everything
        is to be read again: it is too long ago, a space was deleted, or a backup was restored."""
        ...


class Draft(View, Protocol):
    """A view that can be changed; what is read shows what has been put."""

    def put(self, row: Row) -> None:
        """Write a row, in place of the one with its key.

        A face, a ruling and an apart need their people; a crop, a ruling and a vector their face.
        Raises InputError for one that is not there, or for an external id that another person has.
        """
        ...

    def delete(self, kind: type[Row], key: Key) -> bool:
        """Remove a row, and what cannot be without it; whether it was there.

        With a person go the faces, rulings and aparts; with a face its vectors, crop and rulings;
        with a space its vectors.
        """
        ...

    def put_vectors(self, contract: str, rows: Mapping[int, FloatArray]) -> None:
        """Vectors (d,) of faces by id in a space that is there, checked by `checked_vectors`."""
        ...

    def next_id(self, kind: type[Row]) -> int:
        """A number for a new face or entry, above every one that was ever given out by a draft that
        was committed, whether or not a row bears it."""
        ...


class Store(Protocol):
    """Where a gallery lies. Safe to use from several threads and processes."""

    @property
    def place(self) -> str:
        """The path or address, as a message names it."""
        ...

    def read(self) -> AbstractContextManager[View]:
        """A consistent view, valid inside the block."""
        ...

    def write(self) -> AbstractContextManager[Draft]:
        """A draft, committed durably when the block is left without an error."""
        ...

    def close(self) -> None:
        """Let go of the place; closing twice is harmless."""
        ...


CHILDREN: Mapping[str, tuple[tuple[type[Any], str], ...]] = {
    "person": (
        (EnrolledFace, "person"),
        (Ruling, "person"),
        (Apart, "first"),
        (Apart, "second"),
    ),
    "face": ((Ruling, "face"),),
}
"""What goes with a row: kinds and the column that names it."""


def require_filters(kind: type[Any], equal: Mapping[str, Any]) -> None:
    """Raise InputError for a column that rows of a kind cannot be found by."""
    unknown = equal.keys() - set(FILTERS[kind.kind])
    if unknown:
        raise InputError(
            f"Rows of the kind {kind.kind} can be found by "
            f"{', '.join(FILTERS[kind.kind]) or 'their key'}; got {', '.join(sorted(unknown))}."
        )


def require_parents(view: View, row: Row) -> None:
    """Raise InputError for a row that needs another which is not there, or an external id that
    another person has."""
    face = getattr(row, "face", None)
    if isinstance(row, Crop | Ruling) and view.get(EnrolledFace, row.face) is None:
        raise InputError(f"A {row.kind} needs its face; there is no face {face}.")
    people: tuple[str, ...] = ()
    if isinstance(row, EnrolledFace | Ruling):
        people = (row.person,)
    elif isinstance(row, Apart):
        people = (row.first, row.second)
    for person in people:
        if view.get(Person, person) is None:
            raise InputError(
                f"A row of the kind {row.kind} needs its person; there is nobody with the id "
                f"{person:.80}."
            )
    if isinstance(row, Person) and row.external_id is not None:
        for other in view.find(Person, external_id=row.external_id):
            if other.id != row.id:
                raise InputError(
                    f"An external id should be one person's; {row.external_id} is that of "
                    f"{other.name}. Choose another, or enrol into that person."
                )


SCHEMES = {
    "sqlite": ("facenet.gallery.sqlite", "SqliteStore"),
    "memory": ("facenet.gallery.memory", "MemoryStore"),
}
"""Scheme of an address -> module and class."""


def open_store(place: str | Path, *, create: bool = False) -> Store:
    """The store at a path (one SQLite file) or an address such as sqlite:///data/G.db.

    create: make a new, empty one; there must be none yet. Raises SettingsError for an unknown
    scheme, GalleryError when there is no gallery, or already one, or a damaged one.
    """
    scheme, rest = _parts(place)
    module, name = SCHEMES[scheme]
    opener: Callable[..., Store] = getattr(import_module(module), name)
    return opener(rest, create=create)


def gallery_file(place: str | Path) -> Path:
    """The file that a path or an address means. Raises SettingsError for what is no file."""
    scheme, rest = _parts(place)
    if scheme != "sqlite":
        raise SettingsError(
            f"A gallery in a file is needed, a path or an address such as sqlite:///people.db; got "
            f"{place!s:.200}."
        )
    return Path(rest)


def _parts(place: str | Path) -> tuple[str, str]:
    """Scheme and rest of an address; a path is one of the scheme sqlite."""
    text = str(place)
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "sqlite", text
    elif scheme == "sqlite":
        rest = rest.removeprefix("/")
    if scheme not in SCHEMES:
        raise SettingsError(
            f"A gallery should be a file or an address with {', '.join(SCHEMES)}; got "
            f"{text:.200}. Other stores are not supported yet."
        )
    return scheme, rest
