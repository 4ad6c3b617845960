"""facenet's files of learning rates: lines such as `60: 0.005`, from which epoch on which rate.

`#` begins a comment; the epochs ascend; the last line whose epoch has come holds. A rate of `-` or
-1 ends training. facenet's own reader fails on a blank line, and for epochs from the last line on
gives nothing, which Python 2 took for the end of training; here the last line holds to the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from facenet.errors import SettingsError

MAX_BYTES = 1_000_000
"""Most bytes of a file of learning rates."""
STOP = ("-", "-1")
"""Rates that mean: training ends."""


@dataclass(frozen=True, slots=True)
class RateLine:
    """From `epoch` on the rate is `rate`; None: training ends."""

    epoch: int
    rate: float | None


def read_rates(path: Path) -> tuple[RateLine, ...]:
    """The lines of a file, one at least, their epochs ascending.

    Raises SettingsError with the number of the line for a wrong one.
    """
    return parse_rates(_text(path), str(path))


def parse_rates(text: str, origin: str) -> tuple[RateLine, ...]:
    """The lines of a text. origin: what errors call it. Raises SettingsError as `read_rates`."""
    found: list[RateLine] = []
    for number, words in _filled(text):
        place = f"Line {number} of {origin[-200:]}"
        line = _line(words, place)
        if found and found[-1].rate is None:
            raise SettingsError(
                f"{place} should not be there: training ends at epoch {found[-1].epoch} by the "
                "line before. Remove one of the two."
            )
        if found and line.epoch <= found[-1].epoch:
            raise SettingsError(
                f"{place} should have an epoch above {found[-1].epoch}; got {line.epoch}. Put the "
                "lines in order."
            )
        found.append(line)
    if not found:
        raise SettingsError(
            f"{origin[-200:]} should hold lines such as `0: 0.05`; it holds none. Add one."
        )
    return tuple(found)


def held(lines: Sequence[RateLine], epoch: int) -> float | None:
    """The rate of an epoch: that of the last line whose epoch has come; None: training ends.

    Raises SettingsError for an epoch before the first line.
    """
    come = [line for line in lines if line.epoch <= epoch]
    if not come:
        raise SettingsError(
            f"The learning rates should begin at epoch {epoch} or before; the first line is for "
            f"epoch {lines[0].epoch}. Add a line `0: RATE`."
        )
    return come[-1].rate


def _filled(text: str) -> Iterator[tuple[int, str]]:
    """Number and content of the lines that say something."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].strip()
        if words:
            yield number, words


def _line(words: str, place: str) -> RateLine:
    left, colon, right = (part.strip() for part in words.partition(":"))
    epoch = int(left) if left.isascii() and left.isdigit() and len(left) < 10 else -1
    rate = _rate(right)
    if not colon or epoch < 0 or (rate is None and right not in STOP):
        raise SettingsError(
            f"{place} should be `EPOCH: RATE`, a whole number and a rate above 0 (or `-`: "
            f"training ends); got {words!r:.60}. Correct it."
        )
    return RateLine(epoch, rate)


def _rate(text: str) -> float | None:
    try:
        rate = float(text)
    except ValueError:
        return None
    return rate if 0 < rate < math.inf else None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SettingsError(
                f"{path} should be a file of learning rates of at most 1 MB; it is larger. Check "
                "the path."
            )
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise SettingsError(
            f"Cannot read the learning rates {str(path)[-200:]}: {reason}. Check the path; those "
            "of facenet lie in recipes/schedules/."
        ) from error
