"""The child process that decodes a video: whatever a hostile file does to it, the parent lives.

    python -P -m facenet.images.decoder

On stdin comes one line of JSON, the request, and then a byte for each place in the shared memory
that a frame may be written to. On stdout goes a line of JSON per message, see `apart`. A local
file comes open, by its descriptor, and FFmpeg may open nothing. The process ends when stdin does.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from math import inf
from queue import SimpleQueue
from typing import IO, Any

import numpy as np

from facenet.errors import FacenetError, InputError
from facenet.images.addresses import Address
from facenet.images.footage import Footage, footage_of
from facenet.images.limits import ImageLimits
from facenet.images.reading import Timed, newest, paced
from facenet.images.streams import is_recording, open_stream

LONGEST = 1 << 16
"""Bytes of the request at most."""
BEAT = 1.0
"""Seconds between two signs of life while no frame is sent."""
MEMORY = 4 << 30
"""Bytes of address space beyond what frames need."""
PER_PIXEL = 32
"""Bytes that a decoder may hold for each pixel that a frame may have."""


def main() -> None:
    """Serve one request."""
    inlet, say = channels()
    request = json.loads(inlet.readline(LONGEST))
    arena = _arena(request)
    memory = MEMORY + len(arena) + PER_PIXEL * int(request["max_pixels"])
    limit_self(memory if request["hardware"] == "off" else None)  # devices map more than they use
    places: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=_listen, args=(inlet, places), daemon=True).start()
    try:
        with _opened(request) as footage:
            _serve(footage, request, _Desk(footage, arena, request, places, say))
    except FacenetError as error:
        say(problem=[type(error).__name__, str(error)[:2000]])
    except MemoryError:
        say(problem=["InputError", f"{request['name']} needs too much memory to be decoded."])
    os._exit(0)  # a thread of FFmpeg that hangs is no reason to stay


def channels() -> tuple[IO[bytes], Callable[..., None]]:
    """The way in, and what sends a message and data after it; nothing else reaches stdout now."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    lock = threading.Lock()

    def say(data: bytes = b"", **message: Any) -> None:
        line = json.dumps(message).encode() + b"\n" + data
        with lock:
            try:
                out.write(line)
                out.flush()
            except OSError:
                os._exit(0)

    return sys.stdin.buffer, say


def _arena(request: dict[str, Any]) -> mmap.mmap:
    """The memory that is shared with the parent."""
    place, size = request["arena"], int(request["places"]) * int(request["place_bytes"])
    if isinstance(place, str):
        return mmap.mmap(-1, size, tagname=place)  # type: ignore[call-arg,unused-ignore]
    return mmap.mmap(place, size)


def limit_self(memory: int | None) -> None:
    """Bound the address space to so many bytes, write no file and no core dump, where the system
    lets it."""
    try:
        import resource
    except ImportError:
        return
    limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0}
    if memory is not None:
        limits["RLIMIT_AS"] = memory
    for name, bound in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        soft = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        try:
            resource.setrlimit(kind, (soft, soft))
        except (OSError, ValueError):
            continue


def _listen(inlet: IO[bytes], places: SimpleQueue[int]) -> None:
    """Take the places that the parent gives back, until it is gone."""
    while taken := inlet.read(1):
        places.put(taken[0])
    os._exit(0)


def _opened(request: dict[str, Any]) -> AbstractContextManager[Footage]:
    limits = ImageLimits(max_pixels=request["max_pixels"])
    threads, hardware = request["threads"], request["hardware"]
    if request["address"] is not None:
        return open_stream(Address(**request["address"]), limits, threads, hardware)
    file = open(request["file"], "rb")  # noqa: SIM115 - open as long as the process lives
    return footage_of(file, request["name"], limits, threads, hardware)


class _Desk:
    """Where frames are turned into pixels and handed over."""

    def __init__(
        self,
        footage: Footage,
        arena: mmap.mmap,
        request: dict[str, Any],
        places: SimpleQueue[int],
        say: Callable[..., None],
    ) -> None:
        self.skipped = 0
        self.say = say
        self._footage, self._places, self._said = footage, places, time.monotonic()
        self._size = int(request["place_bytes"])
        self._memory = np.frombuffer(arena, np.uint8)
        footage.alive = self._beat

    def skip(self) -> None:
        """Count a frame that is not handed over."""
        self.skipped += 1

    def place(self) -> int:
        """Wait for a free place in the memory."""
        return self._places.get()

    def hand_over(self, place: int, frame: Timed[Any]) -> None:
        """Write the pixels of a frame to a place, and say so."""
        number, time_s, picture = frame
        pixels = self._footage.view(picture)
        height, width = pixels.shape[:2]
        begin = place * self._size
        np.copyto(self._memory[begin : begin + pixels.size].reshape(pixels.shape), pixels)
        self.say(frame=[place, number, time_s, width, height, self.skipped])
        self._said = time.monotonic()

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._said >= BEAT:
            self._said = now
            self.say(alive=True)


def _serve(footage: Footage, request: dict[str, Any], desk: _Desk) -> None:
    """Hand over the frames of an open video, from the first to the last."""
    address = request["address"]
    ends = address is None or is_recording(footage, Address(**address))
    frames: Iterator[Timed[Any]] = footage.frames()
    if ends:
        frames = _frames(footage, request)
    first = next(frames, None)
    if first is None and not ends:
        raise InputError(
            f"{footage.name} gave no frame: {footage.lost or 'it ended at once'}. Check that it "
            "is there and gives video."
        )
    live = not ends if request["live"] is None else bool(request["live"])
    desk.say(facts=_facts(footage, first, live=live, ends=ends))
    if first is not None:
        frames = chain([first], frames)
    if live and ends:
        frames = paced(frames, time.monotonic, time.sleep, desk.skip)
    elif live:
        frames = newest(frames, desk.skip)
    _hand_over_all(frames, desk)
    desk.say(end=footage.lost[:200])


def _frames(footage: Footage, request: dict[str, Any]) -> Iterator[Timed[Any]]:
    footage.skip_to(request["start"])
    stop = request["stop"]
    return footage.selected(request["start"], inf if stop is None else stop)


def _hand_over_all(frames: Iterator[Timed[Any]], desk: _Desk) -> None:
    """A place first, then the frame: of a live source the newest at the time of asking."""
    while True:
        place = desk.place()
        frame = next(frames, None)
        if frame is None:
            return
        desk.hand_over(place, frame)


def _facts(footage: Footage, first: Timed[Any] | None, *, live: bool, ends: bool) -> dict[str, Any]:
    facts = footage.facts()
    width, height = facts.width, facts.height
    if first is not None:
        height, width = footage.pixels(first[2]).shape[:2]
    return {
        "width": width,
        "height": height,
        "rate": facts.rate,
        "duration_s": facts.duration_s,
        "live": live,
        "ends": ends,
        "notice": footage.notice[:500],
    }


if __name__ == "__main__":
    main()
