"""The index: a gallery's vectors in memory as bytes, searched exactly, always equal to the store.

It is a projection at a revision: it can be thrown away at any time and made again from the store.
A search reads the store in one view: the index is brought to the view's revision by the changes
since its own, scanned (`facenet.gallery.scan`), and the rows that remain are computed from the
view's own vectors, so a person who was deleted cannot be found and one who was enrolled cannot be
missed. Of each face it keeps a stamp, and the store keeps what all stamps sum up to: a face that a
failing disk gives back as it was on another day is an error and no answer (`View.census`). 512
values take 536 bytes a face and 25 a person; vectors are never all in memory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import ContractError, DamagedGalleryError
from facenet.gallery import nearest, scan, snapshot
from facenet.gallery.codes import Table, groups
from facenet.gallery.nearest import Approximation, Cells, Recall
from facenet.gallery.numbering import Numbers
from facenet.gallery.presence import agrees, old_faces
from facenet.gallery.records import EnrolledFace, Setting, Space, VectorBlock, checked_vectors
from facenet.gallery.rescore import Fetch, Hit, require_count, rescore
from facenet.gallery.store import Store, View
from facenet.products import Products
from facenet.types import FloatArray, IntArray
from facenet.vectors import template as pooled

AT_ONCE = 8192
"""Vectors read from the store at a time: 16 MB of 512 values."""
IDENTITY = "id"
"""Name of the setting that holds the random id of a gallery. Without it nothing is saved."""

__all__ = ["Hit", "Index"]


class Index:
    """The people of one space of a store, for searching. Safe to use from several threads.

    snapshot: a file to start from and to `save` to, see `snapshot_path`. threads: of a scan, by
    default one per core that this process may use. products: how integers are multiplied, by
    default the fastest exact way of this machine. approximate: True, or how, for searches that
    look at a part of the faces and find nearly all (`recall`), refused for fewer than two million;
    searches of templates or of some people stay exact.
    """

    def __init__(
        self,
        store: Store,
        contract: str,
        *,
        snapshot: Path | None = None,
        threads: int | None = None,
        products: Products | None = None,
        approximate: bool | Approximation = False,
    ) -> None:
        self._store, self._contract, self._snapshot = store, contract, snapshot
        self._threads, self._products = threads or _cores(), products
        self._lock = threading.RLock()
        self._space: Space | None = None
        self._revision: int | None = None
        self._rows = Table(1)
        self._people = Numbers()
        self._bare: dict[int, int] = {}
        self._templates: Table | None = None
        self._stale: set[int] = set()
        self._approximate = Approximation() if approximate is True else approximate or None
        self._cells: Cells | None = None
        self._divided = False

    def __len__(self) -> int:
        """Faces, as of the last refresh."""
        return len(self._rows)

    @property
    def people(self) -> int:
        """People who have a face, as of the last refresh."""
        return self._rows.distinct

    @property
    def bytes_held(self) -> int:
        """Bytes of the arrays of the index."""
        more = sum(part.bytes_held for part in (self._templates, self._cells) if part is not None)
        return self._rows.bytes_held + self._people.ids.nbytes + self._people.order.nbytes + more

    @property
    def recall(self) -> Recall | None:
        """What approximate search finds, measured when its cells were made; None where search is
        exact."""
        return None if self._cells is None else self._cells.recall

    def refresh(self) -> int:
        """Bring the index to the store's revision, and say which that is.

        Raises ContractError when the gallery has no such space, GalleryError when it is damaged,
        SettingsError when it has too few faces for approximate search.
        """
        with self._lock, self._store.read() as view:
            self._bring(view)
            return view.revision

    @contextmanager
    def reading(self) -> Iterator[View]:
        """A view of the store to search in, which the index is not ahead of; other threads wait."""
        with self._lock, self._store.read() as view:
            yield view

    def search(
        self,
        queries: FloatArray,
        k: int = 5,
        *,
        among: Collection[str] | None = None,
        template: bool = False,
        view: View | None = None,
    ) -> list[list[Hit]]:
        """The k people most similar to each query, as they are in the store now.

        queries: unit vectors (m, d) of the index's contract. among: ids of the people to search,
        None for all. template: compare with the pooled vector of each person, not with its faces.
        view: of the store, see `reading`; by default a new one.
        A person has one hit, its best face; equal similarities keep the lower id of the person,
        then of the face. The similarity is float32 of the fp64 inner product, as `rescore`
        defines it: the answer is that of computing every face. Templates take as much memory
        again for each person, from their first use on.

        Raises SettingsError for k that is no number from 1 up, ContractError and InputError for
        vectors that are not fit, GalleryError for a damaged gallery, SettingsError as `refresh`.
        """
        k = require_count(k)
        with self._lock, nullcontext(view) if view else self._store.read() as view:
            rows = checked_vectors(queries, self._bring(view))
            table = self._pooled(view) if template else self._rows
            allowed = None
            if among is not None:
                allowed = np.zeros(len(self._people), np.bool_)
                found = self._people.find(among)
                allowed[found[found >= 0]] = True
            how: dict[str, Any] = {"products": self._products, "threads": self._threads}
            if self._cells is None or template or among is not None:
                possible = scan.search(table, rows, k, allowed=allowed, **how)
            else:
                possible = nearest.search(self._cells, table, rows, k, **how)
            fetch = self._fetch_templates(view) if template else self._fetch(view)
            return rescore(possible, rows, k, fetch, template=template)

    def count(self, among: Collection[str], *, template: bool = False) -> int:
        """How many vectors a search of these people compares with: faces, or people who have one.

        Raises as `refresh`.
        """
        with self._lock, self._store.read() as view:
            self._bring(view)
            found = self._people.find(among)
            owners = self._rows.owners[np.isin(self._rows.owners, found[found >= 0])]
            return len(np.unique(owners)) if template else len(owners)

    def save(self) -> bool:
        """Write the snapshot at the store's revision; whether there is one now.

        There is none without a place for it or without the id of the gallery, nor when another
        process changed the gallery meanwhile: it may have deleted what the snapshot still holds.
        Raises StorageError when it cannot be written.
        """
        with self._lock:
            with self._store.read() as view:
                space = self._bring(view)
                facts = self._facts(view, space)
                last = int(self._rows.keys.max(initial=0))
                face = view.get(EnrolledFace, last)
                created = None if face is None else face.created
                facts |= {"revision": view.revision, "last": last, "created": created}
                facts["bare"] = sorted(self._bare.items())
            if self._snapshot is None or not facts["gallery"]:
                return False
            snapshot.write(self._snapshot, facts, self._rows, self._people)
            with self._store.read() as view:
                if view.revision == self._revision:
                    return True
            snapshot.drop(self._snapshot)
            return False

    def _bring(self, view: View) -> Space:
        """Make the index that of the view."""
        space = view.get(Space, self._contract)
        if space is None or space != self._space:
            self._forget(1 if space is None else space.dimension)
        if space is None:
            raise ContractError(
                f"The gallery should hold vectors of {self._contract:.200}; it has none. Enrol "
                "with this model, or search with the gallery's own."
            )
        loaded = self._revision is None and self._snapshot is not None
        if loaded:
            self._revision = self._load(view, space)
        self._space, known = space, self._revision
        self._revision = None  # until all is read: what is half read is made anew
        if known != view.revision:
            self._advance(view, space, known)
        if known != view.revision or loaded:
            self._require_present(view, space)
        if self._approximate is not None and self._cells is None:
            self._divide(view, self._approximate)
        self._space, self._revision = space, view.revision
        return space

    def _advance(self, view: View, space: Space, known: int | None) -> None:
        """Take what changed since a revision, or everything."""
        changes = None if known is None else view.changes(known)
        if changes is None or 2 * len(changes.put) > len(self._rows) + AT_ONCE:
            self._read_all(view, space)
        else:
            self._drop(np.array(changes.gone, np.int64))
            self._read(view, changes.put)
        if self._cells is not None and self._cells.worn(self._rows):
            self._cells = None

    def _require_present(self, view: View, space: Space) -> None:
        """Make sure that these are all faces of the view, as they are now; read them all where
        they are not. Raises DamagedGalleryError when that does not help."""
        census = view.census(self._contract)
        if census is None or agrees(census, self._rows, self._bare):
            return
        self._read_all(view, space)
        if not agrees(census, self._rows, self._bare):
            raise old_faces(self._store.place)

    def _divide(self, view: View, how: Approximation) -> None:
        """Make cells. A gallery that had them and has become too small is searched exactly."""

        def ask(queries: FloatArray) -> IntArray:
            possible = scan.search(
                self._rows, queries, nearest.TOP, products=self._products, threads=self._threads
            )
            faces = np.zeros((len(queries), nearest.TOP), np.int64)
            fetch = self._fetch(view)
            for row, hits in zip(
                faces, rescore(possible, queries, nearest.TOP, fetch), strict=True
            ):
                row[: len(hits)] = [hit.face for hit in hits]
            return faces

        if self._divided and len(self._rows) < max(how.least, 1):
            return
        how.require_enough(len(self._rows))
        self._cells = nearest.divide(
            self._rows, ask, how, products=self._products, threads=self._threads
        )
        self._divided = True

    def _forget(self, dimension: int) -> None:
        self._cells = None
        self._rows, self._people, self._bare = Table(dimension), Numbers(), {}
        self._templates, self._stale, self._revision, self._space = None, set(), None, None

    def _read_all(self, view: View, space: Space) -> None:
        """Take the vectors of all faces from the view."""
        self._forget(space.dimension)
        self._space, after = space, 0
        while len(block := view.vectors(self._contract, after=after, limit=AT_ONCE)):
            after = int(block.ids[-1])
            self._put(block)
        self._bare = view.bare(self._contract)

    def _read(self, view: View, faces: tuple[int, ...]) -> None:
        """Take the vectors of some faces from the view."""
        for start in range(0, len(faces), AT_ONCE):
            part = faces[start : start + AT_ONCE]
            block = view.vectors(self._contract, ids=part)
            without = np.setdiff1d(np.array(part, np.int64), block.ids)
            self._drop(without)
            if len(block):
                self._put(block)
            if len(without):
                self._bare |= view.bare(self._contract, without.tolist())

    def _put(self, block: VectorBlock) -> None:
        self._mark(block.ids)
        self._rows.put(block.ids, self._people.add(block.people), block.rows, block.stamps)
        self._mark(block.ids)
        self._unbare(block.ids)

    def _drop(self, faces: IntArray) -> None:
        if len(faces):
            self._mark(faces)
            self._rows.drop(faces)
            self._unbare(faces)

    def _unbare(self, faces: IntArray) -> None:
        for face in faces.tolist() if self._bare else ():
            self._bare.pop(face, None)

    def _mark(self, faces: IntArray) -> None:
        """Remove the templates of the people who have these faces now; they are made anew."""
        if self._templates is not None:
            slots = self._rows.find(faces)
            people = np.unique(self._rows.owners[slots[slots >= 0]]).astype(np.int64)
            self._templates.drop(people + 1)
            self._stale.update(people.tolist())

    def _pooled(self, view: View) -> Table:
        """The table of templates, a row per person with the key number + 1."""
        if self._templates is None:
            self._templates = Table(self._rows.dimension)
            owners = self._rows.owners
            self._stale = set(np.unique(owners[owners >= 0]).tolist())
        stale = np.array(sorted(self._stale), np.int64)
        for people, rows in self._pool(view, stale):
            self._templates.put(people + 1, people, rows)
        self._stale = set()
        return self._templates

    def _pool(self, view: View, people: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """Templates of people by number, ascending (n,): blocks of numbers (b,) and rows (b, d)."""
        slots = np.flatnonzero(np.isin(self._rows.owners, people))
        slots = slots[np.lexsort((self._rows.keys[slots], self._rows.owners[slots]))]
        owners, faces = self._rows.owners[slots].astype(np.int64), self._rows.keys[slots]
        starts = groups(owners) if len(owners) else np.zeros(1, np.int64)
        first = 0
        while first < len(starts) - 1:
            last = int(np.searchsorted(starts, starts[first] + AT_ONCE, side="right")) - 1
            last = max(last, first + 1)
            span = slice(starts[first], starts[last])
            order = np.argsort(faces[span])
            rows = np.empty((len(order), self._rows.dimension), np.float32)
            rows[order] = self._vectors(view, faces[span][order])[1]
            inner = starts[first : last + 1] - starts[first]
            pairs = zip(inner[:-1], inner[1:], strict=True)
            yield owners[starts[first:last]], np.stack([pooled(rows[a:b]) for a, b in pairs])
            first = last

    def _vectors(self, view: View, faces: IntArray) -> tuple[list[str], FloatArray]:
        """People and vectors of faces, ascending (n,), which must be there."""
        block = view.vectors(self._contract, ids=faces.tolist())
        if not np.array_equal(block.ids, faces):
            raise DamagedGalleryError(
                f"The gallery {self._store.place:.200} should hold the vectors of {len(faces)} "
                f"faces that it listed; {len(block)} were found. Check it with `facenet gallery "
                "verify`."
            )
        known = self._rows.stamps[self._rows.find(faces)]
        if block.stamps is not None and not np.array_equal(block.stamps, known):
            raise old_faces(self._store.place)
        return list(block.people), block.rows

    def _fetch(self, view: View) -> Fetch:
        return lambda faces: self._vectors(view, faces)

    def _fetch_templates(self, view: View) -> Fetch:
        def fetch(keys: IntArray) -> tuple[list[str], FloatArray]:
            blocks = [rows for _, rows in self._pool(view, keys - 1)]
            return [self._people.name(int(key) - 1) for key in keys], np.concatenate(blocks)

        return fetch

    def _facts(self, view: View, space: Space) -> dict[str, Any]:
        """What a snapshot of this space of this gallery says of itself."""
        identity = view.get(Setting, IDENTITY)
        gallery = "" if identity is None else identity.value
        return {"gallery": gallery, "contract": self._contract, "space": space.created}

    def _load(self, view: View, space: Space) -> int | None:
        """The revision of the snapshot, if it can be used for this view; the index is then its.

        A snapshot of an earlier revision is brought forward by the changes since. Its last face
        must be the store's too, unless it changed: a gallery that was put back from a copy may
        have come to the same revision another way.
        """
        facts = self._facts(view, space)
        if self._snapshot is None or not facts["gallery"]:
            return None
        found = snapshot.read(self._snapshot, facts, self._rows)
        if found is None:
            return None
        self._people, self._bare = found[1], {int(f): int(s) for f, s in found[0]["bare"]}
        revision, last = int(found[0]["revision"]), int(found[0]["last"])
        changes = view.changes(revision) if revision <= view.revision else None
        face = view.get(EnrolledFace, last)
        created = None if face is None else face.created
        if changes is None or last in changes.gone or created != found[0]["created"]:
            self._forget(space.dimension)
            return None
        return revision


def _cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
