"""One source as a child process decodes it, from its facts to its end; and a file read so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import IO, Any

from facenet.errors import InputError
from facenet.images.addresses import Address
from facenet.images.apart import PLACES, Child, Message, Told
from facenet.images.limits import ImageLimits
from facenet.images.reading import SourceFacts, SourceSettings, note
from facenet.images.video import Frame
from facenet.types import ImageArray

PATIENCE = 60.0
"""Seconds without a sign of life after which the decoder of a file counts as hung."""
STARTING = 20.0
"""Seconds that a process has to start, on top of the patience with a source."""
WOKEN = "woken"


class Session:
    """A child that decodes a source.

    patience: seconds without a word after which it has stalled. Raises the error that the child
    tells, and InputError where it is gone or silent before its first frame.
    live, ends: whether late frames are dropped, and whether it is known where the source ends.
    skipped: frames that were dropped. lost: why it ended too early, "" where it did not.
    """

    def __init__(self, child: Child, name: str, patience: float) -> None:
        self.name, self.skipped, self.lost = name, 0, ""
        self.child, self._patience, self._waited = child, patience, 0.0
        facts = self._facts(self._next(patience + STARTING))
        rate, duration = facts["rate"], facts["duration_s"]
        frames = round(rate * duration) if rate and duration else None
        self.facts = SourceFacts(facts["width"], facts["height"], rate, frames, duration)
        self.live, self.ends, self.notice = facts["live"], facts["ends"], facts["notice"]

    def frames(self) -> Iterator[tuple[Told, ImageArray]]:
        """What is told of each frame, and its pixels: uint8 (H, W, 3). See `lost` after it.

        Raises what the child tells: also of a video that is damaged, after its last frame.
        """
        child = self.child
        for place in range(0 if self.live else PLACES):
            child.give(place)
        while True:
            if self.live:
                child.give(0)  # only now, so that the newest frame is sent
            message = self._next(self._patience)
            if message.kind != "frame":
                break
            image = child.pixels(message.value)
            if not self.live:
                child.give(message.value.place)
            self.skipped = message.value.skipped
            yield message.value, image
        self._finish(message)

    def _next(self, patience: float) -> Message:
        """The next message that is more than a sign of life."""
        self._waited = patience
        message = self.child.take(patience)
        while message.kind == "alive":
            message = self.child.take(patience)
        return message

    def _facts(self, message: Message) -> dict[str, Any]:
        if message.kind == "facts":
            return dict(message.value)
        self._finish(message)
        raise InputError(
            f"{self.name} could not be decoded: "
            f"{self.lost or 'the reading was stopped'}. Try it again, or another source."
        )

    def _finish(self, message: Message) -> None:
        """Note why there are no more frames."""
        if message.kind == "problem":
            raise message.value
        if message.kind == "silent":
            self.lost = f"it gave no frame for {self._waited:g} s"
        elif message.kind == "gone":
            self.lost = f"the process that decodes it {message.value}"
        elif message.kind == "end":
            self.lost = "" if self.ends else message.value or "it ended"
        elif message.kind != WOKEN:
            self.lost = f"the process that decodes it said {message.kind!r} at a wrong time"


def requested(name: str, settings: SourceSettings, address: Address | None) -> dict[str, Any]:
    """What `decoder` is asked for."""
    return {
        "name": name,
        "address": None if address is None else asdict(address),
        "start": settings.start,
        "stop": settings.stop,
        "live": settings.live,
        "hardware": settings.hardware,
        "threads": settings.threads,
    }


class FileApart:
    """A file that is decoded in a child process. See `Reading`."""

    kind = "file"

    def __init__(
        self, file: IO[bytes], name: str, settings: SourceSettings, limits: ImageLimits
    ) -> None:
        with ExitStack() as undo:
            self._child = Child(requested(name, settings, None), limits, file)
            undo.callback(self._child.close)
            self._session = Session(self._child, name, PATIENCE)
            undo.pop_all()
        self.name, self.live, self.facts = name, self._session.live, self._session.facts
        self.notices = list[str]()
        note(self.notices, self._session.notice)

    @property
    def skipped(self) -> int:
        """Frames that were dropped because they were late."""
        return self._session.skipped

    def frames(self) -> Iterator[Frame]:
        """The frames, and InputError after the last one of a file that is damaged or hostile."""
        count, last = 0, 0.0
        for told, image in self._session.frames():
            yield Frame(told.number, told.time_s, image)
            count, last = count + 1, told.time_s
        require_complete(self._session, count, last)

    def stop(self) -> None:
        """End `frames` soon."""
        self._child.wake()

    def close(self) -> None:
        """End the child."""
        self._child.close()


def require_complete(session: Session, count: int, last: float) -> None:
    """Raise InputError where a session ended too early. count: frames, last: seconds, so far."""
    if session.lost:
        raise InputError(
            f"{session.name} could not be read to its end: {session.lost}, after {count:,} frames, "
            f"at {last:.2f} s. The video may be damaged or made to do harm; copy it again."
        )
