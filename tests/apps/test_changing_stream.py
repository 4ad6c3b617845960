"""A live stream that changes the size of its frames, from the camera to the film."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import count

import cv2
import numpy as np
import pytest
from clips import write_clip
from servers import http_server, live, pushed
from shell import opened, run

import facenet
from facenet.apps.jobs.filming.whole import Outputs, Telling, film_video

SIZES = ((200, 224), (400, 448), (300, 224))
"""Width and height: as it was, twice as large, and with 50 grey columns on each side."""


@pytest.fixture(scope="module")
def views(examples):
    """Sixty pictures in which Grace Hopper passes by, alone, and comes back."""
    group = np.asarray(opened(examples / "photos/group.jpg").convert("RGB").resize((640, 224)))
    there = [np.ascontiguousarray(group[:, 280 + 2 * n : 480 + 2 * n]) for n in range(30)]
    return there + there[::-1]


def sized(picture, place):
    """A picture as the camera sends it in the size of that place."""
    if place == 2:
        return np.pad(picture, ((0, 0), (50, 50), (0, 0)), constant_values=128)
    return cv2.resize(picture, SIZES[place], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def transport(views, tmp_path_factory):
    """MPEG-TS: twenty frames of each size."""
    folder = tmp_path_factory.mktemp("transport")
    data = b""
    for place in range(3):
        shown = range(20 * place, 20 * place + 20)
        clip = folder / f"{place}.ts"
        pictures = [sized(views[number], place) for number in shown]
        write_clip(clip, pictures, times=list(shown), base=Fraction(1, 25))
        data += clip.read_bytes()
    (folder / "all.ts").write_bytes(data)
    return folder / "all.ts"


@pytest.mark.parametrize("between", ["interpolate", "motion"])
def test_one_person_stays_one_visit_and_the_film_keeps_its_size(
    between, transport, examples, tmp_path
):
    film = tmp_path / "film.mp4"
    outputs = Outputs(
        draw=film, events=str(tmp_path / "e.jsonl"), tracks=tmp_path / "t.json", trail=1.0
    )
    moments = []
    with http_server({"/a": live(transport, visits=1)}) as (host, _):
        watching = facenet.watch(
            f"http://{host}/a",
            known=examples / "known",
            settings=facenet.WatchSettings(between=between),
            source=facenet.SourceSettings(live=False, reconnect=0),
        )
        said = film_video("", watching, outputs, Telling(moment=moments.append))
    assert [moment.frame.image.shape[1::-1] for moment in moments] == [
        size for size in SIZES for _ in range(20)
    ]
    assert moments[20].detected and moments[40].detected
    assert [v["person"] for v in said["visits"]] == ["Grace Hopper"]
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert [event["type"] for event in events] == ["arrived", "left"]
    assert events[1]["visit_s"] > 2
    for moment in moments:
        wide = SIZES[moment.frame.image.shape[0] == 448][0]
        (box,) = moment.faces.boxes
        assert 0.25 < (box[2] - box[0]) / wide < 0.45
    changed = [notice for notice in said["notices"] if " changed from " in notice]
    assert len(changed) == 2
    (fitted,) = [notice for notice in said["notices"] if "they are fitted in" in notice]
    assert "the first, 200 x 224 pixels (the first of them 400 x 448, number 20)" in fitted
    (problem,) = said["problems"]
    assert problem.endswith("the connection was lost; it was not opened again, as reconnect is 0.")
    require_film(film, moments)


def require_film(film, moments):
    """Sixty frames of the first size: those of another one scaled, with black beside them."""
    shown = list(facenet.read_video(film))
    assert [frame.image.shape for frame in shown] == [(224, 200, 3)] * 60
    times = [moment.frame.time_s for moment in moments]
    assert [frame.time_s for frame in shown] == pytest.approx(times, abs=1e-4)
    for frame, moment in zip(shown, moments, strict=True):
        true = moment.frame.image
        wide, tall = true.shape[1::-1]
        high = round(tall * 200 / wide)
        top = (224 - high) // 2
        rows = frame.image[top : top + high]
        small = cv2.resize(true, (200, high), interpolation=cv2.INTER_AREA)
        away = np.abs(rows.astype(int) - small).mean(axis=2)
        assert np.median(away) < 6  # boxes, names and trails cover the rest
        beside = [*frame.image[: max(0, top - 2)], *frame.image[top + high + 2 :]]
        assert all(row.max() < 24 for row in beside)
        assert len(beside) == (0 if top == 0 else 224 - high - 4)


def big(event):
    """Whether an event tells of a frame of the larger size."""
    return event["box"][2] - event["box"][0] > 100


class Director:
    """Sends small pictures until somebody has arrived, then is silent or not, and sends large ones
    until the events tell of them. silent: the stream stalls, and comes back on the next visit."""

    def __init__(self, views, events, *, silent):
        self._views, self._events, self._silent = views, events, silent

    def __call__(self, visit, over):
        if visit == 0:
            yield from self._sent(0, over, lambda event: event["type"] == "arrived")
            if self._silent:
                over.wait()
        if visit == self._silent:
            yield from self._sent(1, over, big)

    def _sent(self, place, over, told):
        """Pictures at their pace until an event is what is waited for."""
        for number in count():
            if over.wait(0.04) or any(map(told, events_of(self._events))):
                return
            yield sized(self._views[number % 60], place)


def events_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("silent", [False, True])
def test_the_camera_command_goes_on_with_another_size(silent, views, examples, tmp_path):
    film, events = tmp_path / "film.mp4", tmp_path / "events.jsonl"
    director = Director(views, events, silent=silent)
    with http_server({"/a": pushed(director)}) as (host, _):
        ran = run(
            "camera", f"http://{host}/a", "--known", examples / "known", "--draw", film,
            "--events", events, "--json", "--seen", 0.1, "--gone", 20, "--timeout", 1.5,
            "--reconnect", int(silent),
        )  # fmt: skip
    said = ran.json
    assert ran.code == 2  # it was lost in the end
    (problem,) = said["problems"]
    assert problem.startswith(f"http://{host}/a was lost after ")
    assert ("it was tried once to open it again. The last try: " in problem) == silent
    told = events_of(events)
    kinds = [event["type"] for event in told]
    assert kinds == ["arrived", *["seen"] * (len(kinds) - 2), "left"]
    assert {event["person"] for event in told} == {"Grace Hopper"}
    assert not big(told[0])
    assert any(map(big, told))
    assert "changed from 200x224 to 400x448 pixels at " in " ".join(said["notices"])
    assert ("because it gave no frame for 1.5 s; it was" in " ".join(said["notices"])) == silent
    shown = list(facenet.read_video(film))
    assert len(shown) == said["frames"]
    assert {frame.image.shape for frame in shown} == {(224, 200, 3)}
    assert shown[-1].time_s == pytest.approx(said["end_s"] - said["start_s"], abs=1e-3)
