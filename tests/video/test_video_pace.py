"""The stride that the time allows, with a clock that tests turn."""

from __future__ import annotations

import pytest
from scenes import Scene

from facenet.video.pace import Pace
from facenet.video.settings import WatchSettings


def paced(costs, *, frames=200, gap=0.04, **settings):
    """A pace after so many frames. costs: number of the frame -> seconds (looked at, passed)."""
    pace = Pace(WatchSettings(**settings))
    since = pace.stride
    for number in range(frames):
        looked = since >= pace.stride
        since = 1 if looked else since + 1
        pace.add(costs(number)[0 if looked else 1], gap if number else 0.0, looked=looked)
    return pace


@pytest.mark.parametrize(
    ("looked", "passed", "budget", "stride"),
    [
        (0.030, 0.002, 1.0, 1),  # there is time for every frame
        (0.100, 0.002, 1.0, 3),  # (0.1 - 0.002) / (0.04 - 0.002) = 2.6
        (0.100, 0.010, 0.5, 9),  # 0.09 / 0.01
        (0.100, 0.050, 1.0, 15),  # no stride would do
        (0.900, 0.001, 1.0, 15),
    ],
)
def test_the_stride_is_the_least_that_keeps_the_budget(looked, passed, budget, stride) -> None:
    pace = paced(lambda number: (looked, passed), budget=budget)
    assert pace.stride == stride
    if stride < 15:
        assert looked + (stride - 1) * passed <= budget * stride * 0.04 + 1e-9
    if stride > 1:
        assert looked + (stride - 2) * passed > budget * (stride - 1) * 0.04


def test_the_stride_follows_the_work() -> None:
    pace = paced(lambda number: (0.2 if number < 100 else 0.03, 0.001), frames=100, budget=1.0)
    assert pace.stride == 6
    pace = paced(lambda number: (0.2 if number < 100 else 0.03, 0.001), frames=400, budget=1.0)
    assert pace.stride == 1


def test_what_was_left_out_is_said() -> None:
    pace = paced(lambda number: (0.1, 0.002), budget=1.0)
    assert pace.frames == 200 == pace.looked_at + pace.passed_over
    (said,) = pace.notices()
    assert f"in {pace.looked_at} of 200 frames, one in {pace.mean_stride:.1f}." in said
    late = paced(lambda number: (0.9, 0.01), budget=1.0, max_stride=4)
    assert "The pace was not kept" in late.notices()[1]
    assert "Raise max_stride" in late.notices()[1]


def test_without_a_budget_the_stride_stays() -> None:
    pace = paced(lambda number: (5.0, 5.0), stride=4)
    assert (pace.stride, pace.notices()) == (4, [])
    assert pace.mean_stride == 4.0
    assert Pace(WatchSettings(stride=7)).mean_stride == 7.0


def test_the_first_look_does_not_count_as_it_loads_the_models() -> None:
    pace = paced(lambda number: (60.0 if number == 0 else 0.03, 0.001), budget=1.0, frames=20)
    assert pace.stride == 1


def test_frames_without_a_time_of_their_own_change_nothing() -> None:
    assert paced(lambda number: (0.1, 0.0), gap=0.0, budget=1.0).stride == 3


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_watching_adapts_and_says_what_it_passed_over() -> None:
    """Looking takes 0.1 s, what comes for 25 frames a second has 0.04."""
    clock, scene = Clock(), Scene(120, lambda number: [("Ada", (10, 30, 50, 78))])
    find = scene.detect

    def slow(image):
        clock.now += 0.1
        return find(image)

    scene.detect = slow
    watching = scene.watching(settings=WatchSettings(stride=1, budget=1.0), clock=clock)
    moments = list(watching)
    assert [moment.frame.number for moment in moments] == list(range(120))
    assert watching.figures["stride"] == pytest.approx(3, abs=0.2)
    assert watching.figures["passed_over"] == sum(not moment.detected for moment in moments)
    assert "one in" in watching.notices[0]
