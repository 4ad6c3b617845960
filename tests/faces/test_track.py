"""Tracks of faces: who keeps their number, and what a tracker does with odd input."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import toy_faces

from facenet.errors import ContractError, InputError, SettingsError
from facenet.faces.boxes import overlap
from facenet.faces.track import Tracker, TrackSettings
from facenet.types import Faces


def face(x, y=100.0, side=40.0):
    """The box of a face about a point."""
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def person(number, random=None):
    """An embedding: people are at right angles, pictures of one at a similarity of about 0.7."""
    row = np.zeros(64)
    row[number] = 1.0
    if random is not None:
        row += random.normal(0, 0.125, 64)
    return row / np.linalg.norm(row)


def scene(*rows, random=None, score=0.99):
    """Faces of (person, x) or (person, x, y), with embeddings where there is a generator."""
    if not rows:
        return Faces.empty()
    faces = toy_faces(*(face(*row[1:]) for row in rows), score=score)
    if random is None:
        return faces
    looks = np.array([person(row[0], random) for row in rows], np.float32)
    return faces.with_(embedding=looks, contract="toy:1")


def numbers(tracker, frames):
    """The track of each person in each frame; None for one who is not there. frames: (s, rows)."""
    random = np.random.default_rng(0) if tracker.settings.appearance else None
    found = []
    for time_s, rows in frames:
        tracks = tracker.update(scene(*rows, random=random), time_s).track_id.tolist()
        found.append({row[0]: track for row, track in zip(rows, tracks, strict=True)})
    return found


def each(found, who):
    """The numbers that a person had, without 0."""
    return {frame[who] for frame in found if frame.get(who)}


PLAIN = TrackSettings(appearance=0)


@pytest.mark.parametrize("settings", [PLAIN, TrackSettings()])
@pytest.mark.parametrize("rate", [25, 6])
def test_two_who_cross_keep_their_numbers(settings, rate):
    """At 3 widths a second each, at the same height; the one behind is hidden while they touch."""
    frames = []
    for k in range(int(3 * rate)):
        time = k / rate
        left, right = 20 + 120 * time, 380 - 120 * time
        hidden = abs(left - right) < 30
        frames.append((time, [(0, left)] if hidden else [(0, left), (1, right)]))
    found = numbers(Tracker(settings), frames)
    assert each(found, 0) != each(found, 1)
    assert len(each(found, 0)) == len(each(found, 1)) == 1


def turning():
    """Two walk up to each other, are one face for a while, and turn back: motion misleads."""
    for k in range(75):
        away = max(8.0, abs(k / 25 - 1.5) * 120)
        rows = [(0, 200 - away), (1, 200 + away)]
        yield k / 25, rows if away > 15 else rows[:1]


def test_two_who_meet_and_turn_back_are_told_by_their_faces():
    found = numbers(Tracker(), turning())
    assert len(each(found, 0)) == len(each(found, 1)) == 1
    assert each(found, 0) != each(found, 1)


def test_without_appearance_embeddings_are_not_looked_at():
    """Not even those that would be refused."""
    tracker, random = Tracker(PLAIN), np.random.default_rng(0)
    for k in range(4):
        faces = scene((k % 2, 100.0), random=random).with_(contract=f"toy:{k}")
        tracks = tracker.update(faces, k / 10).track_id.tolist()
    assert tracks == [1] and tracker.active == [1]


def test_frames_may_come_at_any_pace():
    random = np.random.default_rng(3)
    times = np.cumsum(random.choice([0.02, 0.04, 0.2, 0.5], 40))
    frames = [(float(t), [(0, 100 + 80 * t), (1, 3000 - 120 * t, 300)]) for t in times]
    found = numbers(Tracker(PLAIN), frames)
    assert each(found, 0) == {1} and each(found, 1) == {2}


def test_a_short_absence_is_the_same_track_and_a_long_one_is_not():
    for away, same in ((0.5, True), (1.9, True), (2.5, False)):
        times = [k / 10 for k in range(10)] + [0.9 + away + k / 10 for k in range(10)]
        tracker = Tracker()
        found = numbers(tracker, [(t, [(0, 100.0)]) for t in times])
        assert (len(each(found, 0)) == 1) is same, away
        assert tracker.ended() == ([] if same else [1])
        assert tracker.ended() == []


def test_a_long_gap_ends_all():
    tracker = Tracker()
    numbers(tracker, [(k / 10, [(0, 50.0), (1, 200.0)]) for k in range(5)])
    assert tracker.active == [1, 2]
    assert tracker.update(scene((0, 50.0)), 1e9).track_id.tolist() == [0]
    assert (tracker.active, tracker.ended()) == ([], [1, 2])


def test_tracks_are_confirmed_with_their_kth_detection():
    tracker = Tracker(TrackSettings(confirm=3))
    seen = []
    for k in range(5):
        rows = [(0, 100.0)] if k < 2 else [(0, 100.0), (1, 300.0)]
        found = tracker.update(scene(*rows), k / 10)
        seen.append((found.track_id.tolist(), tracker.confirmed_now))
    assert seen == [
        ([0], []),
        ([0], []),
        ([1, 0], [1]),
        ([1, 0], []),
        ([1, 2], [2]),
    ]
    once = Tracker(TrackSettings(confirm=1))
    assert once.update(scene((0, 9.0), (1, 90.0)), -5.0).track_id.tolist() == [1, 2]
    assert once.confirmed_now == [1, 2]


def test_a_flash_leaves_no_track():
    tracker = Tracker()
    for k in range(20):
        rows = [(0, 100.0)] + [(1, 400.0)] * (k == 5)
        tracker.update(scene(*rows), k / 10)
    assert tracker.active == [1] and tracker.ended() == []


def test_unsure_faces_continue_tracks_but_begin_none():
    settings = TrackSettings(high=0.6, low=0.2, new=0.7)
    tracker = Tracker(settings)
    scores = [0.99, 0.99, 0.3, 0.25, 0.1, 0.3, 0.99]
    found = [tracker.update(scene((0, 100.0), score=s), k / 10) for k, s in enumerate(scores)]
    assert [f.track_id.tolist() for f in found] == [[0], [1], [1], [1], [0], [1], [1]]
    middling = Tracker(settings)
    for k in range(4):
        assert middling.update(scene((0, 100.0), score=0.65), k / 10).track_id.tolist() == [0]
    assert middling.active == []


def test_sure_faces_come_first():
    """An unsure face that fits better does not take the track of a sure one."""
    tracker = Tracker(TrackSettings(appearance=0, high=0.6, low=0.2))
    for k in range(3):
        tracker.update(scene((0, 100.0)), k / 10)
    both = toy_faces(face(100), face(106)).with_(detection_score=[0.4, 0.9])
    assert tracker.update(both, 0.3).track_id.tolist() == [0, 1]


def test_the_faces_come_back_as_they_were():
    tracker, random = Tracker(), np.random.default_rng(1)
    given = []
    for k in range(3):
        faces = scene((0, 300.0), (1, 50.0), (2, 150.0), random=random)
        order = random.permutation(3)
        found = tracker.update(faces[order], k / 10)
        assert found.with_(track_id=None) == faces[order]
        assert found.track_id.dtype == np.int64
        given.append(found.track_id[np.argsort(order)].tolist())
    assert given[0] == [0, 0, 0] and sorted(given[1]) == [1, 2, 3] and given[2] == given[1]


def test_between_detections_motion_is_better_than_the_last_box():
    """Faces at 1 to 9 widths a second, every sixth frame detected: how much the boxes overlap."""
    for speed in (1, 3, 9):
        tracker, moved, reused = Tracker(), [], []
        last = None
        for k in range(60):
            box = face(40 * speed * k / 25)
            if k % 6 == 0:
                last = tracker.update(toy_faces(box), k / 25)
            elif k > 12:
                there = np.array([box], np.float32)
                guess = tracker.predict(k / 25)
                assert guess.track_id.tolist() == [1]
                moved.append(overlap(guess.boxes, there)[0, 0])
                reused.append(overlap(last.boxes, there)[0, 0])
                spots = toy_faces(box).landmarks
                assert np.abs(guess.landmarks - spots).max() < 3 + speed
        assert np.mean(moved) > 0.9 > np.mean(reused)


def test_predict_shows_what_the_last_frame_showed():
    tracker = Tracker()
    assert len(tracker.predict(5.0)) == 0
    numbers(tracker, [(k / 10, [(0, 300.0), (1, 50.0)]) for k in range(4)])
    tracker.update(scene((1, 50.0), (2, 500.0), score=0.8), 0.4)
    before = tracker.predict(0.45)
    assert before.track_id.tolist() == [2]
    assert before.detection_score.tolist() == pytest.approx([0.8])
    tracker.predict(1.5)
    assert tracker.predict(0.45) == before
    bare = Tracker()
    for k in range(3):
        bare.update(scene((0, 9.0)).with_(landmarks=None), k / 10)
    assert bare.predict(0.3).landmarks is None
    bare.update(Faces.empty(), 0.5)
    assert len(bare.predict(0.6)) == 0 and bare.active == [1]


@pytest.mark.parametrize("time_s", [0.3, 0.2, -1.0, float("nan"), float("inf")])
def test_time_that_does_not_go_on_is_refused_and_harms_nothing(time_s):
    frames = [(k / 10, [(0, 100.0 + 8 * k)]) for k in range(4)]
    tracker, other = Tracker(PLAIN), Tracker(PLAIN)
    numbers(tracker, frames), numbers(other, frames)
    with pytest.raises(InputError, match="later than the last, at 0.3; got"):
        tracker.update(scene((0, 132.0)), time_s)
    if time_s != 0.3:
        with pytest.raises(InputError, match="predict should get a time from 0.3 seconds on"):
            tracker.predict(time_s)
    assert tracker.predict(0.5) == other.predict(0.5)
    assert tracker.update(scene((0, 132.0)), 0.4) == other.update(scene((0, 132.0)), 0.4)
    with pytest.raises(InputError, match="should be seconds, the first one; got nan"):
        Tracker().update(scene((0, 1.0)), float("nan"))


def test_the_embeddings_are_of_one_model():
    tracker, random = Tracker(), np.random.default_rng(0)
    tracker.update(scene((0, 100.0), random=random), 0.0)
    other = scene((0, 100.0), random=random).with_(contract="toy:2")
    with pytest.raises(ContractError, match="embeddings of one model, toy:1; got those of toy:2"):
        tracker.update(other, 0.1)
    assert tracker.update(scene((0, 100.0), random=random), 0.1).track_id.tolist() == [1]


def test_embeddings_may_come_and_go():
    tracker, random = Tracker(), np.random.default_rng(0)
    for k in range(12):
        faces = scene((0, 100.0), (1, 300.0), random=random if k % 3 == 2 else None)
        found = tracker.update(faces if k != 6 else scene(), k / 10)
    assert found.track_id.tolist() == [1, 2]


def test_a_frame_of_another_size_changes_nothing():
    """The tracker knows pixels, not frames: where they mean something else, tracks begin anew."""
    tracker = Tracker(PLAIN)
    for k in range(4):
        tracker.update(scene((0, 100.0)), k / 10)
    assert tracker.update(scene((0, 100.0)), 0.4).track_id.tolist() == [1]
    half = toy_faces(face(1200, 900, 20))
    assert [tracker.update(half, 0.5 + k / 10).track_id.tolist() for k in (0, 1)] == [[0], [2]]


@pytest.mark.filterwarnings("error")
def test_boxes_that_are_none_are_no_track():
    odd = np.array(
        [
            face(100),
            (np.nan, 0, 40, 40),
            (0, 0, np.inf, 40),
            (10, 10, 10, 50),
            (50, 50, 20, 90),
            (-3e38, -3e38, 3e38, 3e38),
        ],
        np.float32,
    )
    tracker = Tracker()
    for k in range(4):
        looks = np.array([person(i) for i in range(6)], np.float32)
        looks[0] = np.nan if k % 2 else 0.0
        points = np.full((6, 5, 2), np.nan, np.float32)
        faces = Faces(odd, points, np.full(6, 0.99), embedding=looks, contract="toy:1")
        found = tracker.update(faces, k / 10)
    assert found.track_id.tolist() == [1, 0, 0, 0, 0, 0]
    guess = tracker.predict(0.4)
    assert np.isfinite(guess.boxes).all() and np.isfinite(guess.landmarks).all()
    blind = scene((0, 100.0)).with_(detection_score=[np.nan])
    assert tracker.update(blind, 0.5).track_id.tolist() == [0]


def test_five_hundred_faces_keep_their_numbers():
    random = np.random.default_rng(0)
    places = np.stack(np.meshgrid(np.arange(25), np.arange(20)), -1).reshape(-1, 2) * 60.0
    way = random.uniform(-40, 40, places.shape)
    tracker = Tracker()
    for k in range(6):
        middle = places + way * k / 10
        order = random.permutation(500)
        boxes = np.concatenate([middle - 15, middle + 15], 1).astype(np.float32)[order]
        looks = np.eye(500, dtype=np.float32)[order]
        faces = Faces(boxes, None, np.full(500, 0.95), embedding=looks, contract="toy:1")
        found = tracker.update(faces, k / 10).track_id[np.argsort(order)]
        if k == 1:
            first = found
    assert sorted(first.tolist()) == list(range(1, 501))
    np.testing.assert_array_equal(found, first)


def test_the_same_faces_give_the_same_tracks():
    def run():
        random, tracker = np.random.default_rng(5), Tracker()
        for k in range(30):
            there = random.random(8) < 0.8
            rows = [(i, 60.0 * i + 9 * k, 100 + 5 * i) for i in range(8) if there[i]]
            yield (
                tracker.update(scene(*rows, random=random), k / 12),
                tracker.predict(k / 12 + 0.01),
            )

    assert list(run()) == list(run())


def test_settings_that_cannot_be_are_refused():
    for options, said in (
        ({"high": 1.5}, "high should be a number from 0 to 1; got 1.5"),
        ({"high": 0.5, "low": 0.6}, "low should be a number from 0 to 0.5; got 0.6"),
        ({"new": float("nan")}, "new should be a number from 0 to 1; got nan"),
        ({"confirm": 0}, "confirm should be a whole number of detections, 1 or more; got 0"),
        ({"lost_s": -1}, "lost_s should be a number from 0 to 86400; got -1"),
        ({"appearance": float("inf")}, "appearance should be a number from 0 to 10000; got inf"),
    ):
        with pytest.raises(SettingsError, match=said):
            TrackSettings(**options)
