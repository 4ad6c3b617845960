"""From rows of a training set to batches: read, decode, change at random, standardise, in threads.

Every picture is a function of the seed, the epoch and its row (where a sampler repeats pictures
within an epoch, also of the step and the place in it), so batches are the same for any number of
threads and after any stop. Pictures that turn out broken are replaced, and told; training
does not end for them in its ninth epoch. Standardisation is that of the card, by the function that
embeds faces.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
import torch

from facenet.data.pairs import short
from facenet.data.trainingset import TrainingSet
from facenet.errors import DataError, ImageError, SettingsError
from facenet.faces.embed import standardise
from facenet.images import decode
from facenet.models.card import Preprocess
from facenet.train.augment import AugmentSettings, augmented
from facenet.train.batch import Batch, Sampling
from facenet.train.cache import PictureCache
from facenet.types import FloatArray, ImageArray, IntArray

CHUNK: Final = 8
"""Pictures that a thread prepares at a time."""
MAX_TRIES: Final = 100
"""Pictures tried in place of a broken one, before the set or the disk is taken for broken."""
_STREAM: Final = 100
"""Sets what is drawn here apart from what samplers draw with the same seed."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A picture that could not be used: its name, why, and the name of the one taken instead."""

    name: str
    reason: str
    instead: str


@dataclass(frozen=True, slots=True, eq=False)
class _Coming:
    """A batch that threads are preparing: rows int64 (n,), images float32 (n, 3, h, w)."""

    step: int
    epoch: int
    rows: IntArray
    images: FloatArray
    work: list[Future[None]]


class _Found:
    """What a loader finds out while it runs: broken pictures, and seconds in all and waiting."""

    __slots__ = ("elapsed", "lock", "replaced", "waited")

    def __init__(self) -> None:
        self.replaced: dict[int, Replaced] = {}
        self.lock = threading.Lock()
        self.waited = self.elapsed = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Loader:
    """Batches of a training set.

    training_set: where pictures and labels are. batches: which rows make up which step.
    preprocess: of the card, for colour and standardisation. size: side in pixels of what the
    network takes. augment: changes at random. seed: of these. threads: that read and decode. ahead:
    batches prepared while one is learnt from, which bounds the memory. cache_mb: megabytes of
    decoded pictures to keep, in `cache`. Raises SettingsError for numbers that cannot be.
    """

    training_set: TrainingSet
    batches: Sampling
    preprocess: Preprocess
    size: int = field(kw_only=True)
    augment: AugmentSettings = field(kw_only=True)
    seed: int = field(kw_only=True)
    threads: int = field(default=2, kw_only=True)
    ahead: int = field(default=4, kw_only=True)
    cache_mb: float = field(default=0, kw_only=True)
    cache: PictureCache = field(init=False, repr=False)
    _people: tuple[IntArray, IntArray] = field(init=False, repr=False)
    _found: _Found = field(default_factory=_Found, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.size, self.threads, self.ahead) < 1 or self.seed < 0:
            raise SettingsError(
                "A loader should have a size, threads and batches ahead of 1 or more, and a seed "
                f"of 0 or more; got {self.size}, {self.threads}, {self.ahead} and {self.seed}."
            )
        labels = self.training_set.labels
        ends = np.concatenate([[0], np.cumsum(np.bincount(labels))])
        object.__setattr__(self, "cache", PictureCache(self.cache_mb))
        object.__setattr__(self, "_people", (np.argsort(labels, kind="stable"), ends))

    @property
    def replaced(self) -> tuple[Replaced, ...]:
        """The pictures that could not be used so far, in the order of their rows."""
        with self._found.lock:
            return tuple(self._found.replaced[row] for row in sorted(self._found.replaced))

    @property
    def share_waiting(self) -> float:
        """Share of the time, 0 to 1, in which whoever learns waited for a batch; the first batch
        of a run, which nothing could prepare, is left out."""
        return self._found.waited / self._found.elapsed if self._found.elapsed else 0.0

    def run(self, first_step: int = 0) -> Generator[Batch]:
        """Batches from `first_step` on, without end; threads end when the iterator is closed.

        Raises DataError when `MAX_TRIES` pictures in a row cannot be used, or the batches are of a
        larger set. Use `contextlib.closing` where an error may keep the iterator alive.
        """
        coming: deque[_Coming] = deque()
        step, delivered = first_step, 0.0
        with ThreadPoolExecutor(self.threads, "facenet-loader") as pool:
            try:
                while True:
                    while len(coming) <= self.ahead:
                        coming.append(self._begun(pool, step))
                        step += 1
                    batch = self._finished(coming.popleft())
                    now = time.perf_counter()
                    if delivered:
                        self._found.waited += batch.wait_s
                        self._found.elapsed += now - delivered
                    delivered = now
                    yield batch
            finally:
                pool.shutdown(cancel_futures=True)

    def _begun(self, pool: ThreadPoolExecutor, step: int) -> _Coming:
        """Have the pictures of a step prepared, a few by each piece of work."""
        rows, epoch = self.batches.batch(step)
        if rows.min() < 0 or rows.max() >= len(self.training_set):
            raise DataError(
                f"Batches should be of the {len(self.training_set)} pictures of "
                f"{short(self.training_set.name)}; step {step} wants row {rows.max()}. Make the "
                "sampler for this set."
            )
        images = np.empty((len(rows), 3, self.size, self.size), np.float32)
        coming = _Coming(step, epoch, rows.copy(), images, [])
        for start in range(0, len(rows), CHUNK):
            part = slice(start, min(start + CHUNK, len(rows)))
            coming.work.append(pool.submit(self._prepare, coming, part))
        return coming

    def _finished(self, coming: _Coming) -> Batch:
        start = time.perf_counter()
        for work in coming.work:
            work.result()
        return Batch(
            coming.step,
            coming.epoch,
            coming.rows,
            torch.from_numpy(coming.images),
            torch.from_numpy(self.training_set.labels[coming.rows]),
            time.perf_counter() - start,
        )

    # ---- in the threads

    def _prepare(self, coming: _Coming, part: slice) -> None:
        """Fill a part of a batch: its images, and its rows where another was taken."""
        crops = np.empty((part.stop - part.start, self.size, self.size, 3), np.uint8)
        repeats = getattr(self.batches, "repeats", False)
        for place, row in enumerate(coming.rows[part].tolist(), part.start):
            picture, used = self._usable(row)
            turn = (coming.step, place) if repeats else (0, 0)
            random = np.random.default_rng((self.seed, _STREAM, coming.epoch, used, *turn))
            crops[place - part.start] = augmented(picture, self.size, self.augment, random)
            coming.rows[place] = used
        coming.images[part] = standardise(crops, self.preprocess)

    def _usable(self, row: int) -> tuple[ImageArray, int]:
        """The picture of a row, uint8 (H, W, 3), or the next usable one, and its row."""
        reason = ""
        for other in islice(self._candidates(row), MAX_TRIES):
            try:
                picture = self._picture(other)
            except (DataError, ImageError) as error:
                reason = reason or str(error)
                continue
            if other != row:
                names = self.training_set.names
                with self._found.lock:
                    self._found.replaced[row] = Replaced(names[row], reason, names[other])
            return picture, other
        raise DataError(
            f"The pictures of {short(self.training_set.name)} should be there and whole; "
            f"{short(self.training_set.names[row])} and those after it cannot be used: {reason} "
            "Check the disk."
        )

    def _candidates(self, row: int) -> Iterator[int]:
        """A row, then the others of its person, then the others of the set, round and round."""
        label, count = self.training_set.labels[row], len(self.training_set)
        rows, ends = self._people
        theirs = rows[ends[label] : ends[label + 1]]
        yield from np.roll(theirs, -int(np.searchsorted(theirs, row))).tolist()
        yield from ((row + 1 + i) % count for i in range(count - 1))

    def _picture(self, row: int) -> ImageArray:
        kept = self.cache.get(row)
        if kept is None:
            kept = decode(self.training_set.read(row), name=short(self.training_set.names[row]))
            self.cache.keep(row, kept)
        return kept
