"""Many people enrolled from a folder or a list: the work behind `facenet gallery import`.

Every photo is known by its content, so a run that was interrupted is simply run again: what is
enrolled already is passed over before anything is looked at.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facenet.apps.jobs.photos import Done
from facenet.data.folders import read_people
from facenet.data.roster import Listed, read_roster
from facenet.errors import DataError, InputError, SettingsError, StorageError
from facenet.files import require_writable, written
from facenet.galleries import Gallery
from facenet.gallery.enrolment import Enrolled
from facenet.gallery.exchange import MANIFEST, Imported, import_gallery
from facenet.gallery.people import composed
from facenet.gallery.records import EnrolledFace, Person
from facenet.images import SUFFIXES, find_images, is_image_name

COLUMNS = ("photo", "person", "person_id", "face", "already", "reasons", "why", "overruled")
LOT = 16
"""Photos of a person that are looked at, and committed, together."""
NAMED = 20
"""Files that were passed over which are named in the notes; the report names all."""
NO_PICTURE = "no_picture"
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came in from an exported gallery; nothing of it is ever refused alone."""

    came: Imported

    @property
    def refused(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Counts."""
        return {
            "people": self.came.people,
            "enrolled": self.came.faces,
            "already": self.came.already,
            "decisions_left_out": self.came.left_out,
        }

    @property
    def incomplete(self) -> bool:
        """False: it came in as a whole."""
        return False

    def notes(self) -> list[str]:
        """What users had decided there and is decided otherwise here."""
        count = self.came.left_out
        said = f"{count:,} decisions of the export were left out: others stand in this gallery."
        return [said] if count else []

    def text(self) -> str:
        """What came in, for a person."""
        came = self.came
        return (
            f"{came.people:,} people and {came.faces:,} faces came in, {came.already:,} were there"
        )


@dataclass(frozen=True, slots=True)
class Ignored:
    """What a folder of people holds besides pictures. files: of another ending. folders: of
    people, without any picture."""

    files: Sequence[Path] = ()
    folders: Sequence[Path] = ()

    def notes(self) -> list[str]:
        """A sentence for each, the first of them."""
        said = [f"{path} holds no picture, so nobody was enrolled." for path in self.folders]
        said += [f"{path} was passed over: {_why_not(path)}." for path in self.files]
        more = len(said) - NAMED
        return said[:NAMED] + ([f"{more:,} more files were passed over."] if more > 0 else [])

    def rows(self) -> list[dict[str, Any]]:
        """Lines of the report."""
        whom = [(path, path.name, "It holds no picture.") for path in self.folders]
        whom += [(path, "", f"It is passed over: {_why_not(path)}.") for path in self.files]
        return [_row(path, name, NO_PICTURE, why) for path, name, why in whom]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came of every photo: enrolled, there already, or refused with the reason.

    passed_over: files of the folder that are no picture by their ending, and folders (of a person)
    that hold no picture, as they were given.
    """

    photos: list[dict[str, Any]] = field(default_factory=list)
    passed_over: Ignored = Ignored()

    @property
    def refused(self) -> list[dict[str, Any]]:
        """The photos that were not enrolled."""
        return [row for row in self.photos if row["face"] is None]

    def text(self) -> str:
        """What came of it, for a person."""
        counts = self.to_dict()
        said = (
            f"{counts['enrolled']:,} photos of {counts['people']:,} people enrolled, "
            f"{counts['already']:,} were there already, {counts['refused']:,} refused"
        )
        files, folders = len(self.passed_over.files), len(self.passed_over.folders)
        said += f", {files:,} files passed over" if files else ""
        return said + (f", {folders:,} folders without a picture" if folders else "")

    @property
    def incomplete(self) -> bool:
        """Whether somebody who was to be enrolled was not, or not with all photos."""
        return bool(self.refused or self.passed_over.folders)

    def notes(self) -> list[str]:
        """A sentence for each photo that was refused, and each file that was passed over."""
        said = [
            f"{row['photo']} was not enrolled as {row['person']}. {row['why']}"
            for row in self.refused
        ]
        return said + self.passed_over.notes()

    def stopped(self) -> str:
        """What a run that was cut off has done, for a person."""
        return (
            f"The import did not come to its end: {self.text()}. What was enrolled is kept; run it "
            "again to go on."
        )

    def to_dict(self) -> dict[str, Any]:
        """Counts, reasons by how often they came, and the refused photos."""
        already = sum(row["already"] for row in self.photos)
        reasons = Counter(code for row in self.refused for code in row["reasons"])
        return {
            "people": len({row["person_id"] for row in self.photos if row["person_id"]}),
            "photos": len(self.photos),
            "enrolled": len(self.photos) - already - len(self.refused),
            "already": already,
            "refused": len(self.refused),
            "reasons": dict(reasons.most_common()),
            "refused_photos": self.refused,
            "files_passed_over": [str(path) for path in self.passed_over.files],
            "folders_without_picture": [str(path) for path in self.passed_over.folders],
        }


def import_any(
    gallery: Gallery,
    source: Path,
    *,
    allow: Sequence[str] = (),
    report: Path | None,
    done: Done,
    stopped: Told,
) -> ImportReport | Exchanged:
    """Enrol people from a folder or a list, or bring an exported gallery in.

    report: a CSV file of what came of each photo, for its owner alone; also written when the run
    is cut off, and `stopped` is then told what was done. Raises DataError when nobody is there,
    SettingsError for a report on an exported gallery, which holds no photos.
    """
    if (source / MANIFEST).is_file():
        if report or allow:
            raise SettingsError(
                f"{source} is an exported gallery: its faces were judged when they were enrolled. "
                "Leave report and allow out."
            )
        return Exchanged(import_gallery(gallery.store, source, done))
    people = read_source(source)
    if report:
        require_writable(report)
    made, whole = ImportReport(passed_over=ignored(source)), False
    try:
        import_people(gallery, people, into=made, allow=allow, done=done)
        whole = True
    finally:
        if not whole:
            stopped(made.stopped())
            with suppress(StorageError):  # the disk may be why it stopped
                _write_csv(report, made)
    _write_csv(report, made)
    return made


def ignored(source: Path) -> Ignored:
    """What a folder of people holds that nobody is enrolled with; nothing for a list.

    What is hidden does not count.
    """
    if not source.is_dir():
        return Ignored()
    files: list[Path] = []
    folders: list[Path] = []
    for entry in sorted(path for path in source.iterdir() if not path.name.startswith(".")):
        if not entry.is_dir():
            files += [] if is_image_name(entry) and entry.is_file() else [entry]
            continue
        pictures = set(find_images([entry]))
        files += [path for path in _shown(entry) if path not in pictures]
        folders += [] if pictures else [entry]
    return Ignored(files, folders)


def read_source(source: Path) -> list[Listed]:
    """The people of a folder (a sub-folder or a file for each) or of a CSV file.

    Raises DataError when nobody is there.
    """
    if source.is_file():
        if source.suffix.lower() != ".csv":
            raise DataError(
                f"People are imported from a folder, an exported gallery or a list (.csv); "
                f"{source} is another file."
            )
        return read_roster(source)
    return [Listed(name, list(paths)) for name, paths in read_people(source).items()]


def import_people(
    gallery: Gallery,
    people: Sequence[Listed],
    *,
    into: ImportReport,
    allow: Sequence[str] = (),
    done: Done,
) -> None:
    """Enrol all photos of all people, a few at a time, each lot committed.

    into: gets what came of each photo, lot by lot.

    A photo that is refused or broken does not stop the rest, and neither does a person who cannot
    be enrolled (a name that nobody can have, or that several bear). allow: reasons that do not
    count. done: called with photos done and photos in all.
    """
    total = sum(len(person.photos) for person in people)
    for person in people:
        for lot in _lots(person.photos):
            into.photos.extend(_enrol(gallery, person, lot, allow))
            done(len(into.photos), total)


def _enrol(
    gallery: Gallery, person: Listed, photos: Sequence[Path], allow: Sequence[str]
) -> list[dict[str, Any]]:
    """What came of some photos of a person, in their order."""
    rows = {photo: row for photo in photos if (row := _known(gallery, person, photo))}
    new = [photo for photo in photos if photo not in rows]
    try:
        came: list[Enrolled] = []
        if new:
            came = gallery.enroll(
                person.name,
                new,
                external_id=person.external_id,
                metadata=person.metadata or None,
                allow=allow,
            )
    except InputError as error:
        rows |= {photo: _row(photo, f"{person.name:.200}", "person", str(error)) for photo in new}
    else:
        answers = zip(new, came, strict=True)
        rows |= {photo: {**answer.to_dict(), "photo": str(photo)} for photo, answer in answers}
    return [rows[photo] for photo in photos]


def _known(gallery: Gallery, person: Listed, photo: Path) -> dict[str, Any] | None:
    """The answer for a photo that this person is enrolled with, found by its content."""
    try:
        with photo.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # looking at it will say why
        return None
    with gallery.store.read() as view:
        for face in view.find(EnrolledFace, photo=digest):
            found = view.get(Person, face.person)
            if found and _nothing_new(found, person):
                return Enrolled(
                    str(photo), digest, found.name, found.id, face.id, already=True
                ).to_dict()
    return None


def _nothing_new(found: Person, listed: Listed) -> bool:
    """Whether a person is the listed one, and all that the list says of them is kept already."""
    name, outside = composed(listed.name), composed(listed.external_id or "")
    if outside:
        same = found.external_id == outside and name in (found.name, found.id)
    else:
        same = name in (found.name, found.id, found.external_id)
    kept = found.metadata
    return same and all(k in kept and kept[k] == said for k, said in listed.metadata.items())


def _row(photo: Path, name: str, code: str, why: str) -> dict[str, Any]:
    row = Enrolled(str(photo), "", name, None, None).to_dict()
    return {**row, "reasons": [code], "why": why}


def _shown(folder: Path) -> list[Path]:
    """What lies below a folder and is not hidden, but for folders; sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _why_not(path: Path) -> str:
    if is_image_name(path):
        return "it cannot be opened as a file"
    return f"its ending is none of {', '.join(SUFFIXES)}"


def _lots(photos: Sequence[Path]) -> Iterable[Sequence[Path]]:
    return (photos[start : start + LOT] for start in range(0, len(photos), LOT))


def _write_csv(path: Path | None, made: ImportReport) -> None:
    """The report as CSV, for its owner alone: it names people. Nothing without a path."""
    if path is None:
        return
    with written(path) as file:
        Path(file.name).chmod(0o600)
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for row in [*made.photos, *made.passed_over.rows()]:
            writer.writerow([" ".join(v) if isinstance(v := row[c], list) else v for c in COLUMNS])
        text.flush()
        text.detach()
