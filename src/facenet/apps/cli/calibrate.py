"""`facenet calibrate`: thresholds from one's own pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.evaluating import Reported, answer, require_report, save
from facenet.apps.cli.flags import Output, Recognition, command, flag
from facenet.apps.cli.outlet import bar, note

if TYPE_CHECKING:
    from facenet.apps.jobs.calibrating import CalibrationSettings
    from facenet.models.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Calibrating(Reported):
    """What is made of the pictures, and where it goes."""

    dataset: str | None = flag(None, "Its name in answers.  [default: the folder's]")
    prior: float = flag(0.01, "Share of pairs of one person among those you will compare.")
    seed: int = flag(0, "Seed of the halves that check each other.")
    out: Path | None = flag(None, "File to write.  [default: beside the model's card]")
    gallery: str | None = flag(None, "Keep it in this gallery instead, of the same model.")

    def ready(self) -> None:
        """Find out before the work whether what it makes can be written."""
        from facenet.errors import SettingsError
        from facenet.files import require_writable
        from facenet.galleries import Gallery

        require_report(self.report)
        if self.out and self.gallery:
            raise SettingsError("A calibration goes to a file or into a gallery: leave one out.")
        if self.out:
            require_writable(self.out)
        if self.gallery:
            Gallery.open(self.gallery).close()

    def keep(self, made: Calibration) -> str:
        """Write the calibration where it is wanted, and say where."""
        from facenet.apps.jobs.calibrating import write_calibration
        from facenet.galleries import Gallery

        if not self.gallery:
            return str(write_calibration(made, self.out))
        with Gallery.open(self.gallery) as gallery:
            gallery.keep_calibration(made)
        return self.gallery

    def how(self, detector: str) -> CalibrationSettings:
        """What is made of the pictures."""
        from facenet.apps.jobs.calibrating import CalibrationSettings

        return CalibrationSettings(detector, self.prior, self.seed)


@command
def calibrate(
    images: Annotated[Path, typer.Argument(help="Your pictures: a folder per person.")],
    output: Output,
    recognition: Recognition,
    calibrating: Calibrating,
) -> int:
    """Measure error rates and probabilities on your own pictures.

    From then on verify and identify decide by them; `--calibration card` goes back to the rates
    that came with the model.
    """
    from facenet.apps.jobs import calibrating as job
    from facenet.apps.jobs.allpairs import look_at_folder

    calibrating.ready()
    how, recognizer = calibrating.how(recognition.detector), recognition.recognizer()
    looking = calibrating.gathering(recognition.flip)
    with bar("pictures") as done:
        seen = look_at_folder(images, recognizer, looking, dataset=calibrating.dataset, done=done)
    with bar("pairs") as done:
        made, values = job.calibrate_folder(seen, how, done)
    path = calibrating.keep(made)
    save(calibrating.report, f"Calibration on {seen.dataset}", values, seen.pictures, seen.gathered)
    note(f"wrote {path}")
    answer(values | {"file": path}, job.calibration_text, output)
    return 0
