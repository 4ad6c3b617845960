"""What sources of frames have in common: their settings, their facts, the pace of a live one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import inf, isfinite
from typing import Any, Protocol, TypeVar

from facenet.errors import FacenetError, SettingsError
from facenet.images.video import Frame

OFF, AUTO = "off", "auto"
"""No hardware decoder; the first that can be had."""
NOTICES = 1000
"""Sentences that a source keeps at most."""
CATCHING_UP = 0.5
"""Seconds after which a live source gives a frame although a newer one is due."""


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """How a source of frames is read.

    start, stop: seconds; frames from start on (files and sequences only) and before stop.
    apart: decode a file in a child process, which may die without harm; cameras and streams
    always are, sequences of pictures never. live: drop the frames for which it is too late by the
    clock; None: yes for cameras and streams, no for files, sequences and recordings behind an
    address. hardware: "off", "auto" or FFmpeg's name of a kind of device ("cuda", "vaapi").
    rate: frames a second of a sequence (25 if None), or asked of a camera. size: width and height
    asked of a camera. reconnect: tries in a row to open a camera or a stream again, after 1, 2, 4
    ... 30 seconds; 0: none. timeout_s: seconds without a frame after which one counts as
    stalled. threads: of the decoder.
    """

    start: float = 0.0
    stop: float | None = None
    apart: bool = True
    live: bool | None = None
    hardware: str = OFF
    rate: float | None = None
    size: tuple[int, int] | None = None
    reconnect: int = 5
    timeout_s: float = 10.0
    threads: int = 2

    def __post_init__(self) -> None:
        last = inf if self.stop is None else self.stop
        _require(
            isfinite(self.start) and 0 <= self.start < last,
            "start and stop should be seconds, 0 <= start < stop; "
            f"got {self.start} and {self.stop}.",
        )
        _require(
            isinstance(self.hardware, str) and 0 < len(self.hardware) <= 40,
            f'hardware should be "off", "auto" or the name of a kind of device; got '
            f"{str(self.hardware)[:60]!r}.",
        )
        _require(
            self.rate is None or (isfinite(self.rate) and 0 < self.rate <= 100_000),
            f"rate should be frames a second, above 0; got {self.rate}.",
        )
        _require(_is_size(self.size), f"size should be (width, height) in pixels; got {self.size}.")
        _require(
            isinstance(self.reconnect, int) and self.reconnect >= 0,
            f"reconnect should be a whole number of tries, 0 or more; got {self.reconnect}.",
        )
        _require(
            isfinite(self.timeout_s) and 0 < self.timeout_s <= 86_400,
            f"timeout_s should be seconds, above 0 and at most a day; got {self.timeout_s}.",
        )
        _require(
            isinstance(self.threads, int) and self.threads >= 1,
            f"threads should be a whole number, 1 or more; got {self.threads}.",
        )

    @property
    def end(self) -> float:
        """Seconds before which frames are given; infinite where `stop` is None."""
        return inf if self.stop is None else self.stop


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise SettingsError(sentence)


def _is_size(size: tuple[int, int] | None) -> bool:
    return size is None or (
        len(size) == 2 and all(isinstance(side, int) and 0 < side <= 65_536 for side in size)
    )


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of a source once its first frame was decoded.

    width, height: pixels of the first frame, upright. rate: frames a second on average, frames:
    how many there are, about, duration_s: seconds; None where the source does not say.
    """

    width: int
    height: int
    rate: float | None = None
    frames: int | None = None
    duration_s: float | None = None


class Reading(Protocol):
    """Something that frames are read from: what stands behind a `Source`.

    name: for messages. live: whether late frames are dropped. skipped: how many were. notices:
    what happened, a sentence each.
    """

    name: str
    kind: str
    live: bool
    facts: SourceFacts
    notices: list[str]

    @property
    def skipped(self) -> int:
        """Frames that were dropped because they were late."""
        ...

    def frames(self) -> Iterator[Frame]:
        """The frames, once."""
        ...

    def stop(self) -> None:
        """End `frames` soon; from any thread or from a signal handler."""
        ...

    def close(self) -> None:
        """Let go of everything. May be called again."""
        ...


Anything = TypeVar("Anything")
Timed = tuple[int, float, Anything]
"""A number, seconds, and a frame of any kind."""


def paced(
    frames: Iterable[Timed[Any]],
    clock: Callable[[], float],
    sleep: Callable[[float], Any],
    skip: Callable[[], None],
) -> Iterator[Timed[Any]]:
    """Frames of a recording as if it were live: each when it is due, late ones passed over.

    clock: seconds. sleep: waits for some. skip: called for every frame that is passed over, which
    are those after which a newer one is due already.
    """
    coming = iter(frames)
    held = next(coming, None)
    if held is None:
        return
    begin = clock() - held[1]
    given = clock()
    for following in chain(coming, (None,)):
        now = clock()
        late = following is not None and following[1] <= now - begin
        if late and now - given < CATCHING_UP:
            skip()
        else:
            if held[1] > now - begin:
                sleep(held[1] - (now - begin))
            yield held
            given = clock()
        held = following or held


def newest(frames: Iterable[Timed[Any]], skip: Callable[[], None]) -> Iterator[Timed[Any]]:
    """Of frames that come whether they are asked for or not, the newest that was not given yet.

    They are taken in a thread, which ends when they do. skip: called for every other frame.
    """
    changed, problems = threading.Condition(), list[FacenetError]()
    held: list[Timed[Any] | None] = []

    def hold(frame: Timed[Any] | None) -> None:
        with changed:
            if held and frame is not None:
                held.clear()
                skip()
            held.append(frame)
            changed.notify()

    def take_all() -> None:
        try:
            for frame in frames:
                hold(frame)
        except FacenetError as error:
            problems.append(error)
        finally:
            hold(None)

    threading.Thread(target=take_all, daemon=True).start()
    while True:
        with changed:
            changed.wait_for(lambda: bool(held))
            frame = held.pop(0)
        if frame is None:
            break
        yield frame
    for problem in problems:
        raise problem


def note(notices: list[str], sentence: str) -> None:
    """Add a sentence, unless it is empty or there are enough already."""
    if sentence and len(notices) < NOTICES:
        notices.append(sentence)
