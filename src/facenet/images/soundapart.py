"""The sound of a video file as a child process reads it: nothing of the file is read here.

The child is `facenet.images.sounding`. It gets one request, the open file and then the cut; it
sends a header that our own muxer made and the packets that the film needs, copied or encoded anew.
Every value is checked here, since a process that was taken over could send anything. What waits is
bounded, and the child waits with it: a long film holds little of its sound.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from queue import Empty, Queue
from typing import IO, Any

from facenet.errors import InputError, SettingsError
from facenet.images.apart import Message, ending, started, whole
from facenet.images.footage import open_file, pyav, require_local
from facenet.images.session import PATIENCE, STARTING
from facenet.images.sound import UNHEARD, Cut

COMMAND = (sys.executable, "-P", "-m", "facenet.images.sounding")
"""What reads the sound; -P: its modules never come from the work folder."""
AHEAD = 16
"""Messages that may wait."""
LONGEST = 1 << 12
"""Bytes of a message at most, without what follows it."""
LARGEST = 1 << 20
"""Bytes of a packet or of the header at most."""
FARTHEST = 1 << 62
"""The largest time, in ticks of any size."""

UNHEARD_BYTES = 10
"""How many bytes tell how much of a packet is not heard: two counts and two reasons."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a muxer must know of the sound.

    data: Matroska without a packet. layout: FFmpeg's name of its channels, which Matroska does not
    keep. bare: whether the packets tell it all, as in MPEG-TS, and the header is a makeshift.
    tracks: how many streams of sound the file has.
    """

    data: bytes
    layout: str
    bare: bool
    tracks: int


class SoundApart:
    """The sound of a source, on its way from the child into a film.

    notices: one sentence each about what could not be kept.
    """

    def __init__(self, name: str, child: Child, header: Header | None) -> None:
        self.name, self.notices = name, list[str]()
        self._child, self._header = child, header
        self._out: Any = None
        self._faults, self._refused, self._kept = 0, 0, 0
        self._end, self._lost = 0.0, ""  # where it ends in the film, in seconds, and why so early

    def attach(self, target: Any) -> None:
        """Add a stream to a container that is being made. Raises PyAV's errors and ValueError."""
        header = self._header
        if header is None:
            raise ValueError(f"the sound of {self.name} cannot be had")
        options = {"protocol_whitelist": "none"}
        with pyav().open(BytesIO(header.data), format="matroska", options=options) as head:
            stream = head.streams.best("audio")
            if stream is None or stream.codec_context is None:
                raise ValueError(f"the header of the sound of {self.name} holds none")
            self._out = target.add_stream_from_template(stream)
        context = self._out.codec_context
        if header.layout != context.layout.name:
            context.layout = header.layout
        if header.bare:
            context.extradata = None

    def packets(self, cut: Cut) -> Generator[Any, None, None]:
        """Packets of the attached stream, in order and on the clock of the film."""
        self._child.ask(cut)
        while (message := self._child.take(PATIENCE)).kind == "packet":
            told, data = message.value
            packet = _packet(told, data)
            packet.stream = self._out
            self._faults, self._kept = told["faults"], self._kept + 1
            self._end = float((packet.pts + packet.duration) * packet.time_base)
            yield packet
        if message.kind == "end":
            self._faults = message.value
        else:
            self._lost = _reason(message)

    def refused(self) -> None:
        """Note that a packet could not be written."""
        self._refused += 1

    def close(self) -> None:
        """End with a notice when something of the sound is missing."""
        if self._header is not None and self._header.tracks > 1:
            self.notices.append(
                f"{self.name} has {self._header.tracks} sound tracks: the film keeps one of them."
            )
        if self._lost:
            self.notices.append(
                f"The sound of {self.name} ends at {max(0.0, self._end):.2f} s of the film: "
                f"the process that reads it {self._lost}."
            )
        if faults := self._faults + self._refused:
            self.notices.append(
                f"The sound of {self.name} is damaged: {faults:,} parts of it are left out "
                f"of the film, {self._kept:,} are kept."
            )


class Child:
    """A child process that reads the sound of one open file for a film of a kind (its suffix).

    Raises InputError where no process can be started.
    """

    def __init__(self, file: IO[bytes], name: str, suffix: str) -> None:
        if getattr(sys, "frozen", False):  # there, sys.executable is the application itself
            raise SettingsError(
                "Sound is read in a process of its own, which cannot be started inside a frozen "
                "application; make the film without audio."
            )
        windows = os.name == "nt"  # descriptors are not handed over there
        handle = os.fsdecode(file.name) if windows else file.fileno()
        self._messages: Queue[Message] = Queue(AHEAD)
        self._process = started([handle] if isinstance(handle, int) else [], COMMAND)
        self._listening = threading.Thread(
            target=_listen, args=(self._process, self._messages), daemon=True
        )
        self._listening.start()
        self._write({"file": handle, "name": name, "suffix": suffix})

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def ask(self, cut: Cut) -> None:
        """Ask for the packets of a part of the source."""
        stop = None if cut.stop is None else cut.stop.as_integer_ratio()
        self._write({"first": cut.first.as_integer_ratio(), "stop": stop})

    def take(self, patience: float) -> Message:
        """The next message that is more than a sign of life."""
        try:
            while (message := self._messages.get(timeout=patience)).kind == "alive":
                continue
        except Empty:
            return Message("silent", patience)
        return message

    def close(self) -> None:
        """End the process; nothing of it is left."""
        self._process.kill()
        while self._listening.is_alive():  # it may wait for room
            with suppress(Empty):
                self._messages.get(timeout=0.01)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _write(self, request: Mapping[str, Any]) -> None:
        stdin = self._process.stdin
        with suppress(OSError):  # it is gone; the listening thread tells it
            if stdin is not None:
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()


@contextmanager
def open_sound(path: str | os.PathLike[str], suffix: str) -> Iterator[SoundApart | None]:
    """The sound of a video file for a film of a kind, closed at the end; None of a file without.

    Raises InputError for a file that cannot be opened as a video. Where the child dies, there is
    a sound that cannot be attached: a film does not need it.
    """
    name = require_local(path)
    pyav()
    with open_file(path, name) as file:
        child = Child(file, name, suffix)
        try:
            message = child.take(PATIENCE + STARTING)
            if message.kind == "problem":
                raise InputError(message.value)
            header = message.value if message.kind == "header" else None
            yield None if message.kind == "none" else SoundApart(name, child, header)
        finally:
            child.close()


def _reason(message: Message) -> str:
    """Why there is no more sound, in words."""
    if message.kind == "gone":
        return str(message.value)
    if message.kind == "silent":
        return f"gave no sign of life for {message.value:g} s"
    return f"said {message.kind!r} at a wrong time"


def _packet(told: Mapping[str, Any], data: bytes) -> Any:
    """A packet of PyAV from what was told of it."""
    av = pyav()
    packet = av.Packet(data)
    packet.time_base = told["base"]
    packet.pts = packet.dts = told["pts"]
    packet.duration, packet.is_keyframe = told["duration"], told["key"]
    if told["unheard"]:
        kind = av.packet.packet_sidedata_type_from_literal(UNHEARD)
        unheard = av.packet.PacketSideData(kind, len(told["unheard"]))
        unheard.update(told["unheard"])
        packet.set_sidedata(unheard)
    return packet


# ---- what the child says, which is not to be trusted


def _listen(process: subprocess.Popen[bytes], messages: Queue[Message]) -> None:
    """Read what a child says until it ends, and say how it ended."""
    assert process.stdout is not None
    while line := process.stdout.readline(LONGEST):
        message = _message(line, process.stdout)
        if message is None:
            process.kill()
            break
        messages.put(message)
    messages.put(Message("gone", ending(process.wait())))


def _message(line: bytes, stdout: IO[bytes]) -> Message | None:
    """A message with the bytes that follow it, or None for what no honest child says."""
    try:
        said = json.loads(line)
        ((kind, value),) = said.items()
        if kind == "header":
            return Message(kind, _header(value, stdout))
        if kind == "packet":
            return Message(kind, (_told(value), _bytes(value["size"], stdout)))
        return Message(kind, _CHECKS[kind](value))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError):
        return None


def _header(value: Any, stdout: IO[bytes]) -> Header:
    return Header(
        data=_bytes(value["size"], stdout),
        layout=str(value["layout"])[:100],
        bare=bool(value["bare"]),
        tracks=whole(value["tracks"]),
    )


def _bytes(size: Any, stdout: IO[bytes]) -> bytes:
    if not 0 < whole(size) <= LARGEST:
        raise ValueError("expected the size of a packet")
    data = stdout.read(size)
    if len(data) != size:
        raise ValueError("expected as many bytes as were told")
    return data


def _told(value: Any) -> dict[str, Any]:
    if not isinstance(value["pts"], int) or abs(value["pts"]) > FARTHEST:
        raise ValueError("expected a time")
    ticks, seconds = (whole(number) for number in value["base"])
    if not (0 < ticks < 1 << 31 and 0 < seconds < 1 << 31):
        raise ValueError("expected a clock")
    unheard = bytes.fromhex(value["unheard"])
    if len(unheard) not in (0, UNHEARD_BYTES):
        raise ValueError("expected how much of a packet is not heard")
    return {
        "pts": value["pts"],
        "duration": whole(value["duration"]),
        "base": Fraction(ticks, seconds),
        "key": bool(value["key"]),
        "faults": whole(value["faults"]),
        "unheard": unheard,
    }


_CHECKS: Mapping[str, Any] = {
    "none": bool,
    "alive": bool,
    "unusable": bool,
    "end": whole,
    "problem": lambda value: str(value)[:2000],
}
