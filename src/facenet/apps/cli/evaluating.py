"""What the verbs of `facenet evaluate` share: their flags, and how their answers are shown."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.apps.cli.flags import Detection, Output, Recognition, flag
from facenet.apps.cli.outlet import bar, note, print_json
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.apps.jobs.evaluation import Evaluated, Evaluation
    from facenet.apps.jobs.gather import Gathered, Gathering
    from facenet.data.pairset import PairSet, Picture
    from facenet.recognizer import Recognizer

QUIET = 10
"""Problems that are printed one by one; of more, a count."""
LEAST_REPLICATES = 100
"""Draws at the least: two or three of them are then outside each end of an interval."""
FOR_FACES = ("detector", "min_face_size", "thresholds", "factor", "exactness")
"""Flags of `Detection` that only matter where faces are looked for."""
FOR_THE_PAGE = ("curves", "worst", "tables")
"""Keys that a report draws and `--json` leaves out."""


def replicates_flag() -> Any:
    """The field behind --replicates, see `require_draws`."""
    return flag(1000, f"Draws of the bootstrap behind the intervals, {LEAST_REPLICATES} or more.")


@dataclass(frozen=True, slots=True)
class Looking:
    """How the pictures of a data set are looked at."""

    select: str = flag(
        "center_weighted_size",
        "With several faces in a picture: center_weighted_size, largest, probability or "
        "largest_over_threshold.",
    )
    no_cache: bool = flag(False, "Do not remember vectors for the next run, nor use those kept.")

    def gathering(self, flip: bool) -> Gathering:
        """How pictures are looked at with these flags."""
        from facenet.apps.jobs.gather import Gathering

        return Gathering(self.select, mirrors=flip, remember=not self.no_cache)


@dataclass(frozen=True, slots=True)
class Reported(Looking):
    """Where the report goes."""

    report: Path | None = flag(None, "Folder for report.html, report.json and report.csv.")

    def ready(self) -> None:
        """Find out before the work whether a report can be written."""
        require_report(self.report)


@dataclass(frozen=True, slots=True)
class Sampled(Reported):
    """The bootstrap behind the intervals."""

    replicates: int = replicates_flag()
    seed: int = flag(0, "Seed of the draws.")

    def ready(self) -> None:
        """Find out before the work whether all can be done. Raises SettingsError too."""
        require_draws(self.replicates, self.seed)
        require_report(self.report)


@dataclass(frozen=True, slots=True)
class Evaluating(Sampled):
    """How pairs are decided."""

    protocol: str = flag("facenet", "Protocol: facenet, insightface or cosine.")
    distance: str = flag("squared", "Of the protocol facenet: squared (Euclidean) or angle.")
    subtract_mean: bool = flag(False, "Subtract the mean vector of the training folds.")
    standardise: str | None = flag(
        None,
        "Experiment: feed the model otherwise than its card says: fixed, per_image, insightface "
        "or none, or several with commas.",
    )

    def how(self, flip: bool) -> Evaluation:
        """The evaluation that these flags ask for. Raises SettingsError."""
        from facenet.apps.jobs.evaluation import Evaluation
        from facenet.evaluate.verification import VerificationSettings

        settings = VerificationSettings(self.protocol, flip, self.subtract_mean, self.distance)
        return Evaluation(settings, self.select, not self.no_cache, self.replicates, self.seed)

    def recognizers(self, recognition: Recognition) -> list[Recognizer]:
        """A recognizer for each model, and for each standardisation where some are asked for."""
        found = recognition.recognizers()
        if self.standardise is None:
            return found
        names = [name.strip().replace("-", "_") for name in self.standardise.split(",")]
        return [each.with_standardise(name) for each in found for name in dict.fromkeys(names)]


def run_pairs(
    pairs: PairSet,
    recognition: Recognition,
    evaluating: Evaluating,
    output: Output,
    figure: str = "",
) -> int:
    """Evaluate models on a pair set and show the answer, beside a published figure if there is
    one."""
    from facenet.apps.jobs.evaluation import evaluate_pairs

    evaluating.ready()
    how = replace(evaluating.how(recognition.flip), figure=figure)
    recognizers = evaluating.recognizers(recognition)
    with bar("pictures") as done:
        evaluated = evaluate_pairs(pairs, recognizers, how, done=done)
    show(pairs.dataset, evaluated, evaluating.report, output)
    return 0


def show(title: str, evaluated: Evaluated, report: Path | None, output: Output) -> None:
    """Print what was measured, and write the report if one is wanted."""
    from facenet.apps.jobs.reporting import assemble, difference, save_report, summary

    note_problems(list(dict.fromkeys(p for model in evaluated.models for p in model["problems"])))
    if report:
        whole = assemble(title, typed(), evaluated.models, evaluated.paired)
        for path in save_report(report, whole, evaluated.pictures, evaluated.gathered):
            note(f"wrote {path}")
    if output.json:
        print_json(plain(evaluated.models, evaluated.paired))
    else:
        print("\n\n".join(summary(model) for model in evaluated.models))
        for row in evaluated.paired:
            print(difference(row))


def refuse_detection(given: Detection, why: str, select: str = "") -> None:
    """Raises SettingsError where no face is looked for and a flag says how to, or which one.

    select: the face wanted among several, "" where there is no such flag.
    """
    usual = Detection()
    names = [name for name in FOR_FACES if getattr(given, name) != getattr(usual, name)]
    names += ["select"] * (select not in ("", Looking().select))
    if names:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in names)
        raise SettingsError(
            f"{flags} would change nothing: {why}. Leave it out, or look for faces with --detect."
        )


def require_draws(replicates: int, seed: int) -> None:
    """Raises SettingsError for so few draws that their middle 95 % say little, and for none."""
    from facenet.apps.jobs.evaluation import check_draws

    check_draws(replicates, seed, least=LEAST_REPLICATES)


def require_report(folder: Path | None) -> None:
    """Find out before the work whether a report can be written, if one is wanted."""
    if folder:
        from facenet.evaluate.report import require_report_extra, require_report_folder

        require_report_extra()
        require_report_folder(folder)


def save(
    folder: Path | None,
    title: str,
    values: Mapping[str, Any],
    pictures: Sequence[Picture] = (),
    gathered: Gathered | None = None,
) -> None:
    """Write the report of one record, if one is wanted, with faces where they were seen."""
    from facenet.apps.jobs.reporting import assemble, save_report

    if folder:
        for path in save_report(folder, assemble(title, typed(), [values]), pictures, gathered):
            note(f"wrote {path}")


def answer(values: Mapping[str, Any], text: Callable[[Any], str], output: Output) -> None:
    """Print a record, as JSON or as its text, and its problems."""
    note_problems(values["problems"])
    print_json(plain([values], ())) if output.json else print(text(values))


def forgotten(values: Mapping[str, Any]) -> str:
    """What was removed, for a person."""
    return f"removed {values['files']} files of remembered vectors, {values['bytes']:,} bytes"


def plain(models: Sequence[Mapping[str, Any]], paired: Sequence[Any]) -> Any:
    """What `--json` prints: the record of one model, or of several with their differences."""
    kept = [
        {key: value for key, value in model.items() if key not in FOR_THE_PAGE} for model in models
    ]
    return kept[0] if len(kept) == 1 else {"models": kept, "paired": list(paired)}


def note_problems(problems: Sequence[str]) -> None:
    """The first problems one by one, then how many more there are."""
    for problem in problems[:QUIET]:
        note(problem)
    if len(problems) > QUIET:
        note(f"{len(problems) - QUIET} more problems; --report and --json list them all.")


def typed() -> str:
    """The command as it was typed."""
    return shlex.join(["facenet", *sys.argv[1:]])
