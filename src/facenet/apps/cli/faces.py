"""`facenet detect`, `facenet align`, `facenet embed`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.flags import (
    Detection,
    Output,
    Places,
    Recognition,
    command,
    flag,
    parse_size,
)
from facenet.apps.cli.outlet import (
    bar,
    note,
    note_faceless,
    noticed,
    print_faces,
    print_json,
)
from facenet.apps.cli.videos import Watch, print_watched
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.apps.jobs.align_one import AlignSettings

Reduced = Annotated[
    bool,
    typer.Option(
        "--reduced-decoding",
        help="MTCNN: decode JPEGs at 1/2, 1/4 or 1/8 where --min-face-size allows it: faster, and "
        "not quite the same faces.",
    ),
]


@command
def detect(
    paths: Places,
    output: Output,
    detection: Detection,
    watch: Watch,
    draw: Annotated[Path | None, typer.Option(help="Folder for annotated copies.")] = None,
    reduced_decoding: Reduced = False,
) -> int:
    """Find the faces of photos and videos: boxes and landmarks.

    Prints CSV, or JSON with --json: photo, box, detection_score, landmarks; of a video named by
    itself also frame and time_s. Boxes are x1 y1 x2 y2 in pixels of the upright photo. A photo
    without a face is no error.
    """
    from facenet.apps.jobs.photos import face_rows, find_photos
    from facenet.apps.jobs.videofaces import face_row

    photos = find_photos(paths)
    if watch.wanted(photos):
        _require_photos(reduced_decoding)
        return print_watched(photos, detection, watch, draw=draw, as_json=output.json)
    stage = partial(detection.recognizer().stream, embed=False, reduced=reduced_decoding)
    with bar("photos") as done:
        found = face_rows(photos, stage, face_row, draw=draw, done=done)
    columns = ("photo", "box", "detection_score", "landmarks")
    print_faces(found, columns, output.json, notice=detection.licence_notice())
    return 2 if found.problems else 0


@command
def embed(
    paths: Places,
    out: Annotated[Path, typer.Option(help="File to write: NAME.npz")],
    output: Output,
    recognition: Recognition,
    reduced_decoding: Reduced = False,
) -> int:
    """Write the vectors of all faces of photos to a file.

    NumPy arrays: embeddings (n, d), of length one, photos (n), boxes (n, 4) and contract, the id
    of the vector space. A photo without a face is no error.
    """
    from facenet.apps.jobs.embeddings import write_embeddings

    with bar("photos") as done:
        summary = write_embeddings(
            paths, out, recognition.recognizer(), reduced=reduced_decoding, done=done
        )
    if output.json:
        print_json(noticed(summary.to_dict(), recognition.licence_notice()))
    else:
        print(f"{summary.faces} faces of {summary.photos} photos -> {out}")
    note_faceless(summary.faceless)
    for problem in summary.problems:
        note(problem)
    return 2 if summary.problems else 0


def _require_photos(reduced_decoding: bool) -> None:
    if reduced_decoding:
        raise SettingsError("Reduced decoding is for photos, and a video was named. Leave it out.")


@dataclass(frozen=True, slots=True)
class Cropping:
    """What the crops are like."""

    size: str | None = flag(
        None,
        "Side of the crops in pixels, or WIDTHxHEIGHT such as 96x112. [default: 182, and 112 for "
        "similarity]",
    )
    margin: int | None = flag(
        None,
        "Margin in pixels, half on each side (182/44 or 160/32 for facenet). [default: 44]",
    )
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
    output: Output,
    cropping: Cropping,
    detection: Detection,
    workers: Annotated[int, typer.Option(help="Processes; 0 = all cores granted.", min=0)] = 0,
) -> int:
    """Cut the faces out of a data set, mirroring its folders.

    Run again to go on: crops that exist are skipped. TARGET/bounding_boxes.txt lists the crops
    and their boxes. A picture without a face is no error; one that cannot be read makes the exit
    code 2 at the end.
    """
    from facenet.apps.jobs.align import align_folder

    settings = align_settings(cropping, detection)
    detection.tell_held_back()
    with bar("pictures") as done:
        summary = align_folder(source, target, settings, workers=workers, done=done)
    if output.json:
        print_json(noticed(summary.to_dict(), detection.licence_notice()))
    else:
        print(summary.sentence())
    note_faceless(summary.without_face)
    for problem in summary.unreadable:
        note(problem)
    return 2 if summary.unreadable else 0


def align_settings(cropping: Cropping, detection: Detection) -> AlignSettings:
    """The flags of `align` as its settings."""
    from facenet.apps.jobs.align_one import AlignSettings

    similarity = cropping.crop == "similarity"
    if similarity and cropping.margin is not None:
        raise SettingsError(
            f"A similarity crop has no margin; got margin {cropping.margin}. Leave it out, or "
            "choose margin_original or margin_output."
        )
    width, height = parse_size(cropping.size or ("112" if similarity else "182"))
    return AlignSettings(
        width=width,
        height=height,
        margin=44 if cropping.margin is None else cropping.margin,
        crop=cropping.crop,
        select=cropping.select,
        format=cropping.format,
        detector=detection.detector,
        engine=detection.engine,
        device=detection.device,
        instructions=detection.instructions,
        detection=detection.settings(),
    )
