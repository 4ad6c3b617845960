"""A store in memory: for tests, and for people who are forgotten when the program ends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from facenet.errors import GalleryError, InputError
from facenet.gallery.records import (
    Census,
    Changes,
    EnrolledFace,
    Entry,
    Key,
    Row,
    Space,
    VectorBlock,
    stacked_vectors,
)
from facenet.gallery.seals import same_as_kept
from facenet.gallery.store import (
    CHILDREN,
    FILTERS,
    Draft,
    R,
    View,
    require_filters,
    require_parents,
)
from facenet.types import FloatArray


class _State:
    """Everything that is kept. rows: kind -> key -> row. vectors: contract -> face -> vector.
    changed: face -> revision, negative when it is gone. counters: kind -> last number. horizon:
    changes are known from this revision on."""

    def __init__(self) -> None:
        self.revision = self.horizon = 0
        self.rows: dict[str, dict[Key, Row]] = {kind: {} for kind in FILTERS}
        self.vectors: dict[str, dict[int, FloatArray]] = {}
        self.changed: dict[int, int] = {}
        self.counters: dict[str, int] = {}

    def copy(self) -> _State:
        other = _State()
        other.revision, other.horizon = self.revision, self.horizon
        other.rows = {kind: dict(rows) for kind, rows in self.rows.items()}
        other.vectors = {contract: dict(rows) for contract, rows in self.vectors.items()}
        other.changed, other.counters = dict(self.changed), dict(self.counters)
        return other


class MemoryStore:
    """See `facenet.gallery.store.Store`. A name is only for messages."""

    def __init__(self, name: str = "", *, create: bool = True) -> None:
        if not create:
            raise GalleryError(
                "A gallery in memory is always a new one; there is none to be opened. Use a file."
            )
        self.place = f"memory://{name}"
        self._state = _State()
        self._lock = threading.Lock()
        self._writing: int | None = None
        self._open = True

    @contextmanager
    def read(self) -> Iterator[View]:
        """A view of what was last committed."""
        self._require_open()
        view = _MemoryDraft(self._state, self.place)
        try:
            yield view
        finally:
            view.valid = False

    @contextmanager
    def write(self) -> Iterator[Draft]:
        """A draft on a copy, which takes the place of the original at the end."""
        if self._writing == threading.get_ident():
            raise GalleryError(
                f"A draft of the gallery {self.place} is open in this thread already. Leave its "
                "`with` block first."
            )
        with self._lock:
            self._require_open()
            self._writing = threading.get_ident()
            draft = _MemoryDraft(self._state.copy(), self.place)
            try:
                yield draft
                self._state = draft.state
            finally:
                self._writing, draft.valid = None, False

    def close(self) -> None:
        """Forget everything."""
        self._open = False

    def _require_open(self) -> None:
        if not self._open:
            raise GalleryError(f"The gallery {self.place} was closed. Open it again.")


class _MemoryDraft:
    """View and draft over one state."""

    def __init__(self, state: _State, place: str) -> None:
        self._state = state
        self._before = state.revision
        self._place = place
        self.valid = True

    @property
    def state(self) -> _State:
        """What is read and written, inside the block."""
        if not self.valid:
            raise GalleryError(
                f"This view of the gallery {self._place} has ended. Use it inside its `with` block."
            )
        return self._state

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
        return cast(list[R], wanted if limit is None else wanted[: max(limit, 0)])

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
        wanted = sorted(rows if ids is None else {int(face) for face in ids} & rows.keys())
        chosen = [face for face in wanted if ids is not None or face > after]
        chosen = chosen if limit is None else chosen[: max(limit, 0)]
        faces = self.state.rows["face"]
        people = tuple(cast(EnrolledFace, faces[face]).person for face in chosen)
        space = cast(Space | None, self.state.rows["space"].get(contract))
        width = space.dimension if space else 0
        stack = np.array([rows[face] for face in chosen], np.float32).reshape(len(chosen), width)
        return VectorBlock(np.array(chosen, np.int64), people, stack)

    def census(self, contract: str) -> Census | None:
        return None

    def bare(self, contract: str, ids: Sequence[int] | None = None) -> dict[int, int]:
        return {}

    def tallied(self, kind: type[R], name: str) -> dict[str, int]:
        require_filters(kind, {name: None})
        rows = self.state.rows[kind.kind].values()
        return dict(Counter(value for row in rows if (value := getattr(row, name))))

    def changes(self, since: int) -> Changes | None:
        if not self.state.horizon <= since <= self.state.revision:
            return None
        changed = sorted(self.state.changed.items())
        put = tuple(face for face, at in changed if at > since)
        return Changes(put, tuple(face for face, at in changed if -at > since))

    def put(self, row: Row) -> None:
        require_parents(self, row)
        kept = same_as_kept(row)
        self._touch()
        if isinstance(row, EnrolledFace):
            self.state.changed[row.id] = self.state.revision
        if isinstance(row, EnrolledFace | Entry):
            self._count(row.kind, row.id)
        if isinstance(row, Space):
            self.state.vectors.setdefault(row.contract, {})
        self.state.rows[row.kind][row.key] = kept

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
            self.state.changed[int(key)] = -self.state.revision
        if kind is Space:
            self.state.vectors.pop(cast(str, key), None)
            self.state.horizon = self.state.revision
        return True

    def put_vectors(self, contract: str, rows: Mapping[int, FloatArray]) -> None:
        space = self.get(Space, contract)
        if space is None:
            raise InputError(
                f"There should be a space {contract:.120} in the gallery; it has none."
            )
        for face in rows:
            if self.get(EnrolledFace, face) is None:
                raise InputError(f"A vector needs its face; there is no face {face}.")
        if not rows:
            return
        stack = stacked_vectors(list(rows.values()), space)
        self._touch()
        for face, row in zip(rows, stack, strict=True):
            self.state.vectors[contract][int(face)] = row
            self.state.changed[int(face)] = self.state.revision

    def next_id(self, kind: type[Row]) -> int:
        number = self.state.counters.get(kind.kind, 0) + 1
        self._count(kind.kind, number)
        return number

    def _count(self, kind: str, number: int) -> None:
        self.state.counters[kind] = max(number, self.state.counters.get(kind, 0))

    def _touch(self) -> None:
        self.state.revision = self._before + 1
