"""Who came, who is here, who has gone: one arrival and one departure for each visit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import ToyDetector, toy_faces
from scenes import CARD, faces_of, frame, known_people, looks, told, visits, walk

from facenet import vectors
from facenet.faces.track import TrackSettings
from facenet.types import Faces
from facenet.video.looking import Looking, share_inside
from facenet.video.settings import WatchSettings

HERE, THERE = (10, 30, 50, 78), (120, 30, 160, 78)


class Story:
    """Feeds visits with tracks of a tracker: `see` at a time who has which number and is where."""

    def __init__(self, *names, **more):
        self.visits = visits(*names, **more)
        self.events, self.step, self.shown = [], 0, []
        self.quality = 0.8

    def see(self, time_s, *there, ended=()):
        """there: (tracker's number, name, box)."""
        self.step += 1
        faces = faces_of(*((n, box) for _, n, box in there), seed=self.step)
        faces = faces.with_(track_id=np.array([track for track, _, _ in there], np.int64))
        seen = frame(self.step, time_s)
        new = self.visits.update(seen, faces, [self.quality] * len(faces), ended)
        self.events += new
        self.shown.append(self.visits.numbers(faces.track_id).tolist())
        return told(new)

    def poor(self, time_s, *there):
        """As `see`, with faces that are hardly good enough to count."""
        before, self.quality = self.quality, 0.05
        new = self.see(time_s, *there)
        self.quality = before
        return new

    def over(self):
        self.events += self.visits.finish(1e3)
        return told(self.events)


def test_a_known_person_arrives_once_and_leaves_when_last_seen() -> None:
    story = Story("Ada", "Bob")
    for step in range(40):
        story.see(step / 10, (1, "Ada", HERE))
    assert story.see(9.0) == [("left", 1, "Ada")]
    assert story.over() == [("arrived", 1, "Ada"), ("left", 1, "Ada")]
    arrived, left = story.events
    assert (arrived.time_s, arrived.frame, arrived.reported_s) == (0.0, 1, 0.0)
    assert (left.time_s, left.frame, left.reported_s) == (3.9, 40, 9.0)
    assert left.visit_s == pytest.approx(3.9)
    assert left.identity.looks == 5  # at 1, 5 and 9 faces, 0.4 s apart, and at 16 and 32
    assert 0 < left.fmr < 1e-4
    assert left.fpir == pytest.approx(1 - (1 - left.fmr) ** 2)


def test_an_unknown_person_is_reported_after_a_few_faces_with_the_first_time() -> None:
    story = Story("Ada")
    assert [story.see(step / 10, (7, "Zoe", HERE)) for step in range(3)] == [[], [], []]
    assert story.see(0.3, (7, "Zoe", HERE)) == [("arrived", 1, "unknown 1")]
    (event,) = story.events
    assert event.time_s == 0.0
    assert event.reported_s == 0.3
    assert event.person is None
    assert event.identity.best_candidate == "Ada"
    assert event.similarity < event.threshold
    assert event.identity.reason == "below_threshold"


def test_the_first_sighting_is_that_before_the_tracker_was_sure() -> None:
    story = Story("Ada", settings=WatchSettings(track=TrackSettings(confirm=4)))
    places = walk(10, 4)
    for step in range(3):
        story.see(step / 10, (0, "Ada", places(step)))
    story.see(0.3, (1, "Ada", places(3)))
    (event,) = story.events
    assert (event.time_s, event.frame) == (0.0, 1)
    np.testing.assert_allclose(event.box, places(0))


@pytest.mark.parametrize("known", [(), ("Ada",)])
def test_somebody_who_comes_back_soon_is_the_same_track(known) -> None:
    story = Story(*known)
    for step in range(8):
        story.see(step / 10, (1, "Ada", HERE))
    for step in range(8):
        story.see(3 + step / 10, (2, "Ada", THERE), ended=[1])
    assert story.shown == [[1]] * 16
    who = known[0] if known else "unknown 1"
    assert story.over() == [("arrived", 1, who), ("left", 1, who)]
    (track,) = story.visits.tracks()
    assert track.spans == ((0.0, pytest.approx(0.7)), (3.0, pytest.approx(3.7)))
    assert (track.first_s, track.last_s, track.detections) == (0.0, pytest.approx(3.7), 16)
    assert track.over


def test_a_stranger_who_comes_back_late_has_the_same_number_in_a_new_visit() -> None:
    story = Story("Ada")
    for start, track, name in ((0, 1, "Zoe"), (20, 2, "Yan"), (40, 3, "Zoe")):
        for step in range(6):
            story.see(start + step / 10, (track, name, HERE))
    assert story.over() == [
        ("arrived", 1, "unknown 1"),
        ("left", 1, "unknown 1"),
        ("arrived", 2, "unknown 2"),
        ("left", 2, "unknown 2"),
        ("arrived", 3, "unknown 1"),
        ("left", 3, "unknown 1"),
    ]


def test_strangers_are_remembered_up_to_a_number() -> None:
    story = Story(settings=WatchSettings(strangers=2))
    for visit, name in enumerate(["Zoe", "Yan", "Xia", "Yan", "Zoe"]):
        for step in range(5):
            story.see(20 * visit + step / 10, (visit + 1, name, HERE))
    arrived = [who for kind, _, who in story.over() if kind == "arrived"]
    assert arrived == ["unknown 1", "unknown 2", "unknown 3", "unknown 2", "unknown 4"]


def test_two_people_at_one_time_have_two_names() -> None:
    """A twin: the more similar one has the name, the other is unknown, whoever came first."""
    story = Story("Ada", "Bob")
    mixed = vectors.unit(0.75 * looks("Ada") + 0.66 * looks("twin"))
    for step in range(8):
        story.step += 1
        both = toy_faces(HERE, THERE).with_(
            embedding=np.stack([mixed, looks("Ada", step)]), contract=CARD.contract
        )
        both = both.with_(track_id=np.array([1, 2]))
        there = both[:1] if step < 2 else both
        events = story.visits.update(frame(step, step / 10), there, [0.8] * len(there))
        story.events += events
    assert story.over() == [
        ("arrived", 1, "Ada"),
        ("named", 1, "unknown 1"),
        ("arrived", 2, "Ada"),
        ("left", 1, "unknown 1"),
        ("left", 2, "Ada"),
    ]
    corrected = story.events[1]
    assert (corrected.before, corrected.person) == ("Ada", None)
    assert corrected.identity.reason == "taken"


def test_a_name_that_was_wrong_is_corrected() -> None:
    """One face that looks like Bob, then many of Ada."""
    story = Story("Ada", "Bob")
    story.see(0.0, (1, "Bob", HERE))
    for step in range(1, 6):
        story.see(step / 10, (1, "Ada", HERE))
    assert [event for event in story.over() if event[0] != "left"] == [
        ("arrived", 1, "Bob"),
        ("named", 1, "Ada"),
    ]
    assert story.events[1].before == "Bob"


def test_a_tracker_that_goes_over_to_somebody_else_is_noticed() -> None:
    story = Story("Ada", "Bob")
    for step in range(8):
        story.see(step / 10, (1, "Ada", HERE))
    for step in range(8, 16):
        story.see(step / 10, (1, "Bob", HERE))
    assert story.shown[-1] == [2]
    assert story.over() == [
        ("arrived", 1, "Ada"), ("arrived", 2, "Bob"), ("left", 1, "Ada"), ("left", 2, "Bob"),
    ]  # fmt: skip
    ada, bob = story.visits.tracks()
    assert (ada.last_s, bob.first_s) == (pytest.approx(0.7), pytest.approx(0.8))
    assert float(vectors.similarity(ada.template, looks("Ada"))) > 0.95
    assert float(vectors.similarity(bob.template, looks("Bob"))) > 0.95


def test_two_tracks_that_were_exchanged_are_put_right() -> None:
    story = Story("Ada", "Bob")
    for step in range(24):
        one, two = ("Ada", "Bob") if step < 8 else ("Bob", "Ada")
        story.see(step / 10, (1, one, HERE), (2, two, THERE))
    assert story.shown[0] == [1, 2]
    assert story.shown[-1] == [2, 1]
    assert sorted(story.over()) == [
        ("arrived", 1, "Ada"), ("arrived", 2, "Bob"), ("left", 1, "Ada"), ("left", 2, "Bob"),
    ]  # fmt: skip


def test_faces_too_poor_to_count_make_no_stranger() -> None:
    story = Story("Ada")
    for step in range(30):
        story.step += 1
        faces = faces_of(("Ada", HERE), seed=step, ids=[1])
        story.events += story.visits.update(frame(step, step / 10), faces, [0.001])
    assert story.over() == [("arrived", 1, None), ("left", 1, None)]
    assert story.events[0].reported_s == 2.0
    (track,) = story.visits.tracks()
    assert track.template is None
    assert track.portraits == ()
    assert track.to_dict(vectors=True)["template"] is None


def test_heartbeats_and_the_order_of_events() -> None:
    story = Story("Ada", "Bob", settings=WatchSettings(seen_s=0.5, gone_s=1.0))
    for step in range(20):
        there = [(1, "Ada", HERE)] + ([(2, "Bob", THERE)] if step < 7 else [])
        story.see(step / 10, *there)
    assert story.over() == [
        ("arrived", 1, "Ada"), ("arrived", 2, "Bob"), ("seen", 1, "Ada"), ("seen", 2, "Bob"),
        ("seen", 1, "Ada"), ("seen", 1, "Ada"), ("left", 2, "Bob"), ("left", 1, "Ada"),
    ]  # fmt: skip
    reported = [event.reported_s for event in story.events]
    assert reported == sorted(reported)


def test_finished_tracks_go_to_a_callback_or_are_kept_up_to_a_number() -> None:
    given = []
    for settings, on_track in ((WatchSettings(tracks=2), None), (WatchSettings(), given.append)):
        story = Story(settings=settings, on_track=on_track)
        for visit in range(5):
            for step in range(4):
                story.see(20 * visit + step, (visit + 1, f"person {visit}", HERE))
        story.over()
        kept = [track.id for track in story.visits.tracks()]
        assert (kept, story.visits.forgotten) == (([], 0) if on_track else ([4, 5], 3))
    assert [track.id for track in given] == [1, 2, 3, 4, 5]
    assert all(track.over and len(track.portraits) == 4 for track in given)


def test_without_embeddings_visits_are_those_of_the_tracker() -> None:
    story = Story(settings=WatchSettings(embed=False))
    for step in range(3):
        faces = toy_faces(HERE).with_(track_id=np.array([4]))
        story.events += story.visits.update(frame(step, step / 10), faces, [0.8])
    assert told(story.events) == [("arrived", 1, None)]
    assert story.over()[-1] == ("left", 1, None)


def test_nobody_comes_and_nobody_leaves() -> None:
    story = Story("Ada")
    assert story.visits.update(frame(0), Faces.empty(), []) == []
    assert story.over() == []
    assert story.visits.tracks() == ()


@pytest.mark.parametrize("end", [lambda story: story.see(20.0), lambda story: story.over()[-3:]])
def test_those_who_leave_together_leave_in_the_order_in_which_they_were_last_seen(end) -> None:
    story = Story("Ada", "Bob", "Cid")
    places = ((1, "Ada", HERE), (2, "Bob", THERE), (3, "Cid", (70, 30, 110, 78)))
    for step, last in enumerate((places, places[:1] + places[2:], places[:1])):
        for part in range(10):
            story.see(step + part / 10, *last)
    assert end(story) == [("left", 2, "Bob"), ("left", 3, "Cid"), ("left", 1, "Ada")]


def test_spans_are_bounded() -> None:
    story = Story("Ada", settings=WatchSettings(gone_s=100.0))
    for step in range(300):
        story.see(2.0 * step + (0.5 if step == 100 else 0), (1, "Ada", HERE))
    story.over()
    (track,) = story.visits.tracks()
    assert len(track.spans) == 256
    assert (track.spans[0][0], track.spans[-1][1]) == (0.0, 598.0)


def test_a_visit_named_late_keeps_its_track() -> None:
    """Somebody is enrolled while they are here."""
    decider = known_people("Bob")
    story = Story(decider=decider)
    for step in range(4):
        story.see(step / 10, (1, "Ada", HERE))
    decider.people = known_people("Ada", "Bob").people
    for step in range(4, 9):
        story.see(step / 10, (1, "Ada", HERE))
    assert story.over() == [
        ("arrived", 1, "unknown 1"), ("named", 1, "Ada"), ("left", 1, "Ada"),
    ]  # fmt: skip
    assert story.events[1].before == "unknown 1"


def test_events_and_tracks_as_plain_values() -> None:
    story = Story("Ada")
    for step in range(4):
        story.see(step / 10, (1, "Ada", HERE))
    story.over()
    plain = story.events[0].to_dict()
    assert (plain["type"], plain["time_s"], plain["track"]) == ("arrived", 0.0, 1)
    assert (plain["person"], plain["stranger"]) == ("Ada", None)
    assert plain["box"] == [10.0, 30.0, 50.0, 78.0]
    assert plain["visit_s"] is None
    (track,) = story.visits.tracks()
    plain = track.to_dict(vectors=True)
    assert (plain["track"], plain["person"], plain["over"]) == (1, "Ada", True)
    assert len(plain["template"]) == 256
    assert plain["portraits"][0]["bytes"] == len(track.portraits[0].jpeg) > 0
    assert replace(track, template=None).to_dict()["contract"] == CARD.contract


def test_a_glimpse_where_somebody_vanished_is_no_second_person():
    story = Story("Ada")
    for step in range(20):
        story.see(step / 10, (1, "Ada", HERE))
    story.see(2.2, (2, "Bob", HERE))  # the edge of a face, like nobody
    story.see(9.0)
    assert story.over() == [("arrived", 1, "Ada"), ("left", 1, "Ada")]


def test_a_glimpse_elsewhere_is_somebody():
    story = Story("Ada")
    for step in range(20):
        story.see(step / 10, (1, "Ada", HERE))
    story.see(2.2, (2, "Bob", THERE))
    story.see(9.0)
    assert [kind for kind, _, _ in story.over()].count("arrived") == 2


def test_a_poor_glimpse_is_nobody():
    story = Story("Ada")
    for step in range(20):
        story.see(step / 10, (1, "Ada", HERE))
    story.poor(2.2, (2, "Bob", THERE))
    moved = {}
    for step in range(23, 60):
        story.see(step / 10, (1, "Ada", HERE))
        moved |= story.visits.moved
    assert story.shown[20] == [2]
    assert moved == {2: 0}
    assert story.over() == [("arrived", 1, "Ada"), ("left", 1, "Ada")]
    assert story.visits.count == len(story.visits.tracks()) == 1


def test_a_glimpse_is_of_whom_it_overlaps_most():
    """Bob left last in the list, Ada at the place of the glimpse."""
    nearby = (75, 30, 115, 78)
    story = Story("Ada", "Bob", settings=WatchSettings(gone_s=1.0))
    for step in range(8):
        story.see(step / 10, (1, "Ada", HERE), (2, "Bob", nearby))
    story.poor(1.0, (3, "Zoe", HERE))
    story.see(9.0)
    assert sorted(story.over())[2:] == [("left", 1, "Ada"), ("left", 2, "Bob")]
    left = {event.person: event.time_s for event in story.events if event.type == "left"}
    assert left == {"Ada": 1.0, "Bob": pytest.approx(0.7)}


def test_a_glimpse_before_somebody_comes_is_theirs():
    story = Story("Ada")
    story.poor(0.0, (1, "Zoe", HERE))
    for step in range(3, 40):
        story.see(step / 10, (2, "Ada", HERE))
    assert story.over() == [("arrived", 2, "Ada"), ("left", 2, "Ada")]


def test_a_stranger_waits_while_somebody_is_out_of_sight_who_it_may_be():
    """Half hidden at first: the faces say who it is only when they are many."""
    story = Story()
    for step in range(8):
        story.see(step / 10, (1, "Zoe", HERE))
    for step in range(5):
        assert story.see(1.5 + step / 10, (2, "hidden", THERE)) == []
    for step in range(12):
        assert story.see(2 + step / 10, (2, "Zoe", THERE)) == []
    assert story.over() == [("arrived", 1, "unknown 1"), ("left", 1, "unknown 1")]
    assert story.events[-1].time_s == pytest.approx(3.1)


def test_nobody_leaves_while_a_newcomer_may_be_them():
    story = Story(settings=WatchSettings(gone_s=1.0))
    for step in range(8):
        story.see(step / 10, (1, "Zoe", HERE))
    for step in range(5):
        assert story.see(1.5 + step / 10, (2, "hidden", THERE)) == []
    for step in range(12):
        story.see(2 + step / 10, (2, "Zoe", THERE))
    assert story.over() == [("arrived", 1, "unknown 1"), ("left", 1, "unknown 1")]


def test_a_newcomer_who_is_somebody_else_keeps_nobody_here():
    story = Story(settings=WatchSettings(gone_s=1.0))
    for step in range(8):
        story.see(step / 10, (1, "Zoe", HERE))
    for step in range(30):
        story.see(1.5 + step / 10, (2, "Yan", THERE))
    arrived = [(e.time_s, e.reported_s) for e in story.events if e.type == "arrived"]
    left = [(e.time_s, e.reported_s) for e in story.events if e.type == "left"]
    assert arrived == [(0.0, 0.7), (1.5, pytest.approx(3.5))]
    assert left == [(pytest.approx(0.7), pytest.approx(3.5))]


def test_a_track_that_ends_where_another_comes_back_is_the_same_visit():
    """The tracker gives a face a new number for a while, and then the old one again."""
    story = Story()
    for step in range(8):
        story.see(step / 10, (1, "Zoe", HERE))
    for step in range(12):
        story.see(2 + step / 10, (2, "hidden", THERE))
    for step in range(20):
        story.see(3.2 + step / 10, (1, "Zoe", THERE))
    assert story.over() == [("arrived", 1, "unknown 1"), ("left", 1, "unknown 1")]


def test_the_edge_of_a_newcomer_is_no_return():
    """A lost track takes a face elsewhere, which never is like the one that it was of."""
    story = Story("Ada")
    for step in range(8):
        story.see(step / 10, (1, "Ada", HERE))
    story.see(1.0)
    for step in range(5):
        story.poor(2 + step / 10, (1, "Bob", THERE))
    story.see(9.0)
    assert story.over() == [("arrived", 1, "Ada"), ("left", 1, "Ada")]
    assert story.events[-1].time_s == pytest.approx(0.7)
    (track,) = story.visits.tracks()
    assert track.spans == ((0.0, pytest.approx(0.7)),)


def test_a_newcomer_whom_a_lost_track_took_begins_where_they_were_first_seen():
    story = Story("Ada", "Bob")
    for step in range(8):
        story.see(step / 10, (1, "Ada", HERE))
    story.see(1.0)
    for step in range(4):
        story.poor(2 + step / 10, (1, "Bob", THERE))
    for step in range(4):
        story.see(2.4 + step / 10, (1, "Bob", THERE))
    assert story.over() == [
        ("arrived", 1, "Ada"), ("arrived", 2, "Bob"), ("left", 1, "Ada"), ("left", 2, "Bob"),
    ]  # fmt: skip
    assert [round(event.time_s, 3) for event in story.events] == [0.0, 2.0, 0.7, 2.7]


def test_two_who_begin_at_one_time_begin_at_two_places():
    """The first sighting of each is a face of its own, the one that is like it."""
    near, far = (60, 30, 100, 78), (85, 30, 125, 78)
    story = Story("Ada", "Bob")
    story.see(0.0, (0, "Ada", near), (0, "Bob", far))
    story.see(0.1, (1, "Ada", far), (2, "Bob", near))
    boxes = {event.person: event.box.tolist() for event in story.events}
    assert boxes == {"Ada": list(near), "Bob": list(far)}


def test_the_edge_of_a_face_and_then_the_whole_are_one_visit():
    """Three faces cut off, unlike those after them, before anything was reported."""
    story = Story(settings=WatchSettings(settle=12))
    for step in range(3):
        story.see(step / 10, (1, "edge", HERE))
    for step in range(3, 20):
        story.see(step / 10, (1, "Zoe", HERE))
    assert story.over() == [("arrived", 1, "unknown 1"), ("left", 1, "unknown 1")]
    assert story.events[0].time_s == 0.0
    assert float(vectors.similarity(story.visits.tracks()[0].template, looks("Zoe"))) > 0.95


def test_a_face_that_an_edge_cuts_off_is_worth_less():
    """Twins in a picture that looks the same everywhere, one of them a fifth outside."""
    image = np.tile(np.array([[[90], [160]]], np.uint8), (120, 100, 3))
    found = toy_faces((40, 30, 80, 78), (168, 30, 208, 78))
    looking = Looking(ToyDetector(lambda _: found), None, WatchSettings(), lambda _: True)
    faces, quality = looking.see(image, None)
    np.testing.assert_allclose(share_inside(faces.boxes, image), [1.0, 0.8], atol=1e-6)
    assert quality[1] < 0.7 * quality[0]
