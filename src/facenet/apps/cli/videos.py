"""Videos among the places of `facenet detect`: their flags, and rows printed as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.apps.cli.flags import Detection, flag
from facenet.apps.cli.outlet import bar, note, note_faceless, noticed, print_as_found
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.apps.jobs.photos import Photo

COLUMNS = ("photo", "frame", "time_s", "box", "detection_score", "landmarks")


@dataclass(frozen=True, slots=True)
class Watch:
    """How videos are watched; see `Strided` and `open_source`."""

    stride: int = flag(1, "Videos: detect in every so many frames.")
    between: str = flag("interpolate", "Videos: the frames between, interpolate or reuse.")
    resize: float = flag(1.0, "Videos: shrink frames by this before looking, such as 0.5.")
    start: float = flag(0.0, "Videos: second to begin at.")
    stop: float | None = flag(None, "Videos: second to stop before.")

    def wanted(self, places: Sequence[Photo]) -> bool:
        """Whether there is a video; without one, raise SettingsError for options of videos."""
        from facenet.images import is_video_name

        if any(is_video_name(place.path) for place in places):
            return True
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if given:
            raise SettingsError(
                f"--{' and --'.join(given)} {'is' if len(given) == 1 else 'are'} for videos, and "
                "none was named. Leave it out, or name a video file."
            )
        return False


def print_watched(
    places: Sequence[Photo], detection: Detection, watch: Watch, *, draw: Path | None, as_json: bool
) -> int:
    """Print every face of photos and videos as it is found; the exit code."""
    from facenet.apps.jobs.videofaces import Remarks, Watching, watched_rows
    from facenet.faces.strided import Strided
    from facenet.images import SourceSettings

    recognizer, remarks = detection.recognizer(), Remarks()
    notice = detection.licence_notice()
    strided = Strided(
        recognizer.detector, stride=watch.stride, between=watch.between, resize=watch.resize
    )
    stage = partial(recognizer.stream, embed=False)
    watching = Watching(strided, SourceSettings(start=watch.start, stop=watch.stop), draw)

    def rows() -> Iterator[dict[str, Any]]:
        with bar("frames") as done:
            found = watched_rows(places, stage, watching, remarks=remarks, done=done)
            yield from (noticed(row, notice) for row in found)

    print_as_found(rows(), COLUMNS, as_json)
    if notice:
        note(f"{notice}.")
    note_faceless(remarks.faceless)
    for problem in remarks.problems:
        note(problem)
    return 2 if remarks.problems else 0
