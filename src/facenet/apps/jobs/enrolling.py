"""Many people enrolled from a folder or a list: the work behind `facenet gallery import`.

Every photo is known by its content, so a run that was interrupted is simply run again: what is
enrolled already is passed over before anything is looked at.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facenet.apps.jobs.photos import Done
from facenet.data.folders import read_people
from facenet.data.roster import Listed, read_roster
from facenet.errors import DataError, InputError, SettingsError
from facenet.files import require_writable, written
from facenet.galleries import Gallery
from facenet.gallery.enrolment import Enrolled
from facenet.gallery.exchange import MANIFEST, Imported, import_gallery
from facenet.gallery.records import EnrolledFace, Person

COLUMNS = ("photo", "person", "person_id", "face", "already", "reasons", "why", "overruled")
LOT = 16
"""Photos of a person that are looked at, and committed, together."""


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
        }

    def text(self) -> str:
        """What came in, for a person."""
        came = self.came
        return (
            f"{came.people:,} people and {came.faces:,} faces came in, {came.already:,} were there"
        )


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came of every photo: enrolled, there already, or refused with the reason."""

    photos: list[dict[str, Any]] = field(default_factory=list)

    @property
    def refused(self) -> list[dict[str, Any]]:
        """The photos that were not enrolled."""
        return [row for row in self.photos if row["face"] is None]

    def text(self) -> str:
        """What came of it, for a person."""
        counts = self.to_dict()
        return (
            f"{counts['enrolled']:,} photos of {counts['people']:,} people enrolled, "
            f"{counts['already']:,} were there already, {counts['refused']:,} refused"
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
        }


def import_any(
    gallery: Gallery, source: Path, *, allow: Sequence[str] = (), report: Path | None, done: Done
) -> ImportReport | Exchanged:
    """Enrol people from a folder or a list, or bring an exported gallery in.

    report: a CSV file of what came of each photo. Raises DataError when nobody is there,
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
    made = import_people(gallery, people, allow=allow, done=done)
    if report:
        _write_csv(report, made.photos)
    return made


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
    gallery: Gallery, people: Sequence[Listed], *, allow: Sequence[str] = (), done: Done
) -> ImportReport:
    """Enrol all photos of all people, a few at a time, each lot committed.

    A photo that is refused or broken does not stop the rest, and neither does a person who cannot
    be enrolled (a name that nobody can have, or that several bear). allow: reasons that do not
    count. done: called with photos done and photos in all.
    """
    report = ImportReport()
    total = sum(len(person.photos) for person in people)
    for person in people:
        for lot in _lots(person.photos):
            report.photos.extend(_enrol(gallery, person, lot, allow))
            done(len(report.photos), total)
    return report


def _enrol(
    gallery: Gallery, person: Listed, photos: Sequence[Path], allow: Sequence[str]
) -> Iterator[dict[str, Any]]:
    known = {photo: row for photo in photos if (row := _known(gallery, person, photo))}
    new = [photo for photo in photos if photo not in known]
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
        yield from (_refused(person, photo, "person", str(error)) for photo in new)
    else:
        yield from (answer.to_dict() for answer in came)
    yield from known.values()


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
            same = found and (found.external_id or found.name) == (
                person.external_id or person.name
            )
            if found and same and not person.metadata:
                return Enrolled(
                    str(photo), digest, found.name, found.id, face.id, already=True
                ).to_dict()
    return None


def _refused(person: Listed, photo: Path, code: str, why: str) -> dict[str, Any]:
    row = Enrolled(str(photo), "", f"{person.name:.200}", None, None).to_dict()
    return {**row, "reasons": [code], "why": why}


def _lots(photos: Sequence[Path]) -> Iterable[Sequence[Path]]:
    return (photos[start : start + LOT] for start in range(0, len(photos), LOT))


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with written(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([" ".join(v) if isinstance(v := row[c], list) else v for c in COLUMNS])
        text.flush()
        text.detach()
