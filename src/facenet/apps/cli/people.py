"""`facenet verify`, `facenet identify`, `facenet compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.flags import (
    Deciding,
    Detection,
    Embedding,
    Output,
    Places,
    Running,
    command,
    open_recognizer,
)
from facenet.apps.cli.outlet import bar, note, print_json, print_rows

if TYPE_CHECKING:
    from facenet.apps.jobs.people import NamedPhoto
    from facenet.gallery.compare import Verification

SELECT = (
    "With several faces in a photo: largest, probability, largest_over_threshold or "
    "center_weighted_size [default: an error]"
)
Select = Annotated[str | None, typer.Option(help=SELECT)]


@command
def verify(
    a: Annotated[Path, typer.Argument(help="A photo with one face.")],
    b: Annotated[Path, typer.Argument(help="Another photo with one face.")],
    deciding: Deciding,
    detection: Detection,
    running: Running,
    embedding: Embedding,
    output: Output,
    select: Select = None,
) -> int:
    """Do two photos show the same person? Exit code 0: yes, 1: no."""
    recognizer = open_recognizer(detection, running, embedding)
    answer = recognizer.verify(
        a, b, fmr=deciding.fmr, threshold=deciding.threshold, select=select
    )
    if output.json:
        print_json(answer.to_dict())
    else:
        print(_sentence(answer))
    return 0 if answer.match else 1


@command
def identify(
    known: Annotated[Path, typer.Argument(help="Folder of people: a file or sub-folder each.")],
    photos: Places,
    deciding: Deciding,
    detection: Detection,
    running: Running,
    embedding: Embedding,
    output: Output,
    draw: Annotated[Path | None, typer.Option(help="Folder for annotated copies.")] = None,
) -> int:
    """Name every face of photos, or call it unknown. Exit code 0: somebody was named, 1: nobody.

    Prints CSV, or JSON with --json: photo, box, detection_score, person (empty or null when
    unknown), similarity, threshold, fmr (false-match rate of the threshold), best_candidate.
    """
    from facenet.apps.jobs.people import name_photos
    from facenet.apps.jobs.photos import find_photos

    recognizer, found = open_recognizer(detection, running, embedding), find_photos(photos)
    threshold = recognizer.threshold(fmr=deciding.fmr, threshold=deciding.threshold)
    enrolment = recognizer.enrol(known)
    for _, reason in enrolment.refused:
        note(f"Not enrolled: {reason}")
    with bar("photos") as done:
        named = name_photos(
            found, enrolment.people, recognizer, threshold=threshold, draw=draw, done=done
        )
    return _print_named(named, output)


@command
def compare(
    photos: Places, detection: Detection, running: Running, embedding: Embedding, output: Output,
    select: Select = None,
) -> int:
    """Print how similar every photo is to every other: cosine, -1 to 1, higher is closer."""
    from facenet.apps.jobs.photos import find_photos

    recognizer = open_recognizer(detection, running, embedding)
    names = [str(photo.path) for photo in find_photos(photos)]
    matrix = recognizer.compare(names, select=select).tolist()
    if output.json:
        print_json({"photos": names, "similarity": matrix})
    else:
        rows = [
            {"photo": name, **dict(zip(names, row, strict=True))}
            for name, row in zip(names, matrix, strict=True)
        ]
        print_rows(rows, ["photo", *names])
    return 0


def _sentence(answer: Verification) -> str:
    """The answer as a person would say it."""
    rate = "unknown" if answer.fmr is None else f"{answer.fmr:.1g}"
    verdict, sign = ("same person", ">=") if answer.match else ("different people", "<")
    return (
        f"{verdict}: similarity {answer.similarity:.3f} {sign} {answer.threshold:.3f} "
        f"(false-match rate {rate})"
    )


def _print_named(named: list[NamedPhoto], output: Output) -> int:
    """Print the rows and the notes; the exit code."""
    rows = [row for photo in named for row in photo.rows()]
    columns = ["photo", "box", "detection_score", "person", "similarity", "threshold", "fmr"]
    print_json(rows) if output.json else print_rows(rows, [*columns, "best_candidate"])
    problems = [photo.problem for photo in named if photo.problem]
    faceless = [photo for photo in named if not photo.problem and not photo.answers]
    for photo in faceless:
        note(f"No face was found in {photo.photo.path}.")
    for problem in problems:
        note(problem)
    if problems or not rows:
        return 2
    return 0 if any(row["person"] for row in rows) else 1
