"""`facenet gallery audit | verify | backup | restore | upgrade | rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.flags import ARITHMETIC, Detection, Output, command
from facenet.apps.cli.gallery import Place, notice_of
from facenet.apps.cli.outlet import bar, note, noticed, print_json

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")]
Model = Annotated[str, typer.Option(help="The new embedder, see `facenet models list`.")]


@command
def audit(
    place: Place,
    output: Output,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures.")] = None,
) -> int:
    """Find wrong labels, one person under two names, two under one, and poor faces.

    Exit code 0: nothing was found, 1: something was.
    """
    from facenet.apps.jobs.galleryaudit import audit_gallery, audit_lines
    from facenet.galleries import Gallery

    with Gallery.open(place) as gallery, bar("faces") as done:
        values = audit_gallery(gallery, place, page=html, done=done)
        values = noticed(values, notice_of(gallery))
    print_json(values) if output.json else print(audit_lines(values))
    return 1 if values["findings"] else 0


@command
def verify(place: Place, output: Output) -> int:
    """Check every byte that counts. Exit code 0: sound, 1: damaged."""
    from facenet.apps.jobs.galleryfacts import report_text
    from facenet.gallery.store import gallery_file
    from facenet.gallery.verifying import verify as check

    report = check(gallery_file(place))
    print_json(report.to_dict()) if output.json else print(report_text(report))
    return 1 if report.problems else 0


@command
def backup(
    place: Place,
    file: Annotated[Path, typer.Argument(help="The copy, a new file.")],
    output: Output,
    overwrite: Overwrite = False,
) -> int:
    """Copy a gallery, also while it is in use; the copy is checked before it gets its name."""
    from facenet.apps.jobs.galleryfacts import report_text
    from facenet.gallery.backup import backup as save
    from facenet.gallery.store import gallery_file
    from facenet.gallery.verifying import verify as check

    save(gallery_file(place), file, overwrite=overwrite)
    report = check(file)
    print_json(report.to_dict()) if output.json else print(report_text(report))
    return 0


@command
def restore(
    place: Place,
    file: Annotated[Path, typer.Argument(help="The copy that a backup made.")],
    output: Output,
    overwrite: Overwrite = False,
) -> int:
    """Put a backup in the place of a gallery; what was there is kept beside it.

    People and faces that were deleted since the backup stay deleted where the old file can say so.
    """
    from facenet.apps.jobs.galleryfacts import restore_facts, restore_text
    from facenet.gallery.backup import restore as bring_back
    from facenet.gallery.store import gallery_file

    made = bring_back(file, gallery_file(place), overwrite=overwrite)
    print_json(restore_facts(made)) if output.json else print(restore_text(made))
    return 0


@command
def upgrade(
    place: Place,
    model: Model,
    output: Output,
    detection: Detection,
    precision: Annotated[str, typer.Option(help=ARITHMETIC)] = "fp32",
    flip: Annotated[bool, typer.Option("--flip", help="Use the mirrored face too.")] = False,
    leave: Annotated[bool, typer.Option("--leave", help="Switch without faces that fail.")] = False,
) -> int:
    """Change the model: embed all faces anew from their photos, then switch in one step.

    The old model answers until then and is kept for `facenet gallery rollback`. Run it again after
    an interruption. Exit code 1 when faces could not be embedded and nothing was switched.
    """
    from facenet.apps.jobs.reembedding import upgrade_gallery
    from facenet.models.card import licence_notice
    from facenet.models.catalog import find_card

    options = {**Detection.options(detection), "precision": precision, "flip": flip}
    with bar("faces") as done:
        made = upgrade_gallery(place, model, options=options, leave=leave, done=done)
    notice = licence_notice([find_card(model)])
    print_json(noticed(made.to_dict(), notice)) if output.json else print(made.text())
    for problem in made.problems.values():
        note(problem)
    return 0 if made.switched else 1


@command
def drop(
    place: Place,
    model: Annotated[str, typer.Argument(help="A model that is not searched, see show.")],
    output: Output,
) -> int:
    """Delete the vectors of a model that is not searched: of an earlier one, or of one given up."""
    from facenet.apps.jobs.galleryfacts import dropped_facts
    from facenet.apps.jobs.reembedding import drop_model

    facts = dropped_facts(drop_model(place, model))
    print_json(facts) if output.json else print(f"{place}: {', '.join(facts['dropped'])} dropped")
    return 0


@command
def rollback(place: Place, output: Output) -> int:
    """Go back to the model before the last change, in one step."""
    from facenet.galleries import Gallery
    from facenet.gallery.upgrade import roll_back

    with Gallery.open(place) as gallery:
        space = roll_back(gallery.store)
    now = {"gallery": place, "model": space.model, "contract": space.contract}
    print_json(now) if output.json else print(f"{place} is of {space.model} again")
    return 0


VERBS = (audit, verify, backup, restore, upgrade, drop, rollback)
"""The commands of this file, for `facenet gallery`."""
