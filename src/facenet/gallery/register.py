"""The people of a gallery, seen and corrected: everything that needs no photo and no model.

People are meant by name, id or external id; by id where two bear one name. Each change is in the
journal, and can be taken back with `undo` unless it was a deletion.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facenet.errors import ContractError, InputError
from facenet.gallery import corrections
from facenet.gallery.corrections import Change
from facenet.gallery.decide import active_space
from facenet.gallery.journal import entries
from facenet.gallery.people import matching, new_person, resolve
from facenet.gallery.records import Crop, EnrolledFace, Entry, Person, Setting, Space
from facenet.gallery.snapshot import drop_snapshots
from facenet.gallery.store import Store
from facenet.models.calibration import Calibration, calibration_from_dict

CALIBRATION = "calibration:"
"""A setting of this name and a contract: rates and probabilities of that model, as JSON."""


class Register:
    """The people in a store. Changes return a `Change`; see `facenet.gallery.corrections`."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def space(self) -> Space:
        """Contract, model and precision of the vectors that are searched now."""
        with self.store.read() as view:
            return active_space(view)

    def people(self, where: Mapping[str, Any] | None = None) -> list[Person]:
        """Everybody, or those with these metadata, by id."""
        with self.store.read() as view:
            return matching(view, where or {})

    def person(self, who: str) -> Person:
        """The person of a name or id. Raises UnknownPersonError."""
        with self.store.read() as view:
            return resolve(view, who)

    def faces(self, who: str) -> list[EnrolledFace]:
        """The enrolled faces of a person, by number. Raises UnknownPersonError."""
        with self.store.read() as view:
            return view.find(EnrolledFace, person=resolve(view, who).id)

    def crop(self, face: int) -> bytes | None:
        """The JPEG of an enrolled face, None where none is kept."""
        with self.store.read() as view:
            kept = view.get(Crop, face)
            return kept.data if kept else None

    def history(self) -> list[Entry]:
        """The journal, the oldest entry first."""
        with self.store.read() as view:
            return list(entries(view))

    def add(
        self,
        name: str,
        *,
        external_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Person:
        """Enrol a person without a face yet, also where somebody has the name already.

        Raises InputError for a name, an external id or metadata that nobody can have, and for an
        external id that is somebody else's.
        """
        person = new_person(name, external_id=external_id, metadata=metadata)
        corrections.add(self.store, person)
        return person

    def rename(self, who: str, name: str) -> Change:
        """See `corrections.rename`."""
        return corrections.rename(self.store, who, name)

    def describe(self, who: str, metadata: Mapping[str, Any]) -> Change:
        """See `corrections.describe`."""
        return corrections.describe(self.store, who, metadata)

    def merge(self, into: str, *others: str) -> Change:
        """See `corrections.merge`."""
        return corrections.merge(self.store, into, others)

    def split(self, faces: int | Iterable[int], new_name: str | None = None) -> Change:
        """See `corrections.split`."""
        return corrections.split(self.store, faces, new_name)

    def move(self, faces: int | Iterable[int], person: str) -> Change:
        """See `corrections.move`."""
        return corrections.move(self.store, faces, person)

    def confirm(self, face: int, person: str) -> Change:
        """See `corrections.confirm`."""
        return corrections.confirm(self.store, face, person)

    def reject(self, face: int, person: str) -> Change:
        """See `corrections.reject`."""
        return corrections.reject(self.store, face, person)

    def forget(self, face: int, person: str) -> Change:
        """See `corrections.forget`."""
        return corrections.forget(self.store, face, person)

    def apart(self, first: str, second: str, *, revoke: bool = False) -> Change:
        """See `corrections.apart`."""
        return corrections.apart(self.store, first, second, revoke=revoke)

    def delete(self, person: str) -> Change:
        """See `corrections.delete_person`."""
        with self._erasing():
            return corrections.delete_person(self.store, person)

    def delete_faces(self, faces: int | Iterable[int]) -> Change:
        """See `corrections.delete_faces`."""
        with self._erasing():
            return corrections.delete_faces(self.store, faces)

    def undo(self, entry: int | None = None) -> Change:
        """See `corrections.undo`."""
        with self._erasing():
            return corrections.undo(self.store, entry)

    def kept_calibration(self, contract: str) -> Calibration | None:
        """The calibration of a model that is kept in the gallery, or None."""
        kept = self._setting(f"{CALIBRATION}{contract}")
        if not kept:
            return None
        found = calibration_from_dict(json.loads(kept), origin="the gallery's calibration")
        return found if found.contract == contract else None

    def keep_calibration(self, calibration: Calibration | None) -> None:
        """Keep a calibration of the gallery's model: its rates then decide wherever the file goes,
        as long as this model is searched. None removes it. Raises ContractError for one of another
        model, InputError for what is none."""
        space = self.space
        if calibration is not None and not isinstance(calibration, Calibration):
            raise InputError(
                "A calibration to keep should be a `Calibration`, or None to remove the one there "
                f"is; got {type(calibration).__name__}. Make one with `facenet calibrate`."
            )
        if calibration is not None and calibration.contract != space.contract:
            raise ContractError(
                f"The calibration should be of {space.contract}; it is of "
                f"{calibration.contract:.200}. Calibrate with the gallery's model."
            )
        name = CALIBRATION + space.contract
        with self.store.write() as draft:
            if calibration is None:
                draft.delete(Setting, name)
            else:
                draft.put(Setting(name, json.dumps(calibration.to_dict())))

    @property
    def _file(self) -> Path | None:
        """The file, where the store is one."""
        place = self.store.place
        return None if "://" in place else Path(place)

    @contextmanager
    def _erasing(self) -> Iterator[None]:
        """No copy of the index outlives what is deleted, whenever the work is cut off."""
        if self._file:
            drop_snapshots(self._file)
        yield
        if self._file:
            drop_snapshots(self._file)

    def _setting(self, name: str) -> str:
        with self.store.read() as view:
            found = view.get(Setting, name)
            return found.value if found else ""
