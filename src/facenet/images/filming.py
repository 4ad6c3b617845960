"""Films: the only place that writes a video. H.264 in MP4, MOV or MKV, VP9 in WebM, by PyAV.

Takes uint8 (H, W, 3) RGB with the time of each picture and keeps these times exactly, also at a
variable frame rate; the sound of the source comes along (see soundapart.py). Colours are written
as BT.709, limited range, and marked so. Without B-frames, so that a picture is stored when it is
shown: no player has to shift anything. The file is whole or not there.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import IO, Any

import numpy as np

from facenet.errors import InputError, SettingsError, StorageError
from facenet.files import written
from facenet.images.footage import pyav
from facenet.images.sound import Cut
from facenet.images.soundapart import SoundApart, open_sound
from facenet.types import ImageArray

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
FILM_SUFFIXES = tuple(FORMATS)
"""Endings of the names of films."""
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
"""Speeds of x264 that may be asked for, the fastest first."""
TICK = Fraction(1, 90_000)
"""Seconds to which a time is kept in MP4 and MOV."""
COARSE_TICK = Fraction(1, 1000)
"""The same of MKV and WebM: their format has no finer one."""
BT709 = 1
"""H.273's number of BT.709: matrix, primaries and transfer alike."""
SAME_PLACE = "{} is the source; a film of that name would replace it. Choose another name."


@dataclass(frozen=True, slots=True)
class FilmSettings:
    """How a film is encoded.

    quality: x264's constant rate factor, 0 (lossless) to 51 (worst); 6 more halve the size, about.
    WebM's VP9 gets the factor that looks alike, 4/3 of it. preset: x264's, of `PRESETS`; a slower
    one makes the file smaller, not better. threads: of the encoder.
    """

    quality: int = 23
    preset: str = "superfast"
    threads: int = 2

    def __post_init__(self) -> None:
        if not (isinstance(self.quality, int) and 0 <= self.quality <= 51):
            raise SettingsError(
                f"quality should be a whole number from 0 (best) to 51; got {self.quality}. "
                "23 is usual."
            )
        if self.preset not in PRESETS:
            raise SettingsError(
                f"preset should be one of {', '.join(PRESETS)}; got {str(self.preset)[:50]}."
            )
        if not (isinstance(self.threads, int) and self.threads >= 1):
            raise SettingsError(f"threads should be a whole number, 1 or more; got {self.threads}.")


class _Disk:
    """The file as FFmpeg sees it: never in the way. Whoever writes asks `check` how it went."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)  # writes what is in the buffer
        except OSError as error:
            self._error = self._error or error
            return offset

    def tell(self) -> int:
        return self._file.tell()

    def check(self) -> None:
        """Raise the OSError that came up, if any."""
        if self._error is not None:
            raise self._error

    def clear(self) -> None:
        """Begin with an empty file again."""
        self._file.seek(0)
        self._file.truncate()


class Film:
    """A video that is being written: see `film`.

    size: width and height in pixels, those of the first picture made even; None before it.
    frames: how many there are so far. notices: one sentence each about what was changed or lost.
    """

    def __init__(
        self,
        path: Path,
        file: IO[bytes],
        rate: Fraction,
        settings: FilmSettings,
        *,
        sound: SoundApart | None = None,
        stop: Fraction | None = None,
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self.path, self.frames, self.notices = path, 0, list[str]()
        self.size: tuple[int, int] | None = None
        self._disk, self._rate, self._settings = _Disk(file), rate, settings
        self._suffix = path.suffix.lower()
        self._tick = TICK if FORMATS[self._suffix] in ("mp4", "mov") else COARSE_TICK
        self._reformatter = VideoReformatter()
        self._sound, self._stop = sound, stop
        self._coming: Generator[Any, None, None] | None = None
        self._pending: Any = None
        self._container: Any = None
        self._stream: Any = None
        self._picture = (0, 0)  # height and width of the first picture
        self._first, self._last_time, self._last = Fraction(0), Fraction(-1), -1
        self._whole, self._broken = True, ""

    @property
    def duration_s(self) -> float:
        """Seconds from the first picture to the end of the last, which is shown 1/rate long."""
        return float(self._last * self._tick + 1 / self._rate) if self.frames else 0.0

    def add(self, image: ImageArray, time_s: float) -> None:
        """Write a picture.

        image: uint8 (H, W, 3) RGB. One of another size than the first is fitted into the film,
        with black beside it. time_s: seconds, later than that of the picture before. The first
        picture is at 0 in the film, whatever its time.
        Raises InputError for another array or time, StorageError when it cannot be written.
        """
        time = self._checked(image, time_s)
        with self._writing():
            if self._container is None:
                self._begin(image, time)
            tick = max(self._last + 1, round((time - self._first) / self._tick))
            self._mux(self._encoded(image, tick))
            self.frames, self._last, self._last_time = self.frames + 1, tick, time
            self._sound_until(tick * self._tick)

    def cut(self) -> None:
        """Let the sound end with the pictures: for a film that ends before its source does."""
        self._whole = False

    def finish(self) -> None:
        """Write what is left. Raises InputError for a film without a picture."""
        if not self.frames and not self._broken:
            raise InputError(
                f"A film needs at least one picture; {self.path} got none, and is not written. "
                "Check where its source starts and stops."
            )
        with self._writing():
            self._mux(self._stream.encode(None))
            self._sound_until(None if self._whole else Fraction(self.duration_s))
            self._container.close()
        if self._sound is not None:
            self._sound.close()
            self.notices += self._sound.notices

    def abandon(self) -> None:
        """Let go of the file, whatever is in it."""
        av = pyav()
        if self._coming is not None:
            self._coming.close()
        if self._container is not None:
            with suppress(av.FFmpegError, OSError, ValueError):
                self._container.close()

    # ---- pictures

    def _checked(self, image: ImageArray, time_s: float) -> Fraction:
        good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
        if not good or image.shape[2] != 3 or not image.size:
            kind = (
                f"{image.dtype} {image.shape}" if good or hasattr(image, "shape") else type(image)
            )
            raise InputError(
                f"A picture of a film should be uint8 (H, W, 3) RGB; got {str(kind)[:80]}."
            )
        if not isfinite(time_s) or (self.frames and time_s <= self._last_time):
            raise InputError(
                "The time of a picture should be seconds, later than that of the one before, "
                f"{float(self._last_time):g}; got {time_s}."
            )
        return Fraction(time_s)

    def _begin(self, image: ImageArray, time: Fraction) -> None:
        """Open the container, with sound if that works."""
        height, width = self._picture = image.shape[:2]
        self.size = size = (width + width % 2, height + height % 2)
        self._first = time
        try:
            self._open(size)
        except ValueError:
            if self._sound is None:
                raise
            self.abandon()
            self._disk.clear()
            self.notices.append(
                f"The sound of {self._sound.name} cannot be used: the film is silent."
            )
            self._sound = None
            self._open(size)
        if self._sound is not None:
            self._coming = self._sound.packets(Cut(self._first, self._stop))
            self._pending = next(self._coming, None)

    def _open(self, size: tuple[int, int]) -> None:
        av = pyav()
        self._container = av.open(self._disk, "w", format=FORMATS[self._suffix])
        webm = self._suffix == ".webm"
        self._stream = self._container.add_stream("libvpx-vp9" if webm else "libx264", self._rate)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt, self._stream.time_base = "yuv420p", self._tick
        context = self._stream.codec_context
        context.options, context.time_base = self._options(webm), self._tick
        context.thread_count = self._settings.threads
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = av.video.reformatter.ColorRange.MPEG
        if self._sound is not None:
            self._sound.attach(self._container)
        self._container.start_encoding()

    def _options(self, webm: bool) -> dict[str, str]:
        quality = self._settings.quality
        if webm:
            factor = str(min(63, round(quality * 4 / 3)))
            return {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": factor}
        return {"preset": self._settings.preset, "crf": str(quality), "bf": "0"}

    def _encoded(self, image: ImageArray, tick: int) -> Any:
        av = pyav()
        pixels = np.ascontiguousarray(self._fitted(image))
        frame = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(pixels, "rgb24"),
            format="yuv420p",
            dst_colorspace=av.video.reformatter.Colorspace.ITU709,
            dst_color_range=av.video.reformatter.ColorRange.MPEG,
            threads=1,
        )
        frame.pts, frame.time_base = tick, self._tick
        frame.duration = max(1, round(1 / self._rate / self._tick))
        return self._stream.encode(frame)

    def _fitted(self, image: ImageArray) -> ImageArray:
        """(H, W, 3) as large as the film: its own edge repeated, or black beside it."""
        import cv2

        (height, width), (tall, wide) = image.shape[:2], self._picture
        if (height, width) != self._picture:
            self._note_size(image)
            scale = min(tall / height, wide / width)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            small = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
            top, left = (tall - size[1]) // 2, (wide - size[0]) // 2
            image = np.zeros((tall, wide, 3), np.uint8)
            image[top : top + size[1], left : left + size[0]] = small
        if tall % 2 or wide % 2:
            return np.pad(image, ((0, tall % 2), (0, wide % 2), (0, 0)), "edge")
        return image

    def _note_size(self, image: ImageArray) -> None:
        sentence = "have another size than the first"
        if not any(sentence in notice for notice in self.notices):
            tall, wide = self._picture
            self.notices.append(
                f"Some pictures {sentence}, {wide} x {tall} pixels (the first of them "
                f"{image.shape[1]} x {image.shape[0]}, number {self.frames}): they are fitted in."
            )

    # ---- packets

    def _mux(self, packets: Any) -> None:
        self._container.mux(packets)

    def _sound_until(self, time: Fraction | None) -> None:
        """Write the sound that begins before a time of the film; None: all that is left."""
        while self._sound and self._coming and self._pending is not None:
            packet = self._pending
            if time is not None and packet.pts * packet.time_base >= time:
                return
            try:
                self._mux(packet)
            except ValueError:  # FFmpeg's word for a packet that makes no sense
                self._sound.refused()
            self._pending = next(self._coming, None)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say in a sentence what kept the film from being written; from then on it is broken."""
        av = pyav()
        if self._broken:
            raise StorageError(self._broken)
        try:
            yield
            self._disk.check()
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._broken = (
                f"Cannot write {str(self.path)[:300]}: {reason[:200]}. Choose another place, free "
                "some space, or choose another ending."
            )
            raise StorageError(self._broken) from error


@contextmanager
def film(
    path: str | os.PathLike[str],
    *,
    rate: float = 25.0,
    audio: str | os.PathLike[str] | None = None,
    stop: float | None = None,
    settings: FilmSettings | None = None,
) -> Iterator[Film]:
    """A film to which pictures are added; it takes its place at `path` when the block ends.

    path: its ending names the format, one of `FILM_SUFFIXES`. rate: pictures a second, about: it
    is written into the header, and how long the last picture is shown. audio: the video file of
    which the pictures are; its best stream of sound is kept from the time of the first picture
    until `stop`, in seconds of that file. Without `stop` the sound goes to its own end, also
    after the last picture (unless `Film.cut` was called).

    When the block ends with an error, nothing is left, and an older file stays as it was.
    Raises SettingsError for another ending or rate, InputError for no picture at all or an audio
    file that cannot be opened, StorageError for a disk that is full or a place that cannot be
    written, MissingExtraError without PyAV.
    """
    target, exact, options = (
        require_film_name(path),
        _checked_rate(rate),
        settings or FilmSettings(),
    )
    pyav()
    if audio is not None and os.path.exists(target) and os.path.samefile(audio, target):
        raise InputError(SAME_PLACE.format(target))
    foreign: list[OSError] = []
    with ExitStack() as stack:
        suffix = target.suffix.lower()
        sound = None if audio is None else stack.enter_context(open_sound(audio, suffix))
        with suppress(LeftError), written(target) as file:
            end = None if stop is None else Fraction(stop)
            out = Film(target, file, exact, options, sound=sound, stop=end)
            try:
                yield out
                out.finish()
            except OSError as error:  # of the block, not of this file
                foreign.append(error)
                raise LeftError from error
            finally:
                out.abandon()
    if foreign:
        raise foreign[0]


class LeftError(Exception):
    """Leaves the film behind, unfinished, when it is raised in the block of `film`."""


def require_film_name(path: str | os.PathLike[str]) -> Path:
    """The path of a film. Raises SettingsError for an ending that is none of `FILM_SUFFIXES`."""
    target = Path(os.fsdecode(path))
    if target.suffix.lower() not in FORMATS:
        raise SettingsError(
            f"A film should end in {', '.join(FILM_SUFFIXES)}; got {target.name[-100:]!r}."
        )
    return target


def _checked_rate(rate: float) -> Fraction:
    if not (isinstance(rate, int | float) and isfinite(rate) and 0.01 <= rate <= 1000):
        raise SettingsError(
            f"rate should be pictures a second, from 0.01 to 1000; got {str(rate)[:50]}."
        )
    return Fraction(rate).limit_denominator(1001)
