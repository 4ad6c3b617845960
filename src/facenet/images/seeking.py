"""Where to begin so that a video is decoded from a time on: at the last keyframe before it.

Frames keep the numbers that they have when the whole video is decoded. So a keyframe is gone to
only where the frames before it can be counted without decoding: in MP4, MOV, MKV and WebM, whose
packets are a frame each for the codecs of `ONE_EACH`. What is passed over is found in the index
(MP4 and MOV) or read and not decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from typing import Any

ONE_EACH = ("h264", "hevc", "av1", "libdav1d", "vp9", "libvpx-vp9", "mjpeg", "ffv1", "prores")
"""FFmpeg's names of the decoders for which a packet of those files is a frame that is shown."""
INDEXED = "mov"
"""The format whose header holds an index."""
COUNTED = (INDEXED, "matroska")
"""Formats whose packets are whole frames."""
HELD = 64 * 1024 * 1024
"""Bytes of packets that are held back while a later keyframe is looked for."""
TRIES = 3
"""Keyframes of the index that are looked at: the times there are those of decoding."""


def is_countable(container: Any, stream: Any) -> bool:
    """Whether the frames before a keyframe can be counted without decoding them."""
    return container.format.name.split(",")[0] in COUNTED and stream.codec_context.name in ONE_EACH


class Skipping:
    """The packets from the last keyframe at or before a time on.

    start: seconds after the first frame.
    keyframe: when it is shown, in units of the stream, None until it is known and where nothing
    was passed over. number: frames of the video that are shown before it, as far as packets were
    given out; right once the keyframe itself was decoded. origin: when the first frame is shown,
    in units of the stream, None until it is known. The header of MP4 and MOV tells it; for
    Matroska FFmpeg guesses, and may take the time of the sound.
    """

    def __init__(self, container: Any, stream: Any, start: float) -> None:
        self.keyframe: int | None = None
        self.number = 0
        indexed = container.format.name.split(",")[0] == INDEXED
        self.origin: int | None = stream.start_time if indexed else None
        self._container, self._stream = container, stream
        self._after = int(Fraction(start) / stream.time_base)

    def packets(self, alive: Callable[[], None]) -> Iterator[Any]:
        """The packets. alive: called for each that was read, given out or not."""
        self.number = self._go_to()
        packets = self._container.demux(self._stream)
        held, size = list[Any](), 0
        for packet in packets:
            alive()
            if packet.is_keyframe and self._is_early(packet):
                self.number += sum(not former.is_discard for former in held)
                held, size = [], 0
            held.append(packet)
            size += packet.size
            if not self._is_early(packet) or size > HELD:
                break
        if self.number and held[0].pts is not None:
            self.keyframe = held[0].pts
        for packet in held:
            yield self._noted(packet)
        for packet in packets:
            alive()
            yield self._noted(packet)

    def _is_early(self, packet: Any) -> bool:
        """Whether what is looked for comes after a packet; not where the frames cannot be counted:
        the first packet is no keyframe, or a frame is shown before it."""
        if self.origin is None and packet.is_keyframe:
            self.origin = packet.pts
        if packet.pts is None or self.origin is None:
            return False
        begun = packet.pts >= self.origin or packet.is_discard
        return bool(begun and packet.pts <= self.origin + self._after)

    def _noted(self, packet: Any) -> Any:
        """Count a packet that is decoded after the keyframe and shown before it."""
        early = self.keyframe is not None and packet.pts is not None and packet.pts < self.keyframe
        self.number += early and not packet.is_discard
        return packet

    def _go_to(self) -> int:
        """Go to a keyframe of the index; the number of frames before it."""
        entries = getattr(self._stream, "index_entries", None)
        if not entries or self.origin is None or not self._begins_well(entries[0]):
            self.origin = None
            return 0
        places, shown = list[tuple[int, int]](), 0
        for entry in entries:
            if entry.timestamp > self.origin + self._after:
                break
            if entry.is_keyframe:
                places.append((entry.timestamp, shown))
            shown += not entry.is_discard
        for time, number in islice(reversed(places), TRIES):
            if number and self._is_at(time):
                self._container.seek(time, stream=self._stream)
                return number
        self._container.seek(entries[0].timestamp, stream=self._stream)
        return 0

    def _begins_well(self, entry: Any) -> bool:
        """Whether the first entry of the index is a keyframe, and no frame is shown before it that
        cannot be decoded."""
        if not entry.is_keyframe:
            return False
        well = self._is_at(entry.timestamp, self.origin)
        self._container.seek(entry.timestamp, stream=self._stream)
        return well

    def _is_at(self, time: int, latest: int | None = None) -> bool:
        """Whether going to a time of the index leads to its keyframe, and that is early enough.

        latest: when it is to be shown at the latest; None: at what is looked for.
        """
        self._container.seek(time, stream=self._stream)
        packet = next(iter(self._container.demux(self._stream)), None)
        if packet is None or packet.dts != time or not packet.is_keyframe or packet.pts is None:
            return False
        return bool(packet.pts <= latest) if latest is not None else self._is_early(packet)
