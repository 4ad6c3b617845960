"""What takes the moments of a video as they come: a film, events, tracks, and what ends with them.

Each is on its own: one that fails (a full disk, say) is left out and named, and the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

from facenet.apps.jobs.filming.annotated import FilmLook, annotated_film, to_hide
from facenet.apps.jobs.filming.eventfile import EventFile, event_row
from facenet.apps.jobs.filming.portraits import (
    INDEX,
    require_portrait_folder,
    write_portraits,
)
from facenet.apps.jobs.filming.subtitles import subtitle_kind, write_subtitles
from facenet.apps.jobs.filming.timeline import (
    Period,
    require_timeline_extra,
    require_timeline_name,
    write_timeline,
)
from facenet.apps.jobs.filming.trackfile import BoxLog, track_kind, write_tracks
from facenet.apps.jobs.filming.webhook import (
    Webhook,
    WebhookSettings,
    outbox_beside,
    webhook_secret,
)
from facenet.files import require_writable
from facenet.images.filming import TICK, LeftError, require_film_name
from facenet.video.events import Moment, Track
from facenet.video.identity import Identity

AHEAD = 8
"""Frames that may wait for the film, which is written beside the detection."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known at the end. tracks: all that were kept. facts: of the summary. stopped:
    whether the video ended before its source did. joined: see `Watching`."""

    tracks: Sequence[Track]
    facts: dict[str, Any]
    stopped: bool
    joined: Mapping[int, int] = field(default_factory=dict)


class Sink(Protocol):
    """Takes moments in order, then ends. name: the file or folder, for messages."""

    name: str

    def take(self, moment: Moment) -> None:
        """A moment. Raises FacenetError when it cannot be kept: nothing more is given then."""
        ...

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Write what is left; facts for the summary."""
        ...

    def abandon(self) -> None:
        """Let go after an error, with nothing half-written left behind. May be called again."""
        ...


# ---- the film


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """How the film is made. path: where. rate: frames a second, about. audio: the file whose sound
    is kept, or None. stop: seconds of it. look: see `FilmLook`. blur: "all", "unknown" or None."""

    path: Path
    rate: float = 25.0
    audio: str | None = None
    stop: float | None = None
    look: FilmLook = FilmLook()
    blur: str | None = None


class FilmSink:
    """Writes an annotated film in a thread of its own: encoding waits for no detection.

    Raises StorageError at once for a place that cannot be written, as all outputs do.
    """

    def __init__(self, plan: FilmPlan) -> None:
        self.name, self._plan = str(plan.path), plan
        require_writable(require_film_name(plan.path))
        self._queue: Queue[Moment | Ending | None] = Queue(AHEAD)
        pool = ThreadPoolExecutor(1, "facenet-film")
        self._work = pool.submit(self._write)
        pool.shutdown(wait=False)

    def take(self, moment: Moment) -> None:
        """Hand a moment over; waits while the film is `AHEAD` frames behind."""
        if self._work.done():  # with an error: a film ends by itself for no other reason
            self._work.result()
        self._queue.put(moment)

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Wait for the film; its size, frames and seconds."""
        self._queue.put(ending)
        return self._work.result()

    def abandon(self) -> None:
        """Leave no film behind."""
        if not self._work.done():
            self._queue.put(None)
        self._work.exception()  # waits; whatever it is, it has been told or is not wanted

    def _write(self) -> dict[str, Any]:
        """Write what comes, to the end; what it became."""
        plan = self._plan
        try:
            with annotated_film(
                plan.path, rate=plan.rate, audio=plan.audio, stop=plan.stop, look=plan.look
            ) as film:
                last = float("-inf")
                while isinstance(given := self._queue.get(), Moment):
                    last = self._add(film, given, last)
                if not isinstance(given, Ending):
                    raise LeftError
                if given.stopped:
                    film.film.cut()
            made = film.film
            facts = {"frames": made.frames, "size": made.size, "duration_s": made.duration_s}
            return {**facts, "notices": made.notices}
        finally:
            self._drain()

    def _add(self, film: Any, moment: Moment, last: float) -> float:
        """Write a frame, never at the time of the one before; its time."""
        frame = moment.frame
        if frame.time_s <= last:
            later = last + float(TICK)
            frame = replace(frame, time_s=later)
        names = {number: identity.person for number, identity in moment.people.items()}
        hide = to_hide(moment.faces, names, self._plan.blur) if self._plan.blur else None
        film.add(frame, moment.faces, labels_of(moment.people), hide)
        return frame.time_s

    def _drain(self) -> None:
        """Make room, so that nobody waits for a film that is over."""
        while not self._queue.empty():
            self._queue.get_nowait()


def labels_of(people: Mapping[int, Identity]) -> dict[int, str | None]:
    """What is written beside each track: the person, else "unknown 3", else None."""
    return {number: who.person or who.stranger for number, who in people.items()}


# ---- events


class EventSink:
    """Writes events to a file, as they come.

    place: a file, or "-" for stdout. source: name of the video. began: when its second 0 was, for
    live ones.
    """

    def __init__(
        self, place: str, *, append: bool = False, source: str, began: datetime | None = None
    ) -> None:
        self.name, self.count = place, 0
        self._row = partial(event_row, source=source, began=began)
        self._file = EventFile(place, append=append)

    def take(self, moment: Moment) -> None:
        """Write what happened."""
        for event in moment.events:
            self._file.add(self._row(event))
            self.count += 1

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Close; how many there were."""
        self._file.close()
        return {"events": self.count}

    def abandon(self) -> None:
        """Close, with what is written so far."""
        self._file.close()


class WebhookSink:
    """Sends events to an address, as they come.

    beside: the file of events next to which those wait that could not be sent. source, began: as
    in `EventSink`.
    """

    name = "the webhook"

    def __init__(
        self, address: str, beside: Path, *, source: str, began: datetime | None = None
    ) -> None:
        self._row = partial(event_row, source=source, began=began)
        settings = WebhookSettings(address, webhook_secret())
        self._webhook = Webhook(settings, outbox_beside(beside, address))

    def take(self, moment: Moment) -> None:
        """Hand over what happened."""
        for event in moment.events:
            self._webhook.add(self._row(event))

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Close, and what became of those that were sent."""
        self._webhook.close()
        return {**self._webhook.to_dict(), "notices": [self._webhook.sentence()]}

    def abandon(self) -> None:
        """Close; what could not be sent waits for the next run."""
        self._webhook.close()


# ---- what is written at the end


class TrackSink:
    """Writes the tracks, with the boxes of every frame."""

    def __init__(self, path: Path) -> None:
        track_kind(path)
        require_writable(path)
        self.name, self._path = str(path), path
        self._boxes = BoxLog(path.parent)

    def take(self, moment: Moment) -> None:
        """Keep the boxes."""
        frame = moment.frame
        self._boxes.add(frame.number, frame.time_s, moment.faces, detected=moment.detected)

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Write the file."""
        facts = {("track_count" if k == "tracks" else k): v for k, v in ending.facts.items()}
        write_tracks(self._path, ending.tracks, facts, self._boxes, ending.joined)
        self._boxes.close()
        return {"boxes": self._boxes.rows}

    def abandon(self) -> None:
        """Forget the boxes."""
        self._boxes.close()


class SubtitleSink:
    """Writes who is there as subtitles.

    for_film: their times are those of the film, which begins at 0, else those of the source.
    """

    def __init__(self, path: Path, *, for_film: bool = False) -> None:
        subtitle_kind(path)
        require_writable(path)
        self.name, self._path, self._for_film = str(path), path, for_film

    def take(self, moment: Moment) -> None:
        """Nothing: the tracks say it all."""

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Write the file."""
        begin = ending.facts["start_s"] if self._for_film else 0.0
        return {"cues": write_subtitles(self._path, ending.tracks, begin)}

    def abandon(self) -> None:
        """Nothing is open."""


class TimelineSink:
    """Writes the page of who was there when."""

    def __init__(self, path: Path) -> None:
        require_timeline_name(path)
        require_timeline_extra()
        require_writable(path)
        self.name, self._path = str(path), path

    def take(self, moment: Moment) -> None:
        """Nothing: the tracks say it all."""

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Write the page."""
        facts = ending.facts
        told = (
            f"{facts['frames']:,} frames, {facts['duration_s']:.1f} s",
            f"faces looked for in {facts['looked_at']:,} of them",
        )
        period = Period(str(facts["video"]), facts["start_s"], facts["end_s"], told)
        write_timeline(self._path, ending.tracks, period)
        return {}

    def abandon(self) -> None:
        """Nothing is open."""


class PortraitSink:
    """Writes the best picture of every track."""

    def __init__(self, folder: Path) -> None:
        require_portrait_folder(folder)
        require_writable(folder / INDEX)
        self.name, self._folder = str(folder), folder

    def take(self, moment: Moment) -> None:
        """Nothing: the tracks have their pictures."""

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Write the pictures and their list."""
        return {"portraits": write_portraits(self._folder, ending.tracks)}

    def abandon(self) -> None:
        """Nothing is open."""
