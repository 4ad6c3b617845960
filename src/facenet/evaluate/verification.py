"""The protocols of verification: from vectors and pairs to decisions and scores.

"facenet": `validate_on_lfw` of davidsandberg/facenet (2018): squared Euclidean distance of unit
vectors (or the angle / pi), with `flip` the vectors of a picture and of its mirror image side by
side, on demand less the mean of the training folds; thresholds on a grid.
"insightface": `verification.py` of InsightFace (2018): the outputs of a picture and of its mirror
image are summed and then scaled to unit length; squared distance, the same grid.
"cosine": cosine similarity; thresholds from all scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facenet import vectors
from facenet.data.pairset import PairSet
from facenet.errors import DataError, SettingsError
from facenet.evaluate.folds import Bools, Decisions, Floats, cross_validate
from facenet.types import FloatArray

PROTOCOLS = ("facenet", "insightface", "cosine")
DISTANCES = ("squared", "angle")
CHUNK = 16_384
"""Pairs whose vectors are held at a time."""


@dataclass(frozen=True, slots=True)
class VerificationSettings:
    """protocol: one of `PROTOCOLS`. flip: use the mirror image too ("insightface" always does).
    subtract_mean: less the mean of the training folds. distance: "squared" or "angle".

    Raises SettingsError for values that do not exist, or that a protocol does not have.
    """

    protocol: str = "facenet"
    flip: bool = False
    subtract_mean: bool = False
    distance: str = "squared"

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("protocol", self.protocol, PROTOCOLS),
            ("distance", self.distance, DISTANCES),
        ):
            if value not in choices:
                raise SettingsError(f"{name} should be one of {', '.join(choices)}; got {value!r}.")
        if self.distance == "angle" and self.protocol != "facenet":
            raise SettingsError(
                f"distance angle belongs to the protocol facenet; got {self.protocol}. Leave out "
                "one of them."
            )
        if self.subtract_mean and self.protocol == "insightface":
            raise SettingsError(
                "The protocol insightface does not subtract a mean. Use facenet or cosine for it."
            )

    @property
    def mirrors(self) -> bool:
        """Whether mirror images are needed."""
        return self.flip or self.protocol == "insightface"

    def sentence(self, folds: int) -> str:
        """The protocol for a person."""
        flips = {"facenet": "flips concatenated"}.get(self.protocol, "flips summed")
        if self.protocol == "cosine":
            measure = "cosine similarity, threshold from all scores of the other folds"
        elif self.distance == "angle":
            measure = "angle / pi, threshold (steps of 0.01) from the other folds"
        else:
            measure = "squared Euclidean distance, threshold (steps of 0.01) from the other folds"
        mean = ", mean of the training folds subtracted" if self.subtract_mean else ""
        return (
            f"{self.protocol}: {folds} contiguous folds, {measure}, "
            f"{flips if self.mirrors else 'no flip'}{mean}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """What a network said of the pictures of a set.

    plain: its outputs, float32 (m, d), any length. mirrored: those of the mirror images, or None.
    found: bool (m,), False where there is no usable face; such rows are not looked at.
    Raises DataError when a row that counts holds NaN, infinity or only zeros.
    """

    plain: FloatArray
    mirrored: FloatArray | None
    found: Bools

    def __post_init__(self) -> None:
        for rows in (self.plain, self.mirrored):
            if rows is None:
                continue
            lengths = np.linalg.norm(rows[self.found].astype(np.float64), axis=1)
            bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
            if len(bad):
                row = int(np.flatnonzero(self.found)[bad[0]])
                raise DataError(
                    f"Vectors should be finite and not zero; {len(bad)} are not, the first of them "
                    f"that of picture {row}. Embed the pictures again, in precision fp32."
                )


@dataclass(frozen=True, slots=True, eq=False)
class VerificationResult:
    """decisions: per fold, as distances of the protocol. similarity: float64 (n,) per pair, higher
    is closer, minus infinity without a face. thresholds: per fold, as similarities."""

    decisions: Decisions
    similarity: Floats
    thresholds: Floats


def verify_pairs(
    pairs: PairSet, views: Views, settings: VerificationSettings
) -> VerificationResult:
    """Run a protocol. Raises DataError for fewer than two folds, or mirror images that lack."""
    rows = _rows(views, settings)
    there = views.found[pairs.a] & views.found[pairs.b]
    plain = _distances(rows, pairs, there, settings)

    def distances(training: Bools) -> Floats:
        used = training & there
        if not (settings.subtract_mean and used.any()):
            return plain
        sides = np.concatenate([pairs.a[used], pairs.b[used]])
        seen = np.bincount(sides, minlength=len(rows))
        mean = seen @ rows.astype(np.float64) / len(sides)
        return _distances(rows, pairs, there, settings, mean=mean)

    exact = settings.protocol == "cosine"
    decisions = cross_validate(distances, pairs.same, pairs.fold, exact=exact)
    largest = 4.0 if settings.protocol == "facenet" and settings.flip else 2.0
    return VerificationResult(
        decisions,
        _similarity(decisions.distance, settings, largest),
        _similarity(decisions.threshold, settings, largest),
    )


def _rows(views: Views, settings: VerificationSettings) -> FloatArray:
    """One row per picture, as the protocol compares them."""
    plain = np.where(views.found[:, None], views.plain, 0)
    if not settings.mirrors:
        return vectors.unit(plain)
    if views.mirrored is None:
        raise DataError("This protocol needs the vectors of the mirror images; they are missing.")
    mirrored = np.where(views.found[:, None], views.mirrored, 0)
    if settings.protocol == "facenet":
        return np.concatenate([vectors.unit(plain), vectors.unit(mirrored)], axis=1)
    return vectors.unit(plain + mirrored)


def _distances(
    rows: FloatArray,
    pairs: PairSet,
    there: Bools,
    settings: VerificationSettings,
    *,
    mean: Floats | None = None,
) -> Floats:
    """Distances of all pairs, some at a time: float64 (n,), plus infinity without a face."""
    found = np.full(len(pairs), np.inf)
    for start in range(0, len(pairs), CHUNK):
        part = slice(start, start + CHUNK)
        first, second = (rows[side[part]].astype(np.float64) for side in (pairs.a, pairs.b))
        if mean is not None:
            first, second = first - mean, second - mean
        found[part] = _distance(first, second, settings)
    found[~there] = np.inf
    return found


def _distance(first: Floats, second: Floats, settings: VerificationSettings) -> Floats:
    """Distance of the protocol: (n, d), (n, d) -> (n,)."""
    if settings.protocol == "cosine":
        return np.asarray(1 - _cosine(first, second))
    if settings.distance == "angle":
        return np.asarray(np.arccos(_cosine(first, second)) / np.pi)
    return np.asarray(np.sum(np.square(first - second), axis=1))


def _cosine(first: Floats, second: Floats) -> Floats:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = np.sum(first * second, axis=1)
    return np.asarray(np.clip(products / np.where(lengths > 0, lengths, 1), -1, 1))


def _similarity(distance: Floats, settings: VerificationSettings, largest: float) -> Floats:
    """Cosine similarity that belongs to a distance; exact unless a mean was subtracted.

    largest: twice the squared length of the rows.
    """
    if settings.protocol == "cosine":
        return 1 - distance
    if settings.distance == "angle":
        return np.where(np.isfinite(distance), np.cos(np.pi * np.minimum(distance, 1)), -np.inf)
    return 1 - distance / largest
