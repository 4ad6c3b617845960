"""Items that flow through stages in threads: order kept, memory bounded, no thread left behind.

The caller's thread draws the sources and puts batches together; readers open, decode and crop;
one thread looks at groups, one runs full batches. How items fall into groups and batches depends on
the items alone, never on the time that something took, so a second run gives the same answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from facenet.errors import SettingsError
from facenet.types import FloatArray, ImageArray

S = TypeVar("S", contravariant=True)
T = TypeVar("T")
R = TypeVar("R", covariant=True)
A = TypeVar("A")
B = TypeVar("B")

GROUPS = 3
"""Groups that are on their way at once, at most."""


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """How much is on its way at once.

    group: pictures that are looked at together, at most. waiting: pictures that wait until a
    batch of faces is full, at most. memory: bytes of files and pixels that are read ahead; one
    picture may have more, and is then alone. readers: threads that read and decode.
    """

    group: int = 16
    waiting: int = 64
    memory: int = 192 << 20
    readers: int = 2

    def __post_init__(self) -> None:
        for name in ("group", "waiting", "memory", "readers"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SettingsError(
                    f"FlowLimits.{name} should be a whole number above 0; got {value!r:.40}."
                )

    @property
    def share(self) -> int:
        """Bytes of a group, and of pictures that wait for a batch."""
        return max(1, self.memory // 4)


class Stages(Protocol[S, T, R]):
    """What happens to an item, stage by stage. An error that is raised ends the flow there."""

    @property
    def batch(self) -> int:
        """Crops per run of `embed`; 0 when nothing is to be embedded."""
        ...

    def weigh(self, source: S) -> int:
        """Bytes that a source will hold once it is open; called in the caller's thread."""
        ...

    def open(self, source: S) -> T:
        """Read a source; in a reading thread, as `decode` is."""
        ...

    def cost(self, item: T) -> int:
        """Bytes that an item holds now, and will hold once it is decoded."""
        ...

    def decode(self, item: T) -> T:
        """An opened item with its pixels."""
        ...

    def look(self, items: Sequence[T]) -> Sequence[T]:
        """A group of decoded items, looked at; one group after the other, in order."""
        ...

    def crop(self, item: T) -> tuple[T, ImageArray]:
        """An item without its pixels, and its crops (n, H, W, 3); in a reading thread."""
        ...

    def embed(self, crops: ImageArray) -> FloatArray:
        """Rows (n, k) of crops (n, H, W, 3); one batch after the other, in order."""
        ...

    def finish(self, item: T, rows: FloatArray | None) -> R:
        """The answer for an item and its rows (n, k), None when `batch` is 0."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Failed:
    """Where the flow ends, and why."""

    error: BaseException


@dataclass(frozen=True, slots=True, eq=False)
class _Batch(Generic[T]):
    """Crops (n, H, W, 3), and the items that are complete with them: each with its number of
    rows."""

    crops: ImageArray
    items: list[tuple[T, int]]


class _Threads:
    """Those of one run; none is there before it has something to do."""

    def __init__(self, readers: int) -> None:
        self.readers = ThreadPoolExecutor(readers, thread_name_prefix="facenet-read")
        self.looker = ThreadPoolExecutor(1, thread_name_prefix="facenet-look")
        self.embedder = ThreadPoolExecutor(1, thread_name_prefix="facenet-embed")

    def stop(self) -> None:
        """Let them end with what they are at."""
        for pool in (self.embedder, self.looker, self.readers):
            pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait until they have ended."""
        for pool in (self.embedder, self.looker, self.readers):
            pool.shutdown(wait=True)


class Stream(Iterator[R]):
    """Answers in order. To stop early, close it or use it in a `with` block: then no thread is
    left. One that is just let go of tells its threads to end, and does not wait for them, since
    that may happen in any thread, one of its own among them."""

    def __init__(self, answers: Generator[R, None, None], threads: _Threads) -> None:
        self._answers, self._threads = answers, threads

    def __next__(self) -> R:
        over = True
        try:
            answer = next(self._answers)
            over = False
            return answer
        finally:
            if over:
                self._threads.join()

    def __enter__(self) -> Stream[R]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and wait until its threads have ended with what they are at."""
        self._answers.close()
        self._threads.stop()
        self._threads.join()


class Flow(Generic[S, T, R]):
    """Takes sources through their stages."""

    def __init__(self, stages: Stages[S, T, R], limits: FlowLimits) -> None:
        self._stages, self._limits = stages, limits

    def run(self, sources: Iterable[S]) -> Stream[R]:
        """An answer for each source, in order.

        The sources are drawn in the caller's thread, ahead of their answers; what they raise is
        raised at once, what a stage raises after the answers before it (of `look`, before its
        group).
        """
        threads = _Threads(self._limits.readers)
        return Stream(self._answers(iter(sources), threads), threads)

    def _answers(self, sources: Iterator[S], threads: _Threads) -> Generator[R, None, None]:
        try:
            groups = self._looked(sources, threads)
            if self._stages.batch:
                yield from self._embedded(self._cropped(groups, threads), threads)
                return
            for group in groups:
                for item in group:
                    yield self._stages.finish(_sound(item), None)
                del group  # what it holds, before the next is waited for
        finally:
            threads.stop()

    def _looked(self, sources: Iterator[S], threads: _Threads) -> Iterator[list[T | _Failed]]:
        """The groups after `look`; a failure is the last item of the last of them."""
        stages, limits = self._stages, self._limits
        opened = _ahead(
            sources,
            lambda source: threads.readers.submit(stages.open, source),
            most=limits.group,
            weigh=stages.weigh,
            budget=limits.share,
        )

        def submit(group: list[Future[T]]) -> Future[list[T | _Failed]]:
            decoded = [threads.readers.submit(_then, stages.decode, item) for item in group]
            return threads.looker.submit(self._look, decoded)

        groups = _ahead(
            self._groups(opened),
            submit,
            most=GROUPS,
            weigh=lambda group: sum(map(self._cost, group)),
            budget=limits.memory - limits.share,
        )
        for future in groups:
            group = _outcome(future)
            del future
            yield [group] if isinstance(group, _Failed) else group
            del group  # what it holds, before the next is waited for

    def _groups(self, opened: Iterator[Future[T]]) -> Iterator[list[Future[T]]]:
        """The items in order, cut where one more would make a group too large."""
        group: list[Future[T]] = []
        held = 0
        for item in opened:
            cost = self._cost(item)
            if group and (len(group) == self._limits.group or held + cost > self._limits.share):
                yield group
                group, held = [], 0
            group.append(item)
            held += cost
        if group:
            yield group

    def _cost(self, item: Future[T]) -> int:
        return 0 if item.exception() else self._stages.cost(item.result())

    def _look(self, decoded: Sequence[Future[T]]) -> list[T | _Failed]:
        """A group, looked at as far as the first item that failed."""
        ready: list[T] = []
        failed: list[T | _Failed] = []
        for item in decoded:
            if error := item.exception():
                failed = [_Failed(error)]
                break
            ready.append(item.result())
        return [*self._stages.look(ready), *failed]

    def _cropped(
        self, groups: Iterator[list[T | _Failed]], threads: _Threads
    ) -> Iterator[tuple[T, ImageArray] | _Failed]:
        """The items of the groups with their crops."""
        for group in groups:
            coming = deque(threads.readers.submit(self._crop, item) for item in group)
            del group
            while coming:
                cropped = _outcome(coming.popleft())
                yield cropped
                del cropped

    def _crop(self, item: T | _Failed) -> tuple[T, ImageArray]:
        return self._stages.crop(_sound(item))

    def _embedded(
        self, items: Iterator[tuple[T, ImageArray] | _Failed], threads: _Threads
    ) -> Iterator[R]:
        """The answers, whose rows come from batches over all items."""

        def submit(batch: _Batch[T] | _Failed) -> Future[tuple[FloatArray, _Batch[T]]]:
            return threads.embedder.submit(self._embed, batch)

        left: FloatArray | None = None
        for future in _ahead(self._batches(items), submit, most=2):
            rows, batch = future.result()
            rows = rows if left is None or len(left) == 0 else np.concatenate([left, rows])
            for item, count in batch.items:
                yield self._stages.finish(item, rows[:count])
                rows = rows[count:]
            left = rows

    def _embed(self, batch: _Batch[T] | _Failed) -> tuple[FloatArray, _Batch[T]]:
        sound = _sound(batch)
        return self._stages.embed(sound.crops), sound

    def _batches(
        self, items: Iterator[tuple[T, ImageArray] | _Failed]
    ) -> Iterator[_Batch[T] | _Failed]:
        """The crops of all items in full batches, or fewer where too many items would wait."""
        waiting, limits = _Waiting[T](), self._limits
        for item in items:
            if isinstance(item, _Failed):
                yield from waiting.cut(self._stages.batch, everything=True)
                yield item
                return
            waiting.add(*item, self._stages.cost(item[0]))
            full = len(waiting) >= limits.waiting or waiting.held > limits.share
            yield from waiting.cut(self._stages.batch, everything=full)
        yield from waiting.cut(self._stages.batch, everything=True)


class _Waiting(Generic[T]):
    """Items whose crops wait for a batch."""

    def __init__(self) -> None:
        self._items: deque[_Owed[T]] = deque()
        self._crops: list[ImageArray] = []
        self._came = self._gone = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def held(self) -> int:
        """Bytes that the items and their crops hold."""
        return sum(owed.cost for owed in self._items) + sum(part.nbytes for part in self._crops)

    def add(self, item: T, crops: ImageArray, cost: int) -> None:
        """One more item with its crops (n, H, W, 3), and the bytes that it holds without them."""
        self._came += len(crops)
        self._items.append(_Owed(item, len(crops), self._came, cost))
        self._crops.append(crops)

    def cut(self, batch: int, *, everything: bool) -> Iterator[_Batch[T]]:
        """Full batches as long as there are any; everything: what is left as well."""
        while self._came - self._gone >= batch or (everything and self._items):
            yield self._take(min(batch, self._came - self._gone))

    def _take(self, count: int) -> _Batch[T]:
        whole = self._crops[0] if len(self._crops) == 1 else np.concatenate(self._crops)
        self._crops = [whole[count:]]
        self._gone += count
        complete: list[tuple[T, int]] = []
        while self._items and self._items[0].end <= self._gone:
            owed = self._items.popleft()
            complete.append((owed.item, owed.count))
        return _Batch(whole[:count], complete)


@dataclass(frozen=True, slots=True, eq=False)
class _Owed(Generic[T]):
    """An item that waits for `count` rows; `end`: crops of all items so far, with its own."""

    item: T
    count: int
    end: int
    cost: int


def _ahead(
    items: Iterator[A],
    submit: Callable[[A], Future[B]],
    *,
    most: int,
    weigh: Callable[[A], int] = lambda _: 0,
    budget: int = 0,
) -> Iterator[Future[B]]:
    """Submit items ahead of their use: their futures, in order.

    At most `most` are on their way, and no more than `budget` of weight unless it is one alone.
    """
    coming: deque[tuple[int, Future[B]]] = deque()
    held = 0
    for item in items:
        weight = weigh(item)
        while coming and (len(coming) >= most or held + weight > budget):
            before, future = coming.popleft()
            yield future
            del future  # what it holds is no longer needed
            held -= before
        coming.append((weight, submit(item)))
        held += weight
    while coming:
        yield coming.popleft()[1]


def _then(function: Callable[[A], B], item: Future[A]) -> B:
    return function(item.result())


def _outcome(future: Future[A]) -> A | _Failed:
    """What came of it: an error is handed on, to be raised in its place."""
    error = future.exception()
    return _Failed(error) if error else future.result()


def _sound(item: A | _Failed) -> A:
    """The item; a failure is raised."""
    if isinstance(item, _Failed):
        raise item.error
    return item
