"""A part of a training set that is held out, to judge by what was not learnt from.

By image: everybody is learnt, and some pictures of each are held out (facenet's SPLIT_IMAGES).
By identity: the people who are held out are not learnt at all (SPLIT_CLASSES), which is what says
how strangers will be told apart. facenet lost the last person of the second kind, and asked for a
minimum of held-out pictures but tested the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from facenet.errors import DataError, SettingsError
from facenet.types import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows to learn from and rows held out, int64, rising, no row in both.

    dropped: labels of the people of whom too few pictures would be left; their rows are in neither.
    """

    train: IntArray
    held: IntArray
    dropped: IntArray


def split_images(labels: IntArray, ratio: float, seed: int, min_images: int = 1) -> Split:
    """Hold out a share of each person's pictures, drawn at random.

    labels: int64 (n,), 0 and up. ratio: above 0, below 1. Of k pictures of a person,
    floor(k * (1 - ratio)) are learnt, at most k - 1. Somebody of whom fewer than `min_images` would
    be learnt is dropped. Raises SettingsError for numbers that cannot be, DataError when nobody is
    left.
    """
    counts = _checked(labels, ratio, seed, min_images)
    random = np.random.default_rng(seed)
    train, held, dropped = [], [], []
    for label, rows in enumerate(_rows_of(labels, counts)):
        if not len(rows):
            continue
        shuffled = random.permutation(rows)
        kept = min(math.floor(_exact(len(rows), ratio)), len(rows) - 1)
        if kept < min_images:
            dropped.append(label)
            continue
        train.append(shuffled[:kept])
        held.append(shuffled[kept:])
    if not held:
        raise DataError(
            f"Holding out {ratio:g} of each person's pictures should leave somebody with "
            f"{min_images} or more to learn from; nobody of {np.count_nonzero(counts)} people has "
            f"so many (the most is {counts.max()} pictures). Add pictures, or split by identity."
        )
    return Split(_sorted(train), _sorted(held), np.array(dropped, np.int64))


def split_people(labels: IntArray, ratio: float, seed: int, min_images: int = 2) -> Split:
    """Hold out a share of the people, drawn at random, with all their pictures.

    labels: int64 (n,), 0 and up. ratio: above 0, below 1. Of p people, p * (1 - ratio), rounded,
    are learnt. min_images: whoever has fewer pictures is always learnt, for nothing could be judged
    by them; fewer people are held out then, if need be. Nobody is dropped. Raises SettingsError for
    numbers that cannot be, DataError when fewer than two people are held out, or nobody is learnt.
    """
    counts = _checked(labels, ratio, seed, min_images)
    people = np.flatnonzero(counts)
    wanted = len(people) - math.floor(_exact(len(people), ratio) + 0.5)
    able = np.flatnonzero(counts >= min_images)
    chosen = np.random.default_rng(seed).permutation(able)[:wanted]
    if len(chosen) < 2 or len(chosen) == len(people):
        raise DataError(
            "There should be two people or more to judge by, and somebody left to learn: holding "
            f"out {ratio:g} of {len(people)} people, {len(able)} of whom have {min_images} "
            f"pictures or more, holds out {len(chosen)}. Add people, change the share, or split by "
            "image."
        )
    out = np.isin(labels, chosen)
    none = np.zeros(0, np.int64)
    return Split(np.flatnonzero(~out), np.flatnonzero(out), none)


def _exact(count: int, ratio: float) -> float:
    """count * (1 - ratio), so that 0.1 of 10 leaves 9 and not 8.999."""
    return round(count * (1 - ratio), 9)


def _checked(labels: IntArray, ratio: float, seed: int, min_images: int) -> IntArray:
    """Pictures of each label, int64 (labels,). Raises for what cannot be split."""
    if not 0 < ratio < 1:
        raise SettingsError(
            f"The share that is held out should be above 0 and below 1; got {ratio:g}. 0.1 is a "
            "tenth."
        )
    if seed < 0 or min_images < 1:
        raise SettingsError(
            f"A split should have a seed of 0 or more, and min_images of 1 or more; got {seed} and "
            f"{min_images}."
        )
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind != "i" or len(array) == 0 or array.min() < 0:
        raise DataError(
            "A split needs a row of labels, whole numbers of 0 and up, one for each picture; got "
            f"{array.dtype} of the shape {array.shape}. Pass the labels of a TrainingSet."
        )
    return np.bincount(array).astype(np.int64)


def _rows_of(labels: IntArray, counts: IntArray) -> list[IntArray]:
    """The rows of each label, rising."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def _sorted(parts: list[IntArray]) -> IntArray:
    return np.sort(np.concatenate(parts))
