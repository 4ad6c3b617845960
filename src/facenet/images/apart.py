"""A decoder in a child process: frames come through shared memory, and a crash is a message.

The child is `facenet.images.decoder`. It gets one request and then bytes, each a place in the
memory that is free; it sends lines of JSON, whose every value is checked here, since a decoder
that was taken over could send anything. At most `PLACES` frames are decoded ahead. The memory has
no name in the file system and the child ends with its stdin, so nothing is left behind however
either of the two ends.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import isfinite
from queue import Empty, SimpleQueue
from typing import IO, Any

import numpy as np

from facenet import errors
from facenet.errors import FacenetError, InputError, SettingsError
from facenet.images.limits import ImageLimits
from facenet.types import ImageArray

COMMAND = (sys.executable, "-P", "-m", "facenet.images.decoder")
"""What decodes; -P: its modules never come from the work folder."""
PLACES = 4
"""Frames that are decoded ahead of the one that is looked at."""
LONGEST = 1 << 14
"""Bytes of a message at most."""
MANY = 1000
"""Messages that may wait: far more than an honest child sends unasked."""
PROBLEMS = ("InputError", "ImageError", "SettingsError", "MissingExtraError")
"""Errors that a child may tell."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a child says, or what became of it.

    kind: "facts", "frame", "alive", "problem" and "end" are the child's; "gone": it ended without
    a word; "woken": `Child.wake` was called; "silent": nothing came in time. value: what was said.
    """

    kind: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Told:
    """A frame that lies in the shared memory, and how many were skipped until then."""

    place: int
    number: int
    time_s: float
    width: int
    height: int
    skipped: int


class Child:
    """A child process that decodes one source, and the memory that is shared with it.

    request: what is to be read, as `decoder` wants it. file: the open file, or None.
    Raises InputError where no process can be started.
    """

    def __init__(
        self, request: Mapping[str, Any], limits: ImageLimits, file: IO[bytes] | None = None
    ) -> None:
        if getattr(sys, "frozen", False):  # there, sys.executable is the application itself
            raise SettingsError(
                "A video cannot be decoded in a process of its own inside a frozen application; "
                "pass SourceSettings(apart=False) for a file."
            )
        self._place_bytes = -(-3 * limits.max_pixels // mmap.PAGESIZE) * mmap.PAGESIZE
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._memory, handle = _shared(PLACES * self._place_bytes)
        shared = {
            "places": PLACES,
            "place_bytes": self._place_bytes,
            "arena": handle,
            "max_pixels": limits.max_pixels,
            "file": None if file is None else file.fileno(),
        }
        if os.name == "nt" and file is not None:  # descriptors are not handed over there
            shared["file"] = file.name
        try:
            self._process = started([n for n in (handle, shared["file"]) if isinstance(n, int)])
        finally:
            if isinstance(handle, int):
                os.close(handle)
        self._listening = threading.Thread(
            target=_listen, args=(self._process, self._messages), daemon=True
        )
        self._listening.start()
        self._end = weakref.finalize(self, _end, self._process, self._listening)
        self._write(json.dumps({**request, **shared}).encode() + b"\n")

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def give(self, place: int) -> None:
        """Let the child write a frame to a place."""
        self._write(bytes([place]))

    def take(self, patience: float) -> Message:
        """The next message, waited for so many seconds at most."""
        try:
            return self._messages.get(timeout=patience)
        except Empty:
            return Message("silent")

    def pixels(self, told: Told) -> ImageArray:
        """A copy of the frame at a place: uint8 (H, W, 3)."""
        shape = (told.height, told.width, 3)
        count = told.height * told.width * 3
        if not (0 <= told.place < PLACES and 0 < count <= self._place_bytes):
            raise InputError(
                "The process that decodes sent a frame that does not fit, "
                f"{told.width}x{told.height} pixels: the video may be made to do harm."
            )
        begin = told.place * self._place_bytes
        return np.frombuffer(self._memory, np.uint8, count, begin).reshape(shape).copy()

    def wake(self) -> None:
        """Let `take` return at once; from any thread or from a signal handler."""
        self._messages.put(Message("woken"))

    def close(self) -> None:
        """End the process and give the memory back. May be called again."""
        self._end()
        self._memory.close()

    def _write(self, data: bytes) -> None:
        stdin = self._process.stdin
        with suppress(OSError):  # it is gone; the listening thread tells it
            if stdin is not None:
                stdin.write(data)
                stdin.flush()


def _shared(size: int) -> tuple[mmap.mmap, int | str]:
    """Memory to share and how a child gets it: a descriptor, or a name on Windows.

    Only what is written to takes up memory. On Linux nobody can shrink it, so that reading it
    never fails. Raises InputError where a limit of this process is in the way.
    """
    if os.name == "nt":
        name = f"facenet-{secrets.token_hex(16)}"
        return mmap.mmap(-1, size, tagname=name), name  # type: ignore[call-arg,unused-ignore]
    with ExitStack() as undo:
        try:
            handle = _unnamed()
            undo.callback(os.close, handle)
            os.ftruncate(handle, size)
            memory = mmap.mmap(handle, size)
        except OSError as error:
            raise InputError(
                f"The {size:,} bytes for frames cannot be shared with the process that decodes: "
                f"{error.strerror}. Raise the limits of this process (ulimit -f, ulimit -v), or "
                "pass ImageLimits with fewer max_pixels."
            ) from error
        _seal(handle)
        undo.pop_all()
    return memory, handle


def _unnamed() -> int:
    """A file in memory, or on the disk where there is none in memory, without a name."""
    if sys.platform == "linux":
        return os.memfd_create("facenet", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _seal(handle: int) -> None:
    """Keep its size as it is, where the system can."""
    if sys.platform == "linux":
        import fcntl

        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)


def started(handles: list[int], command: Sequence[str] = COMMAND) -> subprocess.Popen[bytes]:
    """A child, outside the group of processes that Ctrl-C of a terminal reaches.

    handles: descriptors that it gets. Raises InputError where none can be started.
    """
    places = os.pathsep.join(place for place in sys.path if place)
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # none are used, so none start
    apart: dict[str, Any] = {"start_new_session": True, "pass_fds": handles}
    if os.name == "nt":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined,unused-ignore]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "PYTHONPATH": places},
            **apart,
        )
    except OSError as error:
        raise InputError(
            f"No process can be started to decode the video: {error.strerror}. Free some memory, "
            "or pass SourceSettings(apart=False) for a file, and no audio for a film."
        ) from error


def _end(process: subprocess.Popen[bytes], listening: threading.Thread) -> None:
    """End a child; nothing of it is left."""
    process.kill()
    process.wait()
    listening.join()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()


def _listen(process: subprocess.Popen[bytes], messages: SimpleQueue[Message]) -> None:
    """Read what a child says until it ends, and say how it ended."""
    assert process.stdout is not None
    while line := process.stdout.readline(LONGEST):
        message = _message(line)
        if message is None or messages.qsize() > MANY:
            process.kill()
            break
        messages.put(message)
    messages.put(Message("gone", ending(process.wait())))


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if name in ("SIGKILL", "SIGTERM"):
        return f"was ended from outside ({name}), perhaps for want of memory"
    return f"crashed ({name})"


# ---- what a child says, which is not to be trusted


def _message(line: bytes) -> Message | None:
    """A message, or None for what no honest child says."""
    try:
        said = json.loads(line)
        ((kind, value),) = said.items()
        return Message(kind, _CHECKS[kind](value))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _told(value: Any) -> Told:
    place, number, time_s, width, height, skipped = value
    told = Told(
        whole(place),
        whole(number),
        _seconds(time_s),
        whole(width),
        whole(height),
        whole(skipped),
    )
    if not isfinite(told.time_s):
        raise ValueError("a time should be finite")
    return told


def whole(value: Any) -> int:
    """A count that a child sent. Raises ValueError for anything else."""
    if not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise ValueError("expected a whole number")
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float):
        raise ValueError("expected a number")
    return float(value)


def _facts(value: Any) -> dict[str, Any]:
    def number(name: str) -> float | None:
        found = value[name]
        return None if found is None or not isfinite(found) or found <= 0 else float(found)

    return {
        "width": whole(value["width"]),
        "height": whole(value["height"]),
        "rate": number("rate"),
        "duration_s": number("duration_s"),
        "live": bool(value["live"]),
        "ends": bool(value["ends"]),
        "notice": str(value["notice"])[:500],
    }


def _problem(value: Any) -> FacenetError:
    name, sentence = value
    if name not in PROBLEMS:
        raise ValueError("expected the name of an error")
    kind: type[FacenetError] = getattr(errors, name)
    return kind(str(sentence)[:2000])


_CHECKS: Mapping[str, Any] = {
    "facts": _facts,
    "frame": _told,
    "alive": bool,
    "problem": _problem,
    "end": lambda value: str(value)[:200],
}
