"""`facenet calibrate`: thresholds from one's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.evaluating import Looking, answer, save
from facenet.apps.cli.flags import Output, Recognition, command
from facenet.apps.cli.outlet import bar, note


@command
def calibrate(
    images: Annotated[Path, typer.Argument(help="Your pictures: a folder per person.")],
    output: Output,
    recognition: Recognition,
    looking: Looking,
    dataset: Annotated[
        str | None, typer.Option(help="Its name in answers.  [default: the folder's]")
    ] = None,
    prior: Annotated[
        float, typer.Option(help="Share of pairs of one person among those you will compare.")
    ] = 0.01,
    out: Annotated[
        Path | None, typer.Option(help="File to write.  [default: beside the model's card]")
    ] = None,
) -> int:
    """Measure false-match rates and probabilities on your own pictures.

    From then on verify and identify decide by them; `--calibration card` goes back to the rates
    that came with the model.
    """
    from facenet.apps.jobs import allpairs, calibrating

    looking.ready()
    recognizer, how = recognition.recognizers()[0], looking.gathering(recognition.flip)
    with bar("pictures") as done:
        seen = allpairs.look_at_folder(images, recognizer, how, dataset=dataset, done=done)
    with bar("pairs") as done:
        made, values = calibrating.calibrate_folder(
            seen, detector=recognition.detector, prior=prior, seed=looking.seed, done=done
        )
    path = calibrating.write_calibration(made, out)
    save(looking.report, f"Calibration on {seen.dataset}", values, seen.pictures, seen.gathered)
    note(f"wrote {path}")
    answer(values | {"file": str(path)}, calibrating.calibration_text, output)
    return 0
