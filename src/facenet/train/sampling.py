"""Which pictures make up which batch: functions of the step, so that nothing has to be saved.

Training that goes on at step 40 000 sees what it would have seen without the stop, whatever the
number of threads. A permutation of many is not drawn and kept; it is a small cipher on the numbers
below n: a Feistel network (Luby and Rackoff, 1988) on an even number of bits, walked on until below
n again (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002), keyed by the seed
and the number of the pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError, SettingsError
from facenet.train.batch import Sampling
from facenet.types import IntArray

ROUNDS: Final = 12
"""Rounds of the network, where four are enough in theory."""
SMALL: Final = 4096
"""Up to here a permutation is drawn whole: of few bits, a network cannot make all of them alike."""
PRIMES: Final = np.array(
    [
        1_240_430_531,
        1_246_696_141,
        1_249_524_127,
        1_282_972_393,
        1_434_622_963,
        1_492_814_723,
        1_522_057_349,
        1_571_865_403,
        1_574_827_253,
        1_738_618_597,
        1_813_079_483,
        1_837_306_567,
        1_861_223_627,
        1_902_222_631,
        1_921_618_823,
        2_038_364_417,
    ],
    np.int64,
)
"""Steps through the pictures of a person: a prime above their number meets each of them."""
_SHUFFLED, _BALANCED, _PEOPLE, _PICTURES, _ORDERS = range(5)


def permuted(places: IntArray, n: int, key: tuple[int, ...]) -> IntArray:
    """Where a permutation of 0 to n - 1 sends places: int64 (m,), 0 to n - 1 -> int64 (m,).

    key: whole numbers of 0 and up; another key is another permutation. Memory for m alone.
    """
    if n <= SMALL:
        return np.random.default_rng(key).permutation(n)[places]
    half = np.uint64(((n - 1).bit_length() + 1) // 2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = _keys(key, ROUNDS)
    sent = _enciphered(np.asarray(places, np.int64).astype(np.uint64), keys, half, mask)
    while len(outside := np.flatnonzero(sent >= n)):
        sent[outside] = _enciphered(sent[outside], keys, half, mask)
    return sent.astype(np.int64)


def _keys(key: tuple[int, ...], count: int) -> NDArray[np.uint64]:
    return np.asarray(np.random.SeedSequence(key).generate_state(count, np.uint64), np.uint64)


def _enciphered(
    values: NDArray[np.uint64], keys: NDArray[np.uint64], half: np.uint64, mask: np.uint64
) -> NDArray[np.uint64]:
    """The Feistel network on values of twice `half` bits; always one to one."""
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return np.asarray(left << half | right, np.uint64)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al., 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def place_in_epoch(batches: Sampling, step: int) -> tuple[int, int]:
    """The epoch of a step, and its place in it: both from 0."""
    return divmod(step, batches.steps_per_epoch)


@dataclass(frozen=True)
class Shuffled:
    """Every picture once in each pass, in an order of its own.

    n: pictures. batch_size: of a step. drop_last: leave out the last batch of a pass where it is
    not full (InsightFace does), another part of the set each time; else it is smaller. epoch_size:
    steps that are called an epoch whatever n is (facenet): batches are then cut from one pass after
    the other, and are always full. Raises SettingsError for numbers that cannot be, DataError for
    fewer pictures than a batch where it would be left out.
    """

    n: int
    batch_size: int
    seed: int = 0
    drop_last: bool = True
    epoch_size: int | None = None

    def __post_init__(self) -> None:
        _check(self.seed, batch=self.batch_size, n=self.n, epoch_size=self.epoch_size)
        if self.n < self.batch_size and self.drop_last and self.epoch_size is None:
            raise DataError(
                f"There should be pictures for a batch of {self.batch_size} or more; there are "
                f"{self.n}. Choose a smaller batch, or keep the last one (drop_last: false)."
            )

    @property
    def repeats(self) -> bool:
        """Whether a picture may come twice in an epoch."""
        return self.epoch_size is not None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        if self.epoch_size is not None:
            return self.epoch_size
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def batch(self, step: int) -> tuple[IntArray, int]:
        """Rows of batch `step`, int64 (n,), and its epoch."""
        epoch, place = place_in_epoch(self, step)
        if self.epoch_size is None:
            end = min((place + 1) * self.batch_size, self.n)
            places = np.arange(place * self.batch_size, end)
            return permuted(places, self.n, (self.seed, _SHUFFLED, epoch)), epoch
        passes, places = np.divmod(step * self.batch_size + np.arange(self.batch_size), self.n)
        parts = [
            permuted(places[passes == number], self.n, (self.seed, _SHUFFLED, int(number)))
            for number in np.unique(passes)
        ]
        return np.concatenate(parts), epoch


@dataclass(frozen=True, eq=False)
class Balanced:
    """People as often as they are wanted, each of their pictures as often as the others.

    labels: int64 (n,), 0 and up. power: how often a person comes, as their number of pictures to
    this power: 1 is natural, 0.5 the square root, 0 everybody alike. An epoch has as many full
    batches as n has. The share of each person in it is exact to one picture; pictures of a person
    repeat when all have come, and not before. Raises as `Shuffled` does.
    """

    labels: IntArray
    batch_size: int
    seed: int = 0
    power: float = 0.5
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.seed, batch=self.batch_size, n=len(self.labels))
        if not 0 <= self.power <= 1:
            raise SettingsError(
                f"power should be from 0 (everybody alike) to 1 (as many as there are pictures); "
                f"got {self.power:g}."
            )
        if len(self.labels) < self.batch_size:
            raise DataError(
                f"There should be pictures for a batch of {self.batch_size} or more; there are "
                f"{len(self.labels)}. Choose a smaller batch."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.labels) // self.batch_size

    def batch(self, step: int) -> tuple[IntArray, int]:
        """Rows of batch `step`, int64 (n,), and its epoch."""
        epoch, place = place_in_epoch(self, step)
        total = self.steps_per_epoch * self.batch_size
        random = np.random.default_rng((self.seed, _BALANCED, epoch))
        ends = np.floor(self._shares * total + random.random()).astype(np.int64)
        ends[-1] = total
        places = np.arange(place * self.batch_size, (place + 1) * self.batch_size)
        slots = permuted(places, total, (self.seed, _BALANCED, epoch))
        person = np.searchsorted(ends, slots, side="right")
        turn = slots - np.where(person > 0, ends[person - 1], 0)
        chosen = self._ordered(person, turn, epoch)
        return self._people.rows[self._people.starts[person] + chosen], epoch

    def _ordered(self, person: IntArray, turn: IntArray, epoch: int) -> IntArray:
        """Which picture of a person comes in a turn, int64 (m,) each: in an order of the epoch and
        the person, (prime * turn + shift) modulo the number of pictures."""
        keys = _keys((self.seed, _ORDERS, epoch), 2)
        drawn = [_mixed(person.astype(np.uint64) + key) for key in keys]
        prime = PRIMES[(drawn[0] % np.uint64(len(PRIMES))).astype(np.int64)]
        counts = self._people.counts[person]
        shift = (drawn[1] % counts.astype(np.uint64)).astype(np.int64)
        return np.asarray((turn * prime + shift) % counts)

    @cached_property
    def _people(self) -> _People:
        return _people(self.labels)

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """Cumulated share of each person, float64 (p,)."""
        weights = self._people.counts.astype(np.float64) ** self.power
        return np.asarray(np.cumsum(weights) / weights.sum())


@dataclass(frozen=True, eq=False)
class PeopleTimesImages:
    """P people with K pictures each in every batch, as triplets want them; in order of the people.

    labels: int64 (n,), 0 and up. people, images: P, K. Who has one picture is left out, for it has
    no mate; who has fewer than K comes with some of them twice. Everybody comes once before anybody
    comes again, but for up to P - 1 people, others each time. epoch_size: steps of an epoch;
    by default as many as n gives. (facenet took all pictures of a person up to K, and its last
    person could run past the end.) Raises SettingsError for numbers that cannot be, DataError for
    fewer than P people with two pictures.
    """

    labels: IntArray
    people: int
    images: int
    seed: int = 0
    epoch_size: int | None = None
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.seed, people=self.people, images=self.images, epoch_size=self.epoch_size)
        if self.images < 2:
            raise SettingsError(
                f"images should be 2 or more, so that there are mated pairs; got {self.images}."
            )
        able = int(np.sum(np.bincount(np.asarray(self.labels)) >= 2))
        if able < self.people:
            raise DataError(
                f"Batches of {self.people} people need as many with two pictures or more; there "
                f"are {able}. Choose fewer people, or add pictures."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.epoch_size or max(1, len(self.labels) // (self.people * self.images))

    def batch(self, step: int) -> tuple[IntArray, int]:
        """Rows of batch `step`, int64 (P * K,), and its epoch."""
        able = self._able
        round_, place = divmod(step, len(able) // self.people)
        places = np.arange(place * self.people, (place + 1) * self.people)
        chosen = able[permuted(places, len(able), (self.seed, _PEOPLE, round_))]
        random = np.random.default_rng((self.seed, _PICTURES, step))
        rows = [
            self._people.rows[self._people.starts[who] + _drawn(random, count, self.images)]
            for who, count in zip(chosen, self._people.counts[chosen].tolist(), strict=True)
        ]
        return np.concatenate(rows), place_in_epoch(self, step)[0]

    @cached_property
    def _people(self) -> _People:
        return _people(self.labels)

    @cached_property
    def _able(self) -> IntArray:
        """Who has two pictures or more, int64 (p,), rows of `_people`."""
        return np.flatnonzero(self._people.counts >= 2)


def _drawn(random: np.random.Generator, count: int, wanted: int) -> IntArray:
    """`wanted` of the numbers below `count`, none twice before all have come."""
    whole, rest = divmod(wanted, count)
    last = random.choice(count, rest, replace=False)
    return np.concatenate([*(random.permutation(count) for _ in range(whole)), last])


@dataclass(frozen=True, slots=True, eq=False)
class _People:
    """Rows of a training set, person after person; where each begins, and how many there are."""

    rows: IntArray
    starts: IntArray
    counts: IntArray


def _people(labels: IntArray) -> _People:
    rows = np.argsort(labels, kind="stable").astype(np.int64)
    counts = np.bincount(labels).astype(np.int64)
    counts = counts[counts > 0]
    return _People(rows, np.cumsum(counts) - counts, counts)


def _check(seed: int, **sizes: int | None) -> None:
    """Raise SettingsError for a seed below 0 or a size below 1."""
    wrong = [f"{name} {size}" for name, size in sizes.items() if size is not None and size < 1]
    if wrong or seed < 0:
        raise SettingsError(
            "A sampler should have a seed of 0 or more, and sizes of 1 or more; got "
            f"{', '.join(wrong) or f'seed {seed}'}."
        )
