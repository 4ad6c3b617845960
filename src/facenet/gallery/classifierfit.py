"""Training a classifier of known people: scikit-learn's SVM and logistic regression, or k-NN.

facenet's `classifier` is SVC(kernel="linear", probability=True). The probabilities of that are
fitted per duel, at random, and go away with scikit-learn 1.11; here the faces are dealt into
folds, each fold is answered by what the others taught, and one slope is chosen that makes these
answers most likely (Platt, 1999, held-out faces; Guo et al., 2017, one number for all).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import InputError, MissingExtraError, SettingsError
from facenet.gallery.classifier import Classifier, ClassifierSettings
from facenet.gallery.classifiermachines import (
    MOST_DUELLING,
    Duels,
    Floats,
    Machine,
    Nearest,
    Planes,
    portions,
)
from facenet.types import FloatArray, IntArray

FOLDS = 5
"""Parts into which training faces are dealt to fit probabilities."""
HELD_OUT = 500
"""Faces that probabilities are fitted on at the most."""
STEPS = 2000
"""Steps after which a logistic regression should have settled."""
SLOPES = (1e-2, 1e3)
"""Where the slope is looked for."""


def fit_classifier(
    rows: NDArray[np.floating],
    names: tuple[str, ...],
    person: NDArray[np.integer],
    settings: ClassifierSettings,
    **facts: str,
) -> Classifier:
    """A classifier from faces of known people.

    rows: (n, d), made unit vectors. names: of k people. person: (n,), 0 to k - 1, two faces or
    more of each. facts: contract, model and the other facts of `Classifier`. Raises InputError for
    fewer people or faces, MissingExtraError without scikit-learn (not for knn).
    """
    require_method(settings, len(names))
    label = np.asarray(person, np.int64)
    fits = label.ndim == 1 and len(rows) == len(label) > 0 and label.min() >= 0
    counts = np.bincount(label if fits else np.zeros(0, np.int64), minlength=len(names))
    if len(names) < 2 or len(counts) != len(names) or counts.min() < 2:
        raise InputError(
            "A classifier should be trained on two people or more with two faces or more each; "
            f"got {len(names)} people and {len(label)} faces."
        )
    order = np.argsort(label, kind="stable")
    unit, label = vectors.unit(np.asarray(rows)[order]), label[order]
    fit = FITS[settings.method]
    scores, truth = held_out(unit, label, settings)
    machine = fit(unit, label, settings)
    return Classifier(
        settings,
        tuple(names),
        tuple(int(count) for count in counts),
        np.stack([vectors.template(unit[label == each]) for each in range(len(names))]),
        machine,
        best_slope(machine, scores, truth),
        **{"contract": "", "model": "", **facts},
    )


def require_method(settings: ClassifierSettings, people: int) -> None:
    """Find out before the work whether a method can be trained on so many people.

    Raises MissingExtraError without scikit-learn, SettingsError for an SVM of too many people.
    """
    if settings.method == "svm" and people > MOST_DUELLING:
        raise SettingsError(
            f"An SVM is for up to {MOST_DUELLING} people, each against each; got {people:,}. "
            "Choose the method logistic or knn, or fewer people with min-images."
        )
    if settings.method != "knn":
        _scikit_learn()


def held_out(
    unit: FloatArray, person: IntArray, settings: ClassifierSettings
) -> tuple[Floats, IntArray]:
    """Scores of faces by machines that did not see them, and who they are.

    unit: (n, d). person: (n,), rising, two or more of each. Returns float64 (m, s) and int64 (m,),
    m at most `HELD_OUT`.
    """
    random = np.random.default_rng(settings.seed)
    fold = np.empty(len(person), np.int64)
    for each in range(int(person[-1]) + 1):
        own = np.flatnonzero(person == each)
        fold[random.permutation(own)] = np.arange(len(own)) % FOLDS
    asked = np.zeros(len(person), bool)
    asked[random.permutation(len(person))[:HELD_OUT]] = True
    scores: list[Floats] = []
    truth: list[IntArray] = []
    for part in range(FOLDS):
        probes = asked & (fold == part)
        if not probes.any():
            continue
        rest = fold != part
        machine = FITS[settings.method](unit[rest], person[rest], settings)
        scores += [machine.scores(rows) for rows in portions(unit[probes].astype(np.float64))]
        truth.append(person[probes])
    return np.concatenate(scores), np.concatenate(truth)


def best_slope(machine: Machine, scores: Floats, truth: IntArray) -> float:
    """The slope that makes the true people most likely: float64 (m, s), int64 (m,) -> a number.

    As with Platt's targets, each truth counts as (m + 1) / (m + 2) sure, so that a few faces that
    are all told apart do not make everything certain. A grid, then golden sections.
    """

    def loss(logarithm: float) -> float:
        chance = _all_probabilities(machine, scores, float(np.exp(logarithm)))
        logs = np.log(np.clip(chance, 1e-12, 1))
        right = logs[np.arange(len(truth)), truth]
        wrong = (logs.sum(axis=1) - right) / (logs.shape[1] - 1)
        return -float(np.mean((1 - doubt) * right + doubt * wrong))

    doubt = 1 / (len(truth) + 2)
    grid = np.linspace(math.log(SLOPES[0]), math.log(SLOPES[1]), 15)
    middle = int(np.argmin([loss(float(value)) for value in grid]))
    low, high = grid[max(middle - 1, 0)], grid[min(middle + 1, len(grid) - 1)]
    return float(np.exp(_lowest(loss, float(low), float(high))))


def _lowest(loss: Callable[[float], float], low: float, high: float, steps: int = 14) -> float:
    """Where a function with one valley is lowest between two values, by golden sections."""
    ratio = (5**0.5 - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(steps):
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = loss(b)
    return (low + high) / 2


def _all_probabilities(machine: Machine, scores: Floats, slope: float) -> Floats:
    return np.concatenate([machine.probabilities(part, slope) for part in portions(scores)])


def _fit_duels(unit: FloatArray, person: IntArray, settings: ClassifierSettings) -> Duels:
    svm = _scikit_learn()["svm"](kernel="linear", C=settings.c, decision_function_shape="ovo")
    svm.fit(unit.astype(np.float64), person)
    sign = -1.0 if len(svm.classes_) == 2 else 1.0
    return Duels(
        unit[svm.support_],
        person[svm.support_],
        np.asarray(sign * svm.dual_coef_, np.float64),
        np.asarray(sign * svm.intercept_, np.float64),
    )


def _fit_planes(
    unit: FloatArray, person: IntArray, settings: ClassifierSettings, *, steps: int = STEPS
) -> Planes:
    logistic = _scikit_learn()["logistic"](C=settings.c, max_iter=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said below, in our words
        logistic.fit(unit.astype(np.float64), person)
    if np.max(logistic.n_iter_) >= steps:
        raise SettingsError(
            f"The logistic regression should settle in {steps:,} steps; with c {settings.c:g} it "
            "did not. Choose a lower c."
        )
    weights, offsets = logistic.coef_, logistic.intercept_
    if len(weights) == 1:
        weights = np.concatenate([-weights, weights]) / 2
        offsets = np.concatenate([-offsets, offsets]) / 2
    return Planes(np.asarray(weights, np.float64), np.asarray(offsets, np.float64))


def _fit_nearest(unit: FloatArray, person: IntArray, settings: ClassifierSettings) -> Nearest:
    people = np.array([person[-1] + 1], np.int64)
    return Nearest(unit, person, np.array([settings.neighbours], np.int64), people)


FITS: dict[str, Callable[[FloatArray, IntArray, ClassifierSettings], Machine]] = {
    "svm": _fit_duels,
    "logistic": _fit_planes,
    "knn": _fit_nearest,
}


def _scikit_learn() -> dict[str, Any]:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import SVC
    except ImportError as error:
        raise MissingExtraError(
            "Training an SVM or a logistic regression needs scikit-learn, which is not installed "
            'or broken. Install it with `pip install "facenet[gallery]"`, or choose the method knn.'
        ) from error
    return {"svm": SVC, "logistic": LogisticRegression}
