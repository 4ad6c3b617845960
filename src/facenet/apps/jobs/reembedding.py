"""All faces of a gallery embedded anew: the work behind `facenet gallery upgrade`.

A face is looked for again in its photo, where that lies unchanged (the SHA-256 says so), at its
old place; or in its crop, where the gallery keeps crops. What cannot be found is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.photos import Done
from facenet.errors import InputError
from facenet.faces.boxes import overlap
from facenet.galleries import Gallery
from facenet.gallery.records import Crop, EnrolledFace, Space
from facenet.gallery.snapshot import drop_snapshots
from facenet.gallery.store import Store
from facenet.gallery.upgrade import Embed, Filled, begin, drop, fill, missing, switch
from facenet.images import load_image
from facenet.recognizer import Recognizer
from facenet.sightings import file_at
from facenet.types import Faces, FloatArray

ROUNDS = 100
"""Times that faces are looked for which were enrolled meanwhile."""
SAME_PLACE = 0.5
"""Overlap (intersection over union) from which a face found again is the enrolled one."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A change of model. switched: whether the new model answers now. problems: by face."""

    model: str
    switched: bool
    embedded: int
    already: int
    problems: Mapping[int, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}

    def text(self) -> str:
        """What was done, for a person."""
        done = f"{self.embedded:,} faces embedded with {self.model}, {self.already:,} before"
        if self.switched:
            return f"{done}; the gallery is of {self.model} now"
        return f"{done}, {len(self.problems):,} not; the old model still answers"


def upgrade_gallery(
    place: str | Path, model: str, *, options: Mapping[str, Any], leave: bool, done: Done
) -> Upgraded:
    """Give a gallery another model: fill its space, then switch to it when all faces are there.

    options: of `Recognizer`. leave: switch although some faces could not be embedded; they stay
    enrolled and are not found until they are embedded. Raises as `facenet.gallery.upgrade.begin`.
    """
    with Gallery.open(place) as gallery:
        recognizer = Recognizer(model=model, **options)
        embedder = recognizer.embedder
        space = begin(
            gallery.store,
            embedder.contract,
            embedder.card.name,
            int(embedder.card.dimension or 0),
            embedder.precision,
        )
        embed = Reembedder(gallery.store, recognizer)
        filled = _fill_all(gallery.store, space.contract, embed, done)
        active = space.state == "active"
        switched = active or leave or not filled.problems
        if switched and not active:
            switch(gallery.store, space.contract, leave=leave)
    return Upgraded(space.model, switched, filled.embedded, filled.already, filled.problems)


def drop_model(place: str | Path, model: str) -> list[Space]:
    """Delete the vectors of a model that is not searched, and every copy of them on the disk.

    Raises InputError when there is none.
    """
    with Gallery.open(place) as gallery:
        dropped = drop(gallery.store, model)
        drop_snapshots(Path(gallery.store.place))
    return dropped


def _fill_all(store: Store, contract: str, embed: Embed, done: Done) -> Filled:
    """Fill a space until only faces are missing that cannot be embedded: others are enrolled
    meanwhile, and are not to be left behind."""
    filled = fill(store, contract, embed, done)
    for _ in range(ROUNDS):
        with store.read() as view:
            late = {face.id for face in missing(view, contract)} - filled.problems.keys()
        if not late:
            break
        again = fill(store, contract, embed, done)
        total = filled.embedded + again.embedded
        filled = Filled(contract, total, filled.already, again.problems)
    return filled


class Reembedder:
    """Embeds enrolled faces anew with a recognizer: a vector each, or why there is none."""

    def __init__(self, store: Store, recognizer: Recognizer) -> None:
        self._store, self._recognizer = store, recognizer

    def __call__(self, faces: Sequence[EnrolledFace]) -> list[FloatArray | str]:
        """One answer per face, in their order."""
        return [self._embed(face) for face in faces]

    def _embed(self, face: EnrolledFace) -> FloatArray | str:
        data, whole = self._pixels(face)
        if isinstance(data, str):
            return data
        try:
            found: Faces = self._recognizer.faces(load_image(data))
        except InputError as error:
            return f"Face {face.id}: {error}"
        row = _nearest(found, None if whole else face.box)
        if row is None or found.embedding is None:
            return f"Face {face.id} was not found again in {face.source or 'its crop'}."
        vector: FloatArray = found.embedding[row]
        return vector

    def _pixels(self, face: EnrolledFace) -> tuple[bytes | str, bool]:
        """The photo as it was enrolled, or the crop (True), or why there is neither."""
        photo = file_at(face.source) if face.source and face.photo else None
        try:
            if photo is not None and photo.is_file():
                data = photo.read_bytes()
                if hashlib.sha256(data).hexdigest() == face.photo:
                    return data, False
        except OSError:  # the crop may be there
            pass
        with self._store.read() as view:
            crop = view.get(Crop, face.id)
        if crop is not None:
            return crop.data, True
        where = f"{face.source} is gone or changed" if face.source else "its photo is not known"
        return f"Face {face.id} cannot be embedded again: {where}, and no crop was kept.", False


def _nearest(found: Faces, box: tuple[float, float, float, float] | None) -> int | None:
    """The face at a place, or the largest one where no place is given."""
    if len(found) == 0:
        return None
    if box is None:
        return int(np.argmax(found.areas))
    shared = overlap(np.array([box], np.float32), found.boxes)[0]
    best = int(np.argmax(shared))
    return best if shared[best] >= SAME_PLACE else None
