"""`facenet gallery rename | merge | split | move | confirm | reject | apart | delete | undo`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenet.apps.cli.flags import Output, command
from facenet.apps.cli.gallery import Place, Who
from facenet.apps.cli.outlet import note, print_json, print_rows
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.galleries import Gallery
    from facenet.gallery.corrections import Change

FacesFlag = Annotated[
    list[int], typer.Option("--face", help="Number of a face; may be given several times.")
]
OneFace = Annotated[int, typer.Option("--face", help="Number of the face.")]
PersonFlag = Annotated[str, typer.Option("--person", help="A person: name or id.")]
HISTORY = ("id", "time", "action", "people", "undone", "undoable")


def change(place: str, output: Output, correct: Callable[[Gallery], Change]) -> int:
    """Make one correction and print what it did."""
    from facenet.apps.jobs.galleryfacts import change_facts, change_text
    from facenet.galleries import Gallery

    with Gallery.open(place) as gallery:
        made = correct(gallery)
    print_json(change_facts(made)) if output.json else print(change_text(made))
    if getattr(gallery.store, "pending_erasure", False):
        note(
            "Another program is reading the gallery, so that bytes of what was deleted lie in its "
            "files still. They are cleared when it is next opened or changed."
        )
    return 0


@command
def rename(
    place: Place, who: Who, name: Annotated[str, typer.Argument(help="New name.")], output: Output
) -> int:
    """Give a person another name."""
    return change(place, output, lambda gallery: gallery.rename(who, name))


@command
def merge(
    place: Place,
    into: Annotated[str, typer.Argument(help="Who stays: name or id.")],
    others: Annotated[list[str], typer.Argument(help="Who they are too.")],
    output: Output,
) -> int:
    """Make several people one; the first keeps id and name."""
    return change(place, output, lambda gallery: gallery.merge(into, *others))


@command
def split(
    place: Place,
    face: FacesFlag,
    output: Output,
    name: Annotated[str | None, typer.Option(help="Name of the new person.")] = None,
) -> int:
    """Give faces to a new person: two people were under one name."""
    return change(place, output, lambda gallery: gallery.split(face, name))


@command
def move(
    place: Place,
    face: FacesFlag,
    to: Annotated[str, typer.Option(help="The person they go to: name or id.")],
    output: Output,
) -> int:
    """Give faces to another person."""
    return change(place, output, lambda gallery: gallery.move(face, to))


@command
def confirm(place: Place, face: OneFace, person: PersonFlag, output: Output) -> int:
    """Say that a face is a person. Every later run obeys."""
    return change(place, output, lambda gallery: gallery.confirm(face, person))


@command
def reject(place: Place, face: OneFace, person: PersonFlag, output: Output) -> int:
    """Say that a face is not a person. Every later run obeys."""
    return change(place, output, lambda gallery: gallery.reject(face, person))


@command
def forget(place: Place, face: OneFace, person: PersonFlag, output: Output) -> int:
    """Take back what was said of a face and a person; the face stays where it is."""
    return change(place, output, lambda gallery: gallery.forget(face, person))


@command
def apart(
    place: Place,
    first: Who,
    second: Who,
    output: Output,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take it back.")] = False,
) -> int:
    """Say that two people look alike and are two."""
    return change(place, output, lambda gallery: gallery.apart(first, second, revoke=revoke))


@command
def delete(
    place: Place,
    output: Output,
    person: Annotated[str | None, typer.Option(help="A person: name or id.")] = None,
    face: Annotated[list[int] | None, typer.Option(help="Number of a face; or several.")] = None,
) -> int:
    """Delete a person or faces: nothing of them stays in the file. It cannot be undone."""
    if bool(person) == bool(face):
        raise SettingsError("delete needs --person or --face, and not both.")
    return change(
        place,
        output,
        lambda gallery: gallery.delete(person) if person else gallery.delete_faces(face or []),
    )


@command
def undo(
    place: Place,
    output: Output,
    entry: Annotated[int | None, typer.Option(help="Number in the history.")] = None,
) -> int:
    """Take back the last correction, or one of the history."""
    return change(place, output, lambda gallery: gallery.undo(entry))


@command
def history(place: Place, output: Output) -> int:
    """List the corrections, the oldest first."""
    from facenet.apps.jobs.galleryfacts import entry_facts
    from facenet.galleries import Gallery

    with Gallery.open(place) as gallery:
        rows: list[dict[str, Any]] = [entry_facts(entry) for entry in gallery.history()]
    print_json(rows) if output.json else print_rows(rows, HISTORY)
    return 0


VERBS = (rename, merge, split, move, confirm, reject, forget, apart, delete, undo, history)
"""The commands of this file, for `facenet gallery`."""
