"""Watch a video: a generator of moments, with everybody who is in them.

    >>> for moment in facenet.watch("door.mp4", known="staff/"):  # doctest: +SKIP
    ...     for event in moment.events:
    ...         print(event.time_s, event.type, event.person or event.stranger)

Nothing is written anywhere, and nothing leaves this process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf
from types import TracebackType
from typing import Any

import numpy as np

from facenet.errors import FacenetError, SettingsError
from facenet.faces.allocator import clear_gaps, share_arenas
from facenet.faces.track import Tracker
from facenet.galleries import Gallery
from facenet.images import Frame, SourceSettings, open_source
from facenet.recognizer import Recognizer
from facenet.sightings import require_fit
from facenet.types import Faces, FloatArray
from facenet.video.between import begun, between, moved_on, renamed
from facenet.video.events import Moment, Track, VideoEvent
from facenet.video.identity import Identity, decider_for, rates_of
from facenet.video.levels import AGREE, agreement, same_person
from facenet.video.looking import Looking
from facenet.video.naming import Naming
from facenet.video.pace import Pace
from facenet.video.settings import WatchSettings
from facenet.video.visits import Likeness, OnTrack, Visits

CLEARED = 500
"""Frames after which the gaps in memory are cleared."""
EXACT = 1e-6
"""Seconds to which times of frames are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What watches: who looks, who follows, who knows."""

    looking: Looking
    tracker: Tracker
    visits: Visits


class Watching(Iterator[Moment]):
    """The moments of a video, one for each frame, in order; made by `watch`.

    frames: those of the source, with their times rising. A moment is given when the next frame has
    come, so that those who leave at the end are in the last one. Use it in a `with` block, or call
    `close`, to stop early; `stop` ends it after the frame at hand, with everybody leaving.
    until_s: seconds after the first frame from which no frame is taken. stopped: whether it ends,
    or ended, before its source. clock: seconds, for the pace.
    """

    def __init__(
        self,
        source: Iterable[Frame],
        parts: Parts,
        settings: WatchSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source, self._parts, self._settings, self._clock = source, parts, settings, clock
        self.live = bool(getattr(source, "live", False))
        self.frames = 0
        self._motion = (settings.between or ("motion" if self.live else "")) == "motion"
        self._pace = Pace(settings)
        self._held: list[Frame] = []
        self._last: tuple[Frame, Faces] | None = None
        self._since, self._now = 0, 0.0
        self._people: dict[int, Identity] = {}
        self._joined: dict[int, int] = {}
        self._first: float | None = None
        self.until_s, self.stopped = inf, False
        self._moments = self._run()

    def __next__(self) -> Moment:
        return next(self._moments)

    def __enter__(self) -> Watching:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Tracks so far: those that are over and kept, then those that run."""
        return self._parts.visits.tracks()

    @property
    def track_count(self) -> int:
        """How many tracks there were, those that are not kept too."""
        return self._parts.visits.count

    @property
    def joined(self) -> dict[int, int]:
        """Numbers that moments named and that are of no track any more: the number of the track
        that they were found to be of, 0 for nobody's."""
        return {old: self._now_called(old) for old in self._joined}

    @property
    def skipped(self) -> int:
        """Frames that the source left out because they were late."""
        return int(getattr(self.source, "skipped", 0))

    @property
    def notices(self) -> list[str]:
        """What a user should know, one sentence each: of the source, of the pace, of tracks that
        were forgotten."""
        said = [*getattr(self.source, "notices", ()), *self._pace.notices()]
        if self._parts.visits.forgotten:
            said.append(
                f"Of {self.track_count:,} tracks the first {self._parts.visits.forgotten:,} were "
                "forgotten. Raise tracks, or take each with on_track."
            )
        return said

    @property
    def figures(self) -> dict[str, float]:
        """Counts: "frames"; "looked_at", those in which faces were looked for; "passed_over", the
        others; "stride", frames for each that was looked at; "skipped"; "embedded", faces;
        "tracks"."""
        pace = self._pace
        return {
            "frames": self.frames,
            "looked_at": pace.looked_at,
            "passed_over": pace.passed_over,
            "stride": round(pace.mean_stride, 3),
            "skipped": self.skipped,
            "embedded": self._parts.looking.embedded,
            "tracks": self.track_count,
        }

    def stop(self) -> None:
        """End after the frame at hand: the last moments come, and everybody leaves in the last. May
        be called from another thread or a signal handler."""
        self.stopped = True
        stop = getattr(self.source, "stop", None)
        if stop is not None:
            stop()

    def close(self) -> None:
        """Stop at once and let go of the source. May be called again."""
        self._moments.close()
        self._close_source()

    # ---- inside

    def _run(self) -> Generator[Moment, None, None]:
        problem: FacenetError | None = None
        ready: list[Moment] = []
        coming = iter(self.source)
        try:
            while not self.stopped:
                started = self._clock()
                try:
                    frame = next(coming, None)
                except FacenetError as error:  # what there is comes first
                    problem = error
                    break
                if frame is None or self._late(frame):
                    break
                received = self._clock()
                yield from ready
                ready = self._timed(frame, started if not self.live else received)
            yield from self._ending(ready)
            if problem is not None:
                raise problem
        finally:
            self._close_source()

    def _late(self, frame: Frame) -> bool:
        """Whether a frame comes after `until_s`; it is the end then."""
        self._first = frame.time_s if self._first is None else self._first
        late = frame.time_s - self._first > self.until_s - EXACT
        if late:
            self.stop()
        return late

    def _timed(self, frame: Frame, started: float) -> list[Moment]:
        """The moments that a frame completes; what they cost goes to the pace."""
        gap = frame.time_s - self._now if self.frames else 0.0
        looked = self._due(frame)
        if self.frames % CLEARED == CLEARED - 1:
            clear_gaps()
        moments = self._look(frame) if looked else self._pass(frame)
        self.frames += 1
        self._now = max(self._now, frame.time_s)
        self._pace.add(self._clock() - started, gap, looked=looked)
        return moments

    def _due(self, frame: Frame) -> bool:
        """Whether to look at a frame: at the first, at one of another size, and at its turn."""
        if self._last is None:
            return True
        if frame.time_s <= self._last[0].time_s:
            return False
        resized = frame.image.shape != self._last[0].image.shape
        return resized or self._since + 1 >= self._pace.stride

    def _look(self, frame: Frame) -> list[Moment]:
        parts, last = self._parts, self._last
        same = last is not None and last[0].image.shape == frame.image.shape
        found, quality = parts.looking.see(frame.image, last[1] if last and same else None)
        found = parts.tracker.update(found, frame.time_s)
        events = parts.visits.update(frame, found, quality, parts.tracker.ended())
        self._joined |= parts.visits.moved
        if last is not None:
            self._last = (last[0], begun(last[1], self._first_seen(last[0])))
        faces = found.with_(track_id=parts.visits.numbers(found.tracks))
        waiting = self._between(frame, faces if same else None)
        self._last, self._since = (frame, faces), 0
        return [*waiting, self._moment(frame, faces, events, looked=True)]

    def _first_seen(self, frame: Frame) -> dict[int, FloatArray]:
        """Where in a frame the tracks were that are new since: number -> box (4,)."""
        visits = self._parts.visits
        new = [(track, box) for track, (_, number, box) in visits.begun if number == frame.number]
        numbers = visits.numbers(np.array([track for track, _ in new], np.int64))
        return {number: box for number, (_, box) in zip(numbers.tolist(), new, strict=True)}

    def _pass(self, frame: Frame) -> list[Moment]:
        """A frame that is not looked at."""
        self._since += 1
        if not self._motion or self._last is None:
            self._held.append(frame)
            return []
        when = max(frame.time_s, self._last[0].time_s)
        faces = self._parts.tracker.predict(when)
        faces = faces.with_(track_id=self._parts.visits.numbers(faces.tracks))
        return [self._moment(frame, moved_on(faces, self._last[1]))]

    def _between(self, frame: Frame | None, after: Faces | None) -> list[Moment]:
        """The moments of the frames that are held; after: the faces of the frame, None where they
        are of another size or the video ends."""
        held, self._held = self._held, []
        if self._last is None or not held:
            return []
        start, before = self._last[0], renamed(self._last[1], self._parts.visits.moved)
        moments = []
        for place, one in enumerate(held, 1):
            faces = between(before, before, 0.0)
            if frame is not None and after is not None:
                whole = frame.time_s - start.time_s
                even = place / (len(held) + 1)
                share = (one.time_s - start.time_s) / whole if whole > 0 else even
                faces = between(before, after, min(1.0, max(0.0, share)))
            moments.append(self._moment(one, faces))
        return moments

    def _ending(self, ready: list[Moment]) -> list[Moment]:
        """The last moments; in the very last everybody leaves."""
        self._parts.visits.moved.clear()
        ready = [*ready, *self._between(None, None)]
        events = self._parts.visits.finish(self._now)
        self._joined |= self._parts.visits.moved
        if ready and events:
            ready[-1] = replace(ready[-1], events=(*ready[-1].events, *events))
        return ready

    def _moment(
        self, frame: Frame, faces: Faces, events: Iterable[VideoEvent] = (), *, looked: bool = False
    ) -> Moment:
        numbers = faces.tracks
        known = {**self._people, **self._parts.visits.identities(numbers)}
        self._people = {n: known.get(n, Identity()) for n in sorted(set(numbers.tolist())) if n > 0}
        return Moment(frame, faces, looked, self._people, tuple(events))

    def _now_called(self, number: int) -> int:
        while number in self._joined:
            number = self._joined[number]
        return number

    def _close_source(self) -> None:
        close = getattr(self.source, "close", None)
        if close is not None:
            close()


def watch(
    place: str | os.PathLike[str] | Iterable[Frame],
    *,
    known: Any = None,
    gallery: Gallery | None = None,
    recognizer: Recognizer | None = None,
    settings: WatchSettings | None = None,
    source: SourceSettings | None = None,
    on_track: OnTrack | None = None,
) -> Watching:
    """Who is in a video, from when to when: a `Moment` for each frame, with events.

    place: a file, a folder of pictures, a camera or an address (see `open_source`), an open
    `Source`, or frames. known: people to name, as `Recognizer.identify` takes them; gallery: a
    `Gallery` instead. Without either people are told apart and numbered. recognizer: detector and
    embedder, by default those of the gallery, or `Recognizer()`. settings: see `WatchSettings`.
    source: how a place is read. on_track: called with each track that is over, which is then
    forgotten: for videos without an end.

    A damaged file gives the moments that there are, with everybody leaving in the last, and raises
    InputError then. Raises before the first frame: ContractError for people of another model than
    the recognizer's, DataError or InputError when there are none or the place cannot be read, and
    SettingsError.
    """
    how = settings or WatchSettings()
    asked = [name for name, value in (("known", known), ("gallery", gallery)) if value is not None]
    if len(asked) == 2:
        raise SettingsError("Give either known or gallery, not both.")
    if asked and not how.embed:
        raise SettingsError(f"{asked[0]} needs embeddings; got embed=False. Leave out one of them.")
    if gallery is not None and recognizer is not None:
        require_fit(gallery.space, recognizer)
    who = recognizer or (Recognizer() if gallery is None else gallery.recognizer)
    share_arenas()
    parts = _parts(who, known, gallery, how, on_track)
    return Watching(_opened(place, source), parts, how)


def _opened(place: Any, source: SourceSettings | None) -> Iterable[Frame]:
    if isinstance(place, str | os.PathLike):
        return open_source(place, source or SourceSettings())
    if source is not None or not isinstance(place, Iterable):
        raise SettingsError(
            "place should be the path of a file, an address, or frames, for which source is left "
            f"out; got {type(place).__name__}."
        )
    frames: Iterable[Frame] = place
    return frames


def _parts(
    who: Recognizer,
    known: Any,
    gallery: Gallery | None,
    settings: WatchSettings,
    on_track: OnTrack | None,
) -> Parts:
    decider = decider_for(known, gallery, who, settings)
    likeness = Likeness(None, AGREE)
    if settings.embed:
        rates = gallery.rates if gallery is not None else rates_of(who)
        same = same_person(rates, settings.same_fmr, settings.threshold)
        likeness = Likeness(same, agreement(rates), rates.contract)
    visits = Visits(Naming(decider), settings, likeness, on_track)
    embedder = who.embedder if settings.embed else None
    looking = Looking(who.detector, embedder, settings, visits.settled)
    return Parts(looking, Tracker(settings.track), visits)
