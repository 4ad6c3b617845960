"""Events of a video against who was there: hand-made scenes, and a clip of two people watched."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr

from facenet import vectors
from facenet.apps.jobs.visitscoring import (
    GONE_S,
    VISIT_STRIDES,
    Stay,
    There,
    VisitScore,
    fitting_gone_s,
    score_visits,
    stays,
    visit_rows,
    visits_text,
    watch_clip,
)
from facenet.data.movingfaces import MovingFrame
from facenet.faces.embed import Embedder
from facenet.faces.track import TrackSettings
from facenet.gallery.compare import People
from facenet.recognizer import Recognizer
from facenet.video.events import VideoEvent
from facenet.video.identity import Identity

RATE = 25
SIZE = (70, 200)
NAMES = ("Ada", "Bob", "Cem")


def box_of(person, shift=0.0):
    """Each person has a place of 40 x 50 pixels."""
    return np.array([60 * person + 40 + shift, 10, 60 * person + 80 + shift, 60], np.float32)


def scene(frames, *spans, boxes=box_of):
    """spans: (person, first frame, last frame, share that is shown)."""
    there = []
    for number in range(frames):
        now = [(who, shown) for who, first, last, shown in spans if first <= number <= last]
        there.append(
            There(
                number / RATE,
                (SIZE[1], SIZE[0]),
                np.array([boxes(who) for who, _ in now], np.float32).reshape(-1, 4),
                np.array([who for who, _ in now], np.int64),
                np.array([shown for _, shown in now], np.float32),
            )
        )
    return there


def event(kind, frame, box, *, name=None, track=1):
    if isinstance(box, int):
        box = box_of(box)
    when = frame / RATE
    return VideoEvent(kind, when, frame, when, track, Identity(person=name), np.float32(box))


def test_an_absence_of_gone_s_is_the_same_visit_and_one_frame_more_is_another():
    there = scene(300, (0, 10, 50, 1), (0, 100, 120, 0.5), (1, 0, 299, 0.49), (2, 5, 5, 1))
    moment, whole = stays(there, 2.0)
    assert moment == Stay(2, 0.2, 0.2, pytest.approx(1 / RATE))
    assert whole == Stay(0, 0.4, 4.8, pytest.approx((41 + 21) / RATE))
    apart = stays(there, 49 / RATE)
    assert [(one.from_s, one.to_s) for one in apart if one.person == 0] == [(0.4, 2.0), (4.0, 4.8)]
    assert [one.seen_s for one in apart[1:]] == pytest.approx([41 / RATE, 21 / RATE])
    assert [apart[1].away(time_s) for time_s in (0.0, 1.0, 3.0)] == pytest.approx([0.4, 0, 1.0])


def test_who_is_gone_is_not_a_matter_of_frames():
    assert fitting_gone_s(scene(50, (0, 0, 49, 1))) == 2.0
    once = scene(300, (0, 0, 100, 1), (0, 155, 299, 1))  # away for 2.2 s
    assert fitting_gone_s(once) == 1.2
    assert fitting_gone_s(scene(300, (0, 0, 100, 1), (0, 172, 299, 1))) == 1.8  # 2.88 s
    # hidden for 3 s, but a quarter of the face shows in the middle: 1.48 to 3 s
    glimpse = scene(300, (0, 0, 100, 1), (0, 137, 138, 0.25), (0, 175, 299, 1))
    assert fitting_gone_s(glimpse) == 4.0


def test_of_absences_of_all_lengths_the_farthest_is_taken():
    lengths = (1.0, 1.32, 1.8, 2.6, 3.2, 3.6, 4.0)
    spans, start = [], 0
    for length in lengths:
        spans.append((0, start, start, 1))
        start += round(length * RATE)
    there = scene(start + 1, *spans, (0, start, start, 1))
    best = max(min(abs(one - length) for length in lengths) for one in GONE_S)
    found = fitting_gone_s(there)
    assert min(abs(found - length) for length in lengths) == pytest.approx(best)
    assert found == 2.2


def test_every_visit_with_one_arrival():
    there = scene(300, (0, 10, 60, 1), (0, 200, 299, 1), (1, 0, 299, 1))
    visits = stays(there, 2.0)
    assert [(one.person, one.from_s) for one in visits] == [(1, 0.0), (0, 0.4), (0, 8.0)]
    events = [
        event("arrived", 12, 0), event("arrived", 0, 1), event("left", 58, 0),
        event("arrived", 201, 0), event("seen", 250, 0), event("left", 299, 0),
        event("left", 290, 1),
    ]  # fmt: skip
    score = score_visits(there, visits, events, NAMES)
    assert (score.visits, score.arrived, score.once) == (3, 3, 3)
    assert (score.missed, score.excess) == (0, 0)
    assert sorted(score.left) == pytest.approx([0, 2 / RATE, 9 / RATE])
    assert (score.right, score.wrong, score.unknown, score.strangers, score.named) == (0,) * 5


def test_arrivals_too_many_and_visits_missed():
    there = scene(300, (0, 10, 60, 1), (0, 200, 299, 1), (1, 0, 299, 1))
    visits = stays(there, 2.0)
    twice = [event("arrived", 12, 0), event("arrived", 50, 0), event("left", 20, 0)]
    nobody = [event("arrived", 100, 0), event("left", 100, 0), event("arrived", 30, 2)]
    score = score_visits(there, visits, [*twice, *nobody], NAMES)
    assert (score.visits, score.arrived, score.once) == (3, 4, 0)
    assert (score.missed, score.excess) == (2, 1 + 2)
    assert score.left == pytest.approx([40 / RATE])


def test_the_box_must_overlap_and_the_best_counts():
    there = scene(100, (0, 0, 99, 1), (1, 0, 99, 1))
    visits = stays(there, 2.0)
    for share, hit in ((0.299, 0), (0.301, 1)):
        moved = 40 * (1 - share) / (1 + share)  # overlap of two boxes 40 wide
        score = score_visits(there, visits, [event("arrived", 5, box_of(0, -moved))], NAMES)
        assert (score.once, score.excess) == (hit, 1 - hit)
    near = scene(100, (0, 0, 99, 1), (1, 0, 99, 1), boxes=lambda who: box_of(0, 10 * who))
    events = [event("arrived", 5, box_of(0, 4)), event("left", 50, box_of(0, 6))]
    score = score_visits(near, stays(near, 2.0), events, NAMES, known=["Ada"])
    assert (score.once, score.missed, score.unknown, score.strangers) == (1, 1, 1, 0)
    assert score.left == pytest.approx([49 / RATE])


def test_of_a_face_at_the_edge_the_part_inside_counts():
    there = scene(50, (0, 0, 49, 0.6), boxes=lambda who: box_of(0, -60))  # x -20 to 20
    visits = stays(there, 2.0)
    inside = np.float32([0, 10, 20, 60])
    for box, hit in ((inside, 1), (inside - [900, 0, 0, 0], 1), (inside + [16, 0, 16, 0], 0)):
        score = score_visits(there, visits, [event("arrived", 5, box)], NAMES)
        assert (score.once, score.excess) == (hit, 1 - hit)


def test_who_is_hidden_behind_somebody_did_not_arrive():
    def place(who):
        return box_of(0, 2 * who)

    there = scene(100, (0, 0, 99, 1), (1, 0, 49, 0.2), (1, 50, 99, 1), boxes=place)
    visits = stays(there, 2.0)
    events = [event("arrived", 5, place(1)), event("arrived", 60, place(1))]
    score = score_visits(there, visits, events, NAMES)
    assert (score.once, score.excess) == (2, 0)
    alone = scene(100, (1, 0, 49, 0.2), (1, 50, 99, 1), boxes=place)
    score = score_visits(alone, stays(alone, 2.0), [event("arrived", 5, place(1))], NAMES)
    assert (score.visits, score.once, score.excess) == (1, 1, 0)


def test_a_moment_may_be_reported_once_and_half_a_face_too():
    there = scene(100, (0, 10, 25, 1), (1, 0, 99, 0.4), (2, 0, 18, 1))
    visits = stays(there, 2.0)
    for times, excess in ((0, 0), (1, 0), (2, 1)):
        events = [event("arrived", 11 + time, 0) for time in range(times)]
        score = score_visits(there, visits, events, NAMES)
        assert (score.visits, score.once, score.missed) == (1, 0, 1)  # Cem, 19 frames
        assert (score.arrived, score.excess) == (times, excess)
    score = score_visits(there, visits, [event("arrived", 50, 1)], NAMES)
    assert (score.visits, score.arrived, score.excess) == (1, 1, 0)


def test_an_arrival_belongs_to_the_nearest_visit():
    there = scene(200, (0, 0, 30, 1), (0, 31, 150, 0.3), (0, 151, 199, 1))
    visits = stays(there, 2.0)
    assert len(visits) == 2
    for frame, rows in ((60, (1, 0)), (120, (0, 1))):
        own = score_visits(there, visits, [event("left", frame, 0)], NAMES).left
        assert own == pytest.approx([abs(frame / RATE - visits[rows.index(1)].to_s)])


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ([("arrived", "Ada"), ("left", "Ada")], "right"),
        ([("arrived", None), ("named", "Ada"), ("left", "Ada")], "right"),
        ([("arrived", "Ada"), ("named", None), ("left", None)], "unknown"),
        ([("arrived", None), ("left", None)], "unknown"),
        ([("arrived", "Bob"), ("named", "Ada"), ("left", "Ada")], "wrong"),
        ([("arrived", "Ada"), ("left", "Bob")], "wrong"),
    ],
)
def test_names_of_known_people(said, outcome):
    there = scene(100, (0, 0, 99, 1))
    events = [event(kind, 10, 0, name=name) for kind, name in said]
    score = score_visits(there, stays(there, 2.0), events, NAMES, known=["Ada", "Bob"])
    counts = {name: getattr(score, name) for name in ("right", "wrong", "unknown")}
    assert counts == {**dict.fromkeys(counts, 0), outcome: 1}
    assert (score.strangers, score.named) == (0, 0)


def test_names_of_strangers():
    there = scene(100, (0, 0, 99, 1), (1, 0, 99, 1), (2, 0, 99, 1))
    events = [
        event("arrived", 10, 1), event("left", 90, 1),
        event("arrived", 10, 2), event("named", 20, 2, name="Ada"), event("left", 90, 2),
    ]  # fmt: skip
    score = score_visits(there, stays(there, 2.0), events, NAMES, known=["Ada"])
    assert (score.strangers, score.named, score.missed) == (2, 1, 1)
    assert score.right + score.wrong + score.unknown == 0


def test_counts_agree_with_each_other_whatever_happens():
    random = np.random.default_rng(4)
    for _ in range(60):
        spans = [
            (who, first, first + int(random.integers(1, 90)), float(random.uniform(0.3, 1)))
            for who in range(3)
            for first in (int(random.integers(0, 60)), int(random.integers(200, 260)))
        ]
        there = scene(400, *spans)
        visits = stays(there, 1.0)
        events = [
            event("arrived", int(random.integers(400)), int(random.integers(3))) for _ in range(8)
        ]
        score, times, nobody, unseen = score_visits(there, visits, events, NAMES), {}, 0, 0
        for one in events:
            who = round(float(one.box[0] - 40) / 60)
            mine = [visit for visit in visits if visit.person == who]
            if who not in there[one.frame].people:
                nobody += 1
            elif not mine:
                unseen += 1
            else:
                nearest = min(mine, key=lambda visit: visit.away(one.time_s))
                times[nearest] = times.get(nearest, 0) + 1
        assert score.arrived == 8 == sum(times.values()) + nobody + unseen
        assert score.excess == 8 - len(times) - unseen
        lasting = [visit for visit in visits if visit.seen_s > 0.74]
        assert score.visits == len(lasting)
        assert score.missed == sum(visit not in times for visit in lasting)
        assert score.once == sum(times.get(visit) == 1 for visit in lasting)


# ---- watched

CARD = toy_card(fmr=toy_fmr())
GRAIN = np.random.default_rng(0).integers(1, 256, (*SIZE, 3)).astype(np.uint8)
LOOKS = np.eye(8, dtype=np.float32)


class Clip:
    """A made-up `MovingClip`: its frames, and what a recognizer would see in each."""

    names = NAMES

    def __init__(self, there):
        self.there = there

    def __iter__(self):
        for number, now in enumerate(self.there):
            yield MovingFrame(number, now.time_s, GRAIN, now.boxes, now.people, now.shown)

    def looked(self):
        found, noise = [], np.random.default_rng(1)
        for now in self.there:
            rows = [LOOKS[who] + noise.normal(0, 0.05, 8) for who in now.people]
            table = vectors.unit(np.array(rows, np.float32).reshape(-1, 8))
            faces = toy_faces(*now.boxes)[np.arange(len(now.people))]
            found.append(faces.with_(embedding=table, contract=CARD.contract))
        return found


def watched(clip, known):
    detector, engine = ToyDetector([]), ToyEngine()
    recognizer = Recognizer.from_parts(detector, Embedder(CARD, engine))
    people = People(known, LOOKS[[NAMES.index(name) for name in known]], CARD.contract)
    found = watch_clip(
        clip, clip.there, clip.looked(), recognizer, known=people, track=TrackSettings()
    )
    assert not detector.sizes and not engine.calls
    return found


def test_a_clip_is_watched_at_every_stride_with_and_without_names():
    clip = Clip(scene(160, (0, 0, 40, 1), (0, 120, 159, 1), (1, 20, 159, 1), (2, 70, 120, 1)))
    found = watched(clip, ("Ada", "Cem"))
    assert list(found) == [(named, stride) for named in (False, True) for stride in VISIT_STRIDES]
    for (named, stride), score in found.items():
        assert (score.visits, score.arrived, score.once) == (4, 4, 4), (named, stride)
        assert (score.missed, score.excess) == (0, 0)
        assert len(score.left) == 4 and max(score.left) <= (stride - 1) / RATE + 1e-9
        names = (score.right, score.wrong, score.unknown, score.strangers, score.named)
        assert names == ((3, 0, 0, 1, 0) if named else (0,) * 5)


def test_a_wrong_name_is_found_out():
    clip = Clip(scene(60, (0, 0, 59, 1), (1, 0, 59, 1)))
    looks = LOOKS[[1, 0]]
    people = People(("Ada", "Cem"), looks, CARD.contract)  # Ada as Bob looks, Cem as Ada
    recognizer = Recognizer.from_parts(ToyDetector([]), Embedder(CARD, ToyEngine()))
    found = watch_clip(
        clip, clip.there, clip.looked(), recognizer, known=people, track=TrackSettings()
    )
    for stride in VISIT_STRIDES:
        score = found[True, stride]
        assert (score.right, score.wrong, score.unknown) == (0, 1, 0)
        assert (score.strangers, score.named) == (1, 1)


def test_rows_are_sums_and_a_table():
    one = VisitScore(3, 4, 2, 1, 1, (0.25, 1.5), 1, 0, 1, 1, 0)
    other = VisitScore(2, 2, 2, 0, 0, (0.5,), 1, 1, 0, 0, 0)
    rows = visit_rows([{(False, 3): one, (True, 3): other}, {(False, 3): one, (True, 3): one}])
    assert [(row["known"], row["stride"]) for row in rows] == [(False, 3), (True, 3)]
    plain, named = rows
    assert (plain["visits"], plain["arrived"], plain["excess"]) == (6, 8, 2)
    assert (plain["right"], plain["named"], plain["left_median_s"]) == (None, None, 0.875)
    assert (named["right"], named["wrong"], named["unknown"], named["strangers"]) == (2, 1, 1, 1)
    assert (named["left_median_s"], named["left_max_s"]) == (0.5, 1.5)
    found = {"known": 2, "unseen": 1, "strangers": 3, "gone_s": [2.0, 1.5], "rows": rows}
    said, titles, *lines = visits_text(found).splitlines()
    assert said == (
        "Visits; somebody is gone after 1.5 to 2 (by clip) s. Known are 2 people, 1 by a picture "
        "that is not shown; 3 are strangers."
    )
    assert titles.split()[:3] == ["known", "stride", "visits"]
    assert lines[0].split() == ["no", *"368422", "0.875", "1.5", *"-----"]
    empty = visit_rows([{(False, 1): VisitScore()}])[0]
    assert (empty["left_median_s"], empty["left_max_s"]) == (None, None)
    alone = {"known": 0, "unseen": 0, "strangers": 5, "gone_s": [2.0], "rows": [empty]}
    assert visits_text(alone).startswith("Visits; somebody is gone after 2 s.\n")
