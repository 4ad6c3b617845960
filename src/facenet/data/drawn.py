"""Pairs drawn from class folders, in the manner of View 2 of Labeled Faces in the Wild.

People are dealt into folds, so that no person is in two of them; the pairs of a fold are of its
people. Mated pairs: people take turns, each time with two pictures that were not yet together.
Non-mated pairs: two people, then a picture of each, everyone equally likely (Huang et al., Labeled
Faces in the Wild, technical report 07-49, 2007, section IV).
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facenet.data.folders import Sample
from facenet.data.pairs import short
from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError, SettingsError
from facenet.types import IntArray

MAX_PAIRS = 20_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The pairs of one fold as rows of pictures: int64 (m, 2) and (m, 2), as many of both kinds.

    fewer: which kind was short of what was wanted, "" when neither was.
    """

    mated: IntArray
    non_mated: IntArray
    fewer: str = ""


def draw_pairs(
    samples: Sequence[Sample],
    *,
    dataset: str,
    pairs: int = 6000,
    folds: int = 10,
    seed: int = 0,
) -> PairSet:
    """Draw pairs, half of them mated, from people and their pictures.

    pairs: an even number. folds: fewer are made where there are too few people. No pair comes
    twice, every fold has as many mated as non-mated pairs, and the order of `samples` does not
    matter. Notes say when there are fewer pairs or folds than wanted, and why. Raises DataError
    with too few people for two folds, SettingsError for numbers that cannot be.
    """
    check_numbers(pairs, folds, seed)
    pool = sorted({(sample.person, sample.path) for sample in samples})
    sizes = np.array(list(Counter(person for person, _ in pool).values()), np.int64)
    made = _possible_folds(dataset, sizes, folds)
    random = np.random.default_rng(seed)
    starts = np.cumsum(sizes) - sizes
    supply = sizes * (sizes - 1) // 2
    turns = _turns(random, supply, min(pairs // 2, int(supply.sum())))
    dealt = deal_people(random, turns.clip(min=supply.clip(max=1)), made)
    drawn = [
        _draw_fold(random, starts[people], sizes[people], wanted)
        for people, wanted in zip(dealt, shares(pairs // 2, made), strict=True)
    ]
    told = [
        f"The pairs were drawn with seed {seed} from {len(pool)} pictures of {len(sizes)} people; "
        "they are no published list."
    ]
    if made < folds:
        told.append(
            f"There are {made} folds instead of {folds}: each needs two people, one of them with "
            "two pictures, and nobody is in two folds."
        )
    return drawn_set(dataset, pool, drawn, notes=told, pairs=pairs)


def _possible_folds(dataset: str, sizes: IntArray, folds: int) -> int:
    """How many folds the people allow. Raises DataError when it is no two."""
    rich = int(np.sum(sizes > 1))
    made = min(folds, rich, len(sizes) // 2)
    if made < 2:
        raise DataError(
            f"{short(dataset)} should have four people or more, two of them with two pictures or "
            f"more, so that two folds share nobody; it has {len(sizes)} people, {rich} of them "
            "with two pictures. Add people or pictures."
        )
    return made


def check_numbers(pairs: int, folds: int, seed: int) -> None:
    """Raise SettingsError for numbers of pairs, folds or a seed that cannot be."""
    if pairs % 2 or not 2 * folds <= pairs <= MAX_PAIRS or folds < 2:
        raise SettingsError(
            "Drawing needs two folds or more, and an even number of pairs, two per fold or more, "
            f"at most {MAX_PAIRS:,}; got {pairs} pairs and {folds} folds."
        )
    if seed < 0:
        raise SettingsError(f"A seed should be 0 or more; got {seed}.")


def shares(total: int, parts: int) -> list[int]:
    """A number in parts that differ by one at most, the larger first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def deal_people(random: np.random.Generator, weights: IntArray, folds: int) -> list[IntArray]:
    """Deal people into folds, at random and evenly: their numbers per fold, sorted.

    weights: int64 (n,), how many mated pairs are hoped for of each person. The heaviest first, and
    at random among equals, people go where the sum of weights is smallest; then whoever has no
    weight goes where the fewest people are. Every fold gets somebody with a weight and somebody
    else, if there are as many with a weight as folds and twice as many people.
    """
    shuffled = random.permutation(len(weights))
    shuffled = shuffled[np.argsort(-weights[shuffled], kind="stable")]
    dealt: list[list[int]] = [[] for _ in range(folds)]
    loads = [(0, number) for number in range(folds)]
    for who in shuffled[weights[shuffled] > 0].tolist():
        load, number = loads[0]
        dealt[number].append(who)
        heapq.heapreplace(loads, (load + int(weights[who]), number))
    loads = [(len(people), number) for number, people in enumerate(dealt)]
    heapq.heapify(loads)
    for who in shuffled[weights[shuffled] == 0].tolist():
        load, number = loads[0]
        dealt[number].append(who)
        heapq.heapreplace(loads, (load + 1, number))
    for lonely in (people for people in dealt if len(people) == 1):
        if len(most := max(dealt, key=len)) > 2:
            lonely.append(most.pop(int(np.argmin(weights[most]))))
    return [np.sort(np.array(people, np.int64)) for people in dealt]


def drawn_set(
    dataset: str,
    pool: Sequence[tuple[str, Path]],
    drawn: Sequence[Drawn],
    *,
    notes: Sequence[str],
    pairs: int,
) -> PairSet:
    """A `PairSet` of the pictures that were drawn, fold after fold, the mated pairs first.

    pool: person and path of every picture, which `drawn` counts. notes: what is told of the
    drawing; it is added when these are fewer than the wanted `pairs`.
    """
    columns = np.concatenate([kind for fold in drawn for kind in (fold.mated, fold.non_mated)])
    used, rows = np.unique(columns, return_inverse=True)
    a, b = rows.reshape(-1, 2).T
    sizes = [len(kind) for fold in drawn for kind in (fold.mated, fold.non_mated)]
    same = np.repeat(np.arange(2 * len(drawn)) % 2 == 0, sizes)
    fold = np.repeat(np.arange(2 * len(drawn)) // 2, sizes)
    told = list(notes)
    if len(a) < pairs:
        kinds = " and ".join(sorted({part.fewer for part in drawn if part.fewer}))
        told.append(
            f"{pairs} pairs were wanted and {len(a)} drawn: the people of some folds have no more "
            f"{kinds} pairs."
        )
    kept = [pool[row] for row in used.tolist()]
    top = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for _, path in kept])
    pictures = tuple(
        Picture(short(os.path.relpath(path, top), 4096), path, short(person, 4096))
        for person, path in kept
    )
    return PairSet(dataset, pictures, a, b, same, fold, notes=tuple(told))


def _draw_fold(
    random: np.random.Generator, starts: IntArray, sizes: IntArray, wanted: int
) -> Drawn:
    """Draw from people whose pictures are the rows starts[i] to starts[i] + sizes[i] - 1."""
    mated = int(np.sum(sizes * (sizes - 1) // 2))
    others = (int(sizes.sum()) ** 2 - int(np.sum(sizes**2))) // 2
    count = min(wanted, mated, others)
    fewer = "" if count == wanted else "mated" if mated <= others else "non-mated"
    rows = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, sizes, strict=True)])
    return Drawn(
        _draw_mated(random, starts, sizes, count),
        rows[_draw_non_mated(random, sizes, count)],
        fewer,
    )


def _draw_mated(
    random: np.random.Generator, starts: IntArray, sizes: IntArray, count: int
) -> IntArray:
    """Rows of `count` pairs of one person each: int64 (count, 2)."""
    drawn = []
    for who, number in enumerate(_turns(random, sizes * (sizes - 1) // 2, count)):
        if number:
            total = int(sizes[who] * (sizes[who] - 1) // 2)
            index = random.choice(total, number, replace=False)
            larger = ((1 + np.sqrt(1 + 8 * index)) // 2).astype(np.int64)
            smaller = index - larger * (larger - 1) // 2
            drawn.append(starts[who] + np.stack([smaller, larger], axis=1))
    return np.concatenate(drawn)


def _turns(random: np.random.Generator, supply: IntArray, count: int) -> IntArray:
    """How often each takes a turn when all take turns until `count`, or until they have no more.

    supply: int64 (people,), of a sum of `count` or more. Whoever is first is drawn.
    """
    low, high = 0, int(supply.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if supply.clip(max=middle).sum() <= count else (low, middle - 1)
    turns = supply.clip(max=low)
    more = random.permutation(np.flatnonzero(supply > low))
    turns[more[: count - turns.sum()]] += 1
    return turns


def _draw_non_mated(random: np.random.Generator, sizes: IntArray, count: int) -> IntArray:
    """`count` pairs of two people each, as rows in the pictures of the fold: int64 (count, 2).

    Where too many of the draws repeat a pair, the rest comes evenly from all pairs that are left.
    """
    people, starts, total = len(sizes), np.cumsum(sizes) - sizes, int(sizes.sum())
    first = random.integers(people, size=2 * count)
    second = random.integers(people - 1, size=2 * count)
    second += second >= first
    sides = [starts[who] + random.integers(sizes[who]) for who in (first, second)]
    keys = np.minimum(*sides) * total + np.maximum(*sides)
    keys = keys[np.sort(np.unique(keys, return_index=True)[1])][:count]
    if len(keys) < count:
        earlier = sizes * starts
        ends = np.cumsum(earlier)
        index = random.choice(int(ends[-1]), min(int(ends[-1]), count), replace=False)
        who = np.searchsorted(ends, index, side="right")
        rest = index - (ends - earlier)[who]
        spare = rest % starts[who] * total + starts[who] + rest // starts[who]
        spare = spare[~np.isin(spare, keys)]
        keys = np.concatenate([keys, spare[: count - len(keys)]])
    return np.stack([keys // total, keys % total], axis=1)
