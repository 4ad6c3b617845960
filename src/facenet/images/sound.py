"""The sound of a video file, for a film that is made of its frames: copied or encoded anew.

Follows FFmpeg's stream copy: packets stay as they are where the new container can hold their
codec, so that no sound is lost; the cut is then between packets (20 to 30 ms). Another codec
becomes AAC or Opus, to the sample, and gaps become silence. The clock is that of the frames: 0 is
where the first frame of the source goes. All of it runs in the child process of `sounding`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.images.footage import FORMATS, pyav

WIDE = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}
COPIED = {
    ".mp4": WIDE,
    ".m4v": WIDE,
    ".mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"},
    ".mkv": WIDE | {"vorbis", "dts", "truehd", "pcm_s16le", "pcm_s24le", "pcm_f32le"},
    ".webm": {"opus", "vorbis"},
}
"""The codecs of sound that are copied into a container; players open them there."""
LEADING = (".mp4", ".m4v", ".mov")
"""Containers that can say that a packet is decoded, but not heard: the one before the cut, from
which AAC and MP3 begin."""
DELAY = Fraction(7, 1000)
"""Seconds by which Opus begins early, and which Matroska takes off again."""
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Samples a second that AAC knows; any other rate becomes 48,000, as with Opus."""
BIT_RATE = 64_000
"""Bits a second of each channel that is encoded anew."""
UNHEARD = "skip_samples"
"""FFmpeg's name of what a packet tells of its samples that are not heard, as at the end."""
HELD = 1000
"""How many packets of sound may come before the first picture."""
FAR = 10**9
"""Seconds (30 years) beyond which a time is damage, not a time."""
JITTER = 0.05
"""Seconds by which times of sound may be off before it counts as a gap or an overlap."""
SILENCE = 10.0
"""The longest gap in seconds that is filled; a longer one stays a gap."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a source goes into a film: from `first` until before `stop`, in seconds of the
    source (None: to the end). What lies at `first` is at 0 in the film."""

    first: Fraction
    stop: Fraction | None = None


class Sound:
    """The best stream of sound of a source.

    tracks: how many streams of it there are. faults: parts that are left out so far, since they are
    damaged. encoder: what encodes it anew; None where it is copied.
    """

    def __init__(self, name: str, container: Any, stream: Any) -> None:
        self.name, self.faults, self.tracks = name, 0, len(container.streams.audio)
        self.encoder: Any = None
        self._container, self._stream = container, stream
        self._origin = Fraction(0)  # of the clock of the frames, found with the first packets
        self._leads = False

    def attach(self, target: Any, suffix: str) -> Any:
        """Add the stream that `packets` are of to a container, and give it.

        suffix: of the film. Raises PyAV's errors and ValueError.
        """
        if self._stream is None or self._stream.codec_context is None:
            raise ValueError(f"nothing decodes the sound of {self.name}")
        context = self._stream.codec_context
        self._leads = suffix in LEADING
        if context.codec.canonical_name in COPIED[suffix]:
            return target.add_stream_from_template(self._stream)
        opus = suffix == ".webm"
        codec = "libopus" if opus else "aac"
        rate = 48_000 if opus or context.rate not in RATES else context.rate
        self.encoder = pyav().CodecContext.create(codec, "w")
        out = target.add_stream(codec, rate=rate)
        layout = "mono" if context.channels == 1 else "stereo"
        for encoder in (self.encoder, out.codec_context):
            encoder.sample_rate, encoder.layout = rate, layout
            encoder.format = encoder.codec.audio_formats[0]
            encoder.bit_rate = BIT_RATE * (1 + (layout == "stereo"))
        return out

    def packets(self, cut: Cut) -> Iterator[Any]:
        """Packets of the attached stream, in order and on the clock of the film.

        Packets that are damaged are left out.
        """
        return self._as_they_are(cut) if self.encoder is None else self._anew(cut)

    # ---- copied

    def _as_they_are(self, cut: Cut) -> Iterator[Any]:
        last = None
        for packet in self._demuxed():
            base = packet.time_base
            if packet.pts is None or packet.is_corrupt:
                self.faults += 1
                continue
            shift = round((self._origin + cut.first) / base)
            pts = packet.pts - shift
            if self._too_early(pts * base, (packet.duration or 0) * base):
                continue
            if cut.stop is not None and pts * base >= cut.stop - cut.first:
                return
            if last is not None and pts <= last:
                self.faults += 1
                continue
            last = packet.pts = packet.dts = pts
            yield packet

    def _too_early(self, time: Fraction, lasts: Fraction) -> bool:
        """Whether a packet lies before the film. Matroska would move all pictures for one that
        only begins before it."""
        if self._leads:
            return time + 2 * lasts <= 0
        return time < (-DELAY if self._stream.codec_context.name.endswith("opus") else 0)

    def _demuxed(self) -> Iterator[Any]:
        """Packets that hold something, as far as the file can be read."""
        av = pyav()
        try:
            for packet in chain(self._beginning(), self._container.demux(self._stream)):
                if packet.pts is not None and abs(packet.pts * packet.time_base) > FAR:
                    self.faults += 1
                elif packet.size:
                    yield packet
        except (av.FFmpegError, OSError, ValueError):
            self.faults += 1

    def _beginning(self) -> list[Any]:
        """The packets of sound before the first of the pictures, which tells where 0 is.

        The header alone does not: where it is silent, FFmpeg takes the time of the sound. In a
        recording that begins in the middle the first keyframe is the first that can be seen.
        """
        pictures, held = _pictures(self._container), list[Any]()
        if pictures is None:
            return held
        start = pictures.start_time
        for packet in self._container.demux(self._stream, pictures):
            if packet.stream is self._stream:
                held.append(packet)
            elif packet.pts is not None and not packet.is_discard and packet.is_keyframe:
                start = packet.pts
                break
            if len(held) == HELD:
                break
        self._origin = Fraction((start or 0) * pictures.time_base)
        return held

    # ---- encoded anew

    def _anew(self, cut: Cut) -> Iterator[Any]:
        context = self.encoder
        line = _Line(context.sample_rate, cut)
        for samples, time in self._samples(context):
            for piece, at in line.placed(samples, time - self._origin):
                yield from self._encoded(piece, at)
            if line.full:
                break
        yield from self.encoder.encode(None)

    def _encoded(self, samples: NDArray[np.float32], at: int) -> Iterator[Any]:
        context = self.encoder
        frame = pyav().AudioFrame.from_ndarray(samples, "fltp", context.layout.name)
        frame.sample_rate, frame.pts = context.sample_rate, at
        frame.time_base = Fraction(1, context.sample_rate)
        yield from self.encoder.encode(frame)

    def _samples(self, context: Any) -> Iterator[tuple[NDArray[np.float32], Fraction]]:
        """Decoded sound, float32 (channels, n), and when it begins on the clock of the file."""
        av = pyav()
        rate = context.sample_rate
        resampler = av.AudioResampler(format="fltp", layout=context.layout.name, rate=rate)
        for packet in chain(self._demuxed(), (None,)):
            try:
                frames = [None] if packet is None else packet.decode()
                parts = [part for frame in frames for part in resampler.resample(frame)]
            except (av.FFmpegError, ValueError):
                self.faults += 1
                continue
            for part in parts:
                if part.pts is not None:
                    yield part.to_ndarray(), Fraction(part.pts * part.time_base)


class _Line:
    """Puts pieces of sound one after another: cut to the film, gaps silent, overlaps dropped."""

    def __init__(self, rate: int, cut: Cut) -> None:
        self._rate, self._first = rate, cut.first
        self._end = None if cut.stop is None else round((cut.stop - cut.first) * rate)
        self._next: int | None = None
        self.full = False

    def placed(
        self, samples: NDArray[np.float32], time: Fraction
    ) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Pieces, float32 (channels, n), and where they begin in samples of the film.

        time: of the first sample, in seconds of the source.
        """
        at = round((time - self._first) * self._rate)
        due = self._next
        if due is not None and abs(at - due) <= JITTER * self._rate:
            at = due
        if due is not None and due < at <= due + SILENCE * self._rate:
            yield np.zeros((len(samples), at - due), np.float32), due
        skip = max(0, (due or 0) - at)
        samples, at = samples[:, skip:], at + skip
        if self._end is not None and at + samples.shape[1] >= self._end:
            samples, self.full = samples[:, : max(0, self._end - at)], True
        if samples.shape[1]:
            self._next = at + samples.shape[1]
            yield np.ascontiguousarray(samples), at


@contextmanager
def sound_of(file: Any, name: str) -> Iterator[Sound | None]:
    """The sound of an open video file; None of a file without any.

    Nothing but the file is opened, as by `read_video`. Raises InputError for a file that cannot be
    opened as a video.
    """
    av = pyav()
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(file, options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"The sound of {name} cannot be read: it cannot be opened as a video. Copy it "
            "again, or make the film without sound."
        ) from error
    with container:
        stream = container.streams.best("audio")
        there = len(container.streams.audio) > 0
        yield Sound(name, container, stream) if there else None


def _pictures(container: Any) -> Any:
    """The stream of moving pictures that `read_video` reads, or None."""
    cover = pyav().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if stream.codec_context is not None and not stream.disposition & cover:
            return stream
    return None
