"""A classifier of known people on embeddings: who of them is it, how probably, or a stranger?

What scikit-learn fitted (see `classifierfit`) is answered by NumPy alone (`classifiermachines`): a
linear SVM of every two people, as facenet's `classifier` has it, the planes of a logistic
regression, or the nearest training faces.

facenet names everybody. Here a face has to be similar to the person it is said to be, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import DataError, InputError, SettingsError
from facenet.gallery.answers import BELOW
from facenet.gallery.calibrate import Threshold, identification_rate
from facenet.gallery.classifiermachines import (
    MACHINES,
    Floats,
    Machine,
    portions,
    require_shape,
)
from facenet.gallery.compare import require_contract
from facenet.types import Face, Faces, FloatArray, IntArray

IMPROBABLE = "improbable"
"""Why a face is unknown that is similar enough: none of the known people is probable enough."""
LEAST_PROBABILITY = 0.5
"""A person is named from this probability on: more probable than all others together."""
LONGEST_NAME = 255
"""Characters of a name; folders have no longer ones."""


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """How a classifier is fitted.

    method: "svm", "logistic" or "knn". c: of the first two, the weight of training errors
    against wide margins. neighbours: of knn, training faces that vote. seed: of everything that
    is drawn. Raises SettingsError.
    """

    method: str = "svm"
    c: float = 1.0
    neighbours: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in MACHINES:
            raise SettingsError(
                f"method should be one of {', '.join(MACHINES)}; got {self.method[:40]!r}."
            )
        if not 1e-6 <= self.c <= 1e6:
            raise SettingsError(f"c should be from 1e-6 to 1e6; got {self.c:g}.")
        if not 1 <= self.neighbours <= 1000:
            raise SettingsError(f"neighbours should be 1 to 1,000; got {self.neighbours:g}.")
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"seed should be 0 or more; got {self.seed:g}.")


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Known people and what tells them apart.

    names: of k people. counts: training faces of each. templates: float32 (k, d), unit vectors.
    machine: what was fitted. slope: of its probabilities, fitted on held-out faces. contract,
    model, precision: of the vectors. dataset: name of the folder. digest: SHA-256 over the
    contents of all its pictures that were looked at. facenet: version that trained it.
    Raises DataError for what does not fit.
    """

    settings: ClassifierSettings
    names: tuple[str, ...]
    counts: tuple[int, ...]
    templates: FloatArray
    machine: Machine
    slope: float
    contract: str
    model: str
    precision: str = "fp32"
    dataset: str = ""
    digest: str = ""
    facenet: str = ""

    def __post_init__(self) -> None:
        require_names(self.names)
        people = len(self.names)
        if people < 2 or len(self.counts) != people or min(self.counts) < 1:
            raise DataError(
                f"A classifier should know two people or more, each by a face or more; got "
                f"{people} names and {len(self.counts)} counts. Train it again."
            )
        if not (math.isfinite(self.slope) and self.slope > 0):
            raise DataError(f"slope should be above 0; got {self.slope:g}. Train it again.")
        width = self.templates.shape[-1] if self.templates.ndim else 0
        require_shape("templates", self.templates, (people, width))
        self.machine.check(people, width)
        for name, array in (("templates", self.templates), *self.arrays().items()):
            if not np.isfinite(array).all():
                raise DataError(f"{name} of a classifier should be finite; train it again.")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the machine, by name."""
        return {field.name: getattr(self.machine, field.name) for field in fields(self.machine)}  # type: ignore[arg-type]

    def probabilities(self, rows: NDArray[np.floating]) -> Floats:
        """That each is each of the people, if it is one of them: (m, d) -> float64 (m, k)."""
        unit = _checked(rows, self.templates.shape[1])
        parts = [
            self.machine.probabilities(self.machine.scores(part), self.slope)
            for part in portions(unit)
        ]
        return np.concatenate([np.zeros((0, len(self.names))), *parts])

    def decide(
        self, rows: NDArray[np.floating], threshold: float, least: float = LEAST_PROBABILITY
    ) -> Decisions:
        """Whom each of the vectors (m, d) shows, and whether it is named.

        threshold: similarity to the template of the person that is needed. least: probability
        that is needed. Raises InputError for vectors of another width, SettingsError for a
        probability outside 0 to 1.
        """
        if not 0 <= least <= 1:
            raise SettingsError(f"probability should be from 0 to 1; got {least:g}.")
        chance = self.probabilities(rows)
        best, second = vectors.top_k(chance, 2).T
        similarity = vectors.similarity(np.asarray(rows), self.templates[best])
        place = np.arange(len(chance))
        return Decisions(
            best,
            second,
            chance[place, best],
            chance[place, second],
            similarity,
            similarity >= threshold,
            chance[place, best] >= least,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """Answers for m faces. best, second: int64 (m,), the most probable people. probability,
    second_probability: float64 (m,). similarity: float32 (m,), to the template of the best.
    similar, probable: bool (m,), enough to be named."""

    best: IntArray
    second: IntArray
    probability: Floats
    second_probability: Floats
    similarity: FloatArray
    similar: NDArray[np.bool_]
    probable: NDArray[np.bool_]

    @property
    def named(self) -> NDArray[np.bool_]:
        """Who is named: bool (m,)."""
        return self.similar & self.probable


@dataclass(frozen=True, slots=True)
class Classification:
    """Answer to "which of the known people is this?" for one face.

    face: box, landmarks and score. person: name, or None for unknown. probability: of the best
    candidate, if it is one of the known people at all. similarity: to that person's template.
    fmr: of the threshold, per comparison. fpir: over the templates of all people. runner_up: the
    next most probable. reason: "below_threshold" or "improbable" for an unknown.
    """

    face: Face
    person: str | None
    probability: float
    similarity: float
    threshold: float
    fmr: float | None
    best_candidate: str
    fpir: float | None
    runner_up: str
    runner_up_probability: float
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values: box, detection_score, and the fields after `face`."""
        face = self.face.to_dict()
        own = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        return {"box": face["box"], "detection_score": face["detection_score"], **own}


def classify(
    classifier: Classifier, faces: Faces, threshold: Threshold, least: float = LEAST_PROBABILITY
) -> list[Classification]:
    """Name every embedded face, or say that it is unknown; one answer per face, in their order.

    Raises ContractError for faces of another model, InputError for faces without vectors.
    """
    if len(faces) == 0:
        return []
    if faces.embedding is None:
        raise InputError("Faces to classify should have embeddings; these have none. Embed first.")
    require_contract(classifier.contract, faces.contract, "the photo")
    found, names = classifier.decide(faces.embedding, threshold.similarity, least), classifier.names
    fpir = None if threshold.fmr is None else identification_rate(threshold.fmr, len(names))
    return [
        Classification(
            face,
            names[found.best[row]] if found.named[row] else None,
            float(found.probability[row]),
            float(found.similarity[row]),
            threshold.similarity,
            threshold.fmr,
            names[found.best[row]],
            fpir,
            names[found.second[row]],
            float(found.second_probability[row]),
            None if found.named[row] else BELOW if not found.similar[row] else IMPROBABLE,
        )
        for row, face in enumerate(faces)
    ]


def require_names(names: Sequence[str]) -> None:
    """Raise DataError unless names are distinct, not blank, and can be printed."""
    bad = [n for n in names if not (len(n.strip()) > 0 and len(n) <= LONGEST_NAME)]
    bad += [name for name in names if not name.isprintable()]
    if bad or len(set(names)) != len(names):
        shown = ascii((bad or ["one that is there twice"])[0])
        raise DataError(
            f"Names of people should be 1 to {LONGEST_NAME} characters that can be printed, each "
            f"once; got {shown:.60}. Rename the folder."
        )


def _checked(rows: NDArray[np.floating], width: int) -> Floats:
    """Vectors of the classifier's width, scaled to length one: float64 (m, d)."""
    table = np.asarray(rows)
    if table.ndim != 2 or table.shape[1] != width:
        raise InputError(
            f"Vectors to classify should be (m, {width}); got {table.shape}. Embed with the model "
            "that the classifier was trained with."
        )
    return vectors.unit(table).astype(np.float64)
