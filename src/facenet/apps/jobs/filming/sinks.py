"""What takes the moments of a video as they come: a film, events, tracks, and what ends with them.

Each is on its own: one that fails (a full disk, say) is left out and named, and the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

from facenet.apps.jobs.filming.annotated import FilmLook, annotated_film, to_hide
from facenet.apps.jobs.filming.eventfile import EventFile, event_row
from facenet.apps.jobs.filming.portraits import require_portrait_folder, write_portraits
from facenet.apps.jobs.filming.subtitles import subtitle_kind, write_subtitles
from facenet.apps.jobs.filming.timeline import Period, require_timeline_extra, write_timeline
from facenet.apps.jobs.filming.trackfile import BoxLog, track_kind, write_tracks
from facenet.apps.jobs.filming.webhook import (
    Webhook,
    WebhookSettings,
    outbox_beside,
    webhook_secret,
)
from facenet.images.filming import TICK, require_film_name
from facenet.video.events import Moment, Track

AHEAD = 8
"""Frames that may wait for the film, which is written beside the detection."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known at the end. tracks: all that were kept. facts: of the summary. stopped:
    whether the video ended before its source did."""

    tracks: Sequence[Track]
    facts: dict[str, Any]
    stopped: bool


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


class _LeftError(Exception):
    """Ends the thread of a film that is not wanted any more."""


class FilmSink:
    """Writes an annotated film in a thread of its own: encoding waits for no detection."""

    def __init__(self, plan: FilmPlan) -> None:
        self.name, self._plan = str(plan.path), plan
        require_film_name(plan.path)
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
                    raise _LeftError
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
            frame = type(frame)(frame.number, later, frame.image)
        names = {number: identity.person for number, identity in moment.people.items()}
        hide = to_hide(moment.faces, names, self._plan.blur) if self._plan.blur else None
        strangers = {number: identity.stranger for number, identity in moment.people.items()}
        labels = {number: name or strangers[number] for number, name in names.items()}
        film.add(frame, moment.faces, labels, hide)
        return frame.time_s

    def _drain(self) -> None:
        """Make room, so that nobody waits for a film that is over."""
        while not self._queue.empty():
            self._queue.get_nowait()


# ---- events


class EventSink:
    """Writes events to a file and sends them to an address, as they come.

    place: a file, "-" for stdout, or None. source: name of the video. began: when its second 0 was,
    for live ones.
    """

    def __init__(
        self,
        place: str | None,
        webhook: str | None = None,
        *,
        append: bool = False,
        source: str,
        began: datetime | None = None,
    ) -> None:
        self.name = place or "the webhook"
        self.count = 0
        self._source, self._began = source, began
        self._webhook: Webhook | None = None
        with ExitStack() as stack:
            self._file = stack.enter_context(EventFile(place, append=append)) if place else None
            if webhook is not None:
                beside = Path(place) if place and place != "-" else Path("facenet-events.jsonl")
                settings = WebhookSettings(webhook, webhook_secret())
                self._webhook = stack.enter_context(Webhook(settings, outbox_beside(beside)))
            self._closing = stack.pop_all()

    def take(self, moment: Moment) -> None:
        """Write what happened."""
        for event in moment.events:
            row = event_row(event, source=self._source, began=self._began)
            if self._webhook is not None:
                self._webhook.add(row)
            if self._file is not None:
                self._file.add(row)
            self.count += 1

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Close; how many there were, and what became of those that were sent."""
        self._closing.close()
        facts: dict[str, Any] = {"events": self.count}
        if self._webhook is not None:
            sent = {"webhook": self._webhook.to_dict(), "notices": [self._webhook.sentence()]}
            facts |= sent
        return facts

    def abandon(self) -> None:
        """Close, with what is written so far."""
        self._closing.close()


# ---- what is written at the end


class TrackSink:
    """Writes the tracks, with the boxes of every frame."""

    def __init__(self, path: Path) -> None:
        track_kind(path)
        self.name, self._path = str(path), path
        self._boxes = BoxLog(path.parent)

    def take(self, moment: Moment) -> None:
        """Keep the boxes."""
        frame = moment.frame
        self._boxes.add(frame.number, frame.time_s, moment.faces, detected=moment.detected)

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Write the file."""
        write_tracks(self._path, ending.tracks, ending.facts, self._boxes)
        self._boxes.close()
        return {"boxes": self._boxes.rows}

    def abandon(self) -> None:
        """Forget the boxes."""
        self._boxes.close()


class SubtitleSink:
    """Writes who is there as subtitles."""

    def __init__(self, path: Path) -> None:
        subtitle_kind(path)
        self.name, self._path = str(path), path

    def take(self, moment: Moment) -> None:
        """Nothing: the tracks say it all."""

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Write the file."""
        return {"cues": write_subtitles(self._path, ending.tracks)}

    def abandon(self) -> None:
        """Nothing is open."""


class TimelineSink:
    """Writes the page of who was there when."""

    def __init__(self, path: Path) -> None:
        require_timeline_extra()
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
        self.name, self._folder = str(folder), folder

    def take(self, moment: Moment) -> None:
        """Nothing: the tracks have their pictures."""

    def finish(self, ending: Ending) -> dict[str, Any]:
        """Write the pictures and their list."""
        return {"portraits": write_portraits(self._folder, ending.tracks)}

    def abandon(self) -> None:
        """Nothing is open."""
