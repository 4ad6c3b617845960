"""Ctrl-C as a request: long work ends in good order, with its files whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_interrupt(
    stop: Callable[[], object], signals: Iterable[int] = (signal.SIGINT,)
) -> Iterator[None]:
    """Ctrl-C calls `stop` instead of ending the process; a second one ends it as ever.

    signals: those that count as Ctrl-C; SIGTERM is what `docker stop` sends. Outside the main
    thread, where Python gives no signals, nothing is changed.
    """

    def ask(number: int, frame: object) -> None:
        for one in before:
            signal.signal(one, signal.default_int_handler)
        stop()

    before: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        for one in signals:
            before[one] = signal.signal(one, ask)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
