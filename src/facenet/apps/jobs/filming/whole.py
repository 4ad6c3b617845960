"""A video from its first frame to the last file: the work behind `facenet video` and `camera`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facenet.apps.jobs.filming.annotated import WHOM, FilmLook
from facenet.apps.jobs.filming.sinks import (
    Ending,
    EventSink,
    FilmPlan,
    FilmSink,
    PortraitSink,
    Sink,
    SubtitleSink,
    TimelineSink,
    TrackSink,
)
from facenet.apps.jobs.filming.whose import called
from facenet.apps.jobs.interrupt import on_interrupt
from facenet.errors import FacenetError, InputError, SettingsError
from facenet.video.events import Moment, Track
from facenet.video.watch import Watching

VISIT = ("track", "person", "stranger", "first_s", "last_s", "visible_s", "similarity", "fmr",
         "fpir", "best_candidate", "detections")  # fmt: skip
"""What the summary says of each track."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written; None of each: not.

    draw: a film with boxes and names. blur: "all" or "unknown" faces are hidden in it. hide: how,
    see `blur_faces`. boxes: draw boxes and names. trail: seconds of a track's way that are drawn.
    events: a file of events, "-" for stdout; append: to what is there. webhook: address that
    events are sent to. tracks, subtitles, timeline, portraits: files, and a folder for the last.
    """

    draw: Path | None = None
    blur: str | None = None
    hide: str = "blur"
    boxes: bool = True
    trail: float = 0.0
    events: str | None = None
    append: bool = False
    webhook: str | None = None
    tracks: Path | None = None
    subtitles: Path | None = None
    timeline: Path | None = None
    portraits: Path | None = None

    def __post_init__(self) -> None:
        if self.blur is not None and self.blur not in WHOM:
            raise SettingsError(
                f"blur should be one of {', '.join(WHOM)}; got {str(self.blur)[:50]!r}."
            )
        if self.blur is not None and self.draw is None:
            raise SettingsError("blur hides faces in the film: say where it goes with --draw.")
        if self.append and self.events in (None, "-"):
            raise SettingsError("append is for a file of events: name it with --events.")

    def sinks(self, watching: Watching, place: str) -> Iterator[Sink]:
        """What takes the moments, opened, for the video at a place. Raises where one cannot be."""
        source = watching.source
        name, live = str(getattr(source, "name", "frames")), watching.live
        if self.subtitles:
            yield SubtitleSink(self.subtitles)
        if self.timeline:
            yield TimelineSink(self.timeline)
        if self.portraits:
            yield PortraitSink(self.portraits)
        if self.tracks:
            yield TrackSink(self.tracks)
        if self.events or self.webhook:
            began = datetime.now(UTC) if live else None
            yield EventSink(self.events, self.webhook, append=self.append, source=name, began=began)
        if self.draw:
            yield FilmSink(self._film(self.draw, source, place))

    def _film(self, path: Path, source: Any, place: str) -> FilmPlan:
        facts = getattr(source, "facts", None)
        sound = place if getattr(source, "kind", None) == "file" else None
        rate = getattr(facts, "rate", None) or 25.0
        look = FilmLook(draw=self.boxes, trail_s=self.trail, how=self.hide)
        return FilmPlan(path, min(max(rate, 0.01), 1000.0), sound, None, look, self.blur)


@dataclass(frozen=True, slots=True)
class Telling:
    """Who looks on. done: takes frames done, all there are about (0: not known) and a few words.
    moment: sees each moment. until_s: the video ends after so many seconds; None: with its source.
    clock: seconds, for the rate."""

    done: Callable[[int, int, str], None] = lambda done, total, words: None
    moment: Callable[[Moment], None] = lambda moment: None
    until_s: float | None = None
    clock: Callable[[], float] = time.monotonic


def film_video(
    place: str | os.PathLike[str],
    watching: Watching,
    outputs: Outputs,
    telling: Telling | None = None,
) -> dict[str, Any]:
    """Watch to the end, write what is wanted, and say what there was; see docs/video.md.

    place: what is watched, for its sound.

    Ctrl-C ends the video after the frame at hand and finishes all files; a second one stops at
    once. What goes wrong with an output or at the end of a damaged file is a sentence in
    "problems", and the rest is written all the same. Raises FacenetError where nothing can be
    watched or an output cannot be opened.
    """
    return _Run(os.fspath(place), watching, outputs, telling or Telling()).run()


class _Run:
    """One video on its way."""

    def __init__(self, place: str, watching: Watching, outputs: Outputs, telling: Telling) -> None:
        self._place = place
        self._watching, self._telling, self._outputs = watching, telling, outputs
        self._sinks: list[Sink] = []
        self._problems: list[str] = []
        self._notices: list[str] = []
        self._written: dict[str, Any] = {}
        self._first: float | None = None
        self._last = 0.0
        self._stopped = self._interrupted = False

    def run(self) -> dict[str, Any]:
        """Open the sinks, feed them, end them."""
        try:
            with self._watching:
                for sink in self._outputs.sinks(self._watching, self._place):
                    self._sinks.append(sink)
                started = self._telling.clock()
                with on_interrupt(self._interrupt):
                    self._feed(started)
            return self._summary(self._telling.clock() - started)
        finally:
            for sink in self._sinks:
                sink.abandon()

    def _stop(self) -> None:
        self._stopped = True
        self._watching.stop()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._stop()

    def _feed(self, started: float) -> None:
        facts = getattr(self._watching.source, "facts", None)
        total = getattr(facts, "frames", None) or 0
        try:
            for seen, moment in enumerate(self._watching, 1):
                self._first = moment.frame.time_s if self._first is None else self._first
                self._last = moment.frame.time_s
                self._telling.moment(moment)
                self._give(moment)
                rate = seen / max(self._telling.clock() - started, 1e-9)
                self._telling.done(seen, max(total, seen), self._words(moment, rate))
                until = self._telling.until_s
                if until is not None and self._last - self._first >= until:
                    self._stop()
        except InputError as error:
            if self._first is None:
                raise
            self._problems.append(str(error))

    def _words(self, moment: Moment, rate: float) -> str:
        there = sum(1 for number in moment.people if number)
        return f"{rate:.1f} frames/s, {there} in sight, {self._watching.track_count} so far"

    def _give(self, moment: Moment) -> None:
        """To every sink; one that fails is left out."""
        for sink in list(self._sinks):
            try:
                sink.take(moment)
            except FacenetError as error:
                self._drop(sink, error)

    def _drop(self, sink: Sink, error: FacenetError) -> None:
        self._problems.append(str(error))
        self._sinks.remove(sink)
        sink.abandon()
        if not self._sinks:  # nobody is left to watch for
            self._stop()

    def _summary(self, seconds: float) -> dict[str, Any]:
        watching = self._watching
        tracks = sorted(watching.tracks, key=lambda track: track.id)
        facts = {
            "video": str(getattr(watching.source, "name", "frames")),
            "frames": watching.frames,
            "duration_s": round(self._length(), 3),
            "start_s": self._first or 0.0,
            "end_s": self._last,
            "fps": round(watching.frames / seconds, 2) if seconds > 0 else None,
            "rate": getattr(getattr(watching.source, "facts", None), "rate", None),
            "tracks": watching.track_count,
            **{name: watching.figures[name] for name in ("looked_at", "stride", "skipped")},
            "stopped": self._stopped,
            "interrupted": self._interrupted,
        }
        self._finish(Ending(tracks, facts, self._stopped))
        return {
            **facts,
            "visits": [visit_row(track) for track in tracks],
            "written": self._written,
            "notices": [*watching.notices, *self._notices],
            "problems": self._problems,
        }

    def _length(self) -> float:
        """Seconds from the first frame to the end of the last, about."""
        facts = getattr(self._watching.source, "facts", None)
        rate, frames = getattr(facts, "rate", None), self._watching.frames
        shown = self._last - (self._first or 0.0)
        lasts = 1 / rate if rate else shown / (frames - 1) if frames > 1 else 0.0
        return shown + lasts if frames else 0.0

    def _finish(self, ending: Ending) -> None:
        for sink in list(self._sinks):
            try:
                facts = sink.finish(ending)
            except FacenetError as error:
                self._problems.append(str(error))
                sink.abandon()
            else:
                self._notices += facts.pop("notices", [])
                self._written[sink.name] = facts
        self._sinks.clear()


def visit_row(track: Track) -> dict[str, Any]:
    """A track as a row: who, from when to when, and how sure."""
    whole = track.to_dict()
    visible = sum(end - start for start, end in track.spans)
    return {name: whole[name] if name in whole else round(visible, 3) for name in VISIT}


def people_there(tracks: Sequence[Track]) -> list[str]:
    """Names of everybody who was there, each once, in the order in which they came."""
    return list(dict.fromkeys(called(track) for track in tracks))
