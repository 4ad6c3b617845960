"""`facenet video`, `facenet video find`, `facenet camera`: people as tracks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from facenet.apps.cli.flags import (
    ERROR,
    STOPPED,
    Identifying,
    Output,
    Recognition,
    command,
    flag,
    parse_size,
)
from facenet.apps.cli.gallery import notice_of, opened
from facenet.apps.cli.outlet import note, noticed, print_json, print_rows, training_bar
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.apps.jobs.filming.finding import Found, Search
    from facenet.apps.jobs.filming.whole import Outputs
    from facenet.galleries import Gallery
    from facenet.images import SourceSettings
    from facenet.recognizer import Recognizer
    from facenet.video.settings import WatchSettings

FOUND = ("video", "first_s", "last_s", "similarity", "threshold", "fmr", "fpir", "track", "time_s")


class _WatchByDefault(TyperGroup):
    """Without the name of a command, arguments are those of `watch`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["watch", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_WatchByDefault,
    no_args_is_help=True,
    help="Who is in a video, from when to when: `facenet video IN.mp4`. Its options: `facenet "
    "video watch --help`.",
)


@dataclass(frozen=True, slots=True)
class Who(Identifying):
    """Whom to name, and when a face is given a name."""

    known: Path | None = flag(None, "Folder of people to name (a file or sub-folder each).")
    gallery: str | None = flag(None, "Enrolled people to name, in place of --known.")

    @contextmanager
    def opened(self, recognition: Recognition) -> Iterator[tuple[Recognizer, Gallery | None]]:
        """The recognizer, and the gallery where there is one."""
        if self.gallery is None:
            yield recognition.recognizer(calibration=self.calibration), None
            return
        if self.known is not None:
            raise SettingsError("Give either --known or --gallery, not both.")
        with opened(self.gallery, recognition, self.calibration) as gallery:
            yield gallery.recognizer, gallery

    def people(self, recognizer: Recognizer) -> Any:
        """The people of --known, or None; tells which photos were of no use."""
        if self.known is None:
            return None
        recognizer.threshold(**self.rates())  # refused before the work
        enrolment = recognizer.enrol(self.known)
        for _, reason in enrolment.refused:
            note(f"Not enrolled: {reason}")
        return enrolment.people

    def settings_rates(self) -> dict[str, Any]:
        """fmr, fpir and threshold. Raises SettingsError for rates of names without people."""
        given = [f"--{name}" for name in ("fmr", "fpir") if getattr(self, name) is not None]
        if given and not self.asked:
            raise SettingsError(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for naming people: "
                "say whom with --known or --gallery."
            )
        return self.rates()

    @property
    def asked(self) -> bool:
        """Whether there is anybody to name."""
        return self.known is not None or self.gallery is not None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the video is read; see `SourceSettings`."""

    start: float = flag(0.0, "Second to begin at.")
    stop: float | None = flag(None, "Second to stop before.")
    rate: float | None = flag(None, "Frames a second of a folder of pictures, or of a camera.")
    size: str | None = flag(None, "Camera: WIDTHxHEIGHT to ask for.")
    hardware: str = flag("off", "Decode in hardware: off, auto, or a kind such as cuda, vaapi.")
    reconnect: int = flag(5, "Streams, cameras: tries in a row to open it again.")
    seconds: float | None = flag(None, "Stop after so many seconds of video.")
    timeout: float = flag(10.0, "Streams, cameras: seconds of silence that count as stalled.")

    def settings(self) -> SourceSettings:
        """As `open_source` takes them."""
        from facenet.images import SourceSettings

        size = parse_size(self.size) if self.size else None
        return SourceSettings(
            start=self.start, stop=self.stop, rate=self.rate, size=size, hardware=self.hardware,
            reconnect=self.reconnect, timeout_s=self.timeout,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Following:
    """How people are followed; see `WatchSettings`."""

    stride: int = flag(3, "Look for faces in every so many frames; 1 is all.")
    between: str | None = flag(
        None, "The frames between: interpolate, or motion.  [default: motion when live]"
    )
    resize: float = flag(1.0, "Shrink frames by this before looking, such as 0.5.")
    gone: float = flag(5.0, "Seconds without a person until they have left.")
    seen: float | None = flag(None, "Seconds between `seen` events of a person who stays.")
    budget: float | None = flag(
        None, "Seconds of work for a second of video: 1 keeps the pace, by a larger stride."
    )
    max_stride: int | None = flag(None, "With --budget: the largest stride.  [default: 15]")

    def settings(self, rates: dict[str, Any]) -> WatchSettings:
        """As `watch` takes them. rates: fmr, fpir and threshold."""
        from facenet.video.settings import WatchSettings

        if self.max_stride is not None and self.budget is None:
            raise SettingsError("--max-stride is for --budget: give both, or leave it out.")
        most: dict[str, Any] = {}
        if self.max_stride is not None:
            most["max_stride"] = self.max_stride
        return WatchSettings(
            stride=self.stride, between=self.between, resize=self.resize, gone_s=self.gone,
            seen_s=self.seen, budget=self.budget, **most, **rates,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Files:
    """What is written; see `Outputs`."""

    draw: Path | None = flag(None, "Film with boxes and names: .mp4, .mkv, .mov or .webm.")
    blur: str | None = flag(None, "Hide faces in the film: all, or unknown.")
    hide: str | None = flag(None, "How they are hidden: blur, pixelate or fill.  [default: blur]")
    plain: bool = flag(False, "No boxes and names in the film.")
    trail: float = flag(0.0, "Seconds of everybody's way drawn as a line.")
    silent: bool = flag(False, "No sound in the film.")
    events: str | None = flag(None, "Events as they come: .jsonl, .csv, or - for stdout.")
    append: bool = flag(False, "Add events to the file that is there.")
    webhook: str | None = flag(
        None, "Address that events are sent to; FACENET_WEBHOOK_SECRET signs them."
    )
    tracks: Path | None = flag(None, "Tracks with the boxes of each frame: .json, or MOT .txt.")
    subtitles: Path | None = flag(None, "Who is there as subtitles: .vtt or .srt.")
    timeline: Path | None = flag(None, "Page of who was there when: .html.")
    portraits: Path | None = flag(None, "Folder for the best picture of everybody.")

    def outputs(self) -> Outputs:
        """As `film_video` takes them."""
        from facenet.apps.jobs.filming.whole import Outputs

        return Outputs(
            draw=self.draw, blur=self.blur, hide=self.hide, boxes=not self.plain,
            trail=self.trail, silent=self.silent, events=self.events, append=self.append,
            webhook=self.webhook, tracks=self.tracks, subtitles=self.subtitles,
            timeline=self.timeline, portraits=self.portraits,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sought:
    """Where the person comes from, and where the work is kept."""

    gallery: str | None = flag(None, "Enrolled people, of whom PERSON is one.")
    out: Path | None = flag(None, "Keep the work in this file of JSON Lines, and go on with it.")
    start: float = flag(0.0, "Second of each recording to begin at.")
    stop: float | None = flag(None, "Second of each recording to stop before.")

    @contextmanager
    def search(
        self, person: str, who: Identifying, following: Following, recognition: Recognition
    ) -> Iterator[tuple[Search, str | None]]:
        """What is looked for, and the notice of the weights' licence."""
        from facenet.apps.jobs.filming.finding import Search, person_of_gallery, person_of_photos
        from facenet.images import SourceSettings

        source = SourceSettings(start=self.start, stop=self.stop)
        settings = following.settings(who.rates())
        if self.gallery is None:
            recognizer = recognition.recognizer(calibration=who.calibration)
            people = person_of_photos(Path(person), recognizer, note)
            yield Search(people, recognizer, settings, source), recognition.licence_notice()
            return
        with opened(self.gallery, recognition, who.calibration) as gallery:
            people = person_of_gallery(gallery, person)
            yield Search(people, gallery.recognizer, settings, source), notice_of(gallery)


@app.command("watch")
@command
def watch(
    place: Annotated[
        str, typer.Argument(help="A video, a folder of pictures, or an address.", metavar="VIDEO")
    ],
    output: Output,
    who: Who,
    reading: Reading,
    following: Following,
    files: Files,
    recognition: Recognition,
) -> int:
    """Who is in a video, from when to when.

    Exit code 0: somebody was seen (with --known or --gallery: named), 1: nobody, 2: something went
    wrong; 130 after Ctrl-C, which finishes all files. Prints a row of CSV per visit, or a
    summary with --json: frames, duration_s, fps (frames per second of work), tracks, visits.
    """
    return _watch(place, output, who, (reading, following, files), recognition)


@command
def camera(
    output: Output,
    who: Who,
    reading: Reading,
    following: Following,
    files: Files,
    recognition: Recognition,
    place: Annotated[
        str, typer.Argument(help="A camera: 0, 1, /dev/video0, or an address.", metavar="CAMERA")
    ] = "0",
) -> int:
    """Who is before a camera: events as they come, until Ctrl-C.

    The same as `facenet video`, with events on stdout as JSON Lines unless --events names a file.
    Frames that come too late are left out, and counted.
    """
    from dataclasses import replace

    files = files if files.events or output.json else replace(files, events="-")
    return _watch(place, output, who, (reading, following, files), recognition)


def _watch(
    place: str,
    output: Output,
    who: Who,
    how: tuple[Reading, Following, Files],
    recognition: Recognition,
) -> int:
    from facenet.apps.jobs.filming.whole import Telling, film_video
    from facenet.video.watch import watch as watching

    reading, following, files = how
    if output.json and files.events == "-":
        raise SettingsError("--json and --events - both write to stdout. Leave one of them out.")
    outputs, settings = files.outputs(), following.settings(who.settings_rates())
    with who.opened(recognition) as (recognizer, gallery), training_bar("video") as done:
        telling = Telling(done=done, until_s=reading.seconds)
        people = who.people(recognizer)
        moments = watching(
            place, known=people, gallery=gallery, recognizer=recognizer, settings=settings,
            source=reading.settings(),
        )  # fmt: skip
        summary = film_video(place, moments, outputs, telling)
        notice = recognition.licence_notice() if gallery is None else notice_of(gallery)
    _print(summary, output, notice, quiet=files.events == "-")
    return _code(summary, named=who.asked)


def _print(summary: dict[str, Any], output: Output, notice: str | None, *, quiet: bool) -> None:
    """The summary on stdout, unless events are there; remarks on stderr."""
    from facenet.apps.jobs.filming.whole import VISIT

    if not quiet:
        if output.json:
            print_json(noticed(summary, notice))
        else:
            print_rows(summary["visits"], VISIT)
    note(
        f"{summary['video']}: {summary['frames']:,} frames of {summary['duration_s']:.1f} s, "
        f"{summary['tracks']} tracks, {summary['fps'] or 0:.1f} frames/s."
    )
    for text in (*summary["notices"], *summary["problems"]):
        note(text)
    if notice:
        note(f"{notice}.")


def _code(summary: dict[str, Any], *, named: bool) -> int:
    if summary["problems"]:
        return ERROR
    if summary["interrupted"]:
        return STOPPED
    there = [v for v in summary["visits"] if v["person"]] if named else summary["visits"]
    return 0 if there else 1


@app.command("find")
@command
def find(
    person: Annotated[
        str,
        typer.Argument(
            help="A photo of the person, a folder of photos, or with --gallery a name or id.",
            metavar="PERSON",
        ),
    ],
    places: Annotated[
        list[Path], typer.Argument(help="Videos, or folders of videos.", metavar="VIDEO")
    ],
    output: Output,
    who: Identifying,
    following: Following,
    recognition: Recognition,
    sought: Sought,
) -> int:
    """Where is a person in recordings, from when to when?

    Exit code 0: found, 1: not found, 2: something went wrong. Prints a row per visit: video,
    first_s, last_s, similarity, threshold, fmr, fpir, track, time_s (of the best picture). With
    --out the work is kept: the same command goes on where it was stopped.
    """
    from facenet.apps.jobs.filming.finding import find_person, find_recordings
    from facenet.apps.jobs.training import stop_after_step

    recordings = find_recordings(places)
    with (
        sought.search(person, who, following, recognition) as (search, notice),
        training_bar("recordings") as done,
        stop_after_step() as stopped,
    ):
        found = find_person(recordings, search, out=sought.out, done=done, stopped=stopped)
    rows = [noticed(row, notice) for row in found.rows]
    print_json(rows) if output.json else print_rows(rows, FOUND)
    _remark(found, len(recordings), notice)
    return _found_code(found)


def _remark(found: Found, count: int, notice: str | None) -> None:
    """How far it came, on stderr."""
    known = f", {found.known:,} of them by an earlier run" if found.known else ""
    note(f"{found.searched:,} of {count:,} recordings searched{known}.")
    if found.stopped:
        note("stopped; with --out the same command goes on.")
    for problem in found.problems:
        note(problem)
    if notice:
        note(f"{notice}.")


def _found_code(found: Found) -> int:
    if found.stopped:
        return STOPPED
    if found.problems:
        return ERROR
    return 0 if found.rows else 1
