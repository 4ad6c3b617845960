"""The job behind `facenet video`: every output at once, Ctrl-C, a full disk, a damaged file."""

from __future__ import annotations

import json
import re
import resource
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from scenes import Scene, frame, known_people, walk

from facenet.apps.jobs.filming.sinks import AHEAD, FilmPlan, FilmSink
from facenet.apps.jobs.filming.whole import Outputs, Telling, film_video
from facenet.errors import FacenetError, InputError, SettingsError, StorageError
from facenet.images import Frame, read_video
from facenet.images.source import SourceFacts
from facenet.video.events import Moment
from facenet.video.settings import WatchSettings

COUNT = 40
ANN, BEN = walk(5, 1.0), walk(150, -1.0, top=60)


def where(number):
    """Ann is there from the first frame to the last, a stranger from 10 to 29."""
    return [("Ann", ANN(number))] + ([("Ben", BEN(number))] if 10 <= number < 30 else [])


class Reel:
    """Frames that know what they are of, as a `Source` does; `fails`: the error after the last."""

    kind, live, name = "sequence", False, "reel"

    def __init__(self, frames, fails=None):
        self._frames, self._fails = frames, fails
        self.facts = SourceFacts(200, 120, 25.0, COUNT, COUNT / 25)

    def __iter__(self):
        yield from self._frames
        if self._fails:
            raise self._fails


def watching(fails=None, **settings):
    scene = Scene(COUNT, where)
    how = WatchSettings(**{"stride": 2, **settings})
    return scene.watching(
        settings=how, decider=known_people("Ann", settings=how), source=Reel(scene.frames(), fails)
    )


def everything(folder):
    return Outputs(
        draw=folder / "film.mp4", events=str(folder / "events.jsonl"),
        tracks=folder / "tracks.json", subtitles=folder / "who.vtt",
        timeline=folder / "who.html", portraits=folder / "faces",
    )  # fmt: skip


def events_of(folder):
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [(e["type"], e["person"] or e["stranger"], e["time_s"]) for e in map(json.loads, lines)]


WHOLE = [("arrived", "Ann", 0.0), ("arrived", "unknown 1", 0.4)]


def test_every_output_tells_the_same_story(tmp_path):
    said = film_video("reel", watching(), everything(tmp_path))
    assert (said["frames"], said["duration_s"], said["tracks"]) == (COUNT, COUNT / 25, 2)
    assert [v["person"] or v["stranger"] for v in said["visits"]] == ["Ann", "unknown 1"]
    assert said["problems"] == []
    assert events_of(tmp_path)[:2] == WHOLE
    assert {(kind, who) for kind, who, _ in events_of(tmp_path)[2:]} == {
        ("left", "Ann"),
        ("left", "unknown 1"),
    }
    film = list(read_video(tmp_path / "film.mp4"))
    assert [round(one.time_s * 25) for one in film] == list(range(COUNT))
    assert film[0].image.shape == (120, 200, 3)
    tracks = json.loads((tmp_path / "tracks.json").read_text())
    assert [t["person"] for t in tracks["tracks"]] == ["Ann", None]
    assert {row[0] for row in tracks["boxes"] if row[2] == 2} >= set(range(12, 29))
    assert "Ann" in (tmp_path / "who.vtt").read_text()
    assert "unknown 1" in (tmp_path / "who.html").read_text()
    assert (
        len(list((tmp_path / "faces").glob("*.jpg")))
        == said["written"][str(tmp_path / "faces")]["portraits"]
    )


def test_the_words_of_the_bar():
    told = []
    film_video("reel", watching(), Outputs(), Telling(done=lambda *words: told.append(words)))
    assert [(seen, total) for seen, total, _ in told] == [(n, COUNT) for n in range(1, COUNT + 1)]
    assert told[20][2].endswith("2 in sight, 2 so far")


def test_it_ends_by_the_clock_with_all_files_whole(tmp_path):
    said = film_video("reel", watching(), everything(tmp_path), Telling(until_s=0.8))
    assert said["stopped"]
    assert not said["interrupted"]
    assert said["frames"] == 20
    assert said["duration_s"] == 0.8
    assert len(list(read_video(tmp_path / "film.mp4"))) == said["frames"]
    assert [kind for kind, _, _ in events_of(tmp_path)].count("left") == 2


def test_a_damaged_video_gives_all_that_there_is_and_then_says_so(tmp_path):
    said = film_video("reel", watching(InputError("It is cut short.")), everything(tmp_path))
    assert said["problems"] == ["It is cut short."]
    assert said["frames"] == COUNT == len(list(read_video(tmp_path / "film.mp4")))
    assert [kind for kind, _, _ in events_of(tmp_path)].count("left") == 2


def test_a_video_without_a_frame_is_refused_and_leaves_nothing(tmp_path):
    scene = Scene(0, where)
    reel = Reel(iter(()), InputError("There is no frame."))
    with pytest.raises(InputError, match="no frame"):
        film_video("reel", scene.watching("Ann", source=reel), everything(tmp_path))
    assert not (tmp_path / "film.mp4").exists()
    assert not (tmp_path / "who.html").exists()


@contextmanager
def small_disk():
    """Files may have 4 KiB, as on a disk that is almost full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_output_that_fails_is_left_out_and_the_others_go_on(tmp_path):
    film, events = tmp_path / "film.mp4", tmp_path / "events.jsonl"
    with small_disk():
        said = film_video("reel", watching(), Outputs(draw=film, events=str(events)))
    (problem,) = said["problems"]
    assert problem.startswith(f"Cannot write {film}: File too large. Choose another place, ")
    assert said["frames"] == COUNT
    assert [kind for kind, _, _ in events_of(tmp_path)].count("left") == 2
    assert list(tmp_path.iterdir()) == [events]


def test_without_any_output_left_it_does_not_go_on(tmp_path):
    with small_disk():
        said = film_video("reel", watching(), Outputs(draw=tmp_path / "film.mp4"))
    assert len(said["problems"]) == 1
    assert said["stopped"]
    assert 0 < said["frames"] < COUNT


@pytest.mark.parametrize(
    "output",
    [
        {"draw": "film.mp4"},
        {"events": "events.csv"},
        {"tracks": "tracks.json"},
        {"subtitles": "who.srt"},
        {"timeline": "who.html"},
        {"portraits": "faces"},
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(output, tmp_path):
    """A folder that is a file, and a folder in the place of the file."""
    (tmp_path / "blocked").write_text("")
    ((name, file),) = output.items()
    places = [tmp_path / "blocked" / file]
    if name != "portraits":
        (tmp_path / file).mkdir()
        places.append(tmp_path / file)
    there = sorted(tmp_path.iterdir())
    for place in places:
        told = str(place) if name == "events" else place
        run = watching()
        with pytest.raises(FacenetError, match=re.escape(str(tmp_path))):
            film_video("reel", run, Outputs(**{name: told}))
        assert run.frames == 0
    assert sorted(tmp_path.iterdir()) == there


def test_a_film_that_is_abandoned_leaves_no_file_and_no_thread(tmp_path):
    moments = list(watching())
    sink = FilmSink(FilmPlan(tmp_path / "film.mp4"))
    for moment in moments:
        sink.take(moment)
    sink.abandon()
    sink.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_film_whose_thread_died_says_why_and_never_blocks(tmp_path):
    moments = list(watching())
    with small_disk():
        sink = FilmSink(FilmPlan(tmp_path / "film.mp4"))
        with pytest.raises(StorageError, match="film.mp4"):
            for moment in moments * AHEAD:
                sink.take(moment)
        sink.abandon()
    assert list(tmp_path.iterdir()) == []


def test_frames_at_one_time_come_one_after_the_other(tmp_path):
    same = [frame(n, 0.04 * (n // 2)) for n in range(6)]
    scene = Scene(6, lambda number: [])
    film_video("reel", scene.watching(source=Reel(same)), Outputs(draw=tmp_path / "film.mkv"))
    times = [one.time_s for one in read_video(tmp_path / "film.mkv")]
    assert len(times) == 6
    assert all(np.diff(times) > 0)


def test_hidden_faces_are_not_to_be_seen_in_the_film(tmp_path):
    outputs = Outputs(draw=tmp_path / "film.mkv", blur="unknown", hide="fill", boxes=False)
    film_video("reel", watching(), outputs)
    shown = list(read_video(tmp_path / "film.mkv"))[20].image
    plain = frame(20).image

    def texture(image, box):
        x1, y1, x2, y2 = (int(v) for v in box)
        return float(image[y1 + 12 : y2 - 12, x1 + 10 : x2 - 10].std())

    assert texture(shown, BEN(20)) < texture(plain, BEN(20)) / 4
    assert texture(shown, ANN(20)) > texture(plain, ANN(20)) / 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"blur": "some", "draw": "x"}, "all, unknown"),
        ({"blur": "all"}, "--draw"),
        ({"append": True}, "--events"),
        ({"hide": "fill", "draw": "x"}, "--blur"),
        ({"boxes": False, "silent": True}, "--plain and --silent are for the film"),
        ({"trail": 1.0}, "--trail is for the film"),
        ({"trail": 1.0, "boxes": False, "draw": "x"}, "not both"),
        ({"append": True, "events": "-"}, "--events"),
    ],
)
def test_options_that_do_not_go_together(wrong, said):
    with pytest.raises(SettingsError, match=said):
        Outputs(**wrong)


def test_a_full_disk_under_the_events_is_told_and_the_tracks_are_written(tmp_path):
    place = tmp_path / "full.jsonl"
    place.symlink_to("/dev/full")
    said = film_video("reel", watching(), Outputs(events=str(place), tracks=tmp_path / "t.json"))
    assert any("full.jsonl" in problem for problem in said["problems"])
    assert json.loads((tmp_path / "t.json").read_text())["frames"] == COUNT


def test_an_error_of_any_kind_ends_the_film_and_not_the_wait(tmp_path):
    sink = FilmSink(FilmPlan(tmp_path / "film.mp4"))
    moment = list(watching())[0]
    nothing = Moment(Frame(0, 0.0, np.zeros((0, 0, 3), np.uint8)), moment.faces, True, {})
    with pytest.raises((FacenetError, cv2.error)):
        for _ in range(10 * AHEAD):
            sink.take(nothing)
    sink.abandon()
    assert list(tmp_path.iterdir()) == []
