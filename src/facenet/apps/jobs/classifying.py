"""A classifier of the people of a folder: the work behind `facenet classifier train` and `predict`.

As facenet's `classifier` with its split: of each person with enough pictures some are drawn for
training, the others are tested at once. People with fewer pictures are strangers, whom facenet
would name and who tell here how often that still happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facenet import __version__
from facenet.apps.jobs.allpairs import comparing
from facenet.apps.jobs.evaluation import gather_pictures
from facenet.apps.jobs.gather import Done, Gathered, Gathering
from facenet.apps.jobs.photos import FaceRows, Photo, face_rows
from facenet.data.folders import class_pictures
from facenet.data.pairset import Picture
from facenet.errors import DataError, SettingsError
from facenet.evaluate.intervals import wilson
from facenet.files import require_writable
from facenet.gallery.calibrate import Threshold
from facenet.gallery.classifier import (
    LEAST_PROBABILITY,
    Classification,
    Classifier,
    ClassifierSettings,
    Decisions,
    classify,
    require_names,
)
from facenet.gallery.classifierfile import save_classifier
from facenet.gallery.classifierfit import fit_classifier, require_method
from facenet.recognizer import Recognizer
from facenet.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Lesson:
    """What of a folder is learnt and what is tested.

    settings: of the classifier; its seed draws the pictures too. min_images: pictures of a person
    who is learnt. images_per_class: of them for training at the most, None: all, or with split
    half of them. split: test those that are left. strangers: people with fewer pictures who are
    asked for, by a picture each, at the most. Raises SettingsError.
    """

    settings: ClassifierSettings = field(default_factory=ClassifierSettings)
    min_images: int = 2
    images_per_class: int | None = None
    split: bool = False
    strangers: int = 1000

    def __post_init__(self) -> None:
        least = {"min-images": 2, "images-per-class": 2, "strangers": 0}
        given = (self.min_images, self.images_per_class, self.strangers)
        for (name, low), value in zip(least.items(), given, strict=True):
            if value is not None and value < low:
                raise SettingsError(f"{name} should be {low} or more; got {value}.")

    def taken(self, count: int) -> int:
        """Pictures for training of a person who has so many; two at the least."""
        if self.images_per_class is not None:
            return min(self.images_per_class, count)
        return max(2, (count + 1) // 2) if self.split else count


@dataclass(frozen=True, slots=True)
class Judging:
    """When a face is named. least: probability that is needed."""

    threshold: Threshold
    least: float = LEAST_PROBABILITY

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise SettingsError(f"probability should be from 0 to 1; got {self.least:g}.")

    def to_dict(self) -> dict[str, Any]:
        """The threshold, its rate, and the probability."""
        level = self.threshold
        return {"threshold": level.similarity, "fmr": level.fmr, "probability": self.least}


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A folder, divided: names of those who are learnt, and rows of `pictures`, int64 (n,) each,
    of training, test and strangers. few: people with too few pictures."""

    names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    training: IntArray
    test: IntArray
    strangers: IntArray
    few: int


def divide(pictures: Sequence[Picture], lesson: Lesson, dataset: str) -> Parts:
    """Draw who and what is learnt; the same for the same seed. Raises DataError for one person."""
    random = np.random.default_rng(lesson.settings.seed)
    people: dict[str, list[int]] = {}
    for row, picture in enumerate(pictures):
        people.setdefault(picture.person, []).append(row)
    drawn = {name: random.permutation(rows) for name, rows in sorted(people.items())}
    known = {name: rows for name, rows in drawn.items() if len(rows) >= lesson.min_images}
    if len(known) < 2:
        raise DataError(
            f"A classifier tells two people or more apart; of {len(people):,} in {dataset:.100} "
            f"{len(known)} have {lesson.min_images} pictures or more. Add pictures, a folder per "
            "person, or lower min-images."
        )
    require_names(tuple(known))
    take = {name: lesson.taken(len(rows)) for name, rows in known.items()}
    others = [rows[0] for name, rows in drawn.items() if name not in known]
    strangers = random.permutation(np.array(others, np.int64))[: lesson.strangers]
    rest = [rows[take[name] :] for name, rows in known.items()] if lesson.split else []
    training = np.concatenate([np.sort(rows[: take[name]]) for name, rows in known.items()])
    test = np.sort(np.concatenate([np.zeros(0, np.int64), *rest]))
    return Parts(
        tuple(known), tuple(pictures), training, test, np.sort(strangers), len(drawn) - len(known)
    )


def train_classifier(
    folder: Path,
    out: Path,
    recognizer: Recognizer,
    how: Gathering,
    *,
    lesson: Lesson,
    judge: Callable[[int], Judging],
    done: Done,
) -> dict[str, Any]:
    """Train a classifier on a folder per person, write it to `out`, and tell how good it is.

    judge: when a face is named, by the number of people. Returns plain values. Raises DataError
    where there are not two people with two usable pictures.
    """
    pictures, dataset = class_pictures(folder), folder.resolve().name
    parts = divide(pictures, lesson, dataset)
    require_method(lesson.settings, len(parts.names))
    require_writable(out)
    judging = judge(len(parts.names))
    rows = np.concatenate([parts.training, parts.test, parts.strangers])
    gathered = gather_pictures(recognizer, [pictures[row] for row in rows], how, done=done)
    ends = np.cumsum([len(parts.training), len(parts.test)])
    training, test, strangers = (
        _Seen.of(parts, rows[a:b], gathered, slice(a, b))
        for a, b in ((0, ends[0]), (ends[0], ends[1]), (ends[1], len(rows)))
    )
    names, left_out = _usable(parts.names, training)
    facts = comparing(recognizer, gathered, how)
    told = {**facts, "model": recognizer.embedder.card.name, "dataset": dataset}
    classifier = _fit(training, names, lesson, told, gathered.digest)
    save_classifier(classifier, out)
    problems = [*_empty(folder, {p.person for p in pictures}), *left_out, *facts["problems"]]
    notice = {key: facts[key] for key in ("licence_notice",) if key in facts}
    return {
        "file": str(out),
        "model": classifier.model,
        "contract": classifier.contract,
        **notice,
        "dataset": dataset,
        **asdict(classifier.settings),
        "people": len(names),
        "training_pictures": len(training.person),
        "training_faces": sum(classifier.counts),
        "slope": classifier.slope,
        **judging.to_dict(),
        "test": _tested(classifier, test, judging) if lesson.split else None,
        "strangers": _strange(classifier, strangers, judging),
        "people_with_too_few_pictures": parts.few,
        "remembered": gathered.remembered,
        "problems": problems,
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Pictures of a part: names, who they are, found bool (m,), unit vectors float32 (m, d)."""

    name: tuple[str, ...]
    person: tuple[str, ...]
    found: IntArray
    vectors: FloatArray

    @classmethod
    def of(cls, parts: Parts, rows: IntArray, gathered: Gathered, place: slice) -> _Seen:
        chosen = [parts.pictures[row] for row in rows]
        return cls(
            tuple(picture.name for picture in chosen),
            tuple(picture.person for picture in chosen),
            np.flatnonzero(gathered.views.found[place]),
            gathered.vectors()[place],
        )


def classify_photos(
    photos: Sequence[Photo],
    classifier: Classifier,
    recognizer: Recognizer,
    *,
    judging: Judging,
    draw: Path | None,
    done: Done,
) -> FaceRows:
    """Name every face of every photo by a classifier, and write annotated copies below `draw`."""
    return face_rows(
        photos,
        recognizer.stream,
        lambda faces: [
            (answer.to_dict(), _caption(answer))
            for answer in classify(classifier, faces, judging.threshold, judging.least)
        ],
        draw=draw,
        done=done,
    )


def training_text(values: dict[str, Any]) -> str:
    """What was trained and how good it is, for a person."""
    rate = "" if values["fmr"] is None else f" (false-match rate {values['fmr']:.1g})"
    lines = [
        f"{values['method']} of {values['people']:,} people from {values['training_faces']:,} "
        f"faces in {values['training_pictures']:,} pictures of {values['dataset']}, "
        f"{values['model']}: {values['file']}",
        f"a face is named from probability {values['probability']:g} and similarity "
        f"{values['threshold']:.3f}{rate} on",
    ]
    lines += _test_lines(values["test"]) if values["test"] else []
    return "\n".join([*lines, _stranger_line(values)])


def _test_lines(test: dict[str, Any]) -> list[str]:
    if not test["pictures"]:
        return ["test: no picture was left; take fewer for training with images-per-class"]
    low, high = test["interval"]
    return [
        f"test: {test['right']:,} of {test['pictures']:,} pictures right, accuracy "
        f"{test['accuracy']:.4f} [{low:.4f}, {high:.4f}] where everybody is named",
        f"with unknown: {test['named_right']:,} named right, {test['named_wrong']:,} named wrong, "
        f"{test['unknown']:,} unknown, {test['faceless']:,} without a usable face",
    ]


def _stranger_line(values: dict[str, Any]) -> str:
    strangers = values["strangers"]
    if not strangers:
        few = values["people_with_too_few_pictures"]
        why = "no face of one was asked for" if few else "nobody had too few pictures to be one"
        return f"strangers: {why}, so how often they are named is not known"
    low, high = strangers["interval"]
    return (
        f"strangers: {strangers['named']:,} of {strangers['faces']:,} named, rate "
        f"{strangers['rate']:.4f} [{low:.4f}, {high:.4f}]"
    )


def _fit(
    seen: _Seen, names: tuple[str, ...], lesson: Lesson, facts: dict[str, Any], digest: str
) -> Classifier:
    number = {name: place for place, name in enumerate(names)}
    rows = np.array([row for row in seen.found if seen.person[row] in number], np.int64)
    person = np.array([number[seen.person[row]] for row in rows], np.int64)
    told = {name: facts[name] for name in ("contract", "model", "precision", "dataset")}
    told |= {"digest": digest, "facenet": __version__}
    return fit_classifier(seen.vectors[rows], names, person, lesson.settings, **told)


def _usable(names: tuple[str, ...], seen: _Seen) -> tuple[tuple[str, ...], list[str]]:
    """Those of whom two training pictures show a face, and a sentence for each of the others."""
    faces = dict.fromkeys(names, 0)
    for row in seen.found:
        faces[seen.person[row]] += 1
    kept = tuple(name for name in names if faces[name] >= 2)
    if len(kept) < 2:
        raise DataError(
            "A classifier needs two people or more with two training pictures that show a face; "
            f"{len(kept)} of {len(names):,} have them. Add pictures."
        )
    return kept, [
        f"{name} was not learnt: {faces[name]} of the training pictures shows a face; two are "
        "needed."
        for name in names
        if faces[name] < 2
    ]


def _empty(folder: Path, people: set[str]) -> list[str]:
    """A sentence for each sub-folder without a picture."""
    inner = sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))
    return [f"{name} holds no picture and was left out." for name in inner if name not in people]


def _tested(classifier: Classifier, seen: _Seen, judging: Judging) -> dict[str, Any]:
    """How pictures of the known people are answered; one without a face counts as wrong."""
    number = {name: place for place, name in enumerate(classifier.names)}
    asked = [row for row, name in enumerate(seen.person) if name in number]
    rows = np.array([row for row in seen.found if seen.person[row] in number], np.int64)
    truth = np.array([number[seen.person[row]] for row in rows], np.int64)
    found = classifier.decide(seen.vectors[rows], judging.threshold.similarity, judging.least)
    right = found.best == truth
    named = found.named
    count, total = int(right.sum()), len(asked)
    return {
        "pictures": total,
        "faceless": total - len(rows),
        "right": count,
        "accuracy": count / total if total else None,
        "interval": wilson(count, total) if total else None,
        "named_right": int((right & named).sum()),
        "named_wrong": int((~right & named).sum()),
        "unknown": int((~named).sum()),
        "wrong": [
            _wrong(classifier, found, place, seen.name[rows[place]])
            for place in np.flatnonzero(~right).tolist()
        ],
    }


def _wrong(classifier: Classifier, found: Decisions, place: int, name: str) -> dict[str, Any]:
    return {
        "picture": name,
        "best_candidate": classifier.names[found.best[place]],
        "probability": float(found.probability[place]),
        "similarity": float(found.similarity[place]),
        "named": bool(found.named[place]),
    }


def _strange(classifier: Classifier, seen: _Seen, judging: Judging) -> dict[str, Any] | None:
    """How often faces of people who are not known are named; None without such a face."""
    if len(seen.found) == 0:
        return None
    found = classifier.decide(seen.vectors[seen.found], judging.threshold.similarity, judging.least)
    named, total = int(found.named.sum()), len(seen.found)
    return {
        "pictures": len(seen.person),
        "faces": total,
        "named": named,
        "rate": named / total,
        "interval": wilson(named, total),
        "similar_enough": int(found.similar.sum()),
        "probable_enough": int(found.probable.sum()),
    }


def _caption(answer: Classification) -> str | None:
    """Name and probability, None for a face nobody knows."""
    return f"{answer.person} {answer.probability:.2f}" if answer.person else None
