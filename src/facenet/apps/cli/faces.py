"""`facenet detect`, `facenet align`, `facenet embed`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.flags import (
    Detection,
    Embedding,
    Output,
    Places,
    Running,
    command,
    flag,
    open_recognizer,
    parse_size,
)
from facenet.apps.cli.outlet import bar, note, print_json, print_rows

if TYPE_CHECKING:
    from facenet.apps.jobs.align_one import AlignSettings

Draw = Annotated[Path | None, typer.Option(help="Write annotated copies into this folder.")]


@command
def detect(
    paths: Places, detection: Detection, running: Running, output: Output, draw: Draw = None
) -> int:
    """Find the faces of photos: box, score and five landmarks of each.

    Prints CSV, or JSON with --json. Boxes are x1 y1 x2 y2 in pixels of the upright photo.
    """
    from facenet.apps.jobs.photos import draw_answer, find_photos, look

    rows, problems = [], 0
    recognizer = open_recognizer(detection, running)
    with bar("photos") as done:
        for answer in look(find_photos(paths), recognizer.detect, done):
            problems += _told(answer.problem)
            rows += [{"photo": str(answer.photo.path), **face.to_dict()} for face in answer.faces]
            if draw and answer.problem is None:
                draw_answer(answer, [""] * len(answer.faces), draw)
    columns = ["photo", "box", "detection_score", "landmarks"]
    print_json(rows) if output.json else print_rows(rows, columns)
    if not rows:
        note("No face was found.")
    return 2 if problems else 0


@command
def embed(
    paths: Places,
    out: Annotated[Path, typer.Option(help="File to write: NAME.npz")],
    detection: Detection,
    running: Running,
    embedding: Embedding,
    output: Output,
) -> int:
    """Write the unit vectors of all faces of photos to a NumPy file.

    Arrays: embeddings (n, d), photos (n), boxes (n, 4) and contract, the id of the vector space.
    """
    from facenet.apps.jobs.embeddings import write_embeddings

    recognizer = open_recognizer(detection, running, embedding)
    with bar("photos") as done:
        summary = write_embeddings(paths, out, recognizer, done)
    for problem in summary.problems:
        note(problem)
    if output.json:
        print_json(summary.to_dict())
    else:
        print(f"{summary.faces} faces of {summary.photos} photos -> {out}")
    return 2 if summary.problems else 0


@dataclass(frozen=True, slots=True)
class Cropping:
    """What the crops are like."""

    size: str = flag("182", "Side of the crops in pixels, or WIDTHxHEIGHT such as 96x112.")
    margin: int = flag(44, "Margin in pixels, half on each side (182/44 or 160/32 for facenet).")
    crop: str = flag("margin_original", "margin_original, margin_output or similarity.")
    select: str = flag(
        "center_weighted_size",
        "Which face: center_weighted_size, largest, probability, largest_over_threshold or all.",
    )
    format: str = flag("png", "Format of the crops: png, jpg or webp.")


@command
def align(
    source: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    target: Annotated[Path, typer.Argument(help="Folder for the crops.")],
    cropping: Cropping,
    detection: Detection,
    running: Running,
    output: Output,
    workers: Annotated[int, typer.Option(help="Processes; 0 = all cores granted.")] = 0,
) -> int:
    """Cut the faces out of a data set, mirroring its folders; run again to go on.

    Crops that exist are skipped. TARGET/bounding_boxes.txt lists the crops and their boxes.
    """
    from facenet.apps.jobs.align import align_folder

    settings = align_settings(cropping, detection, running)
    with bar("pictures") as done:
        summary = align_folder(source, target, settings, workers=workers, done=done)
    for problem in summary.unreadable:
        note(problem)
    for path in summary.without_face:
        note(f"No face was found in {path}.")
    print_json(summary.to_dict()) if output.json else print(summary.sentence())
    return 0


def align_settings(cropping: Cropping, detection: Detection, running: Running) -> AlignSettings:
    """The flags of `align` as its settings."""
    from facenet.apps.jobs.align_one import AlignSettings

    width, height = parse_size(cropping.size)
    return AlignSettings(
        width=width,
        height=height,
        margin=cropping.margin,
        crop=cropping.crop,
        select=cropping.select,
        format=cropping.format,
        detector=detection.detector,
        engine=running.engine,
        device=running.device,
        detection=detection.settings(),
    )


def _told(problem: str | None) -> int:
    if problem:
        note(problem)
    return 1 if problem else 0
