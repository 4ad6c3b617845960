"""Cleaning a training set: which pictures are kept, and why not the others, as a list.

Pictures far from the centre of their person are often of somebody else. facenet computed the
distances once, and trained without those beyond a percentile, then without the people who had too
few pictures left. Here the outcome is a list that one can read, change and keep: picture, keep,
reason. Source: facenet ``calculate_filtering_metrics.py`` and ``train_softmax.py``.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.data.listfile import checked_file, wrong_line
from facenet.data.pairs import short
from facenet.errors import DataError, InputError, SettingsError
from facenet.files import written
from facenet.types import FloatArray, IntArray

BINS: Final = 100
MAX_BYTES: Final = 4 << 30
HEADER: Final = ("picture", "keep", "reason")
_BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Filtered:
    """The outcome for each picture: its name in the set, whether it is kept, bool (n,), and why
    not ("" where it is kept)."""

    pictures: Sequence[str]
    keep: NDArray[np.bool_]
    reasons: Sequence[str]

    def __post_init__(self) -> None:
        counts = {len(self.pictures), len(self.keep), len(self.reasons)}
        if len(counts) != 1 or not np.any(self.keep):
            came = f"{sorted(counts)} of them" if len(counts) > 1 else "nothing is kept"
            raise DataError(
                "A filtered set should have a name, a decision and a reason for each picture, and "
                f"keep one or more; {came}. Filter less strictly."
            )

    def rows(self, names: Sequence[str]) -> IntArray:
        """Rows of the kept pictures in a set with these names: int64 (m,), rising.

        Raises DataError when the set holds a picture of which nothing is said.
        """
        known = dict(zip(self.pictures, self.keep.tolist(), strict=True))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DataError(
                f"The list of kept pictures should name all {len(names)} of the set; "
                f"{len(unknown)} are not on it, {short(unknown[0])} for one. It is of another set, "
                "or an older one: filter again."
            )
        rows = np.flatnonzero([known[name] for name in names])
        if len(rows) == 0:
            raise DataError("The list of kept pictures keeps none of this set. Filter again.")
        return rows


def centre_distances(embeddings: FloatArray, labels: IntArray) -> NDArray[np.float64]:
    """Distance of each picture to the centre of its person: float64 (n,).

    embeddings: float32 (n, d), brought to unit length. labels: int64 (n,), 0 and up. The centre is
    the mean of the unit vectors, not itself of unit length, and the distance Euclidean, as in
    facenet: 0 to 2. Raises InputError for columns of two lengths or numbers that are not finite.
    """
    array = np.asarray(embeddings)
    if array.ndim != 2 or len(array) != len(labels) or not len(array):
        raise InputError(
            "Distances to centres need one vector and one label per picture; got vectors of the "
            f"shape {array.shape} and {len(labels)} labels."
        )
    if not np.all(np.isfinite(array)):
        raise InputError(
            "Distances to centres need finite vectors; some have NaN or infinity. Embed again."
        )
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), array.shape[1]))
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(array), _BLOCK)]
    for block in blocks:
        np.add.at(sums, labels[block], vectors.unit(array[block]).astype(np.float64))
    centres = sums / np.maximum(counts, 1)[:, None]
    away = [
        np.linalg.norm(vectors.unit(array[block]) - centres[labels[block]], axis=1)
        for block in blocks
    ]
    return np.concatenate(away)


def histogram_threshold(distances: NDArray[np.floating], percentile: float) -> float:
    """facenet's distance at a percentile, (n,) -> a distance: read off a histogram of 100 bins.

    The cumulated share of the bins over their centres, in between along straight lines.
    """
    counts, edges = np.histogram(distances, BINS)
    shares = np.float32(np.cumsum(counts)) / np.sum(counts)
    return float(np.interp(percentile * 0.01, shares, (edges[:-1] + edges[1:]) / 2))


def filter_by_distance(
    pictures: Sequence[str],
    labels: IntArray,
    distances: NDArray[np.floating],
    *,
    percentile: float,
    min_images: int = 1,
    exact: bool = True,
) -> Filtered:
    """Keep the pictures nearest to their centres, of people who have enough of them left.

    pictures: n names. labels: int64 (n,), 0 and up. distances: (n,), of `centre_distances`.
    percentile: above 0, at most 100. exact: the nearest `percentile` in a hundred are kept, and
    what is as near as the last of them; else those nearer than `histogram_threshold`, as facenet
    did. min_images: people with fewer kept pictures are left out altogether, also those who had
    fewer from the beginning (facenet left those in). Raises SettingsError for numbers that cannot
    be, InputError for columns of several lengths, DataError when nothing is kept.
    """
    if not 0 < percentile <= 100 or min_images < 1:
        raise SettingsError(
            "Filtering needs a percentile above 0 and at most 100, and min_images of 1 or more; "
            f"got {percentile:g} and {min_images}."
        )
    if not len(pictures) == len(labels) == len(distances) > 0:
        raise InputError(
            "Filtering needs a name, a label and a distance per picture; got "
            f"{len(pictures)}, {len(labels)} and {len(distances)}."
        )
    if exact:
        limit = float(np.percentile(distances, percentile, method="inverted_cdf"))
        near, words = distances <= limit, "more than"
    else:
        limit = histogram_threshold(distances, percentile)
        near, words = distances < limit, "not less than"
    left = np.bincount(labels[near], minlength=int(np.max(labels)) + 1)
    enough = left[labels] >= min_images
    reasons = [
        f"{distance:.4f} from the centre of its person, {words} {limit:.4f}"
        if not close
        else ("" if many else f"{count} kept of its person, fewer than {min_images}")
        for distance, close, many, count in zip(
            distances.tolist(), near.tolist(), enough.tolist(), left[labels].tolist(), strict=True
        )
    ]
    return Filtered(list(pictures), near & enough, reasons)


def write_filtered(filtered: Filtered, path: str | os.PathLike[str]) -> None:
    """Write the list as CSV: picture,keep,reason; keep is 1 or 0. Raises StorageError."""
    with written(Path(path)) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(HEADER)
        keep = filtered.keep.astype(int).tolist()
        table.writerows(zip(filtered.pictures, keep, filtered.reasons, strict=True))
        text.flush()
        text.detach()


def read_filtered(path: str | os.PathLike[str]) -> Filtered:
    """Read a list that `write_filtered` wrote, perhaps changed by hand; reasons may be anything.

    Raises DataError, with the line, for what is no such list, and for a picture that comes twice.
    """
    file = checked_file(path, "a list of kept pictures (CSV)", MAX_BYTES)
    keep: dict[str, bool] = {}
    reasons = []
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            table = csv.reader(text, strict=True)
            if next(table, None) != [*HEADER]:
                raise wrong_line(file, 1, f"the columns {','.join(HEADER)}", "something else")
            for cells in table:
                if len(cells) != 3 or not cells[0] or cells[1] not in ("0", "1"):
                    raise wrong_line(
                        file, table.line_num, "a picture, 1 or 0, and a reason", ",".join(cells)
                    )
                if cells[0] in keep:
                    raise wrong_line(file, table.line_num, "each picture once", f"{cells[0]} again")
                keep[cells[0]] = cells[1] == "1"
                reasons.append(cells[2])
    except csv.Error as error:
        raise DataError(
            f"{short(file, 300)}, line {table.line_num}: no CSV ({error}). Write the list anew."
        ) from error
    except OSError as error:
        raise DataError(
            f"Cannot read the list of kept pictures {short(file, 300)}: {error.strerror}. Check "
            "the path and who may read it."
        ) from error
    return Filtered(list(keep), np.array(list(keep.values()), bool), reasons)
