"""Whether a table of false matches holds for people it has not seen, and how far to trust a row.

Pairs share people, so their count says too little about the error of a rate. Here each person is
left out in turn (the jackknife), which gives the variance of the rate; the variance gives the
number of independent pairs that would be as good, and that number goes into Wilson's interval:
the form that Fogliato, Patil and Perona ("Confidence intervals for error rates in 1:1 matching
tasks", arXiv 2306.01198) found to keep its coverage when errors are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import DataError, InputError
from facenet.evaluate.curves import pairs_needed, rate_name
from facenet.evaluate.falsematch import false_match_table
from facenet.evaluate.intervals import Interval, Z, wilson
from facenet.models.calibration import HeldOutRate
from facenet.models.card import FmrTable
from facenet.types import FloatArray, IntArray

RATES = (1e-1, 1e-2, 1e-3, 1e-4)
"""False-match rates that are checked."""
FACTOR = 2.0
NEEDED = math.ceil(2 * (Z / math.log(FACTOR)) ** 2)
"""Independent errors in each half without which chance alone moves the ratio by `FACTOR`: the
logarithm of a count of n has a deviation of about 1 / sqrt(n)."""
TINY = 1e-6
BLOCK = 2048
CELLS = 2**16
"""Steps of the similarity in which most scores are told apart without a comparison."""

Floats = NDArray[np.float64]


def held_out_check(
    embedding: NDArray[np.floating],
    people: Sequence[str],
    threshold_at: Callable[[FmrTable, float], float],
    *,
    rates: Sequence[float] = RATES,
    seed: int = 0,
) -> dict[str, HeldOutRate]:
    """Make a table of one half of the people, and count how often the others reach its thresholds.

    embedding: (n, d), of pictures with a face. people: name of each row. threshold_at: the
    similarity that a table gives for a rate, as `gallery.calibrate.similarity_at`, so that what
    is checked is what decides. Pairs across the halves are not used. Returns an answer per name
    of a rate, such as "1e-3"; `within_factor_two` is only said where the data allow it: where
    chance alone (95 %) would not carry the ratio of the two halves beyond a factor of two.
    Raises DataError with fewer than four people.
    """
    rows, names = np.asarray(embedding), np.asarray(people)
    _one_name_each(rows, names)
    first = split_people(people, seed)
    table = false_match_table(rows[first], names[first].tolist(), dataset="one half")
    known = sorted((rate for rate in rates if not _unknown(table, rate)), reverse=True)
    levels = np.array([threshold_at(table, rate) for rate in known], np.float64)
    counts, pictures = false_matches_by_person(rows[~first], names[~first].tolist(), levels)
    made = false_matches_by_person(rows[first], names[first].tolist(), levels)
    pairs = _pairs_of(pictures)
    worth = np.stack([_effective(*made), _effective(counts, pictures)], axis=1).tolist()
    observed = _observed(counts, pictures)
    seen = dict(zip(known, zip(levels.tolist(), observed, worth, strict=True), strict=True))
    return {
        rate_name(rate): _answer(rate, pairs, *seen[rate])
        if rate in seen
        else HeldOutRate(rate, None, None, None, (), pairs, None, _unknown(table, rate))
        for rate in rates
    }


def split_people(people: Sequence[str], seed: int) -> NDArray[np.bool_]:
    """Two halves of the people at random; True for the pictures of the first: bool (n,).

    people: name of each picture. Of an odd number of people the first half has one more.
    Raises DataError with fewer than four people: each half needs two to make a pair.
    """
    names, person = np.unique(np.asarray(people), return_inverse=True)
    if len(names) < 4:
        raise DataError(
            f"Halves of the people need four people or more; got {len(names)}. Add pictures of "
            "other people."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    return np.asarray(order[person] < (len(names) + 1) // 2)


def table_intervals(
    table: FmrTable, embedding: NDArray[np.floating], people: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """95 % intervals of the rates of a table: low and high, one number per row.

    embedding: (n, d), people: name of each row, both as the table was made of them.
    Raises InputError when they are not.
    """
    levels = np.array(table.similarity, np.float64)
    counts, pictures = false_matches_by_person(embedding, people, levels)
    if (_pairs_of(pictures), len(pictures)) != (table.pairs, table.people):
        raise InputError(
            f"The table of {table.dataset:.100} was made of {table.pairs:,} pairs of "
            f"{table.people:,} people; these vectors make {_pairs_of(pictures):,} of "
            f"{len(pictures):,}. Pass the vectors that the table was made of."
        )
    effective = _effective(counts, pictures)
    shares = np.array(table.false_matches) / table.pairs
    bounds = [wilson(p * n, n) for p, n in zip(shares.tolist(), effective.tolist(), strict=True)]
    return tuple(low for low, _ in bounds), tuple(high for _, high in bounds)


def false_matches_by_person(
    embedding: NDArray[np.floating],
    people: Sequence[str],
    levels: Floats,
    *,
    block: int = BLOCK,
) -> tuple[IntArray, IntArray]:
    """How many pairs of different people reach each level, by person.

    embedding: (n, d). people: name of each row. levels: (k,), rising similarities. Returns int64
    (people, k), the pairs in which a person takes part, so that each pair is there twice, and
    int64 (people,), the pictures of each; the people are in the order of their names. Memory is a
    few blocks and the answer.
    """
    rows, names = vectors.unit(np.asarray(embedding, np.float32)), np.asarray(people)
    _one_name_each(rows, names)
    person = np.unique(names, return_inverse=True)[1]
    pictures = np.bincount(person)
    counts = np.zeros((len(pictures), len(levels) + 1), np.int64)
    known = _steps(levels)
    for top in range(0, len(rows), block):
        one = person[top : top + block]
        for left in range(top, len(rows), block):
            two = person[left : left + block]
            scores = np.clip(rows[top : top + block] @ rows[left : left + block].T, -1, 1)
            reached = _reached(scores, levels, *known)
            reached[one[:, None] == two] = 0
            _add_rows(counts, one, reached)
            if left > top:  # a block on the diagonal holds both orders of each pair
                _add_rows(counts, two, np.ascontiguousarray(reached.T))
    return counts[:, :0:-1].cumsum(axis=1)[:, ::-1], pictures


def _steps(levels: Floats) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """For each of `CELLS` equal steps from -1 to 1: how many levels lie below it, int32, and
    whether one is so near that only a comparison can tell, bool."""
    count = np.searchsorted(levels, np.arange(CELLS + 1) * (2 / CELLS) - 1, side="right")
    near = np.zeros(CELLS + 1, np.bool_)
    place = np.floor((np.clip(levels, -1, 1) + 1) * (CELLS / 2)).astype(np.int64)
    for away in (-1, 0, 1):  # float32 may round a score into the next step
        near[np.clip(place + away, 0, CELLS)] = True
    return count.astype(np.int32), near


def _reached(
    scores: FloatArray, levels: Floats, count: NDArray[np.int32], near: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """How many levels each score reaches, as `score >= level` decides it in float64."""
    step = ((scores + np.float32(1)) * np.float32(CELLS / 2)).astype(np.int32)
    found = count[step]
    close = near[step]
    found[close] = np.searchsorted(levels, scores[close], side="right")
    return found


def _add_rows(counts: IntArray, person: IntArray, reached: NDArray[np.int32]) -> None:
    """Add a histogram of each row of `reached` (n, m) to that of its person (n,)."""
    height, width = len(person), counts.shape[1]
    cells = np.arange(height)[:, None] * width + reached
    found = np.bincount(cells.ravel(), minlength=height * width).reshape(height, width)
    np.add.at(counts, person, found)


def _effective(counts: IntArray, pictures: IntArray) -> Floats:
    """Number of independent pairs with the variance of each share: (people, k) -> (k,).

    Where no person makes a difference (all pairs or none match), the number of the level below,
    else of the level above; with none at all, one pair for every two people.
    """
    pairs, people = _pairs_of(pictures), len(pictures)
    total = counts.sum(axis=0) / 2
    share = total / pairs
    effective = np.full(counts.shape[1], np.nan)
    if people > 2:
        rest = (pairs - pictures * (pictures.sum() - pictures))[:, None]
        variance = (people - 1) * ((total - counts) / rest).var(axis=0)
        spread = (share > 0) & (share < 1) & (variance > 0)
        effective[spread] = (share * (1 - share))[spread] / variance[spread]
    return np.minimum(_filled(effective, people // 2), pairs)


def _filled(values: Floats, otherwise: float) -> Floats:
    """NaN becomes the last number before it, else the first after it: (k,) -> (k,)."""
    good = np.flatnonzero(np.isfinite(values))
    if len(good) == 0:
        return np.full(len(values), float(max(1, otherwise)))
    before = np.searchsorted(good, np.arange(len(values)), side="right") - 1
    return np.asarray(values[good[np.maximum(before, 0)]])


def _observed(counts: IntArray, pictures: IntArray) -> list[tuple[float, Interval]]:
    """Share of the pairs that reach each level, with its interval."""
    shares = counts.sum(axis=0) / 2 / _pairs_of(pictures)
    effective = _effective(counts, pictures)
    return [(p, wilson(p * n, n)) for p, n in zip(shares.tolist(), effective.tolist(), strict=True)]


def _answer(
    rate: float, pairs: int, threshold: float, seen: tuple[float, Interval], worth: list[float]
) -> HeldOutRate:
    """worth: independent pairs that would say as much as each half."""
    observed, interval = seen
    ratio = observed / rate
    errors = [max(rate * number, TINY) for number in worth]
    doubt = math.exp(Z * math.sqrt(sum(1 / count for count in errors)))
    if doubt <= FACTOR:
        holds = bool(1 / FACTOR <= ratio <= FACTOR)
        return HeldOutRate(rate, threshold, observed, ratio, interval, pairs, holds)
    note = (
        f"The data do not allow the claim: at FMR {rate_name(rate)} the halves, whose pairs share "
        f"people, are worth {errors[0]:.1f} and {errors[1]:.1f} independent false matches; a "
        f"factor of two needs about {NEEDED} in each. Add people."
    )
    return HeldOutRate(rate, threshold, observed, ratio, interval, pairs, None, note)


def _unknown(table: FmrTable, rate: float) -> str:
    """Why a table cannot speak of a rate; empty when it can."""
    start = f"The data do not allow the claim: FMR {rate_name(rate)}"
    if table.pairs < pairs_needed(rate):
        return (
            f"{start} needs {pairs_needed(rate):,} pairs (3 / rate) in the half that makes the "
            f"table; there are {table.pairs:,}."
        )
    if table.false_matches[-1] > rate * table.pairs:
        return (
            f"{start} is below the share of pairs that no threshold of the table refuses, "
            f"{table.false_matches[-1]:,} of {table.pairs:,}; look for pictures under two names."
        )
    return ""


def _pairs_of(pictures: IntArray) -> int:
    """Pairs of pictures of different people."""
    return int((pictures.sum() ** 2 - np.sum(pictures**2)) // 2)


def _one_name_each(rows: NDArray[np.floating], names: NDArray[np.str_]) -> None:
    if rows.ndim != 2 or len(rows) != len(names):
        raise InputError(
            f"There should be one name per vector; got {len(names)} names for vectors of the "
            f"shape {rows.shape}."
        )
