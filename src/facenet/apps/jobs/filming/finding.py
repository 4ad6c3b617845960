"""One person in many recordings: the work behind `facenet video find`.

What was found in a recording is written when it has been searched to its end, together with the
recording's size and time and with what was asked; so a run that was stopped goes on with the next
recording, and one that has changed, or another question, is searched anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.filming.cells import json_line, plain
from facenet.apps.jobs.filming.linefile import Kind, LineFile
from facenet.apps.jobs.photos import find_photos
from facenet.errors import DataError, InputError
from facenet.galleries import Gallery
from facenet.gallery.compare import People
from facenet.gallery.records import EnrolledFace
from facenet.images import SourceSettings, is_video_name
from facenet.images.sequence import natural
from facenet.recognizer import Recognizer
from facenet.video.events import Track
from facenet.video.settings import WatchSettings
from facenet.video.watch import watch

Remark = Callable[[str], None]
FORMAT = "facenet-found-1"
KIND = Kind("a file of `facenet video find --out`", (f'{{"format": "{FORMAT}"'.encode(),))
KEPT = ("person", "first_s", "last_s", "similarity", "threshold", "fmr", "fpir", "track", "time_s")
"""What is kept of a visit; the recording is named as it is called now."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What is looked for. person: one person, embedded. recognizer: of the same model. settings,
    source: see `watch`."""

    person: People
    recognizer: Recognizer
    settings: WatchSettings
    source: SourceSettings

    @property
    def question(self) -> str:
        """A digest of all that answers depend on."""
        asked = hashlib.sha256(np.sort(self.person.embedding, axis=0).tobytes())
        rates = (self.recognizer.calibration or self.recognizer.embedder.card).fmr
        told = (
            self.person.contract, self.recognizer.detection, asdict(self.settings),
            rates and asdict(rates), self.source.start, self.source.stop,
        )  # fmt: skip
        asked.update(json.dumps(told).encode())
        return asked.hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave. rows: a plain dictionary per visit of the person. searched: recordings
    searched to their end; known: those of them that an earlier run had searched. problems: why
    others could not be, or only in part. stopped: whether it was ended early."""

    rows: list[dict[str, Any]]
    searched: int
    known: int
    problems: list[str]
    stopped: bool


def find_person(
    recordings: Sequence[Path],
    search: Search,
    *,
    out: Path | None = None,
    done: Callable[[int, int, str], None] = lambda done, total, words: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Found:
    """Where a person is in recordings, in their order.

    out: a file of JSON Lines that the work is kept in; what it tells of a recording, unchanged
    since and asked the same, is not searched for again. done: takes recordings done, all there
    are, and a few words. stopped: asked after each frame; True ends it, and what is under way is
    searched again next time. Raises StorageError for a file that cannot be written or is of
    another kind, DataError for one with a line that is not of this kind.
    """
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    searched = known = 0
    question = search.question
    with ExitStack() as stack:
        kept = stack.enter_context(LineFile(out, keep=KIND)) if out else None
        before = dict(_kept(kept.path, question)) if kept and kept.size else {}
        for number, path in enumerate(recordings):
            done(number, len(recordings), path.name)
            key = _key(path)
            answer = before.get(key)
            known += answer is not None
            if answer is None:
                answer = _searched(path, search, stopped)
                if answer is None:
                    return Found(rows, searched, known, problems, True)
                if kept and not answer["problem"]:
                    entry = {"format": FORMAT, "recording": key, "question": question, **answer}
                    kept.add(json_line(entry))
            searched += not answer["problem"]
            rows += [{"video": str(path), **row} for row in answer["found"]]
            problems += [answer["problem"]] if answer["problem"] else []
        done(len(recordings), len(recordings), "")
    return Found(rows, searched, known, problems, False)


def find_recordings(places: Iterable[Path]) -> list[Path]:
    """Videos among files and folders, in natural order. Raises InputError when there is none."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            below = (path for path in place.rglob("*") if path.is_file() and is_video_name(path))
            found += sorted(below, key=lambda path: [natural(part) for part in path.parts])
        else:
            found.append(place)
    unique = list(dict.fromkeys(found))
    if not unique:
        names = ", ".join(map(str, places)) or "nothing"
        raise InputError(f"No video was found in {names[:300]}: expected files such as .mp4.")
    return unique


def person_of_photos(place: Path, recognizer: Recognizer, note: Remark) -> People:
    """One person from a photo or a folder of their photos, one face each.

    A photo without exactly one face is told and left out. Raises InputError where none is left.
    """
    name = place.stem if place.is_file() else place.name
    photos = [photo.path for photo in find_photos([place])]
    enrolment = recognizer.enrol({name: photos})
    for _, reason in enrolment.refused:
        note(f"Not used: {reason}")
    return enrolment.people


def person_of_gallery(gallery: Gallery, who: str) -> People:
    """One enrolled person, by name, id or external id, with all their faces.

    Raises UnknownPersonError, DataError for a person without a face.
    """
    person, contract = gallery.person(who), gallery.space.contract
    with gallery.store.read() as view:
        ids = [face.id for face in view.find(EnrolledFace, person=person.id)]
        rows = view.vectors(contract, ids=ids).rows
    if not len(rows):
        raise DataError(
            f"{person.name} should have an enrolled face; there is none. Enrol a photo first."
        )
    return People((person.name,) * len(rows), rows, contract)


# ---- inside


def _searched(path: Path, search: Search, stopped: Callable[[], bool]) -> dict[str, Any] | None:
    """What is found in one recording; None when it was ended early."""
    found: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"frames": 0, "found": found, "problem": None}

    def take(track: Track) -> None:
        if track.person is not None:
            found.append(_row(track))

    try:
        with watch(
            path, known=search.person, recognizer=search.recognizer, settings=search.settings,
            source=search.source, on_track=take,
        ) as moments:  # fmt: skip
            for _ in moments:
                if stopped():
                    return None
            facts["frames"] = moments.frames
    except InputError as error:
        facts["problem"] = str(error)
    found.sort(key=lambda row: (row["first_s"], row["track"]))
    return facts


def _row(track: Track) -> dict[str, Any]:
    portrait = track.portraits[0] if track.portraits else None
    whole = {**track.to_dict(), "time_s": portrait.time_s if portrait else None}
    told: dict[str, Any] = plain({name: whole[name] for name in KEPT})
    return told


def _key(path: Path) -> str:
    """The recording as it is now: its place, size and time of change."""
    try:
        facts = path.stat()
    except OSError:  # told when it is opened
        return os.path.abspath(path)
    return f"{os.path.abspath(path)}|{facts.st_size}|{facts.st_mtime_ns}"


def _kept(out: Path, question: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What earlier runs found in recordings, for this question."""
    for line in out.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            found = [{name: row[name] for name in KEPT} for row in entry["found"]]
            facts = {"frames": entry["frames"], "found": found, "problem": None}
            recording = str(entry["recording"])
            same = entry["question"] == question
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(
                f"{str(out)[:300]} should be {KIND.name}; it has a line that is not. Name another "
                "file."
            ) from error
        if same:
            yield recording, facts
