"""`facenet verify`, `facenet identify`, `facenet compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.flags import Deciding, Identifying, Output, Places, Recognition, command
from facenet.apps.cli.outlet import bar, note, noticed, print_csv, print_faces, print_json

if TYPE_CHECKING:
    from facenet.apps.jobs.photos import FaceRows
    from facenet.gallery.compare import Verification

SELECT = (
    "With several faces in a photo: largest, probability, largest_over_threshold or "
    "center_weighted_size.  [default: an error]"
)
Select = Annotated[str | None, typer.Option(help=SELECT)]
COLUMNS = (
    *("photo", "box", "detection_score", "person"),
    *("similarity", "threshold", "fmr", "best_candidate", "fpir"),
)


@command
def verify(
    a: Annotated[Path, typer.Argument(help="A photo with one face.")],
    b: Annotated[Path, typer.Argument(help="Another photo with one face.")],
    output: Output,
    deciding: Deciding,
    recognition: Recognition,
    select: Select = None,
    prior: Annotated[
        float | None,
        typer.Option(help="With a calibration: share of pairs of one person among yours."),
    ] = None,
) -> int:
    """Do two photos show the same person? Exit code 0: yes, 1: no."""
    recognizer = recognition.recognizer(calibration=deciding.calibration)
    answer = recognizer.verify(
        a, b, fmr=deciding.fmr, threshold=deciding.threshold, prior=prior, select=select
    )
    if output.json:
        print_json(noticed(answer.to_dict(), recognition.licence_notice()))
    else:
        print(_sentence(answer))
    return 0 if answer.match else 1


@command
def identify(
    known: Annotated[Path, typer.Argument(help="Folder of people: a file or sub-folder each.")],
    photos: Places,
    output: Output,
    deciding: Identifying,
    recognition: Recognition,
    draw: Annotated[Path | None, typer.Option(help="Folder for annotated copies.")] = None,
) -> int:
    """Name every face of photos, or call it unknown.

    Exit code 0: somebody was named, 1: nobody, 2: there was no face, or something went wrong.
    Prints CSV, or JSON with --json: photo, box, detection_score, person (empty or null when
    unknown), similarity, threshold, fmr (false-match rate of the threshold), best_candidate,
    fpir (how often a stranger would be named at it, over all known people).
    """
    from facenet.apps.jobs.people import name_photos
    from facenet.apps.jobs.photos import find_photos

    recognizer = recognition.recognizer(calibration=deciding.calibration)
    found = find_photos(photos)
    recognizer.threshold(**deciding.rates())  # refused before the work
    enrolment = recognizer.enrol(known)
    for _, reason in enrolment.refused:
        note(f"Not enrolled: {reason}")
    people = enrolment.people
    threshold = recognizer.threshold(**deciding.rates(), comparisons=len(people.names))
    with bar("photos") as done:
        named = name_photos(found, people, recognizer, threshold=threshold, draw=draw, done=done)
    print_faces(named, COLUMNS, output.json, notice=recognition.licence_notice())
    return _code(named)


@command
def compare(photos: Places, output: Output, recognition: Recognition, select: Select = None) -> int:
    """Print how similar every photo is to every other.

    One face each; cosine, -1 to 1, higher is closer.
    """
    from facenet.apps.jobs.photos import find_photos

    names = [str(photo.path) for photo in find_photos(photos)]
    matrix = recognition.recognizer().compare(names, select=select).tolist()
    if output.json:
        answer = {"photos": names, "similarity": matrix}
        print_json(noticed(answer, recognition.licence_notice()))
    else:
        rows = ([name, *row] for name, row in zip(names, matrix, strict=True))
        print_csv(["photo", *names], rows)
    return 0


def _sentence(answer: Verification) -> str:
    """The answer as a person would say it."""
    rate = "unknown" if answer.fmr is None else f"{answer.fmr:.1g}, {answer.fmr_source}"
    verdict, sign = ("same person", ">=") if answer.match else ("different people", "<")
    chance = answer.probability
    return (
        f"{verdict}: similarity {answer.similarity:.3f} {sign} {answer.threshold:.3f} "
        f"(false-match rate {rate})" + (f", probability {chance:.4g}" if chance is not None else "")
    )


def _code(named: FaceRows) -> int:
    """0: somebody was named, 1: nobody, 2: there was no face, or a photo could not be used."""
    if named.problems or not named.rows:
        return 2
    return 0 if any(row["person"] for row in named.rows) else 1
