"""`facenet evaluate gallery-audit | gallery-rules`: are a gallery's audit and rules any good?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.evaluating import Looking, answer
from facenet.apps.cli.flags import Output, Recognition, command
from facenet.apps.cli.outlet import bar, noticed


@command
def gallery_audit(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    output: Output,
    recognition: Recognition,
    looking: Looking,
    errors: Annotated[float, typer.Option(help="Share of faces that get a wrong name.")] = 0.05,
    runs: Annotated[int, typer.Option(help="Times it is tried, with seeds 0, 1, ...")] = 3,
) -> int:
    """Wrong labels put into a data set, and how many `facenet gallery audit` would find.

    Prints the share found and the false alarms per face. Nothing is changed.
    """
    from facenet.apps.jobs.auditscore import score_folder, score_text

    recognizer, how = recognition.recognizer(), looking.gathering(recognition.flip)
    with bar("pictures") as done:
        found = score_folder(images, recognizer, how, errors=errors, runs=runs, done=done)
    answer(noticed(found, recognition.licence_notice()), score_text, output)
    return 0


@command
def gallery_rules(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    output: Output,
    recognition: Recognition,
    looking: Looking,
) -> int:
    """Whom the rules of enrolment stop in a data set, rightly and wrongly.

    Prints what they refuse when all is enrolled in order; how many faces under a second name, and
    how many of new people, are a conflict; how many given to a wrong person, and to the right one,
    are unlike. Nothing is changed.
    """
    from facenet.apps.jobs.rulescore import rules_text, score_rules

    recognizer, how = recognition.recognizer(), looking.gathering(recognition.flip)
    found = score_rules(images, recognizer, how, bars=bar)
    answer(noticed(found, recognition.licence_notice()), rules_text, output)
    return 0
