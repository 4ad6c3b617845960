"""Networks that run beside the work on pixels.

Python lets one thread at a time work on arrays in small steps, and handing over takes longer than
most steps do. So one thread alone works on pixels, while others do nothing but run networks, which
needs no Python. A thread that waits for an answer runs networks itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Question = TypeVar("Question")
Answer = TypeVar("Answer")

AHEAD = 8
"""Questions that may wait for each thread: bounds memory."""


class Beside:
    """Threads that run networks. threads: that of the caller is one of them."""

    def __init__(self, threads: int = 1) -> None:
        self._ahead = AHEAD * (threads - 1)
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def ask(
        self,
        prepare: Callable[[Job], Question],
        run: Callable[[Question], Answer],
        jobs: Iterable[Job],
    ) -> Iterator[tuple[Job, Question, Answer]]:
        """Prepare questions here, run them beside, and give the answers in the order of the jobs.

        Raises what `run` raises in the place of its answer, and what `prepare` raises at once.
        """
        waiting: deque[_Asked[Job, Question, Answer]] = deque()
        try:
            for job in jobs:
                waiting.append(_Asked(job, prepare(job), run, self._pool))
                if len(waiting) > self._ahead:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for asked in waiting:
                asked.cancel()

    def each(self, run: Callable[[Job], Answer], jobs: Iterable[Job]) -> list[Answer]:
        """Run a function that needs little Python with each job, here and beside: its answers in
        the order of the jobs. Raises what it raises."""
        return [answer for _, _, answer in self.ask(lambda job: job, run, jobs)]


class _Asked(Generic[Job, Question, Answer]):
    """A question on its way."""

    def __init__(
        self,
        job: Job,
        question: Question,
        run: Callable[[Question], Answer],
        pool: ThreadPoolExecutor | None,
    ) -> None:
        self.job, self.question, self._run = job, question, run
        self._future: Future[Answer] | None = pool.submit(run, question) if pool else None
        self._here: Future[Answer] = Future()

    def cancel(self) -> bool:
        """Whether nobody has begun with it, nor will."""
        return self._future is None or self._future.cancel()

    def done(self) -> bool:
        return self._here.done() or (self._future is not None and self._future.done())

    def try_here(self) -> bool:
        """Run it in this thread, unless another has begun; an error is kept as its answer."""
        if self._here.done() or not self.cancel():
            return False
        with _Kept(self._here):
            self._here.set_result(self._run(self.question))
        return True

    def answer(self) -> Answer:
        if self._here.done() or self._future is None:
            return self._here.result()
        return self._future.result()


class _Kept:
    """An error of the block is kept, to be raised by whoever asks for the result."""

    def __init__(self, result: Future[Any]) -> None:
        self._result = result

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):  # none, or the end of the program
            return False
        self._result.set_exception(error)
        return True


def _first(
    waiting: deque[_Asked[Job, Question, Answer]],
) -> tuple[Job, Question, Answer]:
    """Take the first, when there is an answer; meanwhile run those that nobody has begun with."""
    first = waiting[0]
    while not first.done() and any(asked.try_here() for asked in waiting):
        pass
    waiting.popleft()
    return first.job, first.question, first.answer()
