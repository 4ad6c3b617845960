"""A small film of real faces, from the file to the events, with the built-in models."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from clips import write_clip

import facenet
from facenet.images import load_image

KNOWN = Path(__file__).resolve().parents[2] / "examples" / "known"
WIDTH, HEIGHT, FRAMES = 320, 200, 60


def pasted(canvas, picture, left):
    """The part of a picture that is on the canvas when its left edge is there."""
    tall, wide = picture.shape[:2]
    start, end = max(0, left), min(WIDTH, left + wide)
    if start < end:
        canvas[:tall, start:end] = picture[:, start - left : end - left]


def film(path):
    """Grace Hopper goes out at the right after a second and comes in again; Eileen Collins stays
    at the left, somewhat smaller."""
    hopper = cv2.resize(load_image(KNOWN / "Grace Hopper.jpg"), (150, 176))
    collins = cv2.resize(load_image(KNOWN / "Eileen Collins.jpg"), (150, 150))
    pictures = []
    for number in range(FRAMES):
        canvas = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
        way = number if number < FRAMES // 2 else FRAMES - 1 - number
        pasted(canvas, hopper, 160 + 6 * max(0, way - 4))
        pasted(canvas, collins, number // 8)
        pictures.append(canvas)
    return write_clip(path, pictures)


def test_who_was_here_from_when_to_when(tmp_path) -> None:
    known = {name: KNOWN / f"{name}.jpg" for name in ("Eileen Collins", "Grace Hopper")}
    with facenet.watch(film(tmp_path / "door.mp4"), known=known) as watching:
        moments = list(watching)
    assert [moment.frame.number for moment in moments] == list(range(FRAMES))
    events = [event for moment in moments for event in moment.events]
    assert sorted((event.type, event.person) for event in events) == [
        ("arrived", "Eileen Collins"), ("arrived", "Grace Hopper"),
        ("left", "Eileen Collins"), ("left", "Grace Hopper"),
    ]  # fmt: skip
    assert {event.time_s for event in events if event.type == "arrived"} == {0.0}
    assert all(event.time_s > 2.2 for event in events if event.type == "left")
    collins, hopper = sorted(watching.tracks, key=lambda track: track.person or "")
    assert watching.figures["tracks"] == 2
    for track in (collins, hopper):
        assert track.identity.similarity > track.identity.threshold
        assert 0 < track.identity.fmr < 1e-4
        assert len(track.portraits) >= 2
        picture = load_image(track.portraits[0].jpeg)
        box = track.portraits[0].face
        assert 0 <= box[0] < box[2] <= picture.shape[1]
    shown = [hopper.id in moment.faces.track_id for moment in moments]
    assert shown[1]  # the track is confirmed with its second detection
    assert shown[-1]
    assert not shown[FRAMES // 2]
    assert all(collins.id in moment.faces.track_id for moment in moments[1:])
