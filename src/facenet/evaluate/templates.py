"""Templates of IJB: one vector for all faces of a person, pooled over pictures and videos.

The community's way (deepinsight/insightface, ijb_11.py): features are not normalised, each is
weighed by its detector score, the faces of a medium (a video) are averaged, the media are summed,
and the sum is scaled to length one. Other ways are in `AGGREGATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.data.ijb import IjbFaces
from facenet.errors import InputError, SettingsError
from facenet.types import FloatArray, IntArray

CHUNK = 8192
"""Rows that are pooled or compared at a time."""
LARGEST = 1e15
"""Values from here on would overflow float32 when they are squared."""
TIE = 7
"""Decimals to which cosines count as different, where the first of the best is taken."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """How faces become a template; the flags are named as in insightface's tests.

    aggregation: a name of `AGGREGATIONS`. keep_norm (N): leave the lengths of the features in;
    only "media" and "norm_weighted" look at lengths. detector (D): weigh each face by its
    detector score. flip (F): add the feature of the mirrored picture, see `combine`. tau:
    "quality" weighs by softmax(quality / tau). trim: share of faces that "trimmed_mean" leaves
    out, below 1. Raises SettingsError for what does not exist.
    """

    aggregation: str = "media"
    keep_norm: bool = True
    detector: bool = True
    flip: bool = True
    tau: float = 1.0
    trim: float = 0.2

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise SettingsError(
                f"The aggregation should be one of {', '.join(AGGREGATIONS)}; got "
                f"{self.aggregation[:80]!r}."
            )
        if not (0 < self.tau < np.inf and 0 <= self.trim < 1):
            raise SettingsError(
                "The temperature tau should be above 0 and the trimmed share from 0 to below 1; "
                f"got {self.tau} and {self.trim}."
            )

    @property
    def flags(self) -> str:
        """As results are labelled: "N1D1F1"."""
        return f"N{self.keep_norm:d}D{self.detector:d}F{self.flip:d}"


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """numbers: int64 (t,), sorted template numbers. vectors: float32 (t, d), of length one, or
    zero where nothing of the template could be used."""

    numbers: IntArray
    vectors: FloatArray

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Templates without a vector: bool (t,)."""
        return np.asarray(~self.vectors.any(axis=1))

    def rows(self, numbers: IntArray) -> IntArray:
        """Rows of templates by their number: int64 (n,). Raises InputError for an unknown one."""
        last = len(self.numbers) - 1
        rows = np.minimum(np.searchsorted(self.numbers, numbers), last)
        unknown = np.flatnonzero(self.numbers[rows] != numbers)
        if len(unknown):
            raise InputError(
                f"Templates that are compared should be among the {last + 1:,} that were pooled; "
                f"number {numbers[unknown[0]]} is not. Pool the faces of all lists."
            )
        return rows.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Faces of some templates, those of a medium and of a template side by side.

    features: float32 (m, d), prepared by the flags. weight: float32 (m,), detector scores or
    ones. quality: float64 (m,). template_starts (t,), media_starts (k,): the first face of each.
    """

    features: FloatArray
    weight: FloatArray
    quality: NDArray[np.float64]
    template_starts: IntArray
    media_starts: IntArray
    how: Pooling

    @property
    def template(self) -> IntArray:
        """Number of the template of each face, from 0 up: (m,)."""
        return np.repeat(np.arange(len(self.template_starts)), self.counts)

    @property
    def counts(self) -> IntArray:
        """Faces of each template: (t,)."""
        return np.diff(self.template_starts, append=len(self.features))

    def total(self, rows: NDArray[np.floating]) -> FloatArray:
        """Sum of rows (m, d) over each template: (t, d)."""
        return np.asarray(np.add.reduceat(rows, self.template_starts, axis=0), np.float32)

    @property
    def directions(self) -> FloatArray:
        """Features of length one, times their weight: (m, d)."""
        return vectors.unit(self.features) * self.weight[:, None]

    def first(self, order_by: NDArray[np.float64]) -> IntArray:
        """Order of faces by template, then by falling value, then as they come: (m,) -> (m,)."""
        return np.lexsort((-np.round(order_by, TIE), self.template))

    def centrality(self) -> NDArray[np.float64]:
        """Weighted mean cosine of each face to those of its template: (m,).

        In float64, so that faces that are as central as each other are so to `TIE` decimals.
        """
        exact = self.features.astype(np.float64)
        exact /= np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), vectors.TINY)
        sums = np.add.reduceat(exact * self.weight[:, None], self.template_starts, axis=0)
        cosines = np.einsum("md,md->m", exact, sums[self.template])
        return np.asarray(cosines / self.counts[self.template])


def _media(faces: Faces) -> FloatArray:
    sums = np.add.reduceat(faces.features, faces.media_starts, axis=0)
    sums /= np.diff(faces.media_starts, append=len(faces.features))[:, None]
    first = np.searchsorted(faces.media_starts, faces.template_starts)
    return np.asarray(np.add.reduceat(sums, first, axis=0), np.float32)


def _norm_weighted(faces: Faces) -> FloatArray:
    return faces.total(faces.features)


def _mean(faces: Faces) -> FloatArray:
    return faces.total(faces.directions)


def _quality(faces: Faces) -> FloatArray:
    scaled = faces.quality / faces.how.tau
    highest = np.maximum.reduceat(scaled, faces.template_starts)
    share = np.exp(scaled - highest[faces.template]).astype(np.float32)
    return faces.total(faces.directions * share[:, None])


def _medoid(faces: Faces) -> FloatArray:
    return vectors.unit(faces.features[faces.first(faces.centrality())[faces.template_starts]])


def _trimmed_mean(faces: Faces) -> FloatArray:
    order = faces.first(faces.centrality())
    place = np.arange(len(order)) - faces.template_starts[faces.template]
    kept = faces.counts - np.floor(faces.how.trim * faces.counts + 1e-9).astype(np.int64)
    stays = np.empty(len(order), np.bool_)
    stays[order] = place < kept[faces.template]
    return faces.total(faces.directions * stays[:, None])


Aggregation = Callable[[Faces], FloatArray]

AGGREGATIONS: dict[str, Aggregation] = {
    "media": _media,
    "mean": _mean,
    "norm_weighted": _norm_weighted,
    "quality": _quality,
    "medoid": _medoid,
    "trimmed_mean": _trimmed_mean,
}
"""Ways to pool. media: mean within a medium, sum over media (the default). mean: of unit vectors.
norm_weighted: of features as they are, so that their lengths weigh. quality: unit vectors weighed
by softmax(quality / tau). medoid: the face with the highest mean cosine to the others.
trimmed_mean: mean of unit vectors without the share that is farthest from their mean."""


def combine(plain: FloatArray, flipped: FloatArray | None, how: Pooling) -> FloatArray:
    """Features of faces, with those of the mirrored faces added where `how.flip` says so.

    plain, flipped: float32 (n, d), not normalised. Call it for each batch that is embedded.
    Raises InputError where the mirrored features are missing or of another shape.
    """
    if not how.flip:
        return plain
    if flipped is None or np.shape(flipped) != np.shape(plain):
        came = "none" if flipped is None else f"those of shape {np.shape(flipped)}"
        raise InputError(
            f"With flip, features of shape {np.shape(plain)} need the same of the mirrored "
            f"pictures; got {came}. Embed the mirrored pictures too, or set flip to False."
        )
    return plain + flipped


def pool_templates(
    features: FloatArray,
    faces: IjbFaces,
    how: Pooling,
    *,
    quality: NDArray[np.floating] | None = None,
) -> Templates:
    """Pool the features of faces into templates, some thousand rows at a time.

    features: float32 (n, d), a row per face, not normalised, from `combine`; zero for a face that
    could not be embedded. quality: (n,), for the aggregation "quality".
    Raises InputError for other shapes and for what is not finite.
    """
    quality = _checked_quality(features, faces, how, quality)
    order = np.lexsort((faces.media, faces.template))
    template, media = faces.template[order], faces.media[order]
    changes = template[1:] != template[:-1]
    starts = np.flatnonzero(np.append(True, changes))
    media_first = np.append(True, changes | (media[1:] != media[:-1]))
    pooled = np.empty((len(starts), np.shape(features)[1]), np.float32)
    for low, high in _spans(starts, len(order)):
        begin, end = starts[low], starts[high] if high < len(starts) else len(order)
        rows = order[begin:end]
        weight = faces.detection_score[rows] if how.detector else np.ones(len(rows), np.float32)
        chunk = Faces(
            features=_prepared(features[rows], rows, weight, how.keep_norm),
            weight=weight,
            quality=quality[rows],
            template_starts=starts[low:high] - begin,
            media_starts=np.flatnonzero(media_first[begin:end]),
            how=how,
        )
        pooled[low:high] = vectors.unit(AGGREGATIONS[how.aggregation](chunk))
    return Templates(template[starts], pooled)


def _spans(starts: IntArray, total: int) -> Iterator[tuple[int, int]]:
    """Templates that are pooled together: about `CHUNK` faces, a template never in two."""
    low = 0
    while low < len(starts):
        high = int(np.searchsorted(starts, min(starts[low] + CHUNK, total)))
        yield low, max(high, low + 1)
        low = max(high, low + 1)


def _prepared(
    features: FloatArray, rows: IntArray, weight: FloatArray, keep_norm: bool
) -> FloatArray:
    bad = np.flatnonzero(~(np.abs(features) < LARGEST).all(axis=1))
    if len(bad):
        raise InputError(
            f"Features should be finite and below 1e15; those of face {rows[bad[0]]} are not. "
            "Embed it again, or give zeros for a face that cannot be embedded."
        )
    return (features if keep_norm else vectors.unit(features)) * weight[:, None]


def _checked_quality(
    features: FloatArray,
    faces: IjbFaces,
    how: Pooling,
    quality: NDArray[np.floating] | None,
) -> NDArray[np.float64]:
    if features.ndim != 2 or len(features) != len(faces) or features.dtype != np.float32:
        raise InputError(
            f"There should be a float32 feature for each of the {len(faces):,} faces; got "
            f"{features.dtype} of shape {features.shape}. Embed the faces in the order of the list."
        )
    if quality is None:
        if how.aggregation == "quality":
            raise InputError(
                "The aggregation quality needs a quality for each face; got none. Give one, such "
                "as the lengths of the features."
            )
        return np.zeros(len(faces))
    values = np.asarray(quality, np.float64)
    if values.shape != (len(faces),) or not np.isfinite(values).all():
        raise InputError(
            f"Qualities should be {len(faces):,} finite numbers; got shape {values.shape}."
        )
    return values


def pair_similarity(templates: Templates, a: IntArray, b: IntArray) -> NDArray[np.float64]:
    """Cosine of pairs of templates: float64 (n,), minus infinity where one has no vector.

    a, b: int64 (n,), template numbers. Raises InputError for an unknown one.
    """
    similarity = np.empty(len(a))
    lost = templates.lost
    for start in range(0, len(a), CHUNK):
        part = slice(start, start + CHUNK)
        i, j = templates.rows(a[part]), templates.rows(b[part])
        scores = np.einsum("nd,nd->n", templates.vectors[i], templates.vectors[j])
        similarity[part] = np.where(lost[i] | lost[j], -np.inf, np.clip(scores, -1, 1))
    return similarity
