"""Another model for a gallery: two spaces side by side, a switch, and the way back.

The new space is filled while the old one goes on answering. Nothing of it is searched before the
switch, which is one draft: every answer is of one space. The old space is kept as retired until it
is dropped, so that rolling back is one draft too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from facenet.errors import GalleryError, InputError
from facenet.gallery.records import EnrolledFace, Space
from facenet.gallery.store import Draft, Store, View
from facenet.types import FloatArray

BATCH = 64
"""Faces that are embedded, and committed, together."""

Done = Callable[[int, int], None]
Embed = Callable[[Sequence[EnrolledFace]], Sequence[FloatArray | str]]
"""Faces -> a unit vector, float32 (d,), or a sentence that says why there is none, for each."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What filling a space did: faces that got a vector now, that had one, and why others did
    not, by face."""

    contract: str
    embedded: int
    already: int
    problems: Mapping[int, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def begin(store: Store, contract: str, model: str, dimension: int, precision: str) -> Space:
    """A space to be filled; the one that is there already when a change was interrupted.

    It is the active one when the gallery is of this model and faces were left behind. Raises
    InputError when nothing is to be done, when another change is under way, or when vectors of
    this contract are there in another precision.
    """
    with store.write() as draft:
        known = draft.get(Space, contract)
        others = [space for space in draft.find(Space, state="building") if space != known]
        if others:
            raise InputError(
                f"One change of model at a time: {others[0].model} ({others[0].contract:.80}) is "
                f"being filled. Finish it, or give it up with `facenet gallery drop {store.place} "
                f"{others[0].model}`."
            )
        if known is None:
            known = Space(contract, model, dimension, "building", time.time(), precision)
        if known.precision != precision:
            raise InputError(
                f"The vectors of {model} in this gallery are in {known.precision}; {precision} was "
                "asked for, and the two are not mixed. Leave the precision as it is."
            )
        if known.state == "active":
            if next(missing(draft, contract), None) is None:
                raise InputError(f"This gallery is of {model} already; there is nothing to change.")
            return known
        space = replace(known, state="building")
        draft.put(space)
        return space


def fill(store: Store, contract: str, embed: Embed, done: Done) -> Filled:
    """Embed every face that has no vector in a space yet, some at a time, each lot committed.

    A face that cannot be embedded (its photo is gone or changed) does not stop the rest; another
    run tries it again. done: called with faces done and faces in all.
    """
    with store.read() as view:
        todo = list(missing(view, contract))
        total = view.count(EnrolledFace)
    already, embedded = total - len(todo), 0
    problems: dict[int, str] = {}
    for start in range(0, len(todo), BATCH):
        lot = todo[start : start + BATCH]
        answers = list(zip((face.id for face in lot), embed(lot), strict=True))
        problems |= {face: said for face, said in answers if isinstance(said, str)}
        rows = {face: row for face, row in answers if not isinstance(row, str)}
        embedded += _keep(store, contract, rows)
        done(already + start + len(lot), total)
    return Filled(contract, embedded, already, problems)


def missing(view: View, contract: str) -> Iterator[EnrolledFace]:
    """The faces without a vector in a space, by number."""
    after = 0
    while batch := view.find(EnrolledFace, after=after, limit=10_000):
        there = set(view.vectors(contract, ids=[face.id for face in batch]).ids.tolist())
        yield from (face for face in batch if face.id not in there)
        after = batch[-1].id


def switch(store: Store, contract: str, *, leave: bool = False) -> Space:
    """From now on this space is searched; the one before is retired.

    leave: also when faces have no vector in it; they are not found until they get one. Raises
    InputError for a space that is not there, or that is not complete.
    """
    with store.write() as draft:
        space = draft.get(Space, contract)
        if space is None:
            raise InputError(f"There is no space {contract:.120} in this gallery to switch to.")
        lacking = sum(1 for _ in missing(draft, contract))
        if lacking and not leave:
            raise InputError(
                f"{lacking:,} of {draft.count(EnrolledFace):,} faces have no vector of "
                f"{space.model} yet, and would not be found. Run `facenet gallery upgrade` again, "
                "with their photos in place, or leave them behind with --leave."
            )
        return _activate(draft, space)


def roll_back(store: Store) -> Space:
    """The space that was retired last is searched again, and the present one is retired.

    Raises InputError when none is retired, or when faces were enrolled since that it does not
    know: they would not be found.
    """
    with store.write() as draft:
        retired = draft.find(Space, state="retired")
        if not retired:
            raise InputError("There is no earlier model to go back to: none was kept.")
        space = max(retired, key=lambda one: (one.created, one.contract))
        lacking = sum(1 for _ in missing(draft, space.contract))
        if lacking:
            raise InputError(
                f"{lacking:,} faces have no vector of {space.model}: they were enrolled after the "
                "change, or left behind. Run `facenet gallery upgrade` with that model instead."
            )
        return _activate(draft, space)


def drop(store: Store, model: str) -> list[Space]:
    """Delete the spaces of a model, by name or contract, that are not searched; which they were.

    Raises InputError when there is none, or only the one that is searched.
    """
    with store.write() as draft:
        spaces = [space for space in draft.find(Space) if model in (space.model, space.contract)]
        idle = [space for space in spaces if space.state != "active"]
        if not idle:
            raise InputError(
                f"Only a model that is not searched can be dropped; {model:.120} is "
                f"{'searched' if spaces else 'not in this gallery'}. `facenet gallery show` lists "
                "them."
            )
        for space in idle:
            draft.delete(Space, space.contract)
        return idle


def _activate(draft: Draft, space: Space) -> Space:
    now = time.time()
    for other in draft.find(Space, state="active"):
        draft.put(replace(other, state="retired", created=now))
    chosen = replace(space, state="active")
    draft.put(chosen)
    return chosen


def _keep(store: Store, contract: str, rows: Mapping[int, FloatArray]) -> int:
    """Write vectors of faces that are still enrolled; how many there were."""
    with store.write() as draft:
        if draft.get(Space, contract) is None:
            raise GalleryError("The space was dropped while it was being filled. Begin again.")
        known = {
            face: np.asarray(row, np.float32)
            for face, row in rows.items()
            if draft.get(EnrolledFace, face) is not None
        }
        draft.put_vectors(contract, known)
        return len(known)
