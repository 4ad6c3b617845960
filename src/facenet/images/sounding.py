"""The child process that reads the sound of a video: whatever a file does to it, the parent lives.

    python -P -m facenet.images.sounding

On stdin comes a line of JSON, the request, and another with the cut. On stdout goes a line of JSON
per message, and bytes after those of a header and of a packet, see `soundapart`. The file comes
open, by its descriptor, and FFmpeg may open nothing. The process ends when stdin does.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from queue import SimpleQueue
from typing import IO, Any

from facenet.errors import FacenetError
from facenet.images.decoder import BEAT, LONGEST, MEMORY, channels, limit_self
from facenet.images.footage import pyav
from facenet.images.sound import UNHEARD, Cut, Sound, sound_of

CLUSTER = b"\x1f\x43\xb6\x75\x80"
"""An empty cluster of Matroska: a header alone is not read as a file."""
PLAIN_AAC = 2 << 11
"""What the decoder of AAC is told, without its rate and channels."""
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
"""Samples a second in the order of their numbers in AAC."""


def main() -> None:
    """Serve one request, and leave at once: a thread of FFmpeg that hangs is no reason to stay."""
    code = 1
    try:
        inlet, say = channels()
        request = json.loads(inlet.readline(LONGEST))
        limit_self(MEMORY)
        cuts: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=_listen, args=(inlet, cuts), daemon=True).start()
        _serve(request, cuts, say)
        code = 0
    finally:
        os._exit(code)


def _listen(inlet: IO[bytes], cuts: SimpleQueue[bytes]) -> None:
    """Take the cut, and stay until the parent is gone."""
    while line := inlet.readline(LONGEST):
        cuts.put(line)
    os._exit(0)


def _serve(request: dict[str, Any], cuts: SimpleQueue[bytes], say: Callable[..., None]) -> None:
    """Say what the sound is, wait for the cut and send the packets in it."""
    try:
        with (
            open(request["file"], "rb", buffering=0) as file,
            sound_of(_Watched(file, say), request["name"]) as sound,
        ):
            if sound is None:
                say(none=True)
                return
            _send_header(sound, request["suffix"], say)
            _send_packets(sound, _cut(cuts.get()), say)
    except FacenetError as error:
        say(problem=str(error)[:2000])


def _send_header(sound: Sound, suffix: str, say: Callable[..., None]) -> None:
    """Matroska that holds nothing but what a muxer must know of the sound."""
    av, header = pyav(), _Growing()
    try:
        with av.open(header, "w", format="matroska") as target:
            out = sound.attach(target, suffix)
            bare = out.codec_context.codec.canonical_name == "aac" and not (
                sound.encoder or out.codec_context.extradata
            )
            if bare:  # as in MPEG-TS, where each packet tells it; Matroska wants it here
                out.codec_context.extradata = _plain_aac(out.codec_context)
            layout = out.codec_context.layout.name
            target.start_encoding()
    except (av.FFmpegError, OSError, ValueError):
        say(unusable=True)
        return
    data = bytes(header.data) + CLUSTER
    told = {"size": len(data), "layout": layout, "bare": bare, "tracks": sound.tracks}
    say(data, header=told)


def _plain_aac(context: Any) -> bytes:
    """The two bytes that tell rate and channels of plain AAC. Raises ValueError for odd ones."""
    number = AAC_RATES.index(int(context.rate))
    return (PLAIN_AAC | number << 7 | int(context.channels) << 3).to_bytes(2, "big")


def _send_packets(sound: Sound, cut: Cut, say: Callable[..., None]) -> None:
    for packet in sound.packets(cut):
        base, data = packet.time_base, bytes(packet)
        say(
            data,
            packet={
                "size": len(data),
                "pts": packet.pts,
                "duration": max(0, packet.duration or 0),
                "base": [base.numerator, base.denominator],
                "key": packet.is_keyframe,
                "faults": sound.faults,
                "unheard": _unheard(packet),
            },
        )
    say(end=sound.faults)


def _unheard(packet: Any) -> str:
    """How much of a packet is not heard, in hexadecimal; "" where all of it is, and where PyAV is
    too old to write it: the sound then ends some milliseconds later."""
    kind = getattr(pyav().packet, "PacketSideData", None)
    return bytes(packet.get_sidedata(UNHEARD)).hex() if hasattr(kind, "update") else ""


def _cut(line: bytes) -> Cut:
    asked = json.loads(line)
    return Cut(Fraction(*asked["first"]), asked["stop"] and Fraction(*asked["stop"]))


class _Growing:
    """A file in memory in which FFmpeg cannot go back: what is written is never changed."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


class _Watched:
    """The file as FFmpeg sees it: while it is read, a sign of life goes to the parent."""

    def __init__(self, file: IO[bytes], say: Callable[..., None]) -> None:
        self._file, self._say, self._said = file, say, time.monotonic()
        self.name, self.seek, self.tell = "", file.seek, file.tell

    def read(self, size: int) -> bytes:
        now = time.monotonic()
        if now - self._said >= BEAT:
            self._said = now
            self._say(alive=True)
        return self._file.read(size)


if __name__ == "__main__":
    main()
