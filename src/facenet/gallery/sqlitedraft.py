"""A draft of a gallery file: what is put is sealed, what is deleted takes its dependants along."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from facenet.errors import GalleryError, InputError
from facenet.gallery.erasing import OWED
from facenet.gallery.records import (
    MAX_FACE,
    Crop,
    EnrolledFace,
    Key,
    Person,
    Row,
    Space,
    stacked_vectors,
)
from facenet.gallery.seals import TABLES, Value, encode, seal, seal_vector
from facenet.gallery.sqlitefile import sqlite_errors
from facenet.gallery.sqliterows import BLOCK, SqliteView, bindable
from facenet.gallery.sqlitevectors import FACE_BITS
from facenet.gallery.store import CHILDREN, require_parents
from facenet.gallery.tallies import Tally, vector_tally
from facenet.types import FloatArray

KEPT_CHANGES = 10_000
"""Revisions whose changes are remembered; who is further behind reads everything again."""


TELLING: Mapping[str, tuple[str, ...]] = {
    "person": ("name", "external_id", "body"),
    "face": ("photo", "source"),
    "crop": ("body",),
    "vector": ("data",),
    "entry": ("body",),
    "setting": ("body",),
    "ruling": (),
    "apart": (),
    "space": (),
}
"""Columns by which somebody could be known: when their values go, their bytes should too."""


class SqliteDraft(SqliteView):
    """See `facenet.gallery.store.Draft`. erases: something was deleted or overwritten, now or
    before, whose bytes should leave the disk. removes: and now it was a person, a face or what
    belongs to one; an erasure is owed then."""

    def __init__(self, connection: sqlite3.Connection, place: str, *, checked: bool = True) -> None:
        super().__init__(connection, place, checked=checked)
        self._kept = dict(self._tallies)
        self._changed: dict[int, bool] = {}
        self._all_changed = False
        self._touched = False
        self._broken = False
        self.erases, self.removes = self.owes, False

    @property
    def revision(self) -> int:
        """That of the last commit, and one more from the first change on."""
        return super().revision + self._touched

    def put(self, row: Row) -> None:
        """Write a row, in place of the one with its key."""
        require_parents(self, row)
        table, more = TABLES[row.kind], {}
        if isinstance(row, Space):
            found = self.space(row.contract)
            more["number"] = found[1] if found else self.next_id(Space)
        values = encode(row, **more)
        self._replace(table.kind, ("key", *table.columns, "body"), values)
        if isinstance(row, EnrolledFace):
            self._changed[row.id] = True
        if isinstance(row, EnrolledFace | Person):
            self._remember_erased(row.kind, [row.key], gone=False)
        if table.numbered and not isinstance(row, Crop):
            self._count(table.kind, cast(int, row.key))

    def delete(self, kind: type[Row], key: Key) -> bool:
        """Remove a row, and what cannot be without it; whether it was there."""
        if self.get(kind, key) is None:
            return False
        for child, name in CHILDREN.get(kind.kind, ()):
            equal: dict[str, Any] = {name: key}
            for row in self.find(child, **equal):
                self.delete(child, row.key)
        if kind is EnrolledFace:
            self._delete_vectors(cast(int, key))
            self._remove("crop", [key])
            self._changed[int(key)] = False
        if kind is Space:
            self._delete_space(cast(str, key))
        if kind is EnrolledFace or kind is Person:
            self._remember_erased(kind.kind, [key], gone=True)
        self._remove(kind.kind, [key])
        return True

    def put_vectors(self, contract: str, rows: Mapping[int, FloatArray]) -> None:
        """Vectors of faces by id in a space that is there; (d,) float32 each, all or none."""
        found = self.space(contract)
        if found is None:
            raise InputError(
                f"There should be a space {contract:.120} in the gallery; it has none."
            )
        if not rows:
            return
        space, number = found
        ids = [int(face) for face in rows]
        self._require_faces(ids)
        stack = stacked_vectors(list(rows.values()), space).astype("<f4")
        entries = []
        for face, vector in zip(ids, stack, strict=True):
            data = vector.tobytes()
            key = (number << FACE_BITS) + face
            entries.append((key, face, data, seal_vector(number, face, data)))
        self._replace_vectors(vector_tally(number), entries)
        self._changed.update(dict.fromkeys(ids, True))

    def next_id(self, kind: type[Row]) -> int:
        """A number above every one that was ever given out, whether or not it comes to be used."""
        number = self.tally(kind.kind).last + 1
        self._count(kind.kind, number)
        return number

    def finish(self) -> None:
        """Write what the draft kept in memory; the transaction can be committed then."""
        if self._broken:
            raise GalleryError(
                f"A change of the gallery {self.place} failed half way, so that the draft cannot "
                "be kept. Nothing was changed; make it again."
            )
        if self._touched:
            last = self.revision
            put = sorted(face for face, there in self._changed.items() if there)
            self._write_changes(last, put, sorted(self._changed.keys() - set(put)))
            self._tallies["revision"] = Tally(last=last)
        if self.removes:
            self._tallies[OWED] = Tally(last=1)
        for name in self._tallies.keys() | self._kept.keys():
            tally = self._tallies.get(name)
            if tally is None:
                self._do("DELETE FROM tally WHERE name = ?", [(name,)])
            elif tally != self._kept.get(name):
                values = tally.values(name)
                row = (name, *values[1:], seal("tally", values))
                self._do("REPLACE INTO tally VALUES (?, ?, ?, ?, ?)", [row])

    def forget_changes(self, revision: int) -> None:
        """Go on from another revision, so that nobody's copy of before passes for this one."""
        self._touch()
        self._all_changed = True
        self._tallies["revision"] = Tally(last=revision - 1)

    def remember_erased(self, kind: str, keys: Iterable[Key]) -> None:
        """Carry on a list of ids that were deleted; those that are there again are left out."""
        table = TABLES[kind]
        gone = [key for key in keys if self.get(table.row, key) is None]
        self._touch()
        self._remember_erased(kind, gone, gone=True)

    def raise_counter(self, kind: str, last: int, gap: int = 0) -> None:
        """Give out only numbers above `last`, and above those of here by a gap."""
        self._count(kind, max(last, self.tally(kind).last + gap))

    def _do(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row. After a failure the draft cannot be committed."""
        self.require_valid()
        done = False
        try:
            with sqlite_errors(self.place):
                if not self._connection.in_transaction:
                    raise sqlite3.OperationalError("the transaction has ended")
                self._connection.executemany(statement, rows)
            done = True
        finally:
            self._broken = self._broken or not done

    def _touch(self) -> None:
        self._touched = True
        self._walks.clear()

    def _count(self, kind: str, number: int) -> None:
        tally = self.tally(kind)
        if number > tally.last:
            self._tallies[kind] = replace(tally, last=number)

    def _replace(self, name: str, columns: Sequence[str], values: Sequence[Value]) -> None:
        """Write one row with its seal and keep its tally."""
        self._touch()
        own = seal(name, values)
        # Text is bound as text: SQLite compares it with no blob.
        bound = [value.decode() if i < len(values) - 1 and isinstance(value, bytes) else value
                 for i, value in enumerate(values)]  # fmt: skip
        old = self.ask(f"SELECT seal, {', '.join(columns)} FROM {name} WHERE key = ?", [bound[0]])
        tally = self.tally(name)
        if old:
            tally = tally.with_seal(self.sealed(old[0][0]), -1)
            before, after = (
                [
                    value
                    for column, value in zip(columns, row, strict=True)
                    if column in TELLING[name]
                ]
                for row in (old[0][1:], values)
            )
            self.erases = self.erases or before != after
            marks = ", ".join(f"{column} = ?" for column in (*columns[1:], "seal"))
            self._do(f"UPDATE {name} SET {marks} WHERE key = ?", [(*bound[1:], own, bound[0])])
        else:
            marks = ", ".join("?" * (len(bound) + 1))
            names = ", ".join((*columns, "seal"))
            self._do(f"INSERT INTO {name} ({names}) VALUES ({marks})", [(*bound, own)])
        self._tallies[name] = tally.with_seal(own)

    def _remove(self, name: str, keys: Sequence[Key], tally: str = "") -> None:
        """Delete rows that are there of those with these keys."""
        tally = tally or name
        for key in keys:
            old = self.ask(f"SELECT seal FROM {name} WHERE key = ?", [bindable(key)])
            if old:
                self._touch()
                self.erases = self.erases or bool(TELLING[name])
                self.removes = self.removes or name in ("person", "face", "crop", "vector")
                self._do(f"DELETE FROM {name} WHERE key = ?", [(bindable(key),)])
                seal_then = self.sealed(old[0][0])
                self._tallies[tally] = self.tally(tally).with_seal(seal_then, -1)

    def _delete_vectors(self, face: int) -> None:
        for (key,) in self.ask("SELECT key FROM vector WHERE face = ?", [bindable(face)]):
            if not isinstance(key, int) or key & MAX_FACE != face:
                raise self.damaged("the index of vectors leads to another face")
            self._remove("vector", [key], vector_tally(key >> FACE_BITS))

    def _delete_space(self, contract: str) -> None:
        """Its vectors go at once; who has an index must read it all again."""
        found = self.space(contract)
        if found is None:
            return
        low = found[1] << FACE_BITS
        self._do("DELETE FROM vector WHERE key > ? AND key < ?", [(low, low + MAX_FACE + 1)])
        self.erases = self._tallies.pop(vector_tally(found[1]), None) is not None or self.erases
        self.removes = self.removes or self.erases
        self._all_changed = True

    def _replace_vectors(self, name: str, entries: Sequence[tuple[int, int, bytes, bytes]]) -> None:
        self._touch()
        old: list[bytes] = []
        for start in range(0, len(entries), BLOCK):
            keys = [entry[0] for entry in entries[start : start + BLOCK]]
            marks = ",".join("?" * len(keys))
            answer = self.ask(f"SELECT seal FROM vector WHERE key IN ({marks})", keys)
            old += [self.sealed(row[0]) for row in answer]
        self.erases = self.erases or bool(old)
        self._do(
            "INSERT INTO vector (key, face, data, seal) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO"
            " UPDATE SET face = excluded.face, data = excluded.data, seal = excluded.seal",
            entries,
        )
        tally = self.tally(name).with_seals(old, -1)
        self._tallies[name] = tally.with_seals(entry[3] for entry in entries)

    def _require_faces(self, ids: Sequence[int]) -> None:
        there: set[int] = set()
        usable = [face for face in ids if 0 < face <= MAX_FACE]
        for start in range(0, len(usable), BLOCK):
            block = usable[start : start + BLOCK]
            marks = ",".join("?" * len(block))
            there.update(
                row[0] for row in self.ask(f"SELECT key FROM face WHERE key IN ({marks})", block)
            )
        missing = [face for face in ids if face not in there]
        if missing:
            raise InputError(f"A vector needs its face; there is no face {missing[0]}.")

    def _remember_erased(self, kind: str, keys: Iterable[Key], *, gone: bool) -> None:
        """Keep that ids were deleted, for a restore of an older backup; a row put again is not."""
        tally = self.tally("erased")
        if not gone and not tally.count:
            return
        for key in keys:
            row = [kind.encode(), str(key).encode()]
            pair = (kind, str(key))
            known = self.ask("SELECT seal FROM erased WHERE kind = ? AND key = ?", pair)
            if gone and not known:
                own = seal("erased", row)
                self._do("INSERT INTO erased VALUES (?, ?, ?)", [(*pair, own)])
                self._tallies["erased"] = self.tally("erased").with_seal(own)
            elif known and not gone:
                self._do("DELETE FROM erased WHERE kind = ? AND key = ?", [pair])
                own = self.sealed(known[0][0])
                self._tallies["erased"] = self.tally("erased").with_seal(own, -1)

    def _write_changes(self, revision: int, put: Sequence[int], gone: Sequence[int]) -> None:
        """Without its row a revision is one after which everything is to be read again."""
        oldest = revision - KEPT_CHANGES
        self._do("DELETE FROM change WHERE revision <= ? OR revision >= ?", [(oldest, revision)])
        if self._all_changed:
            return
        data = [np.array(faces, "<i8").tobytes() for faces in (put, gone)]
        values: list[Value] = [revision, *data]
        self._do("INSERT INTO change VALUES (?, ?, ?, ?)", [(*values, seal("change", values))])
