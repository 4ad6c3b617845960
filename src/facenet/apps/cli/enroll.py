"""`facenet enroll`: photos of one person into a gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from facenet.apps.cli.flags import Detection, Output, Places, command, flag
from facenet.apps.cli.gallery import ALLOW, Place, metadata_of, notice_of, opened, reasons
from facenet.apps.cli.outlet import bar, note, noticed, print_json, print_rows

COLUMNS = ("photo", "person", "person_id", "face", "already", "reasons", "why")


@dataclass(frozen=True, slots=True)
class Enrolling:
    """What is said of a person, and which reasons do not count."""

    allow: str = flag("", ALLOW)
    external_id: str | None = flag(None, "Their id elsewhere, unique.")
    set: list[str] | None = flag(None, "Metadata of the person, NAME=VALUE; may be repeated.")

    def said(self) -> dict[str, Any]:
        """As `Gallery.enroll` takes them."""
        metadata = metadata_of(self.set)
        return {
            "external_id": self.external_id,
            "metadata": metadata,
            "allow": reasons(self.allow),
        }


@command
def enroll(
    place: Place,
    person: Annotated[str, typer.Argument(help="Name of a new person, or name or id.")],
    photos: Places,
    output: Output,
    detection: Detection,
    enrolling: Enrolling,
) -> int:
    """Enrol photos of a person, one face each.

    A photo that is enrolled already stays as it is. Exit code 0: all are enrolled, 1: some were
    refused (why is in the answer).
    """
    from facenet.apps.jobs.photos import find_photos

    paths = [photo.path for photo in find_photos(photos)]
    with opened(place, detection) as gallery, bar("photos") as done:
        answers = gallery.enroll(person, counted(paths, done), **enrolling.said())
        notice = notice_of(gallery)
    rows = [
        noticed({**answer.to_dict(), "photo": str(path)}, notice)
        for path, answer in zip(paths, answers, strict=True)
    ]
    print_json(rows) if output.json else print_rows(rows, COLUMNS)
    return tell(rows)


def counted(paths: Sequence[Path], done: Callable[[int, int], None]) -> Iterator[Path]:
    """Paths one by one; `done` is called with how many were taken, and how many there are."""
    for number, path in enumerate(paths, 1):
        yield path
        done(number, len(paths))


def tell(rows: list[dict[str, Any]]) -> int:
    """What was refused, and what was not judged, on stderr; the exit code."""
    refused = [row for row in rows if row["face"] is None]
    for row in refused:
        note(f"{row['photo']} was not enrolled. {row['why']}")
    left = sorted({code for row in rows for code in row["unjudged"]})
    if left:
        note(f"Not judged, for want of error rates low enough: {', '.join(left)}.")
    return 1 if refused else 0
