"""A video as a sequence of pictures: a folder, or files named by a pattern as FFmpeg does it.

The pictures are opened as `load_image` opens them, in this process.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from facenet.errors import ImageError, InputError
from facenet.images.decode import is_image_name, load_image
from facenet.images.limits import ImageLimits
from facenet.images.reading import SourceFacts, SourceSettings, Timed, paced
from facenet.images.video import Frame
from facenet.types import ImageArray

RATE = 25.0
"""Frames a second where none are asked for."""
_PATTERN = re.compile(r"%(0?)(\d{0,2})d")


def is_sequence(place: str | os.PathLike[str]) -> bool:
    """Whether a place is a folder, or a pattern like frame_%04d.png and no file of that name."""
    path = Path(place)
    return path.is_dir() or (_PATTERN.search(path.name) is not None and not path.exists())


class Sequence:
    """The pictures of a folder in natural order, or those that a pattern names. See `Reading`.

    A folder is read without its sub-folders, frame2.png before frame10.png, one picture after the
    other. A pattern has one number; the picture of the least number is the first frame, and where
    numbers are missing in between, so are frames, and time goes on.
    clock, sleep: of a sequence that is read as if it were live.
    Raises InputError for a folder without a picture, and when none of them can be read.
    """

    kind = "sequence"

    def __init__(
        self,
        place: str | os.PathLike[str],
        settings: SourceSettings,
        limits: ImageLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        text = os.fspath(place)
        self.name = text if len(text) <= 300 else f"{text[:150]}...{text[-50:]}"
        self.live, self.skipped, self.notices = bool(settings.live), 0, list[str]()
        self._limits, self._rate = limits, settings.rate or RATE
        self._stopped = threading.Event()
        self._clock, self._sleep = clock, sleep or self._stopped.wait
        self._broken: list[str] = []
        listed = _listed(Path(text), self.name)
        last = listed[-1][0] + 1
        self._chosen = [
            (number, number / self._rate, path)
            for number, path in listed
            if settings.start <= number / self._rate < settings.end
        ]
        if settings.start > listed[-1][0] / self._rate:
            raise InputError(
                f"{self.name} ends at {last / self._rate:.2f} s; start should be before that; "
                f"got {settings.start:g}."
            )
        self._first = self._first_pixels(listed)
        height, width = self._first[1].shape[:2]
        self.facts = SourceFacts(width, height, self._rate, last, last / self._rate)

    def frames(self) -> Iterator[Frame]:
        """The frames, and InputError after the last one if pictures could not be read."""
        chosen: Iterator[Timed[Path]] = iter(self._chosen)
        if self.live:
            chosen = paced(chosen, self._clock, self._sleep, self._skip)
        for number, time_s, path in chosen:
            if self._stopped.is_set():
                return
            image = self._pixels(path)
            if image is not None:
                yield Frame(number, time_s, image)
        if self._broken:
            raise InputError(
                f"{self.name} has {len(self._broken):,} pictures that cannot be read; the first: "
                f"{self._broken[0]}"
            )

    def stop(self) -> None:
        """End `frames` soon."""
        self._stopped.set()

    def close(self) -> None:
        """Nothing is open between two frames."""

    def _skip(self) -> None:
        self.skipped += 1

    def _first_pixels(self, listed: list[tuple[int, Path]]) -> tuple[Path, ImageArray]:
        """The first picture that can be read, among those asked for if there are any."""
        paths = [path for _, _, path in self._chosen] or [path for _, path in listed]
        for path in paths:
            try:
                return path, load_image(path, limits=self._limits)
            except ImageError as error:
                problem = str(error)
        raise InputError(f"None of the pictures of {self.name} can be read; the last: {problem}")

    def _pixels(self, path: Path) -> ImageArray | None:
        if self._first[0] == path:
            return self._first[1]
        try:
            return load_image(path, limits=self._limits)
        except ImageError as error:
            self._broken.append(str(error))
            return None


def _listed(place: Path, name: str) -> list[tuple[int, Path]]:
    """The frames' numbers, from 0, and their files."""
    folder = place if place.is_dir() else place.parent
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise InputError(
            f"The folder of {name} cannot be read: {error.strerror}. Check the path."
        ) from error
    if place.is_dir():
        pictures = sorted(filter(is_picture, names), key=natural)
        found = list(enumerate(folder / picture for picture in pictures))
    else:
        found = _numbered(folder, place.name, names)
    if not found:
        raise InputError(
            f"{name} should hold or name pictures such as frame_0001.png; there are none. Check "
            "the path."
        )
    return found


def is_picture(name: str) -> bool:
    """Whether the name of a file is that of a picture that is not hidden."""
    return is_image_name(Path(name))


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key that sorts names as people count: frame2 before frame10."""
    parts = re.findall(r"(\d+)|(\D+)", name.casefold())
    return [(0, int(digits[:300]), "") if digits else (1, 0, text) for digits, text in parts], name


def _numbered(folder: Path, pattern: str, names: list[str]) -> list[tuple[int, Path]]:
    """The files that a pattern names, by their number less the least of them."""
    if len(_PATTERN.findall(pattern)) != 1:
        raise InputError(
            f"A pattern of pictures should have one number, as in frame_%04d.png; got "
            f"{pattern[:200]}."
        )
    found = _PATTERN.search(pattern)
    assert found is not None
    zero, width = found.group(1), int(found.group(2) or 0)
    digits = rf"(\d{{{width},}})" if zero and width else r"(\d+)"
    expression = re.compile(
        f"{re.escape(pattern[: found.start()])}{digits}{re.escape(pattern[found.end() :])}"
    )
    matches = [(match, name) for name in names if (match := expression.fullmatch(name))]
    written = [(int(match.group(1)), name) for match, name in matches if len(match.group(1)) <= 15]
    numbered = [
        (number, name)
        for number, name in written
        if name
        == pattern[: found.start()] + f"{number:{zero}{width or ''}d}" + pattern[found.end() :]
    ]
    first = min((number for number, _ in numbered), default=0)
    return sorted((number - first, folder / name) for number, name in numbered)
