"""Videos: the only place that opens one. Frames come one by one, through PyAV (FFmpeg).

Takes the path of a local file. Gives uint8 (H, W, 3) RGB as `load_image` does, with the time of
every frame as the file has it (also at a variable frame rate) and the rotation a telephone noted
applied. Nothing is fetched: the file is opened here and handed over, playlists and every other
format that names further files are refused, and FFmpeg may open nothing itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

from facenet.errors import SettingsError
from facenet.images.footage import VideoFacts, open_footage
from facenet.images.limits import LIMITS, ImageLimits
from facenet.types import ImageArray

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".wmv", ".asf", ".flv", ".ogv", ".3gp", ".3g2", ".mxf", ".mjpeg", ".h264", ".hevc",
)  # fmt: skip
"""Endings of the names of videos."""
THREADS = 2
"""Threads that decode: beyond two the networks, not the decoder, are what a video waits for."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a video.

    number: its place in the whole video, from 0. time_s: when it is shown, in seconds after the
    first frame. image: uint8 (H, W, 3) RGB, upright.
    """

    number: int
    time_s: float
    image: ImageArray


def is_video_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file name looks like a video and is not hidden."""
    name = Path(path)
    return name.suffix.lower() in VIDEO_SUFFIXES and not name.name.startswith(".")


def read_video(
    path: str | os.PathLike[str],
    *,
    stride: int = 1,
    start: float = 0.0,
    stop: float | None = None,
    limits: ImageLimits = LIMITS,
    threads: int = THREADS,
) -> Iterator[Frame]:
    """The frames of a video file in the order in which they are shown, one at a time.

    stride: every how many frames one is given, from the first on. start, stop: seconds; frames
    from start on and before stop. What lies before start is decoded and passed over, so that
    numbers stay true. limits: `max_pixels` bounds a frame; `max_bytes` does not count here,
    since a video is never in memory as a whole. threads: of the decoder.

    Raises SettingsError at once; MissingExtraError without PyAV; InputError when the file cannot
    be opened, has no video, or no frame from start on. Of a file that is damaged or cut short
    the frames that there are come first, and the InputError after the last of them.
    """
    last = inf if stop is None else stop
    if not (isinstance(stride, int) and stride >= 1):
        raise SettingsError(f"stride should be a whole number of frames, 1 or more; got {stride}.")
    if not (isfinite(start) and 0 <= start < last):
        raise SettingsError(
            f"start and stop should be seconds, 0 <= start < stop; got {start} and {stop}."
        )
    if not (isinstance(threads, int) and threads >= 1):
        raise SettingsError(f"threads should be a whole number, 1 or more; got {threads}.")
    return _selected(path, stride, (start, last), limits, threads)


def video_facts(path: str | os.PathLike[str]) -> VideoFacts:
    """What the header of a video file tells. Raises as `read_video` does."""
    with open_footage(path, LIMITS, 1) as video:
        return video.facts()


def _selected(
    path: str | os.PathLike[str],
    stride: int,
    between: tuple[float, float],
    limits: ImageLimits,
    threads: int,
) -> Iterator[Frame]:
    start, stop = between
    with open_footage(path, limits, threads) as video:
        for seen, (number, time_s, frame) in enumerate(video.selected(start, stop)):
            if seen % stride == 0:
                yield Frame(number, time_s, video.pixels(frame))
