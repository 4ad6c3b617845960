"""A whole gallery as plain files: JSON Lines for rows, safetensors for vectors, and back.

A folder holds gallery.json (what is in it, with the SHA-256 of every file; written last, so that a
folder without it is an export that was not finished), one file of lines per kind of row, and the
vectors of each space in files of at most `SHARD` faces. All of it is biometric data: the files are
readable by their owner alone. The journal is not exported: what it could undo is not there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import DataError, InputError, MissingExtraError, StorageError
from facenet.files import written
from facenet.gallery.journal import write_entry
from facenet.gallery.people import composed
from facenet.gallery.records import (
    Apart,
    Crop,
    EnrolledFace,
    Person,
    Row,
    Ruling,
    Setting,
    Space,
)
from facenet.gallery.store import Draft, Store, View
from facenet.types import FloatArray

FORMAT = "facenet gallery 1"
MANIFEST = "gallery.json"
SHARD = 65_536
"""Faces of one file of vectors."""
LONGEST_LINE = 8 << 20
"""Bytes of a line; the longest hold a crop."""
KINDS: tuple[type[Any], ...] = (Space, Person, EnrolledFace, Ruling, Apart, Crop, Setting)
"""Kinds of rows that are exported, in the order in which they can be put back."""
PLAIN = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "str | None": (str, type(None)),
    "float | None": (int, float, type(None)),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, float]": (dict,),
    "tuple[float, float, float, float] | None": (list, type(None)),
}
"""Types of columns, as annotated -> what JSON gives for them."""
PRIVATE = ("gallery_id",)
"""Settings that belong to the one gallery they lie in."""

Done = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in: people and faces that are new, faces that were there already, and decisions of
    users that were left out because others stand here."""

    people: int
    faces: int
    already: int
    left_out: int = 0

    def to_dict(self) -> dict[str, int]:
        """The fields as plain values."""
        return asdict(self)


def export_gallery(store: Store, folder: Path, done: Done) -> dict[str, Any]:
    """Write all of a gallery at one revision into a new or empty folder; what the manifest says.

    done: called with faces done and faces in all. Raises StorageError where the folder cannot be
    written or holds something, MissingExtraError without safetensors.
    """
    library = _safetensors()
    _require_empty(folder)
    with store.read() as view:
        files = {f"{kind.kind}.jsonl": _write_lines(view, kind, folder) for kind in KINDS}
        spaces = view.find(Space)
        total, so_far = view.count(EnrolledFace) * max(len(spaces), 1), 0
        for number, space in enumerate(spaces):
            for shard, (ids, rows) in enumerate(_shards(view, space.contract)):
                name = f"vectors-{number}-{shard}.safetensors"
                data = library.save({"face": ids, "vector": rows}, {"contract": space.contract})
                files[name] = _write(folder / name, [data])
                so_far += len(ids)
                done(so_far, total)
        manifest = {
            "format": FORMAT,
            "revision": view.revision,
            "people": view.count(Person),
            "faces": view.count(EnrolledFace),
            "files": files,
        }
    _write(folder / MANIFEST, [json.dumps(manifest, indent=1).encode()])
    return manifest


def import_gallery(store: Store, folder: Path, done: Done) -> Imported:
    """Bring an exported gallery into a store, all of it or nothing.

    Into an empty gallery everything comes with its ids. Into another one people keep their ids, who
    is there already is left as they are, a face whose photo and box are enrolled for its person
    already does not come twice, and other faces get new numbers. A decision of a user comes in
    unless another one about the same face stands here. Raises DataError for a folder that is no
    whole export or was changed, ContractError or InputError for rows that do not fit.
    """
    library = _safetensors()
    manifest = _read_manifest(folder)
    _check_files(folder, manifest)
    with store.write() as draft:
        coming = _Coming(draft)
        for kind in KINDS:
            for row in _read_lines(folder, kind):
                coming.take(row)
        names = [name for name in manifest["files"] if name.endswith(".safetensors")]
        for number, name in enumerate(sorted(names), 1):
            contract, ids, rows = _read_shard(library, folder / name)
            coming.vectors(contract, ids, rows)
            done(number, len(names))
        if coming.people or coming.faces:
            write_entry(draft, "import", ())
        return Imported(coming.people, len(coming.faces), len(coming.there), coming.left_out)


@dataclass(frozen=True, slots=True)
class _Safetensors:
    """What is used of the library."""

    save: Callable[..., bytes]
    load: Callable[[bytes], dict[str, Any]]
    error: type[Exception]


class _Coming:
    """Rows on their way into a gallery that may hold some of them."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._empty = draft.count(Person) == 0 and draft.count(EnrolledFace) == 0
        self.people = self.left_out = 0
        self.faces: dict[int, int] = {}
        """Number in the export -> number here, of faces that came in."""
        self.there: dict[int, int] = {}
        """The same, of faces that were here already."""

    def take(self, row: Row) -> None:
        """Put a row, unless it is there."""
        draft = self._draft
        if isinstance(row, Space):
            self._take_space(row)
        elif isinstance(row, Person):
            if draft.get(Person, row.id) is None:
                external = None if row.external_id is None else composed(row.external_id)
                draft.put(replace(row, name=composed(row.name), external_id=external))
                self.people += 1
        elif isinstance(row, EnrolledFace):
            self._take_face(row)
        elif isinstance(row, Ruling):
            self._take_ruling(row)
        elif isinstance(row, Crop):
            if row.face in self.faces:
                draft.put(replace(row, face=self.faces[row.face]))
        elif isinstance(row, Apart | Setting):
            private = isinstance(row, Setting) and row.name in PRIVATE
            if not private and draft.get(type(row), row.key) is None:
                draft.put(row)

    def vectors(self, contract: str, ids: list[int], rows: FloatArray) -> None:
        """Put the vectors, (n, d), of the faces that came in."""
        pairs = zip(ids, rows, strict=True)
        new = {self.faces[face]: row for face, row in pairs if face in self.faces}
        if self._draft.get(Space, contract) is not None:
            self._draft.put_vectors(contract, new)

    def _take_ruling(self, row: Ruling) -> None:
        """Put a decision, unless it says otherwise than one that stands here."""
        number = self.faces.get(row.face, self.there.get(row.face, 0))
        face = self._draft.get(EnrolledFace, number)
        if face is None:
            return
        mine = replace(row, face=number)
        known = self._draft.get(Ruling, mine.key)
        if known is None and mine.same == (face.person == mine.person):
            self._draft.put(mine)
        elif known is None or known.same != mine.same:
            self.left_out += 1

    def _take_space(self, row: Space) -> None:
        active = self._draft.find(Space, state="active")
        known = self._draft.get(Space, row.contract)
        if known is not None and known.precision != row.precision:
            raise InputError(
                f"The exported vectors of {row.model} should be in {known.precision}, as those of "
                f"this gallery are; they are in {row.precision}. Import them into a new gallery."
            )
        if known is not None:
            return
        if active and row.state == "active":
            raise InputError(
                f"The exported gallery should be of {active[0].contract:.120}, as this one is; it "
                f"is of {row.contract:.120}. Import it into a new gallery, or change its model "
                "there first with `facenet gallery upgrade`."
            )
        self._draft.put(row)

    def _take_face(self, row: EnrolledFace) -> None:
        if row.id in self.faces or row.id in self.there:
            raise DataError(
                f"The exported faces should have numbers of their own; {row.id} came twice."
            )
        if self._empty:
            self._draft.put(row)
            self.faces[row.id] = row.id
            return
        same = self._draft.find(EnrolledFace, photo=row.photo) if row.photo else []
        for face in same:
            if face.person == row.person and face.box == row.box:
                self.there[row.id] = face.id
                return
        number = self._draft.next_id(EnrolledFace)
        self._draft.put(replace(row, id=number))
        self.faces[row.id] = number


def _shards(view: View, contract: str) -> Iterator[tuple[np.ndarray[Any, Any], FloatArray]]:
    after = 0
    while len(block := view.vectors(contract, after=after, limit=SHARD)):
        yield block.ids, block.rows
        after = int(block.ids[-1])


def _write_lines(view: View, kind: type[Any], folder: Path) -> str:
    return _write(folder / f"{kind.kind}.jsonl", _lines(view, kind))


def _lines(view: View, kind: type[Any]) -> Iterator[bytes]:
    after = None
    while batch := view.find(kind, after=after, limit=10_000):
        for row in batch:
            if not (isinstance(row, Setting) and row.name in PRIVATE):
                yield json.dumps(_plain(row), ensure_ascii=False).encode() + b"\n"
        after = batch[-1].key


def _plain(row: Row) -> dict[str, Any]:
    values = asdict(row)
    if isinstance(row, Crop):
        values["data"] = base64.b64encode(row.data).decode()
    return values


def _write(path: Path, chunks: Any) -> str:
    """Write a file that only its owner may read; its SHA-256 in hex."""
    digest = hashlib.sha256()
    with written(path) as file:
        os.chmod(file.name, 0o600)
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _require_empty(folder: Path) -> None:
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(
                f"An export needs a new or empty folder; {str(folder)[:300]} holds something. "
                "Choose another place."
            )
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise StorageError(
            f"Cannot write the folder {str(folder)[:300]}: {error.strerror}. Choose another place."
        ) from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: Any = json.loads(path.read_bytes()[: 1 << 24])
    except OSError as error:
        raise DataError(
            f"{str(folder)[:300]} should hold an exported gallery, with {MANIFEST}; "
            f"{error.strerror or error}. An export that was interrupted has none: export again."
        ) from error
    except ValueError as error:
        raise DataError(f"{path} should be JSON as an export writes it; it is not.") from error
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("format") != FORMAT:
        raise DataError(
            f'{path} should say "{FORMAT}" and list its files; it does not. Use an export of this '
            "version of facenet."
        )
    return dict(manifest)


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise DataError unless every file is there, is listed by a plain name and was not changed."""
    wanted = {f"{kind.kind}.jsonl" for kind in KINDS} - set(manifest["files"])
    for name, digest in manifest["files"].items():
        plain = name == Path(name).name and name.endswith((".jsonl", ".safetensors"))
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest() if plain else ""
        except (OSError, ValueError) as error:
            raise DataError(
                f"The export {str(folder)[:300]} should hold {name[:80]!r}; it cannot be read. "
                "Copy it again."
            ) from error
        if found != digest:
            raise DataError(
                f"{name[:80]!r} of the export {str(folder)[:300]} is not what was written. Copy "
                "it again, or export again."
            )
    if wanted:
        raise DataError(f"{folder / MANIFEST} should list {', '.join(sorted(wanted))}.")


def _read_lines(folder: Path, kind: type[Any]) -> Iterator[Row]:
    path = folder / f"{kind.kind}.jsonl"
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            try:
                if len(line) > LONGEST_LINE:
                    raise ValueError(f"more than {LONGEST_LINE:,} bytes")
                yield _row(kind, json.loads(line))
            except (ValueError, TypeError, RecursionError, binascii.Error) as error:
                raise DataError(
                    f"Line {number} of {path} should be a {kind.kind} as an export writes it; got "
                    f"{str(error)[:120]}."
                ) from error


def _row(kind: type[Any], values: Any) -> Row:
    if not isinstance(values, dict):
        raise ValueError(f"{type(values).__name__} in place of an object")
    for column in fields(kind):
        wanted = PLAIN.get(str(column.type))
        if wanted and column.name in values and type(values[column.name]) not in wanted:
            raise ValueError(f"{column.name} that is {type(values[column.name]).__name__}")
    if kind is Crop:
        values = {**values, "data": base64.b64decode(values["data"], validate=True)}
    if kind is EnrolledFace and values.get("box") is not None:
        values = {**values, "box": tuple(values["box"])}
    row: Row = kind(**values)
    return row


def _read_shard(library: _Safetensors, path: Path) -> tuple[str, list[int], FloatArray]:
    try:
        data = path.read_bytes()
        tensors = library.load(data)
        length = int.from_bytes(data[:8], "little")
        contract = json.loads(data[8 : 8 + length])["__metadata__"]["contract"]
        ids, rows = tensors["face"], tensors["vector"]
        if ids.dtype != np.int64 or rows.dtype != np.float32 or ids.shape != rows.shape[:1]:
            raise ValueError(f"{ids.dtype} {ids.shape} and {rows.dtype} {rows.shape}")
    except (OSError, KeyError, ValueError, TypeError, library.error) as error:
        raise DataError(
            f"{path} should hold faces, int64 (n,), and their vectors, float32 (n, d); got "
            f"{str(error)[:120]}."
        ) from error
    return str(contract), ids.tolist(), rows


def _safetensors() -> _Safetensors:
    try:
        import safetensors
        from safetensors import numpy as library
    except ImportError as error:
        raise MissingExtraError(
            "Exporting and importing a gallery needs safetensors, which is not installed. Install "
            'it with `pip install "facenet[gallery]"`.'
        ) from error
    return _Safetensors(library.save, library.load, safetensors.SafetensorError)
