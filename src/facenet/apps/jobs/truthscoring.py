"""How well faces are followed in a video, against a file that says who is where in it.

Every frame is looked at once; then it is followed as `following` has it, and watched as `facenet
video` does, which is judged twice: by the visits that it reports (see `visitscoring`) and by the
boxes and numbers that it gives to every frame. A person who comes back keeps the number of the
file, so one who has another track then is a switch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.following import (
    SCORES,
    Looked,
    follow_lines,
    follow_rows,
    score_values,
    tracks_of,
)
from facenet.apps.jobs.gather import Done
from facenet.apps.jobs.rewatching import rewatch
from facenet.apps.jobs.visitscoring import (
    COUNTS,
    HARDLY,
    VISIT_STRIDES,
    Stay,
    There,
    count_arrivals,
    lasting,
    score_visits,
    stays,
    table_lines,
    visit_rows,
)
from facenet.data.motchallenge import MotTruth, read_motchallenge
from facenet.evaluate.tracking import Labelled, score_tracks
from facenet.faces.track import TrackSettings
from facenet.images import read_video, video_facts
from facenet.recognizer import Recognizer
from facenet.video.events import VideoEvent
from facenet.video.settings import WatchSettings


def evaluate_video(
    video: Path,
    truth: Path,
    recognizer: Recognizer,
    *,
    settings: TrackSettings = TrackSettings(),  # noqa: B008
    done: Done,
) -> dict[str, Any]:
    """Follow and watch the people of a video. truth: see `data.motchallenge`.

    done: called with frames done and frames in all, about. Returns a row for each stride with and
    without embeddings, and one for each stride of watching. Raises DataError for a file that is
    not the truth about this video, InputError for a video that cannot be read.
    """
    listed = read_motchallenge(truth)
    looked = _looked(video, listed, recognizer, done)
    return {
        "dataset": video.name,
        "model": recognizer.embedder.card.name,
        "people": len(looked.names),
        "rows": follow_rows([looked], settings),
        "visits": _watched(video, looked, recognizer, settings),
        "problems": [],
    }


def video_text(found: dict[str, Any]) -> str:
    """The rows as tables for a person: of tracks, of watching, of each visit."""
    visits = found["visits"]
    told = f"Watched as `facenet video` does; somebody is gone after {visits['gone_s']:g} s."
    seconds = {"from_s": "from s", "to_s": "to s", "seen_s": "seen s"}
    strides = {str(stride): f"stride {stride}" for stride in VISIT_STRIDES}
    rows = [
        {**row, **{name: f"{row[name]:.2f}" for name in seconds}, **row["arrivals"]}
        for row in visits["each"]
    ]
    return "\n".join(
        [
            *follow_lines(found["rows"]),
            "",
            told,
            *table_lines({**COUNTS, **SCORES}, visits["rows"]),
            "",
            "Arrivals in each visit of more than a moment.",
            *table_lines({"person": "person", **seconds, **strides}, rows),
        ]
    )


def _looked(video: Path, listed: MotTruth, recognizer: Recognizer, done: Done) -> Looked:
    """Detect and embed every frame of a video, and lay the truth beside."""
    looked = Looked(tuple(map(str, listed.people)))
    about = video_facts(video).frames or 0
    times, sizes = [], []
    for frame in read_video(video):
        looked.look(frame.image, recognizer)
        times.append(frame.time_s)
        sizes.append((frame.image.shape[1], frame.image.shape[0]))
        done(len(times), max(about, len(times)))
    for time_s, size, there in zip(times, sizes, listed.of_video(len(times)), strict=True):
        shown = np.where(there.counted, there.shown, np.minimum(there.shown, HARDLY))
        looked.there.append(There(time_s, size, there.boxes, there.people, shown))
        looked.truth.append(Labelled(there.boxes, there.people, there.counted))
    return looked


def _watched(
    video: Path, looked: Looked, recognizer: Recognizer, track: TrackSettings
) -> dict[str, Any]:
    """What `facenet video` says at each stride, judged."""
    ways = [WatchSettings(stride=stride, portraits=0, track=track) for stride in VISIT_STRIDES]
    events: list[list[VideoEvent]] = [[] for _ in ways]
    tracks: list[list[Labelled]] = [[] for _ in ways]
    said = rewatch(read_video(video), looked.faces, recognizer, [(None, how) for how in ways])
    for moments in said:
        for number, moment in enumerate(moments):
            events[number] += moment.events
            tracks[number].append(tracks_of(moment.faces))
    visits = stays(looked.there, ways[0].gone_s)
    scores = [score_visits(looked.there, visits, found, looked.names) for found in events]
    rows = visit_rows([{(False, how.stride): one for how, one in zip(ways, scores, strict=True)}])
    return {
        "gone_s": ways[0].gone_s,
        "rows": [
            {**row, **score_values(score_tracks(looked.truth, found))}
            for row, found in zip(rows, tracks, strict=True)
        ],
        "each": _each(looked.there, visits, events),
    }


def _each(
    there: Sequence[There], visits: Sequence[Stay], events: Sequence[Sequence[VideoEvent]]
) -> list[dict[str, Any]]:
    """Each visit that lasts, by person and time, with its arrivals at every stride."""
    counts = zip(*(count_arrivals(there, visits, found) for found in events), strict=True)
    rows = zip(visits, counts, strict=True)
    return [
        {
            "person": visit.person,
            "from_s": visit.from_s,
            "to_s": visit.to_s,
            "seen_s": visit.seen_s,
            "arrivals": {str(stride): n for stride, n in zip(VISIT_STRIDES, arrived, strict=True)},
        }
        for visit, arrived in sorted(rows, key=lambda row: (row[0].person, row[0].from_s))
        if lasting(visit)
    ]
