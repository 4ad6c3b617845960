"""The outputs of `facenet video` beside each other: the sound of a film, names, who fails alone."""

from __future__ import annotations

import json
import os
import re
import sys
import threading

import av
import pytest
from receiver import Receiver
from scenes import Scene, known_people, walk
from soundclips import tone, write_talkie

from facenet.apps.jobs.filming.sinks import AHEAD, FilmPlan, FilmSink, labels_of
from facenet.apps.jobs.filming.whole import Outputs, Telling, film_video
from facenet.errors import InputError, StorageError
from facenet.images import SourceSettings, read_video
from facenet.images.source import SourceFacts
from facenet.video.events import Moment
from facenet.video.settings import WatchSettings

COUNT = 50
ANN, BEN = walk(5, 1.0), walk(150, -1.0, top=60)


def where(number):
    """Ann from the first frame to the last, a stranger from frame 10 to 39."""
    return [("Ann", ANN(number))] + ([("Ben", BEN(number))] if 10 <= number < 40 else [])


def watching(scene=None, **more):
    settings = WatchSettings(stride=2)
    decider = known_people("Ann", settings=settings)
    scene = scene or Scene(COUNT, where)
    return scene.watching(settings=settings, **{"decider": decider, **more})


class Talkie:
    """A `Source` of a file with sound, with the settings by which it is read."""

    kind, live, name = "file", False, "talkie"

    def __init__(self, place, settings):
        self.place, self.settings = place, settings
        self.facts = SourceFacts(200, 120, 25.0, None, None)

    def __iter__(self):
        return iter(read_video(self.place, start=self.settings.start, stop=self.settings.stop))


@pytest.fixture(scope="module")
def talkie(tmp_path_factory):
    pictures = [frame.image for frame in Scene(COUNT, where).frames()]
    place = tmp_path_factory.mktemp("talkie") / "talkie.mp4"
    return write_talkie(place, pictures, tone(2.0, beeps=(0.2, 1.0, 1.6)))


def filmed(talkie, outputs, until=None, **settings):
    run = Scene(0, lambda number: []).watching(source=Talkie(talkie, SourceSettings(**settings)))
    return film_video(str(talkie), run, outputs, Telling(until_s=until))


def length(path):
    """Seconds of a film to the end of its last packet, of pictures or sound."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        return max(float((one.pts + one.duration) * one.time_base) for one in packets)


@pytest.mark.parametrize(
    ("settings", "until", "seconds"),
    [
        ({}, None, 2.0),
        ({"stop": 1.2}, None, 1.2),
        ({"start": 0.8, "stop": 1.2}, None, 0.4),
        ({}, 0.8, 0.8),
        ({"start": 0.8}, 0.4, 0.4),
    ],
)
def test_the_sound_of_a_film_ends_with_its_pictures(settings, until, seconds, talkie, tmp_path):
    said = filmed(talkie, Outputs(draw=tmp_path / "film.mp4"), until, **settings)
    assert said["duration_s"] == pytest.approx(seconds)
    assert said["stopped"] == (until is not None)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert len(container.streams.audio) == 1
    assert length(tmp_path / "film.mp4") == pytest.approx(seconds, abs=0.03)


def test_a_silent_film_has_no_sound(talkie, tmp_path):
    filmed(talkie, Outputs(draw=tmp_path / "film.mp4", silent=True))
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert len(container.streams.audio) == 0


def test_subtitles_fit_the_film_when_there_is_one(tmp_path):
    """A part of a video, from 0.4 s on: the film begins at 0, and so do its subtitles."""
    times = []
    for film in (None, tmp_path / "film.mp4"):
        part = [one for one in Scene(COUNT, where).frames() if one.number >= 10]
        film_video("", watching(source=part), Outputs(draw=film, subtitles=tmp_path / "w.srt"))
        times.append(re.findall(r"^(\S+) --> (\S+)", (tmp_path / "w.srt").read_text(), re.M))
    assert times[0][0][0] == "00:00:00,400"
    assert times[1] == [tuple(map(earlier, pair)) for pair in times[0]]


def earlier(time):
    """A time of SubRip below a minute, 0.4 s before."""
    whole = float(time[6:].replace(",", ".")) - 0.4
    return f"00:00:{whole:06.3f}".replace(".", ",")


def test_a_film_names_people_and_strangers():
    run = watching()
    labels = [labels_of(moment.people) for moment in run]
    assert labels[-1] == {1: "Ann"}
    assert {1: "Ann", 2: "unknown 1"} in labels
    assert {1: "Ann", 2: None} in labels  # before it is known who it is


class Waiting:
    """A frame whose picture has to be waited for."""

    number, time_s = 0, 0.0

    def __init__(self, image, come):
        self._image, self._come = image, come

    @property
    def image(self):
        assert self._come.wait(20)
        return self._image


def test_a_film_that_is_slow_lets_only_a_few_frames_wait(tmp_path):
    come, given = threading.Event(), []
    moments = list(watching())[:30]
    moments[0] = Moment(Waiting(moments[0].frame.image, come), moments[0].faces, True, {})
    sink = FilmSink(FilmPlan(tmp_path / "film.mp4"))

    def hand_over():
        for moment in moments:
            sink.take(moment)
            given.append(moment)

    hand = threading.Thread(target=hand_over)
    hand.start()
    hand.join(0.5)
    assert len(given) <= AHEAD + 1 < 20
    come.set()
    hand.join()
    sink.abandon()


# ---- one output that fails


def test_a_reader_of_events_who_leaves_stops_nothing_else(tmp_path, monkeypatch):
    """As in `--events - | head -1`."""
    read, write = os.pipe()
    os.close(read)
    outputs = Outputs(draw=tmp_path / "film.mp4", events="-", tracks=tmp_path / "t.json")
    with open(write, "w") as out:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            said = film_video("", watching(), outputs)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, write)  # for what is left in the buffer
        os.close(nowhere)
    assert said["problems"] == [
        "Cannot write events to stdout: Broken pipe. Name a file with --events, or let the reader "
        "of stdout go on."
    ]
    assert said["frames"] == COUNT == len(list(read_video(tmp_path / "film.mp4")))
    assert json.loads((tmp_path / "t.json").read_text())["frames"] == COUNT


def test_a_full_disk_under_the_events_does_not_stop_the_webhook(tmp_path):
    place = tmp_path / "full.jsonl"
    place.symlink_to("/dev/full")
    with Receiver() as receiver:
        said = film_video("", watching(), Outputs(events=str(place), webhook=receiver.url))
    assert any("full.jsonl" in problem for problem in said["problems"])
    assert sorted(one.json["type"] for one in receiver.got) == ["arrived"] * 2 + ["left"] * 2
    assert said["written"]["the webhook"]["delivered"] == 4
    assert any("4 events were delivered" in notice for notice in said["notices"])


def test_an_output_that_cannot_be_leaves_the_events_of_an_earlier_run(tmp_path):
    events = tmp_path / "events.jsonl"
    events.write_text("mine")
    (tmp_path / "film.mp4").mkdir()
    with pytest.raises(StorageError, match=r"film\.mp4"):
        film_video("", watching(), Outputs(draw=tmp_path / "film.mp4", events=str(events)))
    assert events.read_text() == "mine"


@pytest.mark.parametrize(
    "others",
    [
        {"portraits": "faces", "events": "faces/index.csv"},
        {"portraits": "who.html", "timeline": "who.html"},
        {"tracks": "link/../t.json", "events": "t.csv"},
    ],
)
def test_two_outputs_have_two_places(others, tmp_path):
    """Also where one is reached by a link."""
    (tmp_path / "t.csv").symlink_to(tmp_path / "t.json")
    paths = {name: tmp_path / place for name, place in others.items()}
    run = watching()
    with pytest.raises(InputError, match="is named for two outputs"):
        film_video("", run, Outputs(**{**paths, "events": str(paths.get("events", "-"))}))
    assert run.frames == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]


# ---- tracks


def test_boxes_of_tracks_that_were_found_to_be_others_have_their_numbers(tmp_path):
    """Zoe is lost for a moment, and those who see her again first take her for somebody else."""

    def seen(number):
        name = "Zoe, in profile" if 50 <= number < 58 else "Zoe"
        return [(name, ANN(number))] if number < 30 or number >= 50 else []

    scene = Scene(90, seen)
    run, named = watching(scene, decider=None), set()
    for moment in run:
        named |= set(moment.faces.tracks.tolist()) - {0}
    for name in ("t.json", "t.txt"):
        film_video("", watching(scene, decider=None), Outputs(tracks=tmp_path / name))
    whole = json.loads((tmp_path / "t.json").read_text(), object_pairs_hook=once)
    kept = {track["track"] for track in whole["tracks"]}
    assert whole["track_count"] == len(kept)
    assert {row[2] for row in whole["boxes"]} == kept
    lines = (tmp_path / "t.txt").read_text().splitlines()
    assert {int(line.split(",")[1]) for line in lines} == kept
    assert set(run.joined) == named - kept != set()
    assert set(run.joined.values()) <= kept | {0}


def once(pairs):
    """An object of JSON none of whose names comes twice."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
