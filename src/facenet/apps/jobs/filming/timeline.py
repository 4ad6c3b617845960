"""Who was there, from when to when, as one HTML page: a row per person, a bar per stretch of time.

The page holds everything it shows, runs no script and asks no network. Bars are links to the table
below, so they can be reached with the keyboard; pointing at one or reaching it tells its times.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.apps.jobs.filming.cells import one_line
from facenet.apps.jobs.filming.whose import (
    Row,
    called,
    clock,
    merged,
    rows_of,
    visible,
)
from facenet.errors import ImageError, MissingExtraError, SettingsError
from facenet.files import written
from facenet.gallery.answers import BELOW
from facenet.images import load_image

if TYPE_CHECKING:
    from facenet.video.events import Portrait, Track
    from facenet.video.identity import Identity

ENDINGS = (".html", ".htm")
STEPS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400,
)  # fmt: skip
"""Seconds between the marks of the axis; longer ones are whole days."""
MARKS = 8
"""Most stretches between marks."""
SIDE = 88
"""Pixels a side of a thumbnail, twice what is shown."""
ROOM = 0.25
"""What is shown around a face, as a share of its sides."""
ALL_PORTRAITS = 60
"""Tracks up to which the table shows every portrait; beyond, the best of each."""
TOUCH = 0.001
"""Stretches closer than this share of the page become one bar."""
SHORT = 60.0
"""Seconds of a page up to which bars tell tenths of a second."""
LEAST = 0.2
"""Percent of the page that the narrowest bar takes."""


@dataclass(frozen=True, slots=True)
class Period:
    """What the page shows, in seconds of the video. title: of the page, such as the name of the
    file. facts: more about it, in a few words each."""

    title: str
    start_s: float = 0.0
    end_s: float | None = None
    facts: Sequence[str] = ()


def require_timeline_extra() -> None:
    """Raises MissingExtraError, before the work, where jinja2 is missing."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "A timeline needs jinja2, which is not installed. Install it with "
            '`pip install "facenet[video]"`, or leave the timeline out.'
        ) from error


def require_timeline_name(path: Path) -> None:
    """Raises SettingsError for a name that is not that of a page."""
    if path.suffix.lower() not in ENDINGS:
        raise SettingsError(
            f"The name of a timeline should end with .html or .htm; got {str(path)[:300]}."
        )


def write_timeline(path: Path, tracks: Iterable[Track], period: Period) -> None:
    """Write the page, whole or not at all. It shows faces: only its owner may read it.

    Raises SettingsError for another ending, MissingExtraError, StorageError.
    """
    require_timeline_name(path)
    require_timeline_extra()
    text = _html(list(tracks), period)
    with written(path, private=True) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def marks(start: float, end: float) -> list[float]:
    """Where the axis has marks: multiples of a round step, at most `MARKS` and one."""
    step = next((s for s in STEPS if (end - start) / s <= MARKS), None)
    if step is None:
        step = 86400 * (int((end - start) / 86400 / MARKS) + 1)
    first = -int(-start // step)
    return [float(step * n) for n in range(first, int(end // step) + 1)]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Seconds to percent of the width."""

    start: float
    end: float

    def at(self, seconds: float) -> float:
        share = (seconds - self.start) / (self.end - self.start)
        return round(100 * min(1.0, max(0.0, share)), 3)


def _html(tracks: Sequence[Track], period: Period) -> str:
    import jinja2

    rows = rows_of(tracks)
    last = max((end for row in rows for _, end in row.spans), default=period.start_s)
    end = max(last, period.end_s or 0.0, period.start_s + 1.0)
    scale = _Scale(period.start_s, end)
    entries = [_entry(row, number, scale) for number, row in enumerate(rows)]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = resources.files("facenet.apps.jobs.filming").joinpath("timeline.html.j2")
    return environment.from_string(text.read_text("utf-8")).render(
        title=one_line(period.title),
        facts=[one_line(fact) for fact in period.facts],
        length=clock(end - period.start_s),
        sections=[
            ("People", [entry for entry in entries if entry["known"]]),
            ("Unknown", [entry for entry in entries if not entry["known"]]),
        ],
        marks=[(clock(mark), scale.at(mark)) for mark in marks(period.start_s, end)],
        tracks=[
            _described(track, number, many=len(tracks) > ALL_PORTRAITS)
            for number, row in enumerate(rows)
            for track in row.tracks
        ],
    )


def _entry(row: Row, number: int, scale: _Scale) -> dict[str, Any]:
    portraits = [one for track in row.tracks for one in track.portraits]
    best = max(portraits, key=lambda one: one.quality, default=None)
    return {
        "number": number,
        "name": row.name,
        "known": row.known,
        "hue": round(210 + number * 137.508) % 360,
        "picture": _thumbnail(best),
        "visible": f"{row.visible_s:.1f} s" if row.visible_s < 60 else clock(row.visible_s),
        "count": len(row.tracks),
        "bars": [bar for track in row.tracks for bar in _bars(track, row.name, scale)],
    }


def _bars(track: Track, name: str, scale: _Scale) -> list[dict[str, Any]]:
    found = []
    decimals = int(scale.end - scale.start <= SHORT)
    for start, end in merged(visible([track]), TOUCH * (scale.end - scale.start)):
        left = min(scale.at(start), 100 - LEAST)
        found.append(
            {
                "track": track.id,
                "left": left,
                "width": round(max(LEAST, scale.at(end) - left), 3),
                "text": f"{name}: {clock(start, decimals=decimals)} to "
                f"{clock(end, decimals=decimals)}, track {track.id}",
            }
        )
    return found


def _described(track: Track, row: int, *, many: bool) -> dict[str, Any]:
    """A track for the table."""
    spans, shown = visible([track]), track.portraits[:1] if many else track.portraits
    return {
        "id": track.id,
        "row": row,
        "name": called(track),
        "pictures": [picture for one in shown if (picture := _thumbnail(one))],
        "from": clock(track.first_s, decimals=1),
        "to": clock(track.last_s, decimals=1),
        "visible": sum(end - start for start, end in spans),
        "spans": len(spans),
        "detections": track.detections,
        "numbers": _numbers(track.identity),
        "remark": _remark(track.identity),
    }


def _numbers(identity: Identity) -> list[str]:
    """Similarity, threshold, FPIR and FMR of a decision; empty where there is none."""
    levels = [identity.similarity, identity.threshold]
    shown = ["" if value is None else f"{value:.3f}" for value in levels]
    rates = [identity.fpir, identity.fmr]
    return shown + ["" if value is None else f"{value:.2g}" for value in rates]


def _remark(identity: Identity) -> str:
    """Who came nearest to somebody unknown, and why a decision is not by similarity."""
    words = []
    if identity.person is None and identity.best_candidate:
        words.append(f"nearest: {one_line(identity.best_candidate)}")
    if identity.reason not in (None, BELOW):
        words.append(str(identity.reason).replace("_", " "))
    return ", ".join(words)


def _thumbnail(portrait: Portrait | None) -> str | None:
    """A portrait as a small square JPEG in base64; None where it is none."""
    import cv2
    import numpy as np

    try:
        image = load_image(portrait.jpeg) if portrait else None
    except ImageError:
        return None
    if portrait is None or image is None:
        return None
    x1, y1, x2, y2 = (float(side) for side in portrait.face)
    half = min((0.5 + ROOM) * max(x2 - x1, y2 - y1), min(image.shape[:2]) / 2)
    centre = [
        min(max(middle, half), length - half)
        for middle, length in (((x1 + x2) / 2, image.shape[1]), ((y1 + y2) / 2, image.shape[0]))
    ]
    left, top = (max(0, round(middle - half)) for middle in centre)
    side = max(1, round(2 * half))
    square = np.ascontiguousarray(image[top : top + side, left : left + side, ::-1])
    small = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return base64.b64encode(data.tobytes()).decode()
