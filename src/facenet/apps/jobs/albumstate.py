"""An album: clusters that are kept, named and corrected, and take new photos without being redone.

The state of an album is a gallery, OUT/album.db, in which every cluster is an automatic person; so
`facenet gallery rename | merge | split | move | reject | undo` correct it, and what they decide
holds in every later run. It holds face vectors, which are biometric data, and is readable by its
owner alone.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.clustering import Clustering, Crowd, Levels, same_photo_links
from facenet.apps.jobs.photos import Photo
from facenet.errors import GalleryError, InputError, SettingsError, StorageError
from facenet.galleries import Gallery
from facenet.gallery.cluster.constraints import apart_in_photos
from facenet.gallery.cluster.incremental import add_faces
from facenet.gallery.cluster.methods import cluster_faces
from facenet.gallery.records import (
    Apart,
    EnrolledFace,
    Person,
    Ruling,
    Setting,
    VectorBlock,
    new_person_id,
)
from facenet.gallery.store import Draft, Store, View
from facenet.recognizer import Recognizer
from facenet.sightings import file_at, whereabouts
from facenet.types import FloatArray, IntArray

FILE = "album.db"
PHOTOS = "album photos"
"""Setting: digests of the photos that were looked at, shortened, and whether there was a face."""
SHORT = 24
"""Hexadecimal digits of a digest that are kept there."""
TRIES = 5


@dataclass(frozen=True, slots=True)
class Shelf:
    """A person of an album and their faces, by number."""

    person: Person
    faces: tuple[EnrolledFace, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """An album at a revision. block: every vector that it has. faces: their rows, in its order.
    people: everybody by id. holders: ids of those who have faces. told: those of them a user has
    spoken of. apart: pairs of rows of the block. done: see `looked_at`."""

    revision: int
    block: VectorBlock
    faces: tuple[EnrolledFace, ...]
    people: Mapping[str, Person]
    holders: tuple[str, ...]
    told: frozenset[str]
    apart: tuple[tuple[int, int], ...]
    done: Mapping[str, bool]


def open_album(out: Path, recognizer: Recognizer) -> Gallery:
    """The album in a folder, or a new one.

    Raises ContractError for one of another model, InputError for a folder that holds something
    else, StorageError for one that cannot be made.
    """
    place = out / FILE
    if place.exists():
        return Gallery.open(place, recognizer=recognizer)
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        full = any(out.iterdir())
    except OSError as error:
        raise StorageError(
            f"Cannot make the album {str(out)[:300]}: {error.strerror}. Choose another place."
        ) from error
    if full:
        raise InputError(
            f"OUT should be a new folder, an empty one or an album; {str(out)[:300]} holds other "
            "files. Choose another folder."
        )
    return Gallery.create(place, recognizer=recognizer)


def require_outside(photos: Path, out: Path) -> None:
    """Raises InputError when one of two folders lies in the other: copies would be photos."""
    source, target = photos.resolve(), out.resolve()
    holder = source if source.is_dir() else source.parent
    if target == holder or target in source.parents or source in target.parents:
        raise InputError(
            f"OUT should lie outside the photos, and not hold them; got {str(out)[:300]} for the "
            f"photos in {str(photos)[:300]}. Choose another folder."
        )


def take_faces(gallery: Gallery, crowd: Crowd, levels: Levels, how: Clustering) -> str:
    """Put the faces of new photos into an album; a sentence to be told, or "".

    In an empty album they are clustered by the method that was asked for; later by link
    clustering, under what users decided.
    """
    note = ""
    for _ in range(TRIES):
        with gallery.store.read() as view:
            state = _read(view, gallery.space.contract)
        fresh = _fresh(crowd, state)
        labels, note = _clusters(state, crowd, fresh, levels, how)
        with gallery.store.write() as draft:
            if draft.revision == state.revision:
                _Writing(draft, state, gallery.space.contract).write(crowd, fresh, labels)
                return note
    raise GalleryError(
        f"The album {gallery.store.place} was changed all the time while it was clustered. Let the "
        "other program end, and try again."
    )


def shelves(store: Store) -> list[Shelf]:
    """The people of an album who have faces: most faces first, then by their first face."""
    with store.read() as view:
        people = {person.id: person for person in view.find(Person)}
        faces: dict[str, list[EnrolledFace]] = {}
        for face in view.find(EnrolledFace):
            faces.setdefault(face.person, []).append(face)
    found = [Shelf(people[key], tuple(rows)) for key, rows in faces.items()]
    return sorted(found, key=lambda shelf: (-len(shelf.faces), shelf.faces[0].id))


def album_rows(
    shelved: Sequence[Shelf], photos: Sequence[Photo], digests: Mapping[Path, str]
) -> list[dict[str, Any]]:
    """A plain record for each face of the album in the photos of this run, photo by photo.

    digests: SHA-256 of the photos in hex; of those that could not be used there is none.
    """
    found: dict[str, list[tuple[int, Shelf, EnrolledFace]]] = {}
    for number, shelf in enumerate(shelved):
        for face in shelf.faces:
            found.setdefault(face.photo, []).append((number, shelf, face))
    rows = []
    for photo in photos:
        there = found.get(digests.get(photo.path) or "-", ())
        rows += [
            {
                "photo": str(photo.path),
                "box": [round(side, 2) for side in face.box or ()],
                "detection_score": face.measures.get("detection_score"),
                "cluster": number,
                "size": len(shelf.faces),
                "person": shelf.person.name,
                "person_id": shelf.person.id,
            }
            for number, shelf, face in sorted(there, key=lambda one: one[2].id)
        ]
    return rows


def follow_moved(store: Store, digests: Mapping[Path, str]) -> None:
    """Note where photos lie now that are not where they were; by path the SHA-256 in hex."""
    lies = {digest: whereabouts(path) for path, digest in digests.items()}
    with store.write() as draft:
        for face in draft.find(EnrolledFace):
            there = lies.get(face.photo, face.source)
            if there != face.source and not file_at(face.source).is_file():
                draft.put(replace(face, source=there))


def _read(view: View, contract: str) -> _State:
    block = view.vectors(contract)
    faces = {face.id: face for face in view.find(EnrolledFace)}
    people = {person.id: person for person in view.find(Person)}
    rulings, aparts = view.find(Ruling), view.find(Apart)
    row = {face: number for number, face in enumerate(block.ids.tolist())}
    first: dict[str, int] = {}
    for number, person in enumerate(block.people):
        first.setdefault(person, number)
    pairs = [(first[a.first], first[a.second]) for a in aparts if {a.first, a.second} <= {*first}]
    pairs += [
        (row[ruling.face], first[ruling.person])
        for ruling in rulings
        if not ruling.same and ruling.face in row and ruling.person in first
    ]
    told = {ruling.person for ruling in rulings} | {
        one for a in aparts for one in (a.first, a.second)
    }
    told |= {p.id for p in people.values() if not p.automatic or p.external_id or p.metadata}
    return _State(
        view.revision,
        block,
        tuple(faces[face] for face in block.ids.tolist()),
        people,
        tuple(first),
        frozenset(told & first.keys()),
        tuple(pairs),
        _looked_at(view),
    )


def looked_at(store: Store) -> Mapping[str, bool]:
    """Shortened digests of the photos that an album knows, and whether there was a face."""
    with store.read() as view:
        return _looked_at(view)


def _looked_at(view: View) -> dict[str, bool]:
    kept = view.get(Setting, PHOTOS)
    return dict(json.loads(kept.value)) if kept else {}


def _fresh(crowd: Crowd, state: _State) -> IntArray:
    """Faces (m,) of photos that the album does not know, each photo once."""
    used: set[str] = set()
    wanted = []
    for seen in crowd.seen:
        digest = seen.sighting.photo
        new = bool(digest) and digest[:SHORT] not in state.done and digest not in used
        wanted.append(new)
        used.add(digest)
    chosen = [row for row, photo in enumerate(crowd.photo.tolist()) if wanted[photo]]
    return np.array(chosen, np.int64)


def _clusters(
    state: _State, crowd: Crowd, fresh: IntArray, levels: Levels, how: Clustering
) -> tuple[IntArray, str]:
    """Clusters of the album's faces and the new ones: (n,). The first numbers are people, in the
    order of `state.holders`."""
    if len(state.block) == 0:
        found = cluster_faces(
            crowd.vectors[fresh],
            levels.settings,
            same_photo_links(_part(crowd, fresh), levels, how),
        )
        return found.labels, found.note
    if levels.settings.family == "hdbscan":
        raise SettingsError(
            "HDBSCAN cannot add photos to an album that is there. Choose the method template or "
            "average."
        )
    number = {person: place for place, person in enumerate(state.holders)}
    known = np.array([number[person] for person in state.block.people], np.int64)
    vectors = np.concatenate([state.block.rows, crowd.vectors[fresh]])
    pairs = [*state.apart, *_one_photo(state, crowd, fresh, vectors, known, levels, how)]
    labels = add_faces(
        vectors,
        known,
        levels.settings.threshold,
        named=[number[person] for person in state.told],
        apart=pairs,
        templates=levels.settings.family != "average",
    )
    return labels, ""


def _one_photo(
    state: _State,
    crowd: Crowd,
    fresh: IntArray,
    vectors: FloatArray,
    known: IntArray,
    levels: Levels,
    how: Clustering,
) -> Iterator[tuple[int, int]]:
    """Pairs of faces of one photo who are two people; what is together already may stay so."""
    if how.collages:
        return
    digests = [face.photo for face in state.faces]
    digests += [crowd.seen[photo].sighting.photo for photo in crowd.photo[fresh].tolist()]
    photo = np.unique(digests, return_inverse=True)[1]
    for a, b in apart_in_photos(vectors, photo, twice_at=levels.twice_at).tolist():
        if max(a, b) >= len(known) or known[a] != known[b]:
            yield a, b


def _part(crowd: Crowd, rows: IntArray) -> Crowd:
    faces = tuple(crowd.faces[row] for row in rows.tolist())
    return Crowd(crowd.seen, faces, crowd.photo[rows], crowd.vectors[rows])


class _Writing:
    """One run's changes of an album. They are not in the journal, which is of what users do: the
    photos would count as looked at, and their faces be gone."""

    def __init__(self, draft: Draft, state: _State, contract: str) -> None:
        self.draft, self.state, self.contract = draft, state, contract
        self.now = time.time()
        self.people = dict(enumerate(state.people[person] for person in state.holders))
        named = (re.fullmatch(r"person (\d{1,9})", p.name) for p in state.people.values())
        self.last = max((int(match[1]) for match in named if match), default=0)

    def write(self, crowd: Crowd, fresh: IntArray, labels: IntArray) -> None:
        """Put new people and faces, and people who came together.

        fresh: faces (m,) of the crowd that are new. labels: (n,), of the album's faces, then those.
        """
        count = len(self.state.block)
        for face, label in zip(self.state.faces, labels[:count].tolist(), strict=True):
            person = self.people[label]
            if face.person != person.id:
                self.draft.put(replace(face, person=person.id))
        for label in np.unique(labels[count:]).tolist():
            self._person(label)
        rows = {}
        for place, label in zip(fresh.tolist(), labels[count:].tolist(), strict=True):
            face = self._face(crowd, place, self._person(label))
            self.draft.put(face)
            rows[face.id] = crowd.vectors[place]
        self._leave(labels)
        if rows:
            self.draft.put_vectors(self.contract, rows)
        self._remember(crowd)

    def _person(self, label: int) -> Person:
        if label not in self.people:
            self.last += 1
            name = f"person {self.last}"
            person = Person(new_person_id(), name, self.now, automatic=True)
            self.people[label] = person
            self.draft.put(person)
        return self.people[label]

    def _face(self, crowd: Crowd, place: int, person: Person) -> EnrolledFace:
        photo = int(crowd.photo[place])
        sighting = crowd.seen[photo].sighting
        inside = place - int(np.searchsorted(crowd.photo, photo))
        x1, y1, x2, y2 = (float(side) for side in crowd.faces[place].box)
        return EnrolledFace(
            self.draft.next_id(EnrolledFace),
            person.id,
            self.now,
            sighting.photo,
            sighting.source,
            (x1, y1, x2, y2),
            measures=dict(sighting.measures[inside]),
        )

    def _leave(self, labels: IntArray) -> None:
        """Remove automatic people whose faces all came to somebody else."""
        now = set(labels.tolist())
        for label, person in enumerate(self.state.holders):
            if label not in now:
                self.draft.delete(Person, person)

    def _remember(self, crowd: Crowd) -> None:
        seen = {
            one.sighting.photo[:SHORT]: len(one.sighting.faces) > 0
            for one in crowd.seen
            if one.sighting.photo
        }
        every = {**seen, **self.state.done}
        if every != self.state.done:
            self.draft.put(Setting(PHOTOS, json.dumps(every, sort_keys=True)))
