"""Faces of frames that were not looked at: who moves, who stays, and who is hidden."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import toy_faces
from scenes import Scene, frame, walk

from facenet.apps.jobs.filming.annotated import to_hide
from facenet.faces.track import TrackSettings
from facenet.types import Faces
from facenet.video.between import begun, between, renamed
from facenet.video.settings import WatchSettings

ADA, BESIDE = (100, 100, 200, 200), (160, 100, 260, 200)


def faces(boxes, ids):
    return toy_faces(*boxes).with_(track_id=np.array(ids, np.int64))


def told(found):
    """Boxes with their tracks, in an order of their own."""
    return sorted(
        (*box, track)
        for box, track in zip(found.boxes.tolist(), found.track_id.tolist(), strict=True)
    )


def test_a_track_is_on_its_way_and_a_lone_face_stays():
    """Also one that is only in the later frame: somebody to hide is hidden before the look."""
    before = faces([ADA, (10, 10, 30, 40)], [1, 2])
    after = faces([BESIDE, (300, 10, 330, 50)], [1, 3])
    assert told(between(before, after, 0.5)) == [
        (10, 10, 30, 40, 2),
        (130, 100, 230, 200, 1),
        (300, 10, 330, 50, 3),
    ]


def test_a_face_of_no_track_is_never_taken_for_a_named_one_beside_it():
    """A stranger comes beside Ada, whose face is lost in that look; and the other way round."""
    ada, stranger = faces([ADA], [1]), faces([BESIDE], [0])
    for before, after in ((ada, stranger), (stranger, ada)):
        for share in (1 / 3, 2 / 3):
            found = between(before, after, share)
            assert told(found) == [(*ADA, 1), (*BESIDE, 0)]
            hidden = found.boxes[to_hide(found, {1: "Ada"}, "unknown")]
            assert hidden.tolist() == [list(BESIDE)]


def test_the_first_face_of_a_new_track_is_its_own():
    """The very face it began with, and none that has a number already."""
    before = faces([ADA, BESIDE, (10, 10, 30, 40)], [0, 0, 5])
    found = begun(before, {1: np.array(ADA, np.float32), 7: np.array((10, 10, 30, 40), np.float32)})
    assert told(found) == [(10, 10, 30, 40, 5), (*ADA, 1), (*BESIDE, 0)]
    moving = between(found, faces([(140, 100, 240, 200)], [1]), 0.5)
    assert (120, 100, 220, 200, 1) in told(moving) and (*BESIDE, 0) in told(moving)


def test_two_faces_of_no_track_stay_too():
    found = between(faces([ADA], [0]), faces([BESIDE], [0]), 0.5)
    assert told(found) == [(*ADA, 0), (*BESIDE, 0)]
    assert to_hide(found, {}, "unknown").all()


def test_tracks_that_were_found_to_be_others_get_their_numbers():
    found = renamed(faces([ADA, BESIDE], [2, 3]), {3: 1, 2: 0})
    assert found.track_id.tolist() == [0, 1]
    assert renamed(Faces.empty(), {3: 1}).track_id is None


def test_at_a_variable_rate_faces_are_where_their_time_says():
    """Frame 7 comes soon after frame 6, frame 8 much later, and somebody walks evenly in time."""
    times = [(number // 3) * 0.12 + (0, 0.01, 0.1)[number % 3] for number in range(31)]
    way = walk(5, 25)
    scene = Scene(31, lambda number: [("Ada", way(times[number]))])
    source = [frame(number, time_s) for number, time_s in enumerate(times)]
    settings = WatchSettings(stride=3, track=TrackSettings(confirm=1))
    moments = list(scene.watching(source=source, settings=settings))
    assert [moment.frame.number for moment in moments if moment.detected] == list(range(0, 31, 3))
    for moment in moments:
        (box,) = moment.faces.boxes
        assert box == pytest.approx(way(moment.frame.time_s), abs=1e-3)


def test_frames_that_were_held_name_the_track_that_goes_on():
    """Zoe comes back and looks like another at first: frames before the look in which she is known
    again are of the one visit, on one way from look to look."""

    def seen(number):
        name = "Zoe, in profile" if 50 <= number < 58 else "Zoe"
        return [(name, walk(5)(number))] if number < 30 or number >= 50 else []

    run = Scene(90, seen).watching(settings=WatchSettings(stride=3))
    moments = [(moment, dict(run.joined)) for moment in run]
    again = next(place for place, (_, joined) in enumerate(moments) if joined)
    assert not moments[again][0].detected
    assert moments[again - 1][0].faces.tracks.tolist() == [2]
    for moment, _ in moments[again:-1]:
        assert moment.faces.tracks.tolist() == [1]
        (box,) = moment.faces.boxes
        assert box == pytest.approx(walk(5)(min(87, moment.frame.number)), abs=1e-3)
    assert run.joined == {2: 1}
