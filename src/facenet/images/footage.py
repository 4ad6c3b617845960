"""An open video file: opened safely, decoded, timed and turned, through PyAV (FFmpeg).

The file is opened here and handed to FFmpeg, which may open nothing itself: playlists and every
other format that names further files are refused, and so is every protocol. FFmpeg's decoders
get the limit of pixels too, so that a header that lies costs no memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from facenet.errors import InputError, MissingExtraError
from facenet.images.limits import ImageLimits, check_pixels
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


@contextmanager
def open_footage(
    path: str | os.PathLike[str], limits: ImageLimits, threads: int
) -> Iterator[Footage]:
    """The video stream of a file, closed at the end."""
    name = _require_local(path)
    av = _pyav()
    bound = {"max_pixels": str(limits.max_pixels * 11 // 10 + BLOCKS)}
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none", **bound}
    with _file(path, name) as file:
        try:
            container = av.open(file, options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InputError(
                f"{name} should be a video such as MP4, MOV, MKV, WebM or AVI; it cannot be opened "
                "as one: it is something else, or cut off before its index. Copy it again or "
                "convert it to MP4."
            ) from error
        with container:
            stream = _stream(container, name)
            check_pixels(f"A frame of {name}", stream.width, stream.height, limits)
            stream.codec_context.options = bound
            stream.codec_context.thread_count = threads
            stream.thread_type = "AUTO"
            yield Footage(name, container, stream, limits)


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            f"Reading videos needs PyAV, which cannot be loaded: {error}. Install it with "
            '`pip install "facenet[video]"`.'
        ) from error
    return av


def _require_local(path: str | os.PathLike[str]) -> str:
    """The name of a file for messages. Raises InputError for what is no path of a file."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"A video should be the path of a file; got {type(path).__name__}.")
    text = os.fsdecode(path)
    name = text if len(text) <= 300 else f"{text[:150]}...{text[-50:]}"
    if "://" in text:
        raise InputError(
            f"{name} is an address; facenet fetches nothing, and streams are not read. Download "
            "it first."
        )
    return name


@contextmanager
def _file(path: str | os.PathLike[str], name: str) -> Iterator[IO[bytes]]:
    """The file, open for reading, when it is one and not empty."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{name} is no file; a video should be a file on the disk.")
        if facts.st_size == 0:
            raise InputError(f"{name} is empty (0 bytes): expected a video. Copy it again.")
        opened = open(path, "rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"Cannot read the video {name!r}: {reason}. Check the path and who may read it."
        ) from error
    with opened as file:
        yield file


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
    end: when the last frame goes, in seconds.
    """

    def __init__(
        self, name: str, container: InputContainer, stream: VideoStream, limits: ImageLimits
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self.name, self.decoded, self.usable, self.faults = name, 0, 0, 0
        self.end = Fraction(0)
        self._container, self._stream, self._limits = container, stream, limits
        self._reformatter = VideoReformatter()
        self._origin = stream.start_time
        self._step = 1 / Fraction(stream.average_rate or stream.guessed_rate or RATE)

    def facts(self) -> VideoFacts:
        """What the header tells."""
        stream, whole = self._stream, self._container.duration
        own = self._promised()
        seconds = own if own is not None else whole and whole / 1_000_000
        rate = stream.average_rate or stream.guessed_rate
        return VideoFacts(
            stream.width,
            stream.height,
            seconds or None,
            float(rate) if rate else None,
        )

    def frames(self) -> Iterator[tuple[int, float, VideoFrame]]:
        """Number, seconds and the frame itself of every frame that is whole."""
        for packet in self._packets():
            for frame in self._decode(packet):
                number, time = self.decoded, self._time(frame)
                self.decoded += 1
                if frame.is_corrupt:
                    self.faults += 1
                    continue
                self.usable += 1
                yield number, float(time), frame

    def pixels(self, frame: VideoFrame) -> ImageArray:
        """uint8 (H, W, 3) RGB, upright."""
        import av

        check_pixels(f"A frame of {self.name}", frame.width, frame.height, self._limits)
        try:
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
            pixels = np.ascontiguousarray(rgb.to_ndarray(), np.uint8)
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"{self.name} has pixels of a kind that cannot be turned into RGB, "
                f"{frame.format.name}. Convert it to MP4."
            ) from error
        return _upright(pixels, _display_matrix(frame))

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

    def _packets(self) -> Iterator[Packet[Any]]:
        import av

        try:
            yield from self._container.demux(self._stream)
        except (av.FFmpegError, OSError):
            self.faults += 1

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
                self._origin = frame.pts
            time = (frame.pts - self._origin) * base
        lasts = frame.duration * base if frame.duration and base else self._step
        self.end = max(self.end, time + lasts)
        return time

    def _promised(self) -> float | None:
        """How long the header says that the video is, in seconds."""
        stream, base = self._stream, self._stream.time_base
        if self._container.format.name.split(",")[0] not in TIMED or base is None:
            return None
        if stream.duration is not None:
            return float(stream.duration * base)
        last = _clock(stream.metadata.get("DURATION", ""))  # Matroska: when the last frame goes
        return None if last is None else last - float((self._origin or 0) * base)


def _clock(text: str) -> float | None:
    """Seconds of "HH:MM:SS.fraction", or None for another text."""
    try:
        hours, minutes, seconds = (float(part) for part in text[:40].split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """How a frame is to be shown: x' = a x + c y, y' = b x + d y, as (a, b, c, d).

    Nine numbers (a b u c d v x y w) lie beside the frame, see libavutil/display.h.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return a, b, c, d


def _upright(pixels: ImageArray, matrix: tuple[int, int, int, int]) -> ImageArray:
    """Turn and mirror (H, W, 3) pixels by quarter turns, the nearest to a display matrix."""
    import cv2

    a, b, c, d = matrix
    across, down = (c, b) if abs(b) > abs(a) else (a, d)
    if abs(b) > abs(a):
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    flips = {(True, False): 1, (False, True): 0, (True, True): -1}
    if (code := flips.get((across < 0, down < 0))) is not None:
        pixels = np.asarray(cv2.flip(pixels, code), np.uint8)
    return pixels
