"""What a gallery, its people and its journal are, as plain values and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any

from facenet.galleries import Gallery
from facenet.gallery.backup import RestoreReport
from facenet.gallery.corrections import Change
from facenet.gallery.people import matching
from facenet.gallery.records import EnrolledFace, Entry, Person, Ruling, Space
from facenet.gallery.verifying import VerifyReport

LISTED = 20
"""Names of metadata that a message lists."""


def gallery_facts(gallery: Gallery) -> dict[str, Any]:
    """Counts, the model, what is kept."""
    with gallery.store.read() as view:
        spaces = view.find(Space)
        facts = {
            "gallery": gallery.store.place,
            "people": view.count(Person),
            "faces": view.count(EnrolledFace),
            "rulings": view.count(Ruling),
            "revision": view.revision,
        }
    space = gallery.space
    return {
        **facts,
        "model": space.model,
        "precision": space.precision,
        "contract": space.contract,
        "dimension": space.dimension,
        "other_models": [f"{one.model} ({one.state})" for one in spaces if one != space],
        "keep_crops": gallery.keep_crops,
    }


def person_facts(gallery: Gallery, who: str) -> dict[str, Any]:
    """A person, and each of their faces under "faces_"."""
    person = gallery.person(who)
    faces = [asdict(face) for face in gallery.faces(person.id)]
    return {**asdict(person), "faces": len(faces), "faces_": faces}


def person_rows(gallery: Gallery, where: dict[str, str] | None) -> list[dict[str, Any]]:
    """People with these metadata, each with the number of their faces."""
    with gallery.store.read() as view:
        people, counts = matching(view, where or {}), view.tallied(EnrolledFace, "person")
    names = [entry.name for entry in fields(Person)]  # asdict copies in depth, and takes longer
    return [
        {**{name: getattr(person, name) for name in names}, "faces": counts.get(person.id, 0)}
        for person in people
    ]


def unknown_names(gallery: Gallery, where: Mapping[str, Any] | None) -> list[str]:
    """A sentence for each name that the metadata of nobody in the gallery has."""
    if not where:
        return []
    names = {name for person in gallery.people() for name in person.metadata}
    shown = ", ".join(sorted(names)[:LISTED])
    step = f"There is {shown:.400}." if names else "Nobody has any; --set of enroll gives some."
    return [
        f"Nobody in this gallery has metadata of the name {name:.80}. {step}"
        for name in where
        if name not in names
    ]


def change_facts(change: Change) -> dict[str, Any]:
    """What a correction did."""
    return asdict(change)


def change_text(change: Change) -> str:
    """What a correction did, for a person."""
    if change.entry is None:
        return f"{change.action}: there was nothing to change"
    who = f"; {change.person.name} ({change.person.id})" if change.person else ""
    faces = f", {change.faces:,} faces" if change.faces else ""
    if change.gone:
        verb = "face is" if change.gone == 1 else "faces are"
        return f"{change.action}{who}; {change.gone:,} {verb} gone for good"
    if change.action == "delete":
        return "delete; gone for good"
    back = f"; take it back with `undo --entry {change.entry}`"
    return f"{change.action}{faces}{who}{'' if change.action.startswith('undo') else back}"


def entry_facts(entry: Entry) -> dict[str, Any]:
    """A line of the journal; "undoable": whether `undo` may take it back."""
    when = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": entry.id,
        "time": when,
        "action": entry.action,
        "people": list(entry.people),
        "undone": entry.undone,
        "undoable": entry.undo is not None and not entry.undone,
    }


def report_text(report: VerifyReport) -> str:
    """Whether a gallery is whole, for a person."""
    found = f"{len(report.problems)} problems" if report.problems else "all of it is sound"
    lines = [f"{report.place}: {report.people:,} people, {report.faces:,} faces; {found}"]
    if report.owes:
        lines.append(
            "  Bytes of what was deleted may lie in it still: they are cleared when the gallery is "
            "next opened."
        )
    return "\n".join([*lines, *(f"  {problem}" for problem in report.problems)])


def restore_facts(made: RestoreReport) -> dict[str, Any]:
    """What a restore did."""
    erased = {"erased_again": made.erased, "erasures_known": made.known}
    return {**made.report.to_dict(), "place": made.place, "aside": made.aside, **erased}


def restore_text(made: RestoreReport) -> str:
    """What a restore did, for a person."""
    lines = [report_text(replace(made.report, place=made.place))]
    if made.aside:
        lines.append(f"What was there is now {made.aside}")
    if made.erased:
        lines.append(f"{made.erased:,} people and faces that were deleted since were deleted again")
    if not made.known:
        lines.append(
            "What was deleted since the backup could not be read from the old file: delete it again"
        )
    return "\n".join(lines)


def dropped_facts(spaces: Iterable[Space]) -> dict[str, Any]:
    """Which models were dropped."""
    return {"dropped": [f"{space.model} ({space.state})" for space in spaces]}
