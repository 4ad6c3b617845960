"""`facenet cluster PHOTOS OUT` from beginning to end: look, cluster, keep, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from facenet.apps.jobs.albumfolders import take_names, write_folders
from facenet.apps.jobs.albumpage import require_page_extra, write_page
from facenet.apps.jobs.albumstate import (
    FILE,
    SHORT,
    Shelf,
    album_rows,
    follow_moved,
    looked_at,
    open_album,
    require_outside,
    shelves,
    take_faces,
)
from facenet.apps.jobs.clustering import (
    ClusteredPhotos,
    Clustering,
    Crowd,
    Levels,
    gather_faces,
    levels_of,
)
from facenet.apps.jobs.everyface import digest_of
from facenet.apps.jobs.photos import Done, Photo
from facenet.errors import SettingsError
from facenet.recognizer import Recognizer

LAYOUTS = ("folders", "album")
UNFINISHED = ".unfinished"
"""Folder below OUT of what was seen by a run that has not come to its end; then it goes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where photos come from and where the album goes. layout: one of `LAYOUTS`.

    Raises SettingsError for another layout, InputError when one lies in the other, and
    MissingExtraError where a page cannot be made.
    """

    photos: Path
    out: Path
    layout: str = "folders"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise SettingsError(
                f"layout should be one of {', '.join(LAYOUTS)}; got {self.layout!r:.40}."
            )
        require_outside(self.photos, self.out)
        if self.layout == "album":
            require_page_extra()


def make_album(
    place: Place,
    photos: Sequence[Photo],
    recognizer: Recognizer,
    how: Clustering,
    *,
    done: Done,
) -> ClusteredPhotos:
    """Make an album of photos, or add them to the one that is there.

    done: called for photos looked at, then for those written. A row has what `cluster_photos`
    gives, and person and person_id. Raises ContractError for an album of another model,
    StorageError, GalleryError.
    """
    levels = levels_of(recognizer, how)
    with open_album(place.out, recognizer) as gallery:
        notes = take_names(gallery.store, place.out)
        digests = {photo.path: digest_of(photo).hex() for photo in photos}
        known = looked_at(gallery.store)
        new = [photo for photo in photos if digests[photo.path][:SHORT] not in known]
        memory = place.out / UNFINISHED
        crowd = gather_faces(new, recognizer, memory if how.remember else None, done=done)
        notes += filter(None, [take_faces(gallery, crowd, levels, how)])
        follow_moved(gallery.store, digests)
        rmtree(memory, ignore_errors=True)
        shelved, known = shelves(gallery.store), looked_at(gallery.store)
    faceless = [path for path, digest in digests.items() if known.get(digest[:SHORT]) is False]
    if place.layout == "folders":
        notes += write_folders(place.out, shelved, faceless, done)
    else:
        facts = _facts(place, recognizer, levels, shelved, crowd)
        write_page(place.out, shelved, faceless, facts, done)
    rows = album_rows(shelved, photos, digests)
    return ClusteredPhotos(rows, faceless, crowd.problems, notes)


def _facts(
    place: Place, recognizer: Recognizer, levels: Levels, shelved: Sequence[Shelf], crowd: Crowd
) -> dict[str, object]:
    """What the page says of itself."""
    free = levels.settings.family == "hdbscan"
    return {
        "album": str(place.out / FILE),
        "model": recognizer.embedder.card.name,
        "contract": recognizer.embedder.contract,
        "method": levels.settings.method,
        "threshold": None if free else levels.settings.threshold,
        "fmr": levels.fmr,
        "photos": len({face.photo for shelf in shelved for face in shelf.faces}),
        "problems": crowd.problems,
    }
