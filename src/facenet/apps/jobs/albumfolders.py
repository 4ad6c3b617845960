"""An album as folders: one per person with copies of their photos, and names taken from them.

Each folder has a small file, .facenet.json, that says whose it is and what was put there. A folder
that a user renamed gives its person the new name; a person who was renamed in the gallery gives
the folder the new name. Only copies that this module made, and nobody changed since, are ever
removed. Originals are only read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from facenet.apps.jobs.albumstate import Shelf
from facenet.apps.jobs.photos import Done
from facenet.errors import InputError, StorageError
from facenet.files import written
from facenet.gallery.corrections import rename
from facenet.gallery.records import LONGEST_NAME, Person
from facenet.gallery.store import Store
from facenet.sightings import file_at

MARK = ".facenet.json"
ONCE, NOBODY = "seen once", "no face"
"""Folders of people with one face and no name, and of photos without a face."""
LONGEST = 80
"""Characters of a folder's name."""


@dataclass(frozen=True, slots=True)
class _Marked:
    """A folder that this module made. owner: id of a person, or `ONCE` or `NOBODY`. name: what it
    was called. files: name -> SHA-256 of the copies in it."""

    path: Path
    owner: str
    name: str
    files: Mapping[str, str]


def take_names(store: Store, out: Path) -> list[str]:
    """Give people the names of folders that a user renamed; a sentence for each that cannot be."""
    notes = []
    for folder in _marked(out):
        if folder.path.name == folder.name or folder.owner in (ONCE, NOBODY):
            continue
        with store.read() as view:
            person = view.get(Person, folder.owner)
        if person is not None and person.name != folder.path.name:
            try:
                rename(store, folder.owner, folder.path.name)
            except InputError as error:
                notes.append(f"{folder.path} was not taken as a name. {error}")
    return notes


def write_folders(
    out: Path, shelved: Sequence[Shelf], faceless: Sequence[Path], done: Done
) -> list[str]:
    """Bring the folders to what the album says; sentences about photos that are gone.

    Raises StorageError when a copy cannot be written.
    """
    wanted = {**_people(shelved), NOBODY: (NOBODY, {str(path): "" for path in faceless})}
    there = {folder.owner: folder for folder in _marked(out)}
    for owner, folder in there.items():
        if owner not in wanted or not wanted[owner][1]:
            _clear(folder, {})
    total = sum(len(photos) for _, photos in wanted.values())
    count, notes = 0, list[str]()
    for owner, (name, photos) in wanted.items():
        if photos:
            folder = _placed(out, owner, name, there.get(owner))
            notes += _fill(folder, photos)
        count += len(photos)
        done(count, max(1, total))
    return notes


def _people(shelved: Sequence[Shelf]) -> dict[str, tuple[str, dict[str, str]]]:
    """Owner -> name of the folder, and path -> SHA-256 of the photos that belong there."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    used, once = {ONCE.casefold(), NOBODY.casefold()}, dict[str, str]()
    for shelf in shelved:
        photos = {face.source: face.photo for face in shelf.faces if face.source}
        if shelf.person.automatic and len(shelf.faces) == 1:
            once |= photos
            continue
        name = plain = folder_name(shelf.person.name)
        number = 2
        while name.casefold() in used:
            name, number = f"{plain} ({number})", number + 1
        used.add(name.casefold())
        found[shelf.person.id] = (name, photos)
    return {**found, ONCE: (ONCE, once)}


def folder_name(name: str) -> str:
    """A name that a folder can have on every system: without signs that paths are made of."""
    plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name)[:LONGEST].strip().rstrip(".")
    return f"_{plain}" if plain.startswith(".") or not plain else plain


def _marked(out: Path) -> Iterator[_Marked]:
    for path in sorted(out.glob(f"*/{MARK}")):
        try:
            data = json.loads(path.read_text("utf-8"))
            files = {str(name): str(digest) for name, digest in data["files"].items()}
            yield _Marked(path.parent, str(data["owner"])[:LONGEST_NAME], str(data["name"]), files)
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            continue  # somebody's own file, or a broken one: the folder is theirs then


def _placed(out: Path, owner: str, name: str, there: _Marked | None) -> _Marked:
    """The folder of an owner under its name, moved or made."""
    path = out / name
    try:
        if there is None:
            path = _free(path)
            path.mkdir(parents=True)
            return _Marked(path, owner, path.name, {})
        if there.path.name != name:
            path = _free(path)
            there.path.rename(path)
            return _Marked(path, owner, path.name, there.files)
    except OSError as error:
        raise StorageError(
            f"Cannot make the folder {str(path)[:300]}: {error.strerror}. Choose another OUT."
        ) from error
    return there


def _free(path: Path) -> Path:
    """This path, or the next one with a number where something else is."""
    number, free = 2, path
    while free.exists():
        free, number = path.with_name(f"{path.name} ({number})"), number + 1
    return free


def _fill(folder: _Marked, photos: Mapping[str, str]) -> list[str]:
    """Copy what is missing, remove what does not belong; sentences about photos that are gone."""
    names: dict[str, str] = {}
    notes = []
    for source, digest in photos.items():
        path = file_at(source)
        name = path.name
        if name in names or name == MARK:
            short = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:8]
            name = f"{path.stem}-{short}{path.suffix}"
        target = folder.path / name
        if not target.exists():
            if not path.is_file():
                notes.append(f"The photo {source} is not there any more, so it was not copied.")
                continue
            _copy(path, target)
        names[name] = digest or _digest(target)
    _clear(folder, names)
    data = {"owner": folder.owner, "name": folder.path.name, "files": names}
    with written(folder.path / MARK) as file:  # in ASCII, which keeps names that are no Unicode
        file.write((json.dumps(data, indent=1) + "\n").encode())
    return notes


def _copy(source: Path, target: Path) -> None:
    try:
        with source.open("rb") as original, written(target) as file:
            shutil.copyfileobj(original, file)
        shutil.copystat(source, target)
    except OSError as error:
        raise StorageError(
            f"Cannot copy {str(source)[:300]}: {error.strerror}. Make it readable, or free some "
            "space."
        ) from error


def _clear(folder: _Marked, kept: Mapping[str, str]) -> None:
    """Remove copies that do not belong here any more and are as they were made; the folder too
    when nothing is left in it."""
    for name, digest in folder.files.items():
        path = folder.path / Path(name).name
        if name not in kept and _digest(path) == digest:
            with suppress(OSError):
                path.unlink()
    if not kept:
        with suppress(OSError):
            (folder.path / MARK).unlink()
            folder.path.rmdir()


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
