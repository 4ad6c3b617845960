"""One door for whatever shows frames one after the other: files, sequences, cameras, streams.

Files are decoded in a child process unless `SourceSettings(apart=False)` asks for this one,
cameras and streams always are, and pictures of a sequence are opened as `load_image` does. What
is no address that the user wrote is a path, and a path never opens a connection.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any

from facenet.errors import SettingsError
from facenet.images.addresses import find_address
from facenet.images.connection import Connection
from facenet.images.footage import open_footage
from facenet.images.limits import LIMITS, ImageLimits
from facenet.images.localfile import open_file, require_local
from facenet.images.reading import (
    Reading,
    SourceFacts,
    SourceSettings,
    Timed,
    note,
    paced,
)
from facenet.images.sequence import Sequence, is_sequence
from facenet.images.session import FileApart
from facenet.images.video import Frame

SETTINGS = SourceSettings()
"""What holds where nothing is asked for."""


class Source:
    """An open source of frames: iterate over it, once, and close it or use it in a `with`.

    name: for messages, without the user and password of an address. kind: "file", "sequence",
    "camera" or "stream". live: whether frames are dropped when they are late. facts: what is known
    of it, by its first frame. notices: what happened, a sentence each: opened again, decoded
    without hardware, another size of frames. settings: how it is read.
    """

    def __init__(
        self, reading: Reading, closing: ExitStack, settings: SourceSettings = SETTINGS
    ) -> None:
        self.name, self.kind, self.live = reading.name, reading.kind, reading.live
        self.facts: SourceFacts = reading.facts
        self.notices, self.settings = reading.notices, settings
        self._reading, self._closing = reading, closing
        self._stopped = threading.Event()
        self._frames = self._all_frames()

    @property
    def skipped(self) -> int:
        """How many frames were dropped because they were late."""
        return self._reading.skipped

    def __iter__(self) -> Iterator[Frame]:
        """The frames; their numbers count all frames of the source, skipped ones too.

        Raises InputError after the last frame of a file that is damaged, cut short or crashed its
        decoder, and of a stream that is lost for good.
        """
        return self._frames

    def stop(self) -> None:
        """End the iteration after the current frame; from any thread or a signal handler."""
        self._stopped.set()
        self._reading.stop()

    def close(self) -> None:
        """Let go of the file, the connection and the process. May be called again."""
        self._stopped.set()
        self._closing.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _all_frames(self) -> Iterator[Frame]:
        size = (self.facts.width, self.facts.height)
        for frame in () if self._stopped.is_set() else self._reading.frames():
            now = (frame.image.shape[1], frame.image.shape[0])
            if now != size:
                note(
                    self.notices,
                    f"The frames of {self.name} changed from {size[0]}x{size[1]} to "
                    f"{now[0]}x{now[1]} pixels at {frame.time_s:.2f} s.",
                )
                size = now
            yield frame
            if self._stopped.is_set():
                return


def open_source(
    place: str | os.PathLike[str],
    settings: SourceSettings = SETTINGS,
    *,
    limits: ImageLimits = LIMITS,
) -> Source:
    """Open what shows frames one after the other, and decode the first of them.

    place: the path of a video; a folder of pictures, or a pattern such as frame_%04d.png; a camera
    by its number ("0" is the first), its device or "camera:NAME"; or an address that begins
    with rtsp, rtsps, http, https, rtmp, udp, tcp or srt. limits: `max_pixels` bounds a frame.
    Raises InputError for what cannot be opened or gives no frame; SettingsError for settings that
    do not fit; ImageError above the limits; MissingExtraError without PyAV.
    """
    with ExitStack() as closing:
        reading = _reading(place, settings, limits, closing)
        closing.callback(reading.close)
        kept = closing.pop_all()
    return Source(reading, kept, settings)


def _reading(
    place: str | os.PathLike[str],
    settings: SourceSettings,
    limits: ImageLimits,
    closing: ExitStack,
) -> Reading:
    address = None
    if isinstance(place, str):
        address = find_address(place, rate=settings.rate, size=settings.size)
    if address is not None:
        if not settings.apart:
            raise SettingsError(
                "Cameras and streams are always decoded in a process of their own; "
                f"leave out apart=False for {address.name}."
            )
        return Connection(address, settings, limits)
    name, sequence = require_local(place), is_sequence(place)
    _require_fit(settings, name, sequence=sequence)
    if sequence:
        return Sequence(place, settings, limits)
    if settings.apart:
        return FileApart(closing.enter_context(open_file(place, name)), name, settings, limits)
    return FileHere(place, settings, limits, closing)


def _require_fit(settings: SourceSettings, name: str, *, sequence: bool) -> None:
    """Raises SettingsError for what a file or a sequence has of its own."""
    rate = None if sequence else settings.rate
    for option, value in (("rate", rate), ("size", settings.size)):
        if value is not None:
            fits = "pictures of a folder and for cameras" if option == "rate" else "cameras"
            raise SettingsError(f"{option} is for {fits}; leave it out for {name}.")


class FileHere:
    """A file that is decoded in this process. See `Reading`.

    closing: what is closed with it. clock, sleep: of a file that is read as if it were live.
    """

    kind = "file"

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: SourceSettings,
        limits: ImageLimits,
        closing: ExitStack,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        video = closing.enter_context(
            open_footage(path, limits, settings.threads, settings.hardware)
        )
        self.name, self.live, self.skipped = video.name, bool(settings.live), 0
        self.notices = list[str]()
        note(self.notices, video.notice)
        self._stopped = threading.Event()
        self._clock, self._sleep = clock, sleep or self._stopped.wait
        video.skip_to(settings.start)
        frames = video.selected(settings.start, settings.end)
        first = next(frames, None)
        self._video = video
        self._found = iter(()) if first is None else chain([first], frames)
        told = video.facts()
        width, height = told.width, told.height
        if first is not None:
            height, width = video.pixels(first[2]).shape[:2]
        self.facts = SourceFacts(width, height, told.rate, told.frames, told.duration_s)

    def frames(self) -> Iterator[Frame]:
        """The frames, and InputError after the last one of a file that is damaged."""
        found: Iterator[Timed[Any]] = self._found
        if self.live:
            found = paced(found, self._clock, self._sleep, self._skip)
        for number, time_s, frame in found:
            if self._stopped.is_set():
                return
            yield Frame(number, time_s, self._video.pixels(frame))

    def stop(self) -> None:
        """End `frames` soon."""
        self._stopped.set()

    def close(self) -> None:
        """The file is closed by who opened it."""

    def _skip(self) -> None:
        self.skipped += 1
