"""Frames become moments: what is held, what is said between, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from scenes import SIZE, WIDTH, Scene, frame, looks, told, walk

import facenet
from facenet.errors import ContractError, DataError, EngineError, InputError, SettingsError
from facenet.faces.embed import Embedder
from facenet.faces.track import TrackSettings
from facenet.galleries import Gallery
from facenet.gallery.calibrate import Threshold
from facenet.gallery.compare import People
from facenet.gallery.judgement import EnrolmentRules
from facenet.recognizer import Recognizer
from facenet.video.enrolling import enroll_track
from facenet.video.identity import Asked, GalleryPeople
from facenet.video.settings import WatchSettings

SURE = TrackSettings(confirm=1)


def two(number):
    """Ada goes to the right, Bob to the left below her."""
    return [("Ada", walk(10, 1)(number)), ("Bob", walk(150, -1, top=90, side=24)(number))]


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_each_frame_is_a_moment_and_boxes_between_are_interpolated(stride) -> None:
    scene = Scene(40, two)
    settings = WatchSettings(stride=stride, track=SURE)
    moments = list(scene.watching("Ada", "Bob", settings=settings))
    assert [moment.frame.number for moment in moments] == list(range(40))
    assert [m.frame.number for m in moments if m.detected] == list(range(0, 40, stride))
    last = max(range(0, 40, stride))
    for moment in moments:
        truth = dict(two(min(moment.frame.number, last)))
        assert len(moment.faces) == 2
        for face in moment.faces:
            who = moment.people[face.track_id]
            np.testing.assert_allclose(face.box, truth[who.person], atol=1e-3)
            assert (face.embedding is None) or moment.detected
        assert moment.faces.landmarks.shape == (2, 5, 2)
    events = [event for moment in moments for event in moment.events]
    assert told(events) == [
        ("arrived", 1, "Ada"), ("arrived", 2, "Bob"), ("left", 1, "Ada"), ("left", 2, "Bob"),
    ]  # fmt: skip
    assert told(moments[-1].events)[-1] == ("left", 2, "Bob")


def test_no_more_frames_are_held_than_the_stride() -> None:
    for between, most in (("interpolate", 5 + 1), ("motion", 1 + 1)):
        scene = Scene(60, two)
        given = 0
        for _ in scene.watching(settings=WatchSettings(stride=5, between=between)):
            given += 1
            assert scene.given - (given - 1) <= most
        assert given == 60


def test_with_motion_tracks_go_on_by_their_speed() -> None:
    scene = Scene(60, two)
    settings = WatchSettings(stride=3, between="motion", track=SURE)
    moments = list(scene.watching("Ada", "Bob", settings=settings))
    assert len(moments) == 60
    for moment in moments[30:]:
        truth = dict(two(moment.frame.number))
        for face in moment.faces:
            name = moment.people[face.track_id].person
            np.testing.assert_allclose(face.box, truth[name], atol=1.5)
    assert scene.embedded[-1] > 50
    live = scene.watching(source=Live(scene.frames()))
    assert live.live
    assert {len(moment.faces) for moment in live} == {2}


class Live:
    """A camera: it has left frames out, has something to say, and can be stopped."""

    live, skipped, notices = True, 7, ["The camera was found again after 2 s."]

    def __init__(self, frames):
        self.frames, self.stopped, self.closed = frames, False, 0

    def __iter__(self):
        for one in self.frames:
            if self.stopped:
                return
            yield one

    def stop(self):
        self.stopped = True

    def close(self):
        self.closed += 1


def test_stop_lets_everybody_leave_and_close_does_not() -> None:
    scene = Scene(200, two)
    source = Live(scene.frames())
    watching = scene.watching("Ada", "Bob", source=source)
    moments = []
    for moment in watching:
        moments.append(moment)
        if len(moments) == 50:
            watching.stop()
    assert 50 <= len(moments) <= 52
    assert told(moments[-1].events) == [("left", 1, "Ada"), ("left", 2, "Bob")]
    assert source.closed
    assert (watching.skipped, watching.notices) == (7, source.notices)
    source = Live(scene.frames())
    with scene.watching("Ada", source=source) as watching:
        next(watching)
    assert source.closed
    assert next(watching, None) is None


def damaged(frames, count):
    for number, one in enumerate(frames):
        if number == count:
            raise InputError("The video is cut short.")
        yield one


@pytest.mark.parametrize("count", [1, 20, 24])
def test_of_a_damaged_file_what_there_is_comes_first(count) -> None:
    scene = Scene(40, two)
    watching = scene.watching(
        "Ada", "Bob", settings=WatchSettings(track=SURE), source=damaged(scene.frames(), count)
    )
    moments = []
    with pytest.raises(InputError, match="cut short"):
        for moment in watching:
            moments.append(moment)
    assert len(moments) == count
    events = [event for moment in moments for event in moment.events]
    assert [kind for kind, _, _ in told(events)] == ["arrived"] * 2 + ["left"] * 2
    assert [track.person for track in watching.tracks] == ["Ada", "Bob"]
    assert watching.figures["frames"] == count


def test_a_source_without_a_frame_says_so_itself() -> None:
    watching = Scene(0, two).watching(source=damaged(iter([frame(0)]), 0))
    with pytest.raises(InputError, match="cut short"):
        next(watching)
    assert list(Scene(0, two).watching()) == []


def test_frames_without_faces_and_a_video_without_any() -> None:
    scene = Scene(30, lambda number: two(number) if 9 <= number < 18 else [])
    moments = list(scene.watching("Ada", "Bob"))
    assert len(moments) == 30
    assert all(len(moments[n].faces) == 0 for n in (0, 5, 6, 25))
    assert moments[0].faces.landmarks.shape == (0, 5, 2)
    nobody = Scene(10, lambda number: []).watching("Ada")
    assert [(len(m.faces), m.people, m.events) for m in nobody] == [(0, {}, ())] * 10
    assert nobody.tracks == ()


def test_a_frame_of_another_size_is_looked_at() -> None:
    scene = Scene(30, two, sizes=lambda number: SIZE if number < 10 else (240, 400))
    moments = list(scene.watching("Ada", "Bob", settings=WatchSettings(stride=4)))
    assert [m.frame.number for m in moments if m.detected] == [0, 4, 8, 10, 14, 18, 22, 26]
    np.testing.assert_array_equal(moments[9].faces.boxes, moments[8].faces.boxes)
    assert all(len(moment.faces) == 2 for moment in moments)
    names = [[moment.people[n].person for n in moment.people] for moment in moments[1:]]
    assert all(sorted(found) == ["Ada", "Bob"] for found in names)  # before the second look too


def test_times_that_do_not_rise_are_not_looked_at() -> None:
    times = [0.0, 0.04, 0.04, 0.04, 0.03, 0.2, 0.24]
    frames = [frame(number, time_s) for number, time_s in enumerate(times)]
    watching = Scene(7, two).watching(settings=WatchSettings(stride=1), source=iter(frames))
    moments = list(watching)
    assert [moment.detected for moment in moments] == [True, True, False, False, False, True, True]
    assert {len(moment.faces) for moment in moments} == {2}


def test_faces_are_embedded_where_it_is_needed() -> None:
    """Always while somebody is new or two are near each other, else in every third look."""
    apart = Scene(60, lambda n: [("Ada", (5, 10, 45, 58)), ("Bob", (160, 70, 190, 106))])
    list(apart.watching(settings=WatchSettings(stride=1)))
    assert apart.embedded[:5] == [0, 1, 2, 3, 4]
    assert set(np.diff(apart.embedded[8:])) == {3}
    near = Scene(60, lambda n: [("Ada", (5, 10, 45, 58)), ("Bob", (60, 10, 100, 58))])
    list(near.watching(settings=WatchSettings(stride=1)))
    assert near.embedded == list(range(60))
    coming = Scene(60, lambda n: two(n)[: 1 + (n >= 40)])
    list(coming.watching(settings=WatchSettings(stride=1)))
    assert {40, 41, 42, 43} <= set(coming.embedded)
    without = Scene(20, two)
    moments = list(without.watching(settings=WatchSettings(embed=False)))
    assert without.embedded == []
    assert all(moment.faces.embedding is None for moment in moments)


def test_a_face_that_cannot_be_embedded_is_followed_all_the_same() -> None:
    outside = (-400, -400, -350, -340)
    card = toy_card(fmr=toy_fmr(), dimension=WIDTH)
    who = Recognizer.from_parts(
        ToyDetector(toy_faces((10, 30, 50, 78), outside)), Embedder(card, ToyEngine(WIDTH))
    )
    frames = (frame(number) for number in range(8))
    watching = facenet.watch(frames, recognizer=who, settings=WatchSettings(stride=1, track=SURE))
    moments = list(watching)
    assert {len(moment.faces) for moment in moments} == {2}
    assert {face.track_id for face in moments[-1].faces} == {1, 2}
    assert [track.portraits != () for track in watching.tracks] == [True, False]


def test_memory_is_flat() -> None:
    """People come and go; what is kept does not grow with them."""
    settings = WatchSettings(stride=1, gone_s=0.1, track=TrackSettings(confirm=1, lost_s=0.1))
    given = []
    scene = Scene(240, lambda n: [(f"person {n // 8}", (10, 30, 50, 78))] if n % 8 < 4 else [])
    watching = scene.watching(settings=settings, on_track=given.append)
    for _ in watching:
        assert len(watching.tracks) <= 2
    assert [track.id for track in given] == list(range(1, 31))
    assert watching.track_count == 30
    few = WatchSettings(stride=1, gone_s=0.1, tracks=3, track=settings.track)
    watching = scene.watching(settings=few)
    list(watching)
    assert [track.id for track in watching.tracks] == [28, 29, 30]
    assert "the first 27 were forgotten" in watching.notices[0]


# ---- the front door


ALLOWED = ("blurred", "too_small", "conflict", "unlike")
LENIENT = EnrolmentRules(
    min_face_size=None, min_sharpness=None, max_yaw=None, max_pitch=None, min_detection_score=None
)


def toy(**card):
    """A recognizer that finds one face, also in its portrait, and embeds its pixels."""
    card = toy_card(**{"fmr": toy_fmr(), "dimension": WIDTH, **card})
    whole, portrait = toy_faces((60, 25, 110, 85)), toy_faces((25, 25, 75, 85))
    found = ToyDetector(lambda image: whole if image.shape[1] == SIZE[1] else portrait)
    return Recognizer.from_parts(found, Embedder(card, ToyEngine(WIDTH)))


def shown(look, count=12, start=0):
    """Frames of somebody: noise of their own look."""
    pixels = np.random.default_rng(look).integers(1, 256, (*SIZE, 3)).astype(np.uint8)
    return [facenet.Frame(n, n / 25, pixels) for n in range(start, start + count)]


def test_known_people_are_named(tmp_path) -> None:
    known = {"Ada": shown(1)[0].image, "Bob": shown(2)[0].image}
    for people in (known, toy().enrol(known).people):
        watching = facenet.watch(shown(2), known=people, recognizer=toy())
        events = [event for moment in watching for event in moment.events]
        assert told(events) == [("arrived", 1, "Bob"), ("left", 1, "Bob")]
        assert json.loads(json.dumps(events[0].to_dict()))["person_id"] == "Bob"


def test_a_gallery_names_people_and_strangers_can_be_enrolled(tmp_path) -> None:
    recognizer = toy()
    with Gallery.create(tmp_path / "people.db", recognizer=recognizer) as made:
        made.enroll("Ada", shown(1)[0].image, allow=("blurred", "too_small"))
    with Gallery.open(tmp_path / "people.db", recognizer=recognizer, rules=LENIENT) as gallery:
        watching = facenet.watch(shown(1), gallery=gallery)
        assert [e.person for m in watching for e in m.events] == ["Ada", "Ada"]
        (track,) = watching.tracks
        assert track.identity.person_id == gallery.person("Ada").id
        watching = facenet.watch(shown(3), gallery=gallery)
        assert told([e for m in watching for e in m.events])[0] == ("arrived", 1, "unknown 1")
        (track,) = watching.tracks
        answers = enroll_track(gallery, track, "Zoe", allow=("conflict", "unlike"))
        assert len(answers) == len(track.portraits) == 1
        assert gallery.person("Zoe").name == "Zoe"
        face = track.portraits[0].face
        np.testing.assert_allclose(face[2:] - face[:2], (50, 60), atol=1e-3)


def test_what_a_user_decided_about_a_portrait_is_obeyed(tmp_path) -> None:
    with Gallery.create(tmp_path / "people.db", recognizer=toy()) as gallery:
        first = facenet.watch(shown(1), gallery=gallery)
        list(first)
        (answer,) = enroll_track(gallery, first.tracks[0], "Ada", allow=ALLOWED)
        gallery.enroll("Ada", shown(1, start=50)[0].image, allow=ALLOWED)
        gallery.reject(answer.face, "Ada")
        portrait = first.tracks[0].portraits[0]
        vector = gallery.recognizer.faces(shown(1)[0].image).embedding[0]
        people, level = GalleryPeople(gallery, WatchSettings()), Threshold(0.1, None)
        plain = people.find(Asked(vector), level)
        assert (plain.accepted, plain.candidates[0].person) == (True, "Ada")
        decided = people.find(Asked(vector, portrait.jpeg, portrait.face), level)
        assert decided.candidates[0].person.startswith("unknown-")


def test_pooled_people_need_more(tmp_path) -> None:
    with Gallery.create(tmp_path / "people.db", recognizer=toy()) as gallery:
        gallery.enroll("Ada", shown(1)[0].image, allow=ALLOWED)
        thresholds = []
        for pooled in (False, True):
            watching = facenet.watch(
                shown(1), gallery=gallery, settings=WatchSettings(pooled=pooled)
            )
            thresholds.append(next(e.threshold for m in watching for e in m.events))
        assert watching.tracks[0].person == "Ada"
        assert thresholds[0] < thresholds[1]


def test_frames_are_shrunk_before_they_are_looked_at() -> None:
    who = toy()
    settings = WatchSettings(resize=0.5, stride=4)
    moments = list(facenet.watch(shown(1), recognizer=who, settings=settings))
    assert who.detector.sizes == [(60, 100)] * 3
    np.testing.assert_allclose(moments[0].faces.boxes, [(50, 50, 150, 170)])


def test_an_empty_gallery_makes_everybody_unknown(tmp_path) -> None:
    with Gallery.create(tmp_path / "people.db", recognizer=toy()) as gallery:
        watching = facenet.watch(shown(1), gallery=gallery, settings=WatchSettings(fpir=0.01))
        events = [e for m in watching for e in m.events]
        assert events[0].identity.reason == "no_one_enrolled"
        assert (events[0].stranger, events[0].fpir) == ("unknown 1", None)
        assert enrolled_nobody(gallery, watching.tracks[0])


def enrolled_nobody(gallery, track):
    """Whether a track without portraits is refused."""
    with pytest.raises(InputError, match="should have portraits"):
        enroll_track(gallery, replace(track, portraits=()), "Zoe")
    return True


def test_what_cannot_be_watched_is_refused_before_the_first_frame(tmp_path) -> None:
    other = toy(preprocess={"standardise": "per_image"})
    with Gallery.create(tmp_path / "people.db", recognizer=toy()) as gallery:
        with pytest.raises(ContractError, match="the model it was made with"):
            facenet.watch(shown(1), gallery=gallery, recognizer=other)
        with pytest.raises(SettingsError, match="either known or gallery"):
            facenet.watch(shown(1), gallery=gallery, known=tmp_path)
        with pytest.raises(SettingsError, match="fpir should be"):
            facenet.watch(shown(1), gallery=gallery, settings=WatchSettings(fpir=1e-9))
    people = People(("Ada",), looks("Ada")[None], "another model")
    with pytest.raises(ContractError, match="the known people"):
        facenet.watch(shown(1), known=people, recognizer=toy())
    with pytest.raises(InputError, match="at least one"):
        facenet.watch(shown(1), known={}, recognizer=toy())
    with pytest.raises(DataError):
        facenet.watch(shown(1), known=tmp_path / "nowhere", recognizer=toy())
    with pytest.raises(InputError, match="nothing.mp4"):
        facenet.watch(tmp_path / "nothing.mp4", recognizer=toy())
    with pytest.raises(SettingsError, match="source is left out"):
        facenet.watch(shown(1), recognizer=toy(), source=facenet.SourceSettings())
    with pytest.raises(SettingsError, match="source is left out"):
        facenet.watch(7, recognizer=toy())
    with pytest.raises(SettingsError, match="needs embeddings"):
        facenet.watch(shown(1), known={}, settings=WatchSettings(embed=False))


def test_a_model_without_rates_follows_people_and_names_by_similarity_only() -> None:
    bare = toy(fmr=None)
    watching = facenet.watch(shown(1), recognizer=bare)
    assert told([e for m in watching for e in m.events])[0] == ("arrived", 1, "unknown 1")
    known = {"Ada": shown(1)[0].image}
    with pytest.raises(SettingsError, match="has no table"):
        facenet.watch(shown(1), known=known, recognizer=bare)
    settings = WatchSettings(threshold=0.5)
    watching = facenet.watch(shown(1), known=known, recognizer=bare, settings=settings)
    (event, _) = [e for m in watching for e in m.events]
    assert (event.person, event.threshold, event.fmr) == ("Ada", 0.5, None)


def test_an_engine_that_fails_ends_it_and_the_source_is_closed() -> None:
    scene = Scene(9, two)

    def broken(image):
        raise EngineError("The device is gone.")

    scene.detect = broken
    source = Live(scene.frames())
    with pytest.raises(EngineError, match="gone"):
        next(scene.watching(source=source))
    assert source.closed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0}, "stride should be a whole number, 1 or more; got 0"),
        ({"stride": True}, "stride should be"),
        ({"between": "guess"}, "between should be one of interpolate, motion"),
        ({"resize": 1.5}, "resize should be a number above 0 and at most 1"),
        ({"gone_s": float("nan")}, "gone_s should be"),
        ({"budget": -1.0}, "budget should be"),
        ({"budget": 1.0, "stride": 20}, "max_stride should be at least the stride"),
        ({"fmr": 1e-4, "fpir": 0.1}, "got fmr and fpir"),
        ({"fmr": 1e-4, "embed": False}, "fmr is for telling people apart"),
        ({"min_quality": 1.0}, "min_quality should be"),
        ({"portraits": -1}, "portraits should be"),
        ({"seen_s": "1"}, "seen_s should be"),
    ],
)
def test_options_that_there_cannot_be(options, words) -> None:
    with pytest.raises(SettingsError, match=words):
        WatchSettings(**options)
