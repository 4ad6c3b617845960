"""Who is there, as subtitles: WebVTT (W3C) and SubRip, a cue for each time the company changes.

Cues do not overlap, so every player shows them: a cue lasts while the same people are visible and
has a line for each. Times are exact to the millisecond, which is what both formats hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facenet.apps.jobs.filming.whose import present, rows_of
from facenet.errors import SettingsError
from facenet.files import written

if TYPE_CHECKING:
    from facenet.video.events import Track

ENDINGS = (".vtt", ".srt")
LINES = 8
"""Most names in a cue; of the others it says how many there are."""
VTT_SIGNS = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
SRT_SIGNS = {"<": "‹", ">": "›", "{": "(", "}": ")", "\\": "/"}
"""SubRip knows no escapes: what players take for orders becomes a sign that looks like it."""


def write_subtitles(path: Path, tracks: Iterable[Track], begin_s: float = 0.0) -> int:
    """Write subtitles in the format of the name's ending; the number of cues.

    begin_s: second of the source at which the video begins that they are for.
    Raises SettingsError for another ending, StorageError.
    """
    kind = subtitle_kind(path)
    cues = list(_cues(tracks, begin_s))
    text = _vtt(cues) if kind == "vtt" else _srt(cues)
    with written(path, private=True) as file:
        file.write(text.encode())
    return len(cues)


def subtitle_kind(path: Path) -> str:
    """The format of subtitles, "vtt" or "srt". Raises SettingsError for another ending."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise SettingsError(
            f"The name of subtitles should end with .vtt or .srt; got {str(path)[:300]}."
        )
    return ending[1:]


def _cues(tracks: Iterable[Track], begin: float) -> Iterator[tuple[int, int, list[str]]]:
    """First and last millisecond, and names."""
    for start, end, names in present(rows_of(tracks)):
        first, last = round((start - begin) * 1000), round((end - begin) * 1000)
        if last > first:
            yield first, last, names


def _vtt(cues: Sequence[tuple[int, int, list[str]]]) -> str:
    parts = ["WEBVTT"]
    for number, (first, last, names) in enumerate(cues, 1):
        times = f"{_time(first, '.')} --> {_time(last, '.')}"
        parts.append(f"{number}\n{times}\n{_lines(names, VTT_SIGNS)}")
    return "\n\n".join(parts) + "\n"


def _srt(cues: Sequence[tuple[int, int, list[str]]]) -> str:
    return "".join(
        f"{number}\n{_time(first, ',')} --> {_time(last, ',')}\n{_lines(names, SRT_SIGNS)}\n\n"
        for number, (first, last, names) in enumerate(cues, 1)
    )


def _lines(names: Sequence[str], signs: dict[str, str]) -> str:
    table = str.maketrans(signs)
    shown = [name.translate(table) for name in names[:LINES]]
    more = [f"and {len(names) - LINES} more"] if len(names) > LINES else []
    return "\n".join(shown + more)


def _time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(max(0, milliseconds), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
