"""Ctrl-C as a request: long work ends in good order, with its files whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_interrupt(stop: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C calls `stop` instead of ending the process; a second one ends it as ever.

    Outside the main thread, where Python gives no signals, nothing is changed.
    """

    def ask(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
