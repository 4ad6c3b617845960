"""`facenet enroll`: photos of one person into a gallery."""

from __future__ import annotations

from typing import Annotated

import typer

from facenet.apps.cli.flags import Detection, Output, Places, command
from facenet.apps.cli.gallery import Allow, Place, metadata_of, opened, reasons
from facenet.apps.cli.outlet import note, print_json, print_rows

COLUMNS = ("photo", "person", "person_id", "face", "already", "reasons", "why")


@command
def enroll(
    place: Place,
    person: Annotated[str, typer.Argument(help="Name of a new person, or name or id.")],
    photos: Places,
    output: Output,
    detection: Detection,
    allow: Allow = "",
    external_id: Annotated[str | None, typer.Option(help="Their id elsewhere, unique.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Metadata.", metavar="NAME=VALUE")
    ] = None,
) -> int:
    """Enrol photos of a person, one face each.

    A photo that is enrolled already stays as it is. Exit code 0: all are enrolled, 1: some were
    refused (why is in the answer).
    """
    from facenet.apps.jobs.photos import find_photos

    paths = [photo.path for photo in find_photos(photos)]
    metadata, allowed = metadata_of(set_), reasons(allow)
    with opened(place, detection) as gallery:
        answers = gallery.enroll(
            person, paths, external_id=external_id, metadata=metadata, allow=allowed
        )
    rows = [answer.to_dict() for answer in answers]
    print_json(rows) if output.json else print_rows(rows, COLUMNS)
    refused = [row for row in rows if row["face"] is None]
    for row in refused:
        note(f"{row['photo']} was not enrolled. {row['why']}")
    return 1 if refused else 0
