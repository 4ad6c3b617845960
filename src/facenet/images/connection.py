"""Cameras and streams: read in a child process, and opened again when they are lost.

A stream that ends, stalls or crashes its decoder is opened again in a new child, after 1, 2, 4
... 30 seconds. Its frames go on in number, and in time by the clock of this machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from facenet.errors import ImageError, InputError, SettingsError
from facenet.images.addresses import Address
from facenet.images.apart import Child, Told
from facenet.images.limits import ImageLimits
from facenet.images.reading import SourceSettings, note
from facenet.images.session import Session, requested, require_complete
from facenet.images.video import Frame

LONGEST_WAIT = 30.0
"""Seconds between two tries to open a stream again, at most."""
JUMP = 10.0
"""Seconds by which a stream's clock may run ahead of ours before it counts as set anew."""
LEAST = 0.001
"""Seconds between two frames at least, where the clock of a stream does not tell."""


class Connection:
    """A camera, a stream, or a recording behind an address. See `Reading`.

    clock: seconds. sleep: waits for some; the default ends early when the reading is stopped.
    Raises InputError where the source cannot be opened: the first time nothing is tried again.
    """

    def __init__(
        self,
        address: Address,
        settings: SourceSettings,
        limits: ImageLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        self.name, self.kind = address.name, address.kind
        self.notices = list[str]()
        self._address, self._settings, self._limits = address, settings, limits
        self._stopped = threading.Event()
        self._clock, self._sleep = clock, sleep or self._stopped.wait
        self._child: Child | None = None
        self._times = _Times(clock)
        self._number, self._skipped = 0, 0
        self._session = self._opened()
        self.live, self.facts = self._session.live, self._session.facts
        if settings.start and not self._session.ends:
            self.close()
            raise SettingsError(
                f"start is for files and sequences; {self.name} is live. Leave it out."
            )
        note(self.notices, self._session.notice)

    @property
    def skipped(self) -> int:
        """Frames that were dropped because they were late."""
        return self._skipped + self._session.skipped

    def frames(self) -> Iterator[Frame]:
        """The frames, and InputError when the source is lost for good."""
        if self._session.ends:
            yield from self._recorded()
            return
        while not self._stopped.is_set():
            for told, image in self._session.frames():
                time_s = self._times.placed(told)
                if time_s >= self._settings.end:
                    return
                yield Frame(self._number + told.number, time_s, image)
                self._times.number = told.number + 1
            if self._stopped.is_set():
                return
            self._open_again()

    def _recorded(self) -> Iterator[Frame]:
        count = 0
        for told, image in self._session.frames():
            yield Frame(told.number, told.time_s, image)
            count += 1
            self._times.last = told.time_s
        require_complete(self._session, count, self._times.last or 0.0)

    def stop(self) -> None:
        """End `frames` soon."""
        self._stopped.set()
        if (child := self._child) is not None:
            child.wake()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()

    def _opened(self) -> Session:
        """A new child that has decoded the first frame."""
        self.close()
        request = requested(self.name, self._settings, self._address)
        with ExitStack() as undo:
            self._child = Child(request, self._limits)
            undo.callback(self._child.close)
            if self._stopped.is_set():
                self._child.wake()
            session = Session(self._child, self.name, self._settings.timeout_s)
            undo.pop_all()
        return session

    def _open_again(self) -> None:
        """Try until there is a frame again. Raises InputError after the last try."""
        session, problem = self._session, ""
        self._number += self._times.number
        self._skipped, lost_at = self._skipped + session.skipped, self._clock()
        session.skipped = 0
        for attempt in range(self._settings.reconnect):
            self._sleep(min(2.0**attempt, LONGEST_WAIT))
            if self._stopped.is_set():
                return
            try:
                self._session = self._opened()
            except (ImageError, SettingsError):
                raise
            except InputError as error:
                problem = f" The last try: {error}"
                continue
            self._times.begin_again()
            note(
                self.notices,
                f"{self.name} was lost at {self._times.last or 0:.2f} s because {session.lost}; it "
                f"was opened again after {self._clock() - lost_at:.1f} s.",
            )
            return
        if self._stopped.is_set():
            return
        tried = _tried(self._settings.reconnect)
        raise InputError(
            f"{self.name} was lost after {self._number:,} frames, at {self._times.last or 0:.2f} "
            f"s, because {session.lost}; it was {tried}.{problem}"
        )


def _tried(tries: int) -> str:
    """How often a stream was opened again."""
    if not tries:
        return "not opened again, as reconnect is 0"
    return f"tried {'once' if tries == 1 else f'{tries} times'} to open it again"


class _Times:
    """When frames are shown, in seconds after the first one, over all sessions of a stream.

    last: of the last frame, or None. number: frames of the session so far.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.last: float | None = None
        self.number = 0
        self._clock, self._heard = clock, clock()
        self._offset: float | None = None

    def begin_again(self) -> None:
        """Another session begins, whose clock is another one."""
        self._offset, self.number = None, 0

    def placed(self, told: Told) -> float:
        """The time of a frame: by the stream's clock, after a break or a jump of it by ours."""
        now = self._clock()
        passed = now - self._heard
        time_s = None if self._offset is None else told.time_s + self._offset
        if self.last is None:
            time_s = 0.0
        elif time_s is None or not 0 < time_s - self.last < passed + JUMP:
            time_s = self.last + max(passed, LEAST)
        if self._offset is None or time_s != told.time_s + self._offset:
            self._offset = time_s - told.time_s
        self.last, self._heard = time_s, now
        return time_s
