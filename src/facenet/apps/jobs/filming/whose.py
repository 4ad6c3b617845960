"""Whose tracks are these: how a track is called, and the tracks of a person together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from facenet.apps.jobs.filming.cells import one_line

if TYPE_CHECKING:
    from facenet.video.events import Track

Span = tuple[float, float]
"""From when to when somebody is visible, in seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Everything of one person, or of one unknown person. name: one line. known: whether somebody
    of the gallery. tracks: by the time they begin. spans: when they are visible, apart from each
    other and in order."""

    name: str
    known: bool
    tracks: tuple[Track, ...]
    spans: tuple[Span, ...]

    @property
    def visible_s(self) -> float:
        """Seconds in which they are visible."""
        return sum(end - start for start, end in self.spans)


def called(track: Track) -> str:
    """A track's person, else its stranger, else its number, in one line."""
    return one_line(track.person or track.stranger or "") or f"track {track.id}"


def rows_of(tracks: Iterable[Track]) -> list[Row]:
    """Tracks by person: known people first, then the others, each by when they are first seen."""
    whose: dict[tuple[bool, str], list[Track]] = {}
    for track in sorted(tracks, key=lambda track: (track.first_s, track.id)):
        known = track.person is not None
        whose.setdefault((not known, _key(track)), []).append(track)
    rows = [
        Row(called(found[0]), not unknown, tuple(found), merged(visible(found)))
        for (unknown, _), found in whose.items()
    ]
    return sorted(rows, key=lambda row: not row.known)


def visible(tracks: Iterable[Track]) -> list[Span]:
    """When the people of tracks are visible: their spans, or from the first to the last face."""
    return [
        (float(start), float(end))
        for track in tracks
        for start, end in (track.spans or ((track.first_s, track.last_s),))
    ]


def merged(spans: Iterable[Span], gap: float = 0.0) -> tuple[Span, ...]:
    """Spans in order, those that touch or lie no further than `gap` seconds apart made one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def clock(seconds: float, *, decimals: int = 0) -> str:
    """Seconds as h:mm:ss, with decimals where they are wanted."""
    units = round(max(0.0, seconds) * 10**decimals)
    whole, rest = divmod(units, 10**decimals)
    text = f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{text}.{rest:0{decimals}}" if decimals else text


def present(rows: Sequence[Row]) -> list[tuple[float, float, list[str]]]:
    """Stretches of time in which the same people are visible: start, end and their names.

    Names come in the order of the rows. Stretches without anybody are left out; neighbours differ.
    """
    turns = sorted(
        [(at, number, step) for number, row in enumerate(rows) for span in row.spans
         for at, step in zip(span, (1, -1), strict=True)],
        key=itemgetter(0),
    )  # fmt: skip
    there: dict[int, int] = {}
    found: list[tuple[float, float, list[str]]] = []
    for place, (at, number, step) in enumerate(turns):
        there[number] = there.get(number, 0) + step
        if not there[number]:
            del there[number]
        until = turns[place + 1][0] if place + 1 < len(turns) else at
        names = [rows[one].name for one in sorted(there)]
        if names and until > at:
            if found and found[-1][1] == at and found[-1][2] == names:
                found[-1] = (found[-1][0], until, names)
            else:
                found.append((at, until, names))
    return found


def _key(track: Track) -> str:
    """What tracks of one person have in common."""
    if track.person is not None:
        return track.identity.person_id or track.person
    return track.stranger or f"track {track.id}"
