"""A store in memory: for tests, and for people who are forgotten when the program ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from facenet.errors import GalleryError, InputError
from facenet.gallery.records import (
    Apart,
    Changes,
    Crop,
    EnrolledFace,
    Key,
    Person,
    Row,
    Ruling,
    Space,
    VectorBlock,
    checked_vectors,
)
from facenet.gallery.store import FILTERS, Draft, R, View
from facenet.types import FloatArray


@dataclass(slots=True)
class _State:
    """Everything that is kept. rows: kind -> key -> row. vectors: contract -> face -> vector.
    changed: face -> revision, negative when it is gone. counters: kind -> last number."""

    revision: int = 0
    rows: dict[str, dict[Key, Row]] = field(default_factory=lambda: {kind: {} for kind in FILTERS})
    vectors: dict[str, dict[int, FloatArray]] = field(default_factory=dict)
    changed: dict[int, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    def copy(self) -> _State:
        return _State(
            self.revision,
            {kind: dict(rows) for kind, rows in self.rows.items()},
            {contract: dict(rows) for contract, rows in self.vectors.items()},
            dict(self.changed),
            dict(self.counters),
        )


class MemoryStore:
    """See `facenet.gallery.store.Store`. A name is only for messages."""

    def __init__(self, name: str = "", *, create: bool = True) -> None:
        if not create:
            raise GalleryError(
                "A gallery in memory is always a new one; there is none to be opened. Use a file."
            )
        self.place = f"memory://{name}"
        self._state = _State()
        self._lock = threading.RLock()
        self._open = True

    @contextmanager
    def read(self) -> Iterator[View]:
        """A view of what was last committed."""
        self._require_open()
        yield _MemoryDraft(self._state)

    @contextmanager
    def write(self) -> Iterator[Draft]:
        """A draft on a copy, which takes the place of the original at the end."""
        with self._lock:
            self._require_open()
            draft = _MemoryDraft(self._state.copy())
            yield draft
            if draft.touched:
                self._state = draft.state

    def close(self) -> None:
        """Forget everything."""
        self._open = False

    def _require_open(self) -> None:
        if not self._open:
            raise GalleryError(f"The gallery {self.place} was closed. Open it again.")


class _MemoryDraft:
    """View and draft over one state."""

    def __init__(self, state: _State) -> None:
        self.state = state
        self.touched = False

    @property
    def revision(self) -> int:
        return self.state.revision

    def get(self, kind: type[R], key: Key) -> R | None:
        return cast(R | None, self.state.rows[kind.kind].get(key))

    def find(
        self, kind: type[R], *, after: Key | None = None, limit: int | None = None, **equal: Any
    ) -> list[R]:
        require_filters(kind, equal)
        rows = sorted(self.state.rows[kind.kind].values(), key=lambda row: row.key)
        wanted = [
            row
            for row in rows
            if (after is None or row.key > after)  # type: ignore[operator]
            and all(getattr(row, name) == value for name, value in equal.items())
        ]
        return cast(list[R], wanted[:limit])

    def count(self, kind: type[R], **equal: Any) -> int:
        return len(self.find(kind, **equal))

    def vectors(
        self,
        contract: str,
        *,
        after: int = 0,
        limit: int | None = None,
        ids: Sequence[int] | None = None,
    ) -> VectorBlock:
        rows = self.state.vectors.get(contract, {})
        wanted = sorted(rows if ids is None else set(ids) & rows.keys())
        chosen = [face for face in wanted if ids is not None or face > after][:limit]
        faces = self.state.rows["face"]
        people = tuple(cast(EnrolledFace, faces[face]).person for face in chosen)
        space = cast(Space | None, self.state.rows["space"].get(contract))
        width = space.dimension if space else 0
        stack = np.array([rows[face] for face in chosen], np.float32).reshape(-1, width)
        return VectorBlock(np.array(chosen, np.int64), people, stack)

    def changes(self, since: int) -> Changes | None:
        changed = sorted(self.state.changed.items())
        put = tuple(face for face, at in changed if at > since)
        return Changes(put, tuple(face for face, at in changed if -at > since))

    def put(self, row: Row) -> None:
        self._require_parents(row)
        self._touch()
        if isinstance(row, EnrolledFace):
            self.state.changed[row.id] = self.state.revision
        if isinstance(row.key, int) and not isinstance(row, Crop):
            self._count(row.kind, row.key)
        if isinstance(row, Space):
            self.state.vectors.setdefault(row.contract, {})
        self.state.rows[row.kind][row.key] = row

    def delete(self, kind: type[Row], key: Key) -> bool:
        if self.state.rows[kind.kind].pop(key, None) is None:
            return False
        self._touch()
        for child, name in CHILDREN.get(kind.kind, ()):
            equal: dict[str, Any] = {name: key}
            for row in self.find(child, **equal):
                self.delete(child, row.key)
        if kind is EnrolledFace:
            self.state.rows["crop"].pop(key, None)
            for rows in self.state.vectors.values():
                rows.pop(cast(int, key), None)
            self.state.changed[cast(int, key)] = -self.state.revision
        if kind is Space:
            self.state.vectors.pop(cast(str, key), None)
        return True

    def put_vectors(self, contract: str, rows: Mapping[int, FloatArray]) -> None:
        space = self.get(Space, contract)
        if space is None:
            raise InputError(
                f"There should be a space {contract:.120} in the gallery; it has none."
            )
        for face, row in rows.items():
            if self.get(EnrolledFace, face) is None:
                raise InputError(f"A vector needs its face; there is no face {face}.")
            self._touch()
            self.state.vectors[contract][face] = checked_vectors(row, space)[0].copy()
            self.state.changed[face] = self.state.revision

    def next_id(self, kind: type[Row]) -> int:
        number = self.state.counters.get(kind.kind, 0) + 1
        self._count(kind.kind, number)
        return number

    def _count(self, kind: str, number: int) -> None:
        self.state.counters[kind] = max(number, self.state.counters.get(kind, 0))

    def _touch(self) -> None:
        if not self.touched:
            self.touched = True
            self.state.revision += 1

    def _require_parents(self, row: Row) -> None:
        if isinstance(row, EnrolledFace) and self.get(Person, row.person) is None:
            raise InputError(f"A face needs its person; there is nobody with the id {row.person}.")
        if isinstance(row, Crop | Ruling) and self.get(EnrolledFace, row.face) is None:
            raise InputError(f"A {row.kind} needs its face; there is no face {row.face}.")
        if isinstance(row, Ruling) and self.get(Person, row.person) is None:
            raise InputError(f"A ruling needs its person; there is no id {row.person}.")
        if isinstance(row, Person) and row.external_id is not None:
            for other in self.find(Person, external_id=row.external_id):
                if other.id != row.id:
                    raise InputError(
                        f"An external id should be one person's; {row.external_id} is that of "
                        f"{other.name}. Choose another, or enrol into that person."
                    )


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
