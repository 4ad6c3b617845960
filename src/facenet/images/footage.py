"""An open video file: opened safely, decoded, timed and turned, through PyAV (FFmpeg).

The file is opened here and handed to FFmpeg, which may open nothing itself: playlists and every
other format that names further files are refused, and so is every protocol. FFmpeg's decoders
get the limit of pixels too, so that a header that lies costs no memory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from facenet.errors import InputError, MissingExtraError
from facenet.images.hardware import accelerated
from facenet.images.limits import ImageLimits, check_pixels
from facenet.images.localfile import open_file as open_file
from facenet.images.localfile import require_local as require_local
from facenet.images.seeking import Skipping, is_countable
from facenet.images.upright import Turning, upright
from facenet.types import ImageArray

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,mxf,ivf,gif,apng,yuv4mpegpipe,nut,dv,"
    "h264,hevc,m4v,mjpeg,obu,av1"
)
"""FFmpeg's names of the formats that are read: none of them names another file to be opened."""
TIMED = ("mov", "matroska")
"""Formats whose header tells how long the video stream itself is."""
MISSING = 0.5
"""Seconds that may lack at the end of a video before it counts as cut short."""
BLOCKS = 1 << 16
"""Pixels, and a tenth, that a decoder may have beyond the limit: it counts whole blocks."""
RATE = 25
"""Frames a second of a stream that has neither times nor a rate: FFmpeg's own default."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the header of a video tells, right or wrong.

    width, height: pixels of a frame as stored, before it is turned. duration_s: seconds, rate:
    frames a second on average; None where the file does not say.
    """

    width: int
    height: int
    duration_s: float | None
    rate: float | None

    @property
    def frames(self) -> int | None:
        """How many frames there should be, about: for a progress bar."""
        if self.duration_s is None or self.rate is None:
            return None
        return round(self.duration_s * self.rate)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a video is opened.

    limits: of a frame. threads: of the decoder. hardware: "off", "auto" or the name of a kind of
    device. format: FFmpeg's name of the reader, None where the data tells. options: of the reader.
    """

    limits: ImageLimits
    threads: int
    hardware: str = "off"
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def open_footage(
    path: str | os.PathLike[str], limits: ImageLimits, threads: int, hardware: str = "off"
) -> Iterator[Footage]:
    """The video stream of a file, closed at the end."""
    name = require_local(path)
    pyav()
    with open_file(path, name) as file, footage_of(file, name, limits, threads, hardware) as found:
        yield found


@contextmanager
def footage_of(
    file: IO[bytes], name: str, limits: ImageLimits, threads: int, hardware: str = "off"
) -> Iterator[Footage]:
    """The video stream of an open file. name: for messages."""
    av = pyav()
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    try:
        container, notice = open_container(file, Opening(limits, threads, hardware, None, options))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{name} should be a video such as MP4, MOV, MKV, WebM or AVI; it cannot be opened "
            "as one: it is something else, or cut off before its index. Copy it again or "
            "convert it to MP4."
        ) from error
    with container:
        yield footage_in(container, name, limits, threads, notice).noticing_damage()


def footage_in(
    container: InputContainer, name: str, limits: ImageLimits, threads: int, notice: str
) -> Footage:
    """The video stream of an open container, ready to be decoded."""
    stream = _stream(container, name)
    check_pixels(f"A frame of {name}", stream.width, stream.height, limits)
    stream.codec_context.options = _bound(limits)
    stream.codec_context.thread_count = threads
    stream.thread_type = "AUTO"
    return Footage(name, container, stream, limits, notice)


def _bound(limits: ImageLimits) -> dict[str, str]:
    return {"max_pixels": str(limits.max_pixels * 11 // 10 + BLOCKS)}


def open_container(target: IO[bytes] | str, opening: Opening) -> tuple[InputContainer, str]:
    """What FFmpeg opens, and a sentence where no hardware decodes although "auto" asked for it.

    Raises PyAV's errors; SettingsError for a kind of device that cannot be had.
    """
    av = pyav()
    options = {**opening.options, **_bound(opening.limits)}

    def opened(accelerator: Any = None) -> InputContainer:
        if not isinstance(target, str):
            target.seek(0)
        return av.open(  # type: ignore[no-any-return]
            target,
            format=opening.format,
            options=options,
            metadata_errors="replace",
            hwaccel=accelerator,
        )

    if opening.hardware == "off":
        return opened(), ""
    return accelerated(opened, opening.hardware)


def pyav() -> Any:
    """PyAV, loaded when it is first used. Raises MissingExtraError."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            f"Reading videos needs PyAV, which cannot be loaded: {error}. Install it with "
            '`pip install "facenet[video]"`.'
        ) from error
    return av


def _errors() -> tuple[type[Exception], ...]:
    av = pyav()
    return av.FFmpegError, ValueError


def _stream(container: InputContainer, name: str) -> VideoStream:
    """The first stream of moving pictures; the cover of a song is none."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic:
            return stream
    raise InputError(
        f"{name} has no video that can be decoded, only sound or other streams. Choose another "
        "file."
    )


# ---- from an open video to frames


class Footage:
    """An open video stream: its frames, and what went wrong so far.

    decoded: frames so far, usable: those that are whole. faults: packets and frames that are not.
    end: when the last frame goes, in seconds. notice: a sentence about how it is decoded, or "".
    lost: what FFmpeg said when no more could be read, or "". alive: called for each packet.
    """

    def __init__(
        self,
        name: str,
        container: InputContainer,
        stream: VideoStream,
        limits: ImageLimits,
        notice: str = "",
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self.name, self.decoded, self.usable, self.faults = name, 0, 0, 0
        self.end, self.notice, self.lost = Fraction(0), notice, ""
        self.alive: Callable[[], None] = lambda: None
        self._skipping: Skipping | None = None
        self._container, self._stream, self._limits = container, stream, limits
        self._reformatter, self._turning = VideoReformatter(), Turning()
        self._origin: Fraction | None = None  # when the first frame is shown, in seconds
        self._step = 1 / Fraction(stream.average_rate or stream.guessed_rate or RATE)

    def facts(self) -> VideoFacts:
        """What the header tells."""
        stream, whole = self._stream, self._container.duration
        own = self._promised()
        seconds = own if own is not None else whole and whole / 1_000_000
        rate = stream.average_rate or stream.guessed_rate
        told = float(rate) if rate else None
        return VideoFacts(stream.width, stream.height, seconds or None, told)

    def noticing_damage(self) -> Footage:
        """This; where no header tells of a missing end it decodes no two frames side by side, or
        FFmpeg would now and then give one that refers to a damaged one as whole."""
        if self._promised() is None:
            self._stream.thread_type = "SLICE"
        return self

    def skip_to(self, start: float) -> None:
        """Let `frames` begin at the keyframe before a time, in seconds; or anywhere before that,
        where the numbers of frames cannot be kept true otherwise."""
        stream = self._stream
        if start > 0 and stream.time_base and is_countable(self._container, stream):
            self._skipping = Skipping(self._container, stream, start)

    def frames(self) -> Iterator[tuple[int, float, VideoFrame]]:
        """Number, seconds and the frame itself of every frame that is whole."""
        for frame in self._decoded():
            if self._skipping is not None and not self._is_begun(frame):
                continue
            number, time = self.decoded, self._time(frame)
            self.decoded += 1
            if frame.is_corrupt:
                self.faults += 1
                continue
            self.usable += 1
            yield number, float(time), frame

    def selected(self, start: float, stop: float) -> Iterator[tuple[int, float, VideoFrame]]:
        """Those of `frames` from start on and before stop, in seconds.

        Raises InputError after the last frame of a video that is damaged or cut short, and where
        it ends before start.
        """
        seen = False
        for found in self.frames():
            if found[1] >= stop:
                return
            if found[1] >= start:
                seen = True
                yield found
        self.require_whole()
        if not seen:
            raise InputError(
                f"{self.name} ends at {float(self.end):.2f} s; start should be before that; "
                f"got {start:g}."
            )

    def pixels(self, frame: VideoFrame) -> ImageArray:
        """uint8 (H, W, 3) RGB, upright."""
        view = self.view(frame)
        return view if view.flags.c_contiguous and view.base is None else view.copy()

    def view(self, frame: VideoFrame) -> ImageArray:
        """As `pixels`, (H, W, 3), but perhaps in the memory of FFmpeg, with gaps between rows."""
        import av

        check_pixels(f"A frame of {self.name}", frame.width, frame.height, self._limits)
        try:
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"{self.name} has pixels of a kind that cannot be turned into RGB, "
                f"{frame.format.name}. Convert it to MP4."
            ) from error
        plane: Any = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        pixels = rows[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
        return upright(pixels, self._turning.of(frame))

    def require_whole(self) -> None:
        """Raise InputError for a video without a frame, damaged or cut short, at its end."""
        if not self.decoded:
            raise InputError(
                f"{self.name} has a video stream without a frame that can be decoded in "
                f"{self._limits.max_pixels:,} pixels. Copy it again or convert it to MP4."
            )
        promised = self._promised()
        if self.faults or (promised is not None and promised - float(self.end) > MISSING):
            raise InputError(
                f"{self.name} is damaged or cut short: {self.usable:,} frames could be read, "
                f"up to {float(self.end):.2f} s. Copy or download it again."
            )

    def _decoded(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            yield from self._decode(packet)
        if self.lost:  # no packet said that this is the end: some frames are still held back
            with suppress(*_errors()):
                yield from self._stream.codec_context.decode(None)

    def _packets(self) -> Iterator[Packet[Any]]:
        import av

        try:
            if self._skipping is not None:
                yield from self._skipping.packets(self.alive)
                return
            for packet in self._container.demux(self._stream):
                self.alive()
                yield packet
        except (av.FFmpegError, OSError) as error:
            self.faults += 1
            known = getattr(error, "errno", errno.EIO) != errno.EIO and error.strerror
            self.lost = known or "the connection was lost"

    def _is_begun(self, frame: VideoFrame) -> bool:
        """Whether a frame is the keyframe that was gone to, or after it."""
        skipping = self._skipping
        if skipping is None or skipping.keyframe is None:
            return True
        if frame.pts is not None and frame.pts < skipping.keyframe:
            return False
        self.decoded = self.decoded or skipping.number
        return True

    def _decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        """The frames of a packet. What fails before the first frame is no fault: a recording may
        begin in the middle of a group of pictures."""
        import av

        frames: list[VideoFrame] = []
        broken = packet.is_corrupt
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            broken = True
        self.faults += broken and self.decoded > 0
        return frames

    def _time(self, frame: VideoFrame) -> Fraction:
        """When a frame is shown; of a stream without times, after the frame before it."""
        base = frame.time_base
        if frame.pts is None or base is None:
            time = self.end
        else:
            if self._origin is None:
                self._origin = self._begins(frame.pts * base, base)
            time = frame.pts * base - self._origin
        lasts = frame.duration * base if frame.duration and base else self._step
        self.end = max(self.end, time + lasts)
        return time

    def _begins(self, shown: Fraction, base: Fraction) -> Fraction:
        """When the first frame is shown. shown: when the first one that has a time is.

        What the header says of it is not asked: it may be silent, and FFmpeg then takes the time
        of the sound.
        """
        skipping = self._skipping
        if skipping is None or skipping.keyframe is None or skipping.origin is None:
            return shown - self.end
        return skipping.origin * base

    def _promised(self) -> float | None:
        """How long the header says that the video is, in seconds."""
        stream, base = self._stream, self._stream.time_base
        kind = self._container.format.name.split(",")[0]
        if base is None or kind not in TIMED:
            return None
        if kind != "matroska":
            return None if stream.duration is None else float(stream.duration * base)
        last = _clock(stream.metadata.get("DURATION", ""))  # when the last frame goes
        began = (stream.start_time or 0) * base if self._origin is None else self._origin
        return None if last is None else last - float(began)


def _clock(text: str) -> float | None:
    """Seconds of "HH:MM:SS.fraction", or None for another text."""
    try:
        hours, minutes, seconds = (float(part) for part in text[:40].split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds
