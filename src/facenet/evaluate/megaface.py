"""The MegaFace challenge: known people among a million strangers.

For every ordered pair (i, j) of pictures of one person the gallery is {j} and all distractors,
and picture i searches it; rank 1 is the share of pairs in which j comes first. Verification takes
the mated pairs against every probe with every distractor. Kemelmacher-Shlizerman et al., "The
MegaFace Benchmark" (2016). Noisy pictures are left out (`data.megaface.noisy`);
`insightface_noise_removal` does what insightface's remove_noises.py does instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import DataError, InputError, SettingsError
from facenet.evaluate import curves
from facenet.evaluate.intervals import REPLICATES, Interval, share_interval, subject_weights
from facenet.types import FloatArray, IntArray

SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
RATES = (1e-3, 1e-4, 1e-5, 1e-6)
CELLS = 8_000_000
"""Similarities that are held at a time."""
POOL_MOST = 64_000_000
"""Non-mated similarities that are kept, 4 bytes each."""
ROUNDING = 1e-6
"""Cosines this close are a tie, whatever float32 makes of them; a tie is no hit."""
LARGEST = 1e15
"""Values from here on would overflow float32 when they are squared."""
FAR_AWAY = 100.0

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Blocks = FloatArray | Iterable[FloatArray]


@dataclass(frozen=True, slots=True)
class MegafaceSettings:
    """sizes: numbers of distractors of the curve; those that are not there are left out, and all
    that are there is always its last point. rates: FARs of the verification. seed: of the subsets
    (nested) and of the bootstrap, with so many replicates. Raises SettingsError."""

    sizes: tuple[int, ...] = SIZES
    rates: tuple[float, ...] = RATES
    replicates: int = REPLICATES
    seed: int = 0

    def __post_init__(self) -> None:
        if not all(size >= 1 for size in self.sizes) or not all(0 < r < 1 for r in self.rates):
            raise SettingsError(
                "Numbers of distractors should be 1 or more and rates between 0 and 1; got "
                f"{str(self.sizes)[:100]} and {str(self.rates)[:100]}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Against:
    """Probes against distractors. best: float32 (n, sizes), the highest similarity of each probe
    among the first distractors of each size. highest: float32 (k,), falling: the highest of all
    non-mated similarities. pairs: how many there are. lost: distractors without a vector."""

    best: FloatArray
    highest: FloatArray
    pairs: int
    lost: int


def megaface_report(
    probes: FloatArray,
    people: Sequence[str],
    distractors: Blocks,
    settings: MegafaceSettings | None = None,
    *,
    count: int | None = None,
) -> dict[str, Any]:
    """Rank 1 over the number of distractors, and TAR at FAR, as one plain record.

    probes: float32 (n, d), a zero row for a picture without a face: it is a miss as a probe and
    as a mate. people: name of each (n,). distractors: float32 (m, d), or blocks of it, then with
    their number as `count`; memory stays bounded. Raises InputError and DataError.
    """
    how = settings or MegafaceSettings()
    if count is None:
        if not isinstance(distractors, np.ndarray):
            raise InputError("Distractors in blocks need their number; give it as count.")
        count = len(distractors)
    rows, person = _checked(probes, "probe"), np.asarray(people)
    if len(person) != len(rows):
        raise InputError(
            f"There should be one name per probe; got {len(person)} for {len(rows)} probes."
        )
    sizes = tuple(sorted({size for size in how.sizes if size < count} | {count}))
    numbers = np.unique(person, return_inverse=True)[1].astype(np.int64)
    mated = [_mated(rows, group) for group in _groups(numbers)]
    if not sum(len(group.scores) for group in mated):
        raise DataError("MegaFace needs two pictures or more of a person; no probe has another.")
    found = _against(rows, distractors, sizes, how)
    weights = subject_weights(len(mated), how.replicates, how.seed)
    return {
        "probes": len(rows),
        "people": len(mated),
        "probes_lost": int(np.sum(~rows.any(axis=1))),
        "distractors": count,
        "distractors_lost": found.lost,
        "ordered_pairs": 2 * sum(len(group.scores) for group in mated),
        "rank_1": _rank_values(mated, found, sizes, weights),
        "verification": _verification_values(mated, found, how.rates, weights),
        "bootstrap": {"replicates": how.replicates, "seed": how.seed},
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Pictures of one person: rows int64 (k,), table float32 (k, k) of their similarities, minus
    infinity on the diagonal, scores float32 (pairs,): those of each pair once."""

    rows: IntArray
    table: FloatArray
    scores: FloatArray


def _groups(numbers: IntArray) -> Iterator[IntArray]:
    order = np.argsort(numbers, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def _mated(rows: FloatArray, group: IntArray) -> _Group:
    vectors_of = rows[group]
    table = np.clip(vectors_of @ vectors_of.T, -1, 1)
    lost = ~vectors_of.any(axis=1)
    table[lost], table[:, lost] = -np.inf, -np.inf
    np.fill_diagonal(table, -np.inf)
    return _Group(group, table, table[np.triu_indices(len(group), 1)])


def _against(
    rows: FloatArray, distractors: Blocks, sizes: tuple[int, ...], how: MegafaceSettings
) -> Against:
    """One pass over the distractors, in the order they come.

    The distractor that comes as number k has place `permutation[k]`; a subset of a size is the
    places below it, so that subsets are nested whatever the blocks.
    """
    count, lost_probes = sizes[-1], np.flatnonzero(~rows.any(axis=1))
    pool = _Pool(_pool_size(len(rows) * count, how.rates))
    place = np.random.default_rng(how.seed).permutation(count)
    best = np.full((len(rows), len(sizes)), -np.inf, np.float32)
    start = lost = 0
    for block in _blocks(distractors, max(1, CELLS // len(rows))):
        if start + len(block) > count:
            raise DataError(f"There should be {count:,} distractors; more came. Correct count.")
        unit = _checked(block, "distractor", width=rows.shape[1], start=start)
        missing = np.asarray(~unit.any(axis=1))
        level = np.searchsorted(sizes, place[start : start + len(block)], side="right")
        order = np.argsort(level, kind="stable")
        scores = np.clip(rows @ unit[order].T, -1, 1)
        scores[lost_probes], scores[:, missing[order]] = -np.inf, -np.inf
        first = np.flatnonzero(np.diff(level[order], prepend=-1))
        highest = np.maximum.reduceat(scores, first, axis=1)
        there = level[order][first]
        best[:, there] = np.maximum(best[:, there], highest)
        pool.add(scores)
        start, lost = start + len(block), lost + int(missing.sum())
    if start != count:
        raise DataError(f"There should be {count:,} distractors; {start:,} came. Correct count.")
    highest = pool.highest()
    return Against(np.maximum.accumulate(best, axis=1), highest, len(rows) * count, lost)


def _pool_size(pairs: int, rates: tuple[float, ...]) -> int:
    """How many of the highest similarities decide the thresholds at the rates, and one."""
    good = [rate for rate in rates if curves.pairs_needed(rate) <= pairs]
    size = math.floor(max(good, default=0.0) * pairs + 1e-9) + 1
    if size > POOL_MOST:
        raise SettingsError(
            f"A FAR of {curves.rate_name(max(good))} over {pairs:,} pairs would keep {size:,} "
            f"similarities, more than {POOL_MOST:,}. Ask for lower rates."
        )
    return size


class _Pool:
    """The highest of all similarities, no more than asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.floor = np.float32(-np.inf)
        self.parts: list[FloatArray] = []
        self.kept = 0

    def add(self, scores: FloatArray) -> None:
        """Take what may be among the highest: scores (n, m), of any shape."""
        part = scores[scores > self.floor]
        self.parts.append(part)
        self.kept += len(part)
        if self.kept > self.size + max(self.size, CELLS):
            self._trim()

    def _trim(self) -> None:
        joined = np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)
        if len(joined) > self.size:
            joined = np.partition(joined, len(joined) - self.size)[len(joined) - self.size :]
            self.floor = joined.min()
        self.parts, self.kept = [joined], len(joined)

    def highest(self) -> FloatArray:
        """The highest, falling: (up to size,)."""
        self._trim()
        return np.sort(self.parts[0])[::-1]


def _rank_values(
    mated: list[_Group], found: Against, sizes: tuple[int, ...], weights: IntArray
) -> list[dict[str, Any]]:
    """The share of ordered pairs whose mate comes before all distractors, for each size."""
    pairs = np.array([2 * len(group.scores) for group in mated])
    hits = np.zeros((len(mated), len(sizes)), np.int64)
    for number, group in enumerate(mated):
        for column in range(len(sizes)):
            rival = found.best[group.rows, column].astype(np.float64)[:, None]
            above = (group.table > rival + ROUNDING) & (group.table > -np.inf)
            hits[number, column] = above.sum()
    values = []
    for column, size in enumerate(sizes):
        rate = float(hits[:, column].sum() / pairs.sum())
        drawn = _share(weights, hits[:, column], pairs)
        ci = share_interval(drawn, rate, len(mated))
        row = {"distractors": size, "rate": rate, "hits": int(hits[:, column].sum())}
        values.append({**row, "ci": _listed(ci)})
    return values


def _verification_values(
    mated: list[_Group], found: Against, rates: tuple[float, ...], weights: IntArray
) -> dict[str, Any]:
    """TAR at the largest FAR that is not above each rate; the interval is at that threshold."""
    scores = np.concatenate([group.scores for group in mated]).astype(np.float64)
    pairs = np.array([len(group.scores) for group in mated])
    owner = np.repeat(np.arange(len(mated)), pairs)
    values: dict[str, Any] = {"mated": len(scores), "non_mated": found.pairs}
    printed, refused = {}, {}
    for rate in rates:
        name = curves.rate_name(rate)
        if curves.pairs_needed(rate) > found.pairs:
            refused[name] = curves.refusal(rate, found.pairs)
            continue
        point = _operating_point(scores, found, rate)
        hits = np.bincount(owner[scores >= point.threshold], minlength=len(mated))
        ci = share_interval(_share(weights, hits, pairs), point.tar, len(mated))
        printed[name] = {
            "tar": point.tar,
            "ci": _listed(ci),
            "far": point.far,
            "threshold": point.threshold,
            "false_matches": point.false_matches,
        }
    return {**values, "tar_at_far": printed, "refused": refused}


def _operating_point(scores: Floats, found: Against, rate: float) -> curves.Operating:
    """As `curves.tar_at_far`, from the highest of the non-mated similarities."""
    allowed = math.floor(rate * found.pairs + 1e-9)
    refused = float(found.highest[allowed]) if allowed < len(found.highest) else -np.inf
    passed = found.highest[found.highest > refused]
    accepted = np.concatenate([scores[scores > refused], passed])
    threshold = float(accepted.min()) if len(accepted) else float(np.nextafter(refused, np.inf))
    tar = float(np.mean(scores > refused))
    return curves.Operating(threshold, tar, len(passed) / found.pairs, len(passed))


def _share(weights: IntArray, hits: IntArray, pairs: IntArray) -> Floats:
    """A share of pairs in each draw of people: (replicates,)."""
    total = weights @ pairs
    return np.asarray((weights @ hits) / np.where(total > 0, total, np.nan))


def _blocks(distractors: Blocks, rows: int) -> Iterator[FloatArray]:
    """Blocks of no more rows than that."""
    parts = [distractors] if isinstance(distractors, np.ndarray) else distractors
    for part in parts:
        for start in range(0, len(part), rows):
            yield part[start : start + rows]


def _checked(
    rows: FloatArray, what: str, *, width: int | None = None, start: int = 0
) -> FloatArray:
    """Unit vectors of rows (n, d); zero rows stay zero."""
    array = np.asarray(rows)
    if array.ndim != 2 or array.size == 0 or width not in (None, array.shape[1]):
        raise InputError(
            f"The {what}s should be vectors of {width or 'one'} length, one per row; got an array "
            f"of shape {array.shape}. Give features of one model."
        )
    bad = np.flatnonzero(~(np.abs(array) < LARGEST).all(axis=1))
    if len(bad):
        raise InputError(
            f"Features should be finite and below 1e15; those of {what} {start + int(bad[0])} are "
            "not. Write the feature again, or zeros for a picture without a face."
        )
    return vectors.unit(array)


def insightface_noise_removal(
    probes: FloatArray, people: Sequence[str], noisy: Bools, *, seed: int
) -> FloatArray:
    """FaceScrub features (n, d) as insightface's remove_noises.py rewrites them: (n, d + 1).

    A noisy probe becomes the sum of the person's clean features plus noise of U(-0.001, 0.001),
    scaled to length one; a clean one stays as it is. The last value is 0.
    Biased: a replaced probe is the centre of its own person, so that nearly every search with it,
    and for it, is a free hit; leaving noisy pictures out counts nothing instead. Distractors go
    through `insightface_far_distractors`. people: name of each (n,). noisy: bool (n,).
    Raises DataError for a noisy person without a clean picture.
    """
    rows, names = np.asarray(probes, np.float32), np.asarray(people)
    result = np.pad(rows, ((0, 0), (0, 1)))
    generator = np.random.default_rng(seed)
    for row in np.flatnonzero(noisy):
        clean = (names == names[row]) & ~noisy
        if not clean.any():
            raise DataError(
                f"{str(names[row])[:80]} should have a clean picture to stand in for the noisy "
                "ones; all are noisy. Leave the person out."
            )
        centre = np.add.reduce(result[clean], axis=0)
        noise = np.asarray(generator.uniform(-0.001, 0.001, rows.shape[1]), np.float32)
        centre[:-1] += noise
        result[row] = centre / np.linalg.norm(centre)
    return result


def insightface_far_distractors(block: FloatArray, noisy: Bools) -> FloatArray:
    """Distractors (m, d) as remove_noises.py rewrites them: (m, d + 1), the last value 0, and 100
    for noisy ones (m,), which puts them far from everything: biased, since a search is then among
    fewer distractors than the result says.
    """
    last = np.where(noisy, FAR_AWAY, 0.0).astype(np.float32)
    return np.concatenate([np.asarray(block, np.float32), last[:, None]], axis=1)


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
