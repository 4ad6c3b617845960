"""A video from its first frame to the last file: the work behind `facenet video` and `camera`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, isfinite
from pathlib import Path
from typing import Any

from facenet.apps.jobs.filming.annotated import FilmLook, require_whom
from facenet.apps.jobs.filming.portraits import INDEX
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
    WebhookSink,
)
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
    see `blur_faces`; None: "blur". boxes: draw boxes and names. trail: seconds of a track's way
    that are drawn. silent: the film has no sound.
    events: a file of events, "-" for stdout; append: to what is there. webhook: address that
    events are sent to. tracks, subtitles, timeline, portraits: files, and a folder for the last.
    """

    draw: Path | None = None
    blur: str | None = None
    hide: str | None = None
    boxes: bool = True
    trail: float = 0.0
    silent: bool = False
    events: str | None = None
    append: bool = False
    webhook: str | None = None
    tracks: Path | None = None
    subtitles: Path | None = None
    timeline: Path | None = None
    portraits: Path | None = None

    def __post_init__(self) -> None:
        if self.blur is not None:
            require_whom(self.blur)
        if self.blur is not None and self.draw is None:
            raise SettingsError("blur hides faces in the film: say where it goes with --draw.")
        if self.hide is not None and self.blur is None:
            raise SettingsError("hide is for faces that are hidden: say whose with --blur.")
        self._for_film()
        self._look()
        if self.append and self.events in (None, "-"):
            raise SettingsError("append is for a file of events: name it with --events.")

    def _for_film(self) -> None:
        options = {"plain": not self.boxes, "trail": self.trail, "silent": self.silent}
        given = [f"--{name}" for name, value in options.items() if value]
        if given and self.draw is None:
            raise SettingsError(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for the film: say "
                "where it goes with --draw."
            )
        if self.trail and not self.boxes:
            raise SettingsError("Give either --trail or --plain, not both.")

    def sinks(self, watching: Watching, place: str) -> Iterator[Sink]:
        """What takes the moments, opened, for the video at a place. Raises where one cannot be, and
        InputError where it would replace the video."""
        self._spare(place)
        source = watching.source
        name, live = str(getattr(source, "name", "frames")), watching.live
        if self.subtitles:
            yield SubtitleSink(self.subtitles, for_film=self.draw is not None)
        if self.timeline:
            yield TimelineSink(self.timeline)
        if self.portraits:
            yield PortraitSink(self.portraits)
        if self.tracks:
            yield TrackSink(self.tracks)
        if self.draw:
            yield FilmSink(self._film(self.draw, source, place))
        began = datetime.now(UTC) if live else None
        if self.events:  # last, as it replaces a file at once
            yield EventSink(self.events, append=self.append, source=name, began=began)
        if self.webhook:
            beside = Path("facenet-events.jsonl" if self.events in (None, "-") else self.events)
            yield WebhookSink(self.webhook, beside, source=name, began=began)

    def _spare(self, place: str) -> None:
        """Raises InputError for an output that would replace the source or another output."""
        taken: set[str] = set()
        for path in self._files():
            if os.path.exists(path) and os.path.exists(place) and os.path.samefile(path, place):
                raise InputError(
                    f"{path} is the source, and what is written there would replace it. Choose "
                    "another name."
                )
            if os.path.realpath(path) in taken:
                raise InputError(
                    f"{path} is named for two outputs, and one would replace the other. Choose "
                    "another name."
                )
            taken.add(os.path.realpath(path))

    def _files(self) -> list[Path]:
        events = None if self.events in (None, "-") else Path(self.events)
        listed = self.portraits / INDEX if self.portraits else None
        given = (self.draw, events, self.tracks, self.subtitles, self.timeline, self.portraits)
        return [path for path in (*given, listed) if path is not None]

    def _film(self, path: Path, source: Any, place: str) -> FilmPlan:
        facts, read = getattr(source, "facts", None), getattr(source, "settings", None)
        heard = getattr(source, "kind", None) == "file" and not self.silent
        rate = min(max(getattr(facts, "rate", None) or 25.0, 0.01), 1000.0)
        stop = read.stop if read else None
        return FilmPlan(path, rate, place if heard else None, stop, self._look(), self.blur)

    def _look(self) -> FilmLook:
        return FilmLook(draw=self.boxes, trail_s=self.trail, how=self.hide or "blur")


@dataclass(frozen=True, slots=True)
class Telling:
    """Who looks on. done: takes frames done, all there are about (0: not known) and a few words.
    moment: sees each moment. until_s: the video ends after so many seconds; None: with its source.
    clock: seconds, for the rate. Raises SettingsError."""

    done: Callable[[int, int, str], None] = lambda done, total, words: None
    moment: Callable[[Moment], None] = lambda moment: None
    until_s: float | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        until = self.until_s
        if until is not None and not (isfinite(until) and until > 0):
            raise SettingsError(f"seconds should be a number above 0; got {until}.")


def film_video(
    place: str | os.PathLike[str],
    watching: Watching,
    outputs: Outputs,
    telling: Telling | None = None,
) -> dict[str, Any]:
    """Watch to the end, write what is wanted, and say what there was; see docs/video.md.

    place: what is watched, for its sound.

    Ctrl-C or SIGTERM ends the video after the frame at hand and finishes all files; a second one
    stops at once. What goes wrong with an output or at the end of a damaged file is a sentence in
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
        self._interrupted = False

    def run(self) -> dict[str, Any]:
        """Open the sinks, feed them, end them."""
        try:
            with self._watching:
                for sink in self._outputs.sinks(self._watching, self._place):
                    self._sinks.append(sink)
                with on_interrupt(self._interrupt, (signal.SIGINT, signal.SIGTERM)):
                    started = self._telling.clock()
                    self._feed(started)
                    return self._summary(self._telling.clock() - started)
        finally:
            for sink in self._sinks:
                sink.abandon()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._watching.stop()

    def _feed(self, started: float) -> None:
        facts = getattr(self._watching.source, "facts", None)
        total = getattr(facts, "frames", None) or 0
        self._watching.until_s = self._telling.until_s or inf
        try:
            for seen, moment in enumerate(self._watching, 1):
                self._first = moment.frame.time_s if self._first is None else self._first
                self._last = moment.frame.time_s
                self._telling.moment(moment)
                self._give(moment)
                rate = seen / max(self._telling.clock() - started, 1e-9)
                self._telling.done(seen, max(total, seen), self._words(moment, rate))
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
            self._watching.stop()

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
            "stopped": watching.stopped,
            "interrupted": self._interrupted,
        }
        self._finish(Ending(tracks, facts, watching.stopped, watching.joined))
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
