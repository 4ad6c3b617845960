"""A gallery file at one revision: rows and vectors, each checked against its seal as it is read.

Beside the seals of single rows there are tallies (`facenet.gallery.tallies`). Who reads all rows,
in one call or in blocks one after the other, gets all of them or an error: a page that was dropped,
doubled or brought back from an older day does not go unseen. Who reads a single row gets that too
where there are few of its kind; of many, a row may be one of an older day. The index of vectors
compares each of its faces with what it knows of it; see `census`.
"""

from __future__ import annotations

import operator
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from facenet.errors import DamagedGalleryError, GalleryError
from facenet.gallery.erasing import OWED
from facenet.gallery.records import Census, Changes, Key, Space, VectorBlock
from facenet.gallery.seals import (
    ADVICE,
    SIZE,
    TABLES,
    Table,
    Value,
    decode,
    number_of,
    seal,
)
from facenet.gallery.sqlitefile import sqlite_errors
from facenet.gallery.sqlitevectors import BARE, FACE_BITS, VECTORS, block_of, is_sealed
from facenet.gallery.store import R, require_filters
from facenet.gallery.tallies import Tally, stamps_of, tally_of, vector_tally

BLOCK = 500
"""Values in one question to SQLite."""
FEW = 1000
"""Rows of a kind, up to which a view that reads one of them makes sure of all of them."""


class SqliteView:
    """See `facenet.gallery.store.View`. checked False reads damaged rows as they are."""

    def __init__(self, connection: sqlite3.Connection, place: str, *, checked: bool = True) -> None:
        self._connection = connection
        self.place = place
        self._checked = checked
        self.valid, self._process = True, os.getpid()
        self._walks: dict[str, tuple[Key, Tally]] = {}
        self._proven: set[str] = set()
        self._tallies: dict[str, Tally] = {}
        for *values, found in self.ask("SELECT name, count, total, last, seal FROM tally"):
            self.require_seal("tally", values, found)
            with self._readable("tally"):
                self._tallies[values[0].decode()] = tally_of(values)

    @property
    def revision(self) -> int:
        """Counts the committed drafts."""
        return self.tally("revision").last

    @property
    def owes(self) -> bool:
        """Whether bytes of deleted rows may lie in the file still; see `gallery.erasing`."""
        return OWED in self._tallies

    def tally(self, name: str) -> Tally:
        """How many rows of a kind there should be, and their sum."""
        return self._tallies.get(name, Tally())

    def get(self, kind: type[R], key: Key) -> R | None:
        """The row with this key, or None."""
        table, bound = TABLES[kind.kind], bindable(key)
        if bound is None or isinstance(bound, int) != table.numbered:
            return None
        few = self._few(table.kind)
        rows = self._rows(table, "WHERE key = ?", [bound])
        if few and not rows:  # the way to it may be one of an older day
            rows = self._rows(table, "WHERE +key = ?", [bound])
        if rows and rows[0].key != key:
            raise self.damaged(f"a row of the kind {kind.kind} stands in another's place")
        return cast(R, rows[0]) if rows else None

    def find(
        self, kind: type[R], *, after: Key | None = None, limit: int | None = None, **equal: Any
    ) -> list[R]:
        """Rows in the order of their keys; without filters, checked to be all of them."""
        require_filters(kind, equal)
        table = TABLES[kind.kind]
        where, bound = self._where(table, after, equal)
        if where is None or (limit is not None and limit <= 0):
            return []
        end = "" if limit is None else f" LIMIT {int(limit)}"
        walk = None if equal else _start(table, after)
        rows = self._rows(table, f"{where} ORDER BY key{end}", bound, walk)
        for name, value in equal.items():
            if any(getattr(row, name) != value for row in rows):
                raise self.damaged(f"the index of {name} leads to another {kind.kind}")
        if not equal and (limit is None or len(rows) < limit):
            self._require_all(table.kind)
        return cast(list[R], rows)

    def count(self, kind: type[R], **equal: Any) -> int:
        """How many rows `find` would give."""
        require_filters(kind, equal)
        table = TABLES[kind.kind]
        if not equal:
            return self.tally(table.kind).count
        where, bound = self._where(table, None, equal)
        if where is None:
            return 0
        return len(self.ask(f"SELECT seal FROM {table.kind} {where}", bound))

    def tallied(self, kind: type[R], name: str) -> dict[str, int]:
        """How many rows there are by the text of one column: value -> rows; all of them, or
        DamagedGalleryError."""
        require_filters(kind, {name: None})
        rows = self.ask(f"SELECT {name}, seal FROM {kind.kind}")
        if self._checked and self._sum(row[1] for row in rows) != self.tally(kind.kind).rows:
            raise self.damaged(f"rows of the kind {kind.kind} are missing or old")
        with self._readable(kind.kind):
            counted = Counter(row[0] for row in rows)
            return {value.decode(): number for value, number in counted.items() if value}

    def vectors(
        self,
        contract: str,
        *,
        after: int = 0,
        limit: int | None = None,
        ids: Sequence[int] | None = None,
    ) -> VectorBlock:
        """Vectors of a space by face id; see `View.vectors`. Rows may be written to."""
        found = self.space(contract)
        if found is None:
            return VectorBlock(np.empty(0, np.int64), (), np.empty((0, 0), np.float32))
        space, number = found
        if ids is not None:
            return self._chosen(space, number, ids, limit)
        walk = vector_tally(number)
        if limit is not None and limit <= 0:
            return block_of([], space, stamped=self._checked)
        low, high = (number << FACE_BITS) + max(after, 0), (number + 1) << FACE_BITS
        rows = self.ask(
            f"{VECTORS} WHERE v.key > ? AND v.key < ? ORDER BY v.key LIMIT ?",
            [min(low, high), high, -1 if limit is None else limit],
        )
        block = self._checked_block(rows, space, number)
        last = rows[-1][1] if rows else after
        self._step(walk, max(after, 0), [row[2] for row in rows], last)
        self._step(f"face:{number}", max(after, 0), [row[8] for row in rows], last)
        if limit is None or len(rows) < limit:
            self._require_all(walk)
            self._require_owners(number)
        return block

    def census(self, contract: str) -> Census | None:
        """How many vectors and faces there are, and what their stamps sum up to."""
        found = self.space(contract)
        if found is None or not self._checked:
            return None
        mine, faces = self.tally(vector_tally(found[1])), self.tally("face")
        return Census(mine.count, faces.count, (mine.low + faces.low) & 0xFFFFFFFFFFFFFFFF)

    def bare(self, contract: str, ids: Sequence[int] | None = None) -> dict[int, int]:
        """Stamps of the faces without a vector in a space, of all or of some, by id."""
        found = self.space(contract)
        if found is None or not self._checked:
            return {}
        seals = self._bare(found[1]) if ids is None else []
        for start in range(0, len(ids or ()), BLOCK):
            part = [found[1] << FACE_BITS, *map(int, (ids or ())[start : start + BLOCK])]
            marks = ",".join("?" * (len(part) - 1))
            seals += self.ask(f"{BARE} AND f.key IN ({marks})", part)
        stamps = stamps_of([self.sealed(row[1]) for row in seals]).tolist()
        return dict(zip((row[0] for row in seals), stamps, strict=True))

    def changes(self, since: int) -> Changes | None:
        """Faces that changed after a revision; None for one that is not known here."""
        if not 0 <= since <= self.revision:
            return None
        rows = self.ask(
            "SELECT revision, put, gone, seal FROM change WHERE revision > ? ORDER BY revision",
            [since],
        )
        last: dict[int, bool] = {}
        for *values, found in rows:
            self.require_seal("change", values, found)
            with self._readable("change"):
                last.update(dict.fromkeys(np.frombuffer(values[1], "<i8").tolist(), True))
                last.update(dict.fromkeys(np.frombuffer(values[2], "<i8").tolist(), False))
        # Each revision has its row, or nobody knows what happened in it.
        known = [row[0] for row in rows] == list(range(since + 1, since + 1 + len(rows)))
        if not known or len(rows) != self.revision - since:
            return None
        put = tuple(sorted(face for face, there in last.items() if there))
        return Changes(put, tuple(sorted(face for face, there in last.items() if not there)))

    def space(self, contract: str) -> tuple[Space, int] | None:
        """A space and its number, which is part of the keys of its vectors."""
        bound = bindable(contract)
        if not isinstance(bound, str):
            return None
        rows = self.ask("SELECT key, state, body, seal FROM space WHERE key = ?", [bound])
        if not rows:
            # A space that was lost would pass for a gallery without vectors: count them all.
            self.find(Space)
            return None
        *values, found = rows[0]
        self.require_seal("space", values, found)
        space = cast(Space, decode("space", values))
        if space.contract != contract:
            raise self.damaged("a space stands in another's place")
        return space, number_of(values)

    def erased(self) -> dict[str, set[str]]:
        """Ids that were deleted: of the kinds person and face, as text."""
        ids: dict[str, set[str]] = {"person": set(), "face": set()}
        for *values, found in self.ask("SELECT kind, key, seal FROM erased"):
            self.require_seal("erased", values, found)
            with self._readable("erased"):
                ids[values[0].decode()].add(values[1].decode())
        return ids

    def ask(self, question: str, bound: Sequence[Any] = ()) -> list[Any]:
        """All rows of an answer."""
        self.require_valid()
        with sqlite_errors(self.place):
            return self._connection.execute(question, bound).fetchall()

    def require_valid(self) -> None:
        """Raise GalleryError outside the block, or in a forked process."""
        if not self.valid or self._process != os.getpid():
            raise GalleryError(
                f"This view of the gallery {self.place} has ended. Use it inside its `with` block, "
                "in the process that began it."
            )

    def require_seal(self, kind: str, values: Sequence[Value], found: Value) -> None:
        """Raise DamagedGalleryError where a row is not the one that was written."""
        if self._checked and not fits(kind, values, found):
            raise self.damaged(f"a row of the kind {kind} is not as it was written")

    @contextmanager
    def _readable(self, kind: str) -> Iterator[None]:
        """Without seals anything may stand in a column."""
        try:
            yield
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise self.damaged(f"a row of the kind {kind} cannot be read") from error

    def damaged(self, what: str) -> DamagedGalleryError:
        """The error that says what was found."""
        return DamagedGalleryError(f"The gallery {self.place} is damaged: {what}. {ADVICE}")

    def _rows(
        self, table: Table, end: str, bound: Sequence[Any], walk: Key | None = None
    ) -> list[Any]:
        names = ", ".join(("key", *table.columns, "body", "seal"))
        answer = self.ask(f"SELECT {names} FROM {table.kind} {end}", bound)
        rows = []
        for *values, found in answer:
            self.require_seal(table.kind, values, found)
            rows.append(decode(table.kind, values))
        if walk is not None:
            last = rows[-1].key if rows else walk
            self._step(table.kind, walk, [row[-1] for row in answer], last)
        return rows

    def _where(
        self, table: Table, after: Key | None, equal: Mapping[str, Any]
    ) -> tuple[str | None, list[Any]]:
        """The WHERE of a question, None where nothing can be found. An index may be one of an
        older day, so that of few rows each is looked at (for SQLite, + keeps indices out)."""
        terms, bound = [], []
        mark = "+" if equal and self._few(table.kind) else ""
        wanted = dict(equal) if after is None else {**equal, "key": after}
        for name, value in wanted.items():
            usable = bindable(value)
            number = name == "face" or (name == "key" and table.numbered)
            if value is not None and (usable is None or isinstance(usable, int) != number):
                return None, []
            terms.append(f"{mark}{name} {'>' if name == 'key' else 'IS'} ?")
            bound.append(usable)
        return ("WHERE " + " AND ".join(terms) if terms else ""), bound

    def _step(self, walk: str, after: Key, seals: Sequence[bytes], last: Key) -> None:
        """Add a block to a walk over all rows, if it begins one or follows on it."""
        if not self._checked:
            return
        begun = after in (0, "")
        before = (after, Tally()) if begun else self._walks.get(walk)
        if before is None or before[0] != after:
            self._walks.pop(walk, None)
        else:
            self._walks[walk] = (last, before[1].with_seals(seals))

    def _few(self, kind: str) -> bool:
        """Whether there are few rows of a kind, and all of them are those there should be: then
        none can be one of an older day."""
        if not self._checked or kind == "crop" or self.tally(kind).count > FEW:
            return False
        if kind not in self._proven:
            rows = self.ask(f"SELECT seal FROM {kind}")
            if self._sum(row[0] for row in rows) != self.tally(kind).rows:
                raise self.damaged(f"rows of the kind {kind} are missing or old")
            self._proven.add(kind)
        return True

    def _sum(self, seals: Iterable[Any]) -> tuple[int, int, int]:
        return Tally().with_seals(self.sealed(one) for one in seals).rows

    def sealed(self, found: Any) -> bytes:
        """What stands where a seal should."""
        if not isinstance(found, bytes) or len(found) != SIZE:
            raise self.damaged("a row has no seal")
        return found

    def _bare(self, number: int) -> list[Any]:
        """Numbers and seals of the faces without a vector; none to look for where all have one."""
        if self.tally(vector_tally(number)).count == self.tally("face").count:
            return []
        return self.ask(BARE, [number << FACE_BITS])

    def _require_owners(self, number: int) -> None:
        """At the end of a walk over vectors: were their faces those there should be?"""
        end = self._walks.pop(f"face:{number}", None)
        if end is not None:
            bare = [self.sealed(row[1]) for row in self._bare(number)]
            if end[1].with_seals(bare).rows != self.tally("face").rows:
                raise self.damaged("rows of the kind face are missing or old")

    def _require_all(self, walk: str) -> None:
        """At the end of a walk: were these all rows there should be?"""
        end = self._walks.pop(walk, None)
        if end is not None and end[1].rows != self.tally(walk).rows:
            raise self.damaged(f"rows of the kind {walk.partition(':')[0]} are missing or old")

    def _chosen(
        self, space: Space, number: int, ids: Sequence[int], limit: int | None
    ) -> VectorBlock:
        wanted = sorted({face for face in map(operator.index, ids) if 0 < face < 1 << FACE_BITS})
        rows: list[Any] = []
        for start in range(0, len(wanted), BLOCK):
            keys = [(number << FACE_BITS) + face for face in wanted[start : start + BLOCK]]
            marks = ",".join("?" * len(keys))
            rows += self.ask(f"{VECTORS} WHERE v.key IN ({marks}) ORDER BY v.key", keys)
        return self._checked_block(rows[:limit], space, number)

    def _checked_block(self, rows: Sequence[Any], space: Space, number: int) -> VectorBlock:
        if self._checked:
            for row in rows:
                if not is_sealed(row, number):
                    raise self.damaged(
                        "a vector, or the face it belongs to, is not as it was written"
                    )
        try:
            return block_of(rows, space, stamped=self._checked)
        except (ValueError, TypeError, AttributeError) as error:
            raise self.damaged("a vector has another length") from error


def _start(table: Table, after: Key | None) -> Key:
    return after if after is not None else (0 if table.numbered else "")


def fits(kind: str, values: Sequence[Value], found: Value) -> bool:
    """Whether this is the seal of a row."""
    try:
        return seal(kind, values) == found
    except TypeError:
        return False


def bindable(value: Any) -> str | int | None:
    """A key or column as SQLite takes it; None for what no row can have."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
        return value
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return number if -(1 << 63) <= number < 1 << 63 else None
