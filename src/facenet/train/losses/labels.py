"""Labels checked before the first step: one that is out of range is found here or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError, SettingsError

NAMED = 10
"""Classes that a message lists before it only counts them."""


def check_labels(labels: NDArray[Any], classes: int, *, strangers: bool = False) -> None:
    """Nothing, when labels are whole numbers from 0 to classes - 1 and each class has a picture.

    labels: int (n,). strangers: -1, a picture of nobody in the classes, is allowed too.
    Raises SettingsError for labels that are no whole numbers, and DataError for a label out of
    range, with its row, and for classes without a picture, with their numbers.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise SettingsError(
            f"Labels should be whole numbers, one per row; got {labels.dtype} of shape "
            f"{labels.shape}. Convert them with astype(numpy.int64), after a look at why they are "
            f"not."
        )
    lowest = -1 if strangers else 0
    wrong = np.flatnonzero((labels < lowest) | (labels >= classes))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"Labels should be from {lowest} to {classes - 1}; row {row} has {labels[row]}, and "
            f"{len(wrong)} of {len(labels)} rows are out of range. Make the list of pictures again."
        )
    empty = np.flatnonzero(np.bincount(labels[labels >= 0], minlength=classes) == 0)
    if len(empty):
        listed = ", ".join(map(str, empty[:NAMED])) + (" and more" if len(empty) > NAMED else "")
        raise DataError(
            f"Each of the {classes} classes should have a picture; {len(empty)} have none: "
            f"{listed}. Leave those classes out and number the others from 0."
        )
