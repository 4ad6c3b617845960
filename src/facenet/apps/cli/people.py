"""`facenet verify`, `facenet identify`, `facenet compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenet.apps.cli.flags import (
    Deciding,
    Identifying,
    Output,
    Places,
    Recognition,
    command,
    flag,
)
from facenet.apps.cli.gallery import SELECT, Among, note_unknown, notice_of, opened
from facenet.apps.cli.outlet import bar, note, noticed, print_csv, print_faces, print_json
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.apps.jobs.photos import FaceRows
    from facenet.gallery.answers import PersonVerification, Question
    from facenet.gallery.compare import Verification

Select = Annotated[str | None, typer.Option(help=SELECT)]
COLUMNS = (
    *("photo", "box", "detection_score", "person"),
    *("similarity", "threshold", "fmr", "best_candidate", "fpir"),
)
GALLERY_COLUMNS = (*COLUMNS, "person_id", "runner_up", "margin", "reason")
OFTEN = 0.1
"""Share of strangers who are named from which the user is told, where no rate was asked for."""


@dataclass(frozen=True, slots=True)
class Verifying(Deciding):
    """How two photos are compared."""

    select: str | None = flag(None, SELECT)
    prior: float | None = flag(
        None, "With a calibration: share of pairs of one person among yours."
    )


@command
def verify(
    a: Annotated[
        Path, typer.Argument(help="A photo with one face, or with --gallery a person's name or id.")
    ],
    b: Annotated[Path, typer.Argument(help="Another photo with one face.")],
    output: Output,
    how: Verifying,
    recognition: Recognition,
    gallery: Annotated[str | None, typer.Option(help="Enrolled people, of whom A is one.")] = None,
) -> int:
    """Do two photos show the same person? Exit code 0: yes, 1: no.

    With --gallery: does a photo show this enrolled person?
    """
    if gallery:
        return _verify_enrolled((gallery, str(a), b), output, how, recognition)
    recognizer = recognition.recognizer(calibration=how.calibration)
    answer = recognizer.verify(
        a, b, fmr=how.fmr, threshold=how.threshold, prior=how.prior, select=how.select
    )
    if output.json:
        print_json(noticed(answer.to_dict(), recognition.licence_notice()))
    else:
        print(_sentence(answer))
    return 0 if answer.match else 1


@command
def identify(
    places: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of people (a file or sub-folder each; not with --gallery), then photos or "
            "folders of photos.",
            metavar="[KNOWN] PHOTO",
        ),
    ],
    output: Output,
    deciding: Identifying,
    recognition: Recognition,
    among: Among,
    gallery: Annotated[str | None, typer.Option(help="Enrolled people, in place of KNOWN.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Folder for annotated copies.")] = None,
) -> int:
    """Name every face of photos, or call it unknown.

    Exit code 0: somebody was named, 1: nobody, 2: there was no face, or something went wrong.
    Prints CSV, or JSON with --json: photo, box, detection_score, person (empty or null when
    unknown), similarity, threshold, fmr (false-match rate of the threshold), best_candidate,
    fpir (how often a stranger would be named at it, over all known people); with --gallery also
    person_id, runner_up, margin and reason (why a face is unknown).
    """
    if gallery:
        asked = deciding.rates() | among.asked()
        named, notice = _among_enrolled(
            gallery, places, asked, recognition, calibration=deciding.calibration, draw=draw
        )
    else:
        among.require_unused()
        named = _among_known(places, deciding, recognition, draw=draw)
        notice = recognition.licence_notice()
    columns = GALLERY_COLUMNS if gallery else COLUMNS
    print_faces(named, columns, output.json, notice=notice)
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


def _verify_enrolled(
    asked: tuple[str, str, Path], output: Output, how: Verifying, recognition: Recognition
) -> int:
    """Does a photo show an enrolled person? asked: the gallery, the person, the photo."""
    if how.prior is not None:
        raise SettingsError("prior is for two photos; leave it out with --gallery.")
    place, who, photo = asked
    with opened(place, recognition, how.calibration) as gallery:
        answer = gallery.verify(who, photo, **how.rates(), select=how.select)
        notice = notice_of(gallery)
    if output.json:
        print_json(noticed(answer.to_dict(), notice))
    else:
        print(person_sentence(answer))
    return 0 if answer.match else 1


def person_sentence(answer: PersonVerification) -> str:
    """The answer about an enrolled person as one would say it."""
    if answer.reason:
        said = "is" if answer.match else "is not"
        verdict = "it is" if answer.match else "it is not"
        return (
            f"{verdict} {answer.person}: a user said that this face {said} {answer.person} "
            f"(similarity {answer.similarity:.3f}, which did not decide)"
        )
    verdict, sign = ("it is", ">=") if answer.match else ("it is not", "<")
    rate = "unknown" if answer.fmr is None else f"{answer.fmr:.1g}, {answer.fmr_source}"
    return (
        f"{verdict} {answer.person}: similarity {answer.similarity:.3f} {sign} "
        f"{answer.threshold:.3f} (false-match rate {rate}; {answer.comparisons} faces)"
    )


def _among_known(
    places: list[Path], deciding: Identifying, recognition: Recognition, *, draw: Path | None
) -> FaceRows:
    """Name faces among the people of a folder, the first of the places."""
    from facenet.apps.jobs.people import name_photos
    from facenet.apps.jobs.photos import find_photos

    if len(places) < 2:
        raise SettingsError(
            "identify needs a folder of known people and then photos; got one place. Give both, or "
            "people who are enrolled with --gallery."
        )
    recognizer = recognition.recognizer(calibration=deciding.calibration)
    found = find_photos(places[1:])
    recognizer.threshold(**deciding.rates())  # refused before the work
    enrolment = recognizer.enrol(places[0])
    for _, reason in enrolment.refused:
        note(f"Not enrolled: {reason}")
    people = enrolment.people
    threshold = recognizer.threshold(**deciding.rates(), comparisons=len(people.names))
    with bar("photos") as done:
        return name_photos(found, people, recognizer, threshold=threshold, draw=draw, done=done)


def _among_enrolled(
    place: str,
    photos: list[Path],
    asked: dict[str, Any],
    recognition: Recognition,
    *,
    calibration: str,
    draw: Path | None,
) -> tuple[FaceRows, str | None]:
    """Name faces among the people of a gallery; with the notice of its weights' licence."""
    from facenet.apps.jobs.people import name_enrolled
    from facenet.apps.jobs.photos import find_photos

    found = find_photos(photos)
    with opened(place, recognition, calibration) as gallery, bar("photos") as done:
        question = gallery.question(**asked)
        if question.among is not None and not question.among:
            note_unknown(gallery, asked["where"])
        if all(asked[name] is None for name in ("fmr", "fpir", "threshold")):
            _note_often(question)
        named = name_enrolled(found, gallery, question, draw=draw, done=done)
        return named, notice_of(gallery)


def _note_often(question: Question) -> None:
    """Say how often a stranger would be named, where that is often and no rate was asked for."""
    from facenet.gallery.calibrate import identification_rate

    fmr, count = question.threshold.fmr, question.comparisons
    often = identification_rate(fmr, count) if fmr is not None and count else 0.0
    if often > OFTEN:
        note(
            f"A search here makes {count:,} comparisons, so {often:.0%} of strangers would be "
            f"named at the default false-match rate of {fmr:.1g}. Ask for a rate over the whole "
            "gallery with --fpir."
        )


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
