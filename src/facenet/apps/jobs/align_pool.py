"""Aligning with several processes that end with the run, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from facenet.apps.jobs.align_one import AlignSettings, Outcome, Task, Worker
from facenet.errors import FacenetError

AHEAD = 8
"""Pictures waiting per process."""


def outcomes_of(tasks: Sequence[Task], worker: Worker, workers: int) -> Generator[Outcome]:
    """Outcomes in the order in which they come; `worker` does it alone where one is enough.

    Closing the iterator waits for the pictures that are being worked on, and ends the processes.
    """
    workers = min(workers, len(tasks))
    if workers < 2:
        yield from map(worker.align, tasks)
        return
    queue, running = iter(tasks), set[Future[Outcome]]()
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(worker.settings, worker.root),
    )
    try:
        while True:
            with _interrupts_later():
                free = islice(queue, workers * AHEAD - len(running))
                running |= {pool.submit(_align, task) for task in free}
            if not running:
                return
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ready)
    except BrokenProcessPool as error:
        raise FacenetError(
            "A worker process was killed, perhaps for want of memory. Run the same command again "
            "to go on, with fewer workers."
        ) from error
    finally:
        with _interrupts_later():
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold back Ctrl-C: processes started inside never see it, since they inherit the mask."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows; there `_start` does the rest
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: Worker | None = None


def _start(settings: AlignSettings, root: Path) -> None:
    """Prepare this worker process; it ends when the run that started it is gone."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker.open(settings, root)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _align(task: Task) -> Outcome:
    if _worker is None:
        raise FacenetError("The worker process was not started; call _start first.")
    return _worker.align(task)
