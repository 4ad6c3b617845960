"""`facenet classifier`: train a classifier of known people, and name faces by it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.evaluating import Looking, answer
from facenet.apps.cli.flags import (
    Detection,
    Identifying,
    Output,
    Places,
    Recognition,
    command,
    flag,
)
from facenet.apps.cli.outlet import bar, print_faces
from facenet.errors import ContractError

if TYPE_CHECKING:
    from facenet.apps.jobs.classifying import Judging, Lesson
    from facenet.apps.jobs.photos import FaceRows
    from facenet.gallery.classifier import Classifier
    from facenet.recognizer import Recognizer

app = typer.Typer(help="A classifier of known people (SVM, logistic, k-NN).", no_args_is_help=True)
COLUMNS = (
    *("photo", "box", "detection_score", "person", "probability"),
    *("similarity", "threshold", "fmr", "best_candidate", "fpir"),
    *("runner_up", "runner_up_probability", "reason"),
)


@dataclass(frozen=True, slots=True)
class Learning:
    """What is learnt; see `Lesson`."""

    method: str = flag("svm", "svm (linear, as facenet's), logistic or knn.")
    c: float = flag(1.0, "svm, logistic: weight of training errors against wide margins.")
    neighbours: int = flag(3, "knn: training faces that vote.")
    min_images: int = flag(
        2, "Pictures of a person who is learnt; whoever has fewer is a stranger."
    )
    images_per_class: int | None = flag(
        None, "Pictures of each for training.  [default: all, with --split half of them]"
    )
    split: bool = flag(False, "Test the pictures that are not for training at once.")
    strangers: int = flag(1000, "Strangers to ask for, by a picture each, at the most.")
    seed: int = flag(0, "Of everything that is drawn.")

    def lesson(self) -> Lesson:
        """What these flags ask for. Raises SettingsError."""
        from facenet.apps.jobs.classifying import Lesson
        from facenet.gallery.classifier import ClassifierSettings

        settings = ClassifierSettings(self.method, self.c, self.neighbours, self.seed)
        return Lesson(settings, self.min_images, self.images_per_class, self.split, self.strangers)


@dataclass(frozen=True, slots=True)
class Naming(Identifying):
    """When a face is named by a classifier."""

    probability: float = flag(0.5, "Probability from which on a face is named.")

    def judging(self, recognizer: Recognizer, people: int) -> Judging:
        """Threshold and probability, where a face is compared with so many people."""
        from facenet.apps.jobs.classifying import Judging

        level = recognizer.threshold(**self.rates(), comparisons=people)
        return Judging(level, self.probability)


@app.command()
@command
def train(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="File of the classifier; it is biometric data.")],
    output: Output,
    learning: Learning,
    looking: Looking,
    naming: Naming,
    recognition: Recognition,
) -> int:
    """Train a classifier on a folder per person.

    With --split the other pictures are tested. People with fewer pictures than --min-images are
    strangers: how many of them are named is told. The flags from --fmr to --probability say when
    a face is named in these tests; `predict` has its own.
    """
    from facenet.apps.jobs import classifying as job

    lesson, how = learning.lesson(), looking.gathering(recognition.flip)
    recognizer = recognition.recognizer(calibration=naming.calibration)
    judge = partial(naming.judging, recognizer)
    with bar("pictures") as done:
        found = job.train_classifier(
            images, out, recognizer, how, lesson=lesson, judge=judge, done=done
        )
    answer(found, job.training_text, output)
    return 0


@app.command()
@command
def predict(
    file: Annotated[Path, typer.Argument(help="A classifier that `train` wrote.")],
    photos: Places,
    output: Output,
    naming: Naming,
    recognition: Recognition,
    draw: Annotated[Path | None, typer.Option(help="Folder for annotated copies.")] = None,
) -> int:
    """Name every face of photos by a classifier, or call it unknown.

    Exit code 0: somebody was named, 1: nobody, 2: there was no face, or something went wrong.
    Prints CSV, or JSON with --json: as `identify`, and probability, runner_up,
    runner_up_probability and reason (why a face is unknown). The model is that of the classifier.
    """
    from facenet.gallery.classifierfile import load_classifier
    from facenet.models.card import licence_notice

    classifier = load_classifier(file)
    recognizer = _recognizer(classifier, recognition, naming.calibration)
    named = _predict(classifier, photos, naming, recognizer, draw)
    print_faces(named, COLUMNS, output.json, notice=licence_notice(recognizer.cards))
    if named.problems or not named.rows:
        return 2
    return 0 if any(row["person"] for row in named.rows) else 1


def _predict(
    classifier: Classifier,
    places: list[Path],
    naming: Naming,
    recognizer: Recognizer,
    draw: Path | None,
) -> FaceRows:
    from facenet.apps.jobs.classifying import classify_photos
    from facenet.apps.jobs.photos import find_photos
    from facenet.gallery.compare import require_contract

    found, judging = find_photos(places), naming.judging(recognizer, len(classifier.names))
    require_contract(classifier.contract, recognizer.embedder.contract, "a photo here")
    with bar("photos") as done:
        return classify_photos(found, classifier, recognizer, judging=judging, draw=draw, done=done)


def _recognizer(classifier: Classifier, recognition: Recognition, calibration: str) -> Recognizer:
    """A recognizer of the classifier's own model, with these options.

    Raises ContractError when another model is asked for.
    """
    from facenet.faces.embed import FLIPPED
    from facenet.models.catalog import find_card
    from facenet.recognizer import Recognizer

    flip, usual = classifier.contract.endswith(FLIPPED), Recognition()
    asked = (recognition.model, recognition.precision, recognition.flip)
    if asked != (usual.model, usual.precision, usual.flip):
        name = find_card(recognition.model, kind="embedder").name
        if (name, *asked[1:]) != (classifier.model, classifier.precision, flip):
            raise ContractError(
                f"The classifier is of {classifier.model} in {classifier.precision}"
                f"{' with flip' if flip else ''}; another model, precision or flip was asked for. "
                "Leave them out: the classifier knows its own."
            )
    return Recognizer(
        **Detection.options(recognition),
        model=classifier.model,
        precision=classifier.precision,
        flip=flip,
        calibration=calibration,
    )
